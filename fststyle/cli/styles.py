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
        entries = metadata.get("styles", [])
        about = f"{len(entries)} styles" if entries else image
        print(f"{name:<25} {about:<23} {count:>8,} images  {path.stat().st_size / 1e6:.1f} MB")
        for entry in entries:
            style = f"  {name}/{entry['name']}"
            print(f"{style:<25} {entry.get('style', {}).get('image', '')}".rstrip())
    return 0
