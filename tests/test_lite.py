"""fststyle-lite and fststyle: two wheels that share no file, and the first of which works without PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fake_hub import FakeHub
from fststyle.images import save_image

ROOT = Path(__file__).resolve().parent.parent
#: Python without torch and what it brings, as where they are not installed.
WITHOUT = (
    "import sys; sys.modules.update(dict.fromkeys(['torch', 'torchvision', 'hydra', 'pytorch_lightning', 'omegaconf']))"
)


def built(part: str, folder: Path) -> Path:
    """The wheel of a part of the repository, ``.`` for all of it."""
    pytest.importorskip("hatchling")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=ROOT / part, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def files(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def metadata(wheel: Path) -> list[str]:
    archive = zipfile.ZipFile(wheel)
    (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
    return archive.read(name).decode().splitlines()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    return {part: built(part, folder / str(number)) for number, part in enumerate(("packaging/lite", "packaging/full"))}


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of lite alone, and a photograph."""
    folder = tmp_path_factory.mktemp("lite")
    zipfile.ZipFile(built("packaging/lite", tmp_path_factory.mktemp("wheel"))).extractall(folder)
    save_image(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8), folder / "photo.png")
    return folder


def run(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    found = {**os.environ, "PYTHONPATH": str(folder), "FSTSTYLE_CACHE": str(folder / "cache")}
    words = [sys.executable, "-P", "-c", f"{WITHOUT}\n{program}"]
    return subprocess.run(words, cwd=folder, env=found, capture_output=True, text=True)


def command(folder: Path, words: str) -> subprocess.CompletedProcess[str]:
    return run(folder, f"import fststyle; from fststyle.cli import main; sys.exit(main({words.split()!r}))")


@pytest.mark.slow
def test_every_file_has_one_owner(wheels: dict[str, Path], tmp_path: Path) -> None:
    lite, full = (files(wheel) for wheel in wheels.values())
    assert lite & full == set()
    assert lite | full == files(built(".", tmp_path))
    assert {"fststyle/__init__.py", "fststyle/web/page/app.js", "fststyle/checkpoints/styles/zoo.safetensors"} <= lite
    assert {"fststyle/training/run.py", "fststyle/conf/train.yaml", "fststyle/networks/transform.py"} <= full


@pytest.mark.slow
def test_the_one_takes_the_other_of_the_same_version(wheels: dict[str, Path]) -> None:
    lite, full = (metadata(wheel) for wheel in wheels.values())
    (version,) = [line.removeprefix("Version: ") for line in full if line.startswith("Version: ")]
    assert f"Version: {version}" in lite
    assert f"Requires-Dist: fststyle-lite=={version}" in full
    needs = {
        line.split(" ", 1)[1].split(">")[0] for line in lite if line.startswith("Requires-Dist") and "extra" not in line
    }
    assert needs == {"numpy", "openvino", "pillow", "safetensors", "tqdm"}
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not any(line.startswith("fststyle-lite") for line in whole), "pip install . works without any index"
    owned = tomllib.loads((ROOT / "packaging/lite/pyproject.toml").read_text())["project"]["dependencies"]
    assert {*owned} <= {*whole}


@pytest.mark.parametrize(
    "words",
    [
        "--version",
        "styles",
        "stylize photo.png --style wave --median --strength 0.5 --preserve-color -o a.png --overwrite",
        "stylize photo.png --mix wave=0.5 udnie=0.5 -o mixed.png",
        "stylize photo.png --style photo.png -o painted.png",
        "upscale photo.png",
        "export zoo/wave --format onnx",
    ],
)
def test_what_applies_a_model_works_without_torch(lite: Path, words: str) -> None:
    done = command(lite, words.replace(" --overwrite", ""))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_model_of_the_hub_too(lite: Path, hub: FakeHub) -> None:
    hub.add("user/styles", {"zoo.safetensors": (lite / "fststyle/checkpoints/styles/zoo.safetensors").read_bytes()})
    done = command(lite, "stylize photo.png --style hf:user/styles/wave -o hub.png")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "train style=wave",
        "swap photo.png --style-image photo.png",
        "push wave user/repo",
        "stylize photo.png --style wave --backend torch",
        "stylize photo.png --style wave --tiles exact",
    ],
)
def test_what_takes_more_says_so_in_a_line(lite: Path, words: str) -> None:
    done = command(lite, words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "fststyle-lite leaves it out; pip install fststyle" in done.stderr


def test_names_that_take_more_say_so_too(lite: Path) -> None:
    done = run(lite, "import fststyle; fststyle.Stylizer; fststyle.PerceptualLoss")
    assert "PerceptualLoss takes " in done.stderr
    assert "; fststyle-lite leaves it out; pip install fststyle" in done.stderr


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Python of a new environment that finds what is installed here, but for fststyle."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "new")], check=True)
    return tmp_path / "new"


@pytest.mark.slow
@pytest.mark.parametrize("first", ["packaging/lite", "packaging/full"])
def test_they_are_installed_and_removed_in_either_order(wheels: dict[str, Path], environment: Path, first: str) -> None:
    def pip(*words: str) -> None:
        subprocess.run([environment / "bin/python", "-m", "pip", "-q", *words], check=True, capture_output=True)

    def there(name: str) -> bool:
        return any(environment.glob(f"lib/python3*/site-packages/fststyle/{name}"))

    second = next(each for each in wheels if each != first)
    for part in (first, second):
        pip("install", "--no-deps", "--no-index", str(wheels[part]))
    assert there("training/run.py")
    assert there("inference/graphs.py")
    assert (environment / "bin/fststyle").is_file()
    pip("uninstall", "-y", "fststyle" if first == "packaging/full" else "fststyle-lite")
    assert there("training/run.py") == (first == "packaging/lite")
    assert there("inference/graphs.py") == (first == "packaging/full")
    pip("uninstall", "-y", "fststyle-lite" if first == "packaging/full" else "fststyle")
    assert not there("**/*.py")
    pip("install", "--no-deps", "--no-build-isolation", "--no-index", str(wheels["packaging/lite"]))
    assert there("cli/stylize.py")
