"""What fststyle stylize refuses, and what fails during its work."""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fststyle import model_file
from fststyle.cli import main
from fststyle.images import ImageError, pillow, read_picture, save_image
from fststyle.inference import Stylizer
from fststyle.model_file import save_model_file
from fststyle.networks.transform import TransformNet
from marks import rest_slow
from stylizing import RECORD, broken, contents, new_files, stylize

# --- what is refused: pictures -------------------------------------------------------------------


def test_a_missing_file_is_refused(refused: Any) -> None:
    assert "missing.png: no such file" in refused("stylize", "missing.png", "--style", "wave.safetensors")
    assert "*.tif: matches no file" in refused("stylize", "*.tif", "--style", "wave.safetensors")


def test_a_folder_without_pictures_is_refused_whatever_its_sub_folders_hold(here: Path, refused: Any) -> None:
    (here / "none").mkdir()
    (here / "none" / "notes.txt").touch()
    assert "none: has no pictures" in refused("stylize", "none", "--style", "wave.safetensors")
    (here / "more").rename(here / "none" / "more")
    assert "none: has no pictures" in refused("stylize", "none", "--style", "wave.safetensors")


@pytest.mark.parametrize(
    ("kind", "message"),
    [("truncated", "is damaged"), ("text", "is not a picture"), ("empty", "is empty"), ("dot", "is 1×1")],
)
def test_a_broken_picture_is_refused(here: Path, refused: Any, kind: str, message: str) -> None:
    broken(kind, here / "bad.jpg")
    assert f"bad.jpg: {message}" in refused("stylize", "bad.jpg", "--style", "wave.safetensors")
    refused("stylize", "bad.jpg", "--style", "wave.safetensors", "-o", "new/out.png")
    refused("stylize", "bad.jpg", "--style", "wave.safetensors", "-o", "new")


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "dot"])
def test_a_broken_picture_among_good_ones_is_named_and_the_good_ones_done(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    broken(kind, here / "more" / "bad.jpg")
    before = contents(here)
    assert stylize("more") == 1
    assert new_files(here, before) == {"more/c_wave.jpeg", "more/d_wave.png", "more/e_wave.webp"}
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"fststyle: skipped: more{os.sep}bad.jpg: ")
    assert last == f"fststyle: 3 done, 1 skipped (more{os.sep}bad.jpg)"


def test_nothing_but_broken_pictures_is_a_refusal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bad").mkdir()
    broken("text", here / "bad" / "one.jpg")
    broken("empty", here / "bad" / "two.jpg")
    before = contents(here)
    assert stylize("bad", "-o", "out") == 2
    assert contents(here) == before
    *skipped, last = capsys.readouterr().err.splitlines()
    assert ["one.jpg" in skipped[0], "two.jpg" in skipped[1]] == [True, True]
    assert last.startswith("fststyle: error: none of the 2 pictures")


# --- what is refused: styles ---------------------------------------------------------------------


@pytest.mark.usefixtures("bundled")
def test_an_unknown_style_lists_the_known_ones(refused: Any) -> None:
    line = refused("stylize", "a.png", "--style", "waves")
    assert "unknown style 'waves'" in line
    assert "starry_night, wave" in line


class Trap:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


def test_what_is_no_checkpoint_is_refused_as_a_style(here: Path, refused: Any) -> None:
    (here / "evil.safetensors").write_bytes(pickle.dumps(Trap()))
    torch.save(Trap(), here / "evil.pth")
    (here / "empty.safetensors").touch()
    for name in ("notes.txt", "evil.safetensors", "evil.pth", "empty.safetensors"):
        assert f"{name}: is not a model file" in refused("stylize", "a.png", "--style", name)
    assert "no such file" in refused("stylize", "a.png", "--style", "missing.safetensors")


def test_a_truncated_checkpoint_is_refused(here: Path, refused: Any) -> None:
    whole = (here / "wave.safetensors").read_bytes()
    for part in (0.01, 0.3, 0.9):
        (here / "cut.safetensors").write_bytes(whole[: int(part * len(whole))])
        assert "cut.safetensors: is cut off" in refused("stylize", "a.png", "--style", "cut.safetensors")


def test_a_checkpoint_of_another_kind_is_refused(here: Path, refused: Any, network: TransformNet) -> None:
    save_model_file(here / "x4.safetensors", network, {**RECORD, "kind": "superres"})
    assert "kind 'superres'; expected kind 'style'" in refused("stylize", "a.png", "--style", "x4.safetensors")


# --- what is refused: outputs and devices --------------------------------------------------------


