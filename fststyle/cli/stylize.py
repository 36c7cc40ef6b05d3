"""``fststyle stylize``: pictures in one style or several, in one pass each."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fststyle.cli.options import add_backend, add_files, add_pictures, add_style, files_of, finish, styles_of
from fststyle.cli.pipes import PIPE, piped
from fststyle.images import ImageError
from fststyle.inference.batch import stylize_files

if TYPE_CHECKING:
    from fststyle.inference.regions import Regions


def add_arguments(command: argparse.ArgumentParser) -> None:
    add_pictures(command)
    add_style(command)
    command.add_argument(
        "--sheet", metavar="FILE", help="write one picture with the results of all styles, side by side, instead"
    )
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

    styles = styles_of(options)
    how = StylizeOptions(options.median, options.strength, options.preserve_color, options.style_scale)
    where = (options.device, options.backend, options.precision)
    regions = _regions(options)
    if options.sheet is not None:
        from fststyle.inference.sheet import SIZE, style_sheet

        if len(options.inputs) != 1 or options.output is not None or PIPE in (options.inputs[0], options.sheet):
            raise ImageError(
                "--sheet takes one photograph, a file, and no -o; give fststyle stylize PHOTO --sheet FILE"
            )
        if regions is not None:
            raise ImageError("--sheet shows styles all over the photograph, to choose by; give it without --mask")
        print(
            style_sheet(options.inputs[0], styles, options.sheet, options.size or SIZE, how, *where, options.overwrite)
        )
        return 0
    with piped(options):
        return finish(stylize_files(options.inputs, styles, files_of(options), how, *where, regions))


def _regions(options: argparse.Namespace) -> Regions | None:
    """What ``--mask``, ``--elsewhere`` and ``--feather`` say."""
    if options.mask is None:
        for name in ("elsewhere", "feather"):
            if (value := getattr(options, name)) is not None:
                raise ValueError(
                    f"found --{name} {value} without --mask; give a picture that is white where the style is"
                )
        return None
    from fststyle.inference.regions import PHOTO, Regions

    return Regions(options.mask, PHOTO if options.elsewhere is None else options.elsewhere, options.feather)
