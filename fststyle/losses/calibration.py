"""What photographs measure in an encoder: the units of a balanced loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from torch import Tensor

from fststyle.encoders.vgg import PIXELS, PhotographStatistics, VGGEncoder
from fststyle.losses.functional import TVForm, content_loss, feature_quantiles, gram_matrix, pixel_loss, total_variation
from fststyle.losses.perceptual import PerceptualLoss


def measure_photographs(encoder: VGGEncoder, photographs: Iterable[Tensor]) -> PhotographStatistics:
    """What photographs measure at every ReLU of an encoder, for ``PerceptualLoss.calibrate(None, …)``.

    Args:
        encoder: any.
        photographs: batches (B, 3, S, S) of different photographs, B ≥ 2.
    """
    layers = [PIXELS, *(layer for layer in encoder.layers if layer.startswith("relu"))]
    firsts = [f"{layer}{part}" for part in ("", "/2") for layer in layers if layer == PIXELS or layer.endswith("_1")]
    names = list(dict.fromkeys([*layers, *firsts]))
    view = PerceptualLoss(encoder, (), firsts, style="sliced")
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
