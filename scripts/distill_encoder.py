"""Distil the small encoder that is bundled: a VGG of quarter width up to relu5_1 (``encoder=slim``).

    python scripts/distill_encoder.py --teacher vgg19                               --photographs FOLDER
    python scripts/distill_encoder.py --teacher vgg19 --weights SLIM_VGG19.safetensors --photographs FOLDER

The student has its teacher's topology and padding, starts from random weights and learns to give the teacher's
features, every filter of which is scaled to mean activation 1 (Gatys et al. 2015): filter by filter at every ReLU
where both are equally wide, else through a learned linear map at the style layers. It sees photographs, generated
pictures, either of them in other colours and under noise, and pictures on the way from one to another's style,
which is where a loss network is used. Then its own filters are scaled to mean activation 1, and the calibration
statistics of photographs are written with them, so that balanced weights need no photographs.

The run keeps its training checkpoint in OUTPUT's name + .state and goes on from it when it is started again.
"""

from __future__ import annotations

import argparse
import logging
import math
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fststyle.config import without_folders
from fststyle.encoders.files import save_encoder
from fststyle.encoders.pretrained import load_encoder, random_weights
from fststyle.encoders.vgg import VGGEncoder, layer_names, mean_activations, normalize_activations
from fststyle.images import write_atomically
from fststyle.losses import gram_matrix, measure_photographs
from fststyle.training import sources
from fststyle.training.data import Photographs

log = logging.getLogger("distill")

WIDTHS = (16, 32, 64, 128, 128)
#: The student's last convolution.
DEEPEST = "conv5_1"
#: Where student and teacher are compared through linear maps, if their widths differ.
TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
SEED = 0
#: Weight of the relative Gram distance, and share of steps on pictures towards a style.
GRAM, ON_THE_WAY = 0.3, 0.1


def student_layers(architecture: str) -> tuple[str, ...]:
    """Every tap of the student, shallow to deep."""
    names = layer_names(architecture)
    return names[: names.index(DEEPEST) + 2]


def width(layer: str) -> int:
    """The student's channels at a layer."""
    return WIDTHS[int(layer[4]) - 1]


