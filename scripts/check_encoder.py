"""What the small encoder and balanced weights promise, measured.

    python scripts/check_encoder.py calibration --photographs FOLDER [--encoder slim --encoder FILE …]
    python scripts/check_encoder.py slow --teacher FILE --photographs FOLDER --photo P … --painting P …
    python scripts/check_encoder.py fidelity --teacher FILE --photographs FOLDER --photo P … [--encoder slim …]
    python scripts/check_encoder.py step

``calibration``: balanced terms on 200 photographs other than the 256 that they were calibrated on: 1 each.
``slow``: the style term, as the teacher sees it, that optimisation driven by the small encoder reaches,
over what it reaches driven by the teacher itself in as many evaluations.
``fidelity``: what the best linear 1×1 map from the encoder's features, fitted on photographs, leaves unexplained of
its teacher's variance on other photographs, per style layer.
``step``: seconds of a training step by encoder, in turn, and the share of it that the loss network takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from fststyle.config import preset_loss
from fststyle.encoders.pretrained import load_encoder
from fststyle.encoders.vgg import VGGEncoder
from fststyle.images import find_pictures, load_image
from fststyle.losses import measure_normalizers
from fststyle.networks.transform import TransformNet
from fststyle.optimization import optimize
from fststyle.optimization.recipes import size_of, starting_image, transfer
from fststyle.report.style import LAYERS
from fststyle.training import sources
from fststyle.training.data import Photographs

sys.path.insert(0, str(Path(__file__).resolve().parent))
from benchmark import in_turn, stepping, training_step


def named(name: str, photographs: str) -> VGGEncoder:
    """``slim``, ``slim_vgg16``, ``random`` (a full VGG-16), or a VGG-19 file with filters scaled on photographs."""
    if name in ("slim", "slim_vgg16"):
        return load_encoder("vgg19" if name == "slim" else "vgg16", "slim")
    if name == "random":
        return load_encoder("vgg16", name)
    return load_encoder("vgg19", name, normalize=photographs)


def calibration(chosen: argparse.Namespace) -> dict[str, object]:
    """Terms of 200 photographs after calibration on 256 others."""
    painting = load_image(chosen.painting[0], 512)
    measured: dict[str, object] = {}
    with torch.autocast("cpu", torch.bfloat16, enabled=chosen.precision == ["bfloat16"]):
        _calibrations(chosen, painting, measured)
    return measured


def _calibrations(chosen: argparse.Namespace, painting: Tensor, measured: dict[str, object]) -> None:
    for name in chosen.encoder:
        encoder = named(name, chosen.photographs)
        for size in chosen.size:
            loss = preset_loss(encoder)
            photographs = Photographs(sources.folder(chosen.photographs), size, 8, workers=1)
            style = loss.style_targets(painting)
            batches = photographs.calibration_batches(456)
            loss.normalizers = measure_normalizers(loss, (next(batches) for _ in range(32)), style)
            met: dict[str, list[float]] = {}
            with torch.no_grad():
                for batch in batches:
                    terms = loss(batch, content=loss.content_targets(batch.roll(1, 0)), style=style).scalars()
                    for key in terms.keys() - {"total"}:
                        met.setdefault(key, []).append(float(terms[key]))
            # Of both means, that of the 200 and that of the 256 which they are divided by.
            error = (1 / 200 + 1 / 256) ** 0.5 * photographs.batch_size**0.5
            known = {}
            if encoder.photographs is not None:
                boxed = preset_loss(encoder)
                boxed.normalizers = measure_normalizers(boxed, None, style)
                known = {k: round(boxed.normalizers[k] / loss.normalizers[k], 3) for k in sorted(met)}
            measured[f"{encoder.name} {size}"] = {
                **{k: f"{statistics.mean(v):.3f} ± {error * statistics.stdev(v):.3f}" for k, v in sorted(met.items())},
                **({"what the encoder knows, over what was measured": known} if known else {}),
            }
            print(f"{encoder.name} {size} px: {measured[f'{encoder.name} {size}']}", flush=True)


def slow(chosen: argparse.Namespace) -> dict[str, object]:
    """Style term by the teacher's judgement: driven by the small encoder over driven by the teacher."""
    teacher, student = named(chosen.teacher, chosen.photographs), named("slim", chosen.photographs)
    batches = list(Photographs(sources.folder(chosen.photographs), 256, 8, workers=1).calibration_batches(128))
    ratios = {}
    for painting in chosen.painting:
        losses, targets = {}, {}
        for name, encoder in (("teacher", teacher), ("slim", student)):
            losses[name] = preset_loss(encoder)
            targets[name] = losses[name].style_targets(load_image(painting, 384))
            losses[name].normalizers = measure_normalizers(losses[name], batches, targets[name])
        for photo in chosen.photo:
            content = load_image(photo, 256)
            reached = {}
            for name, loss in losses.items():
                objective = transfer(loss, content, targets[name])
                start = starting_image("content", size_of(content), content)
                image = optimize(start, objective, chosen.evaluations).image
                with torch.no_grad():
                    judged = transfer(losses["teacher"], content, targets["teacher"])(image)
                    unstylised = transfer(losses["teacher"], content, targets["teacher"])(content)
                shares = [float(v / unstylised.style[k]) for k, v in judged.style.items()]
                content_terms = [float(v) for v in judged.content.values()]
                reached[name] = (statistics.mean(shares), statistics.mean(content_terms))
            ratio = reached["slim"][0] / reached["teacher"][0]
            ratios[f"{Path(painting).stem} {Path(photo).stem}"] = round(ratio, 3)
            print(
                f"{Path(painting).stem} {Path(photo).stem}: style {reached['teacher'][0]:.4f} driven by the teacher, "
                f"{reached['slim'][0]:.4f} by slim: {ratio:.2f}×; content {reached['teacher'][1]:.3f}, "
                f"{reached['slim'][1]:.3f}",
                flush=True,
            )
    return {"ratios": ratios, "median": statistics.median(ratios.values()), "largest": max(ratios.values())}


