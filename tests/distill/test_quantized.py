"""A student learns in 8 bits against itself, keeps its steps, and is quantized like any other model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from pocketprior.core.cli import main
from pocketprior.core.models import checkpoints
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.training.data.photos import Pool
from pocketprior.distill import distillation
from pocketprior.export.writer import golden_restoration
from support import packs
from support.small_checkpoints import Build, batch_of
from support.small_models import save_diffir, save_gen2res

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = {"dtpm": 2, "gen2res": 2, "diffir": 4}

Files = dict[str, tuple[Path, str | None]]


@pytest.fixture(autouse=True)
def _one_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "GATE_PHOTOS", 1)


@pytest.mark.parametrize("system", STEPS)
def test_only_8_bits_keep_a_fresh_student_from_its_teacher(system: str, build: Build, pool: Pool) -> None:
    stage = build("quantized", system, sampling_steps=STEPS[system])
    batch = batch_of(stage, pool)
    student = stage.model
    with torch.no_grad():
        assert 0 < float(stage.loss(batch)["loss"]) < 1
        stage.model = stage.system.teacher
        assert float(stage.loss(batch)["loss"]) == 0
    stage.model = student
    with torch.no_grad():
        figures = stage.validate(stage.model).figures
        assert stage.validate(stage.system.teacher).figures["val_worst_db"] == math.inf
    assert 15 < figures["val_worst_db"] < 80
    assert figures["val_psnr"] != figures["val_teacher_psnr"]
    assert figures["val_psnr"] == pytest.approx(figures["val_teacher_psnr"], abs=1)


def test_a_prior_that_tasks_share_computes_in_8_bits_and_stays(build: Build) -> None:
    stage = build("quantized", "dtpm", sampling_steps=1, prior_rate=0.0)
    assert stage.trained == {"adapters": 1.0, "predictor": 1.0}
    assert stage.model.get_submodule("denoiser")._forward_pre_hooks


@pytest.mark.parametrize(("system", "steps", "own"), [("diffir", 2, 4), ("gen2res", 2, 1)])
def test_other_steps_than_the_students_are_refused(
    system: str, steps: int, own: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"levels": [0.3, 1.0], "times": [0.2], "steps": 1}
    model = save_diffir(tmp_path) if system == "diffir" else save_gen2res(tmp_path, facts)
    words = ["distill", str(model), "--data", str(EXAMPLES), "--out", str(tmp_path / "run"), "--set", "crop=16"]
    assert main([*words, "--method", "quantized", "--steps", str(steps)]) == 2
    assert f"{steps} steps were asked for, this model samples in {own}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_finished_run_is_exported_and_quantized(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_restoration, "COARSE_SLACK", 254)  # the weights were trained for one step
    teacher, semantic = files["dtpm"]
    conditions = ["--semantic", str(semantic)]
    settings = ("steps=1", "save_every=1", "batch=2", "crop=16", "measured=2")
    words = ["--out", str(tmp_path / "run"), "--method", "quantized", "--steps", "1", "--workers", "0"]
    words += [word for setting in settings for word in ("--set", setting)]
    assert main(["distill", str(teacher), "--data", str(EXAMPLES), *conditions, *words]) == 0
    model = tmp_path / "run" / "model.safetensors"
    facts = checkpoints.load(model, "dtpm").facts
    assert (facts["method"], facts["steps"], facts["teacher_steps"]) == ("quantized", 1, 1)
    pack, photos = tmp_path / "pack", tmp_path / "photos"
    assert main(["export", str(model), "--data", str(EXAMPLES), *conditions, "-o", str(pack)]) == 0
    assert Manifest.load(pack).levels == tuple(facts["levels"])
    photos.mkdir()
    for seed in range(3):
        Image.fromarray(packs.photo(40, 48, seed=seed)).save(photos / f"{seed}.png")
    out = tmp_path / "int8"
    words = ["--precision", "int8", "--budget-db", "10", "--side", "32", "--photos", "1", "-o", str(out)]
    assert main(["quantize", str(pack), "--data", str(photos), *words]) == 0
    assert Manifest.load(out).precision["onnx"]["fused"] == "int8"
