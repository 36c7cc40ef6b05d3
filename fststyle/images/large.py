"""Pictures that are never whole in memory, and those of 16 bits a channel: libvips reads and writes them.

A large picture is decoded once, into a scratch file of plain rows, from which strips are read as often as wanted.
Results are written into such a file and encoded from there. A scratch file has no name once it is open, so that
nothing is left of it however the process ends.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import IO, Any

import numpy as np
from PIL import Image

from fststyle.images.arrays import top_level
from fststyle.images.pillow import TURNS, Header, ImageError, check_longest, open_picture, to_srgb
from fststyle.images.sizes import resized_rows
from fststyle.images.tiff import add_exif
from fststyle.images.transparency import fill_hidden

#: libvips' endings and options for the formats that it writes here, by Pillow's names.
_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": (".jpg", {"Q": 95, "subsample_mode": "off"}),
    "PNG": (".png", {"compression": 2, "filter": "paeth"}),
    "WEBP": (".webp", {"Q": 95, "effort": 2}),
    "AVIF": (".avif", {"Q": 90, "effort": 0}),
    "TIFF": (".tif", {"tile": True, "tile_width": 256, "tile_height": 256, "compression": "deflate"}),
}
#: libvips' loaders, by Pillow's names of the formats; the others are decoded by Pillow, whole.
_LOADERS = {
    "JPEG": "jpegload",
    "PNG": "pngload",
    "WEBP": "webpload",
    "TIFF": "tiffload",
    "AVIF": "heifload",
    "MPO": "jpegload",
}
#: Modes, by Pillow's names, that libvips and Pillow decode to one picture; floats and Lab are left to Pillow.
_AGREED = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B", "I;16L"})
#: Rows that are decoded or turned at once.
_BAND = 256
_TURNED: dict[Image.Transpose, Callable[[np.ndarray], np.ndarray]] = {
    Image.Transpose.FLIP_LEFT_RIGHT: lambda a: a[:, ::-1],
    Image.Transpose.ROTATE_180: lambda a: a[::-1, ::-1],
    Image.Transpose.FLIP_TOP_BOTTOM: lambda a: a[::-1],
    Image.Transpose.TRANSPOSE: lambda a: a.swapaxes(0, 1),
    Image.Transpose.ROTATE_270: lambda a: np.rot90(a, -1),
    Image.Transpose.TRANSVERSE: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    Image.Transpose.ROTATE_90: lambda a: np.rot90(a),
}


@functools.cache
def available() -> bool:
    """Whether pyvips is installed, and finds libvips."""
    if find_spec("pyvips") is None:
        return False
    try:
        vips()
    except Exception:  # pyvips raises whatever looking for a shared library raises
        return False
    return True


@functools.cache
def vips() -> Any:
    """pyvips, set up to keep nothing of what it did."""
    import logging

    logging.getLogger("pyvips").setLevel(logging.CRITICAL)  # what matters is raised
    import pyvips

    pyvips.cache_set_max(0)
    return pyvips


# --- scratch files ------------------------------------------------------------------------------------


class Scratch:
    """Rows of an array in a file that has no name, so that it goes with the process.

    Args:
        shape: (rows, …); a row has the rest.
        dtype: numpy's.
        folder: where the space is taken.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, folder: str | os.PathLike[str]) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.row = int(np.prod(shape[1:], dtype=np.int64)) * self.dtype.itemsize
        self._named: str | None = None
        self.file, name = tempfile.mkstemp(prefix=".fststyle-", suffix=".scratch", dir=folder)
        if os.path.exists(f"/proc/self/fd/{self.file}"):
            os.unlink(name)
        else:  # no way to open a file without a name: it goes when it is closed
            self._named = name

    @property
    def path(self) -> str:
        """By which this process can open it again."""
        return self._named or f"/proc/self/fd/{self.file}"

    def read(self, top: int, bottom: int) -> np.ndarray:
        """The rows from one to before another."""
        rows = np.empty((bottom - top, *self.shape[1:]), self.dtype)
        view, done = memoryview(rows.data).cast("B"), 0
        while done < len(view):
            count = os.preadv(self.file, [view[done:]], top * self.row + done)
            assert count, "the rows were never written"
            done += count
        return rows

    def write(self, top: int, rows: np.ndarray) -> None:
        """Put rows at a row.

        Raises:
            OSError: no space is left.
        """
        view, done = memoryview(np.ascontiguousarray(rows).data).cast("B"), 0
        while done < len(view):
            done += os.pwrite(self.file, view[done:], top * self.row + done)

    def fill(self, strips: Iterable[np.ndarray]) -> None:
        """Put strips one below the other, from the first row on."""
        top = 0
        for strip in strips:
            self.write(top, strip)
            top += len(strip)

    def close(self) -> None:
        """Give the space back."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
            if self._named:
                os.unlink(self._named)

    def __del__(self) -> None:
        self.close()


def as_picture(scratch: Scratch) -> Any:
    """A scratch file of pixels (H, W, C) as a picture of libvips."""
    height, width, bands = scratch.shape
    short = scratch.dtype == np.uint16
    picture = vips().Image.rawload(scratch.path, width, height, bands, format="ushort" if short else "uchar")
    return picture.copy(interpretation="rgb16" if short else "srgb")


# --- reading ------------------------------------------------------------------------------------------


def _raw(path: str | os.PathLike[str], header: Header) -> Any:
    """A picture file as libvips decodes it, row by row."""
    load = getattr(vips().Image, _LOADERS[header.format])
    return load(os.fsencode(path), access="sequential", fail_on="error")


def _opened(path: str | os.PathLike[str], header: Header) -> Any:
    """A picture file, row by row: sRGB, 8 or 16 bits, with alpha or without; not yet upright."""
    deep, picture = header.bits == 16, _raw(path, header)
    if picture.get_typeof("icc-profile-data"):
        try:
            picture = picture.icc_transform("srgb", embedded=True, intent="perceptual", depth=16 if deep else 8)
        except vips().Error:  # a profile for another colour space or a broken one: the pixels as they are
            pass
    wanted = "rgb16" if deep else "srgb"
    if picture.interpretation != wanted:
        picture = picture.colourspace(wanted)
    bands = 4 if picture.hasalpha() else 3
    picture = (picture[:bands] if picture.bands > bands else picture).cast("ushort" if deep else "uchar")
    return picture


def decoded(
    path: str | os.PathLike[str], header: Header, folder: str | os.PathLike[str], size: int | None = None
) -> Scratch:
    """A picture file in a scratch file: (H, W, 3), or (H, W, 4) with alpha, uint8 or uint16, upright, in sRGB.

    Hidden pixels (alpha 0) have the colours of visible ones, see ``transparency``.

    Args:
        path: the file.
        header: its header.
        folder: of the scratch file.
        size: if given, the longer side is brought to this many pixels.

    Raises:
        ImageError: it is damaged, or all of it is hidden.
        OSError: no space is left.
    """
    stored = _upright(path, header, folder)
    if stored.shape[2] == 4:
        fill_hidden(stored.read, stored.write, stored.shape[0], str(path))
    height, width = header.resized(size)
    return stored if stored.shape[:2] == (height, width) else resized(stored, height, width, folder)


def resized(scratch: Scratch, height: int, width: int, folder: str | os.PathLike[str], bands: int = 4) -> Scratch:
    """A picture in a scratch file at another size, in another one; at most so many ``bands`` of it."""
    shape = (height, width, min(bands, scratch.shape[2]))
    result = Scratch(shape, scratch.dtype, folder)

    def read(top: int, bottom: int) -> np.ndarray:
        return scratch.read(top, bottom)[..., : shape[2]]

    result.fill(resized_rows(read, scratch.shape[0], scratch.shape[1], height, width))
    return result


def _upright(path: str | os.PathLike[str], header: Header, folder: str | os.PathLike[str]) -> Scratch:
    if header.format not in _LOADERS or header.mode not in _AGREED | {"CMYK"}:
        whole = np.asarray(open_picture(path, max_pixels=header.height * header.width))
        stored = Scratch(whole.shape, whole.dtype, folder)
        stored.write(0, whole)
        return stored
    try:
        inks = header.mode == "CMYK"
        stored = _without_inks(_raw(path, header), folder) if inks else _computed(_opened(path, header), folder)
    except vips().Error as error:
        raise ImageError(f"{path}: is damaged and cannot be read ({_reason(error)})") from None
    turn = _turn(header)
    if turn is None:
        return stored
    upright = _TURNED[turn](np.memmap(stored.path, stored.dtype, "r", shape=stored.shape))
    turned = Scratch(upright.shape, stored.dtype, folder)
    turned.fill(upright[top : top + _BAND] for top in range(0, len(upright), _BAND))
    return turned


def _turn(header: Header) -> Image.Transpose | None:
    """What sets upright what libvips decodes, which turns AVIF itself."""
    return None if header.format == "AVIF" else TURNS.get(header.orientation)


def _computed(picture: Any, folder: str | os.PathLike[str]) -> Scratch:
    """Compute a picture of libvips into a scratch file."""
    dtype = np.uint16 if picture.format == "ushort" else np.uint8
    stored = Scratch((picture.height, picture.width, picture.bands), dtype, folder)
    stored.fill(_bands(picture))
    return stored


def _without_inks(picture: Any, folder: str | os.PathLike[str]) -> Scratch:
    """Compute a picture of libvips in CMYK into a scratch file in sRGB, by Pillow, which converts it otherwise."""
    profile = picture.get("icc-profile-data") if picture.get_typeof("icc-profile-data") else None
    stored = Scratch((picture.height, picture.width, 3), np.uint8, folder)

    def converted(inks: np.ndarray) -> np.ndarray:
        levels = inks if inks.dtype == np.uint8 else (inks >> 8).astype(np.uint8)
        band = Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), levels[..., :4].tobytes())
        return np.asarray(to_srgb(band, profile))

    stored.fill(map(converted, _bands(picture)))
    return stored


def _bands(picture: Any) -> Iterator[np.ndarray]:
    """A picture of libvips as arrays (rows, W, C), from the top."""
    region, dtype = vips().Region.new(picture), np.uint16 if picture.format == "ushort" else np.uint8
    for top in range(0, picture.height, _BAND):
        rows = min(_BAND, picture.height - top)
        fetched = np.frombuffer(region.fetch(0, top, picture.width, rows), dtype)
        yield fetched.reshape(rows, picture.width, picture.bands)


def read(path: str | os.PathLike[str], header: Header) -> np.ndarray:
    """A picture file as pixels in memory, else as ``decoded`` gives it, but with what is hidden.

    Raises:
        ImageError: it is damaged.
    """
    try:
        pixels = _opened(path, header).numpy()
    except vips().Error as error:
        raise ImageError(f"{path}: is damaged and cannot be read ({_reason(error)})") from None
    turn = _turn(header)
    return np.ascontiguousarray(pixels if turn is None else _TURNED[turn](pixels))


# --- writing ------------------------------------------------------------------------------------------


def from_array(pixels: np.ndarray, alpha: np.ndarray | None = None) -> Any:
    """Pixels, uint8 or uint16 (H, W, 3), and alpha (H, W), as a picture of libvips."""
    whole = pixels if alpha is None else np.dstack([pixels, alpha])
    picture = vips().Image.new_from_array(np.ascontiguousarray(whole))
    return picture.copy(interpretation="srgb" if top_level(pixels) == 255 else "rgb16")


def check_writer(path: str | os.PathLike[str], kind: str, height: int, width: int) -> None:
    """Raise ``ImageError`` unless a picture of this size can be written, strip by strip, in this format."""
    if kind not in _WRITERS:
        known = ", ".join(ending for ending, _ in _WRITERS.values())
        raise ImageError(f"{path}: {kind} is not written strip by strip; use one of {known}")
    check_longest(path, kind, height, width)


def encode(picture: Any, file: IO[bytes], kind: str, exif: bytes | None = None) -> None:
    """Write a picture of libvips into an open file, row by row.

    Args:
        picture: 16 bits are kept by PNG and TIFF alone.
        file: open for writing; for EXIF in TIFF, for reading too.
        kind: the format, by Pillow's name; ``check_writer`` knows those that are written.
        exif: an EXIF block.

    Raises:
        OSError: it could not be written; most likely no space is left.
    """
    ending, options = _WRITERS[kind]
    if picture.format == "ushort" and kind not in ("PNG", "TIFF"):
        picture = (picture / 257).rint().cast("uchar").copy(interpretation="srgb")
    if kind == "TIFF":
        large = picture.width * picture.height * picture.bands * 2 > 2**31
        options = {**options, "predictor": "horizontal", "bigtiff": large}
    if exif:
        picture = picture.copy()
        picture.set_type(vips().GValue.blob_type, "exif-data", exif)
    target = vips().Target.new_to_descriptor(file.fileno())
    keep = "exif" if exif else "none"
    try:
        _interruptibly(picture, lambda: picture.write_to_target(target, ending, keep=keep, **options))
    except vips().Error as error:
        raise OSError(None, _reason(error)) from None
    if exif and kind == "TIFF":  # libvips writes none there
        add_exif(file, exif)


def _interruptibly(picture: Any, compute: Callable[[], Any]) -> None:
    """Let libvips compute in a thread, so that Ctrl-C is heard here, and ends it."""
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(compute)
        try:
            future.result()
        except KeyboardInterrupt:
            picture.set_kill(True)
            with contextlib.suppress(Exception):
                future.result()
            raise


def _reason(error: Exception) -> str:
    """The first thing that libvips has to say, in one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines[1:] if line), lines[0] if lines else type(error).__name__)
