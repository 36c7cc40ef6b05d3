"""What a run goes on from: its folder, its training checkpoint, and the settings that both were begun with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from fststyle.checks import absent
from fststyle.cluster import rank, requeued
from fststyle.config import COMMAND, FAILED, ConfigError, without_folders
from fststyle.encoders.pretrained import SAME_WEIGHTS
from fststyle.images import check_folder, check_writable, existing_part
from fststyle.losses import PerceptualLoss
from fststyle.model_file import ModelFileError, read_metadata
from fststyle.resources import file_sha256, user_path
from fststyle.training.checkpoints import is_whole, newest_checkpoint, training_checkpoints
from fststyle.training.data import Photographs
from fststyle.training.sources import fingerprint
from fststyle.training.tasks import Task

#: What a run writes besides its configuration, its training checkpoints and the exported file.
_STEP = "step_" + 8 * "[0-9]"
_WRITTEN = (
    *("train.log", f"checkpoints/{_STEP}.part", f"previews/{_STEP}.png", "csv/metrics.csv", "csv/hparams.yaml"),
    *("tensorboard/events.out.tfevents.*", "tensorboard/hparams.yaml"),
)
#: Keys of the data that decide neither which samples there are nor their order.
_FREE_DATA = ("_target_", "source", "styles", "batch_size", "workers", "seed", "held_out", "max_unreadable")
#: Keys of the task that are of the optimizer, or of what is exported, not of the objective.
_FREE_TASK = (
    *("_target_", "optimizer", "learning_rate", "schedule", "warmup", "steps", "compile"),
    *("kuwahara", "match_colors"),
)


# --- the folder -------------------------------------------------------------------------------------


def written(folder: Path) -> Iterator[Path]:
    """The files that a run has left in its folder, but for its configuration and what it exported."""
    yield from training_checkpoints(folder)
    for pattern in _WRITTEN:
        yield from folder.glob(pattern)


def find_checkpoint(folder: Path, config: DictConfig) -> str | None:
    """Refuse a folder that cannot be used; return the checkpoint to resume from, if the run is to be resumed."""
    if config.resume and config.ckpt_path:
        raise ConfigError(f"resume is {config.resume} and ckpt_path {config.ckpt_path}; give one of them")
    if not config.overwrite and any((folder / "states").glob("step_*.ckpt")):
        raise ConfigError(
            f"{folder / 'states'}: holds checkpoints of an earlier version; finish that run with it, or write "
            "elsewhere with output=FOLDER"
        )
    check_folder(folder)
    # A job that was requeued resumes by itself.
    resume = config.resume or config.ckpt_path or ("auto" if requeued() else None)
    found: Path | None = None
    if resume in ("last", "auto"):
        found = newest_checkpoint(folder)
        if found is None and resume == "last":
            raise ConfigError(
                f"{folder / 'checkpoints'}: holds no undamaged training checkpoint; resume=last needs a run in {folder}"
            )
    elif resume:
        found = user_path(resume)
        if not found.is_file():
            raise ConfigError(absent(found, "last, auto or a FILE.ckpt"))
        if not is_whole(found):
            raise ConfigError(f"{found}: is damaged, its content does not have the hash in its name; try resume=last")
    own = found is not None and found.resolve().is_relative_to(folder.resolve())
    others = training_checkpoints(folder)
    if others and not own and found is not None and found.name in {each.name for each in others}:
        own = True  # a copy of one of them
    if others and not own and not config.overwrite and resume != "auto":
        raise ConfigError(
            f"{folder} holds a run already; go on with resume=last, start anew with overwrite=true, "
            "or write elsewhere with output=FOLDER"
        )
    foreign = folder.is_dir() and not (own and not (folder / "config.yaml").exists()) and not _is_of_a_run(folder)
    if foreign and not rank():
        raise ConfigError(
            f"{folder}: holds files that no training run wrote; expected an empty folder, a new one, or that of a run"
        )
    return None if found is None else str(found)


def _is_of_a_run(folder: Path) -> bool:
    """Whether a folder is empty, but for what a multirun writes there, or has a run's configuration."""
    begun = {COMMAND: ("fststyle ",), FAILED: ("refused: ", "failed: ")}
    if all(_text(entry).startswith(begun.get(entry.name, ("\0",))) for entry in folder.iterdir()):
        return True
    return configuration(folder) is not None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")  # a command names files, in any bytes
    except OSError:
        return ""


