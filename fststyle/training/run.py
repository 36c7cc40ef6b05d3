"""A training run: ``build`` makes and checks everything that a configuration names, ``Run.fit`` trains and exports.

From Python::

    from fststyle.config import compose
    from fststyle.training.run import build

    config = compose("train", ["style.image=painting.jpg", "data=folder", "data.source.path=photographs"])
    print(build(config).fit())
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger

from fststyle.cluster import rank, requeued
from fststyle.config import (
    COMMAND,
    FAILED,
    ConfigError,
    build_encoder,
    build_loss,
    calibrate,
    check_folder,
    check_missing,
    each_text,
    escaped,
    has_layers,
    instantiate,
    load_style,
    set_threads,
    without_folders,
    without_traceback,
)
from fststyle.losses import PerceptualLoss
from fststyle.model_file import ModelFile, find_model_file, load_model_file
from fststyle.resources import file_sha256, printable, user_path
from fststyle.training.callbacks import Export, TimedProgressBar
from fststyle.training.checkpoints import is_whole, newest_checkpoint, training_checkpoints
from fststyle.training.data import Photographs
from fststyle.training.logs import continue_table, logged_to, loggers
from fststyle.training.signals import Stop, StopOnSignal, stopped_by
from fststyle.training.tasks import NonFiniteError, Task
from fststyle.version import __version__

log = logging.getLogger(__name__)

#: What a run writes besides its configuration and the exported file.
_WRITTEN = (
    *("train.log", "checkpoints/step_*.ckpt", "checkpoints/step_*.part", "previews/step_*.png"),
    *("csv/metrics.csv", "csv/hparams.yaml", "tensorboard/events.out.tfevents.*", "tensorboard/hparams.yaml"),
)


@dataclass
class Run:
    """A training run that is built and checked, and has written nothing yet."""

    #: As composed.
    config: DictConfig
    task: Task
    data: Photographs
    trainer: pl.Trainer
    #: The training checkpoint to resume from, and its steps.
    checkpoint: str | None = None
    steps_done: int = 0

    @property
    def folder(self) -> Path:
        return Path(self.config.output)

    @property
    def stopped(self) -> Stop:
        """What a signal asked for, if one ended the run."""
        return stopped_by(self.trainer)

    def fit(self) -> Path | None:
        """Train and export; returns the exported file, or None where a signal asked for a checkpoint alone.

        Raises:
            RuntimeError: failed; the training checkpoints are there to resume from.
        """
        export = next((each for each in self.trainer.callbacks if isinstance(each, Export)), None)  # type: ignore[attr-defined]
        self._prepare()
        resumed: dict[str, Any] = {"ckpt_path": self.checkpoint, "weights_only": True} if self.checkpoint else {}
        try:
            with logged_to(None if rank() else self.folder / "train.log"):
                self._announce()
                self.trainer.fit(self.task, datamodule=self.data, **resumed)
                if self.trainer.global_step >= self.trainer.max_steps and export and not export.written:
                    export.on_train_end(self.trainer, self.task)  # an earlier run ended before its export
                if export and export.written:
                    log.info("exported %s", export.path)
        except Exception as error:  # no longer a refusal: work had begun
            reason, kept = _reason(error), kept_checkpoint(self.folder)
            raise RuntimeError(f"the training of {self.config.name} stopped: {reason}{kept}") from error
        return export.path if export and self.stopped <= Stop.EXPORT else None

    def _prepare(self) -> None:
        """Make the folder ready; the first rank does it for all."""
        if rank():
            return
        config, trainer = self.config, self.trainer
        self.folder.mkdir(parents=True, exist_ok=True)
        plain: Any = OmegaConf.to_container(config, resolve=True)
        OmegaConf.save(each_text(plain, escaped), self.folder / "config.yaml")  # first: it marks the folder as a run's
        for pattern in () if self.checkpoint else _WRITTEN:
            for leftover in self.folder.glob(pattern):
                leftover.unlink(missing_ok=True)
        for logger in trainer.loggers:
            if self.checkpoint and isinstance(logger, CSVLogger):
                continue_table(logger, self.steps_done)
            logger.log_hyperparams(each_text(plain, lambda text: escaped(printable(text))))

    def _announce(self) -> None:
        """Log what is about to be trained."""
        if rank():
            return
        config, trainer = self.config, self.trainer
        from_step = f", from step {self.steps_done} on" if self.steps_done else ""
        log.info("training %s in %s%s", config.name, self.folder, from_step)
        batch, accumulated, ranks = config.data.batch_size, trainer.accumulate_grad_batches, trainer.world_size
        if ranks > 1:
            step = batch * accumulated * ranks
            log.info(
                "%d ranks × %d photographs%s = %d a step, %s in all; learning rate %g, whatever the number of ranks",
                *(ranks, batch, f" × {accumulated} accumulated" if accumulated > 1 else ""),
                *(step, f"{step * config.steps:,}", config.task.learning_rate),
            )


def build(config: DictConfig, callbacks: Sequence[Callback] = (), command: str = "") -> Run:
    """Make and check all that a configuration names; nothing is written.

    Args:
        config: of ``config.compose("train", …)``, or what Hydra gives to a command.
        callbacks: besides those of the configuration.
        command: how the run was started, for the exported file.

    Raises:
        ValueError, OSError: a configuration, file or folder that cannot be used.
    """
    for key in ("callbacks", "logger"):
        if key in config.trainer:
            raise ConfigError(f"trainer.{key} is given; use {key}=, a group of its own")
    kind = get_class(config.task._target_).kind  # type: ignore[attr-defined]
    if config.get("style") and kind != "style":
        raise ConfigError(
            f"{config.task._target_.rpartition('.')[2]} takes no style; use experiment=superres or experiment=inverse, "
            "which bring what goes with the task"
        )
    check_missing(config)
    set_threads(config)
    config.output = escaped(str(user_path(config.output)))
    pl.seed_everything(config.seed, verbose=False)
    style = load_style(config.style) if config.get("style") else None
    start = load_model_file(find_model_file(config.init_from, kind), kind) if config.init_from else None
    checkpoint = _check_folder(Path(config.output), config)

    data = instantiate(config.data)
    loss = build_loss(config, build_encoder(config, data) if style is not None or has_layers(config) else None)
    if start:
        known: Any = start.network.config
        if any(known.get(key) != value for key, value in config.network.items() if key != "_target_"):
            log.info("the network is that of %s, whatever network= says: %s", config.init_from, known)
        network = start.network.train()
    else:
        network = instantiate(config.network)
    saved = _read_checkpoint(checkpoint) if checkpoint else None
    # The checkpoint has those of the painting; of any other picture they have the same shapes.
    picture = style if saved is None else torch.zeros(1, 3, 64, 64)
    style_targets = {} if style is None else loss.style_targets(picture)
    targets = {} if style is None else {"style_targets": style_targets}
    task = instantiate(config.task, network=network, loss=loss, **targets)
    task.check_crops(config.data.size)
    if checkpoint is None:
        count = config.calibration_photographs
        calibrate(loss, data.calibration_batches(count), style_targets, f"{count} photographs")
    steps_done = _restore(str(checkpoint), saved, task) if saved is not None else 0

    found = [*callbacks, *_callbacks(config, callbacks)]
    for each in found:
        if isinstance(each, Export):
            each.metadata = describe(config, kind, loss, start, command) | each.metadata
    trainer = instantiate(config.trainer, callbacks=found, logger=list(loggers(config)))
    return Run(config, task, data, trainer, checkpoint, steps_done)


def _callbacks(config: DictConfig, given: Sequence[Callback]) -> Iterator[Callback]:
    """Those of the configuration, and of every run."""
    if not any(isinstance(each, StopOnSignal) for each in given):
        yield StopOnSignal()
    if config.trainer.max_time and config.trainer.enable_progress_bar:
        yield TimedProgressBar()
    yield from (instantiate(entry) for entry in (config.callbacks or {}).values() if entry)


# --- the folder -------------------------------------------------------------------------------------


def _check_folder(folder: Path, config: DictConfig) -> str | None:
    """Refuse a folder that cannot be used; return the checkpoint to resume from, if the run is to be resumed."""
    if config.resume and config.ckpt_path:
        raise ConfigError(f"resume is {config.resume} and ckpt_path {config.ckpt_path}; give one of them")
    if not config.overwrite and any((folder / "states").glob("step_*.ckpt")):
        raise ConfigError(
            f"{folder / 'states'}: holds checkpoints of an earlier version; finish that run with it, or write "
            "elsewhere with output=FOLDER"
        )
    # A job that was requeued resumes by itself.
    resume = config.resume or config.ckpt_path or ("auto" if requeued() else None)
    if resume in ("last", "auto"):
        if newest := newest_checkpoint(folder):
            return str(newest)
        if resume == "last":
            raise ConfigError(
                f"{folder / 'checkpoints'}: holds no undamaged training checkpoint; resume=last needs a run in {folder}"
            )
    elif resume:
        saved = user_path(resume)
        if not saved.is_file():
            raise ConfigError(f"{saved}: no such file; resume takes last, auto or a FILE.ckpt")
        if not is_whole(saved):
            raise ConfigError(f"{saved}: is damaged, its content does not have the hash in its name; try resume=last")
        return str(saved)
    elif training_checkpoints(folder) and not config.overwrite:
        raise ConfigError(
            f"{folder} holds a run already; go on with resume=last, start anew with overwrite=true, "
            "or write elsewhere with output=FOLDER"
        )
    check_folder(folder)
    if not rank() and folder.is_dir() and not _is_of_a_run(folder):
        raise ConfigError(
            f"{folder}: holds files that no training run wrote; expected an empty folder, a new one, or that of a run"
        )
    return None


def _is_of_a_run(folder: Path) -> bool:
    """Whether a folder is empty, but for what a multirun writes there, or has a run's configuration."""
    if all(entry.name in (COMMAND, FAILED) for entry in folder.iterdir()):
        return True
    try:
        return "_target_: fststyle." in (folder / "config.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _read_checkpoint(path: str) -> dict[str, Any]:
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


def _restore(path: str, saved: dict[str, Any], task: Task) -> int:
    """The steps of a training checkpoint; refuses one of another network, loss or optimizer before work begins."""
    try:
        task.load_state_dict(saved["state_dict"])
        steps = int(saved["global_step"])
        targets = {layer: target.shape for layer, target in saved["style_targets"].items()}
        groups = [len(each["param_groups"]) for each in saved["optimizer_states"]]
    except Exception as error:  # as above, on the content
        raise _not_a_checkpoint(path, error) from None
    wanted = {layer: target.shape for layer, target in task.style_targets.items()}
    if ("color" in targets) != ("color" in wanted):
        begun, weight = ("with", "2") if "color" in targets else ("without", "0")
        raise ConfigError(f"{path}: was begun {begun} the colour term; add loss.color_weight={weight}, or what it had")
    if targets != wanted:
        raise ConfigError(
            f"{path}: was begun with another style term, at {', '.join(targets) or 'no layer'}; give the loss= and "
            "style= that it was begun with"
        )
    if groups != [len(task.configure_optimizers()["optimizer"].param_groups)]:
        raise ConfigError(f"{path}: was begun with another optimizer; give task.optimizer=adam or muon as it was begun")
    return steps


def kept_checkpoint(folder: Path) -> str:
    """The end of a message: which training checkpoint of a run in a folder there is to resume from."""
    found = training_checkpoints(folder)
    return (
        f"; the last training checkpoint is {found[0]}, resume=last goes on"
        if found
        else "; no checkpoint was saved yet"
    )


# --- what is reported -------------------------------------------------------------------------------


def _reason(error: Exception) -> str:
    """Why a run stopped, in one line."""
    text = str(without_traceback(error)).strip()
    if isinstance(error, (ValueError, OSError, NonFiniteError)):
        return text
    if "DataLoader worker" in text:
        return "a process that decodes photographs was killed, perhaps for want of memory; data.workers= sets how many"
    if any(word in text.lower() for word in ("gloo", "nccl", "connection closed", "connection reset", "peer")):
        return "another rank ended or no longer answers; its own message says why"
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


def describe(
    config: DictConfig, kind: str, loss: PerceptualLoss, start: ModelFile | None, command: str
) -> dict[str, Any]:
    """What the exported file says of how it came to be; ``Export`` adds steps and figures."""
    about: dict[str, Any] = {}
    if config.get("style"):
        image = user_path(config.style.image)
        about["style"] = {"image": image.name, "sha256": file_sha256(image), "size": config.style.size}
        about["style"] |= {"region": list(config.style.region), "blur": config.style.blur}
    if loss.encoder is not None:
        about["encoder"] = loss.encoder.metadata
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    sources = {
        key: {k: without_folders(v) for k, v in node.items()}
        for key, node in plain["data"].items()
        if isinstance(node, dict)
    }
    return {
        "kind": kind,
        "name": config.name,
        **about,
        "loss": loss.settings,
        "data": {**plain["data"], **sources},
        "task": plain["task"],
        "seed": config.seed,
        "average": ((plain.get("callbacks") or {}).get("average") or {}).get("decay"),
        "init_from": start
        and {k: start.metadata.get(k) for k in ("name", "command", "steps", "images", "init_from", "history")},
        "precision": str(config.trainer.precision),
        "command": command,
        "created": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": {
            **{"fststyle": __version__, "torch": torch.__version__, "pytorch-lightning": pl.__version__},
            "python": platform.python_version(),
        },
        "licence": "Apache-2.0",
    }
