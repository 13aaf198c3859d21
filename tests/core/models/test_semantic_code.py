from __future__ import annotations

import sys
import types
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from pocketprior.core.errors import CheckpointError, MissingExtraError, UnknownNameError, UsageError
from pocketprior.core.models import checkpoints
from pocketprior.core.models.semantic_code import (
    SemanticConfig,
    SemanticEncoder,
    TimmEncoder,
    encoder_of,
    open_semantic,
    semantic_file,
)

SMALL = SemanticConfig(size=16, code=6, widths=(8, 8))


class Net(nn.Module):
    """What a timm model looks like from outside: mean colour of the quarters, then one layer."""

    num_features = 5
    pretrained_cfg = types.MappingProxyType({"classifier": "head"})

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2:] == (8, 8)
        return self.layer(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def checkpoint_filter_fn(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """As timm's: found in the module of the model's class, renames another project's layout."""
    assert isinstance(model, Net)
    if "strange" in tensors:
        raise KeyError("visual.proj")
    return {name.removeprefix("visual."): tensor for name, tensor in tensors.items()}


FACTS = {"input_size": (3, 8, 8), "interpolation": "bicubic", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


@pytest.fixture
def fake_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = types.ModuleType("timm")
    fake.data = types.ModuleType("timm.data")
    fake.data.resolve_model_data_config = lambda _net: FACTS
    fake.is_model = lambda name: name == "net"
    fake.list_models = lambda _pattern: ["net"]
    fake.create_model = lambda _name, pretrained, num_classes: Net() if not pretrained and num_classes == 0 else None
    monkeypatch.setitem(sys.modules, "timm", fake)
    monkeypatch.setitem(sys.modules, "timm.data", fake.data)
    monkeypatch.setitem(sys.modules, Net.__module__, sys.modules.get(Net.__module__, types.ModuleType("here")))
    monkeypatch.setattr(sys.modules[Net.__module__], "checkpoint_filter_fn", checkpoint_filter_fn, raising=False)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    torch.manual_seed(0)
    safetensors.torch.save_file({f"visual.{k}": v for k, v in Net().state_dict().items()}, path)
    return path


def test_codes_of_the_standardizing_photos_have_mean_0_and_variance_1() -> None:
    torch.manual_seed(0)
    encoder, photos = SemanticEncoder(SMALL), torch.rand(64, 3, 16, 16)
    encoder.standardize(photos)
    codes = encoder(photos)
    torch.testing.assert_close(codes.mean(0), torch.zeros(6), rtol=0, atol=1e-4)
    torch.testing.assert_close(codes.std(0), torch.ones(6), rtol=0, atol=1e-3)


def test_our_own_checkpoint_gives_a_frozen_encoder(tmp_path: Path) -> None:
    encoder, path = SemanticEncoder(SMALL).eval(), tmp_path / "semantic.safetensors"
    tensors = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    checkpoints.save(path, "semantic", SMALL, tensors | {"expander.weight": torch.ones(2)}, {})
    loaded = encoder_of(open_semantic(str(path)))
    photo = torch.rand(2, 3, 16, 16)
    assert torch.equal(loaded(photo), encoder(photo))
    assert not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.usefixtures("fake_timm")
class TestTimm:
    def test_weights_in_another_layout_are_converted(self, weights: Path) -> None:
        checkpoint = open_semantic(f"timm:net={weights}")
        assert checkpoint.config == asdict(SemanticConfig(8, 5, (), "net"))
        encoder = encoder_of(checkpoint)
        assert torch.equal(encoder.net.layer.weight, safetensors.torch.load_file(weights)["visual.layer.weight"])

    def test_thumbnail_is_normalised_as_the_model_says_and_the_code_is_too(self, weights: Path) -> None:
        encoder, photo = encoder_of(open_semantic(f"timm:net={weights}")), torch.rand(2, 3, 8, 8)
        facts = (torch.tensor(FACTS[name]).reshape(3, 1, 1) for name in ("mean", "std"))
        mean, std = facts
        raw = encoder.net((photo - mean) / std)
        expected = (raw - raw.mean(1, keepdim=True)) / raw.std(1, keepdim=True, correction=0)
        torch.testing.assert_close(encoder(photo), expected, rtol=0, atol=1e-3)

    def test_thumbnail_of_another_size_is_resized(self, weights: Path) -> None:
        encoder = encoder_of(open_semantic(f"timm:net={weights}"))
        colour = torch.tensor([0.1, 0.5, 0.9]).reshape(1, 3, 1, 1)
        torch.testing.assert_close(encoder(colour.expand(1, 3, 20, 13)), encoder(colour.expand(1, 3, 8, 8)))

    def test_classifier_in_the_file_is_left_out(self, weights: Path) -> None:
        tensors = safetensors.torch.load_file(weights) | {"head.weight": torch.ones(10, 5)}
        safetensors.torch.save_file(tensors, weights)
        assert set(open_semantic(f"timm:net={weights}").tensors) == {
            "encoder.net.layer.weight",
            "encoder.net.layer.bias",
        }

    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            ({"layer.weight": torch.ones(5, 12)}, r"1 tensors .* such as 'layer.bias'"),
            ({"layer.weight": torch.ones(5, 12), "layer.bias": torch.ones(4)}, r"'layer.bias'"),
            ({"layer.weight": torch.ones(5, 12), "layer.bias": torch.ones(5), "x": torch.ones(1)}, r"such as 'x'"),
            ({"strange": torch.ones(1)}, r"timm cannot convert it for 'net' \(KeyError\('visual.proj'\)\)"),
        ],
    )
    def test_wrong_keys_are_named(self, tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
        safetensors.torch.save_file(tensors, tmp_path / "x.safetensors")
        with pytest.raises(CheckpointError, match=message):
            open_semantic(f"timm:net={tmp_path / 'x.safetensors'}")

    def test_missing_file_says_that_nothing_is_downloaded(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="nothing is downloaded"):
            open_semantic(f"timm:net={tmp_path / 'none'}")

    def test_damaged_file_is_refused(self, weights: Path) -> None:
        weights.write_bytes(weights.read_bytes()[:20])
        with pytest.raises(CheckpointError, match="not a whole safetensors file"):
            open_semantic(f"timm:net={weights}")

    def test_nan_is_refused(self, weights: Path) -> None:
        tensors = safetensors.torch.load_file(weights)
        tensors["visual.layer.bias"][0] = torch.nan
        safetensors.torch.save_file(tensors, weights)
        with pytest.raises(CheckpointError, match=r"'layer\.bias' holds NaN"):
            open_semantic(f"timm:net={weights}")

    def test_unknown_model_lists_known_ones(self, weights: Path) -> None:
        with pytest.raises(UnknownNameError, match="unknown timm model 'nets'; choose one of: net"):
            open_semantic(f"timm:nets={weights}")


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.data", None)
    with pytest.raises(MissingExtraError, match=r"pocketprior\[timm\]"):
        open_semantic("timm:net=file")


@pytest.mark.parametrize("source", ["timm:net", "timm:=file", "timm:net="])
def test_half_a_source_is_refused(source: str) -> None:
    with pytest.raises(UsageError, match="timm:MODEL=FILE"):
        semantic_file(source)


def test_file_of_a_source() -> None:
    assert semantic_file("a/b.safetensors") == Path("a/b.safetensors")
    assert semantic_file("timm:vit=a/b=c.safetensors") == Path("a/b=c.safetensors")


def real_timm() -> Any:
    try:
        return import_module("timm")
    except (ImportError, RuntimeError) as error:  # not installed, or beside a torchvision for another torch
        pytest.skip(f"timm cannot be imported: {error}")


def clip_name(name: str) -> str:
    """OpenAI's name for a tensor of a CLIP image encoder that timm calls `name`."""
    swaps = {
        "patch_embed.proj": "conv1",
        "pos_embed": "positional_embedding",
        "cls_token": "class_embedding",
        "blocks.": "transformer.resblocks.",
        "attn.qkv.": "attn.in_proj_",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        ".norm1": ".ln_1",
        ".norm2": ".ln_2",
    }
    for ours, theirs in swaps.items():
        name = name.replace(ours, theirs)
    return "visual." + ("ln_post" + name.removeprefix("norm") if name.startswith("norm.") else name)


def test_the_real_timm_with_a_file_as_it_saves_it(tmp_path: Path) -> None:
    timm, path = real_timm(), tmp_path / "vit.safetensors"
    torch.manual_seed(1)
    net = timm.create_model("test_vit", pretrained=False).eval()
    safetensors.torch.save_file(net.state_dict(), path)
    encoder = encoder_of(open_semantic(f"timm:test_vit={path}"))
    assert isinstance(encoder, TimmEncoder)
    photo = torch.rand(2, 3, encoder.config.size, encoder.config.size)
    features = net.forward_head(net.forward_features((photo - encoder.mean) / encoder.std), pre_logits=True)
    expected = nn.functional.layer_norm(features, features.shape[1:])
    torch.testing.assert_close(encoder(photo), expected, rtol=0, atol=1e-5)
    assert encoder(torch.rand(1, 3, 96, 96)).shape == (1, encoder.config.code)


def test_the_real_timm_converts_the_layout_of_clip(tmp_path: Path) -> None:
    timm, path = real_timm(), tmp_path / "clip.safetensors"
    torch.manual_seed(1)
    ours = timm.create_model("test_vit", pretrained=False, num_classes=0).state_dict()
    theirs = {clip_name(name): tensor for name, tensor in ours.items()}
    theirs["visual.class_embedding"] = theirs["visual.class_embedding"].flatten()
    theirs["visual.positional_embedding"] = theirs["visual.positional_embedding"][0]
    # The projection to the text space and the text tower are left out.
    theirs |= {"visual.proj": torch.ones(64, 10), "token_embedding.weight": torch.ones(3, 4)}
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in theirs.items()}, path)
    encoder = encoder_of(open_semantic(f"timm:test_vit={path}"))
    state = encoder.net.state_dict()
    assert state.keys() == ours.keys()
    assert all(torch.equal(state[name], ours[name]) for name in ours)
