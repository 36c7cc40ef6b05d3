"""What the slow mode promises, measured.

    python scripts/checks/slow.py scipy    --photo P … --painting P
    python scripts/checks/slow.py transfer --photo P … --painting P … -o FOLDER
    python scripts/checks/slow.py texture  --painting SOURCE … -o FOLDER
    python scripts/checks/slow.py content  --photo P
    python scripts/checks/slow.py seconds  [--size 256 512]

``scipy``: the objective after 100 evaluations over that of SciPy's L-BFGS-B from the same start.
``transfer``: style and content terms after 500 iterations, from noise and from the photograph, as shares
of what the unstylised photograph and another photograph measure. ``texture``: Gram distance to the source
over that between two halves of the source. ``content``: PSNR of reconstructions, by layer, with a full
VGG-16 of random weights, with the slim VGG-19, and with others named. ``seconds``: iterations with full
VGG-16 and VGG-19 (random weights), and one pass of the recommended network, in turn: the paper's Table 1.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio as psnr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fststyle.config import preset_loss
from fststyle.encoders.pretrained import load_encoder, named_encoder
from fststyle.images import load_image, save_image
from fststyle.inference import Stylizer
from fststyle.losses import PerceptualLoss, measure_normalizers, style_loss
from fststyle.networks.transform import TransformNet
from fststyle.optimization import optimize, recipes
from fststyle.optimization.recipes import size_of, starting_image
from measuring import Figures, Files, Folder, Names, Sizes, measure, timed

LAYERS = ("relu1_2", "relu2_2", "relu3_1", "relu3_3", "relu4_3")


def balanced(painting: Tensor) -> PerceptualLoss:
    """The loss of ``loss=balanced`` over the slim encoder, balanced by what that knows of photographs."""
    loss: PerceptualLoss = preset_loss(load_encoder("vgg19", "slim"))
    loss.normalizers = measure_normalizers(loss, None, loss.style_targets(painting))
    return loss


def scipy(photo: Files, painting: Files, size: Sizes = (256,), evaluations: int = 100) -> Figures:
    """Ours over SciPy's, at equally many evaluations."""
    ratios = []
    style = load_image(painting[0], 384)
    loss = balanced(style)
    for file in photo:
        content = load_image(file, size[0])
        objective = recipes.transfer(loss, content, style)
        for kind in ("noise", "content"):
            start = starting_image(kind, size_of(content), content)
            ours = optimize(start, objective, evaluations).best
            theirs = lowest_by_scipy(start, objective, evaluations)
            ratios.append(round(ours / theirs, 4))
            yield f"{file.stem} from {kind}", {"ours": ours, "SciPy": theirs, "ratio": ratios[-1]}
    yield "largest", max(ratios)


