"""``fststyle export``: a style for other programs."""

from __future__ import annotations

import argparse

from fststyle.model_file import find_model_file, kind_of, read_metadata, style_names


def add_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("style", metavar="NAME_OR_FILE", help="a bundled style or super-resolution network, or a model file")
    add("--format", required=True, choices=("onnx", "openvino", "pt2"))
    add("-o", "--output", metavar="OUT", help="a file or a folder; default: the style's name, here")
    add("--overwrite", action="store_true", help="replace a file that is there already")


def run(options: argparse.Namespace) -> int:
    """Export, print the files and what a graph of several styles takes."""
    from fststyle.inference.export import export_file

    print(*export_file(options.style, options.format, options.output, options.overwrite), sep="\n")
    metadata = read_metadata(find_model_file(options.style, kind_of(options.style)))
    if "styles" in metadata:
        print(f"second input: weights (batch, {len(style_names(metadata))}) of {', '.join(style_names(metadata))}")
    return 0
