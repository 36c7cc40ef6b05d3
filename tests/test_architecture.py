"""What is loaded when, and what an installation holds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fststyle
from fststyle import resources
from fststyle.model_file import save_model_file
from fststyle.networks.transform import TransformNet
from fststyle.resources import resource

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = ("Stylizer", "Swapper", "VGGEncoder", "PerceptualLoss", "TransformNet", "load_image", "save_image")


def python(*words: str, path: Path | None = None) -> str:
    """What a fresh Python prints."""
    environment = {**os.environ, "PYTHONPATH": str(path or ROOT)}
    done = subprocess.run([sys.executable, "-P", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh Python has loaded after running ``code``."""
    return set(python("-c", f"{code}\nimport sys\nprint('\\nmodules:', *sys.modules, sep='\\n')").split())


# --- what is loaded when -------------------------------------------------------------------------


def test_importing_the_package_and_reading_metadata_load_no_torch(tmp_path: Path, network: TransformNet) -> None:
    path = tmp_path / "wave.safetensors"
    save_model_file(path, network, {"kind": "style", "name": "wave"})
    loaded = loaded_by(
        "import fststyle, fststyle.images, fststyle.cli.info\n"
        "from fststyle.model_file import read_metadata\n"
        f"assert read_metadata({str(path)!r})['name'] == 'wave'\n"
        f"assert fststyle.cli.main(['info', {str(path)!r}]) == 0"
    )
    assert "fststyle.model_file" in loaded
    assert not loaded & {"torch", "pytorch_lightning", "hydra", "datasets"}


def test_importing_the_package_loads_nothing_of_it() -> None:
    assert {name for name in loaded_by("import fststyle") if name.startswith("fststyle")} == {
        "fststyle",
        "fststyle.version",
    }


def test_the_version_and_a_refusal_come_without_torch() -> None:
    code = (
        "import sys\n"
        "from fststyle.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert main(['stylize', 'missing.jpg', '--style', 'wave']) == 2"
    )
    loaded = loaded_by(code)
    assert fststyle.__version__ in loaded  # among the words printed
    assert "fststyle.cli" in loaded
    assert not loaded & {"torch", "pytorch_lightning", "hydra", "datasets"}


def test_applying_a_style_loads_nothing_that_trains_one() -> None:
    loaded = loaded_by("import fststyle.inference")
    assert "fststyle.inference.stylizer" in loaded
    trainers = {"pytorch_lightning", "lightning", "hydra", "omegaconf", "datasets", "torchvision", "tensorboard"}
    ours = {"losses", "training", "optimization", "encoders.vgg", "encoders.pretrained", "report", "cli"}
    assert not loaded & {*trainers, *(f"fststyle.{name}" for name in ours)}


def test_the_arithmetic_of_losses_stands_in_one_place() -> None:
    """One PerceptualLoss serves training and every mode: nobody else multiplies features."""
    package = ROOT / "fststyle"
    callers = {
        path.relative_to(package).as_posix() for path in package.rglob("*.py") if "gram_matrix(" in path.read_text()
    }
    assert callers == {f"losses/{name}.py" for name in ("calibration", "functional", "perceptual")}
    source = "".join(path.read_text() for path in (package / "losses").glob("*.py"))
    assert source.count("gram_matrix(") == 4  # its definition, targets, terms, and what photographs measure
    for path in package.rglob("*.py"):
        if path.parent.name != "losses":
            assert not {"mse_loss(", "l1_loss(", "content_loss(", "style_loss("} & set(
                re.findall(r"\w+\(", path.read_text())
            ), path


def test_the_public_names_are_there() -> None:
    assert set(PUBLIC) <= set(fststyle.__all__)
    for name in fststyle.__all__:
        assert getattr(fststyle, name) is not None
        assert name in dir(fststyle)
    assert fststyle.TransformNet is TransformNet
    with pytest.raises(AttributeError, match="no attribute 'Stylist'"):
        _ = fststyle.Stylist


# --- what an installation holds ------------------------------------------------------------------


def test_a_source_tree_has_its_resources_beside_the_package() -> None:
    assert resource("conf") == ROOT / "conf"
    assert resource("checkpoints") == ROOT / "checkpoints"


def test_resources_inside_the_package_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "fststyle")
    with pytest.raises(FileNotFoundError, match="conf/ is missing"):
        resource("conf")
    (tmp_path / "conf").mkdir()
    assert resource("conf") == tmp_path / "conf"
    (tmp_path / "fststyle" / "conf").mkdir(parents=True)
    assert resource("conf") == tmp_path / "fststyle" / "conf"


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_holds_conf_and_checkpoints_and_finds_them(
    tmp_path: Path, network: TransformNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = pytest.importorskip("hatchling.build", reason="building the wheel needs hatchling (pip install hatchling)")
    tree, site = tmp_path / "tree", tmp_path / "site"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("fststyle", "conf", "checkpoints"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    styles = tree / "checkpoints" / "styles"
    styles.mkdir(exist_ok=True)
    save_model_file(styles / "of_a_test.safetensors", network, {"kind": "style"})
    monkeypatch.chdir(tree)
    with zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        wheel.extractall(site)

    for name in ("conf", "checkpoints"):
        assert files(site / "fststyle" / name) == files(tree / name)
    assert "train.yaml" in files(site / "fststyle" / "conf")
    assert files(tree / "fststyle") <= files(site / "fststyle")
    lines = python(
        "-c",
        "from fststyle.model_file import find_model_file\n"
        "from fststyle.resources import resource\n"
        "print(resource('conf'), resource('checkpoints'), find_model_file('of_a_test', 'style'), sep='\\n')",
        path=site,
    ).splitlines()
    package = site / "fststyle"
    assert lines == [
        str(package / "conf"),
        str(package / "checkpoints"),
        str(package / "checkpoints" / "styles" / "of_a_test.safetensors"),
    ]
    (entry,) = (path for path in site.rglob("entry_points.txt"))
    assert "fststyle = fststyle.cli:entry" in entry.read_text()
