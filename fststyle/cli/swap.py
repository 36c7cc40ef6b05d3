"""``fststyle swap``: pictures in, the same painted with patches of any style picture out."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fststyle.cli.options import add_pictures, add_precision, finish, size
from fststyle.cli.pipes import piped
from fststyle.images import ImageError, Picture, TooManyPixelsError, check_style_sides, read_picture
from fststyle.inference.batch import process
from fststyle.inference.paths import Files
from fststyle.resources import user_path

#: Longer side to which a style picture is brought that is too large to be read, where no ``--style-size`` says another.
STYLE_SIZE = 1024
#: Pairs of patches that take minutes on a CPU: more than two pictures of 1250 pixels have.
MANY_PAIRS = 10**10


def add_arguments(command: argparse.ArgumentParser) -> None:
    add_pictures(command)
    command.add_argument(
        "--style-image", required=True, metavar="PICTURE", help="any picture: nothing is trained for it"
    )
    command.add_argument(
        "--model", default="slim", metavar="NAME_OR_FILE", help="the network, bundled or a model file; default: slim"
    )
    command.add_argument("--style-size", type=size, metavar="N", help="and that of the style picture")
    command.add_argument(
        "--patch", type=int, default=3, metavar="N", help="side in feature positions, each 4 pixels; 3"
    )
    command.add_argument("--stride", type=int, default=1, metavar="N", help="from one patch to the next; default: 1")
    command.add_argument(
        "--preserve-color", action="store_true", help="the photograph's colours, the result's luminance"
    )
    add_precision(command)


def run(options: argparse.Namespace) -> int:
    with piped(options):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    """Check everything that can be checked before work begins, then swap picture by picture."""
    if not options.style_image:
        raise ImageError("found an empty name for --style-image; expected a picture")
    painting = user_path(options.style_image)
    todo = Files(options.output, overwrite=options.overwrite).jobs(
        options.inputs, [Path(options.style_image).stem], [painting]
    )

    from fststyle.inference import Swapper
    from fststyle.inference.options import with_luminance_of
    from fststyle.networks.styleswap import check_patch

    check_patch(options.patch, options.stride)
    check_style_sides(painting)
    style = _style(painting, options.style_size, options.patch)
    swapper = Swapper.from_checkpoint(options.model, options.device, options.precision)

    def read(path: Path) -> Picture:
        picture = _read(path, options.size, options.patch)
        _warn(path, *(math.prod(rgb.shape[:2]) // (4 * options.stride) ** 2 for rgb in (picture.rgb, style.rgb)))
        return picture

    def swapped(picture: Picture, _: int) -> np.ndarray:
        output = swapper.pixels(picture.rgb, style.rgb, options.patch, options.stride, style.alpha)
        return with_luminance_of(picture.rgb, output) if options.preserve_color else output

    return finish(process(todo, swapped, read))


def _style(path: Path, size: int | None, patch: int) -> Picture:
    """The style picture; one that is too large at a size that makes sense."""
    try:
        return _read(path, size, patch, trim=True)
    except TooManyPixelsError as error:
        if size is not None:
            raise
        picture = _read(path, STYLE_SIZE, patch, trim=True)
        print(f"fststyle: {error}; it is brought to {STYLE_SIZE} (--style-size)", file=sys.stderr)
        return picture


def _read(path: Path, size: int | None, patch: int, trim: bool = False) -> Picture:
    """A picture that has at least one patch, each of whose positions covers 4 pixels."""
    picture = read_picture(path, size, trim=trim)
    height, width = picture.rgb.shape[:2]
    if min(height, width) <= 4 * (patch - 1):
        least = 4 * (patch - 1) + 1
        raise ImageError(
            f"{path}: is {width}×{height} pixels; patches of {patch}×{patch} need at least {least}×{least}"
        )
    return picture


def _warn(path: Path, content: int, style: int) -> None:
    """Tell of a picture that will take long, given how many patches there are in it and in the style."""
    if content * style > MANY_PAIRS:
        tqdm.write(
            f"fststyle: {path}: {content:,} patches against {style:,} take minutes and more; "
            "a smaller --size or --style-size, or a larger --stride, is faster",
            file=sys.stderr,
        )
