"""``fststyle compare``: fast against slow, as a page with pictures."""

from __future__ import annotations

import argparse

from fststyle.cli.options import add_device, said, seed, size
from fststyle.resources import user_path


def add_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("photos", nargs="+", metavar="PHOTO", help="pictures, globs or folders")
    add("--style", action="append", metavar="NAME_OR_FILE", help="a bundled style or a model file")
    add("--style-image", action="append", metavar="PICTURE", help="the painting, to be shown")
    add("-o", "--output", default="compare", metavar="FOLDER", help="default: compare")
    add("--size", type=size, action="append", metavar="N", help="longer side; default: 256")
    add("--iterations", type=int, default=500, help="of the slow side; default: 500")
    add("--until-crossed", action="store_true", help="stop once it is as good as the one pass")
    add("--encoder", metavar="NAME_OR_FILE", help="weights: slim, vgg16, vgg19, or a file")
    add("--normalize", metavar="FOLDER", help="photographs to scale the encoder's filters on")
    add("--seed", type=seed, default=0, help="of the noise")
    add_device(command)


def run(options: argparse.Namespace) -> int:
    """Compare, print the tables and where the page is."""
    from fststyle.evaluation.compare import compare_files, equality_table, speed_table

    how = said(options, "output", "encoder", "normalize", "iterations", "until_crossed", "device", "seed")
    styles, images = options.style or [], options.style_image or []
    cases, failures = compare_files(options.photos, styles, images, sizes=options.size or [256], **how)
    for head, rows in (equality_table(cases), speed_table(cases)):
        print("\n".join("\t".join(line) for line in [head, *rows]))
    print(user_path(options.output) / "index.html")
    return 1 if failures else 0
