"""fststyle stylize: pictures in, pictures out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fststyle import model_file
from fststyle.cli import main
from fststyle.images import read_picture, save_image, to_image, to_pixels
from fststyle.inference import Stylizer
from fststyle.inference.stylizer import median_filter
from fststyle.model_file import read_metadata, save_model_file
from fststyle.networks.transform import TransformNet
from stylizing import RECORD, broken, contents, new_files, stylize

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
