"""``fststyle stylize --mask``: a style in a part of the picture, another one or the photograph elsewhere."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fststyle.cli import main
from fststyle.images import large, read_mask, read_picture, save_image
from fststyle.inference import StylizeOptions, Stylizer, in_regions
from fststyle.inference.regions import _may_share
from fststyle.model_file import StyleEntry, load_model_file, save_model_file
from fststyle.networks.transform import TransformNet

#: A second style, of the same network, of another one, or none.
ELSEWHERE = ("zoo.safetensors/udnie", "mosaic.safetensors", "photo")
#: Where a picture is evaluated: strip by strip from file to file, or whole.
TILES = ("exact", "off") if large.available() else ("off",)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, astronaut: np.ndarray, network: TransformNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user is in: two photographs, a mask, a file of two styles, one of one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    save_image(astronaut[:60, 100:180].copy(), "photo.png")
    save_image(astronaut[200:260, 100:180].copy(), "other.png")
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 20:60] = 255
    Image.fromarray(mask).save("mask.png")
    torch.manual_seed(1)  # other convolutions than those of the other file
    two = TransformNet(width=4, residual_blocks=1, styles=2)
    with torch.no_grad():
        for name, value in two.style_parameters().items():
            value.copy_(0.4 * torch.randn_like(value) + (1 if name.endswith("weight") else 0))
    entries = [StyleEntry("wave"), StyleEntry("udnie")]
    save_model_file("zoo.safetensors", two, {"kind": "style", "name": "zoo"}, styles=entries)
    save_model_file("mosaic.safetensors", network, {"kind": "style", "name": "mosaic"})
    return folder


def stylize(*words: str, mask: str = "mask.png", style: str = "zoo.safetensors/wave") -> int:
    where = () if "--backend" in words else ("--backend", "torch", "--device", "cpu", "--precision", "float32")
    return main(["stylize", *words, "--style", style, "--mask", mask, *where])


def pixels(path: str) -> np.ndarray:
    return read_picture(path, keep_16bit=True).rgb


def loaded(name: str) -> Stylizer | None:
    return None if name == "photo" else Stylizer.from_checkpoint(name, "cpu", "torch", "float32")


def expected(elsewhere: str, photo: str = "photo.png", **options: Any) -> np.ndarray:
    style = loaded("zoo.safetensors/wave")
    assert style is not None
    return in_regions(style, read_mask("mask.png"), loaded(elsewhere)).pixels(pixels(photo), StylizeOptions(**options))


# --- what is done --------------------------------------------------------------------------------


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize(
    ("words", "options"),
    [
        ((), {}),
        (("--strength", "0.5"), {"strength": 0.5}),
        (
            ("--style-scale", "2", "--preserve-color", "--median"),
            {"style_scale": 2.0, "preserve_color": True, "median": True},
        ),
    ],
)
def test_the_command_gives_what_the_library_gives(
    tiles: str, elsewhere: str, words: tuple[str, ...], options: dict[str, Any]
) -> None:
    assert stylize("photo.png", "--elsewhere", elsewhere, "--tiles", tiles, *words, "-o", "out.png") == 0
    assert np.abs(pixels("out.png").astype(int) - expected(elsewhere, **options)).max() <= 1


def test_by_default_the_photograph_is_elsewhere() -> None:
    assert stylize("photo.png") == 0
    output, photo = pixels("photo_wave.png"), pixels("photo.png")
    mask = read_mask("mask.png")
    assert np.array_equal(output[:5], photo[:5])
    assert not np.array_equal(output[mask == 255], photo[mask == 255])


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_the_mask_goes_along_with_the_size(elsewhere: str, tiles: str) -> None:
    assert stylize("photo.png", "--elsewhere", elsewhere, "--size", "120", "-o", "out.png", "--tiles", tiles) == 0
    style = loaded("zoo.safetensors/wave")
    assert style is not None
    stylizer = in_regions(style, read_mask("mask.png", 120), loaded(elsewhere))
    assert np.abs(pixels("out.png").astype(int) - stylizer.pixels(read_picture("photo.png", 120).rgb)).max() <= 1


def test_edges_are_as_soft_as_they_are_asked_to_be() -> None:
    changed = []
    for feather in ("0", "3", "12"):
        assert stylize("photo.png", "--feather", feather, "-o", "out.png") == 0
        changed.append(int((pixels("out.png") != pixels("photo.png")).any(2).sum()))
    assert 0 < changed[0] <= 40 * 40
    assert changed[0] < changed[1] < changed[2]


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_hidden_colours_have_no_influence_and_alpha_is_kept(elsewhere: str) -> None:
    rgb, y = pixels("photo.png"), np.arange(60)[:, None]
    alpha = np.where(y < 15, 0, np.where(y < 20, 120, 255)).astype(np.uint8).repeat(80, 1)  # part of it masked
    shown = []
    for hidden in (0, 255):
        Image.fromarray(np.dstack([np.where(alpha[..., None] == 0, hidden, rgb), alpha]).astype(np.uint8)).save(
            "cut.png"
        )
        for tiles in TILES:
            assert stylize("cut.png", "--elsewhere", elsewhere, "--tiles", tiles, "-o", "out.png") == 0
            result = np.asarray(Image.open("out.png"))
            assert np.array_equal(result[..., 3], alpha)
            shown.append(result[alpha == 255].astype(int))
    for other in shown[1:]:
        assert np.abs(other - shown[0]).max() <= 1


@pytest.mark.parametrize("orientation", [3, 6])
def test_photograph_and_mask_are_taken_as_they_are_seen(orientation: int) -> None:
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert stylize("photo.png", "-o", "upright.png") == 0
    for photo, mask in (
        ("turned.png", "mask.png"),
        ("photo.png", "turned_mask.png"),
        ("turned.png", "turned_mask.png"),
    ):
        for name in {photo, mask} & {"turned.png", "turned_mask.png"}:
            upright = Image.open("photo.png" if name == photo else "mask.png")
            upright.transpose(turn).save(name, exif=exif)
        assert stylize(photo, "-o", "out.png", mask=mask) == 0
        assert np.array_equal(pixels("out.png"), pixels("upright.png"))


def test_a_photographs_own_alpha_may_be_its_mask() -> None:
    Image.fromarray(np.dstack([pixels("photo.png"), read_mask("mask.png") // 2 + 100])).save("cut.png")
    assert stylize("cut.png", mask="cut.png") == 0
    assert (pixels("cut_wave.png") != pixels("photo.png")).any()


@pytest.mark.skipif(not large.available(), reason="16 bits are read by libvips")
@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_sixteen_bits_stay_sixteen(elsewhere: str) -> None:
    save_image(pixels("photo.png").astype(np.uint16) * 257 + 5, Path("deep.png"))
    assert stylize("deep.png", "--elsewhere", elsewhere, "-o", "out.png") == 0
    assert pixels("out.png").dtype == np.uint16


def test_several_photographs_and_styles_share_a_mask(here: Path) -> None:
    more = ("--style", "mosaic.safetensors", "--elsewhere", "zoo.safetensors/udnie")
    assert stylize("photo.png", "other.png", *more, "-o", "out") == 0
    assert sorted(os.listdir("out")) == [
        f"{photo}_{style}.png" for photo in ("other", "photo") for style in ("mosaic", "wave")
    ]
    for photo in ("photo", "other"):
        away = pixels(f"out/{photo}_wave.png").astype(int) - expected("zoo.safetensors/udnie", f"{photo}.png")
        assert np.abs(away).max() <= 1


def test_a_mixture_may_be_in_a_region() -> None:
    words = (
        "--style",
        "zoo.safetensors",
        "--elsewhere",
        "zoo.safetensors/udnie",
        "--mask",
        "mask.png",
        "--backend",
        "torch",
    )
    assert main(["stylize", "photo.png", *words, "-o", "out.png", "--mix", "wave=1", "udnie=0"]) == 0
    assert np.abs(pixels("out.png").astype(int) - expected(ELSEWHERE[0])).max() <= 1
    assert main(["stylize", "photo.png", *words, "-o", "half.png", "--mix", "wave=1", "udnie=1"]) == 0
    assert not np.array_equal(pixels("half.png"), pixels("out.png"))


def test_in_a_folder_the_mask_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert stylize(".", "-o", "out") == 0
    assert sorted(os.listdir("out")) == ["other_wave.png", "photo_wave.png"]
    assert "mask.png: is the mask; name it to have it done" in capsys.readouterr().err
    assert stylize(".", "mask.png", "-o", "named") == 0
    assert sorted(os.listdir("named")) == ["mask_wave.png", "other_wave.png", "photo_wave.png"]
    assert stylize("mask.png", "-o", "mask_styled.png") == 0


def test_an_unreadable_photograph_among_others_is_skipped() -> None:
    Path("broken.png").write_bytes(b"no picture")
    assert stylize("broken.png", "photo.png", "-o", "out") == 1
    assert os.listdir("out") == ["photo_wave.png"]


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_pipes(elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path("photo.png").read_bytes())))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, write_through=True))
    assert stylize("-", "--elsewhere", elsewhere) == 0
    output = np.asarray(Image.open(io.BytesIO(out.getvalue())))
    assert np.abs(output.astype(int) - expected(elsewhere)).max() <= 1


def test_with_openvino_styles_of_one_file_are_run_by_pytorch() -> None:
    pytest.importorskip("openvino")
    assert stylize("photo.png", "--elsewhere", ELSEWHERE[0], "--backend", "openvino", "-o", "out.png") == 0
    assert np.abs(pixels("out.png").astype(int) - expected(ELSEWHERE[0])).max() <= 1


def test_a_file_with_the_convolutions_of_another_shares_its_pass() -> None:
    """As one that was made by training norms alone."""
    for name in ("wave", "udnie"):
        file = load_model_file(f"zoo.safetensors/{name}")
        save_model_file(f"{name}.safetensors", file.network, {"kind": "style", "name": name})
    paths = [Path(name).absolute() for name in ("wave.safetensors", "udnie.safetensors", "mosaic.safetensors")]
    assert [_may_share(paths[0], path) for path in paths] == [True, True, False]
    words = ("--elsewhere", "udnie.safetensors", "--backend", "auto", "--device", "cpu", "--precision", "float32")
    assert stylize("photo.png", *words, "-o", "out.png", style="wave.safetensors") == 0
    assert np.abs(pixels("out.png").astype(int) - expected(ELSEWHERE[0])).max() <= 1


@pytest.mark.slow
def test_other_styles_are_run_by_openvino() -> None:
    pytest.importorskip("openvino")
    results = []
    for backend in ("torch", "openvino"):
        assert stylize("photo.png", "--backend", backend, "-o", "out.png", style="mosaic.safetensors") == 0
        results.append(pixels("out.png").astype(int))
    assert np.abs(results[0] - results[1]).mean() < 1


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "mask", "message"),
    [
        (("photo.png",), "small.png", "small.png: is a mask of 40×30 pixels; expected the 80×60 of photo.png"),
        (("photo.png", "--size", "40"), "small.png", "small.png: is a mask of 40×30 pixels"),
        (("photo.png",), "turned.png", "turned.png: is a mask of 60×80 pixels"),
        (("photo.png", "small.png"), "mask.png", "expected the 40×30 of small.png"),
        (("photo.png",), "black.png", "black.png: is wholly black"),
        (("photo.png",), "white.png", "white.png: is wholly white"),
        (("photo.png",), "grey.png", "grey.png: is of one grey"),
        (("photo.png",), "clear.png", "clear.png: is wholly transparent"),
        (("photo.png",), "missing.png", "missing.png: no such"),
        (("photo.png",), "broken.png", "broken.png: "),
        (("photo.png",), "cut_off.png", "cut_off.png: "),
        (("photo.png",), "empty.png", "empty.png: is empty"),
        (("photo.png",), "folder", "folder: is a folder"),
        (("photo.png",), "zoo.safetensors", "zoo.safetensors: "),
        (("photo.png",), "", "found '' for the mask; expected a picture file"),
        (("photo.png",), "-", "found '-' for the mask"),
        (("photo.png", "-o", "mask.png"), "mask.png", "mask.png: is read itself; give another name"),
        (("photo.png", "--feather", "-1"), "mask.png", "feather is -1"),
        (("photo.png", "--feather", "nan"), "mask.png", "feather is nan"),
        (("photo.png", "--feather", "81"), "mask.png", "feather is 81; expected a number of pixels from 0 to 80"),
        (("photo.png", "--elsewhere", "unknown"), "mask.png", "unknown style 'unknown'"),
        (("photo.png", "--elsewhere", "zoo.safetensors/unknown"), "mask.png", "unknown style 'unknown'"),
        (("photo.png", "--elsewhere", ""), "mask.png", "found an empty name"),
        (("photo.png", "--elsewhere", "other.png"), "mask.png", "other.png: "),
        (("photo.png", "--sheet", "sheet.png"), "mask.png", "give it without --mask"),
        (("folder",), "mask.png", "folder: "),
        (("only",), "only/mask.png", "only/mask.png: is the only picture found, and the mask"),
    ],
)
def test_what_makes_no_sense_is_refused(
    here: Path, words: tuple[str, ...], mask: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.open("mask.png").resize((40, 30)).save("small.png")
    Image.open("mask.png").transpose(Image.Transpose.ROTATE_90).save("turned.png")
    for name, level in (("black", 0), ("white", 255), ("grey", 90)):
        Image.new("L", (80, 60), level).save(f"{name}.png")
    Image.new("RGBA", (80, 60)).save("clear.png")
    Path("broken.png").write_text("no picture")
    Path("empty.png").touch()
    noise = io.BytesIO()
    Image.effect_noise((80, 60), 90).save(noise, "PNG")
    Path("cut_off.png").write_bytes(noise.getvalue()[:2000])
    Path("folder").mkdir()
    Path("only").mkdir()
    Image.open("mask.png").save("only/mask.png")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert stylize(*words, mask=mask) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("fststyle: error: ")
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("words", [("--elsewhere", "photo"), ("--feather", "3"), ("--feather", "0")])
def test_without_a_mask_its_options_are_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stylize", "photo.png", "--style", "mosaic.safetensors", *words]) == 2
    assert f"error: found {words[0]} {words[1]}" in capsys.readouterr().err


def test_a_mask_of_another_size_than_standard_input_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.open("mask.png").resize((40, 30)).save("small.png")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path("photo.png").read_bytes())))
    assert stylize("-", "-o", "out.png", mask="small.png") == 2
    assert "expected the 80×60 of standard input;" in capsys.readouterr().err
