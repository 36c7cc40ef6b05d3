"""``-`` as input and output: a picture in, a picture out and nothing else on standard output."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from fststyle.cli import main, pipes
from fststyle.images import save_image
from fststyle.model_file import save_model_file
from fststyle.networks.transform import TransformNet


@pytest.fixture(autouse=True)
def here(tmp_path: Path, astronaut: np.ndarray, network: TransformNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user is in, with two pictures and a style, and one for temporary files."""
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    for name in ("a.png", "b.jpg"):
        save_image(astronaut[20:44, 100:133].copy(), name)
    save_model_file("wave.safetensors", network, {"kind": "style", "name": "wave"})
    return folder


STYLIZE = ("stylize", "--style", "wave.safetensors", "--backend", "torch")
COMMANDS = [
    STYLIZE,
    ("upscale", "--backend", "torch"),
    ("swap", "--style-image", "a.png", "--size", "24", "--style-size", "24"),
]


class Stream(io.TextIOWrapper):
    """A standard stream that is a pipe."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8", write_through=True)

    @property
    def content(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run a command with bytes on standard input: its exit code and standard output; no temporary file is left."""

    def run(content: bytes, *words: str) -> tuple[int, bytes]:
        out = Stream()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", Stream(content))
            patch.setattr(sys, "stdout", out)
            code = main(list(words))
        assert not list((tmp_path / "tmp").iterdir())
        return code, out.content

    return run


