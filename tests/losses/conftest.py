"""Fixtures that tests of losses share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from loss_terms import crop


@pytest.fixture
def images(astronaut: np.ndarray) -> Tensor:
    """Four photographs, (4, 3, 48, 48)."""
    return torch.cat([crop(astronaut, top, left, 48) for top, left in ((0, 150), (100, 300), (250, 20), (380, 380))])


@pytest.fixture
def painting(astronaut: np.ndarray) -> Tensor:
    """Something whose statistics are not a photograph's: saturated, rotated, coarse. (1, 3, 48, 64)."""
    image = crop(astronaut, 64, 64, 64, 6).flip(1).transpose(2, 3)
    return ((image[..., :48, :] - 0.5) * 3).sigmoid()
