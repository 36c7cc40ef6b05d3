"""From picture file to picture file, strip by strip: neither is ever whole in memory.

A picture is decoded once, into a scratch file beside the result; what the network makes of it goes
into another, and is encoded from there. Needs libvips.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from fststyle.images import Header, ImageError, check_ending, check_sides, existing_part, large, write_atomically
from fststyle.images.files import WITH_ALPHA
from fststyle.inference.options import BAND, PLAIN, StylizeOptions
from fststyle.inference.paths import Files
from fststyle.inference.variation import varied_rows
from fststyle.inference.written import remember
from fststyle.octaves import guided, halved
from fststyle.resources import free_memory, on_disk

if TYPE_CHECKING:
    from fststyle.inference.stylizer import Stylizer


#: Of a picture that is read whole.
NO_TILES = Files(tiles="off")


@dataclass(frozen=True)
class FileToFile:
    """Tiled inference from file to file, where the whole picture would not fit or the user wants it; else for no file.

    A result is named by its input and the number of the stylizer that makes it. With ``held`` no result is made so: the
    memory for strips is checked alone.
    """

    files: Files = NO_TILES
    stylizers: Sequence[Stylizer] = ()
    options: StylizeOptions = PLAIN
    held: bool = False

    def wants(self, source: Path, number: int) -> bool:
        """Whether a result is made so.

        Raises:
            ImageError: the picture takes strips, for which there is too little memory.
        """
        files = self.files
        if files.tiles == "off":
            return False
        stylizer, memory = self.stylizers[number], self.memory(number)
        height, width = stylizer.seen(*files.header(source).resized(files.size), self.options)
        if files.tiles != "exact" and not stylizer.is_too_large(height, width, memory):
            return False
        least = stylizer.least_memory(height, width)
        if memory < least:
            found = f"found --memory {memory / 1e6:.4g}MB" if files.memory else f"{memory / 1e6:.4g}MB are free for it"
            raise ImageError(
                f"{source}: takes at least {math.ceil(least / 1e6)}MB of memory at {width}×{height} pixels; {found}; "
                "a smaller --size takes less"
            )
        return large.available() and not self.held

    def memory(self, number: int) -> int:
        """Bytes that a pass of a stylizer may take."""
        return self.files.memory or self.stylizers[number].memory

    def apply(self, source: Path, target: Path, number: int) -> None:
        """Make a result."""
        files, stylizer = self.files, self.stylizers[number]
        header = files.header(source)
        megapixels = math.prod(header.resized(files.size)) / 1e6
        layout = "{desc}: {percentage:3.0f} %|{bar}| {n:.1f} of {total:.1f} MP, {remaining} left"
        with tqdm(total=megapixels, desc=source.name, bar_format=layout, leave=False, disable=None) as bar:
            apply_to_file(
                stylizer,
                source,
                target,
                header,
                options=self.options,
                size=files.size,
                memory=self.memory(number),
                max_pixels=files.max_pixels,
                strip_metadata=files.strip,
                progress=lambda part: bar.update(part * megapixels) and None,
            )
        remember(target)


def apply_to_file(
    stylizer: Stylizer,
    source: Path,
    target: Path,
    header: Header,
    *,
    options: StylizeOptions = PLAIN,
    size: int | None = None,
    memory: int,
    max_pixels: int | None = None,
    strip_metadata: bool = False,
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Apply a style, or super-resolution, to a picture file of any size.

    Args:
        stylizer: of an ``ImageNetwork``.
        source, target: the files; the folder of ``target``, made if need be, also takes the scratch files, unless
            those would fill the memory that it is kept in.
        header: of ``source``.
        options: how the style is applied.
        size: if given, the longer side is brought to this many pixels first.
        memory: bytes that activations may take.
        max_pixels: that ``size`` may come to; None: ``MAX_PIXELS``.
        strip_metadata: leave EXIF out.
        progress: called with the share of the work done since the last call; all shares sum to 1.

    Raises:
        ImageError: a picture that is damaged or too small, or a result that its format does not take.
        OSError: no space is left. Nothing is left behind then.
    """
    from fststyle.inference.tiled import STORED_AT_ONCE, cost

    height, width = header.resized(size)
    check_sides(source, height, width, at_size=size is not None, max_pixels=max_pixels)
    kind, scale, folder = check_ending(target), stylizer.scale, existing_part(target.parent)
    large.check_writer(target, kind, height * scale, width * scale)
    values = cost(stylizer.backend.torch_backend.network, height, width).stored * 4 * STORED_AT_ONCE
    folder = _scratch_folder(folder, values + 3 * height * width * 4 * (1 + scale**2))
    photo = large.decoded(source, header, folder, size, max_pixels)
    height, width, bands = photo.shape

    output = photo
    if options.strength > 0:
        output = _result(stylizer, photo, options, memory, folder, progress)
    picture = large.as_picture(output)[:3]
    if bands == 4 and kind in WITH_ALPHA:
        alpha = photo if scale == 1 else large.resized(photo, picture.height, picture.width, folder)
        picture = picture.bandjoin(large.as_picture(alpha)[3])
        picture = picture.copy(interpretation="srgb" if photo.dtype == np.uint8 else "rgb16")
    exif = None if strip_metadata else header.exif
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda file: large.encode(picture, file, kind, exif))


