"""``fststyle merge``: several model files whose styles share their convolutions, joined into one."""

from __future__ import annotations

import argparse


def add_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "files",
        nargs="+",
        metavar="NAME_OR_FILE",
        help="of norms alone, of one style, of several, or FILE/STYLE; all with the same convolutions",
    )
    add("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    add("--overwrite", action="store_true", help="replace the file that is there")


def run(options: argparse.Namespace) -> int:
    """Join model files."""
    from fststyle.merging import merge_files
    from fststyle.model_file import find_model_file
    from fststyle.training.thumbnails import thumbnail

    paths = [find_model_file(name, "style") for name in options.files]
    names = merge_files(paths, options.output, overwrite=options.overwrite, thumbnail=thumbnail)
    print(f"{options.output}: {', '.join(names)}")
    return 0
