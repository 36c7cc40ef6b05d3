"""A training run: ``build`` makes and checks everything that a configuration names, ``Run.fit`` trains and exports.

From Python::

    from fststyle.config import compose
    from fststyle.training.run import build

    config = compose("train", ["style.image=painting.jpg", "data=folder", "data.source.path=photographs"])
    print(build(config).fit())
"""

from __future__ import annotations

import inspect
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
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
from torch import nn

from fststyle.checks import check_name, check_path, check_seed
from fststyle.cluster import rank
from fststyle.config import (
    ConfigError,
    build_encoder,
    build_loss,
    calibrate,
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
from fststyle.model_file import ModelFile, bundled_files, find_model_file, load_model_file, read_metadata
from fststyle.networks.arbitrary import ArbitraryNet
from fststyle.networks.transform import TransformNet
from fststyle.resources import printable
from fststyle.training.callbacks import Export, TimedProgressBar
from fststyle.training.colors import spread
from fststyle.training.data import Photographs
from fststyle.training.logs import continue_table, logged_to, loggers
from fststyle.training.resuming import (
    check_export,
    differences,
    find_checkpoint,
    kept_checkpoint,
    of_objective,
    read_checkpoint,
    restore,
    settings,
    written,
)
from fststyle.training.signals import Stop, StopOnSignal, stopped_by
from fststyle.training.starts import begun_from
from fststyle.training.styles import about_style, resolve_styles
from fststyle.training.tasks import NonFiniteError, Task
from fststyle.version import __version__

log = logging.getLogger(__name__)


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
        for leftover in () if self.checkpoint else list(written(self.folder)):
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
        step, count = batch * accumulated * ranks, len(self.data.indices)
        if 0 < count < step:
            log.warning("a step takes %d photographs and there are %d: every batch repeats some", step, count)
        if ranks > 1:
            log.info(
                "%d ranks × %d photographs%s = %d a step, %s in all; learning rate %g, whatever the number of ranks",
                *(ranks, batch, f" × {accumulated} accumulated" if accumulated > 1 else ""),
                *(step, f"{step * config.steps:,}", self.task.learning_rate),
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
    if (config.get("style") or config.get("styles")) and kind != "style":
        raise ConfigError(
            f"{config.task._target_.rpartition('.')[2]} takes no style; use experiment=superres or experiment=inverse, "
            "which bring what goes with the task"
        )
    styles = resolve_styles(config)
    check_missing(config)
    set_threads(config)
    check_seed(config.seed)
    check_name(config.name, "name", ".safetensors")
    if not isinstance(config.resume_changed, bool):
        raise ConfigError(f"resume_changed is {config.resume_changed}; expected true or false")
    config.output = escaped(str(check_path(config.output, "output")))
    pl.seed_everything(config.seed, verbose=False)
    paintings = [load_style(style) for style in styles.values()]
    many = len(styles) > 1
    start = _start(config.init_from, kind) if config.init_from else None
    checkpoint = find_checkpoint(Path(config.output), config)

    data = instantiate(config.data, style_count=max(1, len(styles)))
    loss = build_loss(config, build_encoder(config, data) if paintings or has_layers(config) else None)
    if many:
        loss.style_factors = torch.tensor([float(style.weight) for style in styles.values()])
        _check_takes_styles(config)
    norms_only = config.task.get("train") == "norms"
    if norms_only and not start:
        raise ConfigError(
            "task.train=norms trains scales, shifts and colours alone, on the convolutions of another network; give "
            "init_from=, a bundled style or a model file"
        )
    network: nn.Module
    if start and kind == "arbitrary" and isinstance(start.network, TransformNet):
        sizes = (config.network[key] for key in ("statistics", "components", "hidden"))
        network = ArbitraryNet.from_style(start.network, *sizes).train()
    elif start:
        known: Any = start.network.config
        if any(known.get(key) != value for key, value in config.network.items() if key != "_target_"):
            log.info("the network is that of %s, whatever network= says: %s", config.init_from, known)
        network = begun_from(start, loss, dict(zip(styles, paintings, strict=True)), norms_only).train()
    else:
        network = instantiate(config.network, **({"styles": len(styles)} if many else {}))
    saved = read_checkpoint(checkpoint) if checkpoint else None
    found = [*callbacks, *_callbacks(config, callbacks)]
    for each in found:
        if isinstance(each, Export):
            check_export(check_path(each.path, "callbacks.export.path"), Path(config.output))
            each.metadata = describe(config, styles, kind, loss, start, command) | each.metadata
    trainer = instantiate(config.trainer, callbacks=found, logger=list(loggers(config)))
    batch = data.batch_size * trainer.accumulate_grad_batches * trainer.world_size
    now = settings(config, data, network, loss, batch)
    changes = differences(now, saved and saved.get("settings"))
    renewed = saved is None or (config.resume_changed and of_objective(changes))
    # The checkpoint has those of the painting; of any other picture they have the same shapes.
    each_targets = [loss.style_targets(picture if renewed else torch.zeros(1, 3, 64, 64)) for picture in paintings]
    style_targets = {layer: torch.cat([one[layer] for one in each_targets]) for layer in (each_targets or [{}])[0]}
    given: dict[str, Any] = {"style_targets": style_targets} if paintings else {}
    if paintings:
        given["paintings"] = torch.stack([spread(picture) for picture in paintings])
        given["smoothed"] = [float(style.get("smoothed", 1)) for style in styles.values()]
    task = instantiate(config.task, network=network, loss=loss, **given, **({"names": list(styles)} if many else {}))
    task.check_crops(config.data.size)
    task.settings, task.keeps_objective = now, saved is not None and renewed
    if renewed:
        count = config.calibration_photographs
        calibrate(
            loss, data.calibration_batches(count), each_targets if many else style_targets, f"{count} photographs"
        )
    steps_done = 0
    if saved is not None:
        steps_done = restore(str(checkpoint), saved, task, list(changes.values()), config.resume_changed)
        for change in changes.values():
            log.warning("another setting than before: %s", change)
    return Run(config, task, data, trainer, checkpoint, steps_done)


def _start(name: str, kind: str) -> ModelFile:
    """The model file that a run goes on from: of its own kind, or of styles for any painting, and the other way."""
    if kind not in ("arbitrary", "style"):
        return load_model_file(find_model_file(name, kind), kind)
    path = find_model_file(name, "arbitrary" if name in bundled_files("arbitrary") else "style")
    found = read_metadata(path)["kind"]
    return load_model_file(path, found if found in ("arbitrary", "style") else kind)


def _check_takes_styles(config: DictConfig) -> None:
    if "styles" not in inspect.signature(get_class(config.network._target_)).parameters:
        raise ConfigError(
            f"{config.network._target_.rpartition('.')[2]} has no norms for several styles; use network=resnet, or one "
            "style"
        )


def _callbacks(config: DictConfig, given: Sequence[Callback]) -> Iterator[Callback]:
    """Those of the configuration, and of every run."""
    if not any(isinstance(each, StopOnSignal) for each in given):
        yield StopOnSignal()
    if config.trainer.max_time and config.trainer.enable_progress_bar:
        yield TimedProgressBar()
    yield from (instantiate(entry) for entry in (config.callbacks or {}).values() if entry)


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
    config: DictConfig,
    styles: Mapping[str, DictConfig],
    kind: str,
    loss: PerceptualLoss,
    start: ModelFile | None,
    command: str,
) -> dict[str, Any]:
    """What the exported file says of how it came to be; ``Export`` adds steps and figures."""
    about: dict[str, Any] = {}
    described = {name: {"style": about_style(style)} for name, style in styles.items()}
    if len(styles) > 1:
        about["styles"] = described
    else:
        about |= next(iter(described.values()), {})
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
