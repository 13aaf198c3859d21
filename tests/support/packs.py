"""Small but real packs for the tests: the graphs of a tiny network, its manifest, a golden restoration.

What is here is a DTPM; `system_packs.py` has the other systems.

Both parts of the network go down to a quarter of the resolution by a strided convolution and back, so that sizes that
are no multiple of four and tiles off the grid would show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pocketprior.core.pack.manifest import ArraySpec, Conditions, Golden, GraphSpec, Manifest, PackedFile, Size
from pocketprior.core.pack.store import packed_file
from pocketprior.core.restore.restorer import Restorer
from pocketprior.core.restore.selftest import write_golden
from pocketprior.core.sampling.noise import NOISE_SPEC

__all__ = ["ADJUSTABLE", "DTPM", "RADIUS", "Tiny", "Writer", "build", "graph_bytes", "photo", "rewrite"]

CODE = 5
SIDE = 8
WIDTH = 6
RADIUS = 9  # of one pass through the network, counted by hand: 4 (c - 1) - 2 .. 4 (c + 1) + 3 for the cell c
LEVELS = (0.0, 0.6, 1.0)
TIMES = (1.0, 0.5)
RESIDUAL_SCALE = 0.1
GAIN = 0.8

IMAGE = ArraySpec("float32", (1, 3, "h", "w"))
MAP = ArraySpec("float32", (1, 1, "h", "w"))
SCALAR = ArraySpec("float32", (1,))
VECTOR = ArraySpec("float32", (1, CODE))
THUMBNAIL = ArraySpec("float32", (1, 3, SIDE, SIDE))


class Writer:
    """Nodes and weights of one graph; equal names share one weight."""

    def __init__(self, nan: bool, salt: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, NDArray[np.float32]] = {}
        self.nan, self.salt = nan, salt

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def weight(self, name: str, *shape: int) -> str:
        seed = sum(map(ord, name + self.salt))
        values = np.random.default_rng(seed).standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
        self.weights[name] = values.astype(np.float32)
        if self.nan:
            self.weights[name].flat[0] = np.nan
        return name

    def number(self, value: float) -> str:
        self.weights[f"c{value}"] = np.array(value, np.float32)
        return f"c{value}"

    def network(self, name: str, features: str, channels: int, bias: str = "") -> str:
        """(1, channels, h, w) -> (1, 3, h, w) by way of (1, WIDTH, h / 4, w / 4), where `bias` (1, WIDTH) is added."""
        down = self.op("SpaceToDepth", features, blocksize=2)
        narrow = self.weight(f"{name}.in", WIDTH, 4 * channels, 3, 3)
        low = self.op("Conv", down, narrow, strides=[2, 2], pads=[1, 1, 1, 1])
        if bias:
            low = self.op("Add", low, self.op("Reshape", bias, self.shape(1, WIDTH, 1, 1)))
        wide = self.weight(f"{name}.out", 48, WIDTH, 3, 3)
        return self.op("DepthToSpace", self.op("Conv", self.op("Tanh", low), wide, pads=[1] * 4), blocksize=4)

    def shape(self, *sizes: int) -> str:
        name = "shape" + "x".join(map(str, sizes))
        self.weights[name] = np.array(sizes, np.int64)  # type: ignore[assignment]
        return name

    def mix(self, x: str, a: float, y: str, b: float) -> str:
        """a x + b y."""
        return self.op("Add", self.op("Mul", x, self.number(a)), self.op("Mul", y, self.number(b)))


class DtpmWriter(Writer):
    """The graphs of a DTPM."""

    def encode(self, thumbnail: str) -> str:
        flat = self.op("Reshape", thumbnail, self.shape(1, 3 * SIDE * SIDE))
        return self.op("MatMul", flat, self.weight("encode", 3 * SIDE * SIDE, CODE))

    def predict(self, image: str) -> str:
        return self.op("Add", image, self.op("Mul", self.network("predict", image, 3), self.number(0.2)))

    def denoise(self, x: str, base: str, code: str, t: str) -> str:
        bias = self.op("Mul", self.op("MatMul", code, self.weight("denoise.code", CODE, WIDTH)), t)
        return self.network("denoise", self.op("Concat", x, base, axis=1), 6, bias)

    def fused(self, image: str, noise: str, code: str, strength: str) -> str:
        base = self.predict(image)
        texture = self.op("Mul", self.sampled(noise, base, code), self.number(GAIN * RESIDUAL_SCALE))
        return self.together(base, texture, strength)

    def together(self, base: str, texture: str, strength: str) -> str:
        whole = self.op("Add", base, self.op("Mul", texture, strength))
        return self.op("Clip", whole, self.number(0.0), self.number(1.0))

    def sampled(self, x: str, base: str, code: str) -> str:
        for t, level, following in zip(TIMES, LEVELS[:-1], LEVELS[1:], strict=True):
            v = self.denoise(x, base, code, self.op("Reshape", self.number(t), self.shape(1)))
            clean = self.mix(x, math.sqrt(level), v, -math.sqrt(1 - level))
            eps = self.mix(x, math.sqrt(1 - level), v, math.sqrt(level))
            x = self.mix(clean, math.sqrt(following), eps, math.sqrt(1 - following))
        return x


class AdjustableWriter(DtpmWriter):
    """A DTPM that smooths, the more the worse it takes the image to be, and that takes the amount."""

    def predict(self, image: str, amount: str) -> tuple[str, str]:  # type: ignore[override]
        one, zero = self.number(1.0), self.number(0.0)
        share, more = self.op("Clip", amount, zero, one), self.op("Max", amount, one)
        seen = self.op("ReduceMean", self.network("damage", image, 3), self.shape(1), keepdims=1)
        damage = self.op("Mul", self.op("Sigmoid", seen), self.number(0.5))
        mean = self.op("AveragePool", image, kernel_shape=[5, 5], pads=[2] * 4, count_include_pad=0)
        change = self.op("Mul", self.op("Sub", mean, image), self.op("Mul", damage, more))
        base = self.op("Add", image, self.op("Mul", change, share))
        return base, self.op("Mul", self.op("Mul", damage, share), self.number(RESIDUAL_SCALE))

    def fused(self, image: str, noise: str, amount: str, code: str, strength: str) -> str:  # type: ignore[override]
        base, amplitude = self.predict(image, amount)
        return self.together(base, self.op("Mul", self.sampled(noise, base, code), amplitude), strength)


class Tiny(NamedTuple):
    """A tiny system: what writes its graphs, their interfaces, and the fields of its manifest that are its own."""

    writer: type[Writer]
    interfaces: Mapping[str, tuple[dict[str, ArraySpec], dict[str, ArraySpec]]]
    fields: dict[str, Any]


DTPM = Tiny(
    DtpmWriter,
    {
        "encode": ({"thumbnail": THUMBNAIL}, {"code": VECTOR}),
        "predict": ({"image": IMAGE}, {"base": IMAGE}),
        "denoise": ({"x": IMAGE, "base": IMAGE, "code": VECTOR, "t": SCALAR}, {"v": IMAGE}),
        "fused": ({"image": IMAGE, "noise": IMAGE, "code": VECTOR, "strength": SCALAR}, {"restored": IMAGE}),
    },
    {
        "model": "dtpm",
        "receptive_field": {"predict": RADIUS, "denoise": RADIUS, "fused": (1 + len(TIMES)) * RADIUS},
        "sampler": "ddim",
        "predicts": "v",
        "start": "noise",
        "levels": LEVELS,
        "times": TIMES,
        "state": IMAGE.shape,
        "residual_scale": RESIDUAL_SCALE,
        "gain": GAIN,
        "conditions": Conditions(thumbnail=SIDE),
    },
)


ADJUSTABLE = Tiny(
    AdjustableWriter,
    {
        **DTPM.interfaces,
        "predict": ({"image": IMAGE, "amount": SCALAR}, {"base": IMAGE, "amplitude": MAP}),
        "fused": (
            {"image": IMAGE, "noise": IMAGE, "amount": SCALAR, "code": VECTOR, "strength": SCALAR},
            {"restored": IMAGE},
        ),
    },
    {**DTPM.fields, "residual_scale": 1.0, "gain": 1.0},
)


def build(
    folder: Path, tiny: Tiny = DTPM, *, graphs: tuple[str, ...] = (), nan: str = "", golden: bool = True
) -> Manifest:
    """Write a pack of `graphs` (none: all) to `folder`; the graph `nan` has a weight that is not a number."""
    graphs = graphs or tuple(tiny.interfaces)
    folder.mkdir(parents=True, exist_ok=True)
    for name in graphs:
        (folder / f"{name}.onnx").write_bytes(graph_bytes(name, tiny, nan=name == nan))
    (folder / "README.md").write_text("# A pack for tests\n")
    manifest = manifest_of(folder, tiny, graphs)
    if golden:
        manifest = replace(manifest, golden={"noisy": golden_of(folder, manifest)})
    manifest.save(folder)
    return manifest


def rewrite(folder: Path, manifest: Manifest) -> None:
    """Save a changed manifest, with the hashes that the files in `folder` now have."""
    graphs = {
        name: replace(graph, files={"onnx": {"fp32": packed_file(folder, f"{name}.onnx")}})
        for name, graph in manifest.graphs.items()
    }
    replace(manifest, graphs=graphs).save(folder)


def photo(height: int, width: int, dtype: type[np.uint8] | type[np.uint16] = np.uint8, seed: int = 0) -> NDArray:  # type: ignore[type-arg]
    """A smooth picture with noise, so that tiles differ from one another: (height, width, 3)."""
    y, x = np.mgrid[:height, :width][..., np.newaxis]
    smooth = 0.5 + 0.3 * np.sin(y / 17 + np.arange(3)) * np.cos(x / 23)
    noisy = smooth + 0.05 * np.random.default_rng(seed).standard_normal((height, width, 3))
    return (np.clip(noisy, 0, 1) * np.iinfo(dtype).max).astype(dtype)


def graph_bytes(name: str, tiny: Tiny = DTPM, *, nan: bool = False, fixed: bool = False, weights: str = "") -> bytes:
    """The ONNX file of one graph; fixed: for tiles of 16 x 16 alone; weights: another word gives other weights."""
    inputs, outputs = tiny.interfaces[name]
    writer = tiny.writer(nan, weights)
    results = getattr(writer, name)(*inputs)
    for result, output in zip([results] if isinstance(results, str) else results, outputs, strict=True):
        writer.nodes.append(helper.make_node("Identity", [result], [output]))
    constants = [numpy_helper.from_array(array, n) for n, array in writer.weights.items()]
    graph = helper.make_graph(writer.nodes, name, _values(inputs, fixed), _values(outputs, fixed), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _values(arrays: dict[str, ArraySpec], fixed: bool) -> list[onnx.ValueInfoProto]:
    shapes = {n: [16 if fixed and isinstance(s, str) else s for s in spec.shape] for n, spec in arrays.items()}
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]


def manifest_of(folder: Path, tiny: Tiny, graphs: tuple[str, ...]) -> Manifest:
    specs = {
        name: GraphSpec(*tiny.interfaces[name], files={"onnx": {"fp32": packed_file(folder, f"{name}.onnx")}})
        for name in graphs
    }
    tiled = [name for name in graphs if specs[name].spatial]
    own = dict(tiny.fields)
    own["receptive_field"] = {name: reach for name, reach in own["receptive_field"].items() if name in graphs}
    if "encode" not in graphs:
        own["conditions"] = None
    card = packed_file(folder, "README.md")
    return Manifest(
        format=1,
        name="tiny-cleanup",
        tasks=("cleanup",),
        value_range=(0.0, 1.0),
        size=Size(multiple_of=4, minimum=8),
        noise=NOISE_SPEC,
        graphs=specs,
        precision={"onnx": dict.fromkeys(graphs, "fp32")},
        parameters=dict.fromkeys(tiled, 1000),
        macs_per_pixel=dict.fromkeys(tiled, 300.5),
        bytes_per_pixel=dict.fromkeys(tiled, 400),
        parity={"onnx fp32": {"max_level": 0.0}},
        made_by={"pocketprior": "test"},
        card=card,
        golden={"unmade": Golden(card, 0, "stands in until the pack can be run")},
        **own,
    )


def golden_of(folder: Path, manifest: Manifest) -> Golden:
    manifest.save(folder)
    noisy = photo(21, 34)
    restored = Restorer.from_pack(folder)(noisy, seed=7, strength=0.5)
    packed: PackedFile = write_golden(folder, "golden/noisy.npz", photo=noisy, seed=7, strength=0.5, restored=restored)
    return Golden(packed, 1, "one level of rounding between processors")
