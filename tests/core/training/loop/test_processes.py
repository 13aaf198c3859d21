"""Training runs on Accelerate."""

from __future__ import annotations

import sys

import pytest

from pocketprior.core.errors import MissingExtraError
from pocketprior.core.training.loop import processes


def test_training_without_accelerate_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"training needs the package 'accelerate'.*pocketprior\[train\]"):
        processes.processes()
