"""One process trains without Accelerate; several do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from toy_training import train_toy

from pocketprior.core.errors import MissingExtraError
from pocketprior.core.training.loop import log, processes


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate is not installed."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(processes, "import_module", missing)


@pytest.mark.usefixtures("without")
def test_one_process_needs_no_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = train_toy(tmp_path / "alone")
    monkeypatch.undo()
    accelerated = train_toy(tmp_path / "accelerated")
    for figures in (*alone, *accelerated):
        del figures.figures["hours"]
    assert accelerated == alone


@pytest.mark.usefixtures("without")
def test_several_processes_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MissingExtraError, match="accelerate"):
        processes.processes()


@pytest.mark.usefixtures("without")
def test_alone_is_what_the_loop_asks_for() -> None:
    alone = processes.processes()
    assert (alone.num_processes, alone.process_index, alone.is_main_process) == (1, 0, True)
    tensor = torch.ones(2)
    assert alone.reduce(tensor, "sum") is tensor


def test_without_tqdm_lines_are_still_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    found = log.bar([1, 2], "numbers", "number")
    assert list(found) == [1, 2]
    found.update()
    found.write("a line", file=sys.stderr)
    found.close()
    assert capsys.readouterr().err == "a line\n"
