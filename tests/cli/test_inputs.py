"""Lists of inputs of which some cannot be used: each is named and left out, the others are done, the exit code is 1."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from commands import COMMANDS, STYLIZE, pictures_and_style
from fststyle.cli import main
from fststyle.images import ImageError, find_pictures, save_image, search
from fststyle.networks.transform import TransformNet


@pytest.fixture(autouse=True)
def here(tmp_path: Path, astronaut: np.ndarray, network: TransformNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user is in: two pictures, one of them in a folder, and a style."""
    folder = pictures_and_style(tmp_path / "here", astronaut, network)
    monkeypatch.chdir(folder)
    return folder


def bad(kind: str, path: Path) -> Path:
    """Something that is called like a picture and is none."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        before = Path.cwd()
        os.chdir(path.parent)  # their names are short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.chdir(before)
    elif kind == "link":
        path.symlink_to("nowhere.png")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "text":
        path.write_text("no picture")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    return path


REASONS = {
    "missing": "no such file",
    "pipe": "is a pipe or a device",
    "socket": "is a socket",
    "link": "is a broken link (to nowhere.png)",
    "device": "is a pipe or a device",
    "loop": "is a broken link",
    "text": "is not a picture",
    "empty": "is empty",
    "folder": "has no pictures in it",
}
IN_FOLDERS = [kind for kind in REASONS if kind not in ("missing", "folder")]


@pytest.mark.parametrize(("command", "label"), COMMANDS, ids=lambda value: value[0])
def test_what_cannot_be_used_among_several_is_named_and_the_others_done(
    command: list[str], label: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(bad(kind, here / f"{kind}.png").relative_to(here)) for kind in REASONS]
    assert main([command[0], names[0], "a.png", *names[1:], "more", *command[1:]]) == 1
    assert (here / f"a{label}.png").is_file()
    assert (here / "more" / f"b{label}.png").is_file()
    lines = capsys.readouterr().err.splitlines()
    for name, reason in zip(names, REASONS.values(), strict=True):
        assert any(line.startswith(f"fststyle: skipped: {name}: {reason}") for line in lines), (name, lines)
    assert lines[-1].startswith(f"fststyle: 2 done, {len(names)} skipped (")
    assert all(name in lines[-1] for name in names)


@pytest.mark.parametrize("kind", REASONS)
def test_the_only_input_is_refused(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad(kind, here / "x.png")
    assert main(["stylize", "x.png", *STYLIZE[1:]]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"fststyle: error: x.png: {REASONS[kind]}")
    assert line.count("\n") == 1


@pytest.mark.parametrize("kind", IN_FOLDERS)
def test_what_is_no_file_in_a_folder_is_named(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad(kind, here / "more" / "x.png")
    assert main(["stylize", "more", *STYLIZE[1:]]) == 1
    assert (here / "more" / "b_wave.png").is_file()
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"fststyle: skipped: more/x.png: {REASONS[kind]}")
    assert last == "fststyle: 1 done, 1 skipped (more/x.png)"


@pytest.mark.parametrize("kind", IN_FOLDERS)
def test_a_folder_of_nothing_else_is_refused(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "none").mkdir()
    bad(kind, here / "none" / "x.png")
    assert main(["stylize", "none", *STYLIZE[1:], "-o", "out"]) == 2
    assert f"none/x.png: {REASONS[kind]}" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_nothing_but_missing_files_is_a_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stylize", "x.png", "y*.png", "", *STYLIZE[1:]]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "fststyle: skipped: x.png: no such file",
        "fststyle: skipped: y*.png: matches no file",
        "fststyle: skipped: found an empty name; expected a picture, a pattern or a folder",
        "fststyle: error: none of the 3 pictures could be done",
    ]


def test_what_a_pattern_matches_is_named_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad("pipe", here / "p.png")
    bad("link", here / "l.png")
    assert main(["stylize", "*.png", *STYLIZE[1:]]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "fststyle: 1 done, 2 skipped (l.png, p.png)"


def test_one_file_for_several_inputs_is_refused_though_one_is_missing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stylize", "a.png", "x.png", *STYLIZE[1:], "-o", "out.png"]) == 2
    assert "out.png: is one file for 2 pictures; give a folder" in capsys.readouterr().err
    assert not (here / "out.png").exists()


@pytest.mark.parametrize(
    ("inputs", "results"),
    [
        (["a.png", "a.png"], ["a_wave.png"]),
        (["a.png", "./a.png", "more/../a.png"], ["a_wave.png"]),
        (["more", "more/b.png"], ["more/b_wave.png"]),
        (["more/b.png", "more"], ["more/b_wave.png"]),
        (["*.png", "a.png"], ["a_wave.png"]),
        (["a.png", "l.png"], ["a_wave.png", "l_wave.png"]),  # links have results of their own
    ],
    ids=lambda value: " ".join(value),
)
def test_a_picture_that_is_named_twice_is_done_once(
    inputs: list[str], results: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "l.png" in inputs:
        (here / "l.png").symlink_to("a.png")
    assert main([STYLIZE[0], *inputs, *STYLIZE[1:]]) == 0
    assert capsys.readouterr().out.split() == results


def test_existing_results_and_missing_inputs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stylize", "a.png", *STYLIZE[1:]]) == 0
    assert main(["stylize", "a.png", "x.png", "--skip-existing", *STYLIZE[1:]]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "fststyle: 0 done, 1 skipped (x.png), 1 there already"


# --- folders ------------------------------------------------------------------------------------------


def test_links_to_folders_are_followed_and_loops_end(here: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "c.png").write_bytes((here / "a.png").read_bytes())
    (here / "more" / "A").symlink_to(outside)
    (here / "more" / "again").symlink_to(outside)
    (here / "more" / "self").symlink_to(".")
    (here / "more" / "up").symlink_to(here)
    (outside / "back").symlink_to(here / "more")
    assert main(["stylize", "more", "--recursive", *STYLIZE[1:], "-o", str(tmp_path / "out")]) == 0
    made = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert made == ["A/deep/c_wave.png", "b_wave.png", "up/a_wave.png"]


def test_a_folder_keeps_its_place_where_a_link_leads_there_too(here: Path) -> None:
    (here / "more" / "z").mkdir()
    (here / "more" / "z" / "c.png").write_bytes((here / "a.png").read_bytes())
    (here / "more" / "a").symlink_to("z")
    found, failures = search("more")
    assert [path.as_posix() for path in found] == ["more/b.png", "more/z/c.png"]
    assert not failures
    assert [path.as_posix() for path in search("more/a")[0]] == ["more/a/c.png"]


def test_a_link_to_a_picture_is_a_picture(here: Path) -> None:
    (here / "more" / "l.png").symlink_to("../a.png")
    assert [path.name for path in find_pictures("more")] == ["b.png", "l.png"]


@pytest.mark.parametrize("name", ["more", "more/sub"])
def test_a_folder_that_cannot_be_read_is_named(
    name: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "more" / "sub").mkdir()
    listed = os.listdir

    def listdir(path: Path) -> list[str]:
        if str(path) == name:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr("os.listdir", listdir)  # root may read them all
    assert main(["stylize", "a.png", "more", "--recursive", *STYLIZE[1:]]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"fststyle: skipped: {name}: the folder cannot be read (Permission denied)"
    assert told[-1] == f"fststyle: {1 if name == 'more' else 2} done, 1 skipped ({name})"


def test_a_file_that_may_not_be_read_is_named(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, _: "b.png" not in str(path))
    assert main(["stylize", "a.png", "more", *STYLIZE[1:]]) == 1
    assert "skipped: more/b.png: cannot be read (permission denied)" in capsys.readouterr().err


def test_what_other_commands_find_in_a_folder_is_logged(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    for kind in ("pipe", "link"):
        bad(kind, here / "more" / f"{kind}.jpg")
    assert [path.name for path in find_pictures("more")] == ["b.png"]
    (record,) = caplog.records
    assert record.getMessage().startswith("left out: more/link.jpg: is a broken link")
    assert "more/pipe.jpg: is a pipe" in record.getMessage()
    (here / "more" / "b.png").unlink()
    with pytest.raises(ImageError, match="more: has no pictures in it"):
        find_pictures("more")


# --- other commands -----------------------------------------------------------------------------------


def test_a_comparison_goes_on_without_what_cannot_be_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad("text", here / "t.png")
    words = ["--style", "wave", "--size", "48", "--iterations", "1"]
    assert main(["compare", "a.png", "x.png", "t.png", *words]) == 1
    told = capsys.readouterr().err
    assert "skipped: x.png: no such file" in told
    assert "skipped: t.png: is not a picture" in told
    assert (here / "compare" / "index.html").is_file()
    assert main(["compare", "x.png", "t.png", *words]) == 2
    assert "none of the 2 pictures could be done" in capsys.readouterr().err


def test_a_measurement_goes_on_without_what_cannot_be_read(
    here: Path, astronaut: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "set").mkdir()
    save_image(astronaut[:96, :96].copy(), "set/a.png")
    for kind in ("text", "pipe", "link"):
        bad(kind, here / "set" / f"{kind}.png")
    assert main(["evaluate", "superres", "set", "--backend", "torch"]) == 1
    told = capsys.readouterr().err
    assert all(f"skipped: set/{kind}.png: {REASONS[kind]}" in told for kind in ("text", "pipe", "link"))
    rows = (here / "evaluate" / "figures.csv").read_text().splitlines()[1:]
    assert {row.partition(",")[0] for row in rows} == {"a.png"}
    (here / "set" / "a.png").unlink()
    assert main(["evaluate", "superres", "set", "--backend", "torch"]) == 2


# --- words ----------------------------------------------------------------------------------------------


def test_a_pipe_of_the_shell_is_told_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    """``<(command)``: not where its result would go is what is wrong."""
    reading, writing = os.pipe()
    try:
        assert main([*STYLIZE, f"/dev/fd/{reading}"]) == 2
    finally:
        os.close(reading)
        os.close(writing)
    assert (
        capsys.readouterr().err
        == f"fststyle: error: /dev/fd/{reading}: is a pipe or a device; expected a picture file\n"
    )


def test_sizes_of_any_length_and_empty_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--max-pixels", "9" * 400], ["--memory", "9" * 400 + "GB"]):
        with pytest.raises(SystemExit, match="2"):
            main([*STYLIZE, "a.png", *words])
        assert "expected a " in capsys.readouterr().err.splitlines()[-1]
    assert main(["swap", "a.png", "--style-image", ""]) == 2
    assert "found an empty name for --style-image" in capsys.readouterr().err


def test_a_style_that_does_not_say_how_it_was_trained_is_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "a.png", "--style", "wave.safetensors", "-o", "out"]) == 2
    assert "wave: its file does not say which encoder it was trained with" in capsys.readouterr().err
    assert not Path("out").exists()
