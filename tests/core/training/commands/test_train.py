"""`pocketprior train`, from nothing to a pack, on the example photos."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from pocketprior.core import training
from pocketprior.core.cli import main
from pocketprior.core.degradations import TASKS
from pocketprior.core.errors import UnknownNameError, UsageError
from pocketprior.core.models import checkpoints
from pocketprior.core.models.dtpm import CONFIGS
from pocketprior.core.models.lora import is_factor
from pocketprior.core.photo.io import read, write
from pocketprior.core.training import read_recipe
from pocketprior.core.training import runs as public
from pocketprior.core.training.dtpm.task import PredictorRecipe
from pocketprior.core.training.stages import MODEL_SIZES, SYSTEMS, find_stage
from pocketprior.export.writer.multitask import check_prior

EXAMPLES = Path(__file__).parents[4] / "examples"
SETTINGS = ("steps=2", "save_every=1", "batch=2", "crop=32", "precision=fp32")
SMALL = (
    "model.predictor.widths=8,8",
    "model.predictor.blocks=1,1",
    "model.predictor.decoder=1",
    "model.denoiser.widths=8,8",
    "model.denoiser.blocks=1,1",
    "model.semantic.size=16",
    "model.semantic.code=6",
    "model.semantic.widths=8,8",
)
QUICK = ["--workers", "0", *(word for setting in (*SETTINGS, *SMALL) for word in ("--set", setting))]
STAGES = ("semantic", "predictor", "prior", "adapters")
KINDS = {"semantic": "semantic", "predictor": "predictor", "prior": "prior", "adapters": "dtpm"}


def train(stage: str, out: Path, *more: str, data: str = str(EXAMPLES)) -> int:
    return main(["train", "dtpm", stage, "--data", data, "--out", str(out), *QUICK, *more])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four stages, one after the other."""
    runs = tmp_path_factory.mktemp("runs")
    models = {name: str(runs / name / "model.safetensors") for name in STAGES}
    assert train("semantic", runs / "semantic") == 0
    assert train("predictor", runs / "predictor") == 0
    assert train("prior", runs / "prior", "--semantic", models["semantic"]) == 0
    earlier = [x for name in ("semantic", "prior", "predictor") for x in (f"--{name}", models[name])]
    assert train("adapters", runs / "adapters", *earlier) == 0
    return runs


def test_every_stage_leaves_a_checkpoint_and_a_log(runs: Path) -> None:
    for stage, kind in KINDS.items():
        assert checkpoints.load(runs / stage / "model.safetensors", kind).facts["step"] == 2
        assert len((runs / stage / "log.csv").read_text().splitlines()) == 3


def test_run_notes_its_recipe_and_inputs(runs: Path) -> None:
    recipe = PredictorRecipe.load(runs / "predictor" / "recipe.toml")
    assert (recipe.task, recipe.model.predictor.widths, recipe.steps) == ("cleanup", (8, 8), 2)
    assert set(json.loads((runs / "prior" / "inputs.json").read_text())) == {"data", "val", "semantic"}


def test_stage_two_holds_the_prior_of_stage_one(runs: Path) -> None:
    whole = checkpoints.load(runs / "adapters" / "model.safetensors", "dtpm")
    prior = checkpoints.load(runs / "prior" / "model.safetensors", "prior")
    part = whole.part("denoiser")
    assert all(part[name].equal(tensor) for name, tensor in prior.tensors.items())


def test_a_further_task_shares_all_but_factors_and_adapters(runs: Path, tmp_path: Path) -> None:
    first, semantic, prior = (str(runs / name / "model.safetensors") for name in ("adapters", "semantic", "prior"))
    task = ("--task", "rain")
    assert train("delta", tmp_path / "delta", "--dtpm", first, *task) == 0
    predictor = str(tmp_path / "delta" / "model.safetensors")
    ready = ["--semantic", semantic, "--prior", prior, "--predictor", predictor, *task]
    assert train("adapters", tmp_path / "rain", *ready, "--set", "model.predictor.lora=4") == 0
    further = str(tmp_path / "rain" / "model.safetensors")
    before, after = (checkpoints.load(Path(path), "dtpm").tensors for path in (first, further))
    shared = {name for name in after if not (is_factor(name) or name.startswith(("adapters", "residual_scale")))}
    assert shared < set(before)
    assert all(before[name].equal(after[name]) for name in shared)
    assert any(is_factor(name) and name.endswith("up") and after[name].any() for name in after)
    check_prior([Path(first), Path(further)])


def test_last_stage_exports_to_a_pack_that_verifies(runs: Path, tmp_path: Path) -> None:
    model, semantic = (str(runs / name / "model.safetensors") for name in ("adapters", "semantic"))
    pack = str(tmp_path / "pack")
    assert main(["export", model, "--semantic", semantic, "--data", str(EXAMPLES), "-o", pack]) == 0
    assert main(["verify", pack]) == 0


