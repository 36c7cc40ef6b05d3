"""What the defaults of training rest on: the same short run with one choice changed, side by side.

    python scripts/ablation.py choices --style STYLE --photo P … [--json FILE] [--picture FILE] OVERRIDE …
    python scripts/ablation.py warm --style STYLE --from OTHER [--json FILE] OVERRIDE …

``choices`` trains every variant from scratch and judges all of them by one loss, whatever each was
trained with. ``warm`` trains a style from scratch, and from another style in a third of the steps, each
with its own schedule, and compares what is held out. Runs that finished are kept, so either can be cut
off and called again. The overrides are those of ``fststyle train``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data as pictures

from fststyle import health
from fststyle.cli.parts import preset_loss
from fststyle.images import load_image, resize_longer_side, to_image, to_pixels, write_atomically
from fststyle.networks.checkpoint import load_checkpoint, read_record
from fststyle.networks.pretrained import load_encoder
from fststyle.report.preview import mean_term

#: One choice changed in each; the content layers' weights keep their sum.
VARIANTS = {
    "default": [],
    "content_relu2_2": ["loss.content_layers={relu2_2: 1.6, relu3_3: 0.0}"],
    "content_relu3_3": ["loss.content_layers={relu2_2: 0.0, relu3_3: 1.6}"],
    "crops_512": ["data.size=512", "data.batch_size=1"],
    "transposed": ["network.upsampling=transposed"],
    "tanh": ["network.output=tanh"],
    "no_checkerboard_term": ["task.checkerboard_weight=0"],
    "transposed_no_term": ["network.upsampling=transposed", "task.checkerboard_weight=0"],
}
SHOWN = ("astronaut", "chelsea")


def trained(folder: Path, name: str, overrides: list[str]) -> Path:
    """The exported file of a run, which is made unless it is there."""
    exported = folder / name / f"{name}.safetensors"
    if not exported.is_file():
        print(f"training {name}", flush=True)
        words = [*overrides, f"style.name={name}", f"output={folder / name}", "overwrite=true"]
        with open(folder / f"{name}.log", "w") as log:
            subprocess.run(
                [sys.executable, "-m", "fststyle", "train", *words], check=True, stdout=log, stderr=subprocess.STDOUT
            )
    return exported


@torch.no_grad()
def judged(file: Path, judge: Any, style: dict[str, torch.Tensor], photos: list[torch.Tensor]) -> dict[str, float]:
    """Terms by the common loss, means over the photographs, and health scores."""
    network = load_checkpoint(file, "style").network
    terms = [
        judge(network(photo).clamp(0, 1), content=judge.content_targets(photo), style=style).scalars()
        for photo in photos
    ]
    mean = {key: float(np.mean([float(one[key]) for one in terms])) for key in terms[0]}
    scores = health.scores(network, photos[0])
    return {
        "style": mean_term(mean, "style"),
        "content/relu2_2": mean["content/relu2_2"],
        "content/relu3_3": mean["content/relu3_3"],
        **{f"health/{name}": score for name, score in scores.items()},
        "minutes": read_record(file)["seconds"] / 60,
    }


def choices(chosen: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """Every variant, judged; and a picture of them: photographs in rows, variants in columns."""
    files = {
        name: trained(chosen.output, name, [*overrides, f"steps={chosen.steps}", *changes])
        for name, changes in VARIANTS.items()
        if not chosen.only or name in chosen.only
    }
    record = read_record(next(iter(files.values())))
    judge = preset_loss(load_encoder("vgg19", "slim"), content_layers={"relu2_2": 1.0, "relu3_3": 1.0})
    targets = judge.style_targets(load_image(chosen.painting, record["style"]["size"]))
    judge.calibrate(None, targets)
    photos = [load_image(photo, chosen.size) for photo in chosen.photo]
    found = {name: judged(file, judge, targets, photos) for name, file in files.items()}
    for name, figures in found.items():
        print(name, {key: round(value, 3) for key, value in figures.items()}, flush=True)
    if chosen.picture:
        rows = []
        for photo in SHOWN:
            image = to_image(np.asarray(resize_longer_side(Image.fromarray(getattr(pictures, photo)()), chosen.shown)))
            with torch.no_grad():
                row = [to_pixels(load_checkpoint(file, "style").network(image)) for file in files.values()]
            rows.append(np.concatenate(row, axis=1))
        width = max(row.shape[1] for row in rows)
        rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
        sheet = Image.fromarray(np.concatenate(rows))
        write_atomically(chosen.picture, lambda file: sheet.save(file, "JPEG", quality=84, optimize=True))
    return found


def warm(chosen: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """The held-out objective from scratch, and from another style in a third of the steps."""
    steps = chosen.steps
    runs = {
        f"{chosen.style}_scratch_{steps}": [f"steps={steps}"],
        f"{chosen.style}_from_{chosen.start}_{steps // 3}": [f"init_from={chosen.start}", f"steps={steps // 3}"],
    }
    found = {name: read_record(trained(chosen.output, name, [*overrides, *more])) for name, more in runs.items()}
    figures = {
        name: {"total": record["held_out"]["total"]}
        | {kind: mean_term(record["held_out"], kind) for kind in ("style", "content")}
        for name, record in found.items()
    }
    print(json.dumps(figures, indent=1))
    return figures


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--style", required=True, help="which style to train, as in style=STYLE")
    common.add_argument("--steps", type=int, default=400)
    common.add_argument("-o", "--output", type=Path, default=Path("out/ablation"), help="folder of the runs")
    common.add_argument("--json", type=Path, help="write the figures there")
    commands = options.add_subparsers(required=True, dest="command")
    one = commands.add_parser("choices", parents=[common], help="variants of the recommended run")
    one.add_argument("--painting", required=True, help="the style's picture")
    one.add_argument("--photo", action="append", required=True)
    one.add_argument("--size", type=int, default=512, help="of the photographs that are judged")
    one.add_argument("--shown", type=int, default=320, help="of the photographs in the picture")
    one.add_argument("--only", nargs="+", choices=VARIANTS)
    one.add_argument("--picture", type=Path, help="write the picture there, a JPEG")
    two = commands.add_parser("warm", parents=[common], help="from scratch against from another style")
    two.add_argument("--from", dest="start", required=True, help="a shipped style or a checkpoint")
    chosen, overrides = options.parse_known_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    overrides = [f"style={chosen.style}", *overrides]
    figures = {"choices": choices, "warm": warm}[chosen.command](chosen, overrides)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
