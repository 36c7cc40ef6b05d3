"""PNG's colours: gAMA is converted to sRGB, cICP is warned about."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from fststyle.images import large, open_picture, read_header, read_picture, save_image


def with_chunks(data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    made = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return data[:33] + made + data[33:]


def gamma(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100000))


def ramp(mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (16, 1))).convert(mode)
    if mode == "RGBA":
        picture.putalpha(99)
    picture.save(file, "PNG", **options)
    return file.getvalue()


def levels(data: bytes) -> np.ndarray:
    return np.asarray(open_picture(data))[0, :, 0].astype(int)


@pytest.mark.parametrize(
    ("value", "level", "wanted"),
    [
        (1.0, 128, 188),  # light in proportion: 0.502 is 0.7364 in sRGB
        (1.0, 1, 13),
        (0.55556, 128, 146),  # 0.502 ** 1.8 = 0.2892, in sRGB 0.5741
        (1.0, 255, 255),
        (1.0, 0, 0),
    ],
)
def test_gamma_is_converted_to_srgb(value: float, level: int, wanted: int) -> None:
    assert levels(with_chunks(ramp(), gamma(value)))[level] == wanted


@pytest.mark.parametrize("value", [0.45455, 0.45, 0.46, 0, 1e-5, 42949])
def test_the_usual_gamma_and_one_that_cannot_be_meant_change_nothing(value: float) -> None:
    assert np.array_equal(levels(with_chunks(ramp(), gamma(value))), np.arange(256))


def test_a_profile_and_the_srgb_chunk_come_before_gamma() -> None:
    assert np.array_equal(levels(with_chunks(ramp(), (b"sRGB", b"\0"), gamma(1))), np.arange(256))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.abs(levels(with_chunks(ramp(icc_profile=profile), gamma(1))) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "LA", "RGBA", "I;16", "deep"])
def test_both_readers_agree_on_gamma(mode: str, tmp_path: Path) -> None:
    if not large.available():
        pytest.skip("libvips is not there: pip install 'fststyle[large]'")
    path, file = tmp_path / "a.png", io.BytesIO()
    fine = np.tile(np.arange(256, dtype=np.uint16) * 257, (16, 1))
    if mode == "deep":
        save_image(np.dstack([fine] * 3), path)
        data = path.read_bytes()
    elif mode == "I;16":
        Image.fromarray(fine).save(file, "PNG")
        data = file.getvalue()
    else:
        data = ramp(mode)
    path.write_bytes(with_chunks(data, gamma(1)))
    picture, header = read_picture(path), read_header(path)
    assert header.gamma == 1
    stored = large.decoded(path, header, tmp_path)
    found = stored.read(0, 16) / (257 if stored.dtype == np.uint16 else 1)
    assert np.abs(found[..., :3] - picture.rgb).max() <= 1
    assert picture.rgb[0, 128, 0] == 188
    if mode == "RGBA":
        assert picture.alpha is not None
        assert set(picture.alpha.ravel()) == {99}
        assert set(found[..., 3].ravel()) == {99}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bytes([9, 16, 0, 1]), "high dynamic range (cICP, PQ)"),
        (bytes([9, 18, 0, 1]), "high dynamic range (cICP, HLG)"),
        (bytes([12, 13, 0, 1]), "primaries 12 and transfer function 13"),
        (bytes([1, 8, 0, 1]), "primaries 1 and transfer function 8"),
        (bytes([1, 13, 0, 1]), None),
        (b"\1", None),
    ],
)
def test_other_colours_are_warned_about_in_one_line(
    content: bytes, said: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(with_chunks(ramp(), (b"cICP", content), gamma(1)))
    ways = [lambda: read_picture(path)]
    if large.available():
        ways.append(lambda: large.decoded(path, read_header(path), tmp_path))  # type: ignore[arg-type, return-value]
    for read in ways:
        from fststyle.images.pillow import warn

        warn.cache_clear()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            read()
        lines = [record.getMessage() for record in caplog.records]
        assert [f"{path}: " in line and str(said) in line for line in lines] == [True] * (said is not None)


def test_a_warning_comes_once_for_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.png").write_bytes(with_chunks(ramp(), (b"cICP", bytes([9, 16, 0, 1]))))
    for _ in range(3):
        read_picture(tmp_path / "a.png")
    assert len(caplog.records) == 1
