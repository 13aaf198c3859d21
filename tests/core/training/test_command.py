"""`pocketprior train`, from nothing to a pack, on the example photos."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketprior.core.cli import main
from pocketprior.core.models import checkpoints
from pocketprior.core.training import command

EXAMPLES = Path(__file__).parents[3] / "examples"
QUICK = [
    argument
    for setting in ("steps=2", "save_every=1", "batch=2", "crop=32", "precision=fp32")
    for argument in ("--set", setting)
]


def train(stage: str, out: Path, *more: str) -> int:
    return main(["train", "dtpm", stage, "--data", str(EXAMPLES), "--out", str(out), *QUICK, *more])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four stages, one after the other."""
    runs = tmp_path_factory.mktemp("runs")
    models = {name: str(runs / name / "model.safetensors") for name in command.STAGES}
    assert train("semantic", runs / "semantic") == 0
    assert train("predictor", runs / "predictor") == 0
    assert train("prior", runs / "prior", "--semantic", models["semantic"]) == 0
    earlier = [x for name in ("semantic", "prior", "predictor") for x in (f"--{name}", models[name])]
    assert train("adapters", runs / "adapters", *earlier) == 0
    return runs


def test_every_stage_leaves_a_checkpoint_and_a_log(runs: Path) -> None:
    kinds = {"semantic": "semantic", "predictor": "predictor", "prior": "prior", "adapters": "dtpm"}
    for stage, kind in kinds.items():
        assert checkpoints.load(runs / stage / "model.safetensors", kind).facts["step"] == 2
        assert len((runs / stage / "log.csv").read_text().splitlines()) == 3


def test_stage_two_holds_the_prior_of_stage_one(runs: Path) -> None:
    whole = checkpoints.load(runs / "adapters" / "model.safetensors", "dtpm")
    prior = checkpoints.load(runs / "prior" / "model.safetensors", "prior")
    part = whole.part("denoiser")
    assert all(part[name].equal(tensor) for name, tensor in prior.tensors.items())


def test_last_stage_exports_to_a_pack_that_verifies(runs: Path, tmp_path: Path) -> None:
    model, semantic = (str(runs / name / "model.safetensors") for name in ("adapters", "semantic"))
    pack = str(tmp_path / "pack")
    assert main(["export", model, "--semantic", semantic, "--data", str(EXAMPLES), "-o", pack]) == 0
    assert main(["verify", pack]) == 0


def test_finished_run_has_nothing_left_to_do(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("semantic", runs / "semantic") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("stage", "option"), [("prior", "--semantic"), ("adapters", "--semantic")], ids=["prior", "adapters"]
)
def test_missing_earlier_stage_is_named(
    stage: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(stage, tmp_path / "run") == 2
    assert option in capsys.readouterr().err


def test_interrupted_run_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train", lambda *_: (interrupted() for _ in (1,)))
    assert train("semantic", tmp_path / "run") == 130
    assert "same command" in capsys.readouterr().err
