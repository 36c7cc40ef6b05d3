"""A network for one style."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fststyle.losses import LossTerms, PerceptualLoss, checkerboard_loss, shift_loss
from fststyle.training.tasks.base import Task, check_weight


class StyleTask(Task):
    """Train a network for one style (Johnson, Alahi, Fei-Fei 2016, § 3).

    Args:
        network: image in, image of the same size out.
        loss: compares the output with the photograph and the style.
        style_targets: from ``loss.style_targets(painting)``.
        style_samples: positions per layer that a sliced style term takes in training; None: all. Validation takes all.
        checkerboard_weight: of ``losses.checkerboard_loss`` in what is minimised. It is no part of the
            style's loss, by which results are compared with the slow mode, whose pixels need none.
        shift_weight: of ``losses.shift_loss`` in what is minimised, by another shift in each step.
        optimizer, learning_rate, schedule, warmup, options: as in ``Task``, whose defaults are the paper's.
    """

    kind = "style"
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        loss: PerceptualLoss,
        style_targets: Mapping[str, Tensor],
        style_samples: int | None = 8192,
        checkerboard_weight: float = 1000.0,
        shift_weight: float = 0.0,
        optimizer: str = "muon",
        learning_rate: float = 3e-3,
        schedule: str = "cosine",
        warmup: int = 50,
        **options: Any,
    ) -> None:
        super().__init__(network, loss, learning_rate, schedule, warmup, optimizer=optimizer, **options)
        if getattr(network, "scale", 1) != 1:
            raise ValueError(
                f"the network is a {type(network).__name__}, which enlarges; a style takes one that keeps the size, "
                "such as network=resnet"
            )
        self.style_targets = {layer: target.detach() for layer, target in style_targets.items()}
        if style_samples is not None and style_samples < 1:
            raise ValueError(f"style_samples is {style_samples}; expected at least 1, or null for all positions")
        self.style_samples = style_samples
        self.checkerboard_weight = check_weight(checkerboard_weight)
        self.shift_weight = check_weight(shift_weight, "shift_weight")
        self.register_buffer("shift", torch.zeros(2, dtype=torch.long), persistent=False)

    def inputs(self, batch: Mapping[str, Any]) -> Tensor:
        """Photographs (B, 3, H, W); the step decides the shift, the same on all ranks and in a run that is resumed."""
        if self.shift_weight:
            step = self.trainer.global_step if self._trainer is not None else 0
            self.shift.copy_(torch.from_numpy(np.random.default_rng((5, step)).integers(1, 4, 2)))
        return super().inputs(batch)  # type: ignore[no-any-return]

    def compute_loss(self, inputs: Tensor, network: nn.Module | None = None, regularized: bool = False) -> LossTerms:
        photographs = inputs.contiguous(memory_format=torch.channels_last)
        content = self.loss.content_targets(photographs, self.style_targets)
        network = network or self.network
        output = network(photographs)
        samples = self.style_samples if regularized else None
        terms: LossTerms = self.loss(output, content=content, style=self.style_targets, samples=samples)
        if regularized and self.checkerboard_weight:
            terms.total = terms.total + self.checkerboard_weight * checkerboard_loss(output)
        if regularized and self.shift_weight:
            terms.total = terms.total + self.shift_weight * shift_loss(network, photographs, output, self.shift)
        return terms

    def show(self, photograph: Tensor, network: nn.Module) -> Tensor:
        return network(photograph)  # type: ignore[no-any-return]