def configuration(folder: Path) -> Any:
    """The configuration that a run has left in its folder; None where there is none, or another program's."""
    if "_target_: fststyle." not in (text := _text(folder / "config.yaml")):
        return None
    try:
        found = OmegaConf.create(text)
        keys = {"name", "steps", "output", "task", "data", "trainer"}
        return found if OmegaConf.is_dict(found) and keys <= found.keys() and "_target_" in found.task else None
    except Exception:  # YAML's parser and OmegaConf raise many kinds on foreign texts
        return None


def check_export(path: Path, folder: Path) -> None:
    """Refuse to export where the run in the folder did not: over a file of another origin, or where none can be.

    Raises:
        ValueError: what is there, and what to do.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, where the exported file is to be; choose another name=")
    check_writable(existing_part(path.parent))
    if rank() or not os.path.lexists(path):
        return
    before = configuration(folder)
    exported = OmegaConf.select(before, "callbacks.export.path") if before is not None else None
    try:
        read_metadata(path)
        ours = exported is not None and _within(str(exported), str(before.output), folder) == path.resolve()
    except ModelFileError:
        ours = False
    if not ours:
        raise ConfigError(f"{path}: the run in {folder} did not write it, and would now; choose another name=")


def _within(path: str, output: str, folder: Path) -> Path:
    """Where a path of a run is now, whose folder may have been moved since."""
    inside = Path(path).is_relative_to(output)
    return (folder / Path(path).relative_to(output) if inside else Path(path)).resolve()


# --- the checkpoint ---------------------------------------------------------------------------------


def read_checkpoint(path: str) -> dict[str, Any]:
    """The content of a training checkpoint."""
    try:
        content: dict[str, Any] = torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on foreign bytes
        raise _not_a_checkpoint(path, error) from None
    return content


def _not_a_checkpoint(path: str, error: Exception) -> ConfigError:
    reason = " ".join(line.strip() for line in str(error).splitlines()[:2])[:160] or type(error).__name__
    return ConfigError(
        f"{path}: is not a training checkpoint of such a run ({reason}); give the settings that it was begun with"
    )


def restore(path: str, saved: Mapping[str, Any], task: Task, changes: list[str], confirmed: bool) -> int:
    """The steps of a training checkpoint; refuses one of another network, loss or optimizer before work begins.

    Args:
        path: of the checkpoint, for the message.
        saved: its content.
        task: of the run that is to go on.
        changes: from ``differences``.
        confirmed: go on in spite of them.
    """
    listed = f" ({'; '.join(changes)})" if changes else ""
    try:
        task.load_state_dict(saved["state_dict"])
        steps = int(saved["global_step"])
        targets = {layer: target.shape for layer, target in saved["style_targets"].items()}
        groups = [len(each["param_groups"]) for each in saved["optimizer_states"]]
    except Exception as error:  # as above, on the content
        if any(change.startswith("network") for change in changes):
            raise ConfigError(
                f"{path}: was begun with another network{listed}; give the settings that it was begun with"
            ) from None
        raise _not_a_checkpoint(path, error) from None
    wanted = {layer: target.shape for layer, target in task.style_targets.items()}
    if not task.keeps_objective:
        if ("color" in targets) != ("color" in wanted):
            begun, weight = ("with", "2") if "color" in targets else ("without", "0")
            raise ConfigError(
                f"{path}: was begun {begun} the colour term; add loss.color_weight={weight}, or what it had{listed}"
            )
        if targets != wanted:
            raise ConfigError(
                f"{path}: was begun with another style term, at {', '.join(targets) or 'no layer'}; give the loss= and "
                f"style= that it was begun with{listed}"
            )
    if groups != [len(task.configure_optimizers()["optimizer"].param_groups)]:
        raise ConfigError(
            f"{path}: was begun with another optimizer; give task.optimizer=adam or muon as it was begun{listed}"
        )
    if changes and not confirmed:
        raise ConfigError(
            f"{path}: was begun with other settings: {'; '.join(changes)}; give those, or go on with the new ones by "
            "resume_changed=true"
        )
    return steps


def kept_checkpoint(folder: Path) -> str:
    """The end of a message: which training checkpoint of a run in a folder there is to resume from."""
    found = training_checkpoints(folder)
    return (
        f"; the last training checkpoint is {found[0]}, resume=last goes on"
        if found
        else "; no checkpoint was saved yet"
    )


# --- the settings -----------------------------------------------------------------------------------


def settings(
    config: DictConfig, data: Photographs, network: torch.nn.Module, loss: PerceptualLoss, global_batch: int
) -> dict[str, Any]:
    """What a run's objective and the order of its samples depend on, by the key that a user types, in plain values.

    Steps, devices, workers, precision, the optimizer's settings, loggers, callbacks and folders are no part of it.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    found = dict(_flat("loss", plain["loss"]))
    found |= _flat("task", {key: value for key, value in plain["task"].items() if key not in _FREE_TASK})
    several = {f"styles.{name}": style for name, style in (plain.get("styles") or {}).items()}
    for key, style in (several or {"style": plain.get("style")}).items():
        if style:
            image = user_path(style["image"])
            found[f"{key}.image"] = f"{image.name} ({file_sha256(image)[:12]})"
            found |= {f"{key}.{setting}": style[setting] for setting in ("size", "region", "blur", "weight")}
    if several:
        found["styles"] = list(plain["styles"])  # their order, too
    found |= _flat("network", {"_target_": type(network).__name__, **getattr(network, "config", {})})
    if loss.encoder is not None:
        about, encoder = loss.encoder.metadata, plain["encoder"]
        digest = SAME_WEIGHTS.get(about["sha256"], about["sha256"])
        found["encoder.weights"] = f"{about['name']} ({digest[:12]})" if digest else about["name"]
        found |= {f"encoder.{key}": about[key] for key in ("architecture", "pooling", "padding")}
        found |= {f"encoder.{key}": encoder.get(key) for key in ("preprocess", *(() if digest else ("widths",)))}
        found["encoder.normalize"] = without_folders(encoder.get("normalize"))
    found |= _flat("data", {key: value for key, value in plain["data"].items() if key not in _FREE_DATA})
    found["seed"] = data.seed
    found["data.source"] = fingerprint(plain["data"]["source"])
    found["data.styles"] = fingerprint(plain["data"].get("styles"))
    found["data.held_out"] = data.held_out
    found["global batch"] = global_batch
    return {key: _unlinked(value) for key, value in found.items()}


