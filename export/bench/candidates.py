"""Candidates for the predictor's design as they are deployed: what each costs, and what it restores.

A candidate is a trained checkpoint of a predictor, a baseline an ONNX file of someone else's network, which is only
timed. Both are quantized alike: every convolution of 256 weights or more, per channel, with ranges from photos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor, nn

from ...core.arrays import Batch, Image, to_batch, to_image
from ...core.degradations.fixed import CLEAN, DAMAGES
from ...core.errors import UsageError
from ...core.metrics import psnr
from ...core.models import checkpoints
from ...core.models.deploy.rewrite import rewritten
from ...core.models.dtpm import DtpmConfig
from ...core.models.initial_predictor import Predictor
from ...core.pack.manifest import FEATHER
from ...core.pack.systems import IMAGE
from ...core.timing import interleaved
from ..limits import GREY_LEVEL, LARGEST_OVERLAP
from ..systems.source import ModelGraph, traced
from ..targets.calibration import multiply_adds, ranges
from ..targets.onnx import convert_onnx, quantized_graph
from ..targets.openvino import write_ir
from ..targets.weights import initializers, uses, weights_digest
from .sessions import GraphRun, open_onnxruntime, open_openvino

__all__ = [
    "DesignCosts",
    "FirstEstimate",
    "NetworkFiles",
    "TileSpeed",
    "candidate",
    "image_run",
    "overlap_needed",
    "psnr_by_damage",
    "quantized",
    "speeds",
]

TIMED_TILE = 512  # pixels: edge of the tiles that are timed
_OVERLAP_STEP = 8  # pixels between the overlaps that are tried
_INNER = 128  # pixels: edge of the square whose surroundings are cut away
_BASELINE_SIGMA = 25 / 255  # for a baseline that takes one

DESIGN_PRECISIONS = ("fp32", "int8")
DESIGN_RUNTIMES = {  # column -> which of a network's files runs there
    "ONNX Runtime fp32": "fp32",
    "OpenVINO fp32": "fp32",
    "ONNX Runtime int8": "int8",
    "OpenVINO int8": "openvino int8",
}


class FirstEstimate(nn.Module):
    """The first estimate of a predictor, not clipped, whatever else the predictor returns."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, image: Tensor) -> Tensor:
        """Image (N, 3, H, W) in [0, 1] -> estimate (N, 3, H, W)."""
        result = self.predictor(image)
        return result if isinstance(result, Tensor) else result[0]


class DesignCosts(NamedTuple):
    """What a network costs; bytes are those of its ONNX files."""

    kmac: float  # per pixel, of the convolutions
    weights: int
    fp32_bytes: int
    int8_bytes: int


class NetworkFiles(NamedTuple):
    """One network in every precision."""

    name: str
    files: Mapping[str, Path]  # by the values of DESIGN_RUNTIMES
    multiple: int  # of the sides of its images


class TileSpeed(NamedTuple):
    """MPix/s of one thread on tiles of one size."""

    raw: float  # of all pixels of a tile
    effective: float  # of those that the overlap leaves


def candidate(name: str, path: Path, folder: Path, calibration: Sequence[Image]) -> tuple[NetworkFiles, DesignCosts]:
    """Write a trained predictor into an empty folder in every precision; its files and costs.

    `path` is a checkpoint of kind "predictor", as `pocketprior train dtpm predictor` writes it, `calibration` damaged
    photos, (H, W, 3) uint8, sides multiples of the network's. Raises CheckpointError for another file.
    """
    checkpoint = checkpoints.load(path, "predictor")
    predictor = checkpoint.fill(Predictor(checkpoints.from_dict(DtpmConfig, checkpoint.config).predictor))
    multiple = predictor.unet.multiple_of
    graph = ModelGraph(FirstEstimate(rewritten(predictor)).eval(), {"image": IMAGE}, {"base": IMAGE})
    convert_onnx(graph, traced(graph, multiple), folder / "fp32.onnx", metadata={})
    return quantized(name, folder / "fp32.onnx", folder, calibration, multiple)


def quantized(
    name: str, path: Path, folder: Path, calibration: Sequence[Image], multiple: int
) -> tuple[NetworkFiles, DesignCosts]:
    """The float32 ONNX file `path` and, in `folder`, its int8 forms for ONNX Runtime and OpenVINO; and its costs.

    Raises MissingExtraError if openvino is not installed.
    """
    model = onnx.load(path)
    feeds = [_feed(model, to_batch(image)) for image in calibration]
    weights = initializers(model)
    precisions = {weights_digest(weights[node.input[1]]): "int8" for node in uses(model)}
    values = ranges(model, feeds)
    (folder / "int8.onnx").write_bytes(quantized_graph(model, precisions, values).SerializeToString(deterministic=True))
    write_ir(model, precisions, values, folder / "int8.xml")
    files = {"fp32": path, "int8": folder / "int8.onnx", "openvino int8": folder / "int8.xml"}
    pixels = sum(image.shape[0] * image.shape[1] for image in calibration)
    kmac = sum(multiply_adds(model, values).values()) / pixels / 1e3
    count = sum(math.prod(tensor.dims) for tensor in weights.values() if tensor.data_type == onnx.TensorProto.FLOAT)
    sizes = (files[precision].stat().st_size for precision in DESIGN_PRECISIONS)
    return NetworkFiles(name, files, multiple), DesignCosts(kmac, count, *sizes)


