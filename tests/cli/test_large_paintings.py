"""A scan of 20,000 × 10,000 pixels as style, in every command that takes one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import SMALL as RUN
from fststyle.cli import main
from fststyle.images import TooManyPixelsError, files, large, pillow, read_picture, save_image

#: Of an encoder and a calibration that take no time.
SMALL = ("encoder=random", "encoder.widths=[4,4,4,4,4]", "calibration_photographs=4", "data.size=32")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG of more pixels than are ever decoded whole."""
    path = tmp_path_factory.mktemp("scan") / "scan.jpg"
    Image.radial_gradient("L").resize((20000, 10000), Image.Resampling.NEAREST).save(path, quality=50)
    return path


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: np.ndarray) -> None:
    monkeypatch.chdir(tmp_path)
    save_image(astronaut[:384:6, ::8].copy(), "photo.png")


def test_optimize_takes_it_and_its_region(scan: Path) -> None:
    words = ["content=photo.png", f"style.image={scan}", "size=48", "style.size=200", "style.region=[0,0,0.5,0.8]"]
    assert main(["optimize", *SMALL, *words, "iterations=2", "device=cpu"]) == 0
    assert Path("photo_scan.png").is_file()


def test_train_takes_it(scan: Path, photographs: Path) -> None:
    words = [f"style.image={scan}", "style.size=96", "data=folder", f"data.source.path={photographs}", "steps=1"]
    assert main(["train", *RUN, *words, "output=run"]) == 0
    assert Path("run/scan.safetensors").is_file()


def test_preview_takes_it(scan: Path) -> None:
    words = ["size=48", "iterations=10", "factors=[1]", "style_sizes=[64]", "output=sheet"]
    assert main(["preview", "photo.png", f"style.image={scan}", *words]) == 0
    assert Path("sheet/index.html").is_file()


def test_compare_shows_it(scan: Path) -> None:
    words = ["--size", "48", "--iterations", "1", "--style-image", str(scan), "-o", "page"]
    assert main(["compare", "photo.png", "--style", "wave", *words]) == 0


@pytest.mark.slow
def test_evaluate_style_takes_it_in_every_role(scan: Path, astronaut: np.ndarray) -> None:
    save_image(astronaut, "astronaut.jpg")
    words = ["--painting", str(scan), "--photo", "astronaut.jpg", "--result", str(scan)]
    assert main(["evaluate", "style", *words]) == 0


