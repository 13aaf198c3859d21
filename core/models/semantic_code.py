"""The semantic code: one vector for what a photo shows, from a frozen encoder.

DTPM (CVPR 2024) conditions its prior on the code of a frozen pretrained network. Ours is trained on our own photos
without labels (`core.training.semantic`), so nothing is downloaded; any image network of the timm package can take its
place, from a local file of weights: `timm:vit_base_patch32_clip_224=clip.safetensors`.

An encoder is a module with a `config` that turns a thumbnail (N, 3, size, size) in [0, 1] into a code (N, code).
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError, MissingExtraError, UnknownNameError, UsageError
from . import checkpoints
from .checkpoints import Checkpoint

__all__ = [
    "NO_SEMANTIC",
    "NoEncoder",
    "SemanticConfig",
    "SemanticEncoder",
    "TimmEncoder",
    "encoder_of",
    "open_semantic",
    "semantic_file",
]

TIMM = "timm:"


@dataclass(frozen=True)
class SemanticConfig:
    """Sizes of the encoder, and whether it is our own."""

    size: int = 96  # side of the square thumbnail, pixels
    code: int = 64  # length of the code
    widths: tuple[int, ...] = (32, 64, 96, 128)  # of our own encoder: channels after each stride-2 convolution
    timm: str = ""  # name of the timm model instead of our own encoder


NO_SEMANTIC = SemanticConfig(size=0, code=0, widths=())  # of a model that has no semantic code


class NoEncoder(nn.Module):
    """The encoder of a model without a semantic code: thumbnail (N, ...) -> (N, 0)."""

    config = NO_SEMANTIC

    def forward(self, thumbnail: Tensor) -> Tensor:
        """Return an empty code per thumbnail."""
        return thumbnail.new_zeros(len(thumbnail), 0, dtype=torch.float32)


class SemanticEncoder(nn.Module):
    """thumbnail (N, 3, size, size) in [0, 1] -> code (N, code), mean 0 and variance 1 over the training photos."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        widths = (3, *config.widths)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.head = nn.Linear(widths[-1], config.code)
        self.register_buffer("mean", torch.zeros(config.code))
        self.register_buffer("scale", torch.ones(config.code))

    def forward(self, thumbnail: Tensor) -> Tensor:
        """thumbnail: (N, 3, size, size) in [0, 1]. Returns the code, (N, code)."""
        x = thumbnail * 2 - 1
        for conv in self.convs:
            x = F.relu(conv(x))
        return (self.head(x.mean(dim=(2, 3))) - self.mean) * self.scale

    @torch.no_grad()
    def standardize(self, thumbnails: Tensor) -> None:
        """Set mean and scale so that the codes of these thumbnails, (N, 3, size, size), have mean 0, variance 1."""
        self.mean.zero_()
        self.scale.fill_(1)
        codes = self(thumbnails)
        self.mean.copy_(codes.mean(0))
        self.scale.copy_(1 / codes.std(0).clamp_min(1e-6))


class TimmEncoder(nn.Module):
    """The pooled feature of a timm model, each code normalised to mean 0 and variance 1.

    Thumbnails of another size are resized, and all are normalised, by the model's own configuration; they are not
    cropped, because the code describes the whole photo. Raises MissingExtraError without timm, UnknownNameError for a
    model that timm does not have.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        timm = _timm()
        if not timm.is_model(name):
            raise UnknownNameError("timm model", name, timm.list_models(f"*{name.split('_')[0]}*") or ["timm's own"])
        self.net = timm.create_model(name, pretrained=False, num_classes=0)
        facts = timm.data.resolve_model_data_config(self.net)
        self.interpolation = str(facts["interpolation"])
        self.register_buffer("mean", torch.tensor(facts["mean"]).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(facts["std"]).reshape(1, 3, 1, 1), persistent=False)
        # With num_classes=0 the output is the feature that the classifier would see.
        length = getattr(self.net, "head_hidden_size", self.net.num_features)
        self.config = SemanticConfig(facts["input_size"][-1], length, (), name)

    def forward(self, thumbnail: Tensor) -> Tensor:
        """thumbnail: (N, 3, S, S) in [0, 1], of any size S. Returns the code, (N, code)."""
        size = (self.config.size, self.config.size)
        if thumbnail.shape[2:] != size:
            mode = "bilinear" if self.interpolation == "bilinear" else "bicubic"
            thumbnail = F.interpolate(thumbnail, size, mode=mode, antialias=True).clamp(0, 1)
        return F.layer_norm(self.net((thumbnail - self.mean) / self.std), (self.config.code,))


def _timm() -> Any:
    try:
        import_module("timm.data")
        return import_module("timm")
    except ModuleNotFoundError:
        raise MissingExtraError("timm", "timm", "a semantic encoder from timm") from None


def semantic_file(source: str) -> Path:
    """The file that a semantic source names: the source itself, or FILE of "timm:MODEL=FILE". Raises UsageError."""
    return _parts(source)[1]


def _parts(source: str) -> tuple[str, Path]:
    """(name of the timm model or "", file)."""
    if not source.startswith(TIMM):
        return "", Path(source)
    name, _, file = source.removeprefix(TIMM).partition("=")
    if not name or not file:
        raise UsageError(f"expected timm:MODEL=FILE, the model's name in timm and its safetensors, got '{source}'")
    return name, Path(file)


def open_semantic(source: str) -> Checkpoint:
    """A "semantic" checkpoint from a file that `pocketprior train` wrote, or from "timm:MODEL=FILE".

    FILE: safetensors with the weights in timm's own layout, or in one that timm converts for the model, such as
    OpenAI's or OpenCLIP's for CLIP image encoders. Raises CheckpointError when it does not fit the model or holds NaN.
    """
    name, path = _parts(source)
    if not name:
        return checkpoints.load(path, "semantic")
    encoder = TimmEncoder(name)
    tensors = _converted(encoder.net, _tensors(path), path, name)
    checkpoints.check_finite(path, tensors)
    return Checkpoint("semantic", asdict(encoder.config), {f"encoder.net.{k}": v for k, v in tensors.items()})


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"no weights at {path}; give a local safetensors file, nothing is downloaded") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); copy it again") from None


def _converted(net: nn.Module, tensors: dict[str, Tensor], path: Path, name: str) -> dict[str, Tensor]:
    """The tensors under the model's own names, without those of its classifier."""
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        try:
            tensors = convert(tensors, net)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path}: timm cannot convert it for '{name}' ({error!r})") from error
    heads = net.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr]
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    wanted = net.state_dict()
    given = {k: v for k, v in tensors.items() if k in wanted or not k.startswith(tuple(f"{h}." for h in heads))}
    wrong = checkpoints.misfits(wanted, given)
    if wrong:
        raise CheckpointError(
            f"{path} does not fit the timm model '{name}': {len(wrong)} tensors are missing, unknown or of another "
            f"shape, such as '{wrong[0]}'; give weights of this model in a layout that timm reads"
        )
    return given


def encoder_of(checkpoint: Checkpoint) -> SemanticEncoder | TimmEncoder:
    """The encoder that a "semantic" checkpoint holds, frozen. Raises CheckpointError when its tensors do not fit."""
    config = checkpoints.from_dict(SemanticConfig, checkpoint.config)
    encoder = TimmEncoder(config.timm) if config.timm else SemanticEncoder(config)
    return checkpoint.fill(encoder, "encoder").requires_grad_(False).eval()
