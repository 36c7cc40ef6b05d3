"""Picture files as Pillow reads them: headers, EXIF, colour profiles, and what is refused."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from fststyle.checks import absent
from fststyle.images.containers import mended
from fststyle.images.profiles import gamma_of, lost_colours, png_chunk, to_srgb

log = logging.getLogger(__name__)

#: Pictures of more pixels are refused before they are decoded, unless who asks allows more: Pillow's own limit.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)
#: And this many where they are not held, but reduced as they are decoded: some minutes.
MAX_REDUCED = 16 * MAX_PIXELS
#: EXIF orientations that are not upright, and what sets them so.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: What EXIF says of a photograph, not of how its file is laid out.
_KEPT_TAGS = (
    *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.XResolution),
    *(ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit, ExifTags.Base.Software, ExifTags.Base.DateTime),
    *(ExifTags.Base.Artist, ExifTags.Base.Copyright),
)
#: Longest side of the formats that have a limit, by Pillow's names.
LONGEST = {"JPEG": 65535, "WEBP": 16383, "AVIF": 65535, "HEIF": 16384, "GIF": 65535}
_DROPPED_TAGS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, ExifTags.Base.ExifInteroperabilityOffset)
#: What chunks of a PNG file say of its pixels, which they have to do before them.
_BEFORE_PIXELS = ("transparency", "icc_profile")
_LIMIT = threading.Lock()
#: Under which Pillow's ``info`` says what was wrong with a container.
_MENDED = "mended"


class ImageError(ValueError):
    """A picture that cannot be read, used or written; the message names it, and says why."""


class TooManyPixelsError(ImageError):
    """A picture that is larger than is allowed."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright, in sRGB.

    ``rgb`` is uint8 or uint16 (H, W, 3), ``alpha`` of the same type (H, W) where the file has one, ``exif`` what the
    file says of the photograph, as an EXIF block whose orientation is upright.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    exif: bytes | None = None


@dataclass(frozen=True)
class Header:
    """What a picture file's header says.

    ``format`` and ``mode`` are Pillow's, height and width upright, ``bits`` those of a channel, ``gamma`` what its
    levels are to be raised to so that they are proportional to light, ``lost`` what reading cannot keep.
    """

    format: str
    height: int
    width: int
    bits: int = 8
    mode: str = "RGB"
    orientation: int = 1
    exif: bytes | None = None
    gamma: float | None = None
    lost: str | None = None

    def resized(self, size: int | None) -> tuple[int, int]:
        """Height and width once the longer side has ``size`` pixels; as they are for None."""
        factor = 1.0 if size is None else size / max(self.height, self.width)
        return max(1, round(self.height * factor)), max(1, round(self.width * factor))


# --- reading -----------------------------------------------------------------------------------


def open_picture(
    source: str | os.PathLike[str] | bytes, *, draft: int | None = None, max_pixels: int | None = None
) -> Image.Image:
    """Open and decode a picture file: upright, in sRGB, mode RGB or RGBA.

    EXIF orientation is applied, an ICC profile converted to sRGB; grey, palette, CMYK and 16-bit
    files become RGB, animations give their first frame.

    Args:
        source: a path, or the file's bytes.
        draft: if given, a JPEG may be decoded at a reduced scale (1/2, 1/4, 1/8) as long as its
            shorter side stays at least this long: several times faster for training.
        max_pixels: of more, as it is decoded, it is refused; None: ``MAX_PIXELS``.

    What is wrong with the file around its pixels is set right and logged as a warning.

    Raises:
        ImageError: no such file, no picture, or damaged.
        TooManyPixelsError: beyond ``max_pixels``.
    """
    name = _name(source)
    try:
        return _decoded(_opened(source, name, max_pixels), name, draft, max_pixels)
    except ImageError as error:
        found = None if isinstance(error, TooManyPixelsError) else _mended(source, max_pixels)
        if found is None:
            raise
    return _decoded(found, name, draft, max_pixels)