def _feed(model: onnx.ModelProto, batch: Batch) -> dict[str, NDArray[np.float32]]:
    """The inputs of a network for one image (1, 3, H, W): those of `image`, `luma` and `sigma` that it takes."""
    luma = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), batch, axes=(0, 1))[:, np.newaxis]
    known = {"image": batch, "luma": luma, "sigma": np.full((1, 1, 1, 1), _BASELINE_SIGMA, np.float32)}
    names = [given.name for given in model.graph.input]
    if not set(names) <= set(known):
        raise UsageError(f"expected a network that takes {', '.join(known)}, got one that takes {', '.join(names)}")
    return {name: known[name] for name in names}


def image_run(path: Path) -> GraphRun:
    """The ONNX file `path` in ONNX Runtime, called with only a batch; other inputs of a baseline follow from it."""
    model, run = onnx.load(path), open_onnxruntime(path)
    return lambda feed: run(list(_feed(model, feed[0]).values()))


def overlap_needed(run: GraphRun, images: Sequence[Image], multiple: int) -> tuple[int, float]:
    """The least overlap of tiles, in pixels, and the error that it leaves, in grey levels.

    The centre of each image is computed with more and more of its surroundings and compared with the whole image's:
    the overlap is the least from which on every error stays within GREY_LEVEL, at most LARGEST_OVERLAP. Images are
    (H, W, 3) uint8 with sides of _INNER + 2 LARGEST_OVERLAP or more; sides and crops keep to multiples of `multiple`.
    """
    step = max(_OVERLAP_STEP, multiple)
    overlaps = list(range(step, LARGEST_OVERLAP + 1, step))
    errors = np.max([_errors(run, image, overlaps, multiple) for image in images], axis=0)
    last = len(overlaps) - 1
    enough = next((i for i in range(last) if errors[i:].max() <= GREY_LEVEL), last)
    return overlaps[enough], float(errors[enough])


def _errors(run: GraphRun, image: Image, overlaps: Sequence[int], multiple: int) -> NDArray[np.float32]:
    batch = to_batch(image)
    whole = run([batch])
    top, left = ((size - _INNER) // 2 // multiple * multiple for size in batch.shape[2:])
    inner = whole[:, :, top : top + _INNER, left : left + _INNER]
    found: list[float] = []
    for overlap in overlaps:
        rows, columns = (slice(start - overlap, start + _INNER + overlap) for start in (top, left))
        tile = run([np.ascontiguousarray(batch[:, :, rows, columns])])
        cut = tile[:, :, overlap : overlap + _INNER, overlap : overlap + _INNER]
        found.append(255 * float(np.abs(cut - inner).max()))
    return np.array(found, np.float32)


def psnr_by_damage(run: GraphRun, photos: Sequence[Image], multiple: int) -> dict[str, float]:
    """Mean PSNR (dB) of the restored photos under each damage of benchmarks, rounded to 8 bits.

    `photos` are clean, (H, W, 3) uint8; they are cut to multiples of `multiple`.
    """
    whole = [_cut(photo, multiple) for photo in photos]
    return {
        damage.name: fmean(psnr(to_image(run([to_batch(damage(photo))]), np.uint8), photo) for photo in whole)
        for damage in DAMAGES
        if damage.name != CLEAN
    }


def _cut(photo: Image, multiple: int) -> Image:
    height, width = (size // multiple * multiple for size in photo.shape[:2])
    return photo[:height, :width].copy()


def speeds(
    networks: Sequence[NetworkFiles], overlaps: Mapping[str, int], rounds: int, tile: int = TIMED_TILE
) -> dict[tuple[str, str], TileSpeed]:
    """Speed in CPU time of one thread, all in turn, by the name of a network and the column of DESIGN_RUNTIMES.

    `overlaps` are those of each network's tiles, in pixels.
    """
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    noise = np.random.default_rng(0).random((1, 3, tile, tile), np.float32)  # time does not depend on the values
    for network in networks:
        feed = list(_feed(onnx.load(network.files["fp32"]), noise).values())
        for runtime, precision in DESIGN_RUNTIMES.items():
            path = network.files[precision]
            if runtime.startswith("OpenVINO"):
                run = open_openvino(path, "f32", [array.shape for array in feed])
            else:
                run = open_onnxruntime(path)
            calls[network.name, runtime] = partial(run, feed)
    megapixels = tile**2 / 1e6
    found: dict[tuple[str, str], TileSpeed] = {}
    for key, seconds in interleaved(calls, rounds).items():
        raw = megapixels / median(seconds)
        found[key] = TileSpeed(raw, raw * ((tile - 2 * overlaps[key[0]] - FEATHER) / tile) ** 2)
    return found