class Student(nn.Module):
    """Learnable weights of an encoder, and a linear map per tap to the teacher's features.

    A filter is learned as its answer to the mean patch of its inputs, and as a kernel for whitened patches:
    neighbouring pixels and filters are so correlated that plain kernels take ever longer to learn the fine
    differences that edge detectors live on.
    """

    def __init__(self, teacher: VGGEncoder, photographs: list[Tensor]) -> None:
        super().__init__()
        self.architecture, self.padding = teacher.architecture, teacher.padding
        relus = [name for name in student_layers(self.architecture) if name.startswith("relu")]
        widths = {name: teacher.weights()[f"{name.replace('relu', 'conv')}.bias"].numel() for name in relus}
        #: Layers where both are equally wide, so that filters are compared one by one; and all that are compared.
        self.alike = [name for name in relus if widths[name] == width(name)]
        self.compared = [name for name in relus if name in self.alike or name in TAPS]
        weights = random_weights(self.architecture, SEED, WIDTHS)
        keys = list(weights)
        kept = {key: weights[key] for key in keys[: keys.index(f"{DEEPEST}.bias") + 1]}
        self.encoder = VGGEncoder(kept, self.architecture, padding=self.padding)  # type: ignore[arg-type]
        self.kernels, self.levels = nn.ParameterDict(), nn.ParameterDict()
        images = torch.cat(photographs)[:96]
        for conv, (mean, whitening) in patches(self.encoder, images, teacher(images, self.compared)).items():
            kernel = kept[f"{conv}.weight"].flatten(1)
            self.register_buffer(f"{conv}_mean", mean)
            self.register_buffer(f"{conv}_whitening", whitening)
            self.kernels[conv] = nn.Parameter(torch.linalg.solve(whitening.T, kernel.T).T.contiguous())
            self.levels[conv] = nn.Parameter(kernel @ mean)
        linear = {name: nn.Conv2d(width(name), widths[name], 1) for name in self.compared if name not in self.alike}
        self.maps = nn.ModuleDict(linear)

    def weights(self) -> dict[str, Tensor]:
        """The encoder's weights as they are now, by the names of its buffers."""
        weights = {}
        for conv, whitened in self.kernels.items():
            kernel = whitened @ getattr(self, f"{conv}_whitening")
            weights[f"{conv}_weight"] = kernel.unflatten(1, (-1, 3, 3))
            weights[f"{conv}_bias"] = self.levels[conv] - kernel @ getattr(self, f"{conv}_mean")
        return weights

    def forward(self, image: Tensor, given: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The teacher's features as the student sees them, before rectification.

        ``given``: the teacher's features, which each layer is handed instead of what the student's layer
        before it makes of the image, as far as both networks compute alike. So every layer learns by
        itself and at once; else the first ones learn nothing while those behind them are still random.
        """
        weights, seen = self.weights(), {}
        x = self.encoder._convolve("preprocess", image)
        for layer in self.encoder.layers:
            if layer.startswith("conv"):
                weight, bias = weights[f"{layer}_weight"], weights[f"{layer}_bias"]
                x = self.encoder.padded_convolution(x, weight, bias)
            elif layer.startswith("pool"):
                x = F.max_pool2d(x, 2)
            else:
                before, x = x, F.relu(x)
                if layer in self.alike:
                    seen[layer] = before
                    x = given[layer] if given else x
                elif layer in self.maps:
                    seen[layer] = self.maps[layer](x)
        return seen

    @torch.no_grad()
    def revive(self, images: Tensor, generator: torch.Generator) -> int:
        """Let filters that never fire begin anew, where no filter of the teacher calls them; returns how many did."""
        revived = 0
        for layer in (layer for layer in self.encoder.layers if layer.startswith("relu")):
            dead = self.trained()(images, [layer])[layer].mean((0, 2, 3)) < 1e-3
            if layer in self.alike or not bool(dead.any()):
                continue
            conv = layer.replace("relu", "conv")
            kernel = self.kernels[conv]
            kernel[dead] = torch.randn(kernel[dead].shape, generator=generator) * kernel.shape[1] ** -0.5
            self.levels[conv][dead] = 1  # fires, at its mean input
            revived += int(dead.sum())
        return revived

    @torch.no_grad()
    def trained(self) -> VGGEncoder:
        """An encoder of its own with the weights as they are now."""
        weights = self.encoder.weights()
        weights |= {key.replace("_weight", ".weight").replace("_bias", ".bias"): v for key, v in self.weights().items()}
        return VGGEncoder(weights, self.architecture, padding=self.padding)  # type: ignore[arg-type]


@torch.no_grad()
def patches(encoder: VGGEncoder, images: Tensor, taught: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and whitening of the 3×3 patches that each of the student's convolutions will see, as its teacher has them.

    ``taught``: the teacher's features. Where it has none, the mean is 1 and nothing is whitened.
    """
    found, before = {}, ""
    features = {"": encoder._convolve("preprocess", images), **taught}
    for conv in (name for name in student_layers(encoder.architecture) if name.startswith("conv")):
        channels = width(before) if before else 3
        seen = features.get(before)
        if before and before[4] != conv[4] and seen is not None:
            seen = F.max_pool2d(seen, 2)
        if seen is None:
            found[conv] = torch.ones(9 * channels), torch.eye(9 * channels)
        else:
            flat = F.unfold(seen, 3, stride=1 + seen.shape[-1] // 40).transpose(0, 1).flatten(1).double()
            mean = flat.mean(1, keepdim=True)
            values, vectors = torch.linalg.eigh((flat - mean) @ (flat - mean).T / flat.shape[1])
            # What hardly varies is not blown up: the student's features are not yet its teacher's.
            scale = values.clamp_min((1e-3 if channels == 3 else 1e-2) * float(values.mean())).rsqrt()
            found[conv] = mean[:, 0].float(), (vectors * scale @ vectors.T).float()
        before = conv.replace("conv", "relu")
    return found


def distance(seen: dict[str, Tensor], target: dict[str, Tensor], gram_weight: float) -> Tensor:
    """Feature distance, relative to each filter's energy, and relative Gram distance; mean over taps.

    Where the teacher fires, what the student ``seen`` counts as it is before rectification: the same
    minimum, but convex, and no filter is lost because it never fires.
    """
    total = torch.zeros(())
    for key, value in target.items():
        value, before = value.float(), seen[key].float()
        estimate = F.relu(before)
        energy = value.square().mean((0, 2, 3))
        error = (torch.where(value > 0, before, estimate) - value).square().mean((0, 2, 3))
        total = total + (error / (energy + 0.05 * energy.mean())).mean()
        if gram_weight and key in TAPS:
            gram, wanted = gram_matrix(estimate, "hw"), gram_matrix(value, "hw")
            relative = (gram - wanted).square().sum((1, 2)) / wanted.square().sum((1, 2)).clamp_min(1e-3)
            total = total + gram_weight * relative.clamp_max(4).mean()
    return total / len(target)


def vary(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images in other colours, a third under noise, some blended: (B, 3, H, W) in [0, 1] again."""
    count = len(images)

    def chosen(share: float) -> Tensor:
        return (torch.rand(count, generator=generator) < share).view(-1, 1, 1, 1)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(count, *shape).uniform_(low, high, generator=generator)

    colours = torch.eye(3) + torch.randn(count, 3, 3, generator=generator) * 0.4
    recoloured = torch.einsum("bij,bjhw->bihw", colours, images - 0.5) * uniform(0.4, 1.4, 1, 1, 1)
    recoloured = recoloured + 0.5 + torch.randn(count, 3, 1, 1, generator=generator) * 0.1
    images = torch.where(chosen(0.4), recoloured, images)
    mixed = images.lerp(images.roll(1, 0), uniform(0.1, 0.6, 1, 1, 1))
    images = torch.where(chosen(0.15), mixed, images)
    noise = torch.randn(images.shape, generator=generator) * uniform(0.01, 0.3, 1, 1, 1)
    return torch.where(chosen(0.3), images + noise, images).clamp(0, 1)


def pictures(folder: str, size: int, batch: int, start: int) -> Iterator[Tensor]:
    """Photographs, and one generated picture in eight, from the given batch on."""
    generated = max(1, batch // 8)
    photos = Photographs(sources.folder(folder), size, batch - generated, workers=1, seed=SEED, scale=(0.4, 1.0))
    leaves = Photographs(sources.Generated(size + size // 4), size, generated, workers=1, seed=SEED)
    loaders = [data.batches_from(start) for data in (photos, leaves)]
    while True:
        yield torch.cat([next(loader) for loader in loaders])


def towards_a_style(images: Tensor, encoder: VGGEncoder, steps: int, rate: float) -> Tensor:
    """Images after a few steps of gradient descent towards each other's Gram matrices, as ``encoder`` sees them."""
    with torch.no_grad():
        wanted = {k: gram_matrix(v, "hw").roll(1, 0) for k, v in encoder(images, TAPS).items()}
    pixels = images.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        features = encoder(pixels, TAPS)
        distances = [(gram_matrix(features[k], "hw") - v).square().sum() / v.square().sum() for k, v in wanted.items()]
        torch.stack(distances).sum().backward()
        optimizer.step()
    return pixels.detach().clamp(0, 1)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--teacher", choices=("vgg16", "vgg19"), default="vgg16", help="its architecture")
    options.add_argument("--weights", help="its weights, as encoder.weights of fststyle train")
    options.add_argument("--photographs", required=True, metavar="FOLDER")
    options.add_argument("--notice", type=Path, metavar="FILE", help="the teacher's licence, for the metadata")
    options.add_argument("--steps", type=int, default=6000)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--size", type=int, default=160)
    options.add_argument("--local", type=int, default=600, help="first steps, in which each layer learns by itself")
    options.add_argument("--compile", action="store_true")
    options.add_argument("-o", "--output", type=Path, default=Path("checkpoints/encoders/vgg19_slim.safetensors"))
    chosen = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)

    held = Photographs(sources.folder(chosen.photographs), chosen.size, seed=SEED)
    sample = list(held.calibration_batches(100))
    source = load_encoder(chosen.teacher, chosen.weights)
    # The features that the student is to give: every filter scaled to mean activation 1.
    teacher = normalize_activations(source, mean_activations(source, sample), 0.3)
    student = Student(teacher, sample)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3, betas=(0.9, 0.99), fused=True)

    def rate(step: int) -> float:
        if step < chosen.local:
            return min(1.0, (step + 1) / 50) * (1 + 9 * 0.5 * (1 + math.cos(math.pi * step / chosen.local)))
        done = (step - chosen.local) / (chosen.steps - chosen.local)
        return min(1.0, (step - chosen.local + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    learned = {"student": student, "optimizer": optimizer, "schedule": schedule}
    state, first = chosen.output.with_name(chosen.output.name + ".state"), 0
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        for name, part in learned.items():
            part.load_state_dict(saved[name])
        first = saved["step"]
        log.info("going on from step %d", first)

    def compute_loss(images: Tensor, local: bool) -> Tensor:
        target = teacher(images, student.compared)
        return distance(student(images, target if local else None), target, 0.0 if local else GRAM)

    compiled = torch.compile(compute_loss) if chosen.compile else compute_loss
    began, shown = time.perf_counter(), 0.0
    for step, images in enumerate(pictures(chosen.photographs, chosen.size, chosen.batch, first), first):
        if step >= chosen.steps:
            break
        if step < chosen.steps // 2 and step % 200 == 0:
            revived = student.revive(images, generator)
            log.info("step %d: %d filters never fired and began anew", step, revived)
        images = vary(images, generator)
        if step > 500 and torch.rand((), generator=generator) < ON_THE_WAY:
            half = len(images) // 2
            steps = int(torch.randint(3, 12, (), generator=generator))
            moved = towards_a_style(images[:half], student.trained() if step % 2 else source, steps, 0.05)
            images = torch.cat([moved, images[half:]])
        loss = compiled(images.contiguous(memory_format=torch.channels_last), step < chosen.local)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        schedule.step()
        if not torch.isfinite(norm):
            log.warning("step %d: left out, its gradient is not finite", step + 1)
            continue
        optimizer.step()
        value = float(loss.detach())
        shown = 0.98 * shown + 0.02 * value if shown else value
        if (step + 1) % 100 == 0:
            speed = (step + 1 - first) * chosen.batch / (time.perf_counter() - began)
            log.info("step %d: distance %.4f, %.1f images/s", step + 1, shown, speed)
        if (step + 1) % 250 == 0:
            saved = {name: part.state_dict() for name, part in learned.items()} | {"step": step + 1}
            write_atomically(state, lambda file, saved=saved: torch.save(saved, file))

    export(student, teacher, held, chosen)


@torch.no_grad()
def export(student: Student, teacher: VGGEncoder, held: Photographs, chosen: argparse.Namespace) -> None:
    """Write the encoder: normalised, with what photographs measure in it and how close it came to its teacher."""
    images = held.held_out_images
    fidelity = {}
    for key, value in teacher(images, student.compared).items():
        seen = F.relu(student(images)[key])
        unexplained = (seen - value).square().mean((0, 2, 3)).sum() / value.var((0, 2, 3)).sum()
        gram, wanted = gram_matrix(seen, "hw"), gram_matrix(value, "hw")
        relative = (gram - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)
        figures = {"unexplained_variance": unexplained, "gram": relative.median()}
        fidelity[key] = {name: round(float(figure), 4) for name, figure in figures.items()}
        log.info("%-17s unexplained variance %.4f, Gram %.4f", key, *fidelity[key].values())
    photographs = Photographs(sources.folder(chosen.photographs), 256, seed=SEED)
    encoder = student.trained()
    # Filters that hardly ever fire stay quiet: scaled to mean 1 they would outweigh all others.
    encoder = normalize_activations(encoder, mean_activations(encoder, photographs.calibration_batches(512)), 0.5)
    statistics = measure_photographs(encoder, photographs.calibration_batches(1024))
    notice = chosen.notice.read_text() if chosen.notice else ""
    metadata = {
        **{"kind": "encoder", "name": chosen.output.stem},
        "teacher": {"name": teacher.name.removesuffix("+normalized"), "sha256": teacher.digest, "notice": notice},
        **{"held_out": fidelity, "steps": chosen.steps, "images": chosen.steps * chosen.batch, "seed": SEED},
        "command": shlex.join(["python", "scripts/distill_encoder.py", *map(without_folders, sys.argv[1:])]),
        "licence": "Apache-2.0",
    }
    save_encoder(chosen.output, encoder, metadata, statistics)
    log.info("wrote %s (%d bytes)", chosen.output, chosen.output.stat().st_size)


if __name__ == "__main__":
    main()
