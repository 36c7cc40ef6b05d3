"""Write checkpoints/manifest.json: what is bundled, with hash, size, the command that made it, and figures.

    python scripts/make_manifest.py [--figures FILE.json]

The figures that training measured on held-out photographs stand in each checkpoint. Figures that
were measured otherwise come from a JSON file {checkpoint name: {figure: value}} and are kept from the
manifest before, as long as the model file's hash is still the one that they were measured on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fststyle.model_file import KINDS, read_metadata
from fststyle.resources import file_sha256

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"


def entry(path: Path, before: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """One checkpoint's entry."""
    metadata, digest = read_metadata(path), file_sha256(path)
    kept = before.get("figures", {}) if before.get("sha256") == digest else {}
    return {
        "kind": metadata["kind"],
        "sha256": digest,
        "bytes": path.stat().st_size,
        "command": metadata.get("command"),
        "steps": metadata.get("steps"),
        "images": metadata.get("images"),
        "held_out": metadata.get("held_out"),
        "figures": {**kept, **figures},
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--figures", type=Path)
    chosen = options.parse_args()
    manifest = CHECKPOINTS / "manifest.json"
    before = json.loads(manifest.read_text()) if manifest.exists() else {}
    figures = json.loads(chosen.figures.read_text()) if chosen.figures else {}
    entries = {}
    for folder in KINDS.values():
        for path in sorted((CHECKPOINTS / folder).glob("*.safetensors")):
            name = f"{folder}/{path.name}"
            entries[name] = entry(path, before.get(name, {}), figures.get(path.stem, {}))
            print(f"{name}: {entries[name]['bytes']:,} bytes")
    manifest.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
