"""Colours of picture files: ICC profiles and PNG's gAMA are converted to sRGB, what cannot be is told."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from PIL import Image, ImageCms

PNG = b"\x89PNG\r\n\x1a\n"
#: The gAMA of sRGB; a picture whose own is nearer than the tolerance is left as it is, as libpng does.
_SRGB_GAMMA, _GAMMA_TOLERANCE = 0.45455, 0.05
#: Primaries and transfer functions of PNG's cICP (ITU-T H.273) that are shown much as sRGB's are; and those of HDR.
_LIKE_SRGB = frozenset({(1, 1), (1, 6), (1, 13), (1, 14), (1, 15)})
_HDR = {16: "PQ", 18: "HLG"}


def to_srgb(picture: Image.Image, profile: bytes | None, gamma: float | None = None) -> Image.Image:
    """A decoded picture of any mode in sRGB, mode RGB or RGBA, given its ICC profile, and its gamma as ``Header``'s."""
    if picture.mode.startswith("I") or picture.mode == "F":  # 16-bit or 32-bit grey
        values = np.asarray(picture, dtype=np.float64)
        most = values.max(initial=0)
        top = 65535.0 if picture.mode.startswith("I;16") or most > 255 else 255.0
        top = 1.0 if picture.mode == "F" and most <= 1 else top
        levels = values / top
        levels = levels if gamma is None else _srgb_levels(levels, gamma)
        grey = Image.fromarray(np.clip(levels * 255, 0, 255).round().astype(np.uint8))
        key, grey = picture.info.get("transparency"), grey.convert("RGB")
        if isinstance(key, int):
            grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
        return grey
    if picture.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in picture.info:
        transparent = picture.mode != "P" or "transparency" in picture.info
        picture = picture.convert("RGBA" if transparent else "RGB")
    if profile:
        picture = _convert_profile(picture, profile)
    picture = picture if picture.mode in ("RGB", "RGBA") else picture.convert("RGB")
    if gamma is None:
        return picture
    levels = gamma_table(gamma, 255).tolist()
    return picture.point(levels * 3 + list(range(256)) * (picture.mode == "RGBA"))


def gamma_table(gamma: float, top: int) -> np.ndarray:
    """For every level up to ``top`` of a picture of a gamma, the level of sRGB; float64 (top + 1,), whole numbers."""
    return np.rint(_srgb_levels(np.arange(top + 1) / top, gamma) * top)


def _srgb_levels(levels: np.ndarray, gamma: float) -> np.ndarray:
    """Levels of a gamma, from 0 to 1, as sRGB's (IEC 61966-2-1)."""
    light = levels**gamma
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _convert_profile(picture: Image.Image, profile: bytes) -> Image.Image:
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        base = picture.convert("RGB") if alpha else picture
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(base, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture  # a profile for another colour space or a broken one: the pixels as they are
    assert converted is not None
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def png_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Name, place of the content and length of every chunk of a PNG file, up to and with the last; the place that the
    file is read from stays.
    """
    place, at, name = file.tell(), len(PNG), b""
    while name != b"IEND":
        file.seek(at)
        head = file.read(8)
        file.seek(place)
        if len(head) < 8:
            return
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        yield name, at + 8, length
        at += 12 + length


def png_chunk(picture: Image.Image, wanted: bytes) -> bytes | None:
    """The content of the first such chunk of a PNG file that is not loaded yet; only EXIF may come after the pixels."""
    file: Any = picture.fp  # type: ignore[attr-defined]
    for name, at, length in png_chunks(file) if file else ():
        if name == b"IDAT" and wanted != b"eXIf":
            return None
        if name == wanted:
            place = file.tell()
            file.seek(at)
            content = file.read(length)
            file.seek(place)
            return bytes(content)
    return None


def gamma_of(picture: Image.Image) -> float | None:
    """What the levels of a PNG file without a profile are to be raised to; None: they are as good as sRGB."""
    if picture.format != "PNG" or {"icc_profile", "srgb"} & picture.info.keys() or png_chunk(picture, b"cICP"):
        return None
    gamma = picture.info.get("gamma", _SRGB_GAMMA)
    if not 0.1 <= gamma <= 5 or abs(gamma / _SRGB_GAMMA - 1) < _GAMMA_TOLERANCE:
        return None
    return 1 / float(gamma)


def lost_colours(picture: Image.Image) -> str | None:
    """What reading a PNG file loses of its colours, in words; None: nothing that is known of."""
    said = png_chunk(picture, b"cICP") if picture.format == "PNG" else None
    if said is None or len(said) < 4:
        return None
    primaries, transfer = said[:2]
    if transfer in _HDR:
        return f"has colours of high dynamic range (cICP, {_HDR[transfer]}); read as sRGB they are pale"
    if (primaries, transfer) in _LIKE_SRGB or "icc_profile" in picture.info:
        return None
    return f"has colours (cICP) of primaries {primaries} and transfer function {transfer}; they are read as sRGB"
