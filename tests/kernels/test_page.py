"""docs/kernels.md describes the kernels that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from gpu.tables import DTYPE, PAGE, WIDTHS, blocks, started, write

from pocketprior.core.errors import UsageError
from pocketprior.kernels import OPS

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = blocks((ROOT / PAGE).read_text(encoding="utf-8"))
STALE = "docs/kernels.md describes other kernels than there are; run: scripts/gpu/run tables"


def cells(block: str, *columns: int) -> set[tuple[str, ...]]:
    """Some columns of the lines of a table, without its head and the marks of code."""
    lines = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in block.splitlines()]
    return {tuple(line[column] for column in columns) for line in lines[2:]}


def test_every_op_is_described_and_counted() -> None:
    assert set(re.findall(r"^### `(\w+)`$", BLOCKS["ops"], re.MULTILINE)) == set(OPS), STALE
    assert cells(BLOCKS["counted"], 0) == {(op,) for op in OPS}, STALE


def test_every_kernel_is_in_the_table() -> None:
    kernels = {
        (op, launch.kernel.fn.__name__, str(width))
        for op in OPS
        for width in WIDTHS
        for launch in started(op, (1, width, 64, 64), DTYPE)
    }
    assert cells(BLOCKS["ahead"], 0, 1, 2) == kernels, STALE


def test_the_page_has_no_other_tables() -> None:
    assert set(BLOCKS) == {"ops", "counted", "ahead"}


def test_nothing_in_the_table_spills_on_nvidia() -> None:
    assert not re.search(r"sm_\d+: \d", BLOCKS["ahead"])
    assert all(spills == "0" or spills.startswith("gfx942: ") for (spills,) in cells(BLOCKS["ahead"], -1))


def test_a_page_without_its_marks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / PAGE).write_text("<!-- counted -->\nold\n<!-- /counted -->\n")
    write(tmp_path, {"counted": "new"})
    assert blocks((tmp_path / PAGE).read_text()) == {"counted": "new"}
    with pytest.raises(UsageError, match="<!-- ahead -->"):
        write(tmp_path, {"ahead": "new"})
    assert blocks((tmp_path / PAGE).read_text()) == {"counted": "new"}
