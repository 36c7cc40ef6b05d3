"""The one image contract, and the way between it and picture files.

Between modules an image is a float32 tensor of shape (B, 3, H, W), RGB, values in [0, 1]. This
file reads and writes picture files as 8-bit numpy arrays and imports torch only to make a tensor,
so that whoever needs no torch does not load it.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

if TYPE_CHECKING:
    from torch import Tensor

#: Shorter sides than this leave nothing to look at after two strides of 2 and are refused.
MIN_SIDE = 16
#: Pictures of more pixels are refused before they are decoded: Pillow's own limit, 179 million.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)
#: File name endings that count as pictures when a folder is searched.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".ppm"})
#: EXIF orientations that are not upright, and what sets them so.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """A picture that cannot be read, used or written; the message names it, and says why."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture: ``rgb`` uint8 (H, W, 3), ``alpha`` uint8 (H, W) where the file has one."""

    rgb: np.ndarray
    alpha: np.ndarray | None = None


# --- reading -----------------------------------------------------------------------------------


def open_picture(source: str | os.PathLike[str] | bytes, *, draft: int | None = None) -> Image.Image:
    """Open and decode a picture file: upright, in sRGB, mode RGB or RGBA.

    EXIF orientation is applied, an ICC profile converted to sRGB; grey, palette, CMYK and 16-bit
    files become RGB, animations give their first frame.

    Args:
        source: a path, or the file's bytes.
        draft: if given, a JPEG may be decoded at a reduced scale (1/2, 1/4, 1/8) as long as its
            shorter side stays at least this long: several times faster for training.

    Raises:
        ImageError: no such file, no picture, damaged, or beyond ``MAX_PIXELS``.
    """
    name = "the picture" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes):
        if not os.path.exists(source):
            raise ImageError(f"{name}: no such file")
        if os.path.isdir(source):
            raise ImageError(f"{name}: is a folder; expected a picture file")
        if os.path.getsize(source) == 0:
            raise ImageError(f"{name}: is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's hints on odd metadata are none of the user's business
            picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
            with picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ImageError(
                        f"{name}: has {picture.width}×{picture.height} pixels; "
                        f"at most {MAX_PIXELS / 1e6:.0f} million are read"
                    )
                if draft is not None:
                    scale = draft / min(picture.size)
                    picture.draft(None, (round(picture.width * scale), round(picture.height * scale)))
                picture.load()
                return _to_srgb(_upright(picture))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: has too many pixels ({error}); scale it down first") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: is not a picture in a known format (JPEG, PNG, WebP, TIFF, …)") from None
    except Exception as error:  # Pillow's decoders raise whatever comes on damaged bytes: struct.error, RuntimeError, …
        raise ImageError(f"{name}: is damaged and cannot be read ({str(error) or type(error).__name__})") from None


