"""Look before you train: what style weight and style size do, by the slow mode at small size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fststyle.color import with_luminance
from fststyle.images import to_pixels
from fststyle.losses import PerceptualLoss
from fststyle.optimization import Optimization, Progress, optimize
from fststyle.optimization.recipes import size_of, starting_image, transfer


@dataclass
class Cell:
    """One transfer of a sheet.

    ``factor`` times the style's weight and ``style_size`` in pixels are what it was made with;
    ``terms`` as in ``LossTerms.scalars``; ``pixels`` uint8 (H, W, 3), and ``own_colors`` the same
    with the photograph's colours.
    """

    factor: float
    style_size: int
    terms: dict[str, float]
    pixels: np.ndarray
    own_colors: np.ndarray
    stopped: str


def cells(
    content: Tensor,
    paintings: Mapping[int, Tensor],
    factors: Sequence[float],
    loss: Callable[[float, Tensor], PerceptualLoss],
    iterations: int = 50,
    callback: Callable[[Progress], object] | None = None,
) -> Iterator[Cell]:
    """Transfer by every factor and style size: rows of one factor each.

    From the photograph in the painting's colours, which the colour term asks for and networks give as well; from
    noise, as many iterations leave less of the photograph than a network does.

    Args:
        content: the photograph, (1, 3, H, W).
        paintings: longer side in pixels to the painting of that size, (1, 3, H', W').
        factors: times the style's weight.
        loss: (factor, painting) to the loss, calibrated for the painting.
        iterations: of L-BFGS.
        callback: as that of ``optimize``.
    """
    for factor in factors:
        for style_size, painting in paintings.items():
            judge = loss(factor, painting)
            objective = transfer(judge, content, painting)
            start = starting_image("recolored", size_of(content), content, painting)
            run: Optimization = optimize(start, objective, iterations, callback=callback)
            with torch.no_grad():
                terms = {name: float(value) for name, value in objective(run.image).scalars().items()}
            image = run.image.cpu()
            kept = to_pixels(with_luminance(content.cpu(), image))
            yield Cell(factor, style_size, terms, to_pixels(image), kept, run.stopped)


def mean_term(terms: Mapping[str, float], kind: str) -> float:
    """The mean over layers of the ``content`` or ``style`` terms; NaN without any."""
    values = [value for name, value in terms.items() if name.startswith(f"{kind}/")]
    return sum(values) / len(values) if values else float("nan")
