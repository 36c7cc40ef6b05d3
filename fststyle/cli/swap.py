"""``fststyle swap``: pictures in, the same painted with patches of any style picture out."""

from __future__ import annotations

import argparse

from fststyle.cli.options import add_pictures, add_precision, finish, said, size
from fststyle.cli.pipes import piped
from fststyle.inference.batch import Files
from fststyle.inference.swapper import DEFAULT, swap_files


def add_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add_pictures(command)
    add("--style-image", required=True, metavar="PICTURE", help="any picture: nothing is trained for it")
    add("--model", default=DEFAULT, metavar="NAME_OR_FILE", help="the network, bundled or a model file; default: slim")
    add("--style-size", type=size, metavar="N", help="bring that of the style picture to N, too")
    add("--patch", type=int, default=3, metavar="N", help="side in feature positions, each 4 pixels; default: 3")
    add("--stride", type=int, default=1, metavar="N", help="from one patch to the next; default: 1")
    add("--preserve-color", action="store_true", help="the photograph's colours, the result's luminance")
    add_precision(command)


def run(options: argparse.Namespace) -> int:
    with piped(options):
        files = Files(options.output, options.size, overwrite=options.overwrite)
        how = said(options, "model", "style_size", "patch", "stride", "preserve_color", "device", "precision")
        return finish(swap_files(options.inputs, options.style_image, files=files, **how))
