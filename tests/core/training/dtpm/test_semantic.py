from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pocketprior.core.errors import UsageError
from pocketprior.core.models.dtpm import MOBILE, DtpmConfig
from pocketprior.core.models.semantic_code import SemanticConfig, SemanticEncoder
from pocketprior.core.training.data.photos import CONTEXTS, TrainingData, gather
from pocketprior.core.training.dtpm.prior import SEMANTIC_STAGE, SemanticStage, vicreg
from pocketprior.core.training.loop.loop import train

MODEL = DtpmConfig(semantic=SemanticConfig(size=16, code=6, widths=(8, 8)))
QUICK = replace(SEMANTIC_STAGE.recipe, steps=3, batch=8, save_every=3, precision="fp32", model=MODEL)


@pytest.fixture
def stage() -> SemanticStage:
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, high, (32, 40, 3), dtype=np.uint8) for high in (40, 120, 250)]
    pool = gather(photos, minimum=16, side=16, structures=False)
    torch.manual_seed(0)
    return SEMANTIC_STAGE.build(QUICK, {}, TrainingData(pool, pool))


def test_model_without_a_code_needs_no_encoder() -> None:
    photos = TrainingData(gather([np.zeros((32, 32, 3), np.uint8)], minimum=16, side=0, structures=False), None)
    with pytest.raises(UsageError, match=r"no semantic code.*--size base"):
        SEMANTIC_STAGE.build(replace(QUICK, model=MOBILE), {}, photos)


def test_equal_views_cost_nothing_but_variance() -> None:
    codes = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) * 3
    assert float(vicreg(codes, codes)["invariance"]) == 0
    collapsed = torch.ones(64, 8)
    assert float(vicreg(collapsed, collapsed)["loss"]) > float(vicreg(codes, codes)["loss"])


def test_views_are_seeded_differ_and_show_one_photo(stage: SemanticStage) -> None:
    pool = stage.val
    for seed in range(8):
        views, again = (stage.draw(pool, 96, np.random.default_rng(seed)) for _ in range(2))
        assert all(np.array_equal(views[name], again[name]) for name in "ab")
        assert not np.array_equal(views["a"], views["b"])
        for view in views.values():
            assert (view.shape, view.dtype) == ((3, 16, 16), np.float32)
            assert view.min() >= 0
            assert view.max() <= 1


def test_every_parameter_learns(stage: SemanticStage) -> None:
    samples = [stage.draw(stage.val, 96, np.random.default_rng(i)) for i in range(8)]
    batch = {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in "ab"}
    stage.loss(batch)["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stage.model.parameters())


def test_checkpoint_holds_standard_codes(stage: SemanticStage, tmp_path: object) -> None:
    from pathlib import Path

    from pocketprior.core.models import checkpoints

    data = TrainingData(stage.val, stage.val)
    (step,) = train(stage, data, QUICK, Path(str(tmp_path)), workers=0)
    assert 0 <= step.figures["val_same_photo"] <= 1
    encoder = SemanticEncoder(MODEL.semantic)
    encoder.load_state_dict(checkpoints.load(Path(str(tmp_path)) / "model.safetensors", "semantic").part("encoder"))
    codes = encoder(torch.from_numpy(stage.contexts).float() / 255)
    assert codes.shape == (3 * CONTEXTS, 6)
    torch.testing.assert_close(codes.mean(0), torch.zeros(6), rtol=0, atol=1e-4)
    torch.testing.assert_close(codes.std(0), torch.ones(6), rtol=1e-3, atol=0)
