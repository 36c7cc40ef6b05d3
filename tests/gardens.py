"""Runs of several styles."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from fststyle.config import compose
from fststyle.training.run import Run, build

NAMES = ["fern", "lily", "rose"]


@cache
def composed() -> DictConfig:
    """Of a small run, but for its paths; composing takes longer than building."""
    words = ["style.image=x", "data=folder", "data.source.path=x", "style.size=64"]
    words += ["encoder=random", "encoder.widths=[4,4,4,4,4]", "network.width=4", "network.residual_blocks=1"]
    words += ["data.size=32", "data.workers=0", "data.held_out=2", "data.batch_size=2", "steps=2", "logger=csv"]
    words += ["calibration_photographs=4", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
    words += ["task.warmup=0", "task.schedule=none", "callbacks.previews=null", "callbacks.diagnostics=null"]
    return compose("train", [*words, "task.compile=false", "trainer.log_every_n_steps=1"])


def run(plot: Path, *more: str, styles: dict[str, Any] | None = None) -> Run:
    """A run over the folder of paintings; ``more`` are keys with values in YAML."""
    config = copy.deepcopy(composed())
    config.style.image, config.data.source.path = str(plot / "art"), str(plot / "photos")
    config.output = str(plot / "out")
    for word in more:
        key, _, value = word.partition("=")
        OmegaConf.update(config, key, yaml.safe_load(value), merge=False, force_add=True)
    if styles is not None:
        config.styles = styles
    return build(config)