def _flat(prefix: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of settings as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}.{key}".removesuffix("._target_")
        found |= _flat(name, value) if isinstance(value, Mapping) and value else {name: value}
    return found


def _unlinked(value: Any) -> Any:
    """Of plain types alone, so that it is the same once it was saved and loaded without unpickling."""
    if isinstance(value, (list, tuple)):
        return [_unlinked(each) for each in value]
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)


#: Settings that training checkpoints of earlier versions do not name, and what they were.
_BEFORE = {"loss.hue_weight": 0.25, "loss.hue_block": 32, "task.octaves": 1}


def differences(found: Mapping[str, Any], saved: Mapping[str, Any] | None) -> dict[str, str]:
    """By key, in words, what differs from the settings in a checkpoint; nothing for one of an earlier version."""
    if not saved:
        return {}
    free = {f"task.{key}" for key in _FREE_TASK}  # which an earlier version may have written
    saved = {key: value for key, value in _BEFORE.items() if key in found} | dict(saved)
    return {
        key: f"{key}: found {_shown(found.get(key))}, the checkpoint has {_shown(saved.get(key))}"
        for key in dict.fromkeys([*found, *saved])
        if key not in free and _same(found.get(key)) != _same(saved.get(key))
    }


def _same(value: Any) -> Any:
    """What is compared: of a painting and of encoder weights the hash, whatever their file is called."""
    text = value if isinstance(value, str) else ""
    return text.rpartition(" (")[2] if text.endswith(")") else value


def _shown(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def of_objective(changes: Mapping[str, str]) -> bool:
    """Whether the loss has to be measured anew, not only what is trained on."""
    return any(key.startswith(("loss", "style", "encoder")) for key in changes)
