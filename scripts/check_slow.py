"""What the slow mode promises, measured.

    python scripts/check_slow.py scipy    --photo P … --painting P
    python scripts/check_slow.py transfer --photo P … --painting P … -o FOLDER
    python scripts/check_slow.py texture  --painting SOURCE … -o FOLDER
    python scripts/check_slow.py content  --photo P
    python scripts/check_slow.py seconds  [--size 256 --size 512]

``scipy``: the objective after 100 evaluations over that of SciPy's L-BFGS-B from the same start.
``transfer``: style and content terms after 500 iterations, from noise and from the photograph, as shares
of what the unstylised photograph and another photograph measure. ``texture``: Gram distance to the source
over that between two halves of the source. ``content``: PSNR of reconstructions, by layer, with a full
VGG-16 of random weights, with the slim one, and with others given. ``seconds``: iterations with full VGG-16 and VGG-19
(random weights), and one pass of the recommended network, in turn: the paper's Table 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from fststyle.config import preset_loss
from fststyle.encoders.pretrained import load_encoder
from fststyle.images import load_image, save_image
from fststyle.inference import Stylizer
from fststyle.losses import PerceptualLoss, measure_normalizers, style_loss
from fststyle.networks.transform import TransformNet
from fststyle.optimization import optimize
from fststyle.optimization.recipes import (
    content_reconstruction,
    pixel_range,
    size_of,
    starting_image,
    texture,
    transfer,
)


def balanced(painting: Tensor) -> PerceptualLoss:
    """The loss of ``loss=balanced`` over the slim encoder, balanced by what that knows of photographs."""
    loss: PerceptualLoss = preset_loss(load_encoder("vgg19", "slim"))
    loss.normalizers = measure_normalizers(loss, None, loss.style_targets(painting))
    return loss


def keep(image: Tensor, chosen: argparse.Namespace, name: str) -> None:
    """Write a picture, if a folder was given for them."""
    if chosen.output:
        chosen.output.mkdir(parents=True, exist_ok=True)
        save_image(image, chosen.output / f"{name}.png")


def scipy(chosen: argparse.Namespace) -> dict[str, Any]:
    """Ours over SciPy's, at equally many evaluations."""
    from scipy.optimize import minimize

    ratios: dict[str, float] = {}
    painting = load_image(chosen.painting[0], 384)
    loss = balanced(painting)
    for photo in chosen.photo:
        content = load_image(photo, chosen.size[0])
        objective = transfer(loss, content, painting)
        for kind in ("noise", "content"):
            start = starting_image(kind, size_of(content), content)
            ours = optimize(start, objective, chosen.evaluations).best
            theirs = _scipy(minimize, start, objective, chosen.evaluations)
            ratios[f"{Path(photo).stem} from {kind}"] = round(ours / theirs, 4)
            print(
                f"{Path(photo).stem} from {kind}: ours {ours:.4f}, SciPy {theirs:.4f}: {ours / theirs:.3f}", flush=True
            )
    return {"ratios": ratios, "largest": max(ratios.values())}


