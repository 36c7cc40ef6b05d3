"""From ``conf/`` to objects: composing a configuration, and building what training and optimisation share.

Hydra and OmegaConf are known here, in ``training.run`` and in the command line, nowhere else.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import hydra.utils
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fststyle import cluster
from fststyle.checks import check_name, check_seed
from fststyle.resources import printable, resource, user_path

log = logging.getLogger(__name__)

#: Hydra's groups, in the installation or in the source tree.
CONF = resource("conf")

#: In the folder of a run of a multirun: the command that makes this run alone, and why it failed.
COMMAND, FAILED = "command.txt", "failed.txt"

#: Pixels that a painting may be smoothed by, as a standard deviation.
MAX_BLUR = 20


class ConfigError(ValueError):
    """A configuration that cannot be composed or used; the message suggests what was meant."""


def register_resolvers() -> None:
    """Let ``conf/`` use ``${fststyle.NAME:…}``; composing with ``compose`` does it, other ways need this call."""
    resolvers: dict[str, Callable[..., Any]] = {
        "stem": lambda path: printable(Path(path).stem),  # a name is text, a file's maybe not
        "painting": lambda name: str(resource("checkpoints") / "paintings" / f"{name}.jpg"),
        "smoothing": smoothing,
        "folder": _folder_part,
        "where": lambda key, table: table.get(key, next(iter(table.values()))),
        "nodes": cluster.nodes,
        "ranks_per_node": cluster.ranks_per_node,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(f"fststyle.{name}", resolver, replace=True)


def smoothing(size: object) -> float:
    """The default of ``style.blur``: 0 up to a ``style.size`` of 400 pixels, then rising to 0.8 at 704.

    A smaller painting has lost its grain by being reduced, and would lose its strokes.
    """
    share = (size - 400) / (704 - 400) if isinstance(size, (int, float)) else 1
    return round(0.8 * min(max(share, 0.0), 1.0), 3)


def _folder_part(name: object) -> str:
    """A run's name as part of a folder's; where it is none, which the run refuses once it begins, another word."""
    try:
        return check_name(name, "name", ".safetensors")
    except ValueError:
        return "refused"


def compose(command: str | None = "train", overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration of a command, as the command line composes it from the same overrides.

    Args:
        command: ``train``, ``optimize`` or ``preview``; None for groups alone, added as ``+loss=balanced``.
        overrides: Hydra's, such as ``style.image=painting.jpg``.
    """
    register_resolvers()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(command, several_styles(command, overrides))


def several_styles(command: str | None, overrides: Sequence[str]) -> list[str]:
    """Overrides in which ``style=[wave,udnie]`` is what Hydra takes: each style's settings as ``styles.NAME``.

    The run is then called ``zoo``, unless ``name`` says otherwise.

    Args:
        command: as in ``compose``.
        overrides: Hydra's.

    Raises:
        ConfigError: a list that is empty or names a style twice or one that no file is called; another command's.
    """
    found: list[str] = []
    for word in overrides:
        if not word.startswith("style=["):
            found.append(word)
            continue
        try:
            names: Any = OverridesParser.create().parse_override(word).value()
        except HydraException:
            names = None
        if not isinstance(names, list) or not names or command != "train":
            takes = "a list of styles, such as style=[wave,udnie]" if command == "train" else "one style"
            raise ConfigError(f"found {word}; fststyle {command} takes {takes}")
        for name in names:
            if not re.fullmatch(r"[\w-]+", str(name)):
                raise ConfigError(f"style has {name!r}; expected names of letters, digits, _ and -, as in style=[wave]")
            if names.count(name) > 1:
                raise ConfigError(f"style names {name!r} twice; each style goes into the network once")
        if len(names) == 1:
            found.append(f"style={names[0]}")
        else:  # first, so that what else is said of a name is said later
            found = ["name=zoo", *found, *(f"+style@styles.{name}={name}" for name in names)]
    return found


def escaped(text: str) -> str:
    """A text that OmegaConf gives back as it is, though there may be ``${`` in it."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)


def each_text(settings: Any, change: Callable[[str], Any]) -> Any:
    """Plain settings with every text, in lists and dictionaries too, changed."""
    if isinstance(settings, dict):
        return {key: each_text(value, change) for key, value in settings.items()}
    if isinstance(settings, list):
        return [each_text(value, change) for value in settings]
    return change(settings) if isinstance(settings, str) else settings


def instantiate(settings: Any, **given: Any) -> Any:
    """Hydra's, for settings with any names of files in them: it would take a ``${`` in one for an interpolation."""
    plain = OmegaConf.to_container(
        settings if isinstance(settings, DictConfig) else OmegaConf.create(settings), resolve=True
    )
    paths = each_text(plain, lambda text: Path(text) if "${" in text else text)
    return hydra.utils.instantiate(settings if paths == plain else paths, **given)


def check_missing(config: DictConfig, ignored: tuple[str, ...] = ()) -> None:
    """Refuse a configuration that still lacks something mandatory, but for the ``ignored`` keys."""
    for key in OmegaConf.missing_keys(config):
        if key not in ignored:
            raise ConfigError(f"{key} is missing; give it as {key}=…")


def set_threads(config: DictConfig) -> None:
    """Limit torch to the configured number of CPU threads."""
    import torch

    if config.threads is not None:
        if not isinstance(config.threads, int) or config.threads < 1:
            raise ConfigError(f"threads is {config.threads}; expected a whole number of at least 1, or null")
        torch.set_num_threads(config.threads)


