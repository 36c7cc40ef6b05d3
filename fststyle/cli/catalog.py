"""``fststyle styles`` and ``fststyle info``: what is there, and how it came to be."""

from __future__ import annotations

import json

from fststyle.networks.checkpoint import KINDS, find_checkpoint, read_record, shipped


def styles() -> int:
    """List the shipped styles, a line each."""
    known = shipped("style")
    if not known:
        print("no styles came with this installation; train one with fststyle train")
    for name, path in known.items():
        record = read_record(path)
        image, count = record.get("style", {}).get("image", ""), record.get("images", 0)
        print(f"{name:<20} {image:<28} {count:>8,} images  {path.stat().st_size / 1e6:.1f} MB")
    return 0


def info(name_or_path: str, as_json: bool = False) -> int:
    """Print a checkpoint's record."""
    kind = next((kind for kind in KINDS if name_or_path in shipped(kind)), "style")
    path = find_checkpoint(name_or_path, kind)
    record = read_record(path)
    if as_json:
        print(json.dumps(record, indent=2, ensure_ascii=False))
        return 0
    print(f"{path}  ({path.stat().st_size / 1e6:.2f} MB)")
    for key, value in record.items():
        if isinstance(value, dict):
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
