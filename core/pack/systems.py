"""The three systems as a pack holds them: their graphs with inputs and outputs, and the values that fields may have.

All arrays are float32; h and w, the size of a tile, are multiples of `size.multiple_of`. The graphs, in turn:

    dtpm      encode    thumbnail (1, 3, s, s)                      -> global conditions, such as code (1, n)
              predict   image (1, 3, h, w), amount (1,)             -> base (1, 3, h, w), amplitude (1, 1, h, w)
              denoise   x, base (1, 3, h, w), t (1,)                -> v, or x0, of the texture residual (1, 3, h, w)
    diffir    encode    image (1, 3, h, w)                          -> global conditions: their means over the tile
              denoise   x (1, n), t (1,)                            -> x0 of the prior vector (1, n)
              compose   image (1, 3, h, w), prior (1, n)            -> restored (1, 3, h, w)
    gen2res   denoise   x (1, 3, h, w), t (1,)                      -> eps of the photo (1, 3, h, w)
    any       fused     image (1, 3, h, w), noise, strength (1,)    -> restored (1, 3, h, w): all but encode

    dtpm      fused     amount (1,) as well

A DTPM that estimates the damage takes `amount`, 0..2, how much of it is removed, in predict and in fused, and its
predict returns `amplitude`, the standard deviation of the texture at strength 1; one that does not has neither.

Every graph but encode may also take any of the global conditions; denoise of a DTPM may take image in addition to base,
that of a Gen2Res may return `variance` (1, 3, h, w) for the sampler "ancestral": where, from -1 to 1, the logarithm of
the step's variance lies between its two bounds. noise has the shape of x. A pack has fused, or all graphs of the steps
but encode, or both, and encode where something takes its conditions. No graph is fused for "ancestral", which adds
noise on the way.
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

__all__ = ["IMAGE", "MAP", "SCALAR", "SYSTEMS", "ArraySpec", "GraphInterface", "SystemSpec"]


class ArraySpec(NamedTuple):
    """One input or output of a graph; "h" and "w" stand for the height and width of the tile."""

    dtype: str
    shape: tuple[int | str, ...]


IMAGE = ArraySpec("float32", (1, 3, "h", "w"))
MAP = ArraySpec("float32", (1, 1, "h", "w"))
SCALAR = ArraySpec("float32", (1,))
_STATE = "state"  # stands for the array of the sampled state, whose shape is in the manifest
_PREDICTED = "predicted"  # stands for the name of the output of denoise, which is in the manifest


class GraphInterface(NamedTuple):
    """The inputs and outputs of a graph by name, and which of them are optional."""

    inputs: dict[str, ArraySpec | str]
    outputs: dict[str, ArraySpec | str]
    optional: frozenset[str] = frozenset()

    def of(
        self, state: ArraySpec, predicts: str, given: Container[str]
    ) -> tuple[dict[str, ArraySpec], dict[str, ArraySpec]]:
        """Inputs and outputs for a model with this state and prediction; optional ones only if they are `given`."""

        def resolved(arrays: dict[str, ArraySpec | str]) -> dict[str, ArraySpec]:
            return {
                predicts if name == _PREDICTED else name: state if isinstance(array, str) else array
                for name, array in arrays.items()
                if name not in self.optional or name in given
            }

        return resolved(self.inputs), resolved(self.outputs)


FUSED = GraphInterface({"image": IMAGE, "noise": _STATE, "strength": SCALAR}, {"restored": IMAGE})


class SystemSpec(NamedTuple):
    """What the manifest of one system may contain."""

    samplers: dict[str, tuple[str, ...]]  # each with what denoise may predict for it
    split: tuple[str, ...]  # graphs of the restoration in steps; without encode where no graph takes its conditions
    graphs: dict[str, GraphInterface]  # all but encode
    start: str = "noise"  # of the sampling: "noise", or the noised "image"
    vector: bool = False  # whether the state is one vector for the whole photo
    thumbnail: bool = False  # whether encode sees a thumbnail, not the photo itself


SYSTEMS: dict[str, SystemSpec] = {
    "dtpm": SystemSpec(
        samplers={"ddim": ("v", "x0")},
        thumbnail=True,
        split=("encode", "predict", "denoise"),
        graphs={
            "predict": GraphInterface(
                {"image": IMAGE, "amount": SCALAR},
                {"base": IMAGE, "amplitude": MAP},
                optional=frozenset({"amount", "amplitude"}),
            ),
            "denoise": GraphInterface(
                {"x": _STATE, "image": IMAGE, "base": IMAGE, "t": SCALAR},
                {_PREDICTED: _STATE},
                optional=frozenset({"image"}),
            ),
            "fused": GraphInterface({**FUSED.inputs, "amount": SCALAR}, FUSED.outputs, optional=frozenset({"amount"})),
        },
    ),
    "diffir": SystemSpec(
        samplers={"posterior_mean": ("x0",)},
        vector=True,
        split=("encode", "denoise", "compose"),
        graphs={
            "denoise": GraphInterface({"x": _STATE, "t": SCALAR}, {_PREDICTED: _STATE}),
            "compose": GraphInterface({"image": IMAGE, "prior": _STATE}, {"restored": IMAGE}),
            "fused": FUSED,
        },
    ),
    "gen2res": SystemSpec(
        samplers={"ddim": ("eps",), "ancestral": ("eps",)},
        start="image",
        split=("denoise",),
        graphs={
            "denoise": GraphInterface(
                {"x": _STATE, "t": SCALAR}, {_PREDICTED: _STATE, "variance": _STATE}, optional=frozenset({"variance"})
            ),
            "fused": FUSED,
        },
    ),
}
