"""Train the bundled styles: many styles at once, and a model file for each.

    python scripts/train_together.py --photographs FOLDER -o FOLDER NAME=PAINTING …
    python scripts/train_together.py --separate --init FOLDER --photographs FOLDER -o FOLDER NAME=PAINTING …

Size, region and weight of each painting are those of ``style=NAME``.

At first every style has norms of its own (conditional instance norm: Dumoulin, Shlens, Kudlur 2017) and all share the
convolutions, so that each step teaches all of them what a brush stroke is; each photograph of a batch gets a style of
its own from the seeded sequence. With ``--separate`` each style goes on with convolutions of its own, a step for one
style after the other (``--share`` gives some more). The objective is ``loss=balanced`` over ``encoder=slim``. A
style's file is an ordinary network; ``fststyle train style=NAME init_from=FILE`` goes on from it.

The run keeps its training checkpoint in the output folder and goes on from it when it is started again.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import logging
import math
import shlex
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.func import functional_call

from fststyle.config import load_style, preset_loss, preset_style, without_folders
from fststyle.devices import DEVICES, choose_device
from fststyle.encoders.pretrained import load_encoder
from fststyle.images import contact_sheet, open_visible, save_image, to_image, to_pixels, write_atomically
from fststyle.kuwahara import RADIUS
from fststyle.losses import (
    PerceptualLoss,
    checkerboard_loss,
    measure_normalizers,
    normalizers_of,
    random_warp,
    stability_loss,
)
from fststyle.model_file import load_model_file, save_model_file
from fststyle.networks.octaves import in_octaves
from fststyle.networks.transform import TransformNet
from fststyle.octaves import inference_metadata
from fststyle.resources import file_sha256
from fststyle.tensor_files import is_style_parameter
from fststyle.training import sources
from fststyle.training.colors import LEAST, match_colors, spread
from fststyle.training.crops import centre_crop
from fststyle.training.data import Photographs
from fststyle.training.muon import Muon
from fststyle.training.tasks.style import SINGLE_EVERY, STABILITY_NOISE

log = logging.getLogger("train_together")

#: Tensors by the names of a network's weights, or of a loss's layers.
Tensors = dict[str, Tensor]


def of_style(weights: Tensors, index: int, width: int) -> TransformNet:
    """An ordinary network with the shared convolutions and one style's norms."""
    network = TransformNet(width=width)
    network.load_state_dict({key: value[index] if is_style_parameter(key) else value for key, value in weights.items()})
    return network.eval()


def widened(network: TransformNet, width: int) -> TransformNet:
    """A wider network that gives the same pictures: new channels start random, and at first nothing uses their output.

    Raises:
        ValueError: a width below the network's.
    """
    least = network.config["width"]
    if width < least:
        raise ValueError(f"width is {width}; expected at least that of the network to go on from, {least}")
    wider = TransformNet(**{**network.config, "width": width})
    state = wider.state_dict()
    for key, old in network.state_dict().items():
        here = tuple(slice(0, side) for side in old.shape)
        if old.dim() == 4:
            state[key][: old.shape[0], old.shape[1] :] = 0
        state[key][here] = old
    wider.load_state_dict(state)
    return wider


def held_out(
    network: Callable[[Tensor], Tensor], loss: PerceptualLoss, style: Tensors, photographs: Tensor
) -> dict[str, float]:
    """The loss terms on photographs (B, 3, H, W) that training has not seen."""
    parts = photographs.split(4)
    terms = [loss(network(part), content=loss.content_targets(part, style), style=style).scalars() for part in parts]
    return {key: round(sum(float(part[key]) for part in terms) / len(terms), 5) for key in terms[0]}


