"""Fixtures that tests of images share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def pattern() -> np.ndarray:
    """uint8 (24, 32, 3), smooth, and different after every turn and flip."""
    y, x = np.mgrid[0:24, 0:32]
    return np.stack([8 * x, 10 * y, 3 * x + 5 * y], axis=2).astype(np.uint8)
