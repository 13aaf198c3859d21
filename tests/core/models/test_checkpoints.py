from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from pocketprior.core.errors import CheckpointError
from pocketprior.core.models import checkpoints
from pocketprior.core.models.dtpm import MOBILE, DtpmConfig

TENSORS = {"a.x": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    checkpoints.save(path, "dtpm", MOBILE, TENSORS, {"task": "cleanup"})
    return path


def test_round_trip_builds_the_same_configuration(path: Path) -> None:
    checkpoint = checkpoints.load(path, "dtpm")
    assert checkpoints.from_dict(DtpmConfig, checkpoint.config) == MOBILE
    assert checkpoint.facts == {"task": "cleanup"}
    assert torch.equal(checkpoint.part("a")["x"], TENSORS["a.x"])
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_equal_contents_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    checkpoints.save(again, "dtpm", MOBILE, TENSORS, {"task": "cleanup"})
    assert again.read_bytes() == path.read_bytes()


def test_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="pocketprior train"):
        checkpoints.load(tmp_path / "none.safetensors", "dtpm")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_file_is_refused(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        checkpoints.load(path, "dtpm")


def test_other_kind_is_named(path: Path) -> None:
    with pytest.raises(CheckpointError, match="'dtpm' checkpoint, expected 'semantic'"):
        checkpoints.load(path, "semantic")


def test_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(TENSORS, path)
    with pytest.raises(CheckpointError, match="not one that pocketprior wrote"):
        checkpoints.load(path, "dtpm")


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", '{"format": 1}'])
def test_metadata_that_we_did_not_write_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(TENSORS, path, {"pocketprior": text})
    with pytest.raises(CheckpointError, match="not one that pocketprior wrote"):
        checkpoints.load(path, "dtpm")


def test_other_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "later.safetensors"
    safetensors.torch.save_file(TENSORS, path, {"pocketprior": '{"format": 2}'})
    with pytest.raises(CheckpointError, match="format 2, this version reads format 1"):
        checkpoints.load(path, "dtpm")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        checkpoints.load(tmp_path, "dtpm")


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        ({"weight": torch.ones(2, 3)}, "'bias'"),
        ({"weight": torch.ones(2, 4), "bias": torch.ones(2)}, "'weight'"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2), "more": torch.ones(1)}, "'more'"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_loaded(tensors: dict[str, torch.Tensor], named: str) -> None:
    layer = torch.nn.Linear(3, 2)
    before = layer.weight.clone()
    with pytest.raises(CheckpointError, match=f"'toy' checkpoint .* of its Linear: 1 .* such as {named}"):
        checkpoints.Checkpoint("toy", {}, {f"part.{name}": tensor for name, tensor in tensors.items()}).fill(
            layer, "part"
        )
    assert torch.equal(layer.weight, before)


def test_fitting_tensors_are_loaded() -> None:
    layer, tensors = torch.nn.Linear(3, 2), {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    checkpoints.Checkpoint("toy", {}, tensors).fill(layer)
    assert all(torch.equal(layer.state_dict()[name], tensor) for name, tensor in tensors.items())


def test_nan_weight_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nan.safetensors"
    checkpoints.save(path, "dtpm", MOBILE, {"denoiser.w": torch.tensor([1.0, torch.nan])}, {})
    with pytest.raises(CheckpointError, match=r"'denoiser\.w' holds NaN"):
        checkpoints.load(path, "dtpm")


def test_unknown_field_lists_the_valid_ones() -> None:
    with pytest.raises(CheckpointError, match=r"unknown field 'colour'; valid fields are: .*schedule"):
        checkpoints.from_dict(DtpmConfig, {"colour": 1})