def _scratch_folder(beside: Path, most: int) -> Path:
    """A folder for so many bytes: ``beside``, or one on a disk where that would fill the memory that it is kept in."""
    if on_disk(beside) or most < free_memory() // 2:
        return beside
    return next((folder for folder in (Path(tempfile.gettempdir()), Path.home()) if on_disk(folder)), beside)


def _result(
    stylizer: Stylizer,
    photo: large.Scratch,
    options: StylizeOptions,
    memory: int,
    folder: Path,
    progress: Callable[[float], None],
) -> large.Scratch:
    """The picture to show, in a scratch file, as large as the network's result."""
    height, width, _ = photo.shape

    def rows(top: int, bottom: int) -> np.ndarray:
        return photo.read(top, bottom)[..., :3]

    if passes := stylizer.passes:
        parts = [
            _result(each, photo, options, memory, folder, lambda part: progress(part / len(passes))) for each in passes
        ]
        return _filled(parts[0], stylizer.blended([part.read for part in parts], rows), folder)
    seen = stylizer.seen(height, width, options)
    picture = photo if seen == (height, width) else large.resized(photo, *seen, folder, bands=3)
    if (variation := stylizer.variation_of(options)).amount:
        plain = picture
        read = varied_rows(lambda top, bottom: plain.read(top, bottom)[..., :3], seen[0], variation)
        picture = large.Scratch((*seen, 3), photo.dtype, folder)
        picture.fill(read(top, min(seen[0], top + BAND)) for top in range(0, seen[0], BAND))
    octaves = stylizer.octaves_at(*seen, options)
    output = _painted(stylizer, picture, octaves, memory, options.median, folder, progress)
    if seen != (height, width):
        output = large.resized(output, height, width, folder)
    if options.changes:
        output = _filled(output, options.finished(rows, output.read, output.shape[0]), folder)
    return output


def _filled(like: large.Scratch, rows: Iterator[np.ndarray], folder: Path) -> large.Scratch:
    """A scratch file of rows of a picture of the same size and type."""
    filled = large.Scratch(like.shape, like.dtype, folder)
    filled.fill(rows)
    return filled


def _painted(
    stylizer: Stylizer,
    photo: large.Scratch,
    octaves: int,
    memory: int,
    median: bool,
    folder: Path,
    progress: Callable[[float], None],
) -> large.Scratch:
    """The network's result, from coarse to fine (``fststyle.octaves``), in a scratch file."""
    height, width, _ = photo.shape

    def read(top: int, bottom: int) -> np.ndarray:
        return photo.read(top, bottom)[..., :3]

    if octaves == 1:
        return _applied(stylizer, read, height, width, photo.dtype, memory, median, folder, progress)
    before = sum(0.25**octave for octave in range(1, octaves))  # of the work, where the last octave is 1
    small = large.resized(photo, *halved(height, width), folder, bands=3)
    coarse = _painted(
        *(stylizer, small, octaves - 1, memory, False, folder),
        lambda part: progress(part * before / (1 + before)),
    )
    guide = large.resized(coarse, height, width, folder)

    def seen(top: int, bottom: int) -> np.ndarray:
        return guided(read(top, bottom), guide.read(top, bottom))

    return _applied(
        *(stylizer, seen, height, width, photo.dtype, memory, median, folder),
        lambda part: progress(part / (1 + before)),
    )


def _applied(
    stylizer: Stylizer,
    read: Callable[[int, int], np.ndarray],
    height: int,
    width: int,
    dtype: np.dtype,
    memory: int,
    median: bool,
    folder: Path,
    progress: Callable[[float], None],
) -> large.Scratch:
    """The network's result, in a scratch file."""
    from fststyle.inference.tiled import cost

    total, done = cost(stylizer.backend.torch_backend.network, height, width).multiplications, 0

    def tick(count: int) -> None:
        nonlocal done
        progress(min(count, max(0, total - done)) / total)
        done += count

    output = large.Scratch((height * stylizer.scale, width * stylizer.scale, 3), dtype, folder)
    output.fill(stylizer.pixels_in_strips(read, height, width, memory, median, str(folder), tick))
    progress(max(0, total - done) / total)
    return output
