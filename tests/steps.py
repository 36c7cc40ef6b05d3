"""Tasks and training steps by hand."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fststyle.encoders.pretrained import random_weights
from fststyle.encoders.vgg import VGGEncoder
from fststyle.losses import PerceptualLoss, measure_normalizers
from fststyle.networks.transform import TransformNet
from fststyle.training.tasks import StyleTask, Task

LOSSES: dict[str, dict[str, Any]] = {
    "johnson": {"tv_weight": 1e-3},
    "balanced": {"balanced": True, "style_form": "mean", "content_layers": {"relu2_2": 1.0, "relu3_3": 3.0}},
}


def pictures(count: int, phase: float) -> Tensor:
    """Smooth pictures (count, 3, 32, 32) that no random generator and no file decides."""
    y, x = torch.meshgrid(torch.linspace(0, 3, 32), torch.linspace(0, 3, 32), indexing="ij")
    waves = [torch.sin((1 + i) * x + (2 + c) * y * math.cos(i) + c + phase) for i in range(count) for c in range(3)]
    return (0.5 + 0.4 * torch.stack(waves)).view(count, 3, 32, 32)


def make(loss: str = "johnson", **options: Any) -> StyleTask:
    torch.manual_seed(0)
    network = TransformNet(width=4, residual_blocks=1, upsampling="nearest")  # as when GOLDEN was taken
    encoder = VGGEncoder(random_weights("vgg16", widths=(4, 6, 8, 10, 12)), "vgg16")
    compute_loss = PerceptualLoss(encoder, **LOSSES[loss])
    targets = compute_loss.style_targets(pictures(1, 2.0))
    compute_loss.normalizers = measure_normalizers(compute_loss, [pictures(3, 1.0)], targets)
    paper = {"learning_rate": 1e-3, "schedule": "none", "warmup": 0, "checkerboard_weight": 0.0, "optimizer": "adam"}
    paper |= {"stability_weight": 0.0, "octaves": 1}
    return StyleTask(network, compute_loss, targets, **{"compile": False, "margin": 0, **paper, **options})


def train(task: Task, photographs: Any, steps: int, precision: torch.dtype | None = None) -> list[float]:
    """What each step finds, by hand: no trainer."""
    setup = task.configure_optimizers()
    optimizer, scheduler = setup["optimizer"], setup["lr_scheduler"]["scheduler"]
    totals = []
    for _ in range(steps):
        with torch.autocast("cpu", precision, enabled=precision is not None):
            total = task.objective(photographs).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        scheduler.step()
        totals.append(float(total.detach()))
    return totals
