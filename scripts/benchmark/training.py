"""Cases of the benchmark that train: steps, the slow mode, whole runs, and the loading of photographs."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from reference import Reference, Slow, Step
from torch import Tensor

from fststyle import TransformNet, save_image
from fststyle.cli import main as fststyle
from fststyle.config import preset_loss
from fststyle.encoders.pretrained import load_encoder
from fststyle.images import find_pictures
from fststyle.optimization.recipes import faster, transfer
from fststyle.training import sources
from fststyle.training.checkpoints import SaveCheckpoints
from fststyle.training.data import Photographs
from fststyle.training.tasks import StyleTask
from measuring import DEVICE, Figures, Folder, Names, Sizes, in_turn, operations, rows, timed

ENCODERS = ("random", "slim")
PRECISIONS = ("float32", "bfloat16")
BATCH = 4
#: The settings of a run that does nothing beside its steps.
BARE = [
    *("encoder=slim", f"trainer.accelerator={DEVICE}", "task.compile=false", "trainer.log_every_n_steps=5"),
    *("callbacks.previews.count=0", "callbacks.diagnostics=null"),
]


def step(
    batch: int = BATCH, encoder: Names = ENCODERS, precision: Names = PRECISIONS, eager: bool = False, repeats: int = 7
) -> Figures:
    """A training step at 256 px, full width; ``eager``: without torch.compile."""
    images = torch.rand(batch, 3, 256, 256, device=DEVICE)
    reference = Step(Reference().to(DEVICE).train(), images[:1])
    runs: dict[str, Callable[[], object]] = {"reference": lambda: reference(images)}
    work = {"reference": operations(runs["reference"])}
    for weights in encoder:
        count = operations(training_step(weights, "float32", images, compile=False))
        for kind in precision:
            name = f"{'VGG-16' if weights == 'random' else weights} {kind}"
            runs[name], work[name] = training_step(weights, kind, images, compile=not eager), count
    yield f"training step, batch {batch}, 256 px", rows(in_turn(runs, repeats), work, batch)


def training_step(encoder: str, precision: str, images: Tensor, compile: bool) -> Callable[[], object]:
    """A training step of ``task.optimizer=adam`` with the terms that the reference has, but for Lightning around it."""
    layers = ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
    loss = preset_loss(
        load_encoder("vgg16", encoder), "balanced_relu3_3", style_layers=layers, color_weight=0, tv_form="l1"
    ).to(images.device)
    style = loss.style_targets(images[:1])
    loss.normalizers = dict.fromkeys(loss.term_names, 1.0)
    extras = {"margin": 0, "octaves": 1, "stability_weight": 0}
    task = StyleTask(TransformNet().to(images.device), loss, style, compile=compile, **extras)
    optimizer = torch.optim.Adam(task.network.parameters(), fused=True)
    low = None if precision == "float32" else getattr(torch, precision)

    def run() -> None:
        with torch.autocast(images.device.type, low, enabled=low is not None):
            total = task.objective(images).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return run


def slow(precision: Names = PRECISIONS, repeats: int = 7) -> Figures:
    """An evaluation of Gatys' objective and its gradient, VGG-19 at 512 px: an iteration of the slow mode."""
    content, painting = (torch.rand(1, 3, 512, 512).to(DEVICE) for _ in range(2))
    loss = preset_loss(load_encoder("vgg19", "random", pooling="average"), "gatys").to(DEVICE)
    objective = transfer(loss, content, painting)
    image = content.clone().requires_grad_()

    def evaluation(precision: str) -> Callable[[], object]:
        evaluate = faster(objective, precision, compile=True)

        def run() -> None:
            image.grad = None
            evaluate(image).total.backward()

        return run

    reference = Slow(content, painting)
    runs: dict[str, Callable[[], object]] = {"reference": lambda: reference(image)}
    runs |= {kind: evaluation(kind) for kind in precision}
    work = {"reference": operations(runs["reference"])}
    yield "slow mode, VGG-19, 512 px, an iteration", rows(in_turn(runs, repeats), work)


