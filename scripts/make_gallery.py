"""Make what tells of the bundled models: the gallery, checkpoints/README.md and checkpoints/manifest.json.

    python scripts/make_gallery.py
    python scripts/make_gallery.py --pictures styles
    python scripts/make_gallery.py --pictures

The first makes everything anew, the second the styles' pictures, page and manifest, the third page and manifest alone.

Writes docs/gallery/PHOTO.jpg, docs/gallery/PHOTO_STYLE.jpg (longer side 512 pixels), docs/gallery/PHOTO_STYLE_1024.jpg,
docs/gallery/PHOTO_NAME.jpg with all styles of a file of several, docs/gallery/superres_xN.jpg and
docs/gallery/PHOTO_swap_PAINTING.jpg, the page that shows them with the metadata of the model files, and the manifest:
of each file hash, size, the command that made it, and figures. All is computed in float32 by PyTorch on one CPU thread:
a retrained style is not converted for another backend first.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data as pictures
from sklearn.datasets import load_sample_image

from fststyle import Stylizer, Swapper, Upscaler
from fststyle.evaluation.superres import bicubic
from fststyle.images import (
    contact_sheet,
    read_picture,
    resize_longer_side,
    to_image,
    to_pixels,
    write_atomically,
)
from fststyle.inference.options import PLAIN
from fststyle.inference.predictor import predicted_style
from fststyle.inference.sheet import style_sheet
from fststyle.losses import mean_term
from fststyle.model_file import KINDS, bundled_files, read_metadata, style_names
from fststyle.networks.superres import reduce
from fststyle.resources import file_sha256

PHOTOGRAPHS = ("astronaut", "chelsea", "china")
#: Device, backend and precision.
COMPUTED_BY = ("cpu", "torch", "float32")
#: Longer side in pixels of the pictures that the page shows.
SHOWN = 512
#: What follows a stylised picture's name, and its longer side: one to show, one to open.
SIZES = {"": SHOWN, "_1024": 1024}
#: Columns of a table that still fit the width at which GitHub shows a page.
ACROSS = 4
#: Parts of photographs with fine detail, that are reduced and enlarged again: rows and columns.
PARTS = {"astronaut": (slice(0, 192), slice(128, 320)), "chelsea": (slice(40, 232), slice(100, 292))}
INTRODUCTION = """# Bundled models

Written by `scripts/make_gallery.py` from the model files. The photographs shown here come with scikit-image and
scikit-learn.

