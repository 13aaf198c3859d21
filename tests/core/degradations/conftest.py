from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(scope="session")
def waves() -> NDArray[np.float32]:
    """An image of smooth waves, (64, 48, 3) in [0.1, 0.9], other ones in each channel."""
    y, x = np.mgrid[:64, :48].astype(np.float32)
    return np.stack([0.5 + 0.4 * np.sin(y / 5 + x / 7 + phase) for phase in (0, 1, 2)], axis=2).astype(np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
