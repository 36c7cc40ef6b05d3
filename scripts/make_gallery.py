"""Make the gallery: photographs that come with scikit-image, through everything that ships, and checkpoints/README.md.

    python scripts/make_gallery.py

Writes docs/gallery/PHOTO.jpg, docs/gallery/PHOTO_STYLE.jpg (longer side 512 pixels),
docs/gallery/PHOTO_STYLE_1024.jpg, docs/gallery/superres_xN.jpg and docs/gallery/PHOTO_swap_PAINTING.jpg,
and the page that shows them with what the checkpoints and the manifest tell.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data as pictures

from fststyle import Stylizer, Swapper, Upscaler
from fststyle.images import contact_sheet, read_picture, resize_longer_side, to_image, to_pixels, write_atomically
from fststyle.networks.checkpoint import read_record, shipped
from fststyle.networks.superres import reduce
from fststyle.report.preview import mean_term
from fststyle.report.superres import bicubic

ROOT = Path(__file__).resolve().parent.parent
GALLERY = ROOT / "docs" / "gallery"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
SIZES = (512, 1024)
#: Parts of photographs with fine detail, that are reduced and enlarged again: rows and columns.
PARTS = {"astronaut": (slice(0, 192), slice(128, 320)), "chelsea": (slice(40, 232), slice(100, 292))}


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


def enlarged() -> list[str]:
    """Super-resolution's part of the page, and its pictures: enlargements side by side, the original last."""
    models = {name: Upscaler.from_checkpoint(path, precision="float32") for name, path in shipped("superres").items()}
    parts = ["# Super-resolution\n"] if models else []
    for scale in sorted({model.scale for model in models.values()}):
        methods = {"bicubic": bicubic(scale)} | {n: model.pixels for n, model in models.items() if model.scale == scale}
        rows = []
        for photo, (rows_of, columns_of) in PARTS.items():
            original = getattr(pictures, photo)()[rows_of, columns_of]
            small = to_pixels(reduce(to_image(original), scale))
            rows.append([*(method(small) for method in methods.values()), original])
        save(contact_sheet(rows), GALLERY / f"superres_x{scale}.jpg")
        parts.append(f"## ×{scale}\n\n![{', '.join(methods)}, original](../docs/gallery/superres_x{scale}.jpg)\n")
        parts.append(f"From the left: {', '.join(f'`{name}`' for name in methods)}, the original.\n")
    return [*parts, *(plainly(name, path) for name, path in shipped("superres").items())]


def swapped() -> list[str]:
    """Style swap's part of the page, and its pictures: any style, by one network."""
    parts = ["# Style swap\n"] if shipped("swap") else []
    paintings = sorted((ROOT / "checkpoints" / "paintings").glob("*.jpg"))
    for name, path in shipped("swap").items():
        swapper = Swapper.from_checkpoint(path, precision="float32")
        rows = ["| | " + " | ".join(PHOTOGRAPHS) + " |\n|" + "---|" * (len(PHOTOGRAPHS) + 1)]
        for painting in paintings:
            cells = []
            for photo in PHOTOGRAPHS:
                pixels = np.asarray(resize_longer_side(Image.fromarray(getattr(pictures, photo)()), SIZES[0]))
                file = f"{photo}_swap_{painting.stem}.jpg"
                save(swapper.pixels(pixels, read_picture(painting, 384).rgb), GALLERY / file)
                cells.append(f"![{photo}](../docs/gallery/{file})")
            rows.append(f"| {painting.stem} | " + " | ".join(cells) + " |")
        parts += ["\n".join(rows) + "\n", plainly(name, path)]
    return parts


def plainly(name: str, path: Path) -> str:
    """What a checkpoint that is no style tells of itself."""
    record = read_record(path)
    minutes = record["seconds"] / 60
    made = f"{record['steps']:,} steps, {record['images']:,} photographs, {minutes:.0f} min on two CPU cores"
    return f"`{name}`: {made}, {path.stat().st_size / 1e6:.2f} MB\n\n```sh\n{record['command']}\n```\n"


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
    parts += [*enlarged(), *swapped()]
    write_atomically(ROOT / "checkpoints" / "README.md", lambda file: file.write("\n".join(parts).encode()))


if __name__ == "__main__":
    main()
