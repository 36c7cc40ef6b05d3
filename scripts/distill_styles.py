"""Teach one network of several styles what other networks make of photographs.

    python scripts/distill_styles.py --photographs FOLDER --start zoo -o FOLDER NAME=MODEL …

Each MODEL is a model file or a bundled style, ``zoo/mosaic`` too; NAME is the style in ``--start``, a network of these
styles, which learns it. A teacher's picture says at every pixel what is wanted (Hinton, Vinyals, Dean 2015), so that a
style takes a few hundred crops, without painting or style targets. What is compared: pixels, features of
``encoder=slim`` and their Gram matrices, which blurred strokes lack. Crops are as inference sees them: some with
varied even areas, and in two octaves, of which the second sees the teacher's first or the network's own, by chance.

Convolutions are shared; each style gets a colour transform of its own. The file of the styles is written at the end,
and now and then what training goes on from.
"""

from __future__ import annotations

import argparse
import logging
import math
import shlex
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fststyle.config import without_folders
from fststyle.encoders.pretrained import load_encoder
from fststyle.images import find_pictures, open_visible, resize_longer_side, to_image, write_atomically
from fststyle.inference.variation import varied
from fststyle.model_file import ModelFile, StyleEntry, find_model_file, load_model_file, save_model_file
from fststyle.networks.octaves import in_octaves, resized
from fststyle.networks.transform import TransformNet
from fststyle.octaves import PHOTOGRAPH, Variation, halved
from fststyle.training.crops import random_crop
from fststyle.training.muon import Muon
from fststyle.training.thumbnails import thumbnail
from train_together import earlier

log = logging.getLogger("distill_styles")

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
#: Weight of the mean absolute difference of pixels, where differences of features are 1 for unrelated pictures.
PIXELS = 10.0
#: Weight of the first octave beside the second, and share of the crops whose even areas are varied.
FIRST, VARIED = 0.5, 0.6
#: Longer sides, in pixels, of the photographs that crops are cut from.
SIDES = (500, 1100)


