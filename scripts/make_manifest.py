"""Write checkpoints/manifest.json: what is bundled, with hash, size, the command that made it, and figures.

    python scripts/make_manifest.py

The figures that training measured on held-out photographs stand in each checkpoint. Figures that were measured
otherwise are written into the manifest by hand, and kept as long as the model file's hash is still the one that they
were measured on.
"""

from __future__ import annotations

import json
from typing import Any

from fststyle.model_file import KINDS, bundled_files, read_metadata
from fststyle.resources import file_sha256, resource


def main() -> None:
    manifest = resource("checkpoints") / "manifest.json"
    before = json.loads(manifest.read_text()) if manifest.exists() else {}
    entries: dict[str, dict[str, Any]] = {}
    for kind, folder in KINDS.items():
        for path in bundled_files(kind).values():
            name, metadata, digest = f"{folder}/{path.name}", read_metadata(path), file_sha256(path)
            old = before.get(name, {})
            entries[name] = {
                **{"kind": metadata["kind"], "sha256": digest, "bytes": path.stat().st_size},
                **{key: metadata.get(key) for key in ("command", "steps", "images", "held_out")},
                "figures": old.get("figures", {}) if old.get("sha256") == digest else {},
            }
            print(f"{name}: {entries[name]['bytes']:,} bytes")
    manifest.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
