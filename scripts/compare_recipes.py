"""What different ways to train give in the same time: pictures, the windowed figure and the loss, over minutes.

    python scripts/compare_recipes.py PAINTING --photographs FOLDER --photo FILE … -o FOLDER

Every recipe is an ``fststyle train`` command with a limit of time. Each training checkpoint on the way is measured: the
windowed figure of ``fststyle evaluate style`` on the photographs given, and the content term. Minutes count from the
start of the command. ``recipes.json`` and ``recipes.svg`` have the figures, PHOTO_RECIPE_STEPS.png the pictures.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from fststyle.encoders.pretrained import load_encoder
from fststyle.images import load_image, save_image, to_pixels
from fststyle.losses import PerceptualLoss, measure_normalizers
from fststyle.networks.transform import TransformNet
from fststyle.report import page as html
from fststyle.report.style import StyleDistance
from fststyle.training.checkpoints import training_checkpoints

log = logging.getLogger("compare_recipes")

#: By name: overrides, and about how many seconds a step takes on two cores, so that the schedule ends with the time.
RECIPES: dict[str, tuple[list[str], float]] = {
    "default": ([], 0.75),
    "from random weights": (["init_from=null"], 0.75),
    "half width from random weights": (["init_from=null", "network=resnet_half"], 0.45),
    "Adam": (["task.optimizer=adam", "task.learning_rate=1e-3"], 0.75),
    "4 crops of 256 pixels": (["data.size=256", "data.batch_size=4"], 1.75),
    "distributions of features": (["loss.style_form=sliced", "loss.style_weight=5"], 1.0),
}


def trained(name: str, chosen: argparse.Namespace, folder: Path) -> float:
    """Run one recipe; returns when it began."""
    overrides, pace = RECIPES[name]
    steps = max(1, round((60 * chosen.minutes - chosen.starting) / pace))
    command = [
        *(sys.executable, "-m", "fststyle", "train", "experiment=quick", f"style.image={chosen.painting}"),
        *("style.name=new", "data=folder", f"data.source.path={chosen.photographs}", "trainer.precision=bf16-mixed"),
        *(*overrides, f"steps={steps}", f"output={folder}", "callbacks.previews.every=100000"),
        *(f"trainer.max_time={{seconds: {round(chosen.minutes * 60)}}}", "trainer.val_check_interval=100000"),
        *(f"callbacks.checkpoints.minutes={chosen.every}", "callbacks.checkpoints.every=100000"),
        *("callbacks.checkpoints.keep=1000", "callbacks.diagnostics=null", "data.workers=1"),
    ]
    log.info("%s: %s", name, " ".join(command[1:]))
    began = time.time()
    subprocess.run(command, check=True)
    return began


@torch.no_grad()
def measured(
    checkpoint: Path,
    name: str,
    minutes: float,
    output: Path,
    loss: PerceptualLoss,
    distances: dict[Path, StyleDistance],
) -> dict[str, Any]:
    """The figures of a training checkpoint, as means over the photographs; its pictures are written."""
    content = torch.load(checkpoint, weights_only=True)
    average = next(each["average"] for each in content["callbacks"].values() if "average" in each)
    weights = {key.removeprefix("module."): value for key, value in average.items() if key.startswith("module.")}
    network = TransformNet(width=weights["encode.0.norm.weight"].numel())
    network.load_state_dict(weights)
    figures: dict[str, Any] = {"recipe": name, "minutes": round(minutes, 1), "steps": content["global_step"]}
    found = []
    for photo, distance in distances.items():
        image = load_image(photo, 512)
        result = network.eval()(image)
        terms = loss(result, content=loss.content_targets(image))
        found.append([*vars(distance(result)).values(), float(sum(terms.content.values()))])
        save_image(to_pixels(result), output / f"{photo.stem}_{name.replace(' ', '-')}_{figures['steps']}.png")
    means = torch.tensor(found).mean(0).tolist()
    return figures | dict(zip(("everywhere", "all_of_it", "content"), (round(mean, 3) for mean in means), strict=True))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("painting", type=Path)
    options.add_argument("--photographs", type=Path, required=True, metavar="FOLDER", help="to train on")
    options.add_argument("--photo", type=Path, action="append", required=True, metavar="FILE", help="to measure on")
    options.add_argument("--recipe", action="append", choices=RECIPES, help="default: all")
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument(
        "--starting",
        type=float,
        default=170,
        help="seconds until the first step, about: compiling; fewer once it is kept",
    )
    options.add_argument("--every", type=float, default=2, help="minutes between two training checkpoints")
    options.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    chosen = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    chosen.output.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder("vgg19", "slim")
    loss = PerceptualLoss(encoder, ["relu3_3"], (), style_weight=0, balanced=True, tv_reduction="mean")
    loss.normalizers = measure_normalizers(loss, None, {})
    painting = load_image(chosen.painting, 640)
    distances = {photo: StyleDistance(load_image(photo), painting, encoder) for photo in chosen.photo}
    table = chosen.output / "recipes.json"
    rows: list[dict[str, Any]] = json.loads(table.read_text()) if table.is_file() else []
    for name in chosen.recipe or RECIPES:
        folder = chosen.output / name.replace(" ", "-")
        began = trained(name, chosen, folder)
        rows = [row for row in rows if row["recipe"] != name]
        for checkpoint in reversed(training_checkpoints(folder)):
            minutes = (checkpoint.stat().st_mtime - began) / 60
            rows.append(measured(checkpoint, name, minutes, chosen.output, loss, distances))
            log.info("%s", rows[-1])
        table.write_text(json.dumps(rows, indent=1))
    names = list(dict.fromkeys(row["recipe"] for row in rows))
    by_name = {name: [row for row in rows if row["recipe"] == name] for name in names}
    series = {
        name: ([row["minutes"] for row in own], [row["everywhere"] for row in own]) for name, own in by_name.items()
    }
    (chosen.output / "recipes.svg").write_text(html.curves(series, "minutes", "windowed figure, everywhere"))


if __name__ == "__main__":
    main()