@torch.no_grad()
def fidelity(chosen: argparse.Namespace) -> dict[str, object]:
    """Variance of the teacher's features left unexplained by the best linear map of each encoder's, per layer."""
    teacher = named(chosen.teacher, chosen.photographs)
    fitted = list(Photographs(sources.folder(chosen.photographs), 256, 8, workers=1).calibration_batches(96))
    held = [load_image(photo, 512) for photo in chosen.photo]
    measured: dict[str, object] = {}
    for name in chosen.encoder or ["slim", "slim_vgg16"]:
        encoder = named(name, chosen.photographs)
        left = {}
        for layer in (layer for layer in LAYERS if layer in encoder.layers):
            inputs, wanted = (_columns(source, layer, fitted) for source in (encoder, teacher))
            covariance = inputs @ inputs.T
            covariance += 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
            weights = torch.linalg.solve(covariance, inputs @ wanted.T).T
            inputs, wanted = (_columns(source, layer, held) for source in (encoder, teacher))
            error = (weights @ inputs - wanted).square().mean(1).sum()
            left[layer] = round(float(error / wanted.var(1).sum()), 5)
        measured[name] = left
        print(f"{name}: {left}", flush=True)
    return measured


def _columns(encoder: VGGEncoder, layer: str, images: list[Tensor]) -> Tensor:
    """Features as columns (C + 1, positions), float64, a row of ones below; about 1,000 positions an image."""
    found = []
    for image in images:
        features = encoder(image, [layer])[layer]
        stride = max(1, round((features[0, 0].numel() / 1024) ** 0.5))
        found.append(features[:, :, ::stride, ::stride].transpose(0, 1).flatten(1).double())
    columns = torch.cat(found, 1)
    return torch.cat([columns, torch.ones(1, columns.shape[1], dtype=torch.float64)])


def step(chosen: argparse.Namespace) -> dict[str, object]:
    """Seconds of a training step with the small encoder and with a full VGG-16, in turn."""
    images = torch.rand(chosen.batch, 3, 256, 256).contiguous(memory_format=torch.channels_last)
    steps: dict[str, Callable[[], object]] = {}
    for name in ("slim", "random"):
        for precision in chosen.precision:
            label = f"{'slim' if name == 'slim' else 'VGG-16'} {precision}"
            steps[label] = training_step(name, precision, images, chosen.compile)
            alone = TransformNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            run: Callable[[Tensor], Tensor] = torch.compile(alone) if chosen.compile else alone
            output = lambda run=run: F.mse_loss(run(images).float(), images)  # type: ignore[misc]  # noqa: E731
            steps[f"{label}, network alone"] = stepping(output, alone, precision)
    times = in_turn(steps, chosen.repeats)
    medians = {label: round(seconds, 4) for label, seconds in times.items()}
    ratios = {}
    for precision in chosen.precision:
        whole = medians[f"slim {precision}"]
        ratios[precision] = {
            "full VGG-16 over slim": round(medians[f"VGG-16 {precision}"] / whole, 2),
            "share of the loss network, slim": round(1 - medians[f"slim {precision}, network alone"] / whole, 3),
        }
    return {"seconds": medians, "ratios": ratios}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("check", choices=("calibration", "slow", "fidelity", "step"))
    options.add_argument("--photographs", default="photographs", metavar="FOLDER")
    options.add_argument("--photo", action="append")
    options.add_argument("--painting", action="append")
    options.add_argument("--encoder", action="append")
    options.add_argument("--teacher")
    options.add_argument("--size", type=int, action="append")
    options.add_argument("--evaluations", type=int, default=120)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--precision", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    options.add_argument("--compile", action="store_true", help="of step: compiled, as long runs are")
    options.add_argument("--json", type=Path, help="write the figures there")
    chosen = options.parse_args()
    chosen.size = chosen.size or [256, 512]
    if chosen.check in ("slow", "fidelity") and chosen.photo is None:
        chosen.photo = [str(path) for path in find_pictures(chosen.photographs)[:4]]
    figures = {"calibration": calibration, "slow": slow, "fidelity": fidelity, "step": step}[chosen.check](chosen)
    print(json.dumps(figures, indent=1))
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