def _scipy(minimize: Callable[..., Any], start: Tensor, objective: Any, evaluations: int) -> float:
    best = [float("inf")]
    done = [0]

    class EnoughError(Exception):
        pass

    def evaluate(values: np.ndarray) -> tuple[float, np.ndarray]:
        if done[0] == evaluations:
            raise EnoughError
        done[0] += 1
        pixels = torch.from_numpy(values.astype(np.float32)).view(start.shape).requires_grad_()
        total = objective(pixels).total
        total.backward()
        best[0] = min(best[0], float(total.detach()))
        assert pixels.grad is not None
        return float(total.detach()), pixels.grad.double().numpy().ravel()

    options = {"maxiter": 10 * evaluations, "maxfun": 10 * evaluations, "maxcor": 20, "ftol": 0, "gtol": 0}
    try:
        bounds = [(0, 1)] * start.numel()
        values = start.contiguous().double().numpy().ravel()
        minimize(evaluate, values, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    except EnoughError:
        pass
    return best[0]


def transfers(chosen: argparse.Namespace) -> dict[str, Any]:
    """Style as a share of the unstylised photograph's, content as a share of another photograph's."""
    measured: dict[str, Any] = {}
    contents = [load_image(photo, chosen.size[0]) for photo in chosen.photo]
    for painting_file in chosen.painting:
        painting = load_image(painting_file, 384)
        loss = balanced(painting)
        for number, content in enumerate(contents):
            objective = transfer(loss, content, painting)
            other = contents[(number + 1) % len(contents)]
            height, width = (min(a, b) for a, b in zip(size_of(content), size_of(other), strict=True))
            with torch.no_grad():
                plain = objective(content)
                cut = transfer(loss, content[..., :height, :width], painting)(other[..., :height, :width])
            for kind in ("noise", "content"):
                run = optimize(starting_image(kind, size_of(content), content), objective, chosen.iterations)
                with torch.no_grad():
                    terms = objective(run.image)
                style = statistics.mean(float(v / plain.style[k]) for k, v in terms.style.items())
                kept = statistics.mean(float(v / cut.content[k]) for k, v in terms.content.items())
                name = f"{Path(painting_file).stem} {Path(chosen.photo[number]).stem} from {kind}"
                measured[name] = {"style": round(style, 4), "content": round(kept, 4)}
                print(f"{name}: style {style:.4f}, content {kept:.3f}, {run.seconds:.0f} s", flush=True)
                keep(run.image, chosen, name.replace(" ", "_"))
    return measured


def textures(chosen: argparse.Namespace) -> dict[str, Any]:
    """Gram distance to the source over that between two halves of the source."""
    measured = {}
    for source_file in chosen.painting:
        source = load_image(source_file, chosen.size[0])
        layers = ["relu1_1", "pool1", "pool2", "pool3"]
        encoder = load_encoder("vgg19", "slim", pooling="average")
        loss = PerceptualLoss(
            encoder, [], layers, content_weight=0, style_weight=1.0, gram_divisor="hw", style_form="quarter"
        )
        objective = texture(loss, source)
        start = starting_image("noise", size_of(source), deviation=1 / 255, around=source)
        run = optimize(start, objective, chosen.iterations, bounds=pixel_range(source))
        half = source.shape[-1] // 2
        first, second = (loss.style_targets(part) for part in (source[..., :half], source[..., half:]))
        wanted, reached = loss.style_targets(source), loss.style_targets(run.image)
        name = Path(source_file).stem
        measured[name] = {
            layer: round(float(style_loss(reached[layer], wanted[layer]) / style_loss(first[layer], second[layer])), 5)
            for layer in wanted
        }
        print(f"{name}: {measured[name]}, {run.seconds:.0f} s", flush=True)
        keep(run.image, chosen, f"texture_{name}")
    return measured


RECONSTRUCTED = ["relu1_2", "relu2_2", "relu3_1", "relu3_3", "relu4_3"]


def contents(chosen: argparse.Namespace) -> dict[str, Any]:
    """PSNR of reconstructions from one layer."""
    photo = load_image(chosen.photo[0], chosen.size[0])
    measured: dict[str, Any] = {}
    for weights in chosen.encoder:  # a file is a VGG-19's
        encoder = load_encoder("vgg16" if weights == "random" else "vgg19", weights)
        for layer in RECONSTRUCTED[:2] if weights == "random" else RECONSTRUCTED:
            loss = PerceptualLoss(encoder, [layer], [], style_weight=0)
            start = starting_image("noise", size_of(photo))
            run = optimize(start, content_reconstruction(loss, photo), chosen.iterations)
            psnr = peak_signal_noise_ratio(run.image, photo, data_range=1.0).item()
            measured[f"{encoder.name} {layer}"] = round(psnr, 2)
            print(f"{encoder.name} {layer}: {psnr:.2f} dB, {run.seconds:.0f} s", flush=True)
    return measured


def seconds(chosen: argparse.Namespace) -> dict[str, Any]:
    """Table 1: iterations of the slow mode beside one pass, in turn."""
    measured: dict[str, Any] = {}
    stylizer = Stylizer(TransformNet())
    for size in chosen.size:
        photo = torch.rand(1, 3, size, size)
        runs: dict[str, list[float]] = {"one pass": []}
        objectives = {}
        for architecture in ("vgg16", "vgg19"):
            loss = PerceptualLoss(load_encoder(architecture, "random"), tv_weight=1e-6)
            objectives[architecture] = transfer(loss, photo, torch.rand(1, 3, size, size))
            runs[architecture] = []
        stylizer(photo)
        for _ in range(chosen.repeats):
            began = time.perf_counter()
            stylizer(photo)
            runs["one pass"].append(time.perf_counter() - began)
            for architecture, objective in objectives.items():
                trace = optimize(starting_image("noise", (size, size)), objective, chosen.evaluations).trace
                steps = [b["seconds"] - a["seconds"] for a, b in itertools.pairwise(trace)]
                runs[architecture].append(statistics.median(steps))
        one = statistics.median(runs["one pass"])
        for architecture in objectives:
            each = statistics.median(runs[architecture])
            row = {f"{count} iterations": round(count * each, 1) for count in (100, 300, 500)}
            measured[f"{architecture} {size} px"] = {
                **row,
                "one pass": round(one, 4),
                "500 over one": round(500 * each / one),
            }
            print(f"{architecture} {size} px: {measured[f'{architecture} {size} px']}", flush=True)
    return measured


CHECKS = {"scipy": scipy, "transfer": transfers, "texture": textures, "content": contents, "seconds": seconds}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("check", choices=CHECKS)
    options.add_argument("--photo", action="append")
    options.add_argument("--painting", action="append")
    options.add_argument("--size", type=int, action="append")
    options.add_argument(
        "--encoder", nargs="+", default=["random", "slim"], help="of content: random, slim, or a VGG-19's file"
    )
    options.add_argument("--iterations", type=int, default=500)
    options.add_argument("--evaluations", type=int, default=100)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("-o", "--output", type=Path, help="a folder for the pictures")
    options.add_argument("--json", type=Path, help="write the figures there")
    chosen = options.parse_args()
    chosen.size = chosen.size or [256]
    figures = CHECKS[chosen.check](chosen)
    print(json.dumps(figures, indent=1))
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
