"""Fixtures that tests of encoders share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from encoder_weights import write
from fststyle.images import to_image


@pytest.fixture
def image(astronaut: np.ndarray) -> Tensor:
    return to_image(np.ascontiguousarray(astronaut[0:192:4, 120:312:4]))


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    return write(tmp_path / "weights.pth")