def _decoded(picture: Image.Image, name: str, draft: int | None, max_pixels: int | None) -> Image.Image:
    with picture, _decoding(name):
        if draft is not None:
            scale = draft / min(picture.size)
            picture.draft(None, (round(picture.width * scale), round(picture.height * scale)))
        key = picture.info.get("transparency")
        if isinstance(key, tuple) and _bits(picture) == 16:  # of 16 bits a colour channel Pillow reads the upper 8
            picture.info["transparency"] = tuple(level >> 8 for level in key)
        check_pixels(name, picture.height, picture.width, max_pixels)
        gamma, lost = gamma_of(picture), picture.info.get(_MENDED) or lost_colours(picture)
        said: dict[Any, Any] = {key: picture.info[key] for key in _BEFORE_PIXELS if key in picture.info}
        if picture.format == "TIFF":  # what Pillow maps into memory it turns wrongly
            picture.filename = ""  # type: ignore[attr-defined]
        picture.load()
        if picture.format == "PNG":  # Pillow takes them from chunks after the pixels, too, where they mean nothing
            for key in _BEFORE_PIXELS:
                picture.info.pop(key, None)
            picture.info.update(said)
        if lost:
            warn(name, lost)
        turn = TURNS.get(_orientation(picture))
        profile = picture.info.get("icc_profile")
        return to_srgb(picture if turn is None else picture.transpose(turn), profile, gamma)


def read_header(path: str | os.PathLike[str], max_pixels: int | None = None, *, reduced: bool = False) -> Header:
    """What a picture file's header says.

    Args:
        path: the file.
        max_pixels: of more it is refused; None: ``MAX_PIXELS``.
        reduced: without ``max_pixels``, of more than ``MAX_REDUCED``, for what is decoded at a smaller size.

    Raises:
        ImageError, TooManyPixelsError: as ``open_picture``, but for damage beyond the header.
    """
    with _opened(path, str(path), max_pixels) as picture, _decoding(str(path)):
        most = MAX_REDUCED if reduced and max_pixels is None else max_pixels
        check_pixels(path, picture.height, picture.width, most)
        bits, orientation = _bits(picture), _orientation(picture)
        # Pillow turns TIFF by itself, and gives its upright size beforehand.
        width, height = picture.size[:: -1 if orientation > 4 and picture.format != "TIFF" else 1]
        kind, mode = picture.format or "", picture.mode
        gamma, lost = gamma_of(picture), picture.info.get(_MENDED) or lost_colours(picture)
        return Header(kind, height, width, bits, mode, orientation, _kept_exif(picture), gamma, lost)


def check_pixels(path: str | os.PathLike[str], height: int, width: int, max_pixels: int | None = None) -> None:
    """Raise ``TooManyPixelsError`` for a picture that is too large to be decoded."""
    most = MAX_PIXELS if max_pixels is None else max_pixels
    if height * width > most:
        raise TooManyPixelsError(f"{path}: has {width}×{height} pixels; at most {most / 1e6:.4g} million are read")


@functools.lru_cache(4096)
def warn(name: str, lost: str) -> None:
    """Log, once, what of a picture cannot be kept."""
    log.warning("warning: %s: %s", name, lost)


def _opened(source: str | os.PathLike[str] | bytes, name: str, max_pixels: int | None) -> Image.Image:
    """A picture file, its header read; to be closed.

    Raises:
        ImageError: as ``open_picture``, but for damage beyond the header.
    """
    if not isinstance(source, bytes):
        check_file(source)
        if os.path.getsize(source) == 0:
            raise ImageError(f"{name}: is empty (0 bytes)")
        with_heif(Path(source).suffix)
    try:
        with _decoding(name):
            picture = _pillow(io.BytesIO(source) if isinstance(source, bytes) else source)
    except ImageError:
        found = _mended(source, max_pixels)
        if found is None:
            raise
        return found
    if picture.format == "GIF" and not 0 < picture.width * picture.height <= (max_pixels or MAX_PIXELS):
        picture, screen = _mended(source, max_pixels) or picture, picture
        if picture is not screen:
            screen.close()
    return picture


