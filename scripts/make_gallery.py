"""Make the gallery: photographs that come with scikit-image, in every shipped style, and checkpoints/README.md.

    python scripts/make_gallery.py

Writes docs/gallery/PHOTO.jpg, docs/gallery/PHOTO_STYLE.jpg (longer side 512 pixels) and
docs/gallery/PHOTO_STYLE_1024.jpg, and the page that shows them with what the checkpoints and the
manifest tell of every style.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data as pictures

from fststyle import Stylizer
from fststyle.images import resize_longer_side, to_image, to_pixels, write_atomically
from fststyle.networks.checkpoint import read_record, shipped
from fststyle.report.preview import mean_term

ROOT = Path(__file__).resolve().parent.parent
GALLERY = ROOT / "docs" / "gallery"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
SIZES = (512, 1024)


def save(pixels: np.ndarray, path: Path) -> None:
    """As a JPEG small enough for a repository."""
    write_atomically(path, lambda file: Image.fromarray(pixels).save(file, "JPEG", quality=82, optimize=True))
    print(path)


def section(name: str, record: dict[str, Any], figures: dict[str, Any]) -> str:
    """One style's part of the page."""
    held_out, scores = record["held_out"], record.get("health", {})
    told = [
        f"held out: style {mean_term(held_out, 'style'):.3f}, content {mean_term(held_out, 'content'):.3f}",
        f"{record['steps']:,} steps, {record['images']:,} photographs"
        + (f", {record['seconds'] / 60:.0f} min on two CPU cores" if record.get("seconds") else ""),
        *(f"{key}: {value}" for key, value in figures.items()),
        "health: " + ", ".join(f"{key} {value:.2g}" for key, value in scores.items()),
    ]
    rows = []
    for size in SIZES:
        ending = "" if size == SIZES[0] else f"_{size}"
        cells = [f"![{photo}, {size} px](../docs/gallery/{photo}_{name}{ending}.jpg)" for photo in PHOTOGRAPHS]
        rows.append(f"| {size} px | " + " | ".join(cells) + " |")
    head = "| | " + " | ".join(PHOTOGRAPHS) + " |\n|" + "---|" * (len(PHOTOGRAPHS) + 1)
    listed = "\n".join(f"- {line}" for line in told)
    return f"## `{name}`\n\n{head}\n" + "\n".join(rows) + f"\n\n{listed}\n\n```sh\n{record['command']}\n```\n"


def main() -> None:
    GALLERY.mkdir(parents=True, exist_ok=True)
    stylizers = {name: Stylizer.from_checkpoint(path, precision="float32") for name, path in shipped("style").items()}
    for photo in PHOTOGRAPHS:
        for size in SIZES:
            pixels = np.asarray(resize_longer_side(Image.fromarray(getattr(pictures, photo)()), size))
            ending = "" if size == SIZES[0] else f"_{size}"
            if not ending:
                save(pixels, GALLERY / f"{photo}.jpg")
            for name, stylizer in stylizers.items():
                save(to_pixels(stylizer(to_image(pixels))), GALLERY / f"{photo}_{name}{ending}.jpg")
    manifest = json.loads((ROOT / "checkpoints" / "manifest.json").read_text(encoding="utf-8"))
    parts = [
        "# What ships\n",
        "Written by `scripts/make_gallery.py` from what the files and `manifest.json` tell. The photographs come with "
        "scikit-image. Style is 1 for a photograph that was not stylised, content 1 for another photograph.\n",
    ]
    for name, path in shipped("style").items():
        figures = manifest.get(f"styles/{path.name}", {}).get("figures", {})
        parts.append(section(name, read_record(path), figures))
    write_atomically(ROOT / "checkpoints" / "README.md", lambda file: file.write("\n".join(parts).encode()))


if __name__ == "__main__":
    main()
