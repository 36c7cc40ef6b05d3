"""Fixtures that tests of commands share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import SMALL
from fststyle import model_file
from fststyle.cli import main
from fststyle.images import save_image
from fststyle.model_file import save_model_file
from fststyle.networks.transform import TransformNet
from stylizing import RECORD, contents


@pytest.fixture
def here(tmp_path: Path, astronaut: np.ndarray, network: TransformNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user is in: two pictures, a folder of three, a text, a style."""
    folder = tmp_path / "here"
    (folder / "more").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for index, name in enumerate(("a.png", "b.jpg", "more/c.jpeg", "more/d.bmp", "more/e.webp")):
        save_image(astronaut[20 * index : 20 * index + 24, 100:133].copy(), folder / name)
    (folder / "notes.txt").write_text("Some notes.")
    (folder / "more" / "notes.txt").write_text("Some more.")
    save_model_file(folder / "wave.safetensors", network, RECORD)
    return folder


@pytest.fixture
def bundled(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The styles of an installation that came with two."""
    folder = tmp_path / "installation" / "checkpoints" / "styles"
    folder.mkdir(parents=True)
    for name in ("starry_night", "wave"):
        shutil.copy(here / "wave.safetensors", folder / f"{name}.safetensors")
    monkeypatch.setattr(model_file, "resource", lambda name: tmp_path / "installation" / name)
    return folder


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command that must be refused: exit code 2, one line on stderr, nothing written. Gives the line."""

    def run(*words: str) -> str:
        before = contents(here)
        capsys.readouterr()
        assert main(list(words)) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("fststyle: error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert contents(here) == before
        return err

    return run


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("paintings") / "flowers.png"
    save_image(astronaut[:96, 100:228].copy(), path)
    return path


@pytest.fixture(scope="module")
def words(painting: Path, photographs: Path) -> tuple[str, ...]:
    """Those of a small run."""
    return (f"style.image={painting}", "style.size=96", "data=folder", f"data.source.path={photographs}", *SMALL)
