"""Picture files in: every kind that people have, upright, in sRGB, or refused in one line that names them."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from fststyle.images.arrays import MIN_SIDE, to_image
from fststyle.images.sizes import resize_longer_side, resize_pixels

if TYPE_CHECKING:
    from torch import Tensor

#: Pictures of more pixels are refused before they are decoded, unless who asks allows more: Pillow's own limit.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)
#: File name endings that count as pictures when a folder is searched.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".ppm", ".heic", ".heif"}
)
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
#: What EXIF tells of a photograph, not of how its file is laid out.
_KEPT_TAGS = (
    *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.XResolution),
    *(ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit, ExifTags.Base.Software, ExifTags.Base.DateTime),
    *(ExifTags.Base.Artist, ExifTags.Base.Copyright),
)
#: Longest side of the formats that have a limit, by Pillow's names.
LONGEST = {"JPEG": 65535, "WEBP": 16383, "AVIF": 65535, "HEIF": 16384, "GIF": 65535}
_DROPPED_TAGS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, ExifTags.Base.ExifInteroperabilityOffset)
_LIMIT = threading.Lock()


class ImageError(ValueError):
    """A picture that cannot be read, used or written; the message names it, and says why."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright, in sRGB.

    ``rgb`` is uint8 or uint16 (H, W, 3), ``alpha`` of the same type (H, W) where the file has one, ``exif`` what the
    file tells of the photograph, as an EXIF block whose orientation is upright.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    exif: bytes | None = None


@dataclass(frozen=True)
class Header:
    """What a picture file tells before it is decoded.

    ``format`` and ``mode`` are Pillow's, height and width upright, ``bits`` those of a channel.
    """

    format: str
    height: int
    width: int
    bits: int = 8
    mode: str = "RGB"
    orientation: int = 1
    exif: bytes | None = None

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
        max_pixels: of more it is refused before it is decoded; None: ``MAX_PIXELS``.

    Raises:
        ImageError: no such file, no picture, damaged, or beyond ``max_pixels``.
    """
    with _opened(source, max_pixels) as picture, _decoding(source):
        if draft is not None:
            scale = draft / min(picture.size)
            picture.draft(None, (round(picture.width * scale), round(picture.height * scale)))
        picture.load()
        turn = TURNS.get(_orientation(picture))
        profile = picture.info.get("icc_profile")
        return to_srgb(picture if turn is None else picture.transpose(turn), profile)


def read_header(path: str | os.PathLike[str], max_pixels: int | None = None) -> Header:
    """What a picture file tells before it is decoded.

    Raises:
        ImageError: as ``open_picture``, but for damage beyond the header.
    """
    with _opened(path, max_pixels) as picture, _decoding(path):
        bits, orientation = _bits(picture), _orientation(picture)
        # Pillow turns TIFF by itself, and tells its upright size beforehand.
        width, height = picture.size[:: -1 if orientation > 4 and picture.format != "TIFF" else 1]
        return Header(picture.format or "", height, width, bits, picture.mode, orientation, _kept_exif(picture))


def _opened(source: str | os.PathLike[str] | bytes, max_pixels: int | None) -> Image.Image:
    """A picture file, its header read; to be closed.

    Raises:
        ImageError: as ``open_picture``, but for damage beyond the header.
    """
    name = _name(source)
    most = MAX_PIXELS if max_pixels is None else max_pixels
    if not isinstance(source, bytes):
        if not os.path.exists(source):
            raise ImageError(f"{name}: no such file")
        if os.path.isdir(source):
            raise ImageError(f"{name}: is a folder; expected a picture file")
        if not os.path.isfile(source):
            raise ImageError(f"{name}: is a pipe or a device; expected a picture file")
        if os.path.getsize(source) == 0:
            raise ImageError(f"{name}: is empty (0 bytes)")
        with_heif(Path(source).suffix)
    with _decoding(source):
        picture = _pillow(io.BytesIO(source) if isinstance(source, bytes) else source, most)
    if picture.width * picture.height > most:
        picture.close()
        raise ImageError(
            f"{name}: has {picture.width}×{picture.height} pixels; "
            f"at most {most / 1e6:.4g} million are read (--max-pixels)"
        )
    return picture


def _name(source: str | os.PathLike[str] | bytes) -> str:
    return "the picture" if isinstance(source, bytes) else str(source)


@contextlib.contextmanager
def _decoding(source: str | os.PathLike[str] | bytes) -> Iterator[None]:
    """Whatever Pillow's decoders raise within, but for a lack of memory, is an ``ImageError``."""
    name = _name(source)
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: has too many pixels ({error}); scale it down, or raise --max-pixels") from None
    except UnidentifiedImageError:
        wanted = "; pip install 'fststyle[heic]' to read HEIC" if name.lower().endswith((".heic", ".heif")) else ""
        raise ImageError(f"{name}: is not a picture in a known format (JPEG, PNG, WebP, TIFF, …){wanted}") from None
    except Exception as error:  # they raise whatever comes on damaged bytes: struct.error, RuntimeError, …
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ImageError(f"{name}: is damaged and cannot be read ({reason})") from None


