"""What several tests of training compare with."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from fststyle.images import save_image
from fststyle.training.callbacks import AverageWeights
from fststyle.training.sources import Generated
from gardens import NAMES, run
from runs import fit, weights
from shades import SHADES, shade


@pytest.fixture(scope="session")
def straight(photographs: Path) -> tuple[Tensor, Tensor]:
    """Weights and averaged weights of six steps in one go."""
    average = AverageWeights(0.3)
    task, _ = fit(photographs, [average], 6)
    assert average.average is not None
    return weights(task.network), weights(average.average.module)


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one colour each: whatever the crop, a mean tells which picture it is from."""
    path = tmp_path_factory.mktemp("shades")
    for index in range(SHADES):
        Image.new("RGB", (48, 40), shade(index)).save(path / f"{index:02d}.png")
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions of all generated pictures, as they are asked for."""
    positions: list[int] = []
    picture = Generated.picture

    def spy(self: Generated, seed: int, position: int) -> Image.Image:
        positions.append(position)
        return picture(self, seed, position)

    monkeypatch.setattr(Generated, "picture", spy)
    return positions


@pytest.fixture(scope="session")
def garden(tmp_path_factory: pytest.TempPathFactory, photographs: Path, astronaut: np.ndarray) -> Path:
    """Photographs, and paintings in ``art``."""
    plot = tmp_path_factory.mktemp("garden")
    shutil.copytree(photographs, plot / "photos")
    (plot / "art").mkdir()
    for index, name in enumerate(NAMES):
        save_image(astronaut[100 * index : 100 * index + 96, :96].copy(), plot / "art" / f"{name}.png")
    (plot / "art" / "notes.txt").write_text("no painting")
    return plot


@pytest.fixture
def plot(garden: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(garden, tmp_path / "plot"))


@pytest.fixture(scope="session")
def trained(garden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps, with everything that is logged and shown."""
    out = tmp_path_factory.mktemp("trained") / "out"
    shown = {"_target_": "fststyle.training.callbacks.Previews", "folder": str(out / "previews"), "every": 4}
    examined = {"_target_": "fststyle.training.callbacks.Diagnostics", "every": 4}
    words = [f"callbacks.previews={shown}", f"callbacks.diagnostics={examined}", "trainer.val_check_interval=2"]
    assert run(garden, f"output={out}", "steps=4", *words).fit() == out / "art.safetensors"
    return out
