"""``fststyle export``: a style for other programs."""

from __future__ import annotations

import argparse

from fststyle.images import ImageError, check_writable
from fststyle.model_file import check_kind, find_model_file
from fststyle.resources import user_path, working


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("style", metavar="NAME_OR_FILE", help="a bundled style or a model file")
    command.add_argument("--format", required=True, choices=("onnx", "openvino", "pt2"))
    command.add_argument("-o", "--output", metavar="OUT", help="a file or a folder; default: the style's name, here")
    command.add_argument("--overwrite", action="store_true", help="replace a file that is there already")


def run(options: argparse.Namespace) -> int:
    """Check where it goes, export, print the files."""
    path = find_model_file(options.style, "style")
    name = check_kind(path, "style")["name"]
    from fststyle.inference.export import FORMATS, export
    from fststyle.model_file import load_model_file

    endings = FORMATS[options.format]
    target = user_path(options.output or ".")
    if target.is_dir() or not target.suffix:
        target = target / f"{name}{endings[0]}"
    if target.suffix != endings[0]:
        raise ImageError(f"{target}: a file of format {options.format} ends in {endings[0]}")
    existing = [str(file) for file in map(target.with_suffix, endings) if file.exists()]
    if existing and not options.overwrite:
        raise ImageError(f"{', '.join(existing)} exists already; replace it with --overwrite, or choose another -o")
    check_writable(target.parent)
    network = load_model_file(path, "style").network
    with working(f"the export of {name}"):
        for file in export(network, target, options.format):
            print(file)
    return 0
