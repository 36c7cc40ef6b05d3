"""Train one network on many styles at once, and write a model file for each: the shared start of the bundled styles.

    python scripts/train_together.py --photographs FOLDER -o FOLDER NAME=PAINTING[@SIZE] …

Every style has norms of its own (conditional instance norm: Dumoulin, Shlens, Kudlur 2017) and all share the
convolutions, so that each step teaches all of them what a brush stroke is. Each photograph of a batch gets a style
of its own from the seeded sequence. The objective is ``loss=balanced`` with the bundled encoder. A style's file is
an ordinary network with that style's norms; ``fststyle train style=NAME init_from=FILE`` goes on from it.

The run keeps its training checkpoint in the output folder and goes on from it when it is started again.
"""

from __future__ import annotations

import argparse
import logging
import math
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fststyle.cli.parts import preset_loss
from fststyle.images import (
    contact_sheet,
    load_image,
    open_picture,
    save_image,
    to_image,
    to_pixels,
    write_atomically,
)
from fststyle.losses import PerceptualLoss, checkerboard_loss, content_loss, gram_matrix, total_variation
from fststyle.networks.blocks import InstanceNorm
from fststyle.networks.checkpoint import save_checkpoint
from fststyle.networks.pretrained import file_sha256, load_encoder
from fststyle.networks.transform import TransformNet
from fststyle.training import sources
from fststyle.training.data import Photographs, centre_crop

log = logging.getLogger("train_together")