def gram(features: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, C)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def differences(encoder: nn.Module, made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Of pictures (B, 3, H, W), each: mean absolute difference of pixels, difference of features and Gram matrices."""
    here = encoder(made, LAYERS)
    with torch.no_grad():
        there = encoder(wanted, LAYERS)
    features = made.new_zeros(len(made))
    for layer in LAYERS:
        features += (here[layer] - there[layer]).square().mean((1, 2, 3)) / there[layer].var((1, 2, 3))
        target = gram(there[layer])
        features += (gram(here[layer]) - target).square().sum((1, 2)) / target.square().sum((1, 2))
    return (made - wanted).abs().mean((1, 2, 3)), features / len(LAYERS)


def octaves(
    network: TransformNet, teachers: list[nn.Module], images: Tensor, mixture: Tensor, own: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """What the network and the teachers, one for each image, make in the first octave and in the second, which follows
    the network's ``own`` first, or the teacher's."""

    def taught(batch: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([teacher(image[None]) for teacher, image in zip(teachers, batch, strict=True)])

    small = resized(images, *halved(*images.shape[-2:]))
    made, wanted = network(small, mixture), taught(small)
    yield made, wanted
    guide = resized((made if own else wanted).detach(), *images.shape[-2:])
    seen = PHOTOGRAPH * images + (1 - PHOTOGRAPH) * guide
    yield network(seen, mixture), taught(seen)


class Crops:
    """Crops of photographs for a style, the same for a seed."""

    def __init__(self, folder: Path, size: int, seed: int) -> None:
        files = sorted(find_pictures(folder))
        #: Every hundredth is kept for comparing.
        self.held, self.files = files[::100], [file for index, file in enumerate(files) if index % 100]
        self.size, self.rng = size, np.random.default_rng(seed)

    def draw(self, file: Path, by: Variation, rng: np.random.Generator) -> Tensor:
        """(1, 3, size, size)."""
        side = round(math.exp(rng.uniform(*map(math.log, SIDES))))
        picture = random_crop(resize_longer_side(open_visible(file), side), self.size, None, rng)
        pixels = np.asarray(picture.convert("RGB"))
        return to_image(varied(pixels, by) if rng.random() < VARIED else pixels)

    def __call__(self, by: Variation) -> Tensor:
        return self.draw(self.files[self.rng.integers(len(self.files))], by, self.rng)


def entry(name: str, file: ModelFile, network: nn.Module) -> StyleEntry:
    """What the written file says of a style: what its teacher's does."""
    kept = ("style", "loss", "grow_from", "variation")  # not what was measured of the teacher
    about = {key: file.metadata[key] for key in kept if key in file.metadata}
    return StyleEntry(name, about, file.style_targets, thumbnail(network, 2))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("styles", nargs="+", metavar="NAME=MODEL")
    options.add_argument("--photographs", required=True, type=Path, metavar="FOLDER")
    options.add_argument("--start", default="zoo", metavar="MODEL", help="of the styles, to go on from")
    options.add_argument("--share", action="append", default=[], metavar="NAME=N", help="N crops for one of another")
    options.add_argument("--minutes", type=float, default=60)
    options.add_argument("--size", type=int, default=192, help="of the crops, pixels")
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--rate", type=float, default=1.5e-3, help="Muon's learning rate; cosine to 0")
    options.add_argument("--every", type=int, default=150, help="steps between two comparisons")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("-o", "--output", type=Path, required=True)
    chosen = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.manual_seed(chosen.seed)
    chosen.output.mkdir(parents=True, exist_ok=True)

    given = dict(style.split("=", 1) for style in chosen.styles)
    start = load_model_file(find_model_file(chosen.start, "style"))
    names = [style.name for style in start.styles]
    if set(given) != set(names):
        options.error(f"found a model for {', '.join(given)}; expected one for each of {', '.join(names)}")
    files = [load_model_file(find_model_file(given[name], "style")) for name in names]
    unfiltered = [file.network.with_kuwahara(0) for file in files]  # the filter is not learned, but added again
    teachers = [network.eval().requires_grad_(False) for network in unfiltered]
    variations = [Variation.from_metadata(file.metadata) for file in files]
    shares = dict.fromkeys(names, 1) | {key: int(n) for key, _, n in (one.partition("=") for one in chosen.share)}
    turns = [index for index, name in enumerate(names) for _ in range(shares[name])]
    network = start.network.with_colors().with_kuwahara(0).train()
    average = {key: value.detach().clone() for key, value in network.state_dict().items()}
    encoder = load_encoder("vgg19", "slim")
    crops, mixtures = Crops(chosen.photographs, chosen.size, chosen.seed), torch.eye(len(names))

    def averaged() -> TransformNet:
        found = TransformNet(**network.config)
        found.load_state_dict(average)
        return found.eval()

    @torch.no_grad()
    def compare() -> None:
        rng, student = np.random.default_rng(7), averaged()
        for index, name in enumerate(names):
            images = torch.cat([crops.draw(file, variations[index], rng) for file in crops.held[:4]])
            made = in_octaves(student.of_mixture(mixtures[index]), images, 2)
            pixels, features = differences(encoder, made, in_octaves(teachers[index], images, 2))
            log.info("%s: pixels %.4f, features %.3f", name, pixels.mean(), features.mean())

    optimizer, step, began, order = Muon(network.parameters(), lr=chosen.rate), 0, time.perf_counter(), []
    while (passed := (time.perf_counter() - began) / (60 * chosen.minutes)) < 1:
        while len(order) < chosen.batch:
            order += [turns[at] for at in torch.randperm(len(turns)).tolist()]
        now, order = order[: chosen.batch], order[chosen.batch :]
        images = torch.cat([crops(variations[index]) for index in now]).contiguous(memory_format=torch.channels_last)
        loss = images.new_zeros(())
        own = bool(crops.rng.random() < 0.5)
        pairs = octaves(network, [teachers[index] for index in now], images, mixtures[now], own)
        for weight, (made, wanted) in zip((FIRST, 1.0), pairs, strict=True):
            pixels, features = differences(encoder, made, wanted)
            loss = loss + weight * (PIXELS * pixels.mean() + features.mean())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = chosen.rate * min(1, step / 30) * 0.5 * (1 + math.cos(math.pi * passed))
        optimizer.step()
        share = 1 - min(0.99, step / (step + 10))
        for key, value in network.state_dict().items():
            average[key].lerp_(value, share)
        if step % chosen.every == 0:
            log.info("step %d, loss %.3f", step, loss)
            compare()
            write_atomically(chosen.output / "average.pt", lambda file: torch.save(average, file))
    compare()
    radius = max(file.network.config.get("kuwahara", 0.0) for file in files)
    student = averaged().with_kuwahara(radius, [share for file in files for share in file.network.smoothed])
    entries = [entry(name, files[i], student.of_mixture(mixtures[i])) for i, name in enumerate(names)]
    metadata = {
        **{"kind": "style", "name": chosen.output.name, "encoder": encoder.metadata, "octaves": 2},
        **{"steps": step, "images": step * chosen.batch, "seconds": round(time.perf_counter() - began)},
        **{"seed": chosen.seed, "history": earlier(start.metadata)},
        "command": shlex.join(["python", "scripts/distill_styles.py", *map(without_folders, sys.argv[1:])]),
        **{"created": datetime.now(UTC).strftime("%Y-%m-%d"), "licence": "Apache-2.0"},
        **({"data": start.metadata["data"]} if "data" in start.metadata else {}),
    }
    save_model_file(chosen.output / f"{chosen.output.name}.safetensors", student, metadata, styles=entries)


if __name__ == "__main__":
    main()
