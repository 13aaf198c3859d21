from __future__ import annotations

from pathlib import Path

import pytest

from pocketprior.core.errors import UsageError
from pocketprior.export.quantization.search import Measurements


def test_measures_once_and_reads_back_what_it_gave(tmp_path: Path) -> None:
    memory = Measurements(tmp_path / "m", "x")
    first = memory("a", lambda: [1 / 3, 2e-9 / 7])
    assert Measurements(tmp_path / "m", "x")("a", pytest.fail) == first == memory("a", pytest.fail)


def test_a_line_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    memory = Measurements(tmp_path / "m", "x")
    memory("a", lambda: [1.0])
    memory("b", lambda: [2.0])
    text = (tmp_path / "m").read_text()
    (tmp_path / "m").write_text(text[:-4])
    again = Measurements(tmp_path / "m", "x")
    assert again("a", pytest.fail) == [1.0]
    assert again("b", lambda: [2.0]) == [2.0]
    assert (tmp_path / "m").read_text() == text


def test_measurements_of_something_else_are_refused(tmp_path: Path) -> None:
    Measurements(tmp_path / "m", "x")
    with pytest.raises(UsageError, match="measurements of another pack"):
        Measurements(tmp_path / "m", "y")