def _mended(source: str | os.PathLike[str] | bytes, max_pixels: int | None) -> Image.Image | None:
    """A picture file with its container set right, its header read; None where that cannot be."""
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        found = mended(data, max_pixels or MAX_PIXELS)
        picture = _pillow(io.BytesIO(found[0])) if found else None
    except MemoryError:
        raise
    except Exception:  # whatever decoders raise on damaged bytes
        return None
    if found and picture:
        picture.info[_MENDED] = found[1]
    return picture


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise ``ImageError`` for what is no file that can be read; nothing is opened, which would wait for a pipe."""
    if os.path.islink(path) and not os.path.exists(path):
        raise ImageError(f"{path}: is a broken link (to {os.readlink(path)})")
    if not os.path.exists(path):
        raise ImageError(absent(path))
    if os.path.isdir(path):
        raise ImageError(f"{path}: is a folder; expected a picture file")
    if not os.path.isfile(path):
        kind = "a socket" if stat.S_ISSOCK(os.stat(path).st_mode) else "a pipe or a device"
        raise ImageError(f"{path}: is {kind}; expected a picture file")
    if not os.access(path, os.R_OK):
        raise ImageError(f"{path}: cannot be read (permission denied)")


def _name(source: str | os.PathLike[str] | bytes) -> str:
    return "the picture" if isinstance(source, bytes) else str(source)


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Whatever Pillow's decoders raise within, but for a lack of memory, is an ``ImageError``."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(f"{name}: has too many pixels ({error})") from None
    except UnidentifiedImageError:
        wanted = "; pip install 'fststyle[heic]' to read HEIC" if name.lower().endswith((".heic", ".heif")) else ""
        raise ImageError(f"{name}: is not a picture in a known format (JPEG, PNG, WebP, TIFF, …){wanted}") from None
    except Exception as error:  # they raise whatever comes on damaged bytes: struct.error, RuntimeError, …
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ImageError(f"{name}: is damaged and cannot be read ({reason})") from None


def _pillow(file: Any) -> Image.Image:
    """``Image.open`` without its limits: ours is for what is decoded, which may be a reduced picture; text and profiles
    may be as long as all text together.
    """
    with _LIMIT:  # they are the whole process's
        usual = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, PngImagePlugin.MAX_TEXT_MEMORY
        try:
            picture = Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = usual
    if picture.format == "EPS":  # a program, which Ghostscript would run
        picture.close()
        raise UnidentifiedImageError
    return picture


def with_heif(suffix: str) -> None:
    """Let Pillow read and write HEIC, if that is what ``suffix`` says and pillow-heif is installed."""
    if suffix.lower() in (".heic", ".heif"):
        with contextlib.suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()


def _exif(picture: Image.Image) -> Image.Exif:
    """A picture's EXIF. Of a PNG file without, Pillow would decode the whole picture to look for it at the end."""
    known = {"exif", "Raw profile type exif"} & picture.info.keys()
    if picture.format == "PNG" and not known and png_chunk(picture, b"eXIf") is None:
        return Image.Exif()
    return picture.getexif()


def _orientation(picture: Image.Image) -> int:
    try:
        return int(_exif(picture).get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse a sound picture
        return 1


def _bits(picture: Image.Image) -> int:
    """16 for PNG and TIFF files that have so many a channel, else 8."""
    if picture.format == "PNG":
        tiles = picture.tile  # type: ignore[attr-defined]
        return 16 if any("16" in str(tile[3]) for tile in tiles) else 8
    if picture.format == "TIFF":
        bits = picture.tag_v2.get(ExifTags.Base.BitsPerSample, (8,))  # type: ignore[attr-defined]
        form = picture.tag_v2.get(ExifTags.Base.SampleFormat, (1,))  # type: ignore[attr-defined]
        return 16 if set(bits) == {16} and set(form) == {1} and picture.mode != "CMYK" else 8
    return 8


def _kept_exif(picture: Image.Image) -> bytes | None:
    """The EXIF entries about the photograph; those that cannot be written again are left out."""
    kept = Image.Exif()
    try:
        found = _exif(picture)
        for tag in _KEPT_TAGS:
            if tag in found:
                _keep(kept, tag, found[tag])
        for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            entries = {tag: value for tag, value in found.get_ifd(part).items() if tag not in _DROPPED_TAGS}
            if part == ExifTags.IFD.Exif and (entries or len(kept)):
                entries[ExifTags.Base.ColorSpace] = 1  # sRGB
            if entries and not _keep(kept, part, entries):
                _keep(kept, part, {tag: value for tag, value in entries.items() if _keep(Image.Exif(), tag, value)})
        return kept.tobytes() if len(kept) else None
    except Exception:  # damaged: the picture matters more
        return None


def _keep(exif: Image.Exif, tag: int, value: Any) -> bool:
    """Put an entry in, if it can be written."""
    exif[tag] = value
    try:
        exif.tobytes()
    except Exception:  # of a type that the standard does not give it
        del exif[tag]
        return False
    return True


def check_longest(path: str | os.PathLike[str], kind: str, height: int, width: int) -> None:
    """Raise ``ImageError`` for a result that its format, by Pillow's name, does not take."""
    longest = LONGEST.get(kind)
    if longest and max(height, width) > longest:
        raise ImageError(
            f"{path}: would have {width}×{height} pixels; {kind} takes at most {longest} a side; use .tif or .png"
        )