def test_swap_takes_it_and_says_at_what_size(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["swap", "photo.png", "--style-image", str(scan), "--style-size", "64", "-o", "a.png"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["swap", "photo.png", "--style-image", str(scan), "-o", "b.png"]) == 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith("has 20000×10000 pixels; at most 179 million are read; it is brought to 1024 (--style-size)")


def test_swap_names_no_option_that_it_does_not_have(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["swap", str(scan), "--style-image", "photo.png", "-o", "a.png"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "has 20000×10000 pixels; at most 179 million are read" in line
    assert "--max-pixels" not in line


def test_stylize_takes_it_at_a_size_and_else_names_the_option(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["stylize", str(scan), "--style", "wave", "--backend", "torch", "-o", "a.png"]
    assert main([*words, "--size", "64"]) == 0
    assert main(words) == 2
    assert "at most 179 million are read (--max-pixels)" in capsys.readouterr().err


# --- of every kind, where a smaller picture counts as large -----------------------------------------------

HEIGHT, WIDTH = 200, 400


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


#: A file's name, the mode of its picture, and how it is written.
SCANS: dict[str, tuple[str, dict[str, object]]] = {
    "baseline.jpg": ("RGB", {}),
    "progressive.jpg": ("RGB", {"progressive": True}),
    "cmyk.jpg": ("CMYK", {}),
    "grey.jpg": ("L", {}),
    "turned.jpg": ("RGB", {"exif": exif(6)}),
    "several.mpo": ("RGB", {"save_all": True, "append_images": [Image.new("RGB", (50, 50))]}),
    "plain.png": ("RGB", {}),
    "grey.png": ("L", {}),
    "palette.png": ("P", {}),
    "bits.png": ("1", {}),
    "turned.png": ("RGB", {"exif": exif(6)}),
    "plain.tif": ("RGB", {}),
    "lzw.tif": ("RGB", {"compression": "tiff_lzw"}),
    "jpeg.tif": ("RGB", {"compression": "jpeg"}),
    "fax.tif": ("1", {"compression": "group4"}),
    "cmyk.tif": ("CMYK", {}),
    "big.tif": ("RGB", {"big_tiff": True}),
    "pages.tif": ("RGB", {"save_all": True, "append_images": [Image.new("RGB", (50, 50))]}),
    "a.webp": ("RGB", {"quality": 95}),
}
UNREDUCED = ["a.gif", "a.bmp", "a.ppm", "a.tga", "a.jp2"]


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than 50,000 pixels none is decoded whole, of more than 20,000 none where less is wanted."""
    for module in (pillow, files):
        monkeypatch.setattr(module, "MAX_PIXELS", 50_000)
    monkeypatch.setattr(files, "LARGE", 20_000)


def scanned(name: str, astronaut: np.ndarray) -> Image.Image:
    mode, options = SCANS.get(name, ("RGB", {}))
    picture = Image.fromarray(astronaut[:HEIGHT, :WIDTH]).convert(mode)
    picture.save(name, **options)  # type: ignore[arg-type]
    shown = picture.convert("RGB")
    return shown.transpose(Image.Transpose.ROTATE_270) if "exif" in options else shown


@pytest.mark.usefixtures("small_limit")
@pytest.mark.skipif(not large.available(), reason="libvips is not there: pip install 'fststyle[large]'")
@pytest.mark.parametrize("name", SCANS)
def test_a_scan_of_any_kind_is_read_at_the_size_that_is_needed(name: str, astronaut: np.ndarray) -> None:
    shown = scanned(name, astronaut)
    found = read_picture(name, 100).rgb
    wanted = np.asarray(shown.resize(found.shape[1::-1], Image.Resampling.LANCZOS)).astype(int)
    assert max(found.shape) == 100
    assert np.abs(found - wanted).mean() < 4
    with pytest.raises(TooManyPixelsError, match=r"at most 0\.05 million are read"):
        read_picture(name)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("name", UNREDUCED)
def test_what_can_only_be_decoded_whole_is_refused_in_one_line(
    name: str, astronaut: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    scanned(name, astronaut)
    assert main(["swap", "photo.png", "--style-image", name, "--style-size", "64", "-o", "out.png"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fststyle: error: {name}: has 400×200 pixels; at most 0.05 million are read")
    assert "--" not in line


@pytest.mark.usefixtures("small_limit")
@pytest.mark.skipif(not large.available(), reason="libvips is not there: pip install 'fststyle[large]'")
def test_a_large_scan_with_a_hole_hides_its_colours(astronaut: np.ndarray) -> None:
    alpha, found = np.full((HEIGHT, WIDTH), 255, np.uint8), []
    alpha[50:150, 100:300], alpha[:, 380:] = 0, 0
    for colour in (0, 255):
        rgb = np.where(alpha[..., None] > 0, astronaut[:HEIGHT, :WIDTH], colour).astype(np.uint8)
        save_image(rgb, "hole.png", alpha)
        found.append(read_picture("hole.png", 100, trim=True).rgb)
    assert np.array_equal(*found)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("shape", [(60, 2000), (2000, 60)])
def test_a_strip_that_would_be_too_thin_is_refused(shape: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    Image.radial_gradient("L").resize(shape).save("strip.png")
    assert main(["swap", "photo.png", "--style-image", "strip.png", "--style-size", "64", "-o", "out.png"]) == 2
    assert "pixels at this size; expected at least 16×16" in capsys.readouterr().err
