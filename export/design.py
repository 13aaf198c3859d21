"""Candidates for the predictor's design, measured as they are deployed: what each costs, and what it restores.

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

from ..core.arrays import Batch, Image, to_batch, to_image
from ..core.degradations.fixed import CLEAN, DAMAGES
from ..core.errors import UsageError
from ..core.metrics import psnr
from ..core.models import checkpoints
from ..core.models.deploy.rewrite import rewritten
from ..core.models.dtpm import DtpmConfig, Predictor
from ..core.pack.size import FEATHER
from ..core.pack.systems import IMAGE
from ..core.timing import interleaved
from .graphs import Graph, traced
from .quantization.layers import initializers, uses, weights_digest
from .quantization.onnx_graphs import emit
from .quantization.openvino_graphs import write_ir
from .quantization.ranges import operations, ranges
from .race import Run, open_onnxruntime, open_openvino
from .to_onnx import convert

__all__ = [
    "LARGEST_OVERLAP",
    "PRECISIONS",
    "RUNTIMES",
    "TILE",
    "Base",
    "Costs",
    "Files",
    "Speed",
    "candidate",
    "image_run",
    "overlap_needed",
    "psnr_by_damage",
    "quantized",
    "speeds",
]

TILE = 512  # pixels: edge of the tiles that are timed
LARGEST_OVERLAP = 64  # pixels: a tile of 512 still gives 52 % of its pixels
GREY_LEVEL = 1 / 16  # how far a tiled result may be off, in grey levels of 255
STEP = 8  # pixels between the overlaps that are tried
INNER = 128  # pixels: edge of the square whose surroundings are cut away
SIGMA = 25 / 255  # for a baseline that takes one

PRECISIONS = ("fp32", "int8")
RUNTIMES = {  # column -> which of a network's files runs there
    "ONNX Runtime fp32": "fp32",
    "OpenVINO fp32": "fp32",
    "ONNX Runtime int8": "int8",
    "OpenVINO int8": "openvino int8",
}


class Base(nn.Module):
    """The first estimate of a predictor, clipped nowhere, whatever else the predictor returns."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, image: Tensor) -> Tensor:
        """image: (N, 3, H, W) in [0, 1]. Returns (N, 3, H, W)."""
        result = self.predictor(image)
        return result if isinstance(result, Tensor) else result[0]


class Costs(NamedTuple):
    """kMAC per pixel of the convolutions, weights, and the bytes of the float32 and the int8 ONNX file."""

    kmac: float
    weights: int
    fp32_bytes: int
    int8_bytes: int


class Files(NamedTuple):
    """One network in every precision, by the keys of RUNTIMES' values; multiple: of the sides of its images."""

    name: str
    files: Mapping[str, Path]
    multiple: int


class Speed(NamedTuple):
    """MPix/s of one thread on tiles of TILE pixels: of all pixels of a tile, and of those that the overlap leaves."""

    raw: float
    effective: float


def candidate(name: str, path: Path, folder: Path, calibration: Sequence[Image]) -> tuple[Files, Costs]:
    """Write a trained predictor into `folder` in every precision; its files and what it costs.

    Args:
        name: How tables call it.
        path: A checkpoint of kind "predictor", as `pocketprior train dtpm predictor` writes it.
        folder: An empty folder.
        calibration: Damaged photos, (H, W, 3) uint8, sides multiples of the network's.

    Raises:
        CheckpointError: The file is no such checkpoint.
    """
    checkpoint = checkpoints.load(path, "predictor")
    predictor = Predictor(checkpoints.from_dict(DtpmConfig, checkpoint.config).predictor)
    checkpoint.fill(predictor)
    multiple = predictor.unet.multiple_of
    graph = Graph(Base(rewritten(predictor)).eval(), {"image": IMAGE}, {"base": IMAGE})
    convert(graph, traced(graph, multiple), folder / "fp32.onnx", metadata={})
    return quantized(name, folder / "fp32.onnx", folder, calibration, multiple)


def quantized(name: str, path: Path, folder: Path, calibration: Sequence[Image], multiple: int) -> tuple[Files, Costs]:
    """The float32 ONNX file `path` and, in `folder`, its int8 forms for ONNX Runtime and OpenVINO; what it costs.

    Raises MissingExtraError without openvino.
    """
    model = onnx.load(path)
    feeds = [_feed(model, to_batch(image)) for image in calibration]
    weights = initializers(model)
    levels = {weights_digest(weights[node.input[1]]): "int8" for node in uses(model)}
    values = ranges(model, feeds)
    (folder / "int8.onnx").write_bytes(emit(model, levels, values).SerializeToString(deterministic=True))
    write_ir(model, levels, values, folder / "int8.xml")
    files = {"fp32": path, "int8": folder / "int8.onnx", "openvino int8": folder / "int8.xml"}
    pixels = sum(image.shape[0] * image.shape[1] for image in calibration)
    kmac = sum(operations(model, values).values()) / pixels / 1e3
    count = sum(math.prod(tensor.dims) for tensor in weights.values() if tensor.data_type == onnx.TensorProto.FLOAT)
    return Files(name, files, multiple), Costs(kmac, count, *(files[p].stat().st_size for p in PRECISIONS))


