"""Picture files in and out: decoded, upright, sRGB, at a size, as an image; written whole or not at all."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fststyle.checks import check_path
from fststyle.images import large
from fststyle.images.arrays import MIN_SIDE, resize_pixels, to_8_bits, to_image, to_pixels
from fststyle.images.pillow import (
    MAX_PIXELS,
    Header,
    ImageError,
    Picture,
    TooManyPixelsError,
    check_longest,
    check_pixels,
    open_picture,
    read_header,
    with_heif,
)
from fststyle.images.transparency import filled, visible_box

if TYPE_CHECKING:
    from torch import Tensor

#: Pictures of more pixels are not held in memory where a smaller size is wanted: 96 MiB.
LARGE = 2**25
#: Formats, by Pillow's names, that have transparency, and those that have 16 bits a channel.
WITH_ALPHA = frozenset({"PNG", "WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000"})
WITH_16_BITS = frozenset({"PNG", "TIFF"})
#: Those that carry EXIF.
_WITH_EXIF = frozenset({"JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"})
#: Those that are written.
_FORMATS = frozenset({"JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF", "BMP", "GIF", "PPM", "JPEG2000", "TGA"})
#: How Pillow writes: what loses something, loses little; and nothing takes long for the last percent of a file's size.
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {"compress_level": 1, "compress_type": 3},  # runs alone: results repeat nothing longer; a third of the time
    "WEBP": {"quality": 95, "method": 2},
    "AVIF": {"quality": 90, "speed": 9},
    "HEIF": {"quality": 90},
}


# --- in -----------------------------------------------------------------------------------------------


def read_picture(
    path: str | os.PathLike[str],
    size: int | None = None,
    *,
    keep_16bit: bool = False,
    max_pixels: int | None = None,
    trim: bool = False,
) -> Picture:
    """Read a picture file; hidden pixels (alpha 0) get the colours of visible ones, see ``transparency``.

    Args:
        path: the file.
        size: if given, the longer side is brought to this many pixels. A picture of more than ``LARGE`` pixels is then
            decoded by rows, or at a reduced scale, and may be of any size where that can be done.
        keep_16bit: keep 16 bits a channel, as uint16, where the file has them and libvips is there to read them;
            otherwise every file gives uint8.
        max_pixels: of larger files none is read; None: no more than ``MAX_PIXELS`` are held in memory.
        trim: leave out margins in which all is hidden, before anything else; ``size`` is of what is left.

    Raises:
        ImageError: as ``open_picture``; also when a side is shorter than ``MIN_SIDE`` in the end, or all is hidden.
        TooManyPixelsError: as ``max_pixels`` says.
    """
    header = read_header(path, max_pixels, reduced=size is not None)
    height, width = header.resized(size)
    check_sides(path, height, width, at_size=size is not None, max_pixels=max_pixels)
    deep = header.bits == 16 and large.available()
    if header.height * header.width > LARGE and max(height, width) < max(header.height, header.width):
        pixels = _reduced(path, header, height, width, max_pixels)
    elif deep and (keep_16bit or header.gamma is not None):
        pixels = large.read(path, header, max_pixels)
    else:
        pixels = np.asarray(open_picture(path, max_pixels=max_pixels))
    whole = pixels if keep_16bit else to_8_bits(pixels)
    if whole.shape[2] == 3:
        return Picture(resize_pixels(whole, height, width), exif=header.exif)
    whole = filled(whole, str(path))
    shown = whole[visible_box(whole[..., 3])] if trim else whole
    if shown.shape != whole.shape:
        height, width = replace(header, height=shown.shape[0], width=shown.shape[1]).resized(size)
        check_sides(path, height, width, at_size=size is not None, max_pixels=max_pixels, trimmed=True)
    shown = resize_pixels(shown, height, width)
    return Picture(np.ascontiguousarray(shown[..., :3]), np.ascontiguousarray(shown[..., 3]), header.exif)


def _reduced(
    path: str | os.PathLike[str], header: Header, height: int, width: int, max_pixels: int | None
) -> np.ndarray:
    """A large picture file at a smaller size, or somewhat above; not held whole, where that can be avoided."""
    by_scale = header.format in ("JPEG", "MPO") and header.height >= 4 * height
    if not by_scale and large.decodes(header):
        if not large.has_alpha(path, header):
            return large.resized_by_rows(path, header, height, width, max_pixels)
        visible = large.decoded(path, header, tempfile.gettempdir(), max(height, width), max_pixels)
        return visible.read(0, visible.shape[0])
    try:
        return np.asarray(open_picture(path, draft=2 * min(height, width), max_pixels=max_pixels))
    except TooManyPixelsError as error:
        more = "" if large.available() else "; pip install 'fststyle[large]' reads larger ones by rows"
        raise TooManyPixelsError(f"{error}{more}") from None


def check_sides(
    path: str | os.PathLike[str],
    height: int,
    width: int,
    at_size: bool,
    max_pixels: int | None = None,
    trimmed: bool = False,
) -> None:
    """Raise ``ImageError`` for a picture that is too small to look at, or too large at the size that is wanted."""
    now, most = " at this size" if at_size else "", MAX_PIXELS if max_pixels is None else max_pixels
    now += ", without what is transparent around it" if trimmed else ""
    if min(height, width) < MIN_SIDE:
        raise ImageError(f"{path}: is {width}×{height} pixels{now}; expected at least {MIN_SIDE}×{MIN_SIDE}")
    if not at_size:
        check_pixels(path, height, width, max_pixels)
    elif height * width > most:
        raise TooManyPixelsError(
            f"{path}: would have {width}×{height} pixels{now}; at most {most / 1e6:.4g} million are made"
        )


def check_style_sides(path: str | os.PathLike[str], region: Sequence[float] = (0, 0, 1, 1)) -> None:
    """Raise ``ImageError`` for a style image that only enlarging would make large enough: it holds no style.

    Args:
        path, region: as in ``load_image``.
    """
    header = read_header(path, max_pixels=2**62)
    left, top, right, bottom = region
    check_sides(path, round((bottom - top) * header.height), round((right - left) * header.width), False, 2**62)


def load_image(
    path: str | os.PathLike[str], size: int | None = None, region: Sequence[float] = (0, 0, 1, 1), *, trim: bool = False
) -> Tensor:
    """Read a picture file as an image: float32 (1, 3, H, W) in [0, 1].

    Args:
        path: the file; hidden pixels (alpha 0) get the colours of visible ones, and alpha is dropped.
        size: if given, the longer side of the whole picture is brought to this many pixels.
        region: the part to take: left, top, right and bottom as fractions of width and height.
        trim: leave out margins in which all is hidden, before anything else: for style pictures.

    Raises:
        ImageError: what was found and what was expected.
    """
    pixels = _cropped(path, size, region, trim)
    if pixels.shape[2] == 4:  # what is hidden in the region shows nothing from beyond it
        pixels = filled(pixels, f"{path}: the region {list(region)}")[..., :3]
    return to_image(pixels)


def load_visible(
    path: str | os.PathLike[str], size: int | None = None, region: Sequence[float] = (0, 0, 1, 1), *, trim: bool = False
) -> Tensor | None:
    """Which pixels of ``load_image`` can be seen (alpha above 0): bool (H, W); None: all of them.

    Args:
        path, size, region, trim: as for ``load_image``.

    Raises:
        ImageError: likewise.
    """
    import torch

    pixels = _cropped(path, size, region, trim)
    return None if pixels.shape[2] == 3 else torch.from_numpy(pixels[..., 3] > 0)


def _cropped(path: str | os.PathLike[str], size: int | None, region: Sequence[float], trim: bool) -> np.ndarray:
    """A region of a picture file, uint8 (H, W, 3 or 4)."""
    numbers = [side for side in region if isinstance(side, (int, float)) and 0 <= side <= 1]
    if len(region) != 4 or len(numbers) != 4 or not (region[0] < region[2] and region[1] < region[3]):
        raise ImageError(
            f"{path}: the region is {list(region)}; expected [left, top, right, bottom] as fractions from 0 to 1"
        )
    picture = read_picture(path, size, trim=trim)
    pixels = picture.rgb if picture.alpha is None else np.dstack([picture.rgb, picture.alpha])
    height, width = pixels.shape[:2]
    left, top, right, bottom = (round(side * length) for side, length in zip(region, (width, height) * 2, strict=True))
    check_sides(path, bottom - top, right - left, at_size=True)
    return pixels[top:bottom, left:right]


# --- out ----------------------------------------------------------------------------------------------


def save_image(
    image: Tensor | np.ndarray, path: str | os.PathLike[str], alpha: np.ndarray | None = None, exif: bytes | None = None
) -> None:
    """Write an image (or decoded pixels) to a picture file; the name's ending chooses the format.

    Values outside [0, 1] are clamped. It is written to a temporary file and moved into place, so
    that a broken run leaves either the old file or the whole new one.

    Args:
        image: (1, 3, H, W) or (3, H, W) in [0, 1], or uint8 or uint16 (H, W, 3). What has 16 bits keeps them in
            PNG and TIFF, where libvips is there to write them, and gets 8 otherwise.
        path: the file to write, ``.png``, ``.jpg``, ``.webp``, ``.tif`` and others Pillow knows.
        alpha: of ``image``'s type, (H, W); formats without transparency drop it.
        exif: an EXIF block, as ``Picture`` has it; formats without drop it.

    Raises:
        ImageError: unknown ending, or the folder does not exist or cannot be written.
    """
    pixels = image if isinstance(image, np.ndarray) else to_pixels(image)
    kind = check_ending(path)
    check_longest(path, kind, *pixels.shape[:2])
    alpha = alpha if kind in WITH_ALPHA else None
    if pixels.dtype == np.uint16 and kind in WITH_16_BITS and large.available():
        write_atomically(path, lambda file: large.encode(large.from_array(pixels, alpha), file, kind, exif))
        return
    picture = Image.fromarray(to_8_bits(pixels))
    if alpha is not None:
        picture.putalpha(Image.fromarray(to_8_bits(alpha)))
    options = dict(_OPTIONS.get(kind, {}))
    if exif and kind in _WITH_EXIF:
        options["exif"] = exif
    write_atomically(path, lambda file: picture.save(file, format=kind, **options))


def check_ending(path: str | os.PathLike[str]) -> str:
    """Pillow's name of the format in which ``path`` would be written; ``ImageError`` if there is none."""
    suffix = Path(path).suffix.lower()
    with_heif(suffix)
    known = Image.registered_extensions()
    if known.get(suffix) not in _FORMATS & Image.SAVE.keys():
        raise ImageError(f"{path}: no picture format ends in {suffix or 'nothing'!r}; use .png, .jpg, .webp or .tif")
    return known[suffix]


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], Any]) -> None:
    """Let ``write`` fill a temporary file in ``path``'s folder, then move it into place.

    Raises:
        ImageError: when the folder is missing or cannot be written; nothing is left behind.
    """
    target = Path(os.path.realpath(path))  # a link stays one
    check_writable(target.parent)
    start = os.fsdecode(os.fsencode(target.name)[:200])  # of a name as long as names may be
    temporary = target.parent / f".{start}.{secrets.token_hex(8)}.part"
    try:
        # Created with the permissions that any new file gets, which tempfile's are not.
        with open(temporary, "x+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def existing_part(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(part for part in [path, *path.absolute().parents] if part.exists())


def check_folder(path: object, key: str = "output") -> Path:
    """A folder that is to be written to, there or to be made.

    Args:
        path: as it was given.
        key: what it was given as, for the message.

    Raises:
        ValueError: as ``check_path``; a folder that cannot be made, or takes no files.
    """
    folder = check_path(path, key)
    existing = existing_part(folder)
    if not existing.is_dir():
        raise ImageError(f"{folder}: the folder cannot be made ({existing} is a file); give another {key}")
    check_writable(existing)
    return folder


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Raise ``ImageError`` unless files can be made in ``folder``."""
    if not os.path.isdir(folder):
        raise ImageError(f"{folder}: no such folder to write to")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ImageError(f"{folder}: the folder cannot be written to ({error.strerror})") from None
