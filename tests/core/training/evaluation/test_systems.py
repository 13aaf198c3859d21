"""The three tables on small random models: every row is there, and says what it claims to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pocketprior.core.arrays import to_image
from pocketprior.core.errors import CheckpointError
from pocketprior.core.metrics import psnr
from pocketprior.core.metrics.baselines import NULLS
from pocketprior.core.models import checkpoints
from pocketprior.core.models.diffir import CONFIGS as DIFFIR
from pocketprior.core.models.diffir import CpenConfig, Diffir, DiffirConfig, Teacher
from pocketprior.core.models.dtpm import Predictor
from pocketprior.core.models.gen2res import CONFIGS as GEN2RES
from pocketprior.core.models.gen2res import Denoiser
from pocketprior.core.models.semantic_code import encoder_of
from pocketprior.core.photo.io import read
from pocketprior.core.sampling.noise import normal_vector
from pocketprior.core.training.evaluation import diffir, dtpm, gen2res
from pocketprior.core.training.evaluation.score import cases, square
from pocketprior.core.training.gen2res.base import CONSTRAIN_STAGE
from support.small_models import CONFIG, save_small

EXAMPLES = Path(__file__).parents[4] / "examples"
METHODS = {
    "dtpm": [
        "input",
        "predictor alone",
        "unsharp mask",
        "shaped noise",
        "DTPM, 4 steps, gain 0.5",
        "DTPM, 50 steps, gain 0.5",
    ],
    "diffir": [
        "input",
        "V1, trained without diffusion",
        *(
            f"{stage}, {prior}"
            for stage in ("stage 2", "stage 1")
            for prior in ("its own prior", "another photo's prior", "the mean prior")
        ),
    ],
    "gen2res": ["input", "regressor alone", "no album", "Gen2Res, album", "the true photo"],
    "noise": [
        "input",
        "Gen2Res, K = 200, noise not counted",
        "Gen2Res, noise estimated",
        "Gen2Res, sigma given",
        "BM3D, noise estimated",
        "BM3D, sigma given",
        "BM3D, noise estimated, clipped values replaced",
    ],
}


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return [square(read(path).pixels, 192) for path in sorted(EXAMPLES.glob("*.jpg"))]


def test_dtpm(photos: list[np.ndarray], tmp_path: Path) -> None:
    model, semantic = save_small(tmp_path)
    table = dtpm.evaluate(model, encoder_of(checkpoints.load(semantic, "semantic")), photos)
    assert [row.method for row in table.rows] == METHODS["dtpm"]
    assert len({row.values["PSNR"] for row in table.rows if row.method not in NULLS}) == len(table.rows) - len(NULLS)
    said = "\n".join(table.verdicts)
    assert "Texture, minus shaped noise: SWD " in said
    assert "Calibration, 50 steps: " in said
    ours, alone = (table.value(name, "PSNR") for name in ("DTPM, 4 steps, gain 0.5", "predictor alone"))
    for name in NULLS:
        assert table.value(name, "PSNR") == pytest.approx(min(ours, alone), abs=0.05)


def save_diffir(folder: Path, **changes: Any) -> tuple[DiffirConfig, Path, Path]:
    """Config, and checkpoints of both stages."""
    torch.manual_seed(0)
    config = replace(DIFFIR["mobile"], ipr=8, cpen=CpenConfig(width=4, blocks=1), **changes)
    paths = folder / "diffir.safetensors", folder / "pretrain.safetensors"
    checkpoints.save(paths[0], "diffir", config, Diffir(config).state_dict(), {"task": "motionblur"})
    checkpoints.save(paths[1], "diffir-pretrain", config, Teacher(config).state_dict(), {"task": "motionblur"})
    return config, *paths


def test_diffir(photos: list[np.ndarray], tmp_path: Path) -> None:
    config, *paths = save_diffir(tmp_path)
    v1 = tmp_path / "v1.safetensors"
    plain = replace(config, steps=0)
    checkpoints.save(v1, "diffir", plain, Diffir(plain).state_dict(), {"task": "motionblur"})
    table = diffir.evaluate(*paths, photos, v1)
    without = diffir.evaluate(*paths, photos)
    assert [row.method for row in table.rows] == METHODS["diffir"]
    assert [row.method for row in without.rows] == [name for name in METHODS["diffir"] if not name.startswith("V1")]
    assert len({row.values["PSNR"] for row in table.rows}) == len(table.rows)
    assert len(table.verdicts) == len(without.verdicts) + 1 == 7
    assert all("95 % interval" in verdict for verdict in table.verdicts)


def test_diffir_under_priors_of_others(photos: list[np.ndarray], tmp_path: Path) -> None:
    """Of two photos, each gets the other's vector and the mean of both: the rows against the network by hand."""
    config, *paths = save_diffir(tmp_path)
    two = photos[:2]
    table = diffir.evaluate(*paths, two)
    model = Diffir(config).eval()
    checkpoints.load(paths[0], "diffir").fill(model)
    noise = torch.from_numpy(normal_vector(0, 0, config.ipr))
    found = cases(two, "motionblur")
    with torch.inference_mode():
        priors = [model.prior(model.condition(case.image), noise) for case in found]
        for kind, given in (("another photo's prior", priors[::-1]), ("the mean prior", [sum(priors) / 2] * 2)):
            for i, (case, prior) in enumerate(zip(found, given, strict=True)):
                pixels = to_image(model.restore(case.image, prior).clamp(0, 1).numpy(), np.uint8)
                row = {row.method: row for row in table.rows}[f"stage 2, {kind}"]
                assert row.each["PSNR"][i] == pytest.approx(psnr(pixels, case.true), abs=1e-3)