def _pillow(file: Any, max_pixels: int) -> Image.Image:
    """``Image.open``, whose own limit is raised where more is allowed."""
    if max_pixels <= MAX_PIXELS:
        return Image.open(file)
    with _LIMIT:  # it is the whole process's
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def with_heif(suffix: str) -> None:
    """Let Pillow read and write HEIC, if that is what ``suffix`` says and pillow-heif is installed."""
    if suffix.lower() in (".heic", ".heif"):
        with contextlib.suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()


def _exif(picture: Image.Image) -> Image.Exif:
    """What EXIF tells. Of a PNG file without, Pillow would decode the whole picture to look for it at the end."""
    known = {"exif", "Raw profile type exif"} & picture.info.keys()
    if picture.format == "PNG" and not known and not _png_has_exif(picture.fp):  # type: ignore[attr-defined]
        return Image.Exif()
    return picture.getexif()


def _png_has_exif(file: IO[bytes] | None) -> bool:
    """Whether there is an EXIF chunk anywhere in a PNG file; True for one that is loaded already."""
    if file is None:
        return True
    place, at, found = file.tell(), 8, b""
    while found not in (b"eXIf", b"IEND"):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            break
        at, found = at + 12 + int.from_bytes(head[:4], "big"), head[4:]
    file.seek(place)
    return found == b"eXIf"


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
    """What EXIF tells of the photograph; entries that cannot be written again are left out."""
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


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """A decoded picture of any mode in sRGB, mode RGB or RGBA; ``profile``: its ICC profile."""
    if picture.mode.startswith("I") or picture.mode == "F":  # 16-bit or 32-bit grey
        values = np.asarray(picture, dtype=np.float64)
        most = values.max(initial=0)
        top = 65535.0 if picture.mode.startswith("I;16") or most > 255 else 255.0
        top = 1.0 if picture.mode == "F" and most <= 1 else top
        grey = Image.fromarray(np.clip(values / top * 255, 0, 255).round().astype(np.uint8))
        return grey.convert("RGB")
    if picture.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in picture.info:
        transparent = picture.mode != "P" or "transparency" in picture.info
        picture = picture.convert("RGBA" if transparent else "RGB")
    if profile:
        picture = _convert_profile(picture, profile)
    return picture if picture.mode in ("RGB", "RGBA") else picture.convert("RGB")


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


