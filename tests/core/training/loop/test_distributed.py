"""Several processes on one machine: the same run, to rounding, as in one; states move between them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pocketprior.core.models import checkpoints
from pocketprior.core.training.loop.recipe import Recipe
from support.toy_training import RECIPE, Toy, ToyConfig, record, train_toy

PROGRAM = Path(__file__).parents[3] / "support" / "toy_training.py"
# Adam turns the rounding of a gradient near zero into a step of up to the learning rate.
SMALL = ("rate=1e-4", "muon_rate=1e-3")
RUN = RECIPE.with_settings(SMALL)


def launch(run: Path, *settings: str, processes: int = 2, **environment: str) -> list[str]:
    """Train on a few processes with the variables that torchrun and `accelerate launch` set; what each printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    world = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(run), *settings],
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    printed = []
    for process in started:
        out, errors = process.communicate(timeout=200)
        printed.append(out + errors)
    return printed


def assert_close(run: Path, whole: Path) -> None:
    """Weights, averages and the logged curve, to 1e-6."""
    ours, theirs = (safetensors.torch.load_file(r / "resume.safetensors") for r in (run, whole))
    assert set(ours) == set(theirs)
    for name in (n for n in ours if n.startswith(("weight.", "average."))):
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    lines, expected = (record(r)["log"] for r in (run, whole))
    assert len(lines) == len(expected) == 3
    for line, other in zip(lines, expected, strict=True):
        numbers, others = ({k: float(x) for k, x in row.items() if k != "hours"} for row in (line, other))
        assert numbers == pytest.approx(others, rel=1e-5, abs=1e-6)


@pytest.fixture(scope="module", params=["adamw", "muon"])
def optimizer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def recipe(optimizer: str) -> Recipe:
    return replace(RUN, optimizer=optimizer)


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train_toy(run, recipe)
    return run


def test_two_processes_are_one(whole: Path, optimizer: str, tmp_path: Path) -> None:
    """DDP, each process in two parts."""
    printed = launch(tmp_path, *SMALL, f"optimizer={optimizer}", "accumulate=2")
    assert [text.count("Parameter") for text in printed] == [3, 3]
    assert ["12/12" in text for text in printed] == [True, False]
    assert_close(tmp_path, whole)


def test_sharded_run_is_stopped_and_one_process_takes_over(
    whole: Path, recipe: Recipe, optimizer: str, tmp_path: Path
) -> None:
    """FSDP2; the second process gets a Ctrl-C at step 5, and both stop together at the next look at the losses."""
    settings = (*SMALL, f"optimizer={optimizer}", "stop=5")
    printed = launch(tmp_path, *settings, ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    assert [text.count("DTensor") for text in printed] == [2, 2]
    assert all("KeyboardInterrupt" in text for text in printed)
    checkpoint = checkpoints.load(tmp_path / "model.safetensors", "toy")
    Toy(checkpoints.from_dict(ToyConfig, checkpoint.config)).load_state_dict(checkpoint.tensors)
    assert checkpoint.facts["step"] == 8
    train_toy(tmp_path, recipe)
    assert_close(tmp_path, whole)


def test_fsdp_version_1_is_refused(tmp_path: Path) -> None:
    (printed,) = launch(tmp_path, processes=1, ACCELERATE_USE_FSDP="true", FSDP_VERSION="1")
    assert "UsageError: launched with FSDP version 1; ask for version 2" in printed
    assert not (tmp_path / "recipe.toml").exists()
