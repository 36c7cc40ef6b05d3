"""``fststyle styles``: what came with the installation."""

from __future__ import annotations

import argparse

from fststyle.model_file import bundled_files, read_metadata


def add_arguments(_: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    """List the bundled styles, a line each."""
    known = bundled_files("style")
    if not known:
        print("no styles came with this installation; train one with fststyle train")
    for name, path in known.items():
        metadata = read_metadata(path)
        image = metadata.get("style", {}).get("image", "")
        runs = [metadata, *(run for run in metadata.get("history") or [] if isinstance(run, dict))]
        count = sum(run.get("images", 0) for run in runs)  # in all the trainings that the file has had
        print(f"{name:<20} {image:<28} {count:>8,} images  {path.stat().st_size / 1e6:.1f} MB")
    return 0