def read_picture(
    path: str | os.PathLike[str], size: int | None = None, *, deep: bool = False, max_pixels: int | None = None
) -> Picture:
    """Read a picture file.

    Args:
        path: the file.
        size: if given, the longer side is brought to this many pixels.
        deep: keep 16 bits a channel, as uint16, where the file has them and libvips is there to read them;
            otherwise every file gives uint8.
        max_pixels: as ``open_picture``.

    Raises:
        ImageError: as ``open_picture``; also when a side is shorter than ``MIN_SIDE`` in the end.
    """
    header = read_header(path, max_pixels)
    check_sides(path, *header.resized(size), at_size=size is not None, max_pixels=max_pixels)
    if deep and header.bits == 16:
        from fststyle.images import large

        if large.available():
            pixels = resize_pixels(large.read(path, header), *header.resized(size))
            return Picture(*_split(pixels), header.exif)
    picture = open_picture(path, max_pixels=max_pixels)
    if size is not None:
        picture = resize_longer_side(picture, size)
    return Picture(*_split(np.asarray(picture)), header.exif)


def _split(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """RGB and alpha, if there is one."""
    if pixels.shape[2] == 3:
        return pixels, None
    return np.ascontiguousarray(pixels[:, :, :3]), np.ascontiguousarray(pixels[:, :, 3])


def check_sides(
    path: str | os.PathLike[str], height: int, width: int, at_size: bool, max_pixels: int | None = None
) -> None:
    """Raise ``ImageError`` for a picture that is too small to look at, or too large at the size that is wanted."""
    now, most = " at this size" if at_size else "", MAX_PIXELS if max_pixels is None else max_pixels
    if min(height, width) < MIN_SIDE:
        raise ImageError(f"{path}: is {width}×{height} pixels{now}; expected at least {MIN_SIDE}×{MIN_SIDE}")
    if at_size and height * width > most:
        raise ImageError(
            f"{path}: would have {width}×{height} pixels{now}; at most {most / 1e6:.4g} million are made (--max-pixels)"
        )


def check_longest(path: str | os.PathLike[str], kind: str, height: int, width: int) -> None:
    """Raise ``ImageError`` for a result that its format, by Pillow's name, does not take."""
    longest = LONGEST.get(kind)
    if longest and max(height, width) > longest:
        raise ImageError(
            f"{path}: would have {width}×{height} pixels; {kind} takes at most {longest} a side; use .tif or .png"
        )


def load_image(path: str | os.PathLike[str], size: int | None = None, region: Sequence[float] = (0, 0, 1, 1)) -> Tensor:
    """Read a picture file as an image: float32 (1, 3, H, W) in [0, 1].

    Args:
        path: the file; transparency is ignored.
        size: if given, the longer side of the whole picture is brought to this many pixels.
        region: the part to take: left, top, right and bottom as fractions of width and height.

    Raises:
        ImageError: what was found and what was expected.
    """
    rgb = read_picture(path, size).rgb
    numbers = [side for side in region if isinstance(side, (int, float)) and 0 <= side <= 1]
    if len(region) != 4 or len(numbers) != 4 or not (region[0] < region[2] and region[1] < region[3]):
        raise ImageError(
            f"{path}: the region is {list(region)}; expected [left, top, right, bottom] as fractions from 0 to 1"
        )
    height, width = rgb.shape[:2]
    left, top, right, bottom = (round(side * length) for side, length in zip(region, (width, height) * 2, strict=True))
    check_sides(path, bottom - top, right - left, at_size=True)
    return to_image(rgb[top:bottom, left:right])


def find_pictures(path: str | os.PathLike[str], *, recursive: bool = True) -> list[Path]:
    """The picture files in a folder, by name ending, sorted, but for hidden ones; with ``recursive`` those in its
    sub-folders too.

    Raises:
        ImageError: not a folder, or no picture in it.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ImageError(f"{path}: is not a folder; expected a folder of pictures")
    entries = folder.rglob("*") if recursive else folder.iterdir()
    seen = (p for p in entries if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    found = sorted(p for p in seen if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise ImageError(f"{path}: has no pictures in it (looked for {', '.join(sorted(SUFFIXES))})")
    return found
