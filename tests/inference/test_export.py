"""Exported files: pictures in and out, any size, and none that differs from PyTorch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from fststyle.cli import main
from fststyle.images import to_image, to_pixels
from fststyle.inference import Stylizer
from fststyle.inference import export as exports
from fststyle.inference.export import FORMATS, ExportError, export
from fststyle.model_file import all_styles, find_model_file, save_model_file
from fststyle.networks.transform import TransformNet

KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(find_spec("openvino") is None and kind != "pt2", reason="no openvino"))
    for kind in FORMATS
]
#: Without the format that takes a minute.
SOON = [
    pytest.param(*kind.values, marks=[*kind.marks, *[pytest.mark.slow] * (kind.values[0] == "pt2")]) for kind in KINDS
]


def small(folder: Path, octaves: int = 1, **options: object) -> Path:
    torch.manual_seed(5)
    network = TransformNet(width=4, residual_blocks=1, **options)  # type: ignore[arg-type]
    about = {"kind": "style", "name": "tiny", "octaves": octaves}
    save_model_file(folder / "small.safetensors", network, about, dtype="float32")
    return folder / "small.safetensors"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"upsampling": "nearest"}, marks=pytest.mark.slow),
        {"norm": "batch", "upsampling": "transposed", "border": 8, "output": "tanh"},
    ],
)
def test_a_file_gives_the_pictures_of_the_network(tmp_path: Path, kind: str, options: dict[str, object]) -> None:
    path = small(tmp_path, **options)
    files = export(path, tmp_path / f"small{FORMATS[kind][0]}", kind)
    assert [file.name for file in files] == [f"small{ending}" for ending in FORMATS[kind]]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, *(file.name for file in files)])
    run = exports._READERS[kind](files[0])
    for shape in ((1, 40, 40, 3), (3, 21, 35, 3), (1, 99, 18, 3)):
        pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        wanted = np.stack([Stylizer.from_checkpoint(path, "cpu", "torch").pixels(each) for each in pixels])
        assert np.abs(run(pixels).astype(int) - wanted.astype(int)).max() <= 1


@pytest.mark.parametrize("kind", SOON)
def test_a_file_goes_from_coarse_to_fine_as_the_style_does(tmp_path: Path, kind: str, astronaut: np.ndarray) -> None:
    path = small(tmp_path, octaves=3)
    run = exports._READERS[kind](export(path, tmp_path / f"small{FORMATS[kind][0]}", kind)[0])
    stylizer = Stylizer.from_checkpoint(path, "cpu", "torch")
    for height, width in ((80, 131), (67, 64)):
        pixels = np.ascontiguousarray(astronaut[:height, :width])
        wanted = to_pixels(stylizer(to_image(pixels)))
        assert np.abs(run(pixels[None])[0].astype(int) - wanted).max() <= 1


def test_a_file_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exports._READERS, "pt2", lambda path: lambda pixels: np.zeros_like(pixels))
    with pytest.raises(ExportError, match="differs from PyTorch by"):
        export(small(tmp_path), tmp_path / "small.pt2", "pt2")
    assert [file.name for file in tmp_path.iterdir()] == ["small.safetensors"]


def checkpoint(tmp_path: Path) -> str:
    return str(small(tmp_path))


@pytest.mark.slow
def test_the_command_names_the_file_after_the_style(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = checkpoint(tmp_path)
    assert main(["export", path, "--format", "pt2"]) == 0
    assert capsys.readouterr().out == "tiny.pt2\n"
    assert main(["export", path, "--format", "pt2"]) == 2
    assert "tiny.pt2 exists already; replace it with --overwrite" in capsys.readouterr().err
    assert main(["export", path, "--format", "pt2", "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "onnx", "-o", "a.pt2"), "a.pt2: a file of format onnx ends in .onnx"),
        (("--format", "pt2", "-o", "no/such/a.pt2"), "no such folder to write to"),
    ],
)
def test_bad_targets_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", checkpoint(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_format_that_needs_more_says_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="openvino takes openvino; pip install openvino"):
        export(small(tmp_path), tmp_path / "a.xml", "openvino")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", all_styles())
def test_every_bundled_style_can_be_exported(tmp_path: Path, style: str, kind: str) -> None:
    """``export`` itself compares the file with PyTorch at three sizes and keeps none that differs."""
    assert export(find_model_file(style, "style"), tmp_path / f"style{FORMATS[kind][0]}", kind)


@pytest.mark.parametrize("kind", SOON)
def test_a_super_resolution_network_is_exported_by_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "x4_pixel", "--format", kind]) == 0
    run = exports._READERS[kind](Path(f"x4_pixel{FORMATS[kind][0]}"))
    assert run(np.zeros((1, 20, 30, 3), np.uint8)).shape == (1, 80, 120, 3)


def test_a_kind_that_cannot_be_exported_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "slim", "--format", "pt2"]) == 2
    assert "of kind 'swap', which is not exported; expected kind 'style' or 'superres'" in capsys.readouterr().err