def _feed(model: onnx.ModelProto, batch: Batch) -> dict[str, NDArray[np.float32]]:
    """The inputs of a network for one image (1, 3, H, W): `image`, `luma` and `sigma`, as far as it takes them.

    Raises UsageError for a network that takes anything else.
    """
    luma = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), batch, axes=(0, 1))[:, np.newaxis]
    known = {"image": batch, "luma": luma, "sigma": np.full((1, 1, 1, 1), SIGMA, np.float32)}
    names = [given.name for given in model.graph.input]
    if not set(names) <= set(known):
        raise UsageError(f"a network takes {', '.join(names)}; expected one that takes {', '.join(known)}")
    return {name: known[name] for name in names}


def image_run(path: Path) -> Run:
    """The ONNX file `path` in ONNX Runtime, called with a batch alone; a baseline has its other inputs from that."""
    model, run = onnx.load(path), open_onnxruntime(path)
    return lambda feed: run(list(_feed(model, feed[0]).values()))


def overlap_needed(run: Run, images: Sequence[Image], multiple: int) -> tuple[int, float]:
    """The least overlap of tiles, in pixels, and the error that it leaves, in grey levels.

    The centre of each image is computed with more and more of its surroundings and compared with the whole image's:
    the overlap is the least from which on every error stays within GREY_LEVEL, at most LARGEST_OVERLAP.

    Args:
        run: A network as `image_run` opens it.
        images: (H, W, 3) uint8 with sides of INNER + 2 LARGEST_OVERLAP or more, multiples of the network's.
        multiple: Of the sides; crops start on multiples too.
    """
    step = max(STEP, multiple)
    overlaps = list(range(step, LARGEST_OVERLAP + 1, step))
    errors = np.max([_errors(run, image, overlaps, multiple) for image in images], axis=0)
    last = len(overlaps) - 1
    enough = next((i for i in range(last) if errors[i:].max() <= GREY_LEVEL), last)
    return overlaps[enough], float(errors[enough])


def _errors(run: Run, image: Image, overlaps: Sequence[int], multiple: int) -> NDArray[np.float32]:
    batch = to_batch(image)
    whole = run([batch])
    top, left = ((size - INNER) // 2 // multiple * multiple for size in batch.shape[2:])
    inner = whole[:, :, top : top + INNER, left : left + INNER]
    found: list[float] = []
    for overlap in overlaps:
        rows, columns = (slice(start - overlap, start + INNER + overlap) for start in (top, left))
        tile = run([np.ascontiguousarray(batch[:, :, rows, columns])])
        cut = tile[:, :, overlap : overlap + INNER, overlap : overlap + INNER]
        found.append(255 * float(np.abs(cut - inner).max()))
    return np.array(found, np.float32)


def psnr_by_damage(run: Run, photos: Sequence[Image], multiple: int) -> dict[str, float]:
    """Mean PSNR (dB) of the restored photos under each damage of benchmarks, rounded to 8 bits.

    photos: true ones, (H, W, 3) uint8; they are cut to multiples of `multiple`.
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
    networks: Sequence[Files], overlaps: Mapping[str, int], rounds: int, tile: int = TILE
) -> dict[tuple[str, str], Speed]:
    """Speed by the name of a network and the column of RUNTIMES, all in turn, in CPU time of one thread.

    overlaps: of each network's tiles, in pixels.
    """
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    noise = np.random.default_rng(0).random((1, 3, tile, tile), np.float32)  # time does not depend on what it shows
    for network in networks:
        feed = list(_feed(onnx.load(network.files["fp32"]), noise).values())
        for runtime, precision in RUNTIMES.items():
            path = network.files[precision]
            if runtime.startswith("OpenVINO"):
                run = open_openvino(path, "f32", [array.shape for array in feed])
            else:
                run = open_onnxruntime(path)
            calls[network.name, runtime] = partial(run, feed)
    megapixels = tile**2 / 1e6
    found: dict[tuple[str, str], Speed] = {}
    for key, seconds in interleaved(calls, rounds).items():
        raw = megapixels / median(seconds)
        found[key] = Speed(raw, raw * ((tile - 2 * overlaps[key[0]] - FEATHER) / tile) ** 2)
    return found