def test_finished_run_has_nothing_left_to_do(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("semantic", runs / "semantic") == 0
    assert "steps/s" not in capsys.readouterr().err


def test_other_earlier_checkpoint_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("semantic", tmp_path / "semantic", "--set", "seed=1") == 0
    other = str(tmp_path / "semantic" / "model.safetensors")
    assert train("prior", runs / "prior", "--semantic", other) == 1
    assert "semantic changed since" in capsys.readouterr().err


def test_recipe_file_starts_the_same_run(runs: Path, tmp_path: Path) -> None:
    """A finished run's recipe, given as a file, is that run's."""
    recipe = PredictorRecipe.load(runs / "predictor" / "recipe.toml")
    recipe.save(tmp_path / "mine.json")
    arguments = ["train", "dtpm", "predictor", "--data", str(EXAMPLES), "--recipe", str(tmp_path / "mine.json")]
    assert main([*arguments, "--workers", "0", "--out", str(runs / "predictor")]) == 0


def test_settings_change_what_the_size_says(tmp_path: Path) -> None:
    assert train("predictor", tmp_path, "--size", "base", "--set", "steps=1") == 0
    recipe = PredictorRecipe.load(tmp_path / "recipe.toml")
    assert recipe.steps == 1
    assert recipe.model.predictor.widths == (8, 8)  # --set comes last
    assert recipe.model.denoiser.frequencies == CONFIGS["base"].denoiser.frequencies


def test_unknown_task_lists_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("predictor", tmp_path, "--task", "rust") == 2
    assert "cleanup" in capsys.readouterr().err


def test_paired_folder_is_trained_on_as_it_is(tmp_path: Path) -> None:
    """The damaged photos are the folder's own: were `cleanup` applied, black ones would not stay so."""
    for i, path in enumerate(sorted(EXAMPLES.glob("*.jpg"))[:2]):
        photo = read(path)
        for name, pixels in (("gt", photo.pixels), ("lq", 0 * photo.pixels)):
            (tmp_path / "pairs" / name).mkdir(parents=True, exist_ok=True)
            write(photo.with_pixels(pixels), tmp_path / "pairs" / name / f"{i}.png")
    seen = []
    task, TASKS["cleanup"] = TASKS["cleanup"], lambda picture, rng: seen.append(rng) or picture  # type: ignore[func-returns-value]
    try:
        assert train("predictor", tmp_path / "run", data=str(tmp_path / "pairs")) == 0
    finally:
        TASKS["cleanup"] = task
    assert seen == []


@pytest.mark.parametrize(
    ("stage", "option"), [("prior", "--semantic"), ("adapters", "--prior")], ids=["prior", "adapters"]
)
def test_missing_earlier_stage_is_named(
    stage: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(stage, tmp_path / "run") == 2
    assert option in capsys.readouterr().err


def test_earlier_checkpoints_are_opened_before_the_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Photos may take minutes to read: a wrong path is told at once."""
    assert train("prior", tmp_path / "run", "--semantic", "none.safetensors", data=str(tmp_path / "nothing")) == 1
    assert "no checkpoint at none.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (("--workers", "-1"), "expected 0 workers .* or more, got -1"),
        (("--set", "model.predictor.widths=8"), "widths and blocks must have one entry per resolution"),
        (("--set", "crop=33"), "needs a multiple of 16"),
    ],
)
def test_wrong_numbers_are_told(
    wrong: tuple[str, str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("predictor", tmp_path / "run", *wrong) == 2
    assert re.search(named, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_interrupted_run_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> object:
        (tmp_path / "resume.safetensors").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(public, "train", interrupted)
    assert train("semantic", tmp_path) == 130
    assert "same command" in capsys.readouterr().err


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_table_says_what_the_definitions_hold(system: str) -> None:
    configs = import_module(f"pocketprior.core.models.{system}").CONFIGS
    assert MODEL_SIZES[system] == tuple(configs)
    for stage, entry in SYSTEMS[system].items():
        definition = entry.load()
        assert entry.sized is hasattr(definition.recipe, "model")
        assert entry.tasked is hasattr(definition.recipe, "task")
        mobile = configs["mobile"]
        assert stage == "semantic" or getattr(definition.recipe, "model", mobile) == mobile  # mobile has no code


def test_unknown_stage_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownNameError, match="pretrain, warmup, joint"):
        find_stage("diffir", "posttrain")
    assert main(["train", "dtpm", "posttrain"]) == 2
    assert "adapters" in capsys.readouterr().err


def test_training_from_python(runs: Path, tmp_path: Path) -> None:
    """The same bits as the command's."""
    recipe = read_recipe("dtpm", "semantic", settings=(*SETTINGS, *SMALL))
    (saved, last) = training.train(recipe, system="dtpm", stage="semantic", data=str(EXAMPLES), out=tmp_path, workers=0)
    assert (saved.step, last.step) == (1, 2)
    name = "model.safetensors"
    assert (tmp_path / name).read_bytes() == (runs / "semantic" / name).read_bytes()


def test_earlier_checkpoint_that_is_not_named_is_asked_for(tmp_path: Path) -> None:
    recipe = read_recipe("dtpm", "adapters", size="mobile", task="rain")
    with pytest.raises(UsageError, match="starts from a 'prior' checkpoint"):
        next(training.train(recipe, system="dtpm", stage="adapters", data=str(EXAMPLES), out=tmp_path / "run"))
    with pytest.raises(UnknownNameError, match="tiny, mobile"):
        read_recipe("dtpm", "prior", size="huge")


HELP = """
import sys


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "accelerate", "safetensors", "tensorboard", "tomli_w", "webdataset"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


sys.meta_path.insert(0, Blocker())
from pocketprior.core.cli import main

sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "words", [("train",), ("train", "dtpm", "prior"), ("evaluate",)], ids=lambda words: " ".join(words)
)
def test_help_needs_neither_torch_nor_accelerate(words: tuple[str, ...]) -> None:
    arguments = [sys.executable, "-c", HELP, *words]
    printed = subprocess.run([*arguments, "--help"], capture_output=True, text=True, check=True).stdout
    assert f"pocketprior {' '.join(words)}" in printed


def test_training_without_torch_names_the_extra(tmp_path: Path) -> None:
    arguments = ["train", "dtpm", "prior", "--data", str(EXAMPLES), "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", HELP, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pocketprior[train]" in done.stderr
