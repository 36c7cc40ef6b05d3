"""What ``train`` and ``optimize`` build alike from a configuration."""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fststyle.cli.compose import ConfigError

log = logging.getLogger(__name__)


def set_threads(cfg: DictConfig) -> None:
    """Limit torch to the configured number of CPU threads."""
    import torch

    if cfg.threads is not None:
        if not isinstance(cfg.threads, int) or cfg.threads < 1:
            raise ConfigError(f"threads is {cfg.threads}; expected a whole number of at least 1, or null")
        torch.set_num_threads(cfg.threads)


def build_encoder(cfg: DictConfig, data: Any) -> Any:
    """The configured encoder; ``normalize: data`` scales its filters on pictures of the configured data."""
    from hydra.utils import instantiate

    if cfg.encoder.get("normalize") == "data":
        log.info("scaling the encoder's filters to mean activation 1 on 100 pictures")
        return instantiate(cfg.encoder, normalize=list(data.calibration_batches(100)))
    return instantiate(cfg.encoder)


def build_loss(cfg: DictConfig, encoder: Any, **changes: Any) -> Any:
    """The configured loss, its style weight times the style's own factor; ``changes`` replace what is configured."""
    from hydra.utils import instantiate

    settings = {key: value for key, value in cfg.loss.items() if key not in changes}
    style_weight = cfg.loss.style_weight * cfg.style.weight
    return instantiate(settings, encoder=encoder, **{"style_weight": style_weight, **changes})


def calibrate(loss: Any, photographs: Any, style_targets: Any, where: str) -> None:
    """Calibrate a balanced loss and tell what every term is worth."""
    if not loss.balanced:
        return
    log.info("calibrating the loss on %s", where)
    for name, value in loss.calibrate(photographs, style_targets).items():
        log.info("  %-18s %.6g is 1", name, value)


def check_missing(cfg: DictConfig, ignored: tuple[str, ...] = ()) -> None:
    """Refuse a configuration that still lacks something mandatory, but for the ``ignored`` keys."""
    for key in OmegaConf.missing_keys(cfg):
        if key not in ignored:
            raise ConfigError(f"{key} is missing; give it as {key}=…")
