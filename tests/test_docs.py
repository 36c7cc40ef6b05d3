"""The documentation site is built without a warning, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_site_is_built_and_holds_guides_reference_and_gallery(tmp_path: Path) -> None:
    for module in ("sphinx", "myst_parser", "furo", "autoapi"):
        pytest.importorskip(module, reason="building the site needs Sphinx (pip install '.[docs]')")
    words = ["-m", "sphinx", "-q", "-E", "--fail-on-warning", "--keep-going", "-c", "docs", ".", str(tmp_path)]
    built = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "README.html" in (tmp_path / "index.html").read_text(encoding="utf-8")
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "checkpoints" / "README.md"):
        assert (tmp_path / document.relative_to(ROOT).with_suffix(".html")).is_file(), document
    described = {
        "config": "compose",
        "encoders/pretrained": "load_encoder",
        "inference/batch": "stylize_files",
        "losses/perceptual": "PerceptualLoss",
        "model_file": "KINDS",
        "networks/transform": "TransformNet",
        "optimization/run": "run",
        "evaluation/style": "StyleDistance",
        "training/run": "build",
    }
    for module, name in described.items():
        page = (tmp_path / "reference" / "fststyle" / module / "index.html").read_text(encoding="utf-8")
        assert f'id="fststyle.{module.replace("/", ".")}.{name}"' in page
    model_file = (tmp_path / "reference" / "fststyle" / "model_file" / "index.html").read_text(encoding="utf-8")
    assert "Kinds of model file" in model_file, "a constant's comment is its description"
    for page in tmp_path.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="((?!https?:|data:|mailto:)[^"#?]+)', page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.relative_to(tmp_path)} leads to {link}"


def test_the_site_names_every_guide() -> None:
    contents = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} == set(
        re.findall(r"^docs/(\w+)$", contents, re.MULTILINE)
    )
