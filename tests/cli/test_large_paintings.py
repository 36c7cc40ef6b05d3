"""A scan of 20,000 × 10,000 pixels as style, in every command that takes one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import SMALL as RUN
from fststyle.cli import main
from fststyle.images import save_image

#: Of an encoder and a calibration that take no time.
SMALL = ("encoder=random", "encoder.widths=[4,4,4,4,4]", "calibration_photographs=4", "data.size=32")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG of more pixels than are ever decoded whole."""
    path = tmp_path_factory.mktemp("scan") / "scan.jpg"
    Image.radial_gradient("L").resize((20000, 10000), Image.Resampling.NEAREST).save(path, quality=50)
    return path


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: np.ndarray) -> None:
    monkeypatch.chdir(tmp_path)
    save_image(astronaut[:384:6, ::8].copy(), "photo.png")


def test_optimize_takes_it_and_its_region(scan: Path) -> None:
    words = ["content=photo.png", f"style.image={scan}", "size=48", "style.size=200", "style.region=[0,0,0.5,0.8]"]
    assert main(["optimize", *SMALL, *words, "iterations=2", "device=cpu"]) == 0
    assert Path("photo_scan.png").is_file()


def test_train_takes_it(scan: Path, photographs: Path) -> None:
    words = [f"style.image={scan}", "style.size=96", "data=folder", f"data.source.path={photographs}", "steps=1"]
    assert main(["train", *RUN, *words, "output=run"]) == 0
    assert Path("run/scan.safetensors").is_file()


def test_preview_takes_it(scan: Path) -> None:
    words = ["size=48", "iterations=10", "factors=[1]", "style_sizes=[64]", "output=sheet"]
    assert main(["preview", "photo.png", f"style.image={scan}", *words]) == 0
    assert Path("sheet/index.html").is_file()


def test_compare_shows_it(scan: Path) -> None:
    words = ["--size", "48", "--iterations", "1", "--style-image", str(scan), "-o", "page"]
    assert main(["compare", "photo.png", "--style", "wave", *words]) == 0


def test_evaluate_style_takes_it_in_every_role(scan: Path, astronaut: np.ndarray) -> None:
    save_image(astronaut, "astronaut.jpg")
    words = ["--painting", str(scan), "--photo", "astronaut.jpg", "--result", str(scan)]
    assert main(["evaluate", "style", *words]) == 0


def test_swap_takes_it_and_says_at_what_size(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["swap", "photo.png", "--style-image", str(scan), "--style-size", "64", "-o", "a.png"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["swap", "photo.png", "--style-image", str(scan), "-o", "b.png"]) == 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith("has 20000×10000 pixels; at most 179 million are read; it is brought to 1024 (--style-size)")


def test_swap_names_no_option_that_it_does_not_have(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["swap", str(scan), "--style-image", "photo.png", "-o", "a.png"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "has 20000×10000 pixels; at most 179 million are read" in line
    assert "--max-pixels" not in line


def test_stylize_takes_it_at_a_size_and_else_names_the_option(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["stylize", str(scan), "--style", "wave", "--backend", "torch", "-o", "a.png"]
    assert main([*words, "--size", "64"]) == 0
    assert main(words) == 2
    assert "at most 179 million are read (--max-pixels)" in capsys.readouterr().err
