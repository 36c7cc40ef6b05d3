"""``fststyle predict``: a model file for the style of any painting, or of several, without training."""

from __future__ import annotations

import argparse

from fststyle.cli.options import size
from fststyle.inference.predictor import DEFAULT, SIZE


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("paintings", nargs="+", metavar="PAINTING", help="pictures; each is a style of its name")
    command.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    command.add_argument(
        "--size",
        type=size,
        default=SIZE,
        metavar="N",
        help=f"bring the longer side of a painting to N pixels: the size of its strokes; default: {SIZE}",
    )
    command.add_argument(
        "--model", default=DEFAULT, metavar="NAME_OR_FILE", help=f"what predicts, bundled or a file; default: {DEFAULT}"
    )
    command.add_argument("--overwrite", action="store_true", help="replace the file that is there")


def run(options: argparse.Namespace) -> int:
    from fststyle.inference.predictor import predicted_style
    from fststyle.merging import merge_files
    from fststyle.model_file import find_model_file
    from fststyle.training.thumbnails import thumbnail

    paths = [predicted_style(painting, options.model, options.size) for painting in options.paintings]
    model = find_model_file(options.model, "arbitrary")
    names = merge_files(paths, options.output, overwrite=options.overwrite, thumbnail=thumbnail, trunks=[model])
    print(f"{options.output}: {', '.join(names)}")
    return 0
