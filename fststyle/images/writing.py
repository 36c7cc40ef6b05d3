"""Picture files out: written to a temporary file and moved into place."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fststyle.checks import check_path
from fststyle.images import large
from fststyle.images.arrays import to_8_bits, to_pixels
from fststyle.images.pillow import ImageError, check_longest, with_heif

if TYPE_CHECKING:
    from torch import Tensor

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
