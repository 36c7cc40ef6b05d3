"""From file to file, strip by strip, gives what the picture in memory gives, and leaves nothing else behind."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fststyle.cli import main
from fststyle.images import ImageError, large, read_header, read_picture, save_image
from fststyle.inference import StylizeOptions, Stylizer, Upscaler
from fststyle.inference.files import apply_to_file
from fststyle.model_file import save_model_file
from fststyle.networks.superres import SuperResNet
from fststyle.networks.transform import TransformNet
from marks import rest_slow

pytestmark = pytest.mark.skipif(not large.available(), reason="libvips is not there: pip install 'fststyle[large]'")


@pytest.fixture
def stylizer() -> Stylizer:
    torch.manual_seed(0)
    return Stylizer(TransformNet(width=4, residual_blocks=1), device="cpu", precision="float32")


def applied(stylizer: Stylizer, source: Path, target: Path, **options: Any) -> list[float]:
    parts: list[float] = []
    apply_to_file(stylizer, source, target, read_header(source), memory=0, progress=parts.append, **options)
    return parts


LOOKS = [
    StylizeOptions(),
    StylizeOptions(median=True),
    StylizeOptions(strength=0.5),
    StylizeOptions(strength=0),
    StylizeOptions(preserve_color=True, strength=0.8),
    StylizeOptions(style_scale=2),
    StylizeOptions(style_scale=0.5, preserve_color=True),
    StylizeOptions(octaves=2, median=True),
    StylizeOptions(octaves=3, style_scale=0.7, strength=0.9),
]


@pytest.mark.parametrize("options", LOOKS)
@pytest.mark.parametrize("dtype", rest_slow([np.uint8, np.uint16]))
def test_every_look_is_that_of_the_picture_in_memory(
    options: StylizeOptions, dtype: type, tmp_path: Path, stylizer: Stylizer, astronaut: np.ndarray
) -> None:
    pixels = astronaut[:300, :70].astype(dtype) * (257 if dtype == np.uint16 else 1)
    save_image(pixels, tmp_path / "a.png")
    parts = applied(stylizer, tmp_path / "a.png", tmp_path / "b.png", options=options)
    made = read_picture(tmp_path / "b.png", keep_16bit=True).rgb
    assert made.dtype == dtype
    away = np.abs(made.astype(int) - stylizer.pixels(pixels, options))
    assert away.max() <= (1 if dtype == np.uint8 else 257)
    assert sum(parts) == pytest.approx(0 if options.strength == 0 else 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_size_alpha_orientation_and_exif_are_as_in_memory(
    tmp_path: Path, stylizer: Stylizer, astronaut: np.ndarray
) -> None:
    picture, exif = Image.fromarray(astronaut[:80, :120]), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    picture.putalpha(Image.linear_gradient("L").resize((120, 80)))
    picture.save(tmp_path / "a.png", exif=exif)
    applied(stylizer, tmp_path / "a.png", tmp_path / "b.png", size=90)
    wanted, made = read_picture(tmp_path / "a.png", 90), read_picture(tmp_path / "b.png")
    assert made.rgb.shape == (90, 60, 3)
    assert np.abs(made.rgb.astype(int) - stylizer.pixels(wanted.rgb)).max() <= 1
    assert made.alpha is not None
    assert wanted.alpha is not None
    assert np.abs(made.alpha.astype(int) - wanted.alpha).max() <= 1
    with Image.open(tmp_path / "b.png") as written:
        assert written.getexif()[0x010F] == "Maker"
        assert written.getexif().get(0x0112, 1) == 1
    applied(stylizer, tmp_path / "a.png", tmp_path / "c.png", strip_metadata=True)
    with Image.open(tmp_path / "c.png") as written:
        assert 0x010F not in written.getexif()


@pytest.mark.parametrize("scale", [4, 8])
def test_super_resolution_from_file_to_file(scale: int, tmp_path: Path, astronaut: np.ndarray) -> None:
    torch.manual_seed(0)
    network = SuperResNet(scale, width=4, residual_blocks=1)
    nn.init.normal_(network.decode[-1].conv.weight, 0, 0.05)  # type: ignore[union-attr, arg-type]
    upscaler = Upscaler(network, {"network": {"arguments": network.config}}, "cpu", "float32")
    picture = Image.fromarray(astronaut[:40, :50])
    picture.putalpha(Image.linear_gradient("L").resize((50, 40)))
    picture.save(tmp_path / "a.png")
    applied(upscaler, tmp_path / "a.png", tmp_path / "b.tif")
    made = read_picture(tmp_path / "b.tif")
    assert made.alpha is not None
    assert made.alpha.shape == (scale * 40, scale * 50)
    assert np.abs(made.rgb.astype(int) - upscaler.pixels(astronaut[:40, :50])).max() <= 1


@pytest.mark.parametrize("ending", ["jpg", "webp", "tif", "avif"])
def test_every_format_that_is_written_strip_by_strip(
    ending: str, tmp_path: Path, stylizer: Stylizer, astronaut: np.ndarray
) -> None:
    save_image(astronaut[:64, :64], tmp_path / "a.png")
    applied(stylizer, tmp_path / "a.png", tmp_path / f"b.{ending}")
    made = read_picture(tmp_path / f"b.{ending}").rgb
    assert np.abs(made.astype(int) - stylizer.pixels(astronaut[:64, :64])).mean() < 8


def test_what_cannot_be_is_refused_before_work(tmp_path: Path, stylizer: Stylizer, astronaut: np.ndarray) -> None:
    save_image(astronaut[:64, :64], tmp_path / "a.png")
    with pytest.raises(ImageError, match="not written strip by strip"):
        applied(stylizer, tmp_path / "a.png", tmp_path / "b.bmp")
    with pytest.raises(ImageError, match="9×9 pixels at this size"):
        applied(stylizer, tmp_path / "a.png", tmp_path / "b.png", size=9)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("room", ["300k", "900k", "1500k"])
def test_a_full_disk_leaves_nothing(
    room: str, tmp_path: Path, stylizer: Stylizer, astronaut: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real one, of memory: full while it is decoded, and later."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        save_image(np.tile(astronaut[:256, :256], (1, 2, 1)), tmp_path / "a.png")
        save_model_file(
            tmp_path / "mine.safetensors", stylizer.backend.torch_backend.network, {"kind": "style", "name": "mine"}
        )
        words = ["stylize", str(tmp_path / "a.png"), "--style", str(tmp_path / "mine.safetensors"), "--tiles", "exact"]
        assert main([*words, "--backend", "torch", "-o", str(disk / "b.png"), "--memory", "1MB"]) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"fststyle: error: {disk / 'b.png'}: cannot be written (")
        assert told.count("\n") == 1
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_interruption_leaves_nothing(tmp_path: Path, stylizer: Stylizer, astronaut: np.ndarray) -> None:
    save_image(astronaut[:64, :64], tmp_path / "a.png")

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply_to_file(
            stylizer,
            tmp_path / "a.png",
            tmp_path / "b.png",
            read_header(tmp_path / "a.png"),
            memory=0,
            progress=interrupt,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
