"""Faults in the code around the graphs, and of runtimes: caught, and told from those of graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pocketprior.core.restore import pipeline, restorer, tiles
from pocketprior.core.restore.tiles import Box
from pocketprior.runtimes import onnxruntime, openvino
from pocketprior.runtimes.parity.comparison import CompareOptions, compare
from support import packs, system_packs
from support.references import accused, known_pack, record_pack

SHOTS = [((61, 130), 5, 1.0), ((33, 42), 2**40 + 1, 0.5, 0.6)]
SYSTEMS = {
    "dtpm": packs.DTPM,
    "adjustable": packs.ADJUSTABLE,
    "diffir": system_packs.DIFFIR,
    "gen2res": system_packs.GEN2RES,
    "ancestral": system_packs.ANCESTRAL,
}
Real = Callable[..., Any]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """A tiny pack of a system and what it did when nothing was wrong, made when it is first asked for."""
    root = tmp_path_factory.mktemp("known")

    def made(system: str) -> tuple[Path, Path]:
        if not (root / system).exists():
            known_pack(root / system, SYSTEMS[system])
            record_pack(root / system, root / f"{system}.npz", SHOTS)
        return root / system, root / f"{system}.npz"

    return made


class Fault(NamedTuple):
    """What is called in place of `name` in `module`, made from what is there; and where the report must point."""

    stage: str
    words: str
    module: Any
    name: str
    fake: Callable[[Real], Real]
    system: str = "dtpm"


def _other_seed(real: Real) -> Real:
    return lambda seed, *rest: real(seed + 1, *rest)


def _other_stream(real: Real) -> Real:
    return lambda seed, step, *rest: real(seed, step + 1, *rest)


def _noise_of_the_tile(real: Real) -> Real:
    """Drawn anew for every tile."""
    return lambda seed, step, rows, cols: real(seed, step, (0, rows[1] - rows[0]), (0, cols[1] - cols[0]))


def _shifted_tiles(real: Real) -> Real:
    """All but the first are read four pixels too far left."""
    return lambda image, box: real(image, Box(box.y0, box.y1, box.x0 - 4, box.x1 - 4) if box.x0 else box)


def _edges_repeated(real: Real) -> Real:
    """Padding that repeats the last pixel where the photo is to be reflected."""

    def cut(image: Any, box: Box) -> Any:
        rows = np.minimum(np.arange(*box.rows), image.shape[0] - 1)
        cols = np.minimum(np.arange(*box.cols), image.shape[1] - 1)
        return image[rows[:, np.newaxis], cols]

    del real
    return cut


def _ramp_too_high(real: Real) -> Real:
    return lambda kept, fresh, axis: real(kept, fresh, axis) + np.float32(1e-3)


def _seams_dropped(real: Real) -> Real:
    """What an earlier tile left in a seam is taken for black."""
    return lambda kept, fresh, axis: real(np.zeros_like(kept), fresh, axis)


def _levels(change: Callable[[list[float]], list[float]]) -> Callable[[Real], Real]:
    return lambda real: (
        lambda denoise, x, levels, *rest, **options: real(denoise, x, change(list(levels)), *rest, **options)
    )


def _backwards(real: Real) -> Real:
    """The steps in the wrong order."""

    def ddim(denoise: Any, x: Any, levels: Any, *rest: Any) -> Any:
        return real(lambda x, step: denoise(x, len(levels) - 2 - step), x, levels, *rest)

    return ddim


def _job(**changes: Callable[[Any], Any]) -> Callable[[Real], Real]:
    """A job of which some fields are changed."""

    def fake(real: Real) -> Real:
        def prepare(*args: Any) -> Any:
            job = real(*args)
            return replace(job, **{name: change(getattr(job, name)) for name, change in changes.items()})

        return prepare

    return fake


def _plain_texture(real: Real) -> Real:
    """A residual that is scaled by one number, whatever the amplitude."""

    def textured(job: Any, *rest: Any) -> Any:
        predict = job.graphs["predict"]

        def flat(**inputs: Any) -> dict[str, Any]:
            return {n: a.mean() + 0 * a if n == "amplitude" else a for n, a in predict(**inputs).items()}

        return real(replace(job, graphs={**job.graphs, "predict": flat}), *rest)

    return textured


def _wrapped(real: Real) -> Real:
    """One level too many: white begins again at black."""
    del real

    def to_image(values: Any, dtype: Any) -> Any:
        levels = np.iinfo(dtype).max + 1
        return np.floor(values[0].transpose(1, 2, 0) * np.float64(levels)).astype(np.int64).astype(dtype)

    return to_image


def _painted(change: Callable[[Any], Any]) -> Callable[[Real], Real]:
    """Another picture from the same numbers."""
    return lambda real: lambda values, dtype: real(change(values).astype(np.float32), dtype)


PIPELINE = {
    "wrong seed": Fault("pipeline", "denoise, call 0, input x", pipeline, "normal", _other_seed),
    "wrong seed of a vector": Fault(
        "pipeline", "denoise, call 0, input x", pipeline, "normal_vector", _other_seed, "diffir"
    ),
    "wrong noise stream": Fault("pipeline", "denoise, call 0, input x", pipeline, "normal", _other_stream),
    "wrong noise between steps": Fault(
        "pipeline",
        "denoise, call 1, input x",
        pipeline,
        "normal",
        lambda real: lambda seed, step, *rest: real(seed, step + (step > 0), *rest),
        "ancestral",
    ),
    "noise of the tile": Fault("tiling", "fused", pipeline, "normal", _noise_of_the_tile),
    "shifted tile": Fault("tiling", "fused", pipeline, "cut", _shifted_tiles),
    "shifted window": Fault("pipeline", "encode, call 1, input image", pipeline, "cut", _shifted_tiles, "diffir"),
    "edge repeated": Fault("pipeline", "predict, call 0, input image", pipeline, "cut", _edges_repeated),
    "blending that adds": Fault("tiling", "fused", tiles, "blend", _ramp_too_high),
    "seams dropped": Fault("tiling", "fused", tiles, "blend", _seams_dropped),
    "wrong step constant": Fault(
        "pipeline",
        "denoise, call 1, input x",
        pipeline,
        "ddim",
        _levels(lambda v: [0.999 * x for x in v[:-1]] + v[-1:]),
    ),
    "off by one level": Fault(
        "pipeline",
        "denoise, call 1, input x",
        pipeline,
        "posterior_mean",
        _levels(lambda v: [v[0] / 2, *v[:-2], v[-1]]),
        "diffir",
    ),
    "dropped step": Fault("pipeline", "denoise, call 1, input", pipeline, "ddim", _levels(lambda v: [v[0], *v[2:]])),
    "reordered steps": Fault("pipeline", "denoise, call 0, input t", pipeline, "ddim", _backwards),
    "thumbnail upside down": Fault(
        "pipeline",
        "encode, call 0, input thumbnail",
        pipeline,
        "thumbnail",
        lambda real: lambda *a: real(*a)[:, :, ::-1].copy(),
    ),
    "channels swapped": Fault(
        "pipeline",
        "predict, call 0, input image",
        pipeline,
        "to_batch",
        lambda real: lambda image: real(image[..., ::-1]),
    ),
    "strength ignored": Fault("pipeline", "picture, split", restorer, "prepare", _job(strength=lambda _: 1.0)),
    "gain doubled": Fault(
        "pipeline", "picture, split", restorer, "prepare", _job(manifest=lambda m: replace(m, gain=2 * m.gain))
    ),
    "amount ignored": Fault("pipeline", "picture, split", restorer, "prepare", _job(amount=lambda _: 1.0)),
    "amount not passed on": Fault(
        "pipeline",
        "predict, call 0, input amount",
        restorer,
        "prepare",
        _job(conditions=lambda c: c | {"amount": np.ones(1, np.float32)}),
        "adjustable",
    ),
    "amplitude ignored": Fault("pipeline", "picture, split", pipeline, "_textured", _plain_texture, "adjustable"),
    "stale conditions": Fault(
        "pipeline", "input code", restorer, "prepare", _job(conditions=lambda c: {n: 0 * a for n, a in c.items()})
    ),
    "clamp of the state missing": Fault(
        "pipeline", "denoise, call 1, input x", pipeline, "clipped", lambda _: lambda x: x, "gen2res"
    ),
    "uint8 wrap": Fault("pipeline", "picture, ", restorer, "to_image", _wrapped),
    "brightness shift of one level": Fault(
        "pipeline", "picture, ", restorer, "to_image", _painted(lambda v: v + 1 / 255)
    ),
    "gamma": Fault("pipeline", "picture, ", restorer, "to_image", _painted(lambda v: np.clip(v, 0, 1) ** 1.001)),
    "cut off where it is to be rounded": Fault(
        "pipeline", "picture, ", restorer, "to_image", _painted(lambda v: v - 0.5 / 65535)
    ),
    "written in BGR": Fault("pipeline", "picture, ", restorer, "to_image", _painted(lambda v: v[:, ::-1])),
}


@pytest.mark.parametrize("fault", PIPELINE.values(), ids=PIPELINE)
def test_a_pipeline(fault: Fault, known: Callable[[str], tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    pack, recording = known(fault.system)
    monkeypatch.setattr(fault.module, fault.name, fault.fake(getattr(fault.module, fault.name)))
    told = accused(compare(pack, CompareOptions(against=recording, threads=1)))
    assert told.startswith(f"{fault.stage}: ")
    assert fault.words in told


def _spoilt(change: Callable[[Any], Any], graph: str) -> Callable[[Real], Real]:
    """A runtime that gives something else for one graph."""

    def fake(real: Real) -> Real:
        def open(path: Path, name: str, *rest: Any) -> Any:
            opened = real(path, name, *rest)
            if name != graph:
                return opened
            return lambda **inputs: {n: change(array) for n, array in opened(**inputs).items()}

        return open

    return fake


def _nan_pixel(array: Any) -> Any:
    array = array.copy()
    array[0, 1, 2, 3] = np.nan
    return array


@pytest.mark.parametrize(
    ("module", "runtime", "change", "stage", "words"),
    [
        (onnxruntime, "onnxruntime", _nan_pixel, "conversion", "predict, call 0, base"),
        (openvino, "openvino", _nan_pixel, "runtime", "1 of "),
        (openvino, "openvino", lambda array: array + np.float32(1 / 255), "runtime", "predict, call 0, base"),
        (openvino, "openvino", lambda array: np.roll(array, 1, axis=3), "runtime", "predict, call 0, base"),
    ],
    ids=["one NaN pixel", "one NaN pixel in OpenVINO", "brightness in OpenVINO", "shift in OpenVINO"],
)
def test_a_runtime(
    module: Any, runtime: str, change: Any, stage: str, words: str, known: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, recording = known("dtpm")
    monkeypatch.setattr(module, "open", _spoilt(change, "predict")(module.open))
    told = accused(compare(pack, CompareOptions(runtime, against=recording, threads=1)))
    assert told.startswith(f"{stage}: predict, ")
    assert words in told
