"""What is there where a result goes: earlier results are replaced, and nothing else, unless the user says so."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import COMMANDS, STYLIZE, in_folder, pictures_and_style
from fststyle.cli import main
from fststyle.images import save_image
from fststyle.networks.transform import TransformNet


@pytest.fixture(autouse=True)
def here(tmp_path: Path, astronaut: np.ndarray, network: TransformNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user is in: two pictures, one of them in a folder, and a style."""
    folder = pictures_and_style(tmp_path / "here", astronaut, network)
    monkeypatch.chdir(folder)
    return folder


UNDER_A_RESULT = {
    "notes": (lambda path: path.write_text("mine"), "is there already, and no picture"),
    "model": (lambda path: path.write_bytes(Path("wave.safetensors").read_bytes()), "is there already, and no picture"),
    "zeros": (lambda path: path.write_bytes(bytes(9)), "is there already, and no picture"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "pipe": (os.mkfifo, "is a pipe, a socket or a device"),
    "socket": (lambda path: socket_at(path), "is a pipe, a socket or a device"),
    "device": (lambda path: path.symlink_to("/dev/null"), "is a link to /dev/null"),
    "loop": (lambda path: path.symlink_to(path.name), "is a link to itself"),
    "broken link": (lambda path: path.symlink_to("nowhere.png"), "is a link to nowhere.png, which is not there"),
    "broken link below": (lambda path: path.symlink_to("more/nowhere.png"), "which is not there; remove it or mend it"),
    "own picture": (lambda path: shutil.copy("more/b.png", path), "is a picture that no run wrote"),
    "own photograph of another kind": (lambda path: save_as(path, "JPEG"), "is a picture that no run wrote"),
    "own animation": (lambda path: save_as(path, "GIF"), "is a picture that no run wrote"),
    "result that was retouched": (lambda path: retouched(path), "or that was changed since"),
    "result that was retouched in place": (lambda path: retouched(path, True), "or that was changed since"),
    "copy of another result": (lambda path: copied(path), "is a picture that no run wrote"),
    "link to notes": (lambda path: (Path("notes").write_text("mine"), path.symlink_to("notes")), "is a link to "),
    "link to a picture": (lambda path: path.symlink_to("more/b.png"), "is a link to "),
    "link to the input": (lambda path: path.symlink_to("a.png"), ""),
    "hard link of the input": (lambda path: os.link("a.png", path), ""),
}


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def save_as(path: Path, kind: str) -> None:
    Image.open("a.png").save(path, kind)


def retouched(path: Path, in_place: bool = False) -> None:
    """A result that the user has changed since, maybe by a program that keeps its size."""
    assert main([*STYLIZE, "a.png", "-o", path.name]) == 0
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if in_place else content + b"more")


def copied(path: Path) -> None:
    assert main([*STYLIZE, "a.png", "-o", "kept.png"]) == 0
    shutil.copy2("kept.png", path)


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every entry below a folder: its inode, and the content of files, where links lead."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path)] = (path.lstat().st_ino, content)
    return found