All models were trained on the same 1,292 photographs, from
[EliSchwartz/imagenet-sample-images](https://github.com/EliSchwartz/imagenet-sample-images) and from the training and
test sets of [BSDS500](https://github.com/BIDS/BSDS500). Their terms are research use; none is part of this repository.

Steps, images and minutes are those of a model's last training run. A run with `init_from` continued another model's;
`fststyle info NAME --json` prints them all.
"""
MEASURED = """Held-out terms are means over the layers of the training objective, on photographs held out from training:
style is 1 for a photograph that was not stylised, content is 1 for another photograph. They measure that objective, not
how good a picture looks.
"""

PREDICTED = """`--style PICTURE` predicts a style of any picture, without training. What predicts has seen none of these
pictures (the zoo, whose convolutions it began with, has): it was trained on pictures of
`scripts/paint_random.py`, and on photographs.
"""

#: A model's metadata, and what enlarges a picture, uint8 (H, W, 3).
Metadata = dict[str, Any]
Enlarge = Callable[[np.ndarray], np.ndarray]
ROOT = Path(__file__).resolve().parent.parent


def paintings() -> dict[str, Path]:
    """The style pictures that come with the project: style to file."""
    return {file.stem: file for file in sorted((ROOT / "checkpoints" / "paintings").glob("*.jpg"))}


def title(style: str) -> str:
    """Artist, title and year of a painting to provide, from the first line of ``conf/style/STYLE.yaml``; else ''."""
    config = ROOT / "conf" / "style" / f"{style}.yaml"
    first = config.read_text(encoding="utf-8").partition("\n")[0] if config.is_file() else ""
    named = re.fullmatch(r"# Provide a picture of (.+): style\.image=FILE", first)
    return named[1] if named else ""


def enlargers(models: Mapping[str, Path], *how: Any) -> dict[int, dict[str, Enlarge]]:
    """Scale to name to what enlarges so many times; ``how``: device, backend and precision, as ``Upscaler`` takes."""
    found: dict[int, dict[str, Enlarge]] = {}
    for name, path in models.items():
        upscaler = Upscaler.from_checkpoint(path, *how)
        found.setdefault(upscaler.scale, {"bicubic": bicubic(upscaler.scale)})[name] = upscaler.pixels
    return dict(sorted(found.items()))


# --- the pictures ---------------------------------------------------------------------------------


def original(name: str) -> Image.Image:
    """A photograph of scikit-image or scikit-learn."""
    return Image.fromarray(load_sample_image("china.jpg") if name == "china" else getattr(pictures, name)())


def photograph(name: str, size: int) -> np.ndarray:
    """The same with a longer side of ``size`` pixels; uint8 (H, W, 3)."""
    return np.asarray(resize_longer_side(original(name), size))


def save(pixels: np.ndarray, path: Path) -> None:
    """As a JPEG small enough for a repository."""
    write_atomically(path, lambda file: Image.fromarray(pixels).save(file, "JPEG", quality=82, optimize=True))
    print(path, flush=True)


def style_files(several: bool) -> dict[str, Path]:
    """The bundled files of several styles, or those of one."""
    return {name: path for name, path in bundled_files("style").items() if several == ("styles" in read_metadata(path))}


def stylise(folder: Path) -> None:
    """The photographs, each in every bundled style at both sizes, and a sheet for each file of several."""
    for photo in PHOTOGRAPHS:
        save(photograph(photo, SHOWN), folder / f"{photo}.jpg")
    for name, path in style_files(several=True).items():
        styles = [str(path / style) for style in style_names(read_metadata(path))]
        for photo in PHOTOGRAPHS:
            with TemporaryDirectory() as unpacked:
                original(photo).save(Path(unpacked) / "photo.png")
                sheet = style_sheet(
                    Path(unpacked) / "photo.png", styles, Path(unpacked) / "sheet.png", 320, PLAIN, *COMPUTED_BY
                )
                save(read_picture(sheet).rgb, folder / f"{photo}_{name}.jpg")
    for name, path in style_files(several=False).items():
        stylizer = Stylizer.from_checkpoint(path, *COMPUTED_BY)
        for ending, size in SIZES.items():
            for photo in PHOTOGRAPHS:
                save(stylizer.pixels(photograph(photo, size)), folder / f"{photo}_{name}{ending}.jpg")


def enlarge(folder: Path) -> None:
    """Parts of photographs, reduced and enlarged by every method of a scale: side by side, the original last."""
    for scale, methods in enlargers(bundled_files("superres"), *COMPUTED_BY).items():
        rows = []
        for photo, part in PARTS.items():
            whole = np.asarray(original(photo))[part]
            small = to_pixels(reduce(to_image(whole), scale))
            rows.append([*(method(small) for method in methods.values()), whole])
        save(contact_sheet(rows), folder / f"superres_x{scale}.jpg")


def swap(folder: Path) -> None:
    """The photographs with the patches of every painting that comes with the project."""
    for path in bundled_files("swap").values():
        swapper = Swapper.from_checkpoint(path, "cpu", "float32")
        for name, painting in paintings().items():
            for photo in PHOTOGRAPHS:
                result = swapper.pixels(photograph(photo, SHOWN), read_picture(painting, 384).rgb)
                save(result, folder / f"{photo}_swap_{name}.jpg")


def predict(folder: Path) -> None:
    """The photographs in the styles that are predicted of the paintings that come with the project."""
    for model, path in bundled_files("arbitrary").items():
        for name, painting in paintings().items():
            stylizer = Stylizer.from_checkpoint(predicted_style(painting, str(path)), *COMPUTED_BY)
            for photo in PHOTOGRAPHS:
                save(stylizer.pixels(photograph(photo, SHOWN)), folder / f"{photo}_{model}_{name}.jpg")


MAKERS = {"styles": stylise, "arbitrary": predict, "superres": enlarge, "swap": swap}


# --- the page -------------------------------------------------------------------------------------


def head(style: str) -> str:
    """A style's column head: its painting where that comes with the project, else who painted what; and its name."""
    painting = paintings().get(style)
    above = f"![the painting of {style}](paintings/{painting.name})" if painting else title(style)
    return f"{above}<br>`{style}`" if above else f"`{style}`"


def grids(styles: list[str], cell: str) -> str:
    """Tables of at most ``ACROSS`` styles each, as even as can be: photographs down, styles across.

    Args:
        styles: names.
        cell: what stands there, with {0} for the photograph and {1} for the style.
    """
    parts, tables = [], -(-len(styles) // ACROSS)
    for number in range(tables):
        group = styles[number * len(styles) // tables : (number + 1) * len(styles) // tables]
        lines = ["| photograph | " + " | ".join(map(head, group)) + " |", "|" + "---|" * (len(group) + 1)]
        for photo in PHOTOGRAPHS:
            cells = [f"![{photo}](../docs/gallery/{photo}.jpg)", *(cell.format(photo, style) for style in group)]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def figures(models: Mapping[str, Metadata], columns: Mapping[str, Callable[[Metadata], str]]) -> str:
    """A table of what the metadata of models says, a row each; what is missing stays empty."""
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, metadata in models.items():
        lines.append(f"| `{name}` | " + " | ".join(told(metadata) for told in columns.values()) + " |")
    return "\n".join(lines) + "\n"


def count(key: str, unit: float = 1) -> Callable[[Metadata], str]:
    """A whole number of the metadata, or nothing."""
    return lambda metadata: f"{metadata[key] / unit:,.0f}" if metadata.get(key) else ""


def held_out(kind: str) -> Callable[[Metadata], str]:
    """The mean held-out term of a kind, or nothing."""
    return lambda metadata: f"{mean_term(metadata.get('held_out') or {}, kind):.3f}".replace("nan", "")


TRAINED = {"steps": count("steps"), "images": count("images"), "minutes": count("seconds", 60)}
HELD_OUT = {"held-out style": held_out("style"), "held-out content": held_out("content")}


def commands(models: Mapping[str, Metadata]) -> str:
    """The command of every model's last training, and its artifact diagnostics, folded."""
    parts = ["<details><summary>The commands that trained them, in the words of their time (CHANGELOG.md)</summary>\n"]
    for name, metadata in models.items():
        scores = ", ".join(f"{key} {value:.2g}" for key, value in (metadata.get("diagnostics") or {}).items())
        parts.append(f"`{name}`" + (f" (artifact diagnostics: {scores})" if scores else "") + "\n")
        parts.append(f"```sh\n{metadata.get('command', '')}\n```\n")
    return "\n".join([*parts, "</details>\n"])


def page() -> str:
    """checkpoints/README.md."""
    parts = [INTRODUCTION]
    records = {kind: {n: read_metadata(p) for n, p in bundled_files(kind).items()} for kind in KINDS}
    if styles := records["style"]:
        cell = "[![{0} in the style of {1}](../docs/gallery/{0}_{1}.jpg)](../docs/gallery/{0}_{1}_1024.jpg)"
        larger = "A stylised picture opens with a longer side of 1024 pixels when it is clicked.\n"
        parts += ["## Styles\n", larger, grids(list(style_files(several=False)), cell)]
        for name in style_files(several=True):
            names = style_names(styles[name])
            parts += [
                f"## {len(names)} styles in one file: `{name}`\n",
                f"`--style {name}/{names[0]}` takes one of them.\n",
            ]
            parts += [
                f"![{photo} in all styles of {name}](../docs/gallery/{photo}_{name}.jpg)\n" for photo in PHOTOGRAPHS
            ]
        parts += [figures(styles, TRAINED | HELD_OUT), MEASURED, commands(styles)]
    for name, metadata in records["arbitrary"].items():
        cell = f"![{{0}} in the style predicted of {{1}}](../docs/gallery/{{0}}_{name}_{{1}}.jpg)"
        parts += [f"## Any painting: `{name}`\n", PREDICTED, grids(list(paintings()), cell)]
        parts += [figures({name: metadata}, TRAINED), commands({name: metadata})]
    if models := records["superres"]:
        parts.append("## Super-resolution\n")
        for scale, methods in enlargers(bundled_files("superres"), *COMPUTED_BY).items():
            parts.append(f"![{', '.join(methods)}, original](../docs/gallery/superres_x{scale}.jpg)\n")
            parts.append(f"×{scale}, from the left: {', '.join(f'`{name}`' for name in methods)}, the original.\n")
        parts += [figures(models, TRAINED), commands(models)]
    if models := records["swap"]:
        cell = "![{0} with patches of {1}](../docs/gallery/{0}_swap_{1}.jpg)"
        parts += ["## Style swap\n", grids(list(paintings()), cell), figures(models, TRAINED), commands(models)]
    return "\n".join(parts)


def manifest(before: dict[str, Metadata]) -> dict[str, Metadata]:
    """checkpoints/manifest.json; ``before``: as it is.

    Figures that training measured on held-out photographs stand in each model file. Figures that were measured
    otherwise are written into the manifest by hand, and kept as long as the file is the one that they were measured on.
    """
    entries: dict[str, Metadata] = {}
    for kind, folder in KINDS.items():
        for path in bundled_files(kind).values():
            metadata, digest, old = read_metadata(path), file_sha256(path), before.get(f"{folder}/{path.name}", {})
            entries[f"{folder}/{path.name}"] = {
                **{"kind": metadata["kind"], "sha256": digest, "bytes": path.stat().st_size},
                **{key: metadata.get(key) for key in ("command", "steps", "images", "held_out")},
                "figures": old.get("figures", {}) if old.get("sha256") == digest else {},
            }
    return entries


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pictures", nargs="*", choices=MAKERS, default=list(MAKERS), help="to make; all by default")
    options.add_argument("--root", type=Path, default=ROOT, help="where docs/ and checkpoints/ are written")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    gallery, readme = chosen.root / "docs" / "gallery", chosen.root / "checkpoints" / "README.md"
    for folder in (gallery, readme.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for name in chosen.pictures:
        MAKERS[name](gallery)
    write_atomically(readme, lambda file: file.write(page().encode()))
    listed = readme.with_name("manifest.json")
    entries = manifest(json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else {})
    listed.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{readme}\n{listed}")


if __name__ == "__main__":
    main()
