"""Packs of the systems beside DTPM; one export takes seconds, so each is made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small import PHOTOS, source_of

from pocketprior.export.pack import write_pack


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the pack of a system, written when it is first asked for; not to be changed."""
    root = tmp_path_factory.mktemp("systems")

    def pack(system: str) -> Path:
        if not (root / system).exists():
            write_pack(source_of(system, root), root / system, name=f"small-{system}", photos=PHOTOS)
        return root / system

    return pack
