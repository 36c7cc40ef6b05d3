"""``fststyle export``: a style for other programs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from fststyle.checks import check_name, check_path
from fststyle.images import ImageError, check_writable
from fststyle.model_file import ModelFileError, find_model_file, kind_of, read_metadata, style_names
from fststyle.resources import working


def add_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("style", metavar="NAME_OR_FILE", help="a bundled style or super-resolution network, or a model file")
    add("--format", required=True, choices=("onnx", "openvino", "pt2"))
    add("-o", "--output", metavar="OUT", help="a file or a folder; default: the style's name, here")
    add("--overwrite", action="store_true", help="replace a file that is there already")


def run(options: argparse.Namespace) -> int:
    """Check where it goes, export, print the files."""
    path = find_model_file(options.style, kind_of(options.style))
    metadata = read_metadata(path)
    name = metadata["name"]
    if metadata["kind"] not in ("style", "superres"):
        raise ModelFileError(
            f"{path}: is a model file of kind {metadata['kind']!r}, which is not exported; "
            "expected kind 'style' or 'superres'"
        )
    from fststyle.inference.export import FORMATS, export

    endings = FORMATS[options.format]
    target = Path() if options.output is None else check_path(options.output, "output")
    if target.is_dir() or not target.suffix:
        target = target / f"{check_name(name, f'the name in {path}', endings[0])}{endings[0]}"
    if target.suffix != endings[0]:
        raise ImageError(f"{target}: a file of format {options.format} ends in {endings[0]}")
    for ending in endings:
        check_path(target.with_suffix(ending), "output")
    check_writable(target.parent)
    existing = [str(file) for file in map(target.with_suffix, endings) if os.path.lexists(file)]
    if any(map(os.path.isdir, existing)):
        raise ImageError(f"{', '.join(existing)}: is a folder; choose another -o")
    if existing and not options.overwrite:
        raise ImageError(f"{', '.join(existing)} exists already; replace it with --overwrite, or choose another -o")
    with working(f"the export of {name}"):
        for file in export(path, target, options.format):
            print(file)
    if "styles" in metadata:
        print(f"second input: weights (batch, {len(style_names(metadata))}) of {', '.join(style_names(metadata))}")
    return 0