def decoded(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize("words", [("-",), ("-", "-o", "-"), ("a.png", "-o", "-")], ids=" ".join)
def test_the_bytes_are_those_of_the_file(
    command: tuple[str, ...], words: tuple[str, ...], here: Path, piped: Any
) -> None:
    assert main([*command, "a.png", "-o", "file.png"]) == 0
    code, out = piped((here / "a.png").read_bytes(), *command, *words)
    assert (code, out) == (0, (here / "file.png").read_bytes())


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP"), ("tiff", "TIFF")])
def test_the_format_can_be_chosen(name: str, kind: str, here: Path, piped: Any) -> None:
    code, out = piped((here / "b.jpg").read_bytes(), *STYLIZE, "-", "-o", "-", "--format", name)
    assert (code, decoded(out).format, decoded(out).size) == (0, kind, (33, 24))


def test_standard_input_can_go_to_a_file_or_a_folder(here: Path, piped: Any) -> None:
    content = (here / "b.jpg").read_bytes()
    assert piped(content, *STYLIZE, "-", "-o", "out.webp") == (0, b"out.webp\n")
    assert Image.open("out.webp").format == "WEBP"
    (here / "out").mkdir()
    assert piped(content, *STYLIZE, "-", "a.png", "-o", "out") == (0, b"out/stdin_wave.png\nout/a_wave.png\n")


def test_a_file_called_so_goes_by_its_folder(here: Path, piped: Any) -> None:
    (here / "-").write_bytes((here / "b.jpg").read_bytes())
    assert piped(b"", *STYLIZE, "./-") == (0, b"-_wave.png\n")


def test_transparency_and_exif_are_kept_as_in_files(here: Path, piped: Any) -> None:
    picture = Image.open("a.png").convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "me"
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    _, out = piped(buffer.getvalue(), *STYLIZE, "-")
    assert decoded(out).mode == "RGBA"
    assert decoded(out).getexif()[ExifTags.Base.Artist] == "me"
    _, out = piped(buffer.getvalue(), *STYLIZE, "-", "--strip")
    assert not len(decoded(out).getexif())
    _, out = piped(buffer.getvalue(), *STYLIZE, "-", "--format", "jpeg")
    assert decoded(out).mode == "RGB"


def test_sixteen_bits_and_strips(here: Path, piped: Any) -> None:
    levels = np.random.default_rng(0).integers(0, 65536, (40, 50), np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    code, out = piped(buffer.getvalue(), *STYLIZE, "-", "--tiles", "exact")
    assert (code, decoded(out).size) == (0, (50, 40))
    assert out[24] == 16  # bits, in PNG's header
    assert piped(buffer.getvalue(), *STYLIZE, "-", "--tiles", "off")[1][24] == 16


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (b"", ["-"], "standard input: is empty (0 bytes)"),
        (b"no picture", ["-"], "standard input: is not a picture in a known format"),
        (b"CUT", ["-"], "standard input: is damaged and cannot be read"),
        (b"PNG", ["-", "--max-pixels", "10"], "standard input: has 33×24 pixels; at most 1e-05 million are read"),
        (b"PNG", ["-", "-"], "found - several times; standard input is one picture"),
        (b"PNG", ["-", "a.png"], "found - among several inputs; give -o FOLDER"),
        (b"PNG", ["a.png", "b.jpg", "-o", "-"], "standard output: is one file for 2 pictures"),
        (b"PNG", ["-", "a.png", "-o", "-"], "standard output: is one file for 2 pictures"),
        (b"PNG", ["-", "-o", "-", "--style", "starry_night"], "standard output: is one file for 2 pictures"),
        (b"PNG", ["a.png", "--format", "jpeg"], "--format jpeg is that of standard output; give -o -"),
        (b"PNG", ["-", "-o", "x.png", "--format", "jpeg"], "--format jpeg is that of standard output; give -o -"),
        (b"PNG", ["none.png", "-o", "-"], "none.png: no such file"),
        (b"PNG", ["-", "-o", "none/x.xyz"], "no picture format ends in '.xyz'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_refused_in_one_line(
    content: bytes, words: list[str], message: str, here: Path, piped: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (here / "a.png").read_bytes()
    before = set(here.iterdir())
    content = {b"PNG": whole, b"CUT": whole[: len(whole) // 2]}.get(content, content)
    assert piped(content, *STYLIZE, *words) == (2, b"")
    line = capsys.readouterr().err
    assert line.startswith("fststyle: error: ")
    assert message in line
    assert (line.count("\n"), str(here.parent) in line) == (1, False)
    assert set(here.iterdir()) == before


def test_input_without_end_is_not_stored(piped: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(pipes, "_MORE", 2**20)
    code, out = piped(bytes(2**22), *STYLIZE, "-", "--max-pixels", "1000")
    assert (code, out) == (2, b"")
    assert "standard input: is no picture that is read, of more than 1.057 MB" in capsys.readouterr().err


@pytest.mark.parametrize(("stream", "words"), [("stdin", ["-", "-o", "x.png"]), ("stdout", ["a.png", "-o", "-"])])
@pytest.mark.parametrize("state", ["terminal", "closed"])
def test_a_terminal_and_a_closed_stream_are_refused(
    stream: str, words: list[str], state: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced = Stream() if state == "terminal" else None
    monkeypatch.setattr(Stream, "isatty", lambda _: True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, stream, replaced)
        assert main([*STYLIZE, *words]) == 2
    name = {"stdin": "input", "stdout": "output"}[stream]
    assert f"standard {name} is {'a terminal' if replaced else 'closed'}" in capsys.readouterr().err


def test_commands_in_a_pipeline(here: Path) -> None:
    program = f"{sys.executable} -m fststyle"
    stylize = f"{program} stylize - --style wave.safetensors --backend torch"
    line = f"{stylize} < a.png | {program} upscale - --backend torch --format webp > out.webp"
    run = subprocess.run(["bash", "-o", "pipefail", "-c", line], stderr=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (0, b"")
    assert (Image.open("out.webp").size, Image.open("out.webp").format) == ((132, 96), "WEBP")


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_command_quietly(here: Path, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "fststyle", *STYLIZE, "a.png", "-o", "-"]
    run = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    assert (run.returncode, run.stderr) == (141, b"")
    assert not [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith("fststyle-")]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_standard_output_is_a_failure(here: Path) -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "fststyle", *STYLIZE, "a.png", "-o", "-"]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 1
    assert (
        run.stderr
        == "fststyle: failed: standard output: cannot be written (No space left on device) (--debug shows more)\n"
    )
