"""Small training runs, as several tests make them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint
from torch import Tensor, nn

from fststyle.encoders.pretrained import random_weights
from fststyle.encoders.vgg import VGGEncoder
from fststyle.losses import PerceptualLoss, measure_normalizers
from fststyle.networks.transform import TransformNet
from fststyle.training.data import Photographs
from fststyle.training.sources import folder
from fststyle.training.tasks import StyleTask


def make_task(styles: int = 1, **options: Any) -> StyleTask:
    torch.manual_seed(0)
    network = TransformNet(width=4, residual_blocks=1, styles=styles)
    encoder = VGGEncoder(random_weights("vgg16", widths=(4, 6, 8, 10, 12)), "vgg16")
    loss = PerceptualLoss(encoder, balanced=True, style_form="mean")
    generator = torch.Generator().manual_seed(1)
    each = [loss.style_targets(torch.rand(1, 3, 32, 32, generator=generator)) for _ in range(styles)]
    photographs = [torch.rand(4, 3, 32, 32, generator=generator)]
    loss.normalizers = measure_normalizers(loss, photographs, each if styles > 1 else each[0])
    style = {layer: torch.cat([targets[layer] for targets in each]) for layer in each[0]}
    settings = {"learning_rate": 1e-2, "schedule": "cosine", "warmup": 0, "steps": 6, **options}
    return StyleTask(network, loss, style, names=[*"abcdef"[:styles]] if styles > 1 else (), **settings)


def fit(
    photographs: Path,
    callbacks: list[Callback],
    steps: int,
    task: StyleTask | None = None,
    resume: Path | None = None,
    batch_size: int = 2,
    **options: Any,
) -> tuple[StyleTask, pl.Trainer]:
    """Train on the photographs' folder; task and data are new each time, as after a restart."""
    task = task or make_task()
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        callbacks=callbacks,
        check_val_every_n_epoch=None,
        default_root_dir="/nonexistent",  # nobody writes there
        enable_checkpointing=any(isinstance(each, Checkpoint) for each in callbacks),
        **{"val_check_interval": 100, **options},
        **dict.fromkeys(
            (
                "logger",
                "enable_progress_bar",
                "enable_model_summary",
                "num_sanity_val_steps",
                "use_distributed_sampler",
            ),
            False,
        ),
    )
    settings = {"size": 32, "workers": 0, "scale": (0.6, 1.0), "held_out": 2, "style_count": max(1, len(task.names))}
    data = Photographs(folder(photographs), batch_size=batch_size, **settings)  # type: ignore[arg-type]
    trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    return task, trainer


def weights(network: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten().clone() for weight in network.parameters()])


class At(Callback):
    """Do something once a step is done."""

    def __init__(self, step: int, action: Callable[[pl.Trainer], Any]) -> None:
        self.step, self.action = step, action

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.action(trainer)


class During(At):
    """Do something before a step is done."""

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step - 1:
            self.action(trainer)

    def on_train_batch_end(self, *_: Any) -> None:
        pass
