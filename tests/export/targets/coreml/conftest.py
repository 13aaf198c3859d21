"""The small package, made once."""

from __future__ import annotations

import pytest

from support.coreml_package import Made, make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("coreml") / "graph.mlpackage")