def test_diffir_refuses_a_v1_that_diffuses(photos: list[np.ndarray], tmp_path: Path) -> None:
    _, *paths = save_diffir(tmp_path)
    with pytest.raises(CheckpointError, match=r"--set model\.steps=0"):
        diffir.evaluate(*paths, photos[:1], paths[0])


def test_gen2res(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = replace(GEN2RES["mobile"], widths=(8, 8), groups=4, embedding=16)
    checkpoints.save(tmp_path / "base.safetensors", "gen2res", config, Denoiser(config).state_dict(), {})
    recipe = replace(CONSTRAIN_STAGE.recipe, steps=2, batch=2, crop=16, rank=2, save_every=2, precision="fp32")
    monkeypatch.setattr(gen2res, "CONSTRAIN_STAGE", replace(CONSTRAIN_STAGE, recipe=recipe))
    table = gen2res.evaluate(
        EXAMPLES,
        tmp_path / "base.safetensors",
        Predictor(CONFIG.predictor).eval(),
        tmp_path / "run",
        task="noise",
        side=192,
    )
    assert [row.method for row in table.rows] == METHODS["gen2res"]
    assert table.value("the true photo", "PSNR") == np.inf or table.value("the true photo", "PSNR") > 90
    assert table.verdicts == ()
    mean = gen2res.overall([table, table])
    assert mean.rows[0].values == pytest.approx(table.rows[0].values)
    assert "identity is not judged" in mean.verdicts[-1]


def test_plain_noise(photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network that knows nothing, and a mean filter in the place of BM3D."""
    torch.manual_seed(0)
    denoiser = Denoiser(replace(GEN2RES["mobile"], widths=(8, 8), groups=4, embedding=16)).eval()
    torch.nn.init.normal_(denoiser.end.weight, std=0.02)  # a fresh one always predicts zero
    told: list[float] = []

    def smoothed(image: np.ndarray, sigma: float) -> np.ndarray:
        told.append(sigma)
        mean = sum(np.roll(image.astype(float), shift, (0, 1)) for shift in ((0, 0), (0, 1), (1, 0), (1, 1))) / 4
        return np.clip(np.round(mean), 0, 255).astype(np.uint8)

    monkeypatch.setattr(gen2res, "bm3d", smoothed)
    table = gen2res.noise_table(denoiser, photos, 25)
    assert [row.method for row in table.rows] == METHODS["noise"]
    assert table.value("input", "PSNR") == pytest.approx(20.5, abs=1)
    assert told.count(25) == len(photos)
    estimates = [sigma for sigma in told if sigma != 25]
    assert len(estimates) == 2 * len(photos)
    assert estimates == pytest.approx([25] * len(estimates), rel=0.05)
    assert table.value("Gen2Res, noise estimated", "PSNR") != table.value("Gen2Res, sigma given", "PSNR")
