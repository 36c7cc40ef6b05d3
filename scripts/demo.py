"""The whole of fststyle in a few minutes, offline: bundled styles, super-resolution, style swap, a small style trained.

Photographs come from scikit-image. Writes out/demo/index.html and the pictures beside it.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import time
from html import escape
from pathlib import Path

import numpy as np
from skimage import data as pictures

from fststyle import Stylizer, Swapper, save_image
from fststyle.evaluation import page as html
from fststyle.evaluation.superres import measure
from fststyle.images import read_picture, to_image, to_pixels
from fststyle.model_file import all_styles, bundled_files
from fststyle.networks.superres import reduce
from make_gallery import ROOT, enlargers, paintings, title

TRAINED = """A new painting, learned from a bundled style (init_from=starry_night) on generated pictures, with the
bundled encoder (encoder=slim), for minutes instead of hours."""


def photographs() -> dict[str, np.ndarray]:
    """Photographs that scikit-image carries, uint8 (H, W, 3)."""
    return {"astronaut": pictures.astronaut(), "coffee": pictures.coffee(), "chelsea": pictures.chelsea()}


def apply_styles(styles: dict[str, Path], out: Path) -> list[str]:
    """Every bundled style on every photograph: pictures beside the page, and its parts, a grid of them."""
    head, rows = ["photograph"], []
    for photo, pixels in photographs().items():
        save_image(pixels, out / f"{photo}.png")
        told = f"<small>{photo}, {pixels.shape[1]}×{pixels.shape[0]} pixels</small>"
        rows.append([html.thumbnail(pixels, photo, f"{photo}.png") + told])
    for name, path in ((path.stem, path) for path in styles.values()):
        head.append(style_head(name, out))
        stylizer = Stylizer.from_checkpoint(path)
        for row, (photo, pixels) in zip(rows, photographs().items(), strict=True):
            began = time.perf_counter()
            result = stylizer.pixels(pixels)
            seconds = f"{time.perf_counter() - began:.2f} s"
            file, caption = f"{photo}_{name}.png", f"{photo} in the style of {name}"
            save_image(result, out / file)
            row.append(html.thumbnail(result, caption, file) + f"<small>{seconds}</small>")
            print(f"  {caption} in {seconds}")
    told = "Under each picture stands the time of its pass. A picture opens in full size when it is clicked."
    grid = html.picture_grid("Styles by photographs", head, rows)
    return [html.heading("Bundled styles, one pass each"), html.paragraph(told, note=True), grid]


def style_head(name: str, out: Path) -> str:
    """The head of a style's column: its painting where that comes with the project, else who painted what."""
    painting = paintings().get(name.removesuffix("_large"))
    if painting is None:
        return f"{escape(name)}<small>{escape(title(name))}</small>"
    file = f"painting_{painting.name}"
    shutil.copyfile(painting, out / file)
    return html.thumbnail(read_picture(painting).rgb, f"the painting of {name}", file) + escape(name)


def enlarge(models: dict[str, Path], out: Path) -> list[str]:
    """A part of a photograph, reduced, and what makes it large again."""
    original = pictures.astronaut()[:256, 96:352]
    parts = [html.heading("Super-resolution: a photograph reduced and enlarged again")]
    for scale, methods in enlargers(models).items():
        small, figures = to_pixels(reduce(to_image(original), scale)), []
        for name, method in methods.items():
            result = method(small)
            save_image(result, out / f"astronaut_x{scale}_{name}.png")
            figures.append(html.picture(result, f"{name}, {measure(result, original, scale)['psnr']:.2f} dB"))
        figures.append(html.picture(original, f"the original; the input was {small.shape[1]} px wide"))
        parts.append(html.row(figures))
        print(f"  ×{scale}: {', '.join(methods)}")
    return parts


def swap_patches(models: dict[str, Path], out: Path) -> list[str]:
    """A photograph painted with patches of pictures that no network was trained for."""
    swapper = Swapper.from_checkpoint(next(iter(models.values())))
    photo, figures = photographs()["chelsea"], []
    for name, painting in paintings().items():
        result = swapper.pixels(photo, read_picture(painting, 384).rgb)
        save_image(result, out / f"chelsea_swap_{name}.png")
        figures.append(html.picture(result, f"chelsea from patches of {name}"))
        print(f"  {name}")
    return [html.heading("Style swap: any picture as the style, one pass"), html.row(figures)]


def train_small(out: Path, minutes: float) -> list[str]:
    """Train a network for a new style picture, from a bundled style; its pictures and its loss curve as page parts."""
    painting, run = pictures.immunohistochemistry(), out / "run"
    save_image(painting, out / "painting.png")
    shutil.rmtree(run, ignore_errors=True)
    command = [
        *("fststyle", "train", f"style.image={out / 'painting.png'}", "style.name=small"),
        "style.size=320",
        *("experiment=quick", "data=generated", "data.size=128", "data.source.size=160"),
        "task.compile=false",  # it takes most of two minutes, and is worth it in long runs only
        *(f"trainer.max_time={{seconds: {round(minutes * 60)}}}", "trainer.log_every_n_steps=5"),
        *(f"output={run}", "callbacks.previews.every=100"),
    ]
    print("  " + " ".join(command), flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)

    stylizer = Stylizer.from_checkpoint(run / "small.safetensors")
    figures = [html.picture(painting, "the style picture: a stained tissue section")]
    for photo in ("astronaut", "coffee"):
        result = stylizer.pixels(photographs()[photo])
        save_image(result, out / f"{photo}_small.png")
        figures.append(html.picture(result, f"{photo}, by the network trained just now"))
    shown = " ".join(command).replace(str(out), out.name)
    return [
        html.heading(f"Trained just now: {minutes:g} minutes, {stylizer.metadata['steps']} steps"),
        html.paragraph(TRAINED),
        html.paragraph(f"`{shown}`", note=True),
        html.row(figures),
        html.curves(loss_curves(run / "csv" / "metrics.csv"), "step", "loss terms, 1 = not done at all"),
    ]


def loss_curves(metrics: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Total, content and style over steps, from a run's CSV."""
    series: dict[str, tuple[list[float], list[float]]] = {"total": ([], []), "content": ([], []), "style": ([], [])}
    with open(metrics, newline="") as file:
        for line in csv.DictReader(file):
            for name, (steps, values) in series.items():
                columns = [k for k in line if k == f"train/{name}" or k.startswith(f"train/{name}/")]
                terms = [float(line[k]) for k in columns if line[k]]
                if terms:
                    steps.append(float(line["step"]))
                    values.append(sum(terms) / len(terms))
    return series


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=2.0, help="of training")
    options.add_argument("--output", type=Path, default=ROOT / "out" / "demo")
    chosen = options.parse_args()
    out = chosen.output.resolve()
    out.mkdir(parents=True, exist_ok=True)
    parts = []
    for kind, show in {"style": apply_styles, "superres": enlarge, "swap": swap_patches}.items():
        if models := all_styles() if kind == "style" else bundled_files(kind):
            print(show.__name__.replace("_", " "))
            parts += show(models, out)
    print("training a small style")
    parts += train_small(out, chosen.minutes)
    html.write_page(out / "index.html", "fststyle: fast neural style transfer", parts)
    print(f"open {out / 'index.html'}")


if __name__ == "__main__":
    main()
