"""`scripts/gpu` is ready for a machine with a GPU: all of it is rehearsed on a CPU, with nothing installed that is not
promised to be there, and what comes back is put in its place in a copy of the clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from pocketprior.core.errors import UsageError
from pocketprior.core.models.gen2res import Gen2ResConfig
from pocketprior.core.pack.systems import SYSTEMS
from pocketprior.core.training.data.photos import TrainingData, gather
from pocketprior.core.training.gen2res import base
from pocketprior.core.training.loop.loop import train
from pocketprior.kernels import OPS
from pocketprior.kernels.gpu.carried import unpacked
from pocketprior.kernels.gpu.collect import collect
from pocketprior.kernels.gpu.command import main
from pocketprior.kernels.gpu.page import FOLDER, NOT_MEASURED, PAGE, blocks
from pocketprior.kernels.gpu.pieces import FILE_BYTES, FILES, cut, join
from pocketprior.kernels.gpu.recording import REFERENCES
from pocketprior.kernels.gpu.results import NAME, Results
from pocketprior.kernels.gpu.stage import STAGES, stage_module
from pocketprior.runtimes.parity.graph_replay import sites
from pocketprior.runtimes.parity.reference import load

ROOT = Path(__file__).resolve().parents[2]
CODE = ("core", "kernels", "export", "runtimes")
# What the package is installed with, but scripts/gpu must do without.
ABSENT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {names} else super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *args, **options):
        return (found for found in super().find_distributions(*args, **options) if found.name not in {installed})

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
""".format(
    names={
        "PIL",
        "accelerate",
        "onnx",
        "onnxruntime",
        "openvino",
        "scipy",
        "tensorboard",
        "tomli_w",
        "tqdm",
        "webdataset",
    },
    installed={"pocketprior"},
)
RECIPE = replace(
    base.BASE_STAGE.recipe,
    steps=2,
    batch=2,
    crop=16,
    save_every=2,
    warmup=1,
    precision="fp32",
    shrink=1,
    model=Gen2ResConfig(
        widths=(8, 8), blocks=1, attention=(), unshuffle=2, compact=True, embedding=16, groups=4, dropout=0
    ),
)


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, packed to go on to six."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "photos").mkdir()
    photos = [np.asarray(Image.effect_noise((260 + 10 * i, 270), 40 + i).convert("RGB")) for i in range(3)]
    for i, photo in enumerate(photos):
        Image.fromarray(photo).save(folder / f"photos/{i}.png")
    pool = gather(photos, minimum=64, side=0, structures=False)
    data = TrainingData(pool, pool)
    list(train(base.BASE_STAGE.build(RECIPE, {}, data), data, RECIPE, folder / "toy", workers=0))
    options = ["--pack", "--data", folder / "photos", "--run", folder / "toy", "--carry", folder / "carried"]
    assert main(ROOT, [*map(str, options)]) == 2, "the run has done all its steps"
    assert main(ROOT, [*map(str, options), "--set", "steps=6"]) == 0
    return folder / "carried"


@pytest.fixture(scope="module")
def out(carried: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a dry run leaves."""
    absent = tmp_path_factory.mktemp("absent")
    (absent / "sitecustomize.py").write_text(ABSENT)
    folder = tmp_path_factory.mktemp("there") / "out"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OUT": str(folder), "PYTHONPATH": str(absent)}
    command = [sys.executable, ROOT / "scripts/gpu", "--dry-run", "--carry", carried]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = Results.load(folder).stages
    errors = "\n".join(error for stage in found.values() for error in stage.errors.values())
    assert done.returncode == 0, done.stderr + errors
    return folder


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone that may be written to."""
    (tmp_path / "clone/scripts").mkdir(parents=True)
    (tmp_path / "clone/docs").mkdir()
    for name in CODE:
        (tmp_path / "clone" / name).symlink_to(ROOT / name)
    (tmp_path / "clone/checkpoints").mkdir()
    for path in (ROOT / "checkpoints").iterdir():
        if path.name != REFERENCES.name:
            (tmp_path / "clone/checkpoints" / path.name).symlink_to(path)
    shutil.copytree(ROOT / REFERENCES, tmp_path / "clone" / REFERENCES)
    shutil.copy(ROOT / "scripts/gpu", tmp_path / "clone/scripts/gpu")
    shutil.copy(ROOT / PAGE, tmp_path / "clone" / PAGE)
    return tmp_path / "clone"


def test_every_stage_is_rehearsed(out: Path) -> None:
    results = Results.load(out)
    assert results.dry_run
    assert {"device", "torch", "triton", "numpy", "python", "sources", "date"} <= set(results.environment)
    assert list(results.stages) == list(STAGES)
    for name, stage in results.stages.items():
        assert (stage.state, stage.left_out, stage.running) == ("done", {}, ""), name
        known = {f.name for f in fields(stage_module(name).ROW)}
        assert stage.rows
        assert all(set(row) == known for row in stage.rows)


def test_every_op_is_rehearsed(out: Path) -> None:
    stages = Results.load(out).stages
    for name in ("verify", "bench"):
        assert {row["op"] for row in stages[name].rows} == set(OPS)
    assert all(row["holds"] for row in stages["verify"].rows)
    assert all(set(row["times"]) == {"fused", "eager", "channels_last", "compiled"} for row in stages["bench"].rows)


def test_what_is_left_is_small(out: Path) -> None:
    files = list(out.iterdir())
    assert len(files) <= FILES
    assert max(path.stat().st_size for path in files) <= FILE_BYTES
    assert set(Results.load(out).files) == {path.name for path in files} - {NAME}


def test_the_references_are_recorded_again(out: Path) -> None:
    """The same photos, seeds and strengths; on the same kind of device, the same numbers but for the order of sums."""
    rows = {row["system"]: row for row in Results.load(out).stages["recording"].rows}
    assert set(rows) == set(SYSTEMS)
    for system, row in rows.items():
        known, again = load(ROOT / REFERENCES / f"{system}.npz"), load(out / f"{system}.npz")
        assert again.about.facts == known.about.facts
        assert again.about.checkpoint == known.about.checkpoint == row["checkpoint"]
        for before, now in zip(known.about.cases, again.about.cases, strict=True):
            assert (now.name, now.seed, now.strength) == (before.name, before.seed, before.strength)
            assert (now.photo, now.clean) == (before.photo, before.clean)
        calls, repeated = list(sites(known)), list(sites(again))
        assert sum(row["calls"].values()) >= len(calls)
        for before, now in zip(calls, repeated, strict=True):
            for name, values in known.named(before.call.outputs).items():
                found = again.named(now.call.outputs)[name]
                np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-3 * np.abs(values).max())
        assert set(row["difference"].values()) == {0.0}, "a CPU was held against itself"