@pytest.mark.parametrize("output", ["notes.txt/out.png", "notes.txt/deep/out", "b.jpg/", "b.jpg/out.png"])
def test_an_output_below_a_file_is_refused(refused: Any, output: str) -> None:
    line = refused("stylize", "a.png", "--style", "wave.safetensors", "-o", output)
    assert "folder" in line
    assert output.split("/")[0] in line


@pytest.mark.parametrize("words", [[], ["-o", "out.png"], ["-o", "new/out.png"], ["-o", "more"], ["-o", "new/folder"]])
def test_a_folder_that_takes_no_files_is_refused_before_work_begins(
    refused: Any, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:  # rights would not stop a test that runs as root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr(Stylizer, "__call__", lambda *_, **__: pytest.fail("work began"))
    assert "cannot be written to" in refused("stylize", "a.png", "--style", "wave.safetensors", *words)


@pytest.mark.parametrize("output", ["out.xyz", "new/out.xyz", "out.txt"])
def test_an_unknown_ending_is_refused_before_work_begins(
    refused: Any, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stylizer, "__call__", lambda *_, **__: pytest.fail("work began"))
    assert "use .png" in refused("stylize", "a.png", "--style", "wave.safetensors", "-o", output)


def test_two_results_of_one_name_are_refused(here: Path, refused: Any) -> None:
    assert "one file for 2 pictures" in refused(
        "stylize", "a.png", "b.jpg", "--style", "wave.safetensors", "-o", "out.png"
    )
    shutil.copy("a.png", "more/a.png")
    assert "2 inputs" in refused("stylize", "a.png", "more/a.png", "--style", "wave.safetensors", "-o", "out")
    shutil.copy("more/d.bmp", "more/e.bmp")
    shutil.copy("more/d.bmp", "e.bmp")
    assert "e_bmp_wave.png" in refused("stylize", "e.bmp", "more/e.bmp", "--style", "wave.safetensors", "-o", "out")


def test_a_result_that_is_an_input_is_refused(here: Path, refused: Any) -> None:
    """Nothing that the user gave is overwritten."""
    assert "is the picture itself" in refused("stylize", "a.png", "--style", "wave.safetensors", "-o", "a.png")
    shutil.copy("a.png", "a_wave.png")
    line = refused("stylize", "a.png", "a_wave.png", "--style", "wave.safetensors")
    assert "a_wave.png: is one of the pictures, and a.png's result" in line
    assert "empty name" in refused("stylize", "", "--style", "wave.safetensors")
    assert "empty name" in refused("stylize", "a.png", "--style", "wave.safetensors", "-o", "")


def test_what_is_no_file_or_no_folder_is_told_apart(here: Path, refused: Any) -> None:
    Path("notes").write_text("Mine.\n")
    words = ["stylize", "a.png", "--style", "wave.safetensors", "-o"]
    assert "notes: is a file whose name does not end as a picture's; expected a folder" in refused(*words, "notes")
    os.mkfifo("pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png: is a pipe or a device; expected a picture file"):
        read_picture("pipe.png")


def test_a_second_run_over_a_pattern_leaves_the_results_of_the_first_alone(here: Path) -> None:
    assert stylize("*.png", "*.jpg") == 0
    first = contents(here)
    assert stylize("*.png", "*.jpg") == 0
    assert contents(here) == first


def test_a_result_that_is_too_large_for_its_format_is_named_and_the_others_done(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pillow.LONGEST, "WEBP", 30)
    for tiles in ("off", "exact"):
        assert stylize("more", "-o", tiles, "--tiles", tiles, "--backend", "torch") == 1
        line = capsys.readouterr().err.splitlines()[0]
        assert f"{tiles}{os.sep}e_wave.webp: would have 33×24 pixels; WEBP takes at most 30 a side" in line
        assert len(list((here / tiles).iterdir())) == 2
    size = ["--style", "wave.safetensors", "--size"]
    assert main(["stylize", "a.png", *size, "999999"]) == 2
    assert "at most 179 million are made (--max-pixels)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")],
    ids=["Python's", "torch's"],
)
def test_a_picture_that_memory_is_too_small_for_is_skipped(
    here: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One alone fails as before: there is nothing else to be done."""
    before, calls = TransformNet.forward, []

    def forward(self: TransformNet, image: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise error
        return before(self, image)

    monkeypatch.setattr(TransformNet, "forward", forward)
    assert stylize("more", "-o", "out", "--backend", "torch", "--tiles", "off") == 1
    assert sorted(path.name for path in (here / "out").iterdir()) == ["c_wave.jpeg", "e_wave.webp"]
    told = capsys.readouterr().err
    assert f"skipped: more{os.sep}d.bmp: needs more memory than there is; bring it to fewer pixels with --size" in told
    assert "2 done, 1 skipped" in told
    calls[:] = [1]
    assert stylize("a.png", "-o", "alone.png", "--backend", "torch", "--tiles", "off") == 1
    assert "fststyle: failed" in capsys.readouterr().err


def test_other_failures_of_the_work_end_the_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forward(*_: Any) -> torch.Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(TransformNet, "forward", forward)
    assert stylize("more", "-o", "out", "--backend", "torch", "--tiles", "off") == 1
    assert "fststyle: failed: a bug" in capsys.readouterr().err


def test_a_repeated_run_tells_the_same(here: Path) -> None:
    broken("text", here / "more" / "bad.jpg")
    assert stylize("more", "-o", "out") == 1
    assert stylize("more", "-o", "out", "--skip-existing") == 1


def test_a_long_name_is_written_to(here: Path) -> None:
    long = "ö" * 118
    shutil.copy("a.png", f"{long}.png")
    assert stylize(f"{long}.png") == 0
    assert (here / f"{long}_wave.png").is_file()


@pytest.mark.parametrize(
    ("tiles", "number"), rest_slow([*itertools.product(["exact", "off"], [signal.SIGTERM, signal.SIGINT])])
)
def test_a_signal_ends_the_work_and_leaves_nothing_half_done(here: Path, number: int, tiles: str) -> None:
    large_one = np.random.default_rng(0).integers(0, 255, (2000, 2500, 3), dtype=np.uint8)  # long to encode
    for name in "abcd":
        save_image(large_one, f"more/{name}.bmp")
    words = ["stylize", "more", "-o", "out", "--style", "wave.safetensors", "--strength", "0", "--tiles", tiles]
    environment = {**os.environ, "PYTHONPATH": str(Path(model_file.__file__).resolve().parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-m", "fststyle", *words, "--backend", "torch"],
        env=environment,
        stderr=subprocess.PIPE,
        # a shell that runs the tests in the background has Ctrl-C ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list((here / "out").glob(".*.part")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1, told
    assert b"Traceback" not in told
    assert not [path for path in (here / "out").iterdir() if path.name.startswith(".")]


def test_cuda_on_a_machine_without_is_refused(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = refused("stylize", "a.png", "--style", "wave.safetensors", "--device", "cuda")
    assert "no CUDA device" in line


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["paint"],
        ["stylize"],
        ["stylize", "--style", "wave"],
        ["stylize", "a.png", "--style", "wave", "--size", "15"],
        ["stylize", "a.png", "--style", "wave", "--size", "large"],
        ["stylize", "a.png", "--style", "wave", "--size", "-64"],
        ["stylize", "a.png", "--style", "wave", "--device", "tpu"],
        ["stylize", "a.png", "--style", "wave", "--what"],
        ["info"],
        ["fetch", "vgg11"],
    ],
)
def test_a_wrong_usage_ends_with_code_2(here: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(here)
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err.splitlines()[-1]
    assert contents(here) == before


# --- what fails during the work ------------------------------------------------------------------


def test_a_result_that_cannot_be_written_is_named_and_the_others_done(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(image: Any, path: Path, *more: Any) -> None:
        if path.name == "d_wave.png":
            raise OSError(28, "No space left on device")
        save_image(image, path, *more)

    monkeypatch.setattr("fststyle.inference.batch.save_image", full)
    before = contents(here)
    assert stylize("more") == 1
    assert new_files(here, before) == {"more/c_wave.jpeg", "more/e_wave.webp"}
    first = capsys.readouterr().err.splitlines()[0]
    assert "d_wave.png: cannot be written (No space left on device)" in first


@pytest.mark.parametrize("error", [RuntimeError("out of memory\nlong story"), RuntimeError(), MemoryError()])
def test_a_failure_during_the_work_is_one_line_and_code_1(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Stylizer, "pixels", fail)
    before = contents(here)
    assert stylize("a.png") == 1
    line = capsys.readouterr().err
    assert line.startswith("fststyle: failed: ")
    assert line.count("\n") == 1
    assert contents(here) == before


def test_an_interruption_leaves_what_is_done(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(image: Any, path: Path, *more: Any) -> None:
        if path.name == "d_wave.png":
            raise KeyboardInterrupt
        save_image(image, path, *more)

    monkeypatch.setattr("fststyle.inference.batch.save_image", interrupted)
    before = contents(here)
    assert stylize("more") == 1
    assert {"more/c_wave.jpeg"} <= new_files(here, before) <= {"more/c_wave.jpeg", "more/e_wave.webp"}


def test_debug_shows_the_traceback(here: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.png"):
        main(["--debug", "stylize", "missing.png", "--style", "wave.safetensors"])
    with pytest.raises(ImageError):
        main(["stylize", "missing.png", "--style", "wave.safetensors", "--debug"])
