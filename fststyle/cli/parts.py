"""What ``train`` and ``optimize`` build alike from a configuration."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fststyle.cli.compose import ConfigError
from fststyle.resources import resource

log = logging.getLogger(__name__)

#: The style layers of ``loss=balanced_relu4_3``, which suits an encoder that ends before relu5_1.
ENDS_EARLIER = {"relu1_2", "relu2_2", "relu3_3", "relu4_3"}


def set_threads(cfg: DictConfig) -> None:
    """Limit torch to the configured number of CPU threads."""
    import torch

    if cfg.threads is not None:
        if not isinstance(cfg.threads, int) or cfg.threads < 1:
            raise ConfigError(f"threads is {cfg.threads}; expected a whole number of at least 1, or null")
        torch.set_num_threads(cfg.threads)


def has_layers(cfg: DictConfig) -> bool:
    """Whether the configured loss looks at any layer of an encoder."""
    return bool(cfg.loss.content_layers or cfg.loss.style_layers)


def build_encoder(cfg: DictConfig, data: Any) -> Any:
    """The configured encoder; ``normalize: data`` scales its filters on pictures of the configured data."""
    from hydra.utils import instantiate

    if not has_layers(cfg):
        raise ConfigError(
            "this loss judges pixels alone, for super-resolution: fststyle train task=superres loss=pixel"
        )
    if cfg.encoder.get("normalize") == "data":
        log.info("scaling the encoder's filters to mean activation 1 on 100 pictures")
        return instantiate(cfg.encoder, normalize=list(data.calibration_batches(100)))
    return instantiate(cfg.encoder)


#: Encoders by the name that an option takes, as the groups of ``conf/encoder``: architecture and weights.
ENCODERS = {
    "vgg16": ("vgg16", None),
    "vgg19": ("vgg19", None),
    "slim": ("vgg19", "slim"),
    "slim_vgg16": ("vgg16", "slim"),
}


def named_encoder(name: str, architecture: str, normalize: str | None) -> Any:
    """The encoder that an option names, or that of a file, which has the given architecture."""
    from fststyle.networks.pretrained import load_encoder

    known, weights = ENCODERS.get(name, (architecture, name))
    return load_encoder(known, weights, normalize=normalize)


def build_loss(cfg: DictConfig, encoder: Any, **changes: Any) -> Any:
    """The configured loss, its style weight times the style's own factor; ``changes`` replace what is configured."""
    style_weight = cfg.loss.style_weight * (cfg.style.weight if cfg.get("style") else 1.0)
    return _loss(cfg.loss, encoder, {"style_weight": style_weight, **changes})


def preset_loss(encoder: Any, preset: str = "balanced", **changes: Any) -> Any:
    """The loss that ``loss=PRESET`` stands for, where there is no composed configuration."""
    return _loss(_composed(f"+loss={preset}").loss, encoder, changes)


def preset_style(name: str, image: str) -> DictConfig:
    """What ``style=NAME style.image=IMAGE`` stands for: size, region and weight of the painting."""
    group = name if (resource("conf") / "style" / f"{name}.yaml").is_file() else "custom"
    style = _composed(f"+style={group}").style
    style.image = image
    return style


def _composed(override: str) -> DictConfig:
    """The part of ``conf/`` that one override names."""
    import hydra

    with hydra.initialize_config_dir(str(resource("conf")), version_base="1.3"):
        return hydra.compose(overrides=[override])


def _loss(settings: DictConfig, encoder: Any, changes: dict[str, Any]) -> Any:
    from hydra.utils import instantiate

    from fststyle.losses import split_layer
    from fststyle.networks.vgg import PIXELS

    kept = {key: value for key, value in settings.items() if key not in changes}
    layers = [split_layer(name)[0] for name in kept.get("style_layers") or ()]
    missing = [layer for layer in layers if encoder is not None and layer not in (PIXELS, *encoder.layers)]
    if kept.get("balanced") and missing and set(encoder.layers) >= ENDS_EARLIER:
        raise ConfigError(
            f"the encoder {encoder.name} ends at {encoder.layers[-1]} and lacks {missing[0]}, which this loss needs; "
            "use loss=balanced_relu4_3 with it, or encoder=slim, which has that layer"
        )
    return instantiate(kept, encoder=encoder, **changes)


def calibrate(loss: Any, photographs: Any, style_targets: Any, where: str, quiet: bool = False) -> None:
    """Calibrate a balanced loss and, unless ``quiet``, tell what every term is worth."""
    if not loss.balanced:
        return
    level = logging.DEBUG if quiet else logging.INFO
    log.log(level, "calibrating the loss on %s", where)
    for name, value in loss.calibrate(photographs, style_targets).items():
        log.log(level, "  %-18s %.6g is 1", name, value)


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


def check_folder(folder: Path) -> None:
    """Refuse, before any work, a folder that cannot be made or takes no files."""
    from fststyle.images import check_writable, existing_part

    existing = existing_part(folder)
    if not existing.is_dir():
        raise ConfigError(f"{folder}: the folder cannot be made ({existing} is a file); use output=FOLDER")
    check_writable(existing)


def check_missing(cfg: DictConfig, ignored: tuple[str, ...] = ()) -> None:
    """Refuse a configuration that still lacks something mandatory, but for the ``ignored`` keys."""
    for key in OmegaConf.missing_keys(cfg):
        if key not in ignored:
            raise ConfigError(f"{key} is missing; give it as {key}=…")
