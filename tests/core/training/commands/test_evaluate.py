"""`pocketprior evaluate` on small random models and the example photos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketprior.core.cli import main
from pocketprior.core.models import checkpoints
from pocketprior.core.models.diffir import CONFIGS, CpenConfig, Diffir, Teacher
from pocketprior.core.models.dtpm import Predictor
from pocketprior.core.models.gen2res import Denoiser, Gen2ResConfig
from pocketprior.core.training import runs
from pocketprior.core.training.evaluation import gen2res
from pocketprior.core.training.gen2res.base import CONSTRAIN_STAGE
from support.small_models import CONFIG, save_small

EXAMPLES = Path(__file__).parents[4] / "examples"
GEN2RES = Gen2ResConfig(widths=(8, 8), blocks=1, attention=(), compact=True, embedding=16, groups=4, dropout=0.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with one held-back photo, and an album of two."""
    folder = tmp_path / "data"
    (folder / "album").mkdir(parents=True)
    rows = ["file,split,set,role,use"]
    for name, where, group in (("dog", "", "hq"), ("dog", "album/", "dreambooth"), ("clock", "album/", "dreambooth")):
        (folder / f"{where}{name}.jpg").write_bytes((EXAMPLES / f"{name}.jpg").read_bytes())
        rows.append(f"{where}{name}.jpg,val,{group},clean,any")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of everything the page is about."""
    torch.manual_seed(0)
    diffir = replace(CONFIGS["mobile"], ipr=8, cpen=CpenConfig(width=4, blocks=1))
    models = {
        "predictor": ("predictor", CONFIG, Predictor(CONFIG.predictor), {}),
        "diffir": ("diffir", diffir, Diffir(diffir), {"task": "motionblur"}),
        "diffir-pretrain": ("diffir-pretrain", diffir, Teacher(diffir), {"task": "motionblur"}),
        "gen2res": ("gen2res", GEN2RES, Denoiser(GEN2RES), {}),
    }
    for name, (kind, config, model, facts) in models.items():
        (tmp_path / name).mkdir()
        checkpoints.save(tmp_path / name / "model.safetensors", kind, config, model.state_dict(), facts)
    for path, name in zip(save_small(tmp_path), ("cleanup", "semantic"), strict=True):
        (tmp_path / name).mkdir()
        path.rename(tmp_path / name / "model.safetensors")
    monkeypatch.setattr(runs, "SHIPPED_BASE", tmp_path / "gen2res" / "model.safetensors")
    quick = replace(CONSTRAIN_STAGE.recipe, steps=1, batch=1, crop=16, rank=2, save_every=1, precision="fp32")
    monkeypatch.setattr(gen2res, "CONSTRAIN_STAGE", replace(CONSTRAIN_STAGE, recipe=quick))
    return tmp_path


def test_page_has_a_table_per_system_noise_and_album(
    data: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = trained / "results.md"
    arguments = ["evaluate", "--data", str(data), "--checkpoints", str(trained), "--work", str(trained / "work")]
    monkeypatch.setattr(gen2res, "bm3d", lambda image, _: np.clip(np.round(image), 0, 255).astype(np.uint8))
    assert main([*arguments, "--side", "192", "-o", str(out)]) == 0
    titles = [line for line in out.read_text().splitlines() if line.startswith("## ")]
    assert titles == [
        "## DTPM, task `cleanup`",
        "## DiffIR, task `motionblur`",
        "## Gen2Res, noise of sigma 15",
        "## Gen2Res, noise of sigma 25",
        "## Gen2Res, noise of sigma 50",
        "## Gen2Res, album `album`, task `noise`",
        "## Gen2Res, mean of the 1 albums",
    ]
    assert str(trained) not in out.read_text()
    assert "7 tables" in capsys.readouterr().out


def test_page_without_a_folder_is_refused_at_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--data", str(data), "-o", "none/results.md"]) == 2
    assert "does not exist" in capsys.readouterr().err
