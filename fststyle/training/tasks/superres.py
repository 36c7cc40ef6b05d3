"""A network that enlarges pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fststyle.images import MIN_SIDE
from fststyle.losses import LossTerms, PerceptualLoss, checkerboard_loss
from fststyle.networks.superres import reduce
from fststyle.training.tasks.base import Task, check_weight


class SuperResTask(Task):
    """Train a network to undo a reduction, by features or by pixels (Johnson, Alahi, Fei-Fei 2016, § 4.2).

    Args:
        network: ``networks.superres.SuperResNet``.
        loss: compares the enlarged picture with the photograph: content layers, or pixels.
        blur: of the reduction, a standard deviation in pixels of the photograph; the paper's is 1.
        checkerboard_weight: of ``losses.checkerboard_loss`` of what is wrong, in what is minimised: features
            hardly see the checkerboard artifacts that the paper's results have.
        random_rotation: minimise the loss of both pictures turned by the same random angle and enlarged, anew in each
            step. Features see a regular pattern then that they do not see as it is (Olah, Mordvintsev, Schubert
            2017, "Feature visualization", do the same against such patterns).
        options: as in ``Task``.
    """

    kind = "superres"

    def __init__(
        self,
        network: nn.Module,
        loss: PerceptualLoss,
        blur: float = 1.0,
        checkerboard_weight: float = 150.0,
        random_rotation: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(network, loss, **options)
        self.checkerboard_weight, self.random_rotation = check_weight(checkerboard_weight), random_rotation
        if not 0 <= blur < math.inf:
            raise ValueError(f"blur is {blur}; expected a number ≥ 0")
        if getattr(network, "scale", 1) == 1:
            raise ValueError(
                f"the network is a {type(network).__name__}; super-resolution takes one that enlarges: "
                "network=superres_x4 or superres_x8"
            )
        self.blur = blur
        self.scale: int = network.scale  # type: ignore[assignment]

    def check_crops(self, size: int) -> None:
        least = MIN_SIDE * self.scale
        if size < least or size % self.scale:
            raise ValueError(f"data.size is {size}; expected a multiple of {self.scale} of at least {least}")

    def inputs(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Photographs (B, 3, H, W), and how to turn them this time: an affine map (2, 3), or None."""
        if not self.random_rotation:
            return batch["image"], None
        step = self.trainer.global_step if self._trainer is not None else 0
        return batch["image"], random_rotation_map(step).to(batch["image"])

    def compute_loss(
        self, inputs: tuple[Tensor, Tensor | None], network: nn.Module | None = None, regularized: bool = False
    ) -> LossTerms:
        photographs, turn = inputs
        photographs = photographs.contiguous(memory_format=torch.channels_last)
        output = (network or self.network)(reduce(photographs, self.scale, self.blur))
        compared, wanted = output, photographs
        if regularized and turn is not None:
            compared, wanted = rotated(output, turn), rotated(photographs, turn)
        terms: LossTerms = self.loss(compared, content=self.loss.content_targets(wanted), pixels=wanted)
        if regularized and self.checkerboard_weight:
            terms.total = terms.total + self.checkerboard_weight * checkerboard_loss(output - photographs)
        return terms

    def show(self, photograph: Tensor, network: nn.Module) -> Tensor:
        return network(reduce(photograph, self.scale, self.blur))  # type: ignore[no-any-return]


def random_rotation_map(step: int) -> Tensor:
    """An affine map (2, 3), as ``rotated`` takes it: by any angle, enlarged by 1 to 1.3 times what keeps within.

    The step decides, so that it is the same on all ranks and in a run that goes on.
    """
    angle, zoom = np.random.default_rng((4, step)).random(2).tolist()
    cos, sin = math.cos(2 * math.pi * angle), math.sin(2 * math.pi * angle)
    scale = 1 / ((1 + 0.3 * zoom) * (abs(cos) + abs(sin)))
    return torch.tensor([[scale * cos, -scale * sin, 0.0], [scale * sin, scale * cos, 0.0]])


def rotated(image: Tensor, turn: Tensor) -> Tensor:
    """A square image (B, C, S, S) seen through an affine map (2, 3) of places, -1 to 1 along each side; bilinear."""
    image = image if image.dtype == torch.float64 else image.float()
    grid = F.affine_grid(turn.to(image).expand(len(image), 2, 3), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
