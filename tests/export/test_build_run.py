"""A build goes on where it was killed, skips nothing silently, and does not mix the results of two recipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pocketprior.core.errors import INTERRUPTED, PackError, UsageError
from pocketprior.export.build_recipe import BUILD_STATE, BuildStep, run_steps


def steps(folder: Path, setting: str = "a") -> list[BuildStep]:
    return [
        BuildStep("train x", ("train", setting), folder / "train/x/model.safetensors"),
        BuildStep("export", ("export",), folder / "pack/manifest.json", fresh=True),
        BuildStep("parity record", ("parity", "record"), folder / "reference.npz", fresh=True),
    ]


class Commands:
    """Stands for the commands; `fails` are those that end with a code, or are killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls, self.fails = folder, list[tuple[str, ...]](), dict[str, int | BaseException]()

    def __call__(self, arguments: Sequence[str]) -> int:
        self.calls.append(tuple(arguments))
        failure = self.fails.pop(arguments[0], 0)
        if isinstance(failure, BaseException):
            if arguments[0] == "export":
                (self.folder / ".pack-123").mkdir(parents=True)
            raise failure
        output = next(step.output for step in steps(self.folder) if step.arguments[0] == arguments[0])
        if not failure:
            output.parent.mkdir(parents=True, exist_ok=arguments[0] == "train" or output.name == "reference.npz")
            output.write_text("x")
        return failure


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "build"


@pytest.fixture
def commands(folder: Path) -> Commands:
    return Commands(folder)


def test_everything_runs_once(folder: Path, commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_steps(steps(folder), folder, commands) == 0
    assert [call[0] for call in commands.calls] == ["train", "export", "parity"]
    capsys.readouterr()
    assert run_steps(steps(folder), folder, commands) == 0
    assert len(commands.calls) == 3
    told = capsys.readouterr().err
    assert told.count("done before") == 3
    assert "[2/3] export: done before" in told


@pytest.mark.parametrize("command", ["train", "export", "parity"])
@pytest.mark.parametrize("failure", [1, INTERRUPTED, KeyboardInterrupt()])
def test_goes_on_with_the_step_that_did_not_end(
    folder: Path, commands: Commands, command: str, failure: int | BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.fails[command] = failure
    if isinstance(failure, int):
        assert run_steps(steps(folder), folder, commands) == failure
        assert f"ended with {failure}" in capsys.readouterr().err
    else:
        with pytest.raises(KeyboardInterrupt):
            run_steps(steps(folder), folder, commands)
    assert commands.calls[-1][0] == command
    assert run_steps(steps(folder), folder, commands) == 0
    assert [call[0] for call in commands.calls].count(command) == 2
    assert len(commands.calls) == 4
    assert not list(folder.glob(".pack-*"))


def test_a_result_that_was_removed_is_made_again(folder: Path, commands: Commands) -> None:
    run_steps(steps(folder), folder, commands)
    (folder / "reference.npz").unlink()
    run_steps(steps(folder), folder, commands)
    assert [call[0] for call in commands.calls] == ["train", "export", "parity", "parity"]


def test_what_was_made_from_a_result_is_made_again_with_it(folder: Path, commands: Commands) -> None:
    run_steps(steps(folder), folder, commands)
    (folder / "pack/manifest.json").unlink()
    commands.fails["parity"] = 1
    assert run_steps(steps(folder), folder, commands) == 1
    assert run_steps(steps(folder), folder, commands) == 0
    assert [call[0] for call in commands.calls[3:]] == ["export", "parity", "parity"]


def test_an_interrupted_command_is_waited_for(tmp_path: Path) -> None:
    """As a terminal does it, Ctrl-C reaches the whole group of processes; the command saves and ends by itself."""
    ready, program, fake = (tmp_path / name for name in ("ready", "program.py", "python"))
    program.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: (time.sleep(1), sys.exit(130)))\n"
        f"open({str(ready)!r}, 'w').close()\n"
        "while True: time.sleep(0.01)"
    )
    fake.write_text(f"#!/bin/sh\nexec {sys.executable} {program}\n")
    fake.chmod(0o755)
    runner = (
        "import sys\nfrom pocketprior.export import build_recipe as run\nrun.sys.executable = sys.argv[1]\n"
        "raise SystemExit(run.execute([]))"
    )
    command = [sys.executable, "-c", runner, str(fake)]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE) as process:
        while not ready.exists():
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"waiting for the step to save its state" in told


def test_an_unlisted_result_is_not_trusted(folder: Path, commands: Commands) -> None:
    """A pack that is there without being known to be whole is written anew."""
    (folder / "pack").mkdir(parents=True)
    (folder / "pack/manifest.json").write_text("old")
    run_steps(steps(folder), folder, commands)
    assert (folder / "pack/manifest.json").read_text() == "x"


def test_another_recipe_is_refused(folder: Path, commands: Commands) -> None:
    run_steps(steps(folder), folder, commands)
    with pytest.raises(UsageError, match=r"'train x' was run with other settings.*remove .*train/x and build\.json"):
        run_steps(steps(folder, "b"), folder, commands)
    assert len(commands.calls) == 3


def test_a_command_that_leaves_nothing_is_not_believed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_steps(steps(folder), folder, lambda _: 0) == 1
    assert "succeeded but did not write" in capsys.readouterr().err
    assert not (folder / BUILD_STATE).exists()


def test_a_damaged_list_says_what_to_do(folder: Path, commands: Commands) -> None:
    folder.mkdir()
    (folder / BUILD_STATE).write_text('{"train')
    with pytest.raises(PackError, match="remove it"):
        run_steps(steps(folder), folder, commands)
    assert json.loads("[]") == commands.calls