def load_style(style: DictConfig, size: int | None = None) -> Any:
    """The painting to imitate, (1, 3, H, W) in [0, 1]: at its size, its region alone, smoothed by its blur.

    Args:
        style: as in ``conf/style``.
        size: in pixels of the whole painting's longer side, instead of the style's.

    Raises:
        ValueError, OSError: a file, size, region or blur that cannot be used.
    """
    from fststyle.images import check_style_sides, load_image
    from fststyle.networks.blocks import gaussian_blur

    if not isinstance(style.blur, (int, float)) or not 0 <= style.blur <= MAX_BLUR:
        raise ConfigError(f"style.blur is {style.blur}; expected pixels from 0 to {MAX_BLUR}")
    path, size = user_path(style.image), style.size if size is None else size
    painting = load_image(path, size, style.region, trim=True)
    check_style_sides(path, style.region)
    return gaussian_blur(painting, style.blur) if style.blur else painting


# --- the loss and its encoder -----------------------------------------------------------------------


def has_layers(config: DictConfig) -> bool:
    """Whether the configured loss compares any layer of an encoder."""
    return bool(config.loss.content_layers or config.loss.style_layers)


def build_encoder(config: DictConfig, data: Any) -> Any:
    """The configured encoder; ``normalize: data`` scales its filters on pictures of the configured data."""
    if not has_layers(config):
        raise ConfigError(
            "this loss judges pixels alone, for super-resolution: fststyle train experiment=superres loss=pixel"
        )
    check_seed(config.encoder.get("seed", 0), "encoder.seed")
    if config.encoder.get("normalize") == "data":
        log.info("scaling the encoder's filters to mean activation 1 on 100 pictures")
        return instantiate(config.encoder, normalize=list(data.calibration_batches(100)))
    return instantiate(config.encoder)


def build_loss(config: DictConfig, encoder: Any, **changes: Any) -> Any:
    """The configured loss, its style weight times the style's own factor; ``changes`` replace what is configured."""
    style_weight = config.loss.style_weight * (config.style.weight if config.get("style") else 1.0)
    return _loss(config.loss, encoder, {"style_weight": style_weight, **changes})


def preset_loss(encoder: Any, preset: str = "balanced", **changes: Any) -> Any:
    """The loss that ``loss=PRESET`` stands for, where there is no composed configuration."""
    return _loss(compose(None, [f"+loss={preset}"]).loss, encoder, changes)


def preset_style(name: str, image: str) -> DictConfig:
    """What ``style=NAME style.image=IMAGE`` stands for: size, region and weight of the painting."""
    group = name if (CONF / "style" / f"{name}.yaml").is_file() else "custom"
    style = compose(None, [f"+style={group}"]).style
    style.image = escaped(image)
    return style


def _loss(settings: DictConfig, encoder: Any, changes: dict[str, Any]) -> Any:
    kept = {key: value for key, value in settings.items() if key not in changes}
    return instantiate(kept, encoder=encoder, **changes)


def calibrate(loss: Any, photographs: Any, style_targets: Any, where: str, quiet: bool = False) -> None:
    """Calibrate a balanced loss and, unless ``quiet``, log the unit of every term."""
    if not loss.balanced:
        return
    from fststyle.losses import measure_normalizers

    level = logging.DEBUG if quiet else logging.INFO
    log.log(level, "calibrating the loss on %s", where)
    loss.normalizers = measure_normalizers(loss, photographs, style_targets)
    for name, value in loss.normalizers.items():
        each = [value] if isinstance(value, float) else value.tolist()  # of several styles
        log.log(level, "  %-18s %s is 1", name, ", ".join(f"{one:.6g}" for one in each))


def balance(loss: Any, config: DictConfig, data: Any, style: Any, device: Any, quiet: bool = False) -> None:
    """Calibrate a balanced loss for a painting, or for none, on the device that both are on.

    On what the encoder knows of photographs; or on ``data``, where that is real photographs or the encoder knows too
    little.
    """
    if not loss.balanced:
        return
    from fststyle.losses import unmeasured_terms

    style_targets = {} if style is None else loss.style_targets(style)
    if not unmeasured_terms(loss) and config.data.source._target_.endswith(".Generated"):
        calibrate(loss, None, style_targets, "what the encoder knows of photographs", quiet)
    else:
        batches = (batch.to(device) for batch in data.calibration_batches(config.calibration_photographs))
        calibrate(loss, batches, style_targets, f"{config.calibration_photographs} pictures", quiet)


# --- what is reported of a configuration ------------------------------------------------------------


def without_folders(setting: Any) -> Any:
    """A setting without the folders of the machine it ran on: of a path that leads out of the working folder the last
    name alone. Else it is as it was given.
    """
    if isinstance(setting, list):
        return [without_folders(value) for value in setting]
    if not isinstance(setting, str):
        return setting
    key, equals, value = setting.rpartition("=")
    return key + equals + ",".join(map(_without_folder, value.split(",")))


def _without_folder(text: str) -> str:
    """A path that begins at the root, at a home or above the working folder without its folders; any other as it is."""
    before, path, after = re.fullmatch(r"([\s\[{'\"]*)(.*?)([\s\]}'\"]*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    begins = path.startswith(("/", "~")) or Path(path).is_absolute() or ".." in Path(path).parts
    return before + (Path(path).name if begins else path) + after


def without_traceback(error: Exception) -> Exception:
    """The error; one that a loader's worker has sent carries a traceback in its message."""
    lines = str(error).strip().splitlines()
    if isinstance(error, ValueError) and lines and lines[0].startswith("Caught "):
        return type(error)(lines[-1].partition(": ")[2])
    return error
