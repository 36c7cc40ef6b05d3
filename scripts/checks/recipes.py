"""What different ways to train give in the same time: pictures, the windowed figure and the loss, over minutes.

    python scripts/checks/recipes.py --painting FILE --photographs FOLDER --photo FILE … -o FOLDER

Every recipe is an ``fststyle train`` command with a limit of time. Each training checkpoint on the way is measured: the
windowed figure of ``fststyle evaluate style`` on the photographs given, and the content term. Minutes count from the
start of the command. ``recipes.json`` and ``recipes.svg`` have the figures, PHOTO_RECIPE_STEPS.png the pictures.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fststyle.encoders.pretrained import load_encoder
from fststyle.evaluation.figures import write_json
from fststyle.evaluation.page import curves
from fststyle.evaluation.style import StyleDistance
from fststyle.images import load_image, save_image
from fststyle.losses import PerceptualLoss, measure_normalizers
from fststyle.networks.transform import TransformNet
from fststyle.training.checkpoints import training_checkpoints
from measuring import Figures, Files, measure

#: By name: overrides, and about how many seconds a step takes on two cores, so that the schedule ends with the time.
RECIPES: dict[str, tuple[list[str], float]] = {
    "default": ([], 0.75),
    "from random weights": (["init_from=null"], 0.75),
    "stability": (["task.stability_weight=0.2"], 0.9),
    "Adam": (["task.optimizer=adam", "task.learning_rate=1e-3"], 0.75),
    "4 crops of 256 pixels": (["data.size=256", "data.batch_size=4"], 1.75),
}


@torch.no_grad()
def measured(checkpoint: Path, loss: PerceptualLoss, distances: Mapping[Path, StyleDistance]) -> dict[str, Any]:
    """The figures of a training checkpoint, as means over the photographs; pictures are written beside the run."""
    run = checkpoint.parents[1]
    content = torch.load(checkpoint, weights_only=True)
    average = next(each["average"] for each in content["callbacks"].values() if "average" in each)
    weights = {key.removeprefix("module."): value for key, value in average.items() if key.startswith("module.")}
    network = TransformNet(width=weights["encode.0.norm.weight"].numel())
    network.load_state_dict(weights)
    found = []
    for photo, distance in distances.items():
        image = load_image(photo, 512)
        result = network.eval()(image)
        terms = loss(result, content=loss.content_targets(image))
        found.append([*vars(distance(result)).values(), float(sum(terms.content.values()))])
        save_image(result, run.with_name(f"{photo.stem}_{run.name}_{content['global_step']}.png"))
    means = [round(mean, 3) for mean in torch.tensor(found).mean(0).tolist()]
    return {"steps": content["global_step"], **dict(zip(("everywhere", "all_of_it", "content"), means, strict=True))}


def recipes(
    painting: Path,
    photographs: Path,
    photo: Files,
    output: Path,
    minutes: float = 10,
    starting: float = 170,
    every: float = 2,
) -> Figures:
    """Train by each recipe, and measure.

    ``starting``: seconds until the first step, about: compiling; fewer once it is kept. ``every``: minutes between two
    training checkpoints.
    """
    encoder = load_encoder("vgg19", "slim")
    loss = PerceptualLoss(encoder, ["relu3_3"], (), style_weight=0, balanced=True, tv_reduction="mean")
    loss.normalizers = measure_normalizers(loss, None, {})
    style = load_image(painting, 640)
    distances = {file: StyleDistance(load_image(file), style, encoder) for file in photo}
    table = output / "recipes.json"
    rows: list[dict[str, Any]] = json.loads(table.read_text()) if table.is_file() else []
    for name, (overrides, pace) in RECIPES.items():
        folder, steps = output / name.replace(" ", "-"), max(1, round((60 * minutes - starting) / pace))
        command = [
            *(sys.executable, "-m", "fststyle", "train", "experiment=quick", f"style.image={painting}"),
            *("style.name=new", "data=folder", f"data.source.path={photographs}", "trainer.precision=bf16-mixed"),
            *(*overrides, f"steps={steps}", f"output={folder}", "callbacks.previews.every=100000"),
            *(f"trainer.max_time={{seconds: {round(minutes * 60)}}}", "trainer.val_check_interval=100000"),
            *(f"callbacks.checkpoints.minutes={every}", "callbacks.checkpoints.every=100000"),
            *("callbacks.checkpoints.keep=1000", "callbacks.diagnostics=null", "data.workers=1"),
        ]
        print(f"{name}: {' '.join(command[1:])}", flush=True)
        began = time.time()
        subprocess.run(command, check=True)
        rows = [row for row in rows if row["recipe"] != name]
        for checkpoint in reversed(training_checkpoints(folder)):
            passed = round((checkpoint.stat().st_mtime - began) / 60, 1)
            rows.append({"recipe": name, "minutes": passed, **measured(checkpoint, loss, distances)})
            yield checkpoint.name, rows[-1]
        write_json(table, rows)
    series: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        passed, figures = series.setdefault(row["recipe"], ([], []))
        passed.append(row["minutes"])
        figures.append(row["everywhere"])
    (output / "recipes.svg").write_text(curves(series, "minutes", "windowed figure, everywhere"))


if __name__ == "__main__":
    measure(__doc__, {"recipes": recipes})
