"""Tiny packs of the systems beside DTPM, whose graphs see all of their tile: every value has a part of a mean."""

from __future__ import annotations

from pocketprior.core.pack.manifest import ArraySpec, TileWindow
from support.packs import CODE, IMAGE, SCALAR, VECTOR, WIDTH, Tiny, Writer

__all__ = ["ANCESTRAL", "DIFFIR", "GEN2RES", "MEANS", "PRIOR", "WINDOW"]

PRIOR = 7
WINDOW = TileWindow(edge=96, overlap=16)
MEANS = TileWindow(edge=64, overlap=0)
IPR = ArraySpec("float32", (1, PRIOR))


class GlobalWriter(Writer):
    """Networks with a term that is the same all over the tile."""

    def mean(self, features: str) -> str:
        """(1, c, h, w) -> (1, c, 1, 1)."""
        return self.op("ReduceMean", features, self.shape(2, 3), keepdims=1)

    def seeing_all(self, name: str, features: str, channels: int, bias: str) -> str:
        """The network, with the mean of its own output taken off: (1, 3, h, w)."""
        local = self.network(name, features, channels, bias)
        return self.op("Sub", local, self.mean(local))


class DiffirWriter(GlobalWriter):
    """The graphs of a DiffIR."""

    def encode(self, image: str) -> str:
        features = self.op("Tanh", self.op("Conv", image, self.weight("encode", CODE, 3, 3, 3), pads=[1] * 4))
        return self.op("Reshape", self.mean(features), self.shape(1, CODE))

    def denoise(self, x: str, features: str, t: str) -> str:
        told = self.op("MatMul", self.op("Mul", features, t), self.weight("told", CODE, PRIOR))
        return self.op("Tanh", self.op("Add", self.op("MatMul", x, self.weight("state", PRIOR, PRIOR)), told))

    def compose(self, image: str, prior: str) -> str:
        bias = self.op("MatMul", prior, self.weight("bias", PRIOR, WIDTH))
        change = self.seeing_all("compose", image, 3, bias)
        return self.op("Add", image, self.op("Mul", change, self.number(0.1)))


class Gen2ResWriter(GlobalWriter):
    """The graph of a Gen2Res, with learned variance where it has two outputs."""

    def denoise(self, x: str, t: str) -> str:
        time = self.op("Mul", self.weight("time", 1, WIDTH), t)
        return self.op("Add", self.op("Mul", x, self.number(0.6)), self.seeing_all("denoise", x, 3, time))


class AncestralWriter(Gen2ResWriter):
    """The same, with a learned variance."""

    def denoise(self, x: str, t: str) -> tuple[str, str]:  # type: ignore[override]
        eps = super().denoise(x, t)
        return eps, self.op("Tanh", eps)


DIFFIR = Tiny(
    DiffirWriter,
    {
        "encode": ({"image": IMAGE}, {"features": VECTOR}),
        "denoise": ({"x": IPR, "features": VECTOR, "t": SCALAR}, {"x0": IPR}),
        "compose": ({"image": IMAGE, "prior": IPR}, {"restored": IMAGE}),
    },
    {
        "model": "diffir",
        "receptive_field": {"encode": MEANS, "compose": WINDOW},
        "sampler": "posterior_mean",
        "predicts": "x0",
        "start": "noise",
        "levels": (0.0026, 0.26, 0.635, 0.9, 1.0),
        "times": (0.75, 0.5, 0.25, 0.0),
        "state": IPR.shape,
        "residual_scale": 1.0,
        "gain": 1.0,
        "conditions": None,
    },
)

_GEN2RES = {
    "model": "gen2res",
    "receptive_field": {"denoise": WINDOW},
    "predicts": "eps",
    "start": "image",
    "levels": (0.66, 0.8, 0.95, 1.0),
    "times": (0.2, 0.13, 0.05),
    "state": IMAGE.shape,
    "residual_scale": 0.5,
    "gain": 1.0,
    "conditions": None,
}
GEN2RES = Tiny(
    Gen2ResWriter,
    {"denoise": ({"x": IMAGE, "t": SCALAR}, {"eps": IMAGE})},
    {**_GEN2RES, "sampler": "ddim"},
)
ANCESTRAL = Tiny(
    AncestralWriter,
    {"denoise": ({"x": IMAGE, "t": SCALAR}, {"eps": IMAGE, "variance": IMAGE})},
    {**_GEN2RES, "sampler": "ancestral"},
)
