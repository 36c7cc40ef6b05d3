"""``fststyle stylize``, ``styles`` and ``info`` as a user meets them: files, lines and exit codes."""

from __future__ import annotations

import json
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
from PIL import Image

from fststyle import model_file
from fststyle.cli import main
from fststyle.images import ImageError, pillow, read_picture, save_image, to_image, to_pixels
from fststyle.inference import Stylizer
from fststyle.inference.stylizer import median_filter
from fststyle.model_file import read_metadata, save_model_file
from fststyle.networks.transform import TransformNet

RECORD = {
    "kind": "style",
    "name": "wave",
    "style": {"image": "wave.jpg", "size": 256},
    "images": 12000,
    "held_out": {"content": 0.123456789},
    "versions": {"torch": "2.6"},
}


@pytest.fixture
def here(tmp_path: Path, astronaut: np.ndarray, network: TransformNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user is in: two pictures, a folder of three, a text, a style."""
    folder = tmp_path / "here"
    (folder / "more").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for index, name in enumerate(("a.png", "b.jpg", "more/c.jpeg", "more/d.bmp", "more/e.webp")):
        save_image(astronaut[20 * index : 20 * index + 24, 100:133].copy(), folder / name)
    (folder / "notes.txt").write_text("Some notes.")
    (folder / "more" / "notes.txt").write_text("Some more.")
    save_model_file(folder / "wave.safetensors", network, RECORD)
    return folder


@pytest.fixture
def bundled(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The styles of an installation that came with two."""
    folder = tmp_path / "installation" / "checkpoints" / "styles"
    folder.mkdir(parents=True)
    for name in ("starry_night", "wave"):
        shutil.copy(here / "wave.safetensors", folder / f"{name}.safetensors")
    monkeypatch.setattr(model_file, "resource", lambda name: tmp_path / "installation" / name)
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below a folder, with what is in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def stylize(*words: str, style: str = "wave.safetensors") -> int:
    return main(["stylize", *words, "--style", style])


def new_files(folder: Path, before: dict[str, bytes | None]) -> set[str]:
    after = contents(folder)
    assert {name: after.get(name) for name in before} == before
    return {name for name in set(after) - set(before) if after[name] is not None}


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command that must be refused: exit code 2, one line on stderr, nothing written. Gives the line."""

    def run(*words: str) -> str:
        before = contents(here)
        capsys.readouterr()
        assert main(list(words)) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("fststyle: error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert contents(here) == before
        return err

    return run


# --- what is done --------------------------------------------------------------------------------


def test_a_picture_is_stylised_beside_itself(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(here)
    assert stylize("a.png") == 0
    assert new_files(here, before) == {"a_wave.png"}
    assert capsys.readouterr() == ("a_wave.png\n", "")
    expected = Stylizer.from_checkpoint("wave.safetensors", "cpu").pixels(read_picture("a.png").rgb)
    assert np.array_equal(read_picture("a_wave.png").rgb, expected)


def test_results_keep_their_ending_where_it_is_a_common_one(here: Path) -> None:
    before = contents(here)
    assert stylize("a.png", "b.jpg", "more") == 0
    beside = {"a_wave.png", "b_wave.jpg", "more/c_wave.jpeg", "more/d_wave.png", "more/e_wave.webp"}
    assert new_files(here, before) == beside
    assert all(read_picture(name).rgb.shape == (24, 33, 3) for name in beside)


@pytest.mark.parametrize(
    ("words", "results"),
    [
        (["*.png"], {"a_wave.png"}),
        (["more/[cd].*"], {"more/c_wave.jpeg", "more/d_wave.png"}),
        (["**/*.jpeg", "b.jpg"], {"more/c_wave.jpeg", "b_wave.jpg"}),
        (["b.jpg", "-o", "new.png"], {"new.png"}),
        (["b.jpg", "-o", "new/deep/name.webp"], {"new/deep/name.webp"}),
        (["b.jpg", "-o", "out"], {"out/b_wave.jpg"}),
        (["b.jpg", "-o", "out.d/"], {"out.d/b_wave.jpg"}),
        (["more", "-o", "out/deep"], {"out/deep/c_wave.jpeg", "out/deep/d_wave.png", "out/deep/e_wave.webp"}),
        (["."], {"a_wave.png", "b_wave.jpg"}),
        (["a.png", "b.jpg", "--output", "more"], {"more/a_wave.png", "more/b_wave.jpg"}),
    ],
)
def test_globs_folders_and_outputs(here: Path, words: list[str], results: set[str]) -> None:
    before = contents(here)
    assert stylize(*words) == 0
    assert new_files(here, before) == results


def test_a_second_run_over_a_folder_leaves_the_results_of_the_first_alone(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stylize("more") == 0
    first = contents(here)
    capsys.readouterr()
    assert stylize("more") == 0
    assert "left out what is called like a result: more/c_wave.jpeg … (3); name it" in capsys.readouterr().err
    assert contents(here) == first
    assert stylize("more/c_wave.jpeg") == 0  # named, it is done
    assert contents(here).keys() - first.keys() == {"more/c_wave_wave.jpeg"}


def test_an_existing_folder_with_a_dot_is_a_folder(here: Path) -> None:
    (here / "out.d").mkdir()
    assert stylize("a.png", "-o", "out.d") == 0
    assert (here / "out.d" / "a_wave.png").is_file()


def test_a_name_with_brackets_is_a_name_where_there_is_such_a_file(here: Path) -> None:
    (here / "a.png").rename(here / "a[1].png")
    assert stylize("a[1].png") == 0
    assert (here / "a[1]_wave.png").is_file()


def test_size_is_the_longer_side(here: Path) -> None:
    assert stylize("a.png", "-o", "out.png", "--size", "66") == 0
    assert read_picture("out.png").rgb.shape == (48, 66, 3)


def test_median_filters_the_result(here: Path) -> None:
    assert stylize("a.png", "-o", "out.png", "--median") == 0
    plain = Stylizer.from_checkpoint("wave.safetensors", "cpu").pixels(read_picture("a.png").rgb)
    assert np.array_equal(read_picture("out.png").rgb, to_pixels(median_filter(to_image(plain))))


def test_colours_can_be_kept(here: Path) -> None:
    assert stylize("a.png", "-o", "plain.png") == 0
    assert stylize("a.png", "-o", "kept.png", "--preserve-color") == 0
    photo, plain, kept = (read_picture(name).rgb.astype(float) for name in ("a.png", "plain.png", "kept.png"))
    luma = np.array([0.299, 0.587, 0.114])
    inside = ((kept > 0) & (kept < 255)).all(-1)  # elsewhere colours were cut off
    assert inside.mean() > 0.5
    assert np.abs(kept @ luma - plain @ luma)[inside].max() < 2
    for channel in (0, 2):  # differences to luma are the photograph's
        assert np.abs((kept[..., channel] - kept @ luma) - (photo[..., channel] - photo @ luma))[inside].max() < 4


def test_alpha_is_kept(here: Path) -> None:
    rgb = read_picture("a.png").rgb
    alpha = np.tile(np.linspace(0, 255, 33).astype(np.uint8), (24, 1))
    save_image(rgb, here / "see_through.png", alpha)
    assert stylize("see_through.png") == 0
    kept = read_picture("see_through_wave.png").alpha
    assert kept is not None
    assert np.array_equal(kept, alpha)
    assert stylize("see_through.png", "-o", "large.png", "--size", "99") == 0
    large = read_picture("large.png").alpha
    assert large is not None
    assert large.shape == (72, 99)
    assert large[:, 0].max() < 20
    assert large[:, -1].min() > 235


def test_a_photograph_on_its_side_comes_out_upright(here: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(read_picture("a.png").rgb).save("turned.jpg", exif=exif)
    assert stylize("turned.jpg") == 0
    with Image.open("turned_wave.jpg") as result:
        assert result.size == (24, 33)
        assert result.getexif().get(0x0112, 1) == 1


def test_an_existing_result_is_replaced(here: Path) -> None:
    assert stylize("a.png") == 0
    assert stylize("a.png", "--size", "30") == 0
    assert read_picture("a_wave.png").rgb.shape[1] == 30


@pytest.mark.usefixtures("bundled")
def test_a_bundled_style_goes_by_its_name(here: Path) -> None:
    assert stylize("a.png", style="starry_night") == 0
    assert (here / "a_starry_night.png").is_file()


def test_the_command_runs_as_a_program(here: Path) -> None:
    def program(*words: str) -> subprocess.CompletedProcess[str]:
        code = [sys.executable, "-m", "fststyle", *words]
        root = Path(model_file.__file__).resolve().parents[1]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.run(code, cwd=here, env=environment, capture_output=True, text=True)

    done = program("stylize", "a.png", "--style", "wave.safetensors", "-o", "out")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"out{os.sep}a_wave.png\n", "")
    assert (here / "out" / "a_wave.png").is_file()
    refusal = program("stylize", "missing.png", "--style", "wave.safetensors")
    assert (refusal.returncode, refusal.stdout) == (2, "")
    assert refusal.stderr == "fststyle: error: missing.png: no such file\n"


# --- folders, several styles, looks ---------------------------------------------------------------


def test_a_folder_with_its_sub_folders_keeps_its_structure(here: Path) -> None:
    (here / "more" / "deep" / "er").mkdir(parents=True)
    shutil.copy("a.png", "more/deep/a.png")
    shutil.copy("a.png", "more/deep/er/a.png")
    before = contents(here)
    assert stylize("more", "-o", "out", "--recursive") == 0
    flat = {"out/c_wave.jpeg", "out/d_wave.png", "out/e_wave.webp"}
    assert new_files(here, before) == {*flat, "out/deep/a_wave.png", "out/deep/er/a_wave.png"}


def test_results_inside_the_folder_are_not_its_pictures(here: Path) -> None:
    assert stylize(".", "-o", "more/out", "--recursive") == 0
    first = contents(here)
    assert stylize(".", "-o", "more/out", "--recursive") == 0
    assert contents(here).keys() == first.keys()


def test_hidden_files_are_left_alone(here: Path) -> None:
    (here / "more" / "._c.jpeg").write_text("what a computer of another kind leaves beside a picture")
    assert stylize("more") == 0


def test_existing_results_are_left_alone_if_the_user_wants_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stylize("more", "-o", "out") == 0
    (here / "out" / "c_wave.jpeg").write_text("mine")
    (here / "out" / "d_wave.png").unlink()
    capsys.readouterr()
    assert stylize("more", "-o", "out", "--skip-existing") == 0
    out, err = capsys.readouterr()
    assert out == f"out{os.sep}d_wave.png\n"
    assert err == "fststyle: 1 done, 2 there already\n"
    assert (here / "out" / "c_wave.jpeg").read_text() == "mine"
    assert stylize("more", "-o", "out", "--skip-existing") == 0
    assert capsys.readouterr().err == "fststyle: 0 done, 3 there already\n"


def test_what_is_converted_is_told_apart_by_its_ending(here: Path) -> None:
    (here / "same").mkdir()
    for ending in ("png", "bmp", "gif"):
        Image.fromarray(read_picture("a.png").rgb).save(f"same/a.{ending}")
    assert stylize("same", "-o", "out") == 0
    assert {path.name for path in (here / "out").iterdir()} == {"a_wave.png", "a_bmp_wave.png", "a_gif_wave.png"}


def test_several_styles_in_one_call(here: Path, network: TransformNet, refused: Any) -> None:
    torch.manual_seed(1)
    save_model_file(here / "rain.safetensors", TransformNet(width=4, residual_blocks=1), {**RECORD, "name": "rain"})
    before = contents(here)
    words = ["stylize", "a.png", "b.jpg", "--style", "wave.safetensors", "--style", "rain.safetensors"]
    assert main(words) == 0
    assert new_files(here, before) == {"a_wave.png", "a_rain.png", "b_wave.jpg", "b_rain.jpg"}
    assert main([*words, "-o", "out", "--skip-existing"]) == 0
    for style in ("wave", "rain"):
        expected = Stylizer.from_checkpoint(f"{style}.safetensors", "cpu").pixels(read_picture("a.png").rgb)
        assert np.array_equal(read_picture(f"out/a_{style}.png").rgb, expected)
    assert "expected styles of different names" in refused(*words, "--style", "./wave.safetensors")
    assert "is one file for 4 pictures" in refused(*words, "-o", "out.png")


def test_a_broken_picture_is_told_of_once_for_all_styles(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy("wave.safetensors", "rain.safetensors")
    broken("text", here / "more" / "bad.jpg")
    assert main(["stylize", "more", "--style", "wave.safetensors", "--style", "rain.safetensors"]) == 1
    skipped, last = capsys.readouterr().err.splitlines()
    assert "bad.jpg: is not a picture" in skipped
    assert last == f"fststyle: 6 done, 2 skipped (more{os.sep}bad.jpg)"


def test_strength_lies_between_photograph_and_result(here: Path, refused: Any) -> None:
    for strength in ("0", "0.5", "1"):
        assert stylize("a.png", "-o", f"{strength}.png", "--strength", strength) == 0
    photo, none, half, full = (read_picture(name).rgb.astype(int) for name in ("a.png", "0.png", "0.5.png", "1.png"))
    assert np.array_equal(none, photo)
    assert 0 < np.abs(half - photo).mean() < np.abs(full - photo).mean()
    assert "strength is 2" in refused("stylize", "a.png", "--style", "wave.safetensors", "--strength", "2")
    assert "style scale is 99" in refused("stylize", "a.png", "--style", "wave.safetensors", "--style-scale", "99")


def test_strokes_of_large_pictures_are_larger_unless_told(here: Path) -> None:
    Image.fromarray(read_picture("a.png").rgb).resize((2048, 32)).save("long.png")
    for scale in ("1", "auto", str(2**0.5)):
        assert stylize("long.png", "-o", f"long_{scale[:4]}.png", "--style-scale", scale) == 0
    assert stylize("long.png", "-o", "long.out.png") == 0
    names = ("_1", "_auto", "_1.41", ".out")
    same, auto, chosen, default = (read_picture(f"long{name}.png").rgb for name in names)
    assert np.array_equal(auto, chosen)
    assert np.array_equal(auto, default)
    assert not np.array_equal(auto, same)
    with pytest.raises(SystemExit, match="2"):
        stylize("a.png", "--style-scale", "large")


def test_exif_is_carried_over_unless_it_is_to_be_stripped(here: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    Image.fromarray(read_picture("a.png").rgb).save("told.jpg", exif=exif)
    assert stylize("told.jpg", "-o", "kept.jpg") == 0
    with Image.open("kept.jpg") as kept:
        found = kept.getexif()
        assert (found[0x010F], found.get(0x0112, 1)) == ("Maker", 1)
        assert found.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
        assert found.get_ifd(0x8825)[1] == "N"
    assert stylize("told.jpg", "-o", "stripped.jpg", "--strip") == 0
    with Image.open("stripped.jpg") as stripped:
        assert not dict(stripped.getexif())


def test_sixteen_bits_in_sixteen_bits_out(here: Path) -> None:
    large = pytest.importorskip("fststyle.images.large")
    if not large.available():
        pytest.skip("libvips is not there: pip install 'fststyle[large]'")
    fine = np.random.default_rng(0).integers(0, 65536, (40, 40, 3), dtype=np.uint16)
    save_image(fine, here / "fine.png")
    for tiles in ("off", "exact"):
        assert stylize("fine.png", "-o", f"{tiles}.png", "--tiles", tiles, "--backend", "torch") == 0
    off, exact = (read_picture(f"{tiles}.png", keep_16bit=True).rgb for tiles in ("off", "exact"))
    assert off.dtype == exact.dtype == np.uint16
    assert np.abs(off.astype(int) - exact).max() < 257
    assert len(np.unique(off % 257)) > 100


def test_too_many_pixels_are_refused_with_the_limit_and_how_to_raise_it(here: Path, refused: Any) -> None:
    words = ["stylize", "a.png", "--style", "wave.safetensors", "--max-pixels"]
    assert "has 33×24 pixels; at most 0.0005 million are read (--max-pixels)" in refused(*words, "500")
    assert main([*words, "0.001M"]) == 0
    for wrong in ("0", "-5", "many"):
        with pytest.raises(SystemExit):
            main([*words[:-1], f"--max-pixels={wrong}"])


def test_a_heic_photograph_is_read(here: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    Image.fromarray(np.asarray(Image.open("b.jpg").resize((64, 48)))).save("phone.heic")
    assert stylize("phone.heic") == 0
    assert read_picture("phone_wave.jpg").rgb.shape == (48, 64, 3)


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


def broken(kind: str, path: Path) -> None:
    if kind == "truncated":
        whole = Path("b.jpg").read_bytes()
        path.write_bytes(whole[: len(whole) * 3 // 4])
    elif kind == "text":
        path.write_text("This is no picture.\n")
    elif kind == "empty":
        path.touch()
    elif kind == "dot":
        Image.new("RGB", (1, 1)).save(path)
    else:
        path.mkdir()


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
    for name in ("b.jpg", "notes.txt", "evil.safetensors", "evil.pth", "empty.safetensors"):
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("tiles", ["off", "exact"])
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


# --- styles and info -----------------------------------------------------------------------------


@pytest.mark.usefixtures("bundled")
def test_styles_lists_what_came_with_the_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["styles"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["starry_night", "wave.jpg"]
    assert second.split()[0] == "wave"
    assert "12,000 images" in second


def test_styles_counts_the_images_of_all_trainings(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = model_file.load_model_file(bundled / "wave.safetensors")
    history = ["in words", {"images": 500, "steps": 125}, {"images": 20_000}]
    model_file.save_model_file(bundled / "wave.safetensors", made.network, {**made.metadata, "history": history})
    assert main(["styles"]) == 0
    assert " 32,500 images" in capsys.readouterr().out


def test_styles_says_so_when_there_are_none(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(bundled)
    assert main(["styles"]) == 0
    assert "no styles" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_info_prints_the_history(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "wave.safetensors"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("wave.safetensors  (0.0")
    lines = [line.split() for line in out.splitlines()]
    for expected in (["kind", "style"], ["image", "wave.jpg"], ["content", "0.12346"], ["images", "12000"]):
        assert expected in lines
    assert ["class", "TransformNet"] in lines


@pytest.mark.usefixtures("here")
def test_info_as_json_is_the_whole_metadata(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json", "wave.safetensors"]) == 0
    assert json.loads(capsys.readouterr().out) == read_metadata("wave.safetensors")


@pytest.mark.usefixtures("bundled")
def test_info_takes_a_name_and_refuses_what_is_no_checkpoint(refused: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "starry_night"]) == 0
    assert "starry_night.safetensors" in capsys.readouterr().out
    assert "not a model file" in refused("info", "b.jpg")
    assert "starry_night, wave" in refused("info", "waves")


# --- transparency -------------------------------------------------------------------------------------


def hide(rgb: np.ndarray, name: str, colour: tuple[int, int, int] | np.ndarray) -> np.ndarray:
    """Write a picture of which a round part is opaque, some of it faint, and the rest hides a colour: its alpha."""
    y, x = np.mgrid[-1 : 1 : rgb.shape[0] * 1j, -1 : 1 : rgb.shape[1] * 1j]
    alpha = np.where(x**2 + y**2 < 0.6, 255, 0).astype(np.uint8)
    alpha[len(alpha) // 2 :, : rgb.shape[1] // 3] //= 2
    Image.fromarray(np.dstack([np.where(alpha[..., None] > 0, rgb, colour), alpha]).astype(np.uint8)).save(name)
    return alpha


WAYS = [
    (),
    ("--tiles", "exact"),
    ("--memory", "1M", "--tiles", "exact"),
    ("--size", "60"),
    ("--size", "60", "--tiles", "exact"),
    ("--preserve-color",),
    ("--strength", "0.5"),
    ("--strength", "0"),
    ("--style-scale", "2"),
    ("--style-scale", "1.5", "--tiles", "exact", "--strength", "0.7", "--preserve-color"),
    ("--median",),
    ("--backend", "torch"),
    ("--backend", "openvino"),
]


@pytest.mark.parametrize("words", WAYS, ids=" ".join)
def test_what_is_hidden_changes_no_result(words: tuple[str, ...], here: Path, astronaut: np.ndarray) -> None:
    rgb, results = astronaut[:72, 100:196].copy(), []
    for name, colour in (("black", (0, 0, 0)), ("white", (255, 255, 255)), ("other", rgb[::-1])):
        hide(rgb, f"{name}.png", colour)
        assert stylize(f"{name}.png", "-o", "out.png", *words) == 0
        results.append(np.asarray(Image.open("out.png")))
    assert results[0].shape[2] == 4
    for result in results[1:]:
        assert np.array_equal(result, results[0])


def test_tiled_results_of_transparent_pictures_are_those_of_the_whole(here: Path, astronaut: np.ndarray) -> None:
    hide(astronaut[:200, 100:196].copy(), "clear.png", (255, 0, 255))
    for size in ((), ("--size", "150")):
        assert stylize("clear.png", "-o", "whole.png", "--backend", "torch", *size) == 0
        assert stylize("clear.png", "-o", "tiled.png", "--backend", "torch", "--tiles", "exact", *size) == 0
        whole, tiled = (np.asarray(Image.open(f"{name}.png")).astype(int) for name in ("whole", "tiled"))
        assert np.abs(whole - tiled).max() <= 1


@pytest.mark.parametrize("words", [(), ("--tiles", "exact"), ("--strength", "0")])
def test_wholly_transparent_pictures_are_refused(
    words: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_image(read_picture("a.png").rgb, "nothing.png", np.zeros((24, 33), np.uint8))
    before = contents(here)
    assert stylize("nothing.png", *words) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "nothing.png: is wholly transparent" in error[0]
    assert contents(here) == before
    assert stylize("nothing.png", "a.png", *words) == 1  # among others it is skipped
    assert "nothing.png: is wholly transparent" in capsys.readouterr().err
    assert (here / "a_wave.png").exists()


def differences(style: str, rgb: np.ndarray, backend: str) -> dict[str, int]:
    """The greatest difference of visible pixels over hidden white to those over hidden black: whole, tiled."""
    found = {}
    for way in ("off", "exact"):
        results = []
        for colour in ((0, 0, 0), (255, 255, 255)):
            alpha = hide(rgb, "clear.png", colour)
            words = ("--tiles", way, "--memory", "64M") if way == "exact" else ("--tiles", way)
            assert stylize("clear.png", "-o", "out.png", "--backend", backend, *words, style=style) == 0
            results.append(np.asarray(Image.open("out.png")).astype(int)[alpha > 0])
        found[way] = int(np.abs(results[0] - results[1]).max())
    return found


def test_hidden_black_and_white_give_one_result_of_a_bundled_style(
    tmp_path: Path, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert max(differences("wave", astronaut[:96, 100:228].copy(), "torch").values()) <= 1


#: Those with files of their own, and all of those in files of several.
EVERY_STYLE = sorted(
    f"{name}/{style}" if style != name else name
    for name, path in model_file.bundled_files("style").items()
    for style in model_file.style_names(read_metadata(path))
)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("style", EVERY_STYLE)
def test_hidden_black_and_white_give_one_result_of_every_bundled_style(
    style: str, backend: str, tmp_path: Path, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert max(differences(style, astronaut[:256, :256].copy(), backend).values()) <= 1
