"""``fststyle styles``: what came with the installation."""

from __future__ import annotations

import argparse

from fststyle.networks.checkpoint import read_record, shipped


def add_arguments(_: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    """List the shipped styles, a line each."""
    known = shipped("style")
    if not known:
        print("no styles came with this installation; train one with fststyle train")
    for name, path in known.items():
        record = read_record(path)
        image, count = record.get("style", {}).get("image", ""), record.get("images", 0)
        print(f"{name:<20} {image:<28} {count:>8,} images  {path.stat().st_size / 1e6:.1f} MB")
    return 0
