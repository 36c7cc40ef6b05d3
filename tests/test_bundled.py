"""Model files by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fststyle import model_file
from fststyle.model_file import ModelFileError, bundled_files, find_model_file, save_model_file
from fststyle.networks.transform import TransformNet

RECORD = {"kind": "style", "name": "wave", "style": {"image": "Hokusai: Große Welle.jpg"}, "images": 12}


@pytest.fixture
def installation(tmp_path: Path, network: TransformNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ``checkpoints`` of an installation that came with two styles."""
    folder = tmp_path / "checkpoints"
    (folder / "styles").mkdir(parents=True)
    for name in ("wave", "starry_night"):
        save_model_file(folder / "styles" / f"{name}.safetensors", network, {**RECORD, "name": name})
    monkeypatch.setattr(model_file, "resource", lambda name: tmp_path / name)
    return folder


def test_bundled_styles_are_found_by_name(installation: Path) -> None:
    assert list(bundled_files("style")) == ["starry_night", "wave"]
    assert bundled_files("superres") == {}
    assert find_model_file("wave", "style") == installation / "styles" / "wave.safetensors"


def test_a_path_is_taken_as_it_is(installation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes((installation / "styles" / "wave.safetensors").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert find_model_file(mine, "style") == mine
    assert find_model_file("mine", "style") == Path("mine")


@pytest.mark.usefixtures("installation")
def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelFileError, match=r"^unknown style 'waev'; .* starry_night, wave$"):
        find_model_file("waev", "style")
    with pytest.raises(ModelFileError, match=r"^styles/w\.safetensors: no such file; .* starry_night, wave$"):
        find_model_file("styles/w.safetensors", "style")
    with pytest.raises(ModelFileError, match=r"unknown superres 'x4'; .* none"):
        find_model_file("x4", "superres")
