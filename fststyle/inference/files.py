"""From picture file to picture file, strip by strip: neither is ever whole in memory.

The picture is decoded once, into a scratch file beside the result; what the network makes of it goes into another,
and is encoded from there. Needs libvips.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fststyle.images import Header, check_ending, check_sides, existing_part, large, write_atomically
from fststyle.images.writing import WITH_ALPHA
from fststyle.inference.options import PLAIN, StylizeOptions
from fststyle.inference.stylizer import Stylizer


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
        source, target: the files; the folder of ``target``, made if need be, also takes the scratch files.
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
    height, width = header.resized(size)
    check_sides(source, height, width, at_size=size is not None, max_pixels=max_pixels)
    kind, scale, folder = check_ending(target), stylizer.scale, existing_part(target.parent)
    large.check_writer(target, kind, height * scale, width * scale)
    photo = large.decoded(source, header, folder, size)
    height, width, bands = photo.shape

    def rows(top: int, bottom: int) -> np.ndarray:
        return photo.read(top, bottom)[..., :3]

    if options.strength == 0:
        output = photo
    else:
        seen, read = options.seen(height, width), rows
        if seen != (height, width):
            read = large.resized(photo, *seen, folder, bands=3).read
        output = _applied(stylizer, read, *seen, photo.dtype, memory, options.median, folder, progress)
        if seen != (height, width):
            output = large.resized(output, height, width, folder)
        if options.changes:
            finished = large.Scratch(output.shape, output.dtype, folder)
            finished.fill(options.finished(rows, output.read, output.shape[0]))
            output = finished
    picture = large.as_picture(output)[:3]
    if bands == 4 and kind in WITH_ALPHA:
        alpha = photo if scale == 1 else large.resized(photo, picture.height, picture.width, folder)
        picture = picture.bandjoin(large.as_picture(alpha)[3])
        picture = picture.copy(interpretation="srgb" if photo.dtype == np.uint8 else "rgb16")
    exif = None if strip_metadata else header.exif
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda file: large.encode(picture, file, kind, exif))


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
