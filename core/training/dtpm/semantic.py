"""Training of the semantic encoder, without labels.

VICReg (Bardes, Ponce and LeCun, ICLR 2022): two random views of one photo should get the same code (invariance), while
the codes of a batch keep their variance and stay uncorrelated. Views differ in window, mirroring, colour and damage, so
that the code says what a photo shows and not how noisy it is.

Variance and covariance are those of the part of a batch that one process computes at once: with several processes or
`accumulate`, keep that part large (64 or more).

Later stages see few photos and many crops: `draw_code` therefore makes the codes noisy, and drops some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import UsageError
from ...models.checkpoints import Checkpoint
from ...models.dtpm import DtpmConfig
from ...models.semantic_code import SemanticConfig, SemanticEncoder
from ..data.photos import CONTEXTS, Pool, TrainingData
from ..loop.recipe import Recipe
from ..loop.stage import Arrays, StageDefinition, Validation

__all__ = [
    "CODE_DROP",
    "CODE_NOISE",
    "SEMANTIC_STAGE",
    "SemanticRecipe",
    "SemanticStage",
    "draw_code",
    "noisy_code",
    "vicreg",
]

EXPANDED = 512  # length of the vectors in the variance and covariance terms
CODE_DROP = 0.1  # share of crops trained without a code
CODE_NOISE = 0.3  # standard deviation of noise on the (unit variance) codes


@dataclass(frozen=True)
class SemanticRecipe(Recipe):
    """How to train the encoder of a DTPM."""

    model: DtpmConfig = field(default_factory=DtpmConfig)


def vicreg(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Eqs. 1-6 with the paper's weights 25, 25, 1. a, b: (N, D) vectors of two views of the same photos."""
    invariance = F.mse_loss(a, b)
    variance = sum(F.relu(1 - torch.sqrt(v.var(dim=0) + 1e-4)).mean() for v in (a, b)) / 2
    covariance = sum(_off_diagonal(v).square().sum() / v.shape[1] for v in (a, b))
    loss = 25 * invariance + 25 * variance + covariance
    return {"loss": loss, "invariance": invariance, "covariance": torch.as_tensor(covariance)}


def _off_diagonal(v: Tensor) -> Tensor:
    centred = v - v.mean(dim=0)
    covariance = centred.T @ centred / (len(v) - 1)
    return covariance - torch.diag(torch.diag(covariance))


class SemanticStage:
    """Trains a `SemanticEncoder` through an expander that is thrown away."""

    kind = "semantic"

    def __init__(self, config: SemanticConfig, data: TrainingData) -> None:
        self.config = config
        self.contexts = data.train.at(0).contexts
        self.val = data.val
        self.encoder = SemanticEncoder(config)
        self.expander = nn.Sequential(nn.Linear(config.code, EXPANDED), nn.ReLU(), nn.Linear(EXPANDED, EXPANDED))
        self.model: nn.Module = nn.ModuleDict({"encoder": self.encoder, "expander": self.expander})
        self.trained = {"": 1.0}
        self.frozen = nn.ModuleList()

    def draw(self, pool: Pool, crop: int, rng: Generator) -> Arrays:
        """Two damaged views, a and b (3, size, size), of one photo."""
        del crop  # the encoder looks at whole photos
        photo = int(rng.integers(len(pool.photos)))
        return {name: _view(pool.contexts[photo * CONTEXTS + int(rng.integers(CONTEXTS))], rng) for name in "ab"}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """VICReg on both views, in float32 (covariances lose too much in bf16)."""
        codes = self.encoder(torch.cat([batch["a"], batch["b"]])).float()
        with torch.autocast(codes.device.type, enabled=False):
            return vicreg(*self.expander(codes).chunk(2))

    def validate(self, model: nn.Module) -> Validation:
        """Standardise the codes; share of held-back views whose nearest neighbour by code shows the same photo."""
        encoder = model.get_submodule("encoder")
        assert isinstance(encoder, SemanticEncoder)
        device = encoder.mean.device
        encoder.standardize(_thumbnails(self.contexts, device))
        codes = F.normalize(encoder(_thumbnails(self.val.contexts, device)))
        nearest = (codes @ codes.T - 2 * torch.eye(len(codes), device=device)).argmax(dim=1)
        same = nearest // CONTEXTS == torch.arange(len(codes), device=device) // CONTEXTS
        return Validation({"val_same_photo": float(same.float().mean())}, {})

    def facts(self) -> dict[str, Any]:
        """Nothing beyond the weights."""
        return {}


def _view(context: np.ndarray[Any, np.dtype[np.uint8]], rng: Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    view = context.astype(np.float32) / np.float32(255)
    if rng.random() < 0.5:
        view = view[:, :, ::-1]
    gain = (rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, (3, 1, 1))).astype(np.float32)
    noise = np.float32(rng.uniform(0, 0.06)) * rng.standard_normal(view.shape, dtype=np.float32)
    bent: np.ndarray[Any, np.dtype[np.float32]] = view ** np.float32(rng.uniform(0.7, 1.4))
    return np.clip(bent * gain + noise, 0, 1, dtype=np.float32)


def _thumbnails(contexts: np.ndarray[Any, np.dtype[np.uint8]], device: torch.device) -> Tensor:
    return torch.from_numpy(contexts).to(device).float() / 255


def draw_code(thumbnail: NDArray[np.uint8], length: int, drop: float, noise: float, rng: Generator) -> Arrays:
    """Draw "code_noise" float32 (length,) and "code_kept" float32 (), 0 or 1, for the "thumbnail" uint8 (3, S, S)."""
    return {
        "thumbnail": thumbnail,
        "code_noise": np.float32(noise) * rng.standard_normal(length, dtype=np.float32),
        "code_kept": np.array(rng.random() >= drop, np.float32),
    }


def noisy_code(encode: Callable[[Tensor], Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """The codes of a batch of what `draw_code` drew, (N, K) float32. encode: thumbnails (N, 3, S, S) -> codes."""
    thumbnails = batch["thumbnail"].float() / 255
    with torch.no_grad(), torch.autocast(thumbnails.device.type, enabled=False):
        code = encode(thumbnails)
    return (code + batch["code_noise"]) * batch["code_kept"][:, None]


def _build(recipe: SemanticRecipe, earlier: Mapping[str, Checkpoint], data: TrainingData) -> SemanticStage:
    """From scratch. Raises UsageError for a model without a semantic code."""
    del earlier
    config = recipe.model.semantic
    if not config.code:
        raise UsageError(
            "this model has no semantic code, so it needs no encoder: train its prior without --semantic, or choose "
            "a model that has one (--size base, or --set model.semantic.code=... with size and widths)"
        )
    return SemanticStage(config, data)


SEMANTIC_STAGE = StageDefinition(
    SemanticRecipe(steps=2500, batch=96, rate=1e-3, warmup=200, decay=1e-4, ema=0.99, save_every=500), _build
)
