"""``fststyle stylize``: pictures in one style or several, in one pass each."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fststyle.cli.options import (
    add_backend,
    add_files,
    add_pictures,
    add_style,
    finish,
    of_options,
    styles_of,
    where_of,
)
from fststyle.cli.pipes import PIPE, piped
from fststyle.images import ImageError
from fststyle.inference.batch import Files, StylizeOptions, stylize_files

if TYPE_CHECKING:
    from fststyle.inference.regions import Regions


def add_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add_pictures(command)
    add_style(command)
    add("--sheet", metavar="FILE", help="write one picture with the results of all styles, side by side, instead")
    add("--mask", metavar="MASK", help="a picture of the photograph's size: white where the style is, grey between")
    add(
        "--elsewhere",
        metavar="NAME_OR_FILE",
        help="with --mask: another style, or photo, the photograph itself; default: photo",
    )
    add(
        "--feather",
        type=float,
        metavar="PIXELS",
        help="with --mask: soften its edges over so many pixels to each side; default: 1 %% of the longer side",
    )
    add_files(command)
    add_backend(command)


def run(options: argparse.Namespace) -> int:
    styles, regions = styles_of(options), _regions(options)
    how, where = of_options(StylizeOptions, options), where_of(options)
    if options.sheet is not None:
        from fststyle.inference.sheet import SIZE, style_sheet

        if len(options.inputs) != 1 or options.output is not None or PIPE in (options.inputs[0], options.sheet):
            raise ImageError(
                "--sheet takes one photograph, a file, and no -o; give fststyle stylize PHOTO --sheet FILE"
            )
        if regions is not None:
            raise ImageError("--sheet shows styles all over the photograph, to choose by; give it without --mask")
        size, overwrite = options.size or SIZE, options.overwrite
        print(style_sheet(options.inputs[0], styles, options.sheet, size, how, *where, overwrite))
        return 0
    with piped(options):
        return finish(stylize_files(options.inputs, styles, of_options(Files, options), how, *where, regions))


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