def lowest_by_scipy(start: Tensor, objective: Any, evaluations: int) -> float:
    """The lowest total of the first so many evaluations of SciPy's L-BFGS-B."""
    totals: list[float] = []

    def evaluate(values: np.ndarray) -> tuple[float, np.ndarray]:
        pixels = torch.from_numpy(values.astype(np.float32)).view(start.shape).requires_grad_()
        total = objective(pixels).total
        total.backward()
        totals.append(float(total.detach()))
        return totals[-1], pixels.grad.double().numpy().ravel()  # type: ignore[union-attr]

    options = {"maxiter": 10 * evaluations, "maxfun": evaluations, "maxcor": 20, "ftol": 0, "gtol": 0}
    values, bounds = start.contiguous().double().numpy().ravel(), [(0, 1)] * start.numel()
    minimize(evaluate, values, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return min(totals[:evaluations])  # it ends with a whole step, so there may be a few more


def transfer(
    photo: Files, painting: Files, size: Sizes = (256,), iterations: int = 500, output: Folder = None
) -> Figures:
    """Style as a share of the unstylised photograph's, content as a share of another photograph's."""
    contents = [load_image(file, size[0]) for file in photo]
    for painting_file in painting:
        style = load_image(painting_file, 384)
        loss = balanced(style)
        for file, content, other in zip(photo, contents, [*contents[1:], contents[0]], strict=True):
            objective = recipes.transfer(loss, content, style)
            height, width = (min(a, b) for a, b in zip(size_of(content), size_of(other), strict=True))
            with torch.no_grad():
                plain = objective(content)
                cut = recipes.transfer(loss, content[..., :height, :width], style)(other[..., :height, :width])
            for kind in ("noise", "content"):
                run = optimize(starting_image(kind, size_of(content), content), objective, iterations)
                with torch.no_grad():
                    terms = objective(run.image)
                changed = statistics.mean(float(v / plain.style[k]) for k, v in terms.style.items())
                kept = statistics.mean(float(v / cut.content[k]) for k, v in terms.content.items())
                name = f"{painting_file.stem} {file.stem} from {kind}"
                yield name, {"style": round(changed, 4), "content": round(kept, 4), "seconds": round(run.seconds)}
                if output:
                    save_image(run.image, output / f"{name.replace(' ', '_')}.png")


def texture(painting: Files, size: Sizes = (256,), iterations: int = 500, output: Folder = None) -> Figures:
    """Gram distance to the source over that between two halves of the source."""
    encoder = load_encoder("vgg19", "slim", pooling="average")
    layers = ["relu1_1", "pool1", "pool2", "pool3"]
    loss = PerceptualLoss(
        encoder, [], layers, content_weight=0, style_weight=1.0, gram_divisor="hw", style_form="quarter"
    )
    for file in painting:
        source = load_image(file, size[0])
        start = starting_image("noise", size_of(source), deviation=1 / 255, around=source)
        objective = recipes.texture(loss, source)
        run = optimize(start, objective, iterations, bounds=recipes.pixel_range(source))
        half = source.shape[-1] // 2
        pictures = (run.image, source, source[..., :half], source[..., half:])
        reached, wanted, first, second = map(loss.style_targets, pictures)
        shares = {k: style_loss(reached[k], wanted[k]) / style_loss(first[k], second[k]) for k in wanted}
        yield file.stem, {k: round(float(v), 5) for k, v in shares.items()} | {"seconds": round(run.seconds)}
        if output:
            save_image(run.image, output / f"texture_{file.stem}.png")


def content(photo: Files, size: Sizes = (256,), encoder: Names = ("random", "slim"), iterations: int = 500) -> Figures:
    """PSNR of reconstructions from one layer."""
    picture = load_image(photo[0], size[0])
    for weights in encoder:
        judge = load_encoder("vgg16", "random") if weights == "random" else named_encoder(weights, "vgg19", None)
        for layer in LAYERS[: 2 if weights == "random" else None]:
            loss = PerceptualLoss(judge, [layer], [], style_weight=0)
            start = starting_image("noise", size_of(picture))
            run = optimize(start, recipes.content_reconstruction(loss, picture), iterations)
            decibels = round(float(psnr(run.image, picture, data_range=1.0)), 2)
            yield f"{judge.name} {layer}", {"dB": decibels, "seconds": round(run.seconds)}


def seconds(size: Sizes = (256,), evaluations: int = 100, repeats: int = 3) -> Figures:
    """Table 1: iterations of the slow mode beside one pass, in turn."""
    stylizer = Stylizer(TransformNet())
    for side in size:
        photo = torch.rand(1, 3, side, side)
        objectives = {}
        for architecture in ("vgg16", "vgg19"):
            loss = PerceptualLoss(load_encoder(architecture, "random"), tv_weight=1e-6)
            objectives[architecture] = recipes.transfer(loss, photo, torch.rand(1, 3, side, side))
        stylizer(photo)
        passes: list[float] = []
        each: dict[str, list[float]] = {architecture: [] for architecture in objectives}
        for _ in range(repeats):
            passes.append(timed(lambda photo=photo: stylizer(photo)))  # type: ignore[misc]
            for architecture, objective in objectives.items():
                trace = optimize(starting_image("noise", (side, side)), objective, evaluations).trace
                steps = [b["seconds"] - a["seconds"] for a, b in itertools.pairwise(trace)]
                each[architecture].append(statistics.median(steps))
        one = statistics.median(passes)
        for architecture, medians in each.items():
            step = statistics.median(medians)
            row = {f"{count} iterations": round(count * step, 1) for count in (100, 300, 500)}
            row |= {"one pass": round(one, 4), "500 over one": round(500 * step / one)}
            yield f"{architecture} {side} px", row


if __name__ == "__main__":
    measure(__doc__, {check.__name__: check for check in (scipy, transfer, texture, content, seconds)})