def train(
    photographs: Folder = None, encoder: Names = ENCODERS, precision: Names = PRECISIONS, repeats: int = 7
) -> Figures:
    """``fststyle train`` with its data, logging and state, against the step alone; compiled."""
    names = {"float32": "32-true", "bfloat16": "bf16-mixed"}
    found = []
    images = torch.rand(BATCH, 3, 256, 256, device=DEVICE)
    for weights in encoder:
        for kind in precision:
            alone = in_turn({"": training_step(weights, kind, images, compile=True)}, repeats)[""]
            words = [f"encoder={weights}", f"trainer.precision={names[kind]}", "task.compile=true"]
            with tempfile.TemporaryDirectory() as folder:
                whole = BATCH / _speed(folder, photographs, words, sorted(os.sched_getaffinity(0)))
            row = {"what": f"{weights} {kind}", "step alone, seconds": round(alone, 4)}
            found.append({**row, "whole, seconds per step": round(whole, 4), "share": round(alone / whole, 3)})
    yield "fststyle train as a whole", found


def ranks(photographs: Folder = None, repeats: int = 7) -> Figures:
    """``trainer=ddp``: two processes on a core each, against one on one core; medians over each run, in turn."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    small = [*BARE, "network=resnet_half", "data.size=128", "threads=1", "data.workers=0"]
    kinds = {"reference": (cores[:1], small), "2 ranks": (cores, [*small, "trainer=ddp", "trainer.devices=2"])}
    speeds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(repeats):
        for name, (own, words) in kinds.items():
            with tempfile.TemporaryDirectory() as folder:
                speeds[name].append(_speed(folder, photographs, words, own))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    one = medians["reference"]
    table = [{"what": k, "images/s": round(v, 2), "times": round(v / one, 2)} for k, v in medians.items()]
    yield f"training on 1 and 2 ranks of one core, half width, 128 px, batch {BATCH} each", table


def saving(photographs: Folder = None) -> Figures:
    """What a state every 100 steps costs: seconds of a save over those of 100 steps."""
    save, took = SaveCheckpoints.save, []

    def timed_save(callback: SaveCheckpoints, trainer: Any) -> None:
        took.append(timed(lambda: save(callback, trainer)))

    words = [*BARE, "callbacks.checkpoints.every=10", "callbacks.checkpoints.minutes=null", "data.workers=1"]
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(SaveCheckpoints, "save", timed_save):
        hundred = 100 * BATCH / _speed(folder, photographs, words)
        size = max(file.stat().st_size for file in Path(folder).glob("run/checkpoints/*"))
    seconds = statistics.median(took)
    row = {"save, seconds": round(seconds, 3), "state, MB": round(size / 1e6, 1)}
    row |= {"100 steps, seconds": round(hundred, 1), "share": round(seconds / hundred, 4)}
    yield "a state every 100 steps", [row]


def _speed(folder: str, photographs: Folder, more: Names, cores: Sizes | None = None) -> float:
    """Images per second of 100 steps of ``fststyle train``, median; in this process, unless cores are given."""
    painting = Path(folder) / "painting.png"
    save_image(np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8), painting)
    source = ["data=folder", f"data.source.path={photographs}"] if photographs else ["data=generated"]
    words = ["train", f"style.image={painting}", f"output={folder}/run", *source, f"data.batch_size={BATCH}"]
    words += ["steps=100", *more]
    if cores is None:
        if fststyle(words):
            raise SystemExit("the run failed")
    else:
        pinned = lambda: os.sched_setaffinity(0, cores)  # noqa: E731
        subprocess.run([sys.executable, "-m", "fststyle", *words], check=True, preexec_fn=pinned)
    speeds = np.genfromtxt(f"{folder}/run/csv/metrics.csv", delimiter=",", names=True)["trainimages_per_second"]
    return float(np.median(speeds[~np.isnan(speeds)][1:]))  # the first has what a start takes


def loading(photographs: Path, repeats: int = 7) -> Figures:
    """Photographs per second, decoded, cropped and batched, against decoding them whole."""
    files = find_pictures(photographs)[:256]

    def plain() -> None:
        for file in files:
            Image.open(file).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)

    def ours(workers: int) -> Callable[[], None]:
        batches = Photographs(sources.folder(photographs), 256, 4, workers=workers).batches_from(0)

        def run() -> None:
            for _ in range(len(files) // 4):
                next(batches)

        return run

    runs = {"reference": plain, **{f"ours, {count} workers": ours(count) for count in (0, 1, 2)}}
    medians = in_turn(runs, max(1, repeats // 3))
    speeds = [{"what": name, "photographs/s": round(len(files) / value)} for name, value in medians.items()]
    yield "loading photographs, 256 px", speeds