class Objective(nn.Module):
    """The balanced loss for a batch whose images have different styles."""

    def __init__(self, settings: list[DictConfig], chosen: argparse.Namespace, device: torch.device) -> None:
        super().__init__()
        changes = OmegaConf.to_container(OmegaConf.from_dotlist(chosen.loss))
        self.loss = preset_loss(load_encoder("vgg19", "slim").to(device), **changes)
        self.encoder = self.loss.encoder
        self.targets = [self.loss.style_targets(load_style(style).to(device)) for style in settings]
        units = measure_normalizers(self.loss, None, self.targets)
        #: One loss for each style, for its file.
        self.losses = []
        for index, style in enumerate(settings):
            loss = preset_loss(self.encoder, **changes)
            loss.weights["style"] *= style.weight
            loss.normalizers = normalizers_of(units, index)
            self.losses.append(loss)
        self.loss.normalizers = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in units.items()}
        self.loss.style_factors = torch.tensor([float(style.weight) for style in settings], device=device)
        self.styles = {name: torch.cat([target[name] for target in self.targets]) for name in self.targets[0]}
        self.checkerboard_weight, self.stability_weight = chosen.checkerboard, chosen.stability
        self.bfloat16, self.margin = chosen.bfloat16, chosen.margin

    def forward(
        self,
        network: nn.Module,
        weights: Tensors,
        photographs: Tensor,
        styles: Tensor,
        norms: Tensor,
        warp: Tensor,
        gain: Tensor,
        octaves: int = 1,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Total, content and style term of a network with given weights; photographs (B, 3, H, W), their styles
        and the norms to use (B,), warp and gain of ``losses.stability_loss``, and the octaves to apply it in."""
        loss = self.loss
        weights = {k: v.index_select(0, norms) if is_style_parameter(k) else v for k, v in weights.items()}
        targets = {layer: target[styles] for layer, target in self.styles.items()}
        with torch.autocast(photographs.device.type, torch.bfloat16, enabled=self.bfloat16):
            wanted = loss.content_targets(photographs, targets)
            output = in_octaves(lambda x: functional_call(network, weights, (x,)), photographs, octaves).float()
            terms = loss(output, wanted, targets, samples=8192, which=styles, margin=self.margin)
        total = terms.total + self.checkerboard_weight * checkerboard_loss(output)
        if self.stability_weight:
            alone = {k: v[:1] if is_style_parameter(k) else v for k, v in weights.items()}
            with torch.autocast(photographs.device.type, torch.bfloat16, enabled=self.bfloat16):
                moved = stability_loss(
                    lambda images: in_octaves(lambda x: functional_call(network, alone, (x,)), images, octaves),
                    *(photographs[:1], output[:1], warp, gain),
                    STABILITY_NOISE * torch.randn_like(photographs[:1]),
                )
            total = total + self.stability_weight * moved
        content = sum(weight * terms.content[layer] for layer, weight in loss.content_layers.items())
        style = sum(weight * terms.style[layer] for layer, weight in loss.style_layers.items())
        return total, torch.as_tensor(content).detach(), torch.as_tensor(style).detach()


def earlier(metadata: dict[str, Any]) -> list[Any]:
    """The trainings that a model file has had, oldest first: for the metadata of one that goes on from it."""
    history = metadata.get("history", [])
    kept = ("name", "command", "steps", "images", "seconds", "loss", "init_from", "created")
    last = {key: metadata[key] for key in kept if key in metadata}
    return [*(history if isinstance(history, list) else [history]), last]


class Trained:
    """The weights of a network in training, for all styles or for one, with their optimizer and moving average.

    Norms have a row per style, (S, C). The convolutions are those of the first of ``states``, which has one per style.
    """

    def __init__(self, states: list[Tensors], device: torch.device) -> None:
        self.weights = {}
        for key, value in states[0].items():
            value = torch.stack([state[key] for state in states]) if is_style_parameter(key) else value.clone()
            layout = torch.channels_last if value.dim() == 4 else torch.contiguous_format
            self.weights[key] = nn.Parameter(value.to(device, memory_format=layout))
        #: Learning rate, and share of the weights in their moving average: tensors, which a CUDA graph reads anew.
        self.rate, self.share = (torch.zeros((), device=device) for _ in range(2))
        self.optimizer = Muon(self.weights.values(), lr=self.rate)  # type: ignore[arg-type]
        self.average = {key: value.detach().clone() for key, value in self.weights.items()}
        self.step, self.seconds = 0, 0.0

    def state(self) -> dict[str, Any]:
        network = {key: value.detach() for key, value in self.weights.items()}
        parts = {"network": network, "optimizer": self.optimizer.state_dict(), "average": self.average}
        return {**parts, "step": self.step, "seconds": self.seconds}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        for key, value in self.weights.items():
            value.copy_(state["network"][key])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]

    def schedule(self, rate: float, decay: float) -> None:
        """Count a step, and set its learning rate and the decay of the moving average."""
        self.step += 1
        self.rate.fill_(rate)
        self.share.fill_(1 - min(decay, self.step / (self.step + 10)))

    @torch.no_grad()
    def advance(self) -> None:
        """A step of the optimizer with the gradients that there are, unless they are not finite."""
        norm = nn.utils.clip_grad_norm_(self.weights.values(), 10.0)
        self.optimizer.found_inf = (~torch.isfinite(norm)).float()  # without waiting for the device
        self.optimizer.step()
        averages = [self.average[key] for key in self.weights]
        changes = torch._foreach_sub(list(self.weights.values()), averages)
        torch._foreach_mul_(changes, self.share)
        torch._foreach_add_(averages, changes)


def recorded(step: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """A step as a CUDA graph: its thousands of kernels are then started at once, which otherwise takes longer than
    they run."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("styles", nargs="+", metavar="NAME=PAINTING")
    options.add_argument("--photographs", required=True, metavar="FOLDER")
    several = {"action": "append", "default": []}
    options.add_argument("--photo", **several, metavar="FILE", help="shown in previews.png")
    options.add_argument("--separate", action="store_true", help="a network of its own for each style")
    options.add_argument("--init", type=Path, metavar="FOLDER", help="of the model files to go on from")
    options.add_argument("--share", **several, metavar="NAME=N", help="N steps of this style for one of each other")
    options.add_argument("--minutes", type=float, default=60, help="of training, over all starts")
    options.add_argument("--size", type=int, default=192, help="of the crops, pixels")
    options.add_argument("--scale", type=float, nargs=2, default=(0.3, 1.0), help="sides of crops, as data.scale")
    options.add_argument("--batch", type=int, default=3)
    options.add_argument("--rate", type=float, default=3e-3, help="Muon's learning rate; cosine to 0")
    options.add_argument("--width", type=int, default=32)
    options.add_argument("--loss", **several, metavar="KEY=VALUE", help="instead of what loss=balanced has")
    options.add_argument("--checkerboard", type=float, default=1000.0)
    options.add_argument("--margin", type=int, default=16, help="as task.margin")
    options.add_argument("--stability", type=float, default=1.0, help="weight of losses.stability_loss")
    options.add_argument("--octaves", type=int, default=2, help="as task.octaves")
    options.add_argument("--kuwahara", type=float, default=RADIUS, metavar="RADIUS", help="as task.kuwahara")
    options.add_argument(
        "--match-colors",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="as task.match_colors, with --separate",
    )
    options.add_argument("--average", type=float, default=0.99, help="decay of the moving average that is written")
    options.add_argument("--every", type=int, default=400, help="steps between two previews, files and checkpoints")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", choices=DEVICES, default="auto")
    options.add_argument("--workers", type=int, default=1, help="processes that decode photographs")
    options.add_argument("--bfloat16", action="store_true", help="convolutions in bfloat16")
    options.add_argument("--compile", action="store_true")
    options.add_argument("--graphs", action="store_true", help="record a step as a CUDA graph")
    options.add_argument("-o", "--output", type=Path, required=True)
    chosen = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    device = choose_device(chosen.device)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(chosen.seed)
    chosen.output.mkdir(parents=True, exist_ok=True)

    names, files = zip(*(entry.split("=", 1) for entry in chosen.styles), strict=True)
    settings = [preset_style(name, file) for name, file in zip(names, files, strict=True)]
    objective = Objective(settings, chosen, device)
    starts = [load_model_file(chosen.init / f"{name}.safetensors") for name in names] if chosen.init else []
    states = [widened(start.network, chosen.width).state_dict() for start in starts]
    before = [earlier(start.metadata) for start in starts] or [[]] * len(names)
    shares = dict.fromkeys(names, 1)
    for entry in chosen.share:
        name, _, count = entry.partition("=")
        if name not in names or not (count.isdecimal() and int(count)):
            options.error(f"--share is {entry!r}; expected NAME=N, N from 1, for one of {', '.join(names)}")
        shares[name] = int(count)
    turns = [index for index, name in enumerate(names) for _ in range(shares[name])]
    if not states:
        states = [TransformNet(width=chosen.width).state_dict() for _ in (names if chosen.separate else names[:1])]
    together = states if starts else states * len(names)
    trained = [Trained(each, device) for each in ([[state] for state in states] if chosen.separate else [together])]
    step, elapsed = 0, 0.0
    checkpoint = chosen.output / "checkpoint.pt"
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        for each, state in zip(trained, saved["trained"], strict=True):
            each.load(state)
        step, elapsed = saved["step"], saved["elapsed"]
        log.info("going on from step %d", step)
    source, order = sources.folder(chosen.photographs), {"seed": chosen.seed, "scale": chosen.scale}
    photographs = Photographs(source, chosen.size, chosen.batch, workers=chosen.workers, **order)
    shown = [to_image(np.asarray(centre_crop(open_visible(photo), 320))) for photo in chosen.photo]
    held = photographs.held_out_images.to(device)

    @torch.no_grad()
    def write() -> None:
        state = {"trained": [each.state() for each in trained], "step": step, "elapsed": elapsed}
        write_atomically(checkpoint, lambda file: torch.save(state, file))
        rows = []
        for index, name in enumerate(names):
            own, style = trained[index if chosen.separate else 0], settings[index]
            one = of_style(own.average, 0 if chosen.separate else index, chosen.width).to(device)
            one = one.with_kuwahara(chosen.kuwahara, [style.smoothed]).to(device)
            if chosen.separate and chosen.match_colors and len(held) >= LEAST:  # else convolutions stay shared
                match_colors(one, spread(load_style(style)), held, chosen.octaves)
            applied = functools.partial(in_octaves, one, octaves=chosen.octaves)
            loss, file = objective.losses[index], files[index]
            targets = {layer: target.cpu() for layer, target in objective.targets[index].items()}
            others = [] if chosen.separate else [other for other in names if other != name]
            painting = {"image": Path(file).name, "sha256": file_sha256(file), "size": style.size}
            painting |= {"region": list(style.region), "blur": style.blur, "together_with": others}
            metadata = {
                **{"kind": "style", "name": name, "style": painting, "encoder": objective.encoder.metadata},
                **inference_metadata(chosen.octaves),
                "held_out": held_out(applied, loss, objective.targets[index], held[:16]),
                "loss": {**loss.settings, "normalizers": loss.normalizers},
                **{"steps": own.step, "images": own.step * chosen.batch, "seconds": round(own.seconds)},
                "seed": chosen.seed,
                "command": shlex.join(["python", "scripts/train_together.py", *map(without_folders, sys.argv[1:])]),
                "history": before[index],
                **{"created": datetime.now(UTC).strftime("%Y-%m-%d"), "licence": "Apache-2.0"},
            }
            save_model_file(chosen.output / f"{name}.safetensors", one, metadata, targets)
            rows.append([to_pixels(applied(image=photo.to(device)).cpu()) for photo in shown])
        if shown:
            save_image(contact_sheet(rows), chosen.output / "previews.png")

    network = TransformNet(width=chosen.width).to(device)
    forward = torch.compile(objective, dynamic=False) if chosen.compile else objective
    began, chance = time.perf_counter() - elapsed, torch.Generator().manual_seed(chosen.seed + step)
    shuffled = (turns[at] for _ in itertools.count() for at in torch.randperm(len(turns), generator=chance).tolist())
    styles = torch.zeros(chosen.batch, dtype=torch.long, device=device)
    norms = torch.zeros_like(styles) if chosen.separate else styles
    sums = torch.zeros(2, device=device)
    batch = torch.zeros(chosen.batch, 3, chosen.size, chosen.size, device=device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    warps = np.random.default_rng((chosen.seed, step))
    warp, gain = (value.to(device) for value in random_warp(warps))

    def learn(own: Trained, octaves: int) -> None:
        own.optimizer.zero_grad()
        total, content, style = forward(network, own.weights, batch, styles, norms, warp, gain, octaves)
        total.backward()
        own.advance()
        sums.add_(torch.stack([content, style]))

    graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
    for photos in photographs.batches_from(step):
        elapsed = time.perf_counter() - began
        if elapsed > chosen.minutes * 60:
            break
        now = list(itertools.islice(shuffled, 1 if chosen.separate else chosen.batch))
        own = trained[now[0] if chosen.separate else 0]
        if chosen.separate:
            styles.fill_(now[0])
        else:
            styles.copy_(torch.tensor(now), non_blocking=True)
        rise = min(1, (own.step + 1) / 50)
        fall = 0.5 * (1 + math.cos(math.pi * elapsed / (chosen.minutes * 60)))
        own.schedule(chosen.rate * rise * fall, chosen.average)
        batch.copy_(photos, non_blocking=True)
        for buffer, value in zip((warp, gain), random_warp(warps), strict=True):
            buffer.copy_(value, non_blocking=True)
        octaves = 1 if step % SINGLE_EVERY == 0 else chosen.octaves
        graph = (now[0] if chosen.separate else 0, octaves)
        if graph in graphs:
            graphs[graph].replay()
        elif chosen.graphs:
            graphs[graph] = recorded(functools.partial(learn, own, octaves))
        else:
            learn(own, octaves)
        own.seconds += time.perf_counter() - began - elapsed
        step += 1
        if step % 50 == 0:
            log.info("step %d, %.0f s: content %.3f, style %.4f", step, elapsed, *(sums / 50).tolist())
            sums.zero_()
        if step % chosen.every == 0:
            write()
    write()


if __name__ == "__main__":
    main()
