"""What photographs measure in an encoder: the units of a balanced loss."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from fststyle.encoders.vgg import PIXELS, PhotographStatistics, VGGEncoder
from fststyle.losses.functional import (
    TVForm,
    content_loss,
    feature_quantiles,
    gram_matrix,
    pixel_loss,
    style_loss,
    total_variation,
)
from fststyle.losses.perceptual import PerceptualLoss


def measure_photographs(encoder: VGGEncoder, photographs: Iterable[Tensor]) -> PhotographStatistics:
    """What photographs measure at every ReLU of an encoder, for ``measure_normalizers(loss, None, …)``.

    Args:
        encoder: any.
        photographs: batches (B, 3, S, S) of different photographs, B ≥ 2.
    """
    layers = [PIXELS, *(layer for layer in encoder.layers if layer.startswith("relu"))]
    firsts = [f"{layer}{part}" for part in ("", "/2") for layer in layers if layer == PIXELS or layer.endswith("_1")]
    names = list(dict.fromkeys([*layers, *firsts]))
    view = PerceptualLoss(encoder, (), firsts, style_form="sliced")
    sums: dict[str, Tensor | float] = {}
    count, size = 0, 0

    def add(name: str, value: Tensor, images: int) -> None:
        sums[name] = sums.get(name, 0.0) + value.double() * images

    for batch in photographs:
        if len(batch) < 2:
            continue
        for name, value in view.features(batch, names).items():
            if name in layers:
                add(f"content/{name}", content_loss(value, value.roll(1, 0)), len(batch))
            grams = gram_matrix(value, "hw")
            add(f"gram/{name}", grams.mean(0, keepdim=True), len(batch))
            add(f"energy/{name}", grams.square().sum((1, 2)).mean(), len(batch))
            if name in firsts:
                quantiles = feature_quantiles(value)
                add(f"quantiles/{name}", quantiles.mean(0, keepdim=True), len(batch))
                add(f"quantile energy/{name}", quantiles.square().mean(), len(batch))
        for form in get_args(TVForm):
            add(form, total_variation(batch, form, "mean"), len(batch))
        add("pixel", pixel_loss(batch, batch.roll(1, 0)), len(batch))
        count, size = count + len(batch), batch.shape[-1]
    if not count:
        raise ValueError("no photographs were given to measure; expected batches of at least two")
    return PhotographStatistics(
        content={layer: float(sums[f"content/{layer}"]) / count for layer in layers},
        grams={layer: (sums[f"gram/{layer}"] / count).float() for layer in names},  # type: ignore[union-attr]
        gram_energies={layer: float(sums[f"energy/{layer}"]) / count for layer in names},
        quantiles={layer: (sums[f"quantiles/{layer}"] / count).float() for layer in firsts},  # type: ignore[union-attr]
        quantile_energies={layer: float(sums[f"quantile energy/{layer}"]) / count for layer in firsts},
        tv={form: float(sums[form]) / count for form in get_args(TVForm)},
        pixel=float(sums["pixel"]) / count,
        size=size,
        count=count,
    )


@torch.no_grad()
def measure_normalizers(
    loss: PerceptualLoss,
    photographs: Iterable[Tensor] | None,
    style: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
) -> dict[str, float | Tensor]:
    """What every term of a balanced loss is worth when nothing was done: by these values it divides its terms.

    A style layer's normaliser is its term for unstylised photographs, a content layer's its term
    between two different photographs, that of total variation and of pixels likewise. The colour term's is the
    mean squared difference of two pixels of the painting, whatever ``hue_weight`` is: at 1 colours in the wrong places
    do not quite reach it.

    Args:
        loss: its own normalisers play no part, and are not changed.
        photographs: batches (B, 3, H, W) of different photographs, one size, B ≥ 2; or None, to
            take the encoder's calibration statistics.
        style: the style targets; for a network of several styles, those of each.

    Returns:
        Term name to normaliser, for ``loss.normalizers``; empty for a loss that is not balanced. For several styles,
        what a painting decides is (N,).

    Raises:
        ValueError: no photographs; a term that is 0 on them; without photographs, an encoder that
            carries no statistics, or a convention whose terms depend on the picture's size.
    """
    if not loss.balanced:
        return {}
    rows = [style] if isinstance(style, Mapping) else list(style)
    colors = [
        {"color": max(1e-3, 2 / 3 * float(row["color"][:, 1:].square().sum((1, 2)).mean()))} if "color" in row else {}
        for row in rows
    ]
    rows = [{layer: target for layer, target in row.items() if layer != "color"} for row in rows]
    if photographs is None:
        return _together([_from_statistics(loss, row) | color for row, color in zip(rows, colors, strict=True)])
    raw = copy.copy(loss)
    raw.normalizers = dict.fromkeys(loss.term_names, 1.0)
    sums: list[dict[str, float]] = [{} for _ in rows]
    count = 0
    for batch in photographs:
        if batch.shape[0] < 2:
            continue  # a photograph needs another one beside it
        other = batch.roll(1, 0)
        terms = raw(batch, content=raw.content_targets(other), style=rows[0], pixels=other).scalars()
        features = raw.features(batch, rows[0]) if len(rows) > 1 else {}
        for row, summed in zip(rows, sums, strict=True):
            if summed is not sums[0]:  # all else is the same for every style
                distances = {layer: raw.style_distance(layer, features[layer], row[layer]) for layer in row}
                terms |= {f"style/{layer}": distance.mean() for layer, distance in distances.items()}
            for name, value in terms.items():
                summed[name] = summed.get(name, 0.0) + float(value) * batch.shape[0]
        count += batch.shape[0]
    if not count:
        raise ValueError("no photographs were given to calibrate the balanced loss on; expected at least two")
    found = [{name: summed[name] / count for name in loss.term_names if name in summed} for summed in sums]
    for name, value in ((name, value) for normalizers in found for name, value in normalizers.items()):
        if not value > 0 or not math.isfinite(value):
            raise ValueError(
                f"{name} is {value} on unstylised photographs, so it cannot be balanced; leave that layer out"
            )
    return _together([normalizers | color for normalizers, color in zip(found, colors, strict=True)])


def _together(each: list[dict[str, float]]) -> dict[str, float | Tensor]:
    """The normalisers of one style as they are; of several, those that a painting decides as (N,)."""
    if len(each) == 1:
        return dict(each[0])
    shared = {name: value for name, value in each[0].items() if not name.startswith("style/") and name != "color"}
    return shared | {name: torch.tensor([one[name] for one in each]) for name in each[0] if name not in shared}


def normalizers_of(normalizers: Mapping[str, float | Tensor], index: int) -> dict[str, float]:
    """The normalisers of one of the styles that they are for."""
    return {name: float(value[index] if isinstance(value, Tensor) else value) for name, value in normalizers.items()}


def unmeasured_terms(loss: PerceptualLoss) -> list[str]:
    """Layers, ``tv`` or all terms for which the encoder has no calibration statistics."""
    known = loss.encoder.photographs if loss.encoder is not None else None
    if known is None:
        return loss.term_names
    missing = [layer for layer in loss.content_layers if layer not in known.content]
    for layer in loss.style_layers:
        if layer not in (known.quantiles if loss.is_sliced(layer) else known.grams):
            missing.append(layer)
    return [*missing, *(["tv"] if loss.tv_form not in known.tv else [])]


def _from_statistics(loss: PerceptualLoss, style: Mapping[str, Tensor]) -> dict[str, float]:
    known = loss.encoder.photographs if loss.encoder is not None else None
    if known is None:
        name = loss.encoder.name if loss.encoder is not None else "none"
        raise ValueError(
            f"the encoder {name} carries no measurements of photographs; give photographs to calibrate the "
            "balanced loss on"
        )
    means = (loss.content_form, loss.style_divisor, loss.tv_reduction) == ("mean", "none", "mean")
    if not means or loss.gram_divisor == "none":
        raise ValueError(
            "without photographs, terms can be balanced only as means: content_form=mean, gram_divisor=hw or chw, "
            "style_divisor=none, tv_reduction=mean"
        )
    if missing := unmeasured_terms(loss):
        raise ValueError(
            f"the encoder {loss.encoder.name} has no measurements of photographs at "  # type: ignore[union-attr]
            f"{', '.join(missing)}; give photographs to calibrate the balanced loss on"
        )
    normalizers = {f"content/{layer}": known.content[layer] for layer in loss.content_layers}
    for layer, target in style.items():
        if loss.is_sliced(layer):
            quantiles = known.quantiles[layer].to(target)
            spread = known.quantile_energies[layer] - float(quantiles.square().mean())
            normalizers[f"style/{layer}"] = float((quantiles - target).square().mean()) + spread
            continue
        # The mean of |G - A|² over photographs' Gram matrices G is |E G - A|² + E |G|² - |E G|².
        divisor = target.shape[-1] if loss.gram_divisor == "chw" else 1
        mean = known.grams[layer].to(target) / divisor
        spread = known.gram_energies[layer] / divisor**2 - float(mean.square().sum())
        share = spread / float((mean - target).square().sum())
        normalizers[f"style/{layer}"] = float(style_loss(mean, target, loss.style_form).mean()) * (1 + share)
    return normalizers | {"tv": known.tv[loss.tv_form], "pixel": known.pixel}
