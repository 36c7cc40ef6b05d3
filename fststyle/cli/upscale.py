"""``fststyle upscale``: pictures 4 or 8 times as large."""

from __future__ import annotations

import argparse

from fststyle.cli.options import add_backend, add_files, add_pictures, files_of, finish
from fststyle.cli.pipes import piped
from fststyle.inference.batch import upscale_files

#: What enlarges where no model is named.
DEFAULT_MODELS = {4: "x4_pixel", 8: "x8_pixel"}


def add_arguments(command: argparse.ArgumentParser) -> None:
    add_pictures(command)
    command.add_argument("--scale", type=int, choices=(4, 8), help="how many times larger; default: the model's, or 4")
    command.add_argument(
        "--model", metavar="NAME_OR_FILE", help="a model file, or hf:USER/REPO; default: x4_pixel or x8_pixel"
    )
    command.add_argument("--match-histogram", action="store_true", help="give the result the input's colours, exactly")
    add_files(command)
    add_backend(command)


def run(options: argparse.Namespace) -> int:
    model = options.model or DEFAULT_MODELS[options.scale or 4]
    where = (options.device, options.backend, options.precision)
    with piped(options):
        files, match = files_of(options), options.match_histogram
        return finish(upscale_files(options.inputs, model, files, match, options.scale, *where))
