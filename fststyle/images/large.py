"""Pictures that are never whole in memory, and those of 16 bits a channel: libvips reads and writes them.

A large picture is decoded once, into a scratch file of plain rows, from which strips are read as often as wanted.
Results are written into such a file and encoded from there. A scratch file has no name once it is open, so that
nothing is left of it however the process ends.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import IO, Any

import numpy as np
from PIL import Image

from fststyle.images.arrays import reduce_pixels, resize_pixels, resized_rows, top_level
from fststyle.images.pillow import MAX_PIXELS, TURNS, Header, ImageError, check_longest, open_picture, warn
from fststyle.images.profiles import gamma_table, to_srgb
from fststyle.images.scratch import Scratch
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
#: libvips' loaders, by Pillow's names of the formats; the others are decoded by Pillow, whole, AVIF among them: both
#: hold it whole, and libvips enlarges its colours (4:2:0) otherwise.
_LOADERS = {"JPEG": "jpegload", "PNG": "pngload", "WEBP": "webpload", "TIFF": "tiffload", "MPO": "jpegload"}
#: Modes, by Pillow's names, that libvips and Pillow decode to one picture; floats and Lab are left to Pillow.
_AGREED = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B", "I;16L"})
#: Rows that are decoded or turned at once.
_BAND = 256
#: Values of a decoded band, at most.
_BAND_VALUES = 2**22
#: Means leave a picture at least this many times larger than it is to be.
_GAP = 3
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
    if header.gamma is not None:
        table = gamma_table(header.gamma, 65535 if deep else 255).astype(np.uint16 if deep else np.uint8)
        colours = picture[:3].maplut(vips().Image.new_from_array(table[None]))
        picture = colours.bandjoin(picture[3]) if bands == 4 else colours
        picture = picture.copy(interpretation=wanted)
    return picture


def decodes(header: Header) -> bool:
    """Whether libvips is there and decodes such a file, to the picture that Pillow gives."""
    return available() and header.format in _LOADERS and header.mode in _AGREED | {"CMYK"}


def has_alpha(path: str | os.PathLike[str], header: Header) -> bool:
    """Whether a file that libvips ``decodes`` has alpha, or a transparent colour; then rows are not reduced as they are
    decoded, since what is hidden is filled from the whole picture first.
    """
    try:
        return header.mode != "CMYK" and bool(_opened(path, header).bands == 4)
    except vips().Error:
        return False


def decoded(
    path: str | os.PathLike[str],
    header: Header,
    folder: str | os.PathLike[str],
    size: int | None = None,
    max_pixels: int | None = None,
) -> Scratch:
    """A picture file in a scratch file: (H, W, 3), or (H, W, 4) with alpha, uint8 or uint16, upright, in sRGB.

    Hidden pixels (alpha 0) have the colours of visible ones, see ``transparency``.

    Args:
        path: the file.
        header: its header.
        folder: of the scratch file.
        size: if given, the longer side is brought to this many pixels.
        max_pixels: of more, what libvips does not decode is refused; None: ``MAX_PIXELS``.

    Raises:
        ImageError: it is damaged, or all of it is hidden.
        OSError: no space is left.
    """
    height, width = header.resized(size)
    beyond = header.height * header.width > max(MAX_PIXELS, max_pixels or 0, height * width)
    if beyond and decodes(header) and not has_alpha(path, header):
        return _stored(iter([resized_by_rows(path, header, height, width, max_pixels)]), folder)
    stored = _upright(path, header, folder, max_pixels)
    if stored.shape[2] == 4:
        fill_hidden(stored.read, stored.write, stored.shape[0], str(path))
    return stored if stored.shape[:2] == (height, width) else resized(stored, height, width, folder)


def resized(scratch: Scratch, height: int, width: int, folder: str | os.PathLike[str], bands: int = 4) -> Scratch:
    """A picture in a scratch file at another size, in another one; at most so many ``bands`` of it."""
    shape = (height, width, min(bands, scratch.shape[2]))
    result = Scratch(shape, scratch.dtype, folder)

    def read(top: int, bottom: int) -> np.ndarray:
        return scratch.read(top, bottom)[..., : shape[2]]

    result.fill(resized_rows(read, scratch.shape[0], scratch.shape[1], height, width))
    return result


def resized_by_rows(
    path: str | os.PathLike[str], header: Header, height: int, width: int, max_pixels: int | None = None
) -> np.ndarray:
    """A picture file at a smaller size, decoded row by row: (height, width, 3 or 4), uint8 or uint16, upright, in sRGB.

    What is reduced much is first reduced by means, as by Pillow's ``reducing_gap``. ``max_pixels`` as for ``decoded``.

    Raises:
        ImageError: it is damaged.
    """
    turn = _turn(header)
    across = header.orientation > 4 and turn is not None
    stored = (header.width, header.height) if across else (header.height, header.width)
    target = (width, height) if across else (height, width)
    factor = max(1, int(min(stored[0] / target[0], stored[1] / target[1]) / _GAP))
    try:
        bands = (reduce_pixels(band, factor) for band in _decoded_bands(path, header, factor))
        rows = resized_rows(_Following(bands).read, stored[0] / factor, stored[1] / factor, *target)
        pixels = np.concatenate(list(rows))
    except (vips().Error, EOFError):
        pixels = resize_pixels(_by_pillow(path, max_pixels), height, width)
    else:
        _warned(path, header)
        pixels = pixels if turn is None else _TURNED[turn](pixels)
    return np.ascontiguousarray(pixels)


class _Following:
    """Rows of a picture of which each band is decoded once; those before the last that were asked for are forgotten."""

    def __init__(self, bands: Iterator[np.ndarray]) -> None:
        self.bands, self.held, self.top = bands, next(bands), 0

    def read(self, top: int, bottom: int) -> np.ndarray:
        self.held, self.top = self.held[top - self.top :], top
        while len(self.held) < bottom - top:
            band = next(self.bands, None)
            if band is None:
                raise EOFError("a picture of fewer rows than its header says")
            self.held = np.concatenate([self.held, band])
        return self.held[: bottom - top]


def _decoded_bands(path: str | os.PathLike[str], header: Header, multiple: int = 1) -> Iterator[np.ndarray]:
    """Bands (rows, W, 3 or 4) of a picture file, in sRGB, from the top, each of a multiple of so many rows but for the
    last; not yet upright.
    """
    if header.mode == "CMYK":
        return _without_inks(_raw(path, header), multiple)
    return _bands(_opened(path, header), multiple)


def _by_pillow(path: str | os.PathLike[str], max_pixels: int | None) -> np.ndarray:
    """A picture file that libvips does not decode, whole; Pillow sets odd containers right, or says what is damaged."""
    return np.asarray(open_picture(path, max_pixels=max_pixels))


def _warned(path: str | os.PathLike[str], header: Header) -> None:
    if header.lost:
        warn(str(path), header.lost)


def _upright(
    path: str | os.PathLike[str], header: Header, folder: str | os.PathLike[str], max_pixels: int | None
) -> Scratch:
    if not decodes(header):
        return _stored(iter([_by_pillow(path, max_pixels)]), folder)
    try:
        stored = _stored(_decoded_bands(path, header), folder)
    except vips().Error:
        return _stored(iter([_by_pillow(path, max_pixels)]), folder)
    _warned(path, header)
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


def _stored(bands: Iterator[np.ndarray], folder: str | os.PathLike[str]) -> Scratch:
    """Bands of a picture in a scratch file."""
    first = next(bands)
    stored = Scratch((0, *first.shape[1:]), first.dtype, folder)
    stored.fill(itertools.chain([first], bands))
    return stored


def _without_inks(picture: Any, multiple: int) -> Iterator[np.ndarray]:
    """Bands of a picture of libvips in CMYK, in sRGB, by Pillow, which converts it otherwise."""
    profile = picture.get("icc-profile-data") if picture.get_typeof("icc-profile-data") else None
    for inks in _bands(picture, multiple):
        levels = inks if inks.dtype == np.uint8 else (inks >> 8).astype(np.uint8)
        band = Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), levels[..., :4].tobytes())
        yield np.asarray(to_srgb(band, profile))


def _bands(picture: Any, multiple: int) -> Iterator[np.ndarray]:
    """A picture of libvips as arrays (rows, W, C), from the top."""
    region, dtype = vips().Region.new(picture), np.uint16 if picture.format == "ushort" else np.uint8
    step = max(1, min(_BAND, _BAND_VALUES // (picture.width * picture.bands)) // multiple) * multiple
    for top in range(0, picture.height, step):
        rows = min(step, picture.height - top)
        fetched = np.frombuffer(region.fetch(0, top, picture.width, rows), dtype)
        yield fetched.reshape(rows, picture.width, picture.bands)


def read(path: str | os.PathLike[str], header: Header, max_pixels: int | None = None) -> np.ndarray:
    """A picture file as pixels in memory, else as ``decoded`` gives it, but with what is hidden.

    Raises:
        ImageError: it is damaged.
    """
    try:
        pixels = _opened(path, header).numpy()
    except vips().Error:
        return _by_pillow(path, max_pixels)
    _warned(path, header)
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
