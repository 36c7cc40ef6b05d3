"""``fststyle info``: what a model file is, and how it came to be."""

from __future__ import annotations

import argparse

from fststyle.model_file import find_model_file, json_text, kind_of, read_metadata, style_names
from fststyle.tensor_files import split_path


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", metavar="NAME_OR_FILE")
    command.add_argument("--json", action="store_true", help="the whole metadata as JSON")


def run(options: argparse.Namespace) -> int:
    """Print a model file's metadata."""
    path = find_model_file(options.checkpoint, kind_of(options.checkpoint))
    metadata, file = read_metadata(path), split_path(path)[0]
    if options.json:
        print(json_text(metadata, indent=2))
        return 0
    print(f"{path}  ({file.stat().st_size / 1e6:.2f} MB)")
    for key, value in metadata.items():
        if key == "styles":
            print(f"{key:<20} {', '.join(style_names(metadata))} ({options.checkpoint}/STYLE tells more)")
        elif isinstance(value, dict):
            print(f"{key}:")
            for inner, text in value.items():
                print(f"  {inner:<18} {_short(text)}")
        else:
            print(f"{key:<20} {_short(value)}")
    return 0


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_short(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_short(v) for v in value)
    return f"{value:.5g}" if isinstance(value, float) else str(value)
