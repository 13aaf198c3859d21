"""`pocketprior distill` from a teacher to a student, and `pocketprior bench students`, on the example photos."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pocketprior.core.cli import main
from pocketprior.core.errors import UnknownNameError
from pocketprior.core.models import checkpoints
from pocketprior.distill import DISTILL_METHODS, distillation
from pocketprior.distill.commands.distill import TEXTURE_LOST
from pocketprior.distill.distillation import distill_recipe, method_of

EXAMPLES = Path(__file__).parents[3] / "examples"
QUICK = ("steps=1", "save_every=1", "batch=2", "crop=16", "precision=fp32", "teacher_steps=4", "crops=4")

Files = dict[str, tuple[Path, str | None]]


@pytest.fixture(autouse=True)
def _one_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "GATE_PHOTOS", 1)


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
    assert (TEXTURE_LOST in capsys.readouterr().err) is lost
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
        (
            "gen2res",
            "trajectory",
            ["--workers", "-1"],
            "expected 0 workers (draw in the training process) or more, got -1",
        ),
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


@pytest.mark.parametrize("name", DISTILL_METHODS)
def test_recipes_are_files(name: str, tmp_path: Path) -> None:
    recipe = method_of(name).default
    recipe.save(tmp_path / "recipe.toml")
    assert type(recipe).load(tmp_path / "recipe.toml") == recipe
    assert method_of(name.replace("_", "-")).default is recipe


def test_an_unknown_task_is_refused_with_the_recipe() -> None:
    with pytest.raises(UnknownNameError, match="unknown task 'fog'; choose one of"):
        distill_recipe("one_step", task="fog")


def test_recipe_takes_steps_task_and_settings_in_this_order() -> None:
    recipe = distill_recipe("one-step", sampling_steps=2, task="noise", settings=["sampling_steps=3", "l1=0.5"])
    assert (recipe.sampling_steps, recipe.task, recipe.l1) == (3, "noise", 0.5)
    assert distill_recipe("one_step") == method_of("one_step").default


@pytest.mark.parametrize("command", ["distill", "bench students"])
def test_help_needs_no_torch(command: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from pocketprior.core.cli import main; "
        f"main([*'{command}'.split(), '--help'])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"usage: pocketprior {command}" in said
