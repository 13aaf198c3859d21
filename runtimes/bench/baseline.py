"""Networks of others as baselines, given as ONNX files; one thread.

The file says what it takes: `image` (1, 3, H, W) RGB in [0, 1], with or without `sigma` (1, 1, 1, 1) in [0, 1], or
`luma` (1, 1, H, W), BT.601 of full range, in which case the colour stays as it is. Its one output is the restored
image. Sizes are brought to multiples of 16 by mirroring; 8 bits go in and come out, as with our own methods.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.arrays import Image, to_batch, to_image
from ...core.errors import UsageError
from ...core.pack.manifest import ArraySpec, GraphSpec
from ...core.restore.restorer import Graph
from ..options import Options
from .cache import Cache
from .methods import Method
from .named import Named
from .photos import Trial, centres
from .tuning import best

__all__ = ["SIGMA", "Network", "estimated_sigma", "method_for", "opened", "restored"]

SIGMA = ("true", "estimated", "tuned")  # or a number: where a network that takes sigma has it from
SIGMAS = (0.0, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 13.0, 16.0, 20.0, 25.0, 30.0, 35.0, 40.0, 50.0, 60.0, 75.0)
TUNING = 256  # side of the central squares of the tuning photos
MULTIPLE = 16  # of sides; networks need 2 to 16
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601

INPUTS = {
    "image": ArraySpec("float32", (1, 3, "h", "w")),
    "luma": ArraySpec("float32", (1, 1, "h", "w")),
    "sigma": ArraySpec("float32", (1, 1, 1, 1)),
}
TAKEN = (("image",), ("image", "sigma"), ("luma",))


@dataclass(frozen=True)
class Network:
    """An open network.

    inputs: names of what it takes. sigma: one of SIGMA or a number of grey levels, "" where it takes none. version: of
    the file and of what runs it. precision: "int8" where the file quantizes anything, else "fp32".
    """

    name: str
    graph: Graph
    inputs: tuple[str, ...]
    sigma: str
    version: str
    precision: str


def opened(given: Named, runtime: str = "onnxruntime") -> Network:
    """Open a file in a runtime on one thread; the value of `given` says where sigma is from ("estimated" unless told).

    Raises UsageError for a file that is no such network or a value that suits it not, PackError where the runtime
    cannot open it.
    """
    inputs, output = _interface(given.path)
    if "sigma" not in inputs and given.value:
        raise UsageError(f"'{given.path}' takes no sigma, but sigma={given.value} was given; leave it out")
    if given.value and given.value not in SIGMA and not _is_number(given.value):
        raise UsageError(f"sigma={given.value} was given; expected {', '.join(SIGMA)} or a number of grey levels")
    spec = GraphSpec({name: INPUTS[name] for name in inputs}, {output: INPUTS[inputs[0]]}, {})
    graph = import_module(f"...{runtime}", __name__).open(given.path, given.name, spec, Options(threads=1))
    content = given.path.read_bytes()
    sigma = (given.value or "estimated") if "sigma" in inputs else ""
    made_of = f"{hashlib.sha256(content).hexdigest()} {runtime} {version(runtime)}"
    # The name of an operator stands in the file as text; no library for ONNX files is needed to find it.
    precision = "int8" if b"QuantizeLinear" in content else "fp32"
    return Network(given.name, graph, inputs, sigma, made_of, precision)


def _interface(path: Path) -> tuple[tuple[str, ...], str]:
    """The names of the inputs and of the output."""
    session = _session(path)
    inputs, outputs = (
        tuple(array.name for array in arrays) for arrays in (session.get_inputs(), session.get_outputs())
    )
    if inputs not in TAKEN or len(outputs) != 1:
        raise UsageError(
            f"'{path}' takes {', '.join(inputs)} and gives {', '.join(outputs)}; expected a network that takes "
            f"{' or '.join(' and '.join(names) for names in TAKEN)} and gives one image"
        )
    return inputs, outputs[0]


def _session(path: Path) -> Any:
    import onnxruntime

    if not path.is_file():
        raise UsageError(f"there is no file '{path}'; give an ONNX file, such as FFDNet=ffdnet.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the classes are those of a compiled module, many of them without a common base
        reason = str(error).splitlines()[0][:200]
        raise UsageError(f"ONNX Runtime cannot open '{path}' ({reason}); give a whole ONNX file") from error


def _is_number(text: str) -> bool:
    try:
        return 0 <= float(text) <= 255
    except ValueError:
        return False


def method_for(network: Network, trial: Trial, cache: Cache) -> Method | None:
    """The network as it restores the photos of a trial; None where it needs the true sigma and there is none."""
    if not network.sigma:
        return Method(network.name, partial(restored, network), "", network.version)
    if network.sigma == "estimated":
        return Method(network.name, partial(_by_estimate, network), "sigma estimated per photo", network.version)
    if network.sigma == "true" and trial.sigma is None:
        return None
    if network.sigma == "true":
        sigma = trial.sigma
    elif network.sigma == "tuned":
        sigma = _tuned(network, trial, cache)
    else:
        sigma = float(network.sigma)
    return Method(network.name, partial(restored, network, sigma=sigma), f"sigma {sigma:g}", network.version)


def _tuned(network: Network, trial: Trial, cache: Cache) -> float:
    pairs = centres(trial.tuning, TUNING)
    return best(SIGMAS, partial(restored, network), pairs, cache, f"network {network.version}")[1]


def _by_estimate(network: Network, image: Image) -> Image:
    return restored(network, image, estimated_sigma(image))


def estimated_sigma(image: Image) -> float:
    """Sigma of white noise in an image, (H, W, 3) uint8, in grey levels: the mean over the channels.

    The median absolute deviation of the diagonal band of a Haar transform, over 0.6745 (Donoho and Johnstone, "Ideal
    spatial adaptation by wavelet shrinkage", Biometrika 1994).
    """
    height, width = (size // 2 * 2 for size in image.shape[:2])
    x = image[:height, :width].astype(np.float32)
    diagonal = (x[::2, ::2] - x[::2, 1::2] - x[1::2, ::2] + x[1::2, 1::2]) / 2
    return float(np.median(np.abs(diagonal), axis=(0, 1)).mean() / 0.6745)


def restored(network: Network, image: Image, sigma: float | None = None) -> Image:
    """A whole photo, (H, W, 3) uint8 in and out; sigma: in grey levels, for a network that takes it."""
    height, width = image.shape[:2]
    sides = [(0, -size % MULTIPLE) for size in (height, width)]
    batch = np.pad(to_batch(image), [(0, 0), (0, 0), *sides], mode="symmetric")
    restore = _restored_luma if network.inputs == ("luma",) else _restored_image
    return to_image(np.ascontiguousarray(restore(network, batch, sigma)[..., :height, :width]), np.uint8)


def _restored_image(network: Network, batch: NDArray[np.float32], sigma: float | None) -> NDArray[np.float32]:
    level = {"sigma": np.full((1, 1, 1, 1), sigma / 255, np.float32)} if sigma is not None else {}
    (result,) = network.graph(image=batch, **level).values()
    return result


def _restored_luma(network: Network, batch: NDArray[np.float32], _: float | None) -> NDArray[np.float32]:
    """Chroma stays: with it, what luma changes by is what each channel changes by."""
    luma = np.tensordot(LUMA, batch, axes=(0, 1))[:, np.newaxis]
    (result,) = network.graph(luma=luma).values()
    return np.add(batch, result - luma, dtype=np.float32)
