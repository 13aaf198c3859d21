"""`pocketprior bench-edge`: predictors of different blocks beside one another, as they are deployed.

Each is rewritten (`core/models/deploy/rewrite.py`), written for every runtime in float and in 8 bits, timed, and judged
by what that very file makes of held-back photos.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import onnx

from ..core import metrics
from ..core.arrays import Image, to_batch, to_image
from ..core.errors import UsageError
from ..core.files import atomic_output, failure_reason
from ..core.markdown import table
from ..core.models import checkpoints
from ..core.models.deploy.rewrite import rewritten
from ..core.models.dtpm import MOBILE, DtpmConfig, Predictor
from ..core.pack.systems import ArraySpec
from ..core.photo.listing import released_photos
from .graphs import Graph, traced
from .measure import macs_per_pixel
from .quantization.layers import initializers, uses, weights_digest
from .quantization.onnx_graphs import emit
from .quantization.openvino_graphs import write_ir
from .quantization.ranges import ranges
from .quantization.samples import Sample, samples
from .race import REPEATS, Run, machine, milliseconds, open_onnxruntime, open_openvino
from .to_onnx import convert

__all__ = ["RUNTIMES", "Judged", "Rival", "add_arguments", "judge", "opened", "run", "written"]

SIDE = 256  # of the pictures, pixels
CALIBRATION = 12  # photos of the training split that give 8 bits their ranges
PICTURE = ArraySpec("float32", (1, 3, SIDE, SIDE))
METRICS: dict[str, Callable[[Image, Image], float]] = {
    "PSNR": metrics.psnr,
    "SSIM": metrics.ssim,
    "HaarPSI": metrics.haarpsi,
}

FLOAT = "ONNX Runtime fp32"  # where float32 is judged

# What is run: the file, and what opens it.
RUNTIMES: dict[str, tuple[str, Callable[[Path], Run]]] = {
    FLOAT: ("float.onnx", open_onnxruntime),
    "ONNX Runtime int8": ("int8.onnx", open_onnxruntime),
    "OpenVINO fp32": ("float.onnx", partial(open_openvino, arithmetic="f32")),
    "OpenVINO bf16": ("float.onnx", partial(open_openvino, arithmetic="bf16")),
    "OpenVINO int8": ("int8.xml", partial(open_openvino, arithmetic="f32")),
    "OpenVINO int8+bf16": ("int8.xml", partial(open_openvino, arithmetic="bf16")),
}


class Rival(NamedTuple):
    """A trained predictor: its name, its rewritten graph, the task it was trained for and the steps it took."""

    name: str
    graph: Graph
    task: str
    steps: int


class Judged(NamedTuple):
    """One predictor in one runtime: CPU milliseconds of a picture, and the mean of each metric over the photos."""

    rival: str
    runtime: str
    milliseconds: float
    values: Mapping[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a trained predictor")
    parser.add_argument("--data", type=Path, required=True, help="folder of photos with a manifest.csv")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the page, such as docs/edge-blocks.md")


def run(args: argparse.Namespace) -> int:
    """Measure the predictors and write the page."""
    rivals = [opened(folder) for folder in args.runs]
    if len({rival.task for rival in rivals}) > 1:
        raise UsageError("the predictors were trained for different tasks; give those of one task")
    task = rivals[0].task
    calibration = _squares(released_photos(args.data, split="train"), task)[:CALIBRATION]
    held_back = _squares(released_photos(args.data, split="val"), task)
    page = _page(rivals, judge(rivals, calibration, held_back), len(held_back))
    try:
        with atomic_output(args.out, overwrite=True) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{args.out}' cannot be written: {failure_reason(error)}") from error
    print(f"{args.out}: {len(rivals)} predictors")
    return 0


def opened(folder: Path) -> Rival:
    """The predictor of a run folder. Raises CheckpointError."""
    checkpoint = checkpoints.load(folder / "model.safetensors", "predictor")
    config = checkpoints.from_dict(DtpmConfig, checkpoint.config).predictor
    predictor = Predictor(config)
    checkpoint.fill(predictor)
    graph = Graph(rewritten(predictor), {"image": PICTURE}, {"base": PICTURE})
    return Rival(config.body, graph, checkpoint.facts["task"], checkpoint.facts["step"])


def written(graph: Graph, folder: Path, feeds: Sequence[Mapping[str, Any]]) -> None:
    """The files that RUNTIMES names, in `folder`; feeds: calls of the graph that give 8 bits their ranges."""
    convert(graph, traced(graph, 1), folder / "float.onnx", metadata={})
    model = onnx.load(folder / "float.onnx")
    weights = initializers(model)
    levels = {weights_digest(weights[node.input[1]]): "int8" for node in uses(model)}
    values = ranges(model, [dict(feed) for feed in feeds])
    (folder / "int8.onnx").write_bytes(emit(model, levels, values).SerializeToString(deterministic=True))
    write_ir(model, levels, values, folder / "int8.xml")


def judge(rivals: Sequence[Rival], calibration: Sequence[Sample], held_back: Sequence[Sample]) -> list[Judged]:
    """Every predictor in every runtime, one thread, in turn. Raises MissingExtraError without openvino."""
    feeds = [{"image": to_batch(sample.damaged)} for sample in calibration]
    found: list[Judged] = []
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / str(i) for i in range(len(rivals))]
        for rival, folder in zip(rivals, folders, strict=True):
            folder.mkdir()
            written(rival.graph, folder, feeds)
        for runtime, (file, open_graph) in RUNTIMES.items():
            runs = [open_graph(folder / file) for folder in folders]
            times = milliseconds(runs, [feeds[0]["image"]])
            for rival, time, graph in zip(rivals, times, runs, strict=True):
                found.append(Judged(rival.name, runtime, time, _quality(graph, held_back)))
    return found


def _quality(graph: Run, photos: Sequence[Sample]) -> dict[str, float]:
    restored = [to_image(np.ascontiguousarray(graph([to_batch(photo.damaged)])), np.uint16) for photo in photos]
    return {
        name: fmean(metric(made, photo.clean) for made, photo in zip(restored, photos, strict=True))
        for name, metric in METRICS.items()
    }


def _squares(paths: Sequence[Path], task: str) -> list[Sample]:
    """The photos that are large enough."""
    return [sample for sample in samples(paths, task, SIDE) if sample.clean.shape[:2] == (SIDE, SIDE)]


def _page(rivals: Sequence[Rival], judged: Sequence[Judged], photos: int) -> str:
    rows = [["block", "runtime", "ms", "over fp32", *METRICS]]
    slowest = {(j.rival, j.runtime.rpartition(" ")[0]): j.milliseconds for j in judged if j.runtime.endswith("fp32")}
    for j in judged:
        gain = slowest[j.rival, j.runtime.rpartition(" ")[0]] / j.milliseconds
        values = f"{j.values['PSNR']:.3f}", f"{j.values['SSIM']:.4f}", f"{j.values['HaarPSI']:.4f}"
        rows.append([j.rival, j.runtime, f"{j.milliseconds:.1f}", f"{gain:.2f}", *values])
    costs = [macs_per_pixel(rival.graph, SIDE) / 1e3 for rival in rivals]
    sizes = [
        f"- `{rival.name}`: {cost:.1f} kMAC per pixel, trained for {rival.steps} steps."
        for rival, cost in zip(rivals, costs, strict=True)
    ]
    head = HEAD.format(task=rivals[0].task, side=SIDE, photos=photos, machine=machine(), repeats=REPEATS)
    return "\n".join([head, *sizes, "", table(rows, left=2), "", *_verdicts(judged)]) + "\n"


def _verdicts(judged: Sequence[Judged]) -> list[str]:
    """Every predictor against the first, in each runtime; and which restores best in float."""
    said = []
    for runtime in RUNTIMES:
        first, *others = [j for j in judged if j.runtime == runtime]
        for other in others:
            change = other.values["PSNR"] - first.values["PSNR"]
            share = other.milliseconds / first.milliseconds
            what = f"`{other.rival}` {change:+.3f} dB over `{first.rival}` in {share:.2f} of its time"
            said.append(f"- {runtime}: {what}.")
    best = max((j for j in judged if j.runtime == FLOAT), key=lambda j: j.values["PSNR"])
    default = f"The default body of size `mobile` is `{MOBILE.predictor.body}`."
    return [*said, f"- Highest PSNR in {FLOAT}: `{best.rival}`. {default}"]


HEAD = """\
# The two edge blocks

Made by `scripts/edge DATA`; do not edit. "rep": residual pairs of plain 3x3 convolutions, re-parameterised; "naf-edge":
gates instead of activations, with depthwise convolutions (`core/models/naf_edge.py`). Predictors of the task `{task}`,
trained on the same photos, for the same number of steps, with the same seed.

- ms: CPU milliseconds of a picture of {side} x {side} pixels, one thread, in turn, the median of {repeats}; {machine}.
- over fp32: how many times faster than float32 in the same runtime.
- PSNR (dB), SSIM, HaarPSI: means over the centres of {photos} held-back photos, by the very graph that was timed.
- int8: every convolution of 256 weights or more, without training for it."""
