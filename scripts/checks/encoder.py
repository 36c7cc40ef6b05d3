"""What the small encoder promises, measured.

    python scripts/checks/encoder.py slow     --teacher FILE --photographs FOLDER --painting P … [--photo P …]
    python scripts/checks/encoder.py fidelity --teacher FILE --photographs FOLDER [--photo P …] [--encoder slim …]

``slow``: the style term, as the teacher sees it, that optimisation driven by the small encoder reaches,
over what it reaches driven by the teacher itself in as many evaluations.
``fidelity``: what the best linear 1×1 map from the encoder's features, fitted on photographs, leaves unexplained of
its teacher's variance on other photographs, per style layer.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fststyle.config import preset_loss
from fststyle.encoders.pretrained import ENCODERS, named_encoder
from fststyle.encoders.vgg import VGGEncoder
from fststyle.evaluation.style import LAYERS
from fststyle.images import find_pictures, load_image
from fststyle.losses import measure_normalizers
from fststyle.optimization import optimize
from fststyle.optimization.recipes import size_of, starting_image, transfer
from fststyle.training import sources
from fststyle.training.data import Photographs
from measuring import Figures, Files, Names, measure


def named(name: str, photographs: Path) -> VGGEncoder:
    """``slim``, ``slim_vgg16``, or a VGG-19 file with filters scaled on photographs."""
    encoder: VGGEncoder = named_encoder(name, "vgg19", None if name in ENCODERS else str(photographs))
    return encoder


def batches(photographs: Path, count: int) -> list[Tensor]:
    """Photographs at 256 pixels, eight a batch."""
    return list(Photographs(sources.folder(photographs), 256, 8, workers=1).calibration_batches(count))


def slow(teacher: str, photographs: Path, painting: Files, photo: Files = (), evaluations: int = 120) -> Figures:
    """Style term by the teacher's judgement: driven by the small encoder over driven by the teacher."""
    encoders = {"teacher": named(teacher, photographs), "slim": named("slim", photographs)}
    calibration = batches(photographs, 128)
    ratios = []
    for painting_file in painting:
        losses, targets = {}, {}
        for name, encoder in encoders.items():
            losses[name] = preset_loss(encoder)
            targets[name] = losses[name].style_targets(load_image(painting_file, 384))
            losses[name].normalizers = measure_normalizers(losses[name], calibration, targets[name])
        for file in photo or find_pictures(photographs)[:4]:
            content = load_image(file, 256)
            judge = transfer(losses["teacher"], content, targets["teacher"])
            with torch.no_grad():
                unstylised = judge(content)
            reached = {}
            for name, loss in losses.items():
                start = starting_image("content", size_of(content), content)
                image = optimize(start, transfer(loss, content, targets[name]), evaluations).image
                with torch.no_grad():
                    judged = judge(image)
                style = statistics.mean(float(v / unstylised.style[k]) for k, v in judged.style.items())
                reached[name] = {"style": style, "content": statistics.mean(map(float, judged.content.values()))}
            ratios.append(round(reached["slim"]["style"] / reached["teacher"]["style"], 3))
            yield f"{painting_file.stem} {file.stem}", {**reached, "ratio": ratios[-1]}
    yield from {"median": statistics.median(ratios), "largest": max(ratios)}.items()


@torch.no_grad()
def fidelity(teacher: str, photographs: Path, photo: Files = (), encoder: Names = ("slim", "slim_vgg16")) -> Figures:
    """Variance of the teacher's features left unexplained by the best linear map of each encoder's, per layer."""
    wanted_by = named(teacher, photographs)
    fitted = batches(photographs, 96)
    held = [load_image(file, 512) for file in photo or find_pictures(photographs)[:4]]
    for name in encoder:
        own = named(name, photographs)
        left = {}
        for layer in (layer for layer in LAYERS if layer in own.layers):
            inputs, wanted = (_columns(source, layer, fitted) for source in (own, wanted_by))
            covariance = inputs @ inputs.T
            covariance += 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
            weights = torch.linalg.solve(covariance, inputs @ wanted.T).T
            inputs, wanted = (_columns(source, layer, held) for source in (own, wanted_by))
            error = (weights @ inputs - wanted).square().mean(1).sum()
            left[layer] = round(float(error / wanted.var(1).sum()), 5)
        yield name, left


def _columns(encoder: VGGEncoder, layer: str, images: list[Tensor]) -> Tensor:
    """Features as columns (C + 1, positions), float64, a row of ones below; about 1,000 positions an image."""
    found = []
    for image in images:
        features = encoder(image, [layer])[layer]
        stride = max(1, round((features[0, 0].numel() / 1024) ** 0.5))
        found.append(features[:, :, ::stride, ::stride].transpose(0, 1).flatten(1).double())
    columns = torch.cat(found, 1)
    return torch.cat([columns, torch.ones(1, columns.shape[1], dtype=torch.float64)])


if __name__ == "__main__":
    measure(__doc__, {"slow": slow, "fidelity": fidelity})
