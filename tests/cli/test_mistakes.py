"""What users type and give by mistake: one line that says what was found, exit code 2, and nothing written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from commands import in_folder
from fststyle.cli import main
from fststyle.images import save_image
from fststyle.model_file import save_model_file
from fststyle.networks.superres import SuperResNet
from fststyle.networks.transform import TransformNet


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray) -> Path:
    """A folder of a picture, a style, a network that enlarges, and files that are none of these."""
    folder = tmp_path_factory.mktemp("desk")
    save_image(astronaut[20:44, 100:133].copy(), folder / "a.png")
    for name, kind, network in (
        ("wave", "style", TransformNet(width=4, residual_blocks=1)),
        ("large", "superres", SuperResNet(width=4, residual_blocks=1)),
    ):
        save_model_file(folder / f"{name}.safetensors", network, {"kind": kind, "name": name, "style": {}})
    whole = (folder / "wave.safetensors").read_bytes()
    for name, content in {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "list": (2).to_bytes(8, "little") + b"[]",
        "bare": (2).to_bytes(8, "little") + b"{}",
        "huge": b"\xff" * 8 + b"{}",
        "torch": b"PK\3\4\0\0\x08\x08" + bytes(60),  # as torch.save begins
    }.items():
        (folder / f"{name}.safetensors").write_bytes(content)
    for name, content in {
        "page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"/>',
        "print.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n",
        "print.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n",
        "paper.png": b"%PDF-1.4\n",
        "film.jpg": b"\0\0\0\x18ftypmp42" + bytes(60),
        "raw.jpg": b"II*\0\x10\0\0\0CR\2\0" + bytes(100),
        "text mode.png": (folder / "a.png").read_bytes().replace(b"\r\n", b"\n"),
        "new.jpg": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50),
    }.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.safetensors")
    return folder


NO_PICTURES = "page.jpg", "pointer.png", "drawing.png", "print.eps", "print.jpg", "paper.png", "film.jpg"
NO_PICTURES += "raw.jpg", "text mode.png", "new.jpg", "wave.safetensors"  # type: ignore[assignment]
NO_MODELS = {
    "empty.safetensors": "is not a model file",
    "cut.safetensors": "is cut off at",
    "list.safetensors": "is not a model file",
    "bare.safetensors": "but not a model file of fststyle",
    "huge.safetensors": "is not a model file",
    "torch.safetensors": "is not a model file",
    "pipe.safetensors": "is a pipe or a device",
    "/dev/zero": "is a pipe or a device",
    "a.png": "is not a model file",
    ".": "is a folder; expected a model file",
    "": "found an empty name",
    "https://x.org/wave.safetensors": "is an address, which is not read",
    "wave.safetensors/none": "unknown style 'none'; expected one of wave",
    "WAVE": "unknown style 'WAVE'",
}


def refused(desk: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    before = sorted(desk.rglob("*"))
    with in_folder(desk):
        assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), "Traceback" in err) == ("", 1, False)
    assert err.startswith("fststyle: error: ")
    assert sorted(desk.rglob("*")) == before
    return err


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_only_looks_like_a_picture_is_none(name: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--style", "wave.safetensors", "--backend", "torch", "-o", "out.png"]
    for arguments in (["stylize", name, *words], ["swap", "a.png", "--style-image", name, "-o", "out.png"]):
        assert f"{name}: is not a picture in a known format" in refused(desk, capsys, *arguments)


@pytest.mark.parametrize("name", NO_MODELS)
@pytest.mark.parametrize("words", [("stylize", "a.png", "--style"), ("info",), ("export", "--format", "pt2")])
def test_what_is_no_model_file_is_told_apart(
    words: tuple[str, ...], name: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0] == "stylize" and name == "a.png":  # a picture, whose style is predicted
        words = ("upscale", "a.png", "--model")
    assert NO_MODELS[name] in refused(desk, capsys, *words, name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("stylize", "a.png", "--style", "large.safetensors"), "is a model file of kind 'superres'; expected kind 's"),
        (("upscale", "a.png", "--model", "wave.safetensors"), "is a model file of kind 'style'; expected kind 'super"),
        (("stylize", "a.png", "--style", "wave", "-o", "out.v2"), "no picture format ends in '.v2'"),
        (("stylize", "a.png", "--style", "wave", "-o", "a.png/b.png"), "a.png: no such folder to write to"),
        (("stylize", "a.png", "--style", "wave", "-o", "/dev/null"), "/dev/null: no such folder to write to"),
        (("stylize", "a.png", "--style", "wave", "--sheet", "s.txt"), "no picture format ends in '.txt'"),
        (("stylize", "a*.png", "--style", "wave", "--sheet", "s.png"), "a*.png: no such file"),
        (("stylize", "a.png", "--style", "wave", "--mask", "."), ".: is a folder; expected a picture file"),
        (("stylize", "file:///a.png", "--style", "wave"), "file:///a.png: is an address, which is not read"),
        (("swap", "a.png", "--style-image", "-"), "-: no such file"),
        (("swap", "a.png", "--style-image", "."), ".: is a folder; expected a picture file"),
        (("export", "wave.safetensors", "--format", "pt2", "-o", "x.onnx"), "a file of format pt2 ends in .pt2"),
        (("export", "wave.safetensors", "--format", "pt2", "-o", "no/x.pt2"), "no: no such folder to write to"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_meant_is_told(
    words: tuple[str, ...], message: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(desk, capsys, *words)


def test_a_slash_after_a_style_does_not_take_its_name(desk: Path, tmp_path: Path) -> None:
    shutil.copytree(desk, tmp_path / "own", ignore=shutil.ignore_patterns("pipe*"))
    with in_folder(tmp_path / "own"):
        assert main(["stylize", "a.png", "--style", "wave.safetensors/", "--backend", "torch"]) == 0
    assert (tmp_path / "own" / "a_wave.png").is_file()
