"""What several tests of training compare with."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from fststyle.training.callbacks import AverageWeights
from runs import fit, weights


@pytest.fixture(scope="session")
def straight(photographs: Path) -> tuple[Tensor, Tensor]:
    """Weights and averaged weights of six steps in one go."""
    average = AverageWeights(0.3)
    task, _ = fit(photographs, [average], 6)
    assert average.average is not None
    return weights(task.network), weights(average.average.module)
