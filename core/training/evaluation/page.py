"""The tables as a page of Markdown, without dates or paths: a repeated run gives the same page."""

from __future__ import annotations

from collections.abc import Sequence

from ...markdown import table
from .score import Table

__all__ = ["page"]

DECIMALS = {"PSNR": 2, "SSIM": 4, "HaarPSI": 4, "NIQE": 2, "SWD": 4}  # others: 3

HEAD = """\
# Results of the three systems

Made by `{command}`; do not edit. The embedded pack is looked at more closely, beside other programs and on test photos,
in [cleanup.md](cleanup.md).

- Size `mobile`, trained on a CPU for the steps that [models.md](models.md) tells: small networks, short runs.
- Photos: {photos}. Damage by `core/degradations`, seeded.
- PSNR (dB), SSIM, HaarPSI: higher is better. NIQE, SWD and distances: lower is better. PSNR and SSIM reward smooth
  results; NIQE asks whether a photo looks natural at all, SWD whether it has the texture of the true one."""


def page(command: str, photos: str, tables: Sequence[Table]) -> str:
    """The whole page; `command` made it, `photos` says on what."""
    parts = [HEAD.format(command=command, photos=photos)]
    for found in tables:
        columns = list(found.rows[0].values)
        lines = [["method", *columns]]
        lines += [[row.method, *(f"{row.values[c]:.{DECIMALS.get(c, 3)}f}" for c in columns)] for row in found.rows]
        parts += [f"## {found.title}", table(lines, left=1), "\n".join(f"- {v}" for v in found.verdicts)]
    return "\n\n".join(part for part in parts if part) + "\n"