def test_what_came_back_finds_its_place(out: Path, clone: Path) -> None:
    assert main(clone, ["--collect", str(out), "--dry-run"]) == 0
    assert {path.name for path in (clone / FOLDER).iterdir()} == {f"{name}.json" for name in STAGES}
    for system in SYSTEMS:
        assert (clone / REFERENCES / f"{system}.npz").read_bytes() == (out / f"{system}.npz").read_bytes()
    run = clone / "runs/toy-gpu"
    assert load_file(run / "resume.safetensors")["done"] == 6
    assert {"model.safetensors", "recipe.toml", "inputs.json", "log.csv"} <= {path.name for path in run.iterdir()}
    written = blocks((clone / PAGE).read_text())
    for name in STAGES:
        assert written[name].startswith("**A dry run on a CPU: no measurements.**")
        assert "\n| " in written[name]
    for op in OPS:
        assert op in written["verify"]
        assert op in written["bench"]


def test_collecting_twice_changes_nothing(out: Path, clone: Path) -> None:
    collect(out, clone, dry_run=True)
    before = {path: path.read_bytes() for path in (clone / FOLDER).iterdir()}
    collect(out, clone, dry_run=True)
    assert {path: path.read_bytes() for path in (clone / FOLDER).iterdir()} == before


def test_a_dry_run_is_no_measurement(out: Path, clone: Path) -> None:
    with pytest.raises(UsageError, match="dry run"):
        collect(out, clone)
    assert not (clone / FOLDER).exists()


def test_a_damaged_piece_is_refused(out: Path, clone: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(out, tmp_path / "damaged"))
    (piece,) = damaged.glob("training-*.tar")
    piece.write_bytes(piece.read_bytes()[:-1] + b"x")
    with pytest.raises(UsageError, match=piece.name):
        collect(damaged, clone, dry_run=True)


def test_a_damaged_pack_is_refused(carried: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(carried, tmp_path / "carried"))
    (damaged / "train.npz").write_bytes(b"damaged")
    with pytest.raises(UsageError, match=r"train\.npz"):
        unpacked(damaged)


def test_a_failing_stage_does_not_stop_the_next(carried: Path, clone: Path, tmp_path: Path) -> None:
    shutil.rmtree(clone / REFERENCES)  # so that nothing can be recorded
    arguments = ["--dry-run", "--stages", "recording,training", "--carry", carried, "--out", tmp_path / "out"]
    assert main(clone, [*map(str, arguments)]) == 1
    stages = Results.load(tmp_path / "out").stages
    assert stages["recording"].state == "failed"
    assert set(stages["recording"].errors) == set(SYSTEMS)
    assert all("Traceback" in error for error in stages["recording"].errors.values())
    assert stages["training"].state == "done"
    assert stages["training"].rows[-1]["step"] == 6


def test_too_little_time_is_said(tmp_path: Path) -> None:
    assert main(ROOT, ["--dry-run", "--minutes", "0.2", "--out", str(tmp_path / "out")]) == 0
    for stage in Results.load(tmp_path / "out").stages.values():
        assert stage.state == "skipped"
        assert "it needs" in stage.reason


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--dry-run", "--out", "FOLDER"), "holds stranger"),
        (("--dry-run", "--stages", "all", "--out", "FOLDER"), "unknown stage 'all'"),
        (("--dry-run", "--ops", "convolution", "--out", "FOLDER"), "unknown op 'convolution'"),
        (("--pack",), "give --data"),
        (("--collect", "FOLDER"), "results.json cannot be read"),
    ],
)
def test_wrong_calls_are_refused(
    arguments: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stranger").touch()
    assert main(ROOT, [str(tmp_path) if a == "FOLDER" else a for a in arguments]) == 2
    assert words in capsys.readouterr().err


def test_the_page_has_a_place_for_every_stage() -> None:
    page = blocks((ROOT / PAGE).read_text())
    assert set(page) == {"ops", "counted", "ahead", *STAGES}
    for name in STAGES:
        measured = (ROOT / FOLDER / f"{name}.json").exists()
        assert measured != page[name].startswith(NOT_MEASURED)


def test_pieces_are_joined_to_what_was_cut(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).bytes(FILE_BYTES + 1000)
    (tmp_path / "model").write_bytes(whole)
    (tmp_path / "pieces").mkdir()
    pieces = cut([tmp_path / "model"], tmp_path / "pieces", "training-x")
    assert [piece.name for piece in pieces] == ["training-x-0.tar", "training-x-1.tar"]
    assert max(piece.stat().st_size for piece in pieces) <= FILE_BYTES
    join(pieces, tmp_path / "joined")
    assert (tmp_path / "joined/model").read_bytes() == whole