@pytest.mark.parametrize("kind", UNDER_A_RESULT)
@pytest.mark.parametrize("named", [(), ("-o", "a_wave.png")], ids=["derived", "named"])
def test_what_is_no_earlier_result_is_not_written_over(
    kind: str, named: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, reason = UNDER_A_RESULT[kind]
    make(here / "a_wave.png")
    if kind == "folder":  # named, it is the folder of results
        named = ()
    before = everything(here)
    assert main([*STYLIZE, "a.png", *named]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fststyle: error: a_wave.png: ")
    assert reason in line
    assert everything(here) == before


@pytest.mark.parametrize(("command", "label"), COMMANDS, ids=lambda value: value[0])
@pytest.mark.parametrize("named", [False, True])
def test_an_earlier_result_and_an_empty_file_are(command: list[str], label: str, named: bool, here: Path) -> None:
    target = here / f"a{label}.png"
    target.touch()
    for _ in range(2):
        assert main([*command, "a.png", *(("-o", target.name) if named else ())]) == 0
        assert target.stat().st_size > 100


def test_a_result_is_not_written_over_the_style_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_image(np.full((24, 24, 3), 99, np.uint8), "painting.png")
    os.link("painting.png", "other.png")
    before = everything(here)
    for name in ("painting.png", "./more/../painting.png", "other.png"):
        assert main(["swap", "a.png", "--style-image", "painting.png", "-o", name]) == 2
        told = capsys.readouterr().err
        assert "painting.png: is read itself" in told or "is painting.png, which is read, under another name" in told
    assert everything(here) == before


@pytest.mark.parametrize(("command", "label"), COMMANDS, ids=lambda value: value[0])
def test_own_pictures_are_replaced_where_that_is_said(command: list[str], label: str, here: Path) -> None:
    target = here / f"a{label}.png"
    shutil.copy("more/b.png", target)
    before = target.read_bytes()
    assert main([*command, "a.png"]) == 2
    assert target.read_bytes() == before
    assert main([*command, "a.png", "--overwrite"]) == 0
    assert target.read_bytes() != before
    assert main([*command, "a.png"]) == 0  # now it is a result


def test_overwrite_is_of_pictures_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a_wave.png").write_text("mine")
    assert main([*STYLIZE, "a.png", "--overwrite"]) == 2
    assert main([*STYLIZE, "a.png", "-o", "a.png", "--overwrite"]) == 2
    assert (here / "a_wave.png").read_text() == "mine"


def test_results_are_known_wherever_their_folder_goes_and_from_strips(here: Path, tmp_path: Path) -> None:
    assert main([*STYLIZE, "more", "-o", "out", "--tiles", "exact"]) == 0
    (here / "out").rename(tmp_path / "moved")
    assert main([*STYLIZE, "more", "-o", str(tmp_path / "moved")]) == 0


def test_where_nothing_can_be_noted_results_are_made_and_then_kept(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").touch()
    monkeypatch.setenv("FSTSTYLE_CACHE", str(here / "file"))
    assert main([*STYLIZE, "a.png"]) == 0
    assert main([*STYLIZE, "a.png"]) == 2
    assert "a_wave.png: is a picture that no run wrote" in capsys.readouterr().err
    assert main([*STYLIZE, "a.png", "--overwrite"]) == 0


def test_a_sheet_replaces_earlier_sheets_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main([*STYLIZE, "a.png", "--sheet", "sheet.png"]) == 0
    before = everything(here)
    (here / "notes.png").write_text("mine")
    (here / "link.png").symlink_to("nowhere.png")
    for name, reason in {
        "more/b.png": "that no run wrote",
        "notes.png": "and no picture",
        "a.png": "is read itself",
        "link.png": "is not there",
    }.items():
        assert main([*STYLIZE, "a.png", "--sheet", name]) == 2
        assert reason in capsys.readouterr().err
    assert {name: kept for name, kept in everything(here).items() if name in before} == before
    assert not (here / "nowhere.png").exists()
    assert main([*STYLIZE, "a.png", "--sheet", "more/b.png", "--overwrite"]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ("optimize", "content=a.png", "style.image=a.png", "output=link.png"),
        ("optimize", "content=a.png", "style.image=a.png", "output=link.png", "overwrite=true"),
        ("merge", "wave.safetensors", "-o", "link.safetensors"),
        ("merge", "wave.safetensors", "-o", "link.safetensors", "--overwrite"),
        ("export", "wave.safetensors", "--format", "pt2", "-o", "link.pt2", "--overwrite"),
        ("preview", "a.png", "style.image=a.png", "output=link", "encoder=random"),
        ("compare", "a.png", "--style", "wave", "-o", "link"),
        ("evaluate", "superres", "more", "-o", "link"),
        ("train", "style.image=a.png", "data=generated", "encoder=random", "output=link"),
        ("upscale", "a.png", "-o", "link.png", "--backend", "torch"),
        ("swap", "a.png", "--style-image", "a.png", "-o", "link/b.png"),
    ],
    ids=lambda words: " ".join(words[:1] + words[-1:]),
)
def test_no_command_writes_through_a_broken_link(
    words: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("link", "link.png", "link.pt2", "link.safetensors"):
        (here / name).symlink_to("nowhere")
    before = everything(here)
    with in_folder(here):
        assert main(list(words)) == 2
    assert "is a link to nowhere, which is not there; remove it or mend it" in capsys.readouterr().err
    assert everything(here) == before


def test_what_is_left_alone_may_be_anything(here: Path) -> None:
    """``--skip-existing`` writes over nothing, so nothing is in its way."""
    (here / "a_wave.png").write_text("mine")
    assert main([*STYLIZE, "a.png", "more/b.png", "--skip-existing"]) == 0
    assert (here / "a_wave.png").read_text() == "mine"
    assert (here / "more" / "b_wave.png").is_file()
