"""What ``optimize`` and ``preview`` do alike with a configuration that was typed."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from fststyle.config import calibrate


def balance(loss: Any, cfg: DictConfig, data: Any, style: Any, device: Any, quiet: bool = False) -> None:
    """Calibrate a balanced loss for a painting, or for none, on the device that both are on.

    On what the encoder knows of photographs; or on ``data``, where the user named some or it knows too little.
    """
    if not loss.balanced:
        return
    style_targets = {} if style is None else loss.style_targets(style)
    if not loss.unmeasured and not any(word.startswith("data=") for word in typed()):
        calibrate(loss, None, style_targets, "what the encoder knows of photographs", quiet)
    else:
        batches = (batch.to(device) for batch in data.calibration_batches(cfg.calibration_photographs))
        calibrate(loss, batches, style_targets, f"{cfg.calibration_photographs} pictures", quiet)


def typed() -> list[str]:
    """The overrides that the user typed."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task)
