"""Networks of others as baselines, given as ONNX files; one thread.

The names of its inputs say what a file takes: `image` (1, 3, H, W) RGB in [0, 1], with or without `sigma` (1, 1, 1, 1)
in [0, 1], or `luma` (1, 1, H, W), full-range BT.601; the colour then stays as it is. The one output is the restored
image. Images are mirrored up to multiples of 16; 8 bits go in and come out, as with our own methods.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ...core.arguments import NamedPath
from ...core.arrays import Image, to_batch, to_image
from ...core.errors import UsageError
from ...core.pack.manifest import ArraySpec, GraphSpec
from ...core.restore.restorer import Graph
from .. import runtime_module
from ..check import first_line
from ..onnxruntime import failures, open_session
from ..options import RuntimeOptions
from .methods import BenchMethod, ResultCache, best_setting
from .trials import Trial, centres

__all__ = ["BaselineNetwork", "estimated_sigma", "method_for", "opened", "restored"]

SIGMA_SOURCES = ("true", "estimated", "tuned")  # of a network that takes sigma; or a number
TUNED_SIGMAS = (0.0, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 13.0, 16.0, 20.0, 25.0, 30.0, 35.0, 40.0, 50.0, 60.0, 75.0)
TUNING_SIDE = 256  # side of the central squares of the tuning photos
MULTIPLE = 16  # of sides; networks need 2 to 16
BT601 = np.array([0.299, 0.587, 0.114], np.float32)

INPUTS = {
    "image": ArraySpec("float32", (1, 3, "h", "w")),
    "luma": ArraySpec("float32", (1, 1, "h", "w")),
    "sigma": ArraySpec("float32", (1, 1, 1, 1)),
}
INPUT_SETS = (("image",), ("image", "sigma"), ("luma",))


@dataclass(frozen=True)
class BaselineNetwork:
    """An open network."""

    name: str
    graph: Graph
    inputs: tuple[str, ...]
    sigma: str  # one of SIGMA_SOURCES or a number of grey levels, "" where it takes none
    version: str  # of the file and of what runs it
    precision: str  # "int8" where the file quantizes anything, else "fp32"


def opened(given: NamedPath, runtime: str = "onnxruntime") -> BaselineNetwork:
    """Open a file in a runtime on one thread; the value of `given` says where sigma comes from ("": "estimated").

    Raises UsageError for a file that is no such network or a value that does not fit it, PackError where the runtime
    cannot open the file.
    """
    inputs, output = _interface(given.path)
    if "sigma" not in inputs and given.value:
        raise UsageError(f"'{given.path}' takes no sigma; leave out sigma={given.value}")
    if given.value and given.value not in SIGMA_SOURCES and not _is_number(given.value):
        raise UsageError(f"expected sigma={', '.join(SIGMA_SOURCES)} or a number of grey levels, got '{given.value}'")
    spec = GraphSpec({name: INPUTS[name] for name in inputs}, {output: INPUTS[inputs[0]]}, {})
    graph = runtime_module(runtime).open(given.path, given.name, spec, RuntimeOptions(threads=1))
    content = given.path.read_bytes()
    sigma = (given.value or "estimated") if "sigma" in inputs else ""
    made_of = f"{hashlib.sha256(content).hexdigest()} {runtime} {version(runtime)}"
    # The name of an operator stands in the file as text; no library for ONNX files is needed to find it.
    precision = "int8" if b"QuantizeLinear" in content else "fp32"
    return BaselineNetwork(given.name, graph, inputs, sigma, made_of, precision)


def _interface(path: Path) -> tuple[tuple[str, ...], str]:
    """The names of the inputs and of the output."""
    if not path.is_file():
        raise UsageError(f"there is no file '{path}'; give an ONNX file, such as FFDNet=ffdnet.onnx")
    try:
        session = open_session(path, threads=1)
    except failures() as error:
        raise UsageError(f"ONNX Runtime cannot open '{path}' ({first_line(error)}); give a whole ONNX file") from error
    inputs, outputs = (tuple(a.name for a in arrays) for arrays in (session.get_inputs(), session.get_outputs()))
    if inputs not in INPUT_SETS or len(outputs) != 1:
        raise UsageError(
            f"'{path}' has the inputs {', '.join(inputs)} and the outputs {', '.join(outputs)}; expected the inputs "
            f"{' or '.join(' and '.join(names) for names in INPUT_SETS)} and one output, the image"
        )
    return inputs, outputs[0]


def _is_number(text: str) -> bool:
    try:
        return 0 <= float(text) <= 255
    except ValueError:
        return False


def method_for(network: BaselineNetwork, trial: Trial, cache: ResultCache) -> BenchMethod | None:
    """The network with the sigma that suits a trial; None where it needs the true sigma and the trial has none."""
    if network.sigma == "true" and trial.sigma is None:
        return None
    restore = partial(restored, network)
    if network.sigma in ("", "estimated"):
        settings = "sigma estimated per photo" if network.sigma else ""
        return BenchMethod(network.name, restore, settings, network.version)
    if network.sigma == "tuned":
        pairs = centres(trial.tuning, TUNING_SIDE)
        _, sigma = best_setting(TUNED_SIGMAS, restore, pairs, cache, f"network {network.version}")
    else:
        sigma = trial.sigma if network.sigma == "true" else float(network.sigma)
    return BenchMethod(network.name, partial(restore, sigma=sigma), f"sigma {sigma:g}", network.version)


def estimated_sigma(image: Image) -> float:
    """Sigma of white noise in an image, (H, W, 3) uint8, in grey levels: the mean over the channels.

    The median absolute deviation of the diagonal band of a Haar transform, over 0.6745 (Donoho and Johnstone, "Ideal
    spatial adaptation by wavelet shrinkage", Biometrika 1994).
    """
    height, width = (size // 2 * 2 for size in image.shape[:2])
    x = image[:height, :width].astype(np.float32)
    diagonal = (x[::2, ::2] - x[::2, 1::2] - x[1::2, ::2] + x[1::2, 1::2]) / 2
    return float(np.median(np.abs(diagonal), axis=(0, 1)).mean() / 0.6745)


def restored(network: BaselineNetwork, image: Image, sigma: float | None = None) -> Image:
    """Restore a whole photo, (H, W, 3) uint8 in and out.

    sigma: In grey levels, for a network that takes it; None for `estimated_sigma` of the photo.
    """
    if sigma is None and network.sigma:
        sigma = estimated_sigma(image)
    height, width = image.shape[:2]
    sides = [(0, -size % MULTIPLE) for size in (height, width)]
    batch = np.pad(to_batch(image), [(0, 0), (0, 0), *sides], mode="symmetric")
    if network.inputs == ("luma",):
        luma = np.tensordot(BT601, batch, axes=(0, 1))[:, np.newaxis]
        (result,) = network.graph(luma=luma).values()
        # Chroma stays, so each channel changes by what luma changes by.
        result = np.add(batch, result - luma, dtype=np.float32)
    else:
        level = {} if sigma is None else {"sigma": np.full((1, 1, 1, 1), sigma / 255, np.float32)}
        (result,) = network.graph(image=batch, **level).values()
    return to_image(np.ascontiguousarray(result[..., :height, :width]), np.uint8)
