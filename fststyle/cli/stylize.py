"""``fststyle stylize``: pictures in one style or several, in one pass each."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fststyle.cli.options import add_backend, add_files, add_pictures, files_of, finish, style_scale
from fststyle.cli.pipes import piped
from fststyle.inference.batch import stylize_files

if TYPE_CHECKING:
    from fststyle.inference.regions import Regions


def add_arguments(command: argparse.ArgumentParser) -> None:
    add_pictures(command)
    command.add_argument(
        "--style",
        required=True,
        action="append",
        metavar="NAME_OR_FILE",
        help="a bundled style or a model file; repeat for several",
    )
    command.add_argument(
        "--strength", type=float, default=1.0, metavar="X", help="from 0, the photograph, to 1, the style; default: 1"
    )
    command.add_argument(
        "--style-scale",
        type=style_scale,
        metavar="X",
        help="strokes so many times larger; default: auto, 1 up to 1024 pixels, 1.4 at 2048, 2 at 4096",
    )
    command.add_argument(
        "--preserve-color", action="store_true", help="the photograph's colours, the result's luminance"
    )
    command.add_argument("--median", action="store_true", help="3×3 median filter on the result, as Johnson's code")
    command.add_argument(
        "--mask", metavar="MASK", help="a picture of the photograph's size: white where the style is, grey between"
    )
    command.add_argument(
        "--elsewhere",
        metavar="NAME_OR_FILE",
        help="with --mask: another style, or photo, the photograph itself; default: photo",
    )
    command.add_argument(
        "--feather",
        type=float,
        metavar="PIXELS",
        help="with --mask: soften its edges over so many pixels to each side; default: 1 %% of the longer side",
    )
    add_files(command)
    add_backend(command)


def run(options: argparse.Namespace) -> int:
    from fststyle.inference.options import StylizeOptions

    how = StylizeOptions(options.median, options.strength, options.preserve_color, options.style_scale)
    where = (options.device, options.backend, options.precision)
    regions = regions_of(options)
    with piped(options):
        return finish(stylize_files(options.inputs, options.style, files_of(options), how, *where, regions))


def regions_of(options: argparse.Namespace) -> Regions | None:
    """What ``--mask``, ``--elsewhere`` and ``--feather`` say."""
    from fststyle.inference.regions import PHOTO, Regions

    if options.mask is None:
        for name in ("elsewhere", "feather"):
            if (value := getattr(options, name)) is not None:
                raise ValueError(
                    f"found --{name} {value} without --mask; give a picture that is white where the style is"
                )
        return None
    return Regions(options.mask, PHOTO if options.elsewhere is None else options.elsewhere, options.feather)