def _upright(picture: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse a sound picture
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _to_srgb(picture: Image.Image) -> Image.Image:
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I") or picture.mode == "F":  # 16-bit or 32-bit grey
        values = np.asarray(picture, dtype=np.float64)
        top = 65535.0 if picture.mode.startswith("I;16") or values.max(initial=0) > 255 else 255.0
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


def read_picture(path: str | os.PathLike[str], size: int | None = None) -> Picture:
    """Read a picture file.

    Args:
        path: the file.
        size: if given, the longer side is brought to this many pixels.

    Raises:
        ImageError: as ``open_picture``; also when a side is shorter than ``MIN_SIDE`` in the end.
    """
    picture = open_picture(path)
    if size is not None:
        picture = resize_longer_side(picture, size)
    if min(picture.size) < MIN_SIDE:
        raise ImageError(
            f"{path}: is {picture.width}×{picture.height} pixels{' at this size' if size else ''}; "
            f"expected at least {MIN_SIDE}×{MIN_SIDE}"
        )
    pixels = np.asarray(picture)
    if picture.mode == "RGBA":
        return Picture(np.ascontiguousarray(pixels[:, :, :3]), np.ascontiguousarray(pixels[:, :, 3]))
    return Picture(pixels)


def resize_longer_side(picture: Image.Image, size: int) -> Image.Image:
    """Bring the longer side to ``size`` pixels (Lanczos), keeping the proportions."""
    return _scale(picture, size / max(picture.size))


def resize_shorter_side(picture: Image.Image, size: int) -> Image.Image:
    """Bring the shorter side to ``size`` pixels (Lanczos), keeping the proportions."""
    return _scale(picture, size / min(picture.size))


def _scale(picture: Image.Image, factor: float) -> Image.Image:
    width, height = (max(1, round(side * factor)) for side in picture.size)
    if (width, height) == picture.size:
        return picture
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def load_image(path: str | os.PathLike[str], size: int | None = None) -> Tensor:
    """Read a picture file as an image: float32 (1, 3, H, W) in [0, 1].

    Args:
        path: the file; transparency is ignored.
        size: if given, the longer side is brought to this many pixels.

    Raises:
        ImageError: what was found and what was expected.
    """
    return to_image(read_picture(path, size).rgb)


def find_pictures(path: str | os.PathLike[str], *, recursive: bool = True) -> list[Path]:
    """The picture files in a folder, by name ending, sorted; with ``recursive`` those in its sub-folders too.

    Raises:
        ImageError: not a folder, or no picture in it.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ImageError(f"{path}: is not a folder; expected a folder of pictures")
    entries = folder.rglob("*") if recursive else folder.iterdir()
    found = sorted(p for p in entries if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise ImageError(f"{path}: has no pictures in it (looked for {', '.join(sorted(SUFFIXES))})")
    return found


# --- between arrays and images -----------------------------------------------------------------


def to_image(rgb: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) to an image, float32 (1, 3, H, W) in [0, 1]."""
    import torch

    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float().div(255)


def to_pixels(image: Tensor) -> np.ndarray:
    """An image (1, 3, H, W) or (3, H, W) to uint8 (H, W, 3): clamped to [0, 1] and rounded."""
    if image.dim() == 4:
        if image.shape[0] != 1:
            raise ValueError(f"found a batch of {image.shape[0]} images; expected one")
        image = image[0]
    levels = image.detach().float().clamp(0, 1).mul(255).round()
    return np.ascontiguousarray(levels.byte().permute(1, 2, 0).cpu().numpy())


def check_size(image: Tensor | np.ndarray, smallest: int = MIN_SIDE) -> None:
    """Raise ``ValueError`` unless ``image`` is (B, 3, H, W) with H, W ≥ ``smallest``."""
    if len(image.shape) != 4 or image.shape[1] != 3:
        raise ValueError(f"found an image of shape {tuple(image.shape)}; expected (B, 3, H, W)")
    if min(image.shape[-2:]) < smallest:
        height, width = image.shape[-2:]
        raise ValueError(f"the picture is {width}×{height} pixels; expected at least {smallest}×{smallest}")


# --- writing -----------------------------------------------------------------------------------


def save_image(image: Tensor | np.ndarray, path: str | os.PathLike[str], alpha: np.ndarray | None = None) -> None:
    """Write an image (or uint8 pixels) to a picture file; the name's ending chooses the format.

    Values outside [0, 1] are clamped. The file is written beside its name and moved into place, so
    that a broken run leaves either the old file or the whole new one.

    Args:
        image: (1, 3, H, W) or (3, H, W) in [0, 1], or uint8 (H, W, 3).
        path: the file to write, ``.png``, ``.jpg``, ``.webp``, ``.tif`` and others Pillow knows.
        alpha: uint8 (H, W); formats without transparency drop it.

    Raises:
        ImageError: unknown ending, or the folder does not exist or cannot be written.
    """
    pixels = image if isinstance(image, np.ndarray) else to_pixels(image)
    picture = Image.fromarray(pixels)
    kind = check_ending(path)
    if alpha is not None and kind in ("PNG", "WEBP", "TIFF", "AVIF", "JPEG2000"):
        picture.putalpha(Image.fromarray(alpha))
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    if kind == "WEBP":
        options = {"quality": 95}
    write_atomically(path, lambda file: picture.save(file, format=kind, **options))


def check_ending(path: str | os.PathLike[str]) -> str:
    """Pillow's name of the format in which ``path`` would be written; ``ImageError`` if there is none."""
    suffix = Path(path).suffix.lower()
    known = Image.registered_extensions()
    if suffix not in known or known[suffix] not in Image.SAVE:
        raise ImageError(f"{path}: no picture format ends in {suffix or 'nothing'!r}; use .png, .jpg, .webp or .tif")
    return known[suffix]


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], Any]) -> None:
    """Let ``write`` fill a file beside ``path``, then move it into place.

    Raises:
        ImageError: when the folder is missing or cannot be written; nothing is left behind.
    """
    target = Path(path)
    check_writable(target.parent)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def existing_part(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(part for part in [path, *path.absolute().parents] if part.exists())


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Raise ``ImageError`` unless files can be made in ``folder``."""
    if not os.path.isdir(folder):
        raise ImageError(f"{folder}: no such folder to write to")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ImageError(f"{folder}: the folder cannot be written to ({error.strerror})") from None


def with_luminance_of(rgb: np.ndarray, luminance: np.ndarray) -> np.ndarray:
    """``color.with_luminance`` for decoded pictures of one size, uint8 (H, W, 3): without torch."""
    kept, taken = (Image.fromarray(pixels).convert("YCbCr").split() for pixels in (rgb, luminance))
    return np.asarray(Image.merge("YCbCr", (taken[0], *kept[1:])).convert("RGB"))


def contact_sheet(rows: Iterable[Iterable[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Pictures of one size, uint8 (H, W, 3), set in rows on white."""
    grid = [list(row) for row in rows]
    height, width = grid[0][0].shape[:2]
    columns = max(len(row) for row in grid)
    sheet = np.full(
        (len(grid) * (height + gap) - gap, columns * (width + gap) - gap, 3),
        255,
        dtype=np.uint8,
    )
    for y, row in enumerate(grid):
        for x, picture in enumerate(row):
            top, left = y * (height + gap), x * (width + gap)
            sheet[top : top + height, left : left + width] = picture
    return sheet
