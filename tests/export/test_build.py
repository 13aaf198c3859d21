"""From photos to proved packs by one recipe, with real commands, each of which is killed once at its work."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketprior.core.cli import main
from pocketprior.export.build_recipe import BUILD_STATE, BuildStep, load_recipe, run_steps, steps_of
from pocketprior.export.build_recipe import execute as in_own_process

EXAMPLE = Path(__file__).parents[2] / "examples" / "dog.jpg"
QUICK = '"steps=2", "save_every=1", "batch=2", "crop=32", "precision=fp32"'
RECIPE = f"""
system = "gen2res"
data = "photos"
sampling = ["--start=100", "--steps=2", "--window", "64", "8"]

[train]
base = [{QUICK}, "model.widths=8,8", "model.blocks=1", "model.attention=4", "model.embedding=16", "model.groups=4"]

[[distill]]
method = "trajectory"
steps = 2
set = [{QUICK}, "teacher_steps=4", "crops=8"]

[export]
to = ["onnx", "openvino", "coreml"]

[quantize]
budget_db = 30
options = ["--side=32", "--probe", "1", "32"]

[parity]
side = 48
"""
KILLED = ("train base", "distill 1-trajectory-2", "export", "quantize")
AT_WORK = 60  # seconds in which a command must have begun to write


class KilledError(Exception):
    """The build was killed with the command that it ran."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.asarray(Image.open(EXAMPLE))
    for i in range(9):
        y, x = (340 * place for place in divmod(i, 3))
        Image.fromarray(pixels[y : y + 320, x : x + 320]).save(photos / f"{i}.png")
    path = tmp_path / "small.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def kill_at_work(step: BuildStep, folder: Path) -> None:
    """Start the command as the build does, and kill it as soon as it has written something."""
    before = set(folder.rglob("*"))
    process = subprocess.Popen(
        [sys.executable, "-m", "pocketprior", *step.arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    limit = time.monotonic() + AT_WORK
    while set(folder.rglob("*")) == before and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, "the command ended before it could be killed"
    process.kill()
    process.wait()


def test_photos_to_proved_packs(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "build"
    steps = steps_of(load_recipe(recipe), folder, tmp_path)
    to_kill = {step.arguments: step for step in steps if step.name in KILLED}
    assert len(to_kill) == len(KILLED)

    def execute(arguments: Sequence[str]) -> int:
        step = to_kill.pop(tuple(arguments), None)
        if step is None:
            # Training in a process in which OpenVINO has computed in bf16 crashes; the rest is quicker in this one.
            return in_own_process(arguments) if arguments[0] in ("train", "distill") else main(arguments)
        kill_at_work(step, folder)
        raise KilledError

    for _ in KILLED:
        with pytest.raises(KilledError):
            run_steps(steps, folder, execute)
    assert run_steps(steps, folder, execute) == 0
    told = capsys.readouterr().err
    assert set(json.loads((folder / BUILD_STATE).read_text())) == {step.name for step in steps}
    assert all(f"{step.name}: done in" in told for step in steps)
    _check_reports(folder, steps)
    assert run_steps(steps, folder, execute) == 0
    assert capsys.readouterr().err.count("done before") == len(steps)


def _check_reports(folder: Path, steps: Sequence[BuildStep]) -> None:
    reports = sorted((folder / "parity").glob("*.json"))
    assert len(reports) == len([step for step in steps if step.name.startswith("parity pack")]) == 6
    for report in reports:
        assert json.loads(report.read_text())["ok"] is True
        assert report.with_suffix(".html").stat().st_size > 1000
        assert "<testsuite" in report.with_suffix(".junit").read_text()
    assert not [path for path in folder.rglob(".*") if path.is_dir()]


def test_a_plan_runs_nothing(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(recipe), "--plan", "-o", str(tmp_path / "build")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("pocketprior train gen2res base --data")
    assert not (tmp_path / "build").exists()