class ConditionalNorm(InstanceNorm):
    """Instance norm with scale and shift of a style per image of the batch."""

    #: The style of each image of the batch, (B,); one for all norms of the network.
    styles: Tensor

    def __init__(self, channels: int, count: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.ones(count, channels))
        self.bias = nn.Parameter(torch.zeros(count, channels))

    def affine(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        chosen = ConditionalNorm.styles
        scale = self.weight[chosen][:, :, None, None] * torch.rsqrt(variance + self.eps)
        return scale, self.bias[chosen][:, :, None, None] - mean * scale


def conditional(network: TransformNet, count: int) -> TransformNet:
    """The same network with norms for ``count`` styles."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is InstanceNorm:
                setattr(module, name, ConditionalNorm(child.weight.numel(), count))
    return network


def of_style(weights: dict[str, Tensor], index: int, width: int) -> TransformNet:
    """An ordinary network with the shared convolutions and one style's norms."""
    network = TransformNet(width=width)
    network.load_state_dict({key: value[index] if ".norm." in key else value for key, value in weights.items()})
    return network.eval()


def held_out(
    network: TransformNet, loss: PerceptualLoss, style: dict[str, Tensor], photographs: Tensor
) -> dict[str, float]:
    """The loss terms on photographs (B, 3, H, W) that training has not seen."""
    parts = photographs.split(4)
    terms = [loss(network(part), content=loss.content_targets(part), style=style).scalars() for part in parts]
    return {key: round(sum(float(part[key]) for part in terms) / len(terms), 5) for key in terms[0]}


class Objective(nn.Module):
    """The balanced loss for a batch whose images have different styles."""

    def __init__(self, paintings: list[Tensor], checkerboard_weight: float, **changes: float) -> None:
        super().__init__()
        self.encoder = load_encoder("vgg19", "slim")
        self.losses, self.targets = [], []
        for painting in paintings:
            loss = preset_loss(self.encoder, **changes)
            self.targets.append(loss.style_targets(painting))
            loss.calibrate(None, self.targets[-1])
            self.losses.append(loss)
        #: Gives conventions, weights, and the normalisers that no painting changes.
        self.first = self.losses[0]
        self.content, self.style = self.first.content_layers, self.first.style_layers
        self.checkerboard_weight = checkerboard_weight
        self.grams = {layer: torch.cat([target[layer] for target in self.targets]) for layer in self.style}
        self.units = {
            layer: torch.tensor([loss.normalizers[f"style/{layer}"] for loss in self.losses]) for layer in self.style
        }

    def forward(self, network: nn.Module, photographs: Tensor, styles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Total, content and style term; photographs (B, 3, H, W), their styles (B,)."""
        first = self.first
        wanted = first.content_targets(photographs)
        ConditionalNorm.styles = styles
        output = network(photographs)
        features = self.encoder(output, {*self.content, *self.style})
        content = torch.zeros(())
        for layer, weight in self.content.items():
            term = content_loss(features[layer], wanted[layer], first.content)
            content = content + weight * term / first.normalizers[f"content/{layer}"]
        style = torch.zeros(())
        for layer, weight in self.style.items():
            distance = (gram_matrix(features[layer], first.gram) - self.grams[layer][styles]).square().mean((1, 2))
            style = style + weight * (distance / self.units[layer][styles]).mean()
        tv = total_variation(output, first.tv, first.tv_reduction) / first.normalizers["tv"]
        total = first.weights["content"] * content + first.weights["style"] * style + first.weights["tv"] * tv
        return total + self.checkerboard_weight * checkerboard_loss(output), content.detach(), style.detach()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("styles", nargs="+", metavar="NAME=PAINTING[@SIZE]", help="size: longer side, 880 by default")
    options.add_argument("--photographs", required=True, metavar="FOLDER")
    options.add_argument("--photo", action="append", default=[], metavar="FILE", help="shown in previews.png")
    options.add_argument("--minutes", type=float, default=60, help="of training, over all starts")
    options.add_argument("--size", type=int, default=128, help="of the crops, pixels")
    options.add_argument("--scale", type=float, nargs=2, default=(0.2, 0.8), help="sides of crops, as data.scale")
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--rate", type=float, default=2e-3, help="Adam's learning rate; cosine to 0")
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--style-weight", type=float, help="instead of the default of loss=balanced")
    options.add_argument("--tv-weight", type=float, help="instead of the default of loss=balanced")
    options.add_argument("--checkerboard", type=float, default=1000.0)
    options.add_argument("--average", type=float, default=0.995, help="decay of the moving average that is written")
    options.add_argument("--every", type=int, default=400, help="steps between two previews, files and checkpoints")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--compile", action="store_true")
    options.add_argument("-o", "--output", type=Path, required=True)
    chosen = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.manual_seed(chosen.seed)
    chosen.output.mkdir(parents=True, exist_ok=True)

    names, files, sizes = [], [], []
    for entry in chosen.styles:
        name, _, rest = entry.partition("=")
        file, _, size = rest.partition("@")
        names.append(name), files.append(file), sizes.append(int(size or 880))
    paintings = [load_image(file, size) for file, size in zip(files, sizes, strict=True)]
    given = {"style_weight": chosen.style_weight, "tv_weight": chosen.tv_weight}
    changes = {name: weight for name, weight in given.items() if weight is not None}
    objective = Objective(paintings, chosen.checkerboard, **changes)
    network = conditional(TransformNet(width=chosen.width), len(names)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=chosen.rate, fused=True)
    average = {key: value.clone() for key, value in network.state_dict().items()}
    step, elapsed = 0, 0.0
    checkpoint = chosen.output / "checkpoint.pt"
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        average, step, elapsed = saved["average"], saved["step"], saved["elapsed"]
        log.info("going on from step %d", step)
    photographs = Photographs(
        sources.folder(chosen.photographs), chosen.size, chosen.batch, workers=1, seed=chosen.seed, scale=chosen.scale
    )
    shown = [to_image(np.asarray(centre_crop(open_picture(photo).convert("RGB"), 320))) for photo in chosen.photo]

    held = photographs.held_out_images[:16]

    @torch.no_grad()
    def write() -> None:
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
        state |= {"step": step, "elapsed": elapsed}
        write_atomically(checkpoint, lambda file: torch.save(state, file))
        rows = []
        for index, name in enumerate(names):
            one = of_style(average, index, chosen.width)
            loss = objective.losses[index]
            record = {
                "kind": "style",
                "name": name,
                "style": {
                    "image": Path(files[index]).name,
                    "sha256": file_sha256(files[index]),
                    "size": sizes[index],
                    "together_with": [other for other in names if other != name],
                },
                "encoder": objective.encoder.record,
                "held_out": held_out(one, loss, objective.targets[index], held),
                "loss": {**loss.settings, "normalizers": loss.normalizers},
                "steps": step,
                "images": step * chosen.batch,
                "seconds": round(elapsed),
                "seed": chosen.seed,
                "command": shlex.join(
                    ["python", "scripts/train_together.py", *(Path(a).name if "/" in a else a for a in sys.argv[1:])]
                ),
                "created": datetime.now(UTC).strftime("%Y-%m-%d"),
                "licence": "Apache-2.0",
            }
            save_checkpoint(chosen.output / f"{name}.safetensors", one, record, objective.targets[index])
            rows.append([to_pixels(one(photo)) for photo in shown])
        if shown:
            save_image(contact_sheet(rows), chosen.output / "previews.png")

    forward = torch.compile(objective, dynamic=False) if chosen.compile else objective
    began, order = time.perf_counter() - elapsed, torch.Generator().manual_seed(chosen.seed + step)
    queue: list[int] = []
    sums, first = torch.zeros(2), step
    for batch in photographs.batches_from(step):
        elapsed = time.perf_counter() - began
        if elapsed > chosen.minutes * 60:
            break
        while len(queue) < chosen.batch:
            queue += torch.randperm(len(names), generator=order).tolist()
        styles, queue = torch.tensor(queue[: chosen.batch]), queue[chosen.batch :]
        rate = min(1, (step - first + 1) / 50) * 0.5 * (1 + math.cos(math.pi * elapsed / (chosen.minutes * 60)))
        optimizer.param_groups[0]["lr"] = chosen.rate * rate
        total, content, style = forward(network, batch.contiguous(memory_format=torch.channels_last), styles)
        optimizer.zero_grad()
        total.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        if torch.isfinite(norm):
            optimizer.step()
        step += 1
        with torch.no_grad():
            decay = min(chosen.average, step / (step + 10))
            for key, value in network.state_dict().items():
                average[key].lerp_(value, 1 - decay)
        sums += torch.stack([content, style])
        if step % 50 == 0:
            log.info("step %d, %.0f s: content %.3f, style %.4f", step, elapsed, *(sums / 50).tolist())
            sums.zero_()
        if step % chosen.every == 0:
            write()
    write()


if __name__ == "__main__":
    main()
