"""The whole of fststyle in a few minutes, offline: apply a shipped style, train a small one, look at both.

Photographs come from scikit-image. Writes out/demo/index.html and the pictures beside it.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from skimage import data as pictures

from fststyle import Stylizer, save_image
from fststyle.images import to_image, to_pixels
from fststyle.networks.checkpoint import shipped
from fststyle.report import page as html

ROOT = Path(__file__).resolve().parent.parent


def photographs() -> dict[str, np.ndarray]:
    """Photographs that scikit-image carries, uint8 (H, W, 3)."""
    return {"astronaut": pictures.astronaut(), "coffee": pictures.coffee(), "chelsea": pictures.chelsea()}


def apply_styles(styles: dict[str, Path], out: Path) -> list[str]:
    """Every shipped style on every photograph: pictures beside the page, and its parts."""
    parts = [html.heading("Shipped styles, one pass each")]
    for name, path in styles.items():
        stylizer = Stylizer.from_checkpoint(path)
        for photo, pixels in photographs().items():
            began = time.perf_counter()
            result = to_pixels(stylizer(to_image(pixels)))
            seconds = time.perf_counter() - began
            save_image(result, out / f"{photo}_{name}.png")
            height, width = pixels.shape[:2]
            caption = f"{photo} in the style of {name}, {width}×{height} pixels in {seconds:.2f} s"
            parts.append(html.row([html.picture(pixels, photo), html.picture(result, caption)]))
            print(f"  {caption}")
    if not styles:
        parts.append(html.paragraph("No style came with this installation."))
    return parts


def train_small(out: Path, minutes: float) -> list[str]:
    """Train a quarter-width network for a few minutes; its pictures and its loss curve as parts of the page."""
    painting = pictures.immunohistochemistry()
    save_image(painting, out / "painting.png")
    run = out / "run"
    shutil.rmtree(run, ignore_errors=True)
    command = [
        *("fststyle", "train", f"style.image={out / 'painting.png'}", "style.name=small", "style.size=256"),
        *("encoder=slim", "data=generated", "data.size=128", "data.source.size=160"),
        *("network=resnet_half", "network.width=12", "task.learning_rate=2e-3", "calibration_photographs=64"),
        *(f"trainer.max_time={{seconds: {round(minutes * 60)}}}", "trainer.log_every_n_steps=5", "average=0.99"),
        *(f"output={run}", "previews.every=100"),
    ]
    print("  " + " ".join(command), flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)

    stylizer = Stylizer.from_checkpoint(run / "small.safetensors")
    figures = [html.picture(painting, "the style picture: a stained tissue section")]
    for photo in ("astronaut", "coffee"):
        result = to_pixels(stylizer(to_image(photographs()[photo])))
        save_image(result, out / f"{photo}_small.png")
        figures.append(html.picture(result, f"{photo}, by the network trained just now"))
    steps = stylizer.record["steps"]
    shown = " ".join(command).replace(str(out), out.name)
    return [
        html.heading(f"Trained just now: {minutes:g} minutes, {steps} steps"),
        html.paragraph(
            "Judged by the small encoder that comes with fststyle (encoder=slim), on generated pictures, by a network "
            "of a sixth of the arithmetic, for minutes instead of hours: the shipped styles above had more of each."
        ),
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
    print("applying the shipped styles")
    parts = apply_styles(shipped("style"), out)
    print("training a small style")
    parts += train_small(out, chosen.minutes)
    (out / "index.html").write_text(html.page("fststyle: fast neural style transfer", parts), encoding="utf-8")
    print(f"open {out / 'index.html'}")


if __name__ == "__main__":
    main()
