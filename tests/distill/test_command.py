"""`pocketprior distill` and `pocketprior bench students`, from a teacher to a page, on the example photos."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from pocketprior.core.cli import main
from pocketprior.core.models import checkpoints
from pocketprior.distill import gates, timing
from pocketprior.distill.command import METHODS, method_of

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK = ("steps=1", "save_every=1", "batch=2", "crop=16", "precision=fp32", "teacher_steps=4", "crops=4")

Files = dict[str, tuple[Path, str | None]]


@pytest.fixture(autouse=True)
def _little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "PHOTOS", 1)
    monkeypatch.setattr(timing, "REPEATS", 1)


def distill(teacher: Path, semantic: str | None, out: Path, method: str, *more: str) -> int:
    words = ["--method", method, "--data", str(EXAMPLES), "--out", str(out), "--workers", "0"]
    words += ["--semantic", semantic] if semantic else []
    words += [word for setting in QUICK for word in ("--set", setting)]
    return main(["distill", str(teacher), *words, *more])


def test_teacher_to_page(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher, semantic = files["dtpm"]
    run = tmp_path / "students" / "two"
    assert distill(teacher, semantic, run, "trajectory", "--steps", "2") == 0
    facts = checkpoints.load(run / "model.safetensors", "dtpm").facts
    assert (facts["method"], facts["steps"], len(facts["levels"])) == ("trajectory", 2, 3)
    assert set(json.loads((run / "inputs.json").read_text())) == {"data", "val", "teacher", "semantic"}
    with (run / "log.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    lost = float(row["val_texture_lost"]) == 1
    assert (gates.TEXTURE_LOST in capsys.readouterr().err) is lost
    assert distill(teacher, semantic, run, "trajectory", "--steps", "2") == 0  # finished: nothing left to do
    # A student of the student, from the weights of the first.
    again = tmp_path / "students" / "one"
    assert distill(run, semantic, again, "trajectory", "--steps", "1", "--set", "teacher_steps=0") == 0
    assert checkpoints.load(again / "model.safetensors", "dtpm").facts["levels"][0] == facts["levels"][0]


def test_one_step_needs_the_teacher_of_all_levels(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, semantic = files["dtpm"]
    settings = [word for name in (*QUICK[:-2], "teacher_steps=0") for word in ("--set", name)]
    call = ["--method", "one-step", "--data", str(EXAMPLES), "--workers", "0", "--semantic", str(semantic), *settings]
    assert distill(teacher, semantic, tmp_path / "two", "trajectory", "--steps", "2") == 0
    assert main(["distill", str(tmp_path / "two"), *call, "--out", str(tmp_path / "no")]) == 2
    assert "give the model that it was made from, and the student with --from" in capsys.readouterr().err
    again = ["--out", str(tmp_path / "one"), "--from", str(tmp_path / "two")]
    assert main(["distill", str(teacher), *call, *again]) == 0
    assert set(json.loads((tmp_path / "one" / "inputs.json").read_text())) >= {"teacher", "from"}


@pytest.mark.parametrize(
    ("system", "method", "more", "says"),
    [
        ("dtpm", "magic", [], "unknown method 'magic'"),
        ("diffir", "trajectory", ["--steps", "2"], "distils dtpm and gen2res"),
        ("diffir", "unrolled", ["--steps", "4", "--set", "teacher_steps=0"], "the teacher has 4; choose fewer"),
        ("gen2res", "trajectory", ["--steps", "9"], "of a chain of 4"),
        ("gen2res", "trajectory", ["--workers", "-1"], "-1 workers were given"),
        ("gen2res", "trajectory", ["--set", "megabytes=0"], "'megabytes' must be at least 1"),
        ("gen2res", "trajectory", ["--set", "crop=18"], "crop is 18"),
    ],
)
def test_what_cannot_be_is_refused(
    system: str,
    method: str,
    more: list[str],
    says: str,
    files: Files,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert distill(*files[system], tmp_path / "run", method, *more) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_dtpm_without_its_semantic_encoder_is_refused(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(files["dtpm"][0], None, tmp_path / "run", "trajectory") == 2
    assert "give --semantic its checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("name", METHODS)
def test_recipes_are_files(name: str, tmp_path: Path) -> None:
    recipe = method_of(name).RECIPE
    recipe.save(tmp_path / "recipe.toml")
    assert type(recipe).load(tmp_path / "recipe.toml") == recipe
    assert method_of(name.replace("_", "-")).RECIPE is recipe
