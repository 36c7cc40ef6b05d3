"""``fststyle upscale``: pictures 4 or 8 times as large."""

from __future__ import annotations

import argparse

from fststyle.cli.options import add_backend, add_files, add_pictures, finish, of_options, where_of
from fststyle.cli.pipes import piped
from fststyle.inference.batch import Files, upscale_files

#: What enlarges where no model is named.
DEFAULT_MODELS = {4: "x4_pixel", 8: "x8_pixel"}


def add_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add_pictures(command)
    add("--scale", type=int, choices=(4, 8), help="how many times larger; default: the model's, or 4")
    add("--model", metavar="NAME_OR_FILE", help="a model file, or hf:USER/REPO; default: x4_pixel or x8_pixel")
    add("--match-histogram", action="store_true", help="give the result the input's colours, exactly")
    add_files(command)
    add_backend(command)


def run(options: argparse.Namespace) -> int:
    model = options.model or DEFAULT_MODELS[options.scale or 4]
    with piped(options):
        files, match = of_options(Files, options), options.match_histogram
        return finish(upscale_files(options.inputs, model, files, match, options.scale, *where_of(options)))
