"""One training run: everything is built and checked first, then trained, then exported."""

from __future__ import annotations

import csv
import logging
import os
import platform
import signal
import warnings
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fststyle.cli.cluster import Preempted, launched, rank, requeue, requeued, wait_for_the_end
from fststyle.cli.compose import ConfigError, command_line, without_folders, without_traceback
from fststyle.cli.parts import (
    build_encoder,
    build_loss,
    calibrate,
    check_folder,
    check_missing,
    has_layers,
    set_threads,
)
from fststyle.cli.sweep import COMMAND, FAILED, is_one

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> None:
    """One run, or what this process, one of its ranks, does of it.

    Raises:
        ValueError, OSError: refused, before anything was written.
        RuntimeError: failed; what was saved is there to go on from.
        Preempted: told to stop by a signal, with everything saved.
        KeyboardInterrupt: Ctrl-C.
    """
    from fststyle.training.state import Stop, StopOnSignal

    _quiet_libraries()
    set_threads(cfg)
    check_missing(cfg)
    stopper = StopOnSignal()
    # Before there is a step to finish, they end it at once.
    stopper.listen(signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    try:
        ended = _run(cfg, stopper)
    except KeyboardInterrupt:
        if stopper.agreed <= Stop.EXPORT:
            raise
        ended = f"{cfg.name} was told to stop before its first step"
    finally:
        stopper.restore()
    if stopper.agreed is Stop.EXPORT:
        raise KeyboardInterrupt(ended)
    if stopper.agreed is Stop.REQUEUE and os.environ.get("SLURM_JOB_ID"):
        log.warning(ended)
        if rank() or requeue():
            wait_for_the_end()
    if stopper.agreed:
        raise Preempted(ended)


def _run(cfg: DictConfig, stopper: Any) -> str:
    """Everything is built and checked first, then trained, then exported; returns how it ended, in words."""
    import pytorch_lightning as pl
    from hydra.utils import get_class, instantiate

    from fststyle.images import load_image
    from fststyle.networks.checkpoint import find_checkpoint, load_checkpoint
    from fststyle.training.callbacks import Export
    from fststyle.training.state import Stop

    pl.seed_everything(cfg.seed, verbose=False)
    kind = get_class(cfg.task._target_).kind  # type: ignore[attr-defined]
    style = None
    if cfg.get("style"):
        style = load_image(Path(cfg.style.image).expanduser(), cfg.style.size, cfg.style.region)
    start = load_checkpoint(find_checkpoint(cfg.init_from, kind), kind) if cfg.init_from else None
    folder = _run_folder(cfg)
    state = _check_folder(folder, cfg)

    data = instantiate(cfg.data)
    loss = build_loss(cfg, build_encoder(cfg, data) if style is not None or has_layers(cfg) else None)
    if start:
        config: Any = start.network.config
        if any(config.get(key) != value for key, value in cfg.network.items() if key != "_target_"):
            log.info("the network is that of %s, whatever network= says: %s", cfg.init_from, start.network.config)
        network = start.network.train()
    else:
        network = instantiate(cfg.network)
    style_targets = {} if style is None else loss.style_targets(style)
    targets = {} if style is None else {"style_targets": style_targets}
    task = instantiate(cfg.task, network=network, loss=loss, **targets)
    task.check_crops(cfg.data.size)
    if state is None:
        count = cfg.calibration_photographs
        calibrate(loss, data.calibration_batches(count), style_targets, f"{count} photographs")

    steps_done = _check_state(state, task) if state else None
    callbacks = [stopper, *_callbacks(cfg, folder, data, record(cfg, kind, loss, start))]
    table = pl.loggers.CSVLogger(str(folder), name="", version="csv")
    trainer = instantiate(
        cfg.trainer,
        default_root_dir=str(folder),
        callbacks=callbacks,
        logger=[pl.loggers.TensorBoardLogger(str(folder), name="", version="tensorboard"), table],
        check_val_every_n_epoch=None,  # the sequence has no end, so no epochs either
        num_sanity_val_steps=0,
        enable_checkpointing=False,  # SaveState does it
        enable_model_summary=False,
        use_distributed_sampler=False,  # data.py deals positions to ranks
        limit_val_batches=1.0 if len(data.held_out_images) else 0,
    )
    if trainer.world_size > 1 and is_one() and not launched():
        raise ConfigError(
            f"a run of a multirun cannot start {trainer.world_size} ranks itself; let Slurm do it, with "
            "hydra/launcher=slurm hydra.launcher.tasks_per_node=N, or train the styles one by one"
        )
    _begin(cfg, folder, trainer, table, steps_done)
    try:
        trainer.fit(task, datamodule=data, ckpt_path=state, weights_only=True if state else None)
        export = next(callback for callback in callbacks if isinstance(callback, Export))
        if trainer.global_step >= cfg.steps and not export.written:  # ended between its last step and its export
            export.on_train_end(trainer, task)
    except Exception as error:  # no longer a refusal: work had begun
        raise RuntimeError(f"the training of {cfg.name} stopped: {_reason(error)}{_kept(folder)}") from error
    if stopper.agreed:
        at = f"at step {trainer.global_step} of {cfg.steps}"
        if stopper.agreed is Stop.EXPORT:
            return f"interrupted {at}; exported {export.path}; resume=last goes on"
        return f"{cfg.name} was told to stop {at}{_kept(folder)}"
    log.info("exported %s", export.path)
    return ""


def _reason(error: Exception) -> str:
    """Why a run stopped, in one line."""
    from fststyle.training.tasks import NonFiniteError

    text = str(without_traceback(error)).strip()
    if isinstance(error, (ValueError, OSError, NonFiniteError)):
        return text
    if "DataLoader worker" in text:
        return "a process that decodes photographs was killed, perhaps for want of memory; data.workers= sets how many"
    if any(word in text.lower() for word in ("gloo", "nccl", "connection closed", "connection reset", "peer")):
        return "another rank ended or no longer answers; its own message tells why"
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


def _kept(folder: Path) -> str:
    from fststyle.training.state import states

    found = states(folder)
    return f"; the last saved state is {found[0]}, resume=last goes on" if found else "; no state was saved yet"


def _begin(cfg: DictConfig, folder: Path, trainer: Any, table: Any, steps_done: int | None) -> None:
    """Make the folder ready, and tell what is about to be trained; the first rank does it for all.

    Args:
        steps_done: of the run that is gone on with; None for one that is new.
    """
    if rank():
        logging.getLogger().setLevel(logging.WARNING)
        return
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)  # first: it marks the folder as a run's
    _prepare_folder(folder, fresh=steps_done is None)
    if steps_done is not None:
        _continue_table(table, steps_done)
    batch, accumulated, ranks = cfg.data.batch_size, trainer.accumulate_grad_batches, trainer.world_size
    log.info("training %s in %s%s", cfg.name, folder, f", from step {steps_done} on" if steps_done else "")
    if ranks > 1:
        step = batch * accumulated * ranks
        log.info(
            "%d ranks × %d photographs%s = %d a step, %s in all; learning rate %g, whatever the number of ranks",
            *(ranks, batch, f" × {accumulated} accumulated" if accumulated > 1 else ""),
            *(step, f"{step * cfg.steps:,}", cfg.task.learning_rate),
        )


def _run_folder(cfg: DictConfig) -> Path:
    """Where the run writes: ``output``, or in a multirun the job's own folder."""
    return Path(HydraConfig.get().runtime.output_dir if is_one() else cfg.output).expanduser()


def _check_folder(folder: Path, cfg: DictConfig) -> str | None:
    """Refuse a folder that cannot be used; return the state to go on from, if the run is to be resumed."""
    from fststyle.training.state import is_whole, newest_state, states

    resume = cfg.resume or ("auto" if requeued() else None)  # a job that was queued again goes on by itself
    if resume in ("last", "auto"):
        if newest := newest_state(folder):
            return str(newest)
        if resume == "last":
            raise ConfigError(f"{folder / 'states'}: holds no whole state; resume=last needs a run in {folder}")
    elif resume:
        state = Path(resume).expanduser()
        if not state.is_file():
            raise ConfigError(f"{state}: no such file; resume takes last, auto or a FILE.ckpt")
        if not is_whole(state):
            raise ConfigError(f"{state}: is damaged, its content is not what its name tells; try resume=last")
        return str(state)
    elif states(folder) and not cfg.overwrite:
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


def _check_state(state: str, task: Any) -> int:
    """The steps of a saved state; refuses one that is none, or another network's, before work begins."""
    import torch

    try:
        saved = torch.load(state, "cpu", weights_only=True)
        task.load_state_dict(saved["state_dict"])
        steps = int(saved["global_step"])
        targets = {layer: target.shape for layer, target in saved["style_targets"].items()}
        groups = [len(each["param_groups"]) for each in saved["optimizer_states"]]
    except Exception as error:  # torch raises many kinds on foreign bytes
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])[:160] or type(error).__name__
        raise ConfigError(
            f"{state}: is not the state of such a run ({reason}); resume takes a state and the settings it had"
        ) from None
    wanted = {layer: target.shape for layer, target in task.style_targets.items()}
    if ("color" in targets) != ("color" in wanted):
        begun, weight = ("with", "2") if "color" in targets else ("without", "0")
        raise ConfigError(f"{state}: was begun {begun} the colour term; add loss.color_weight={weight}, or what it had")
    if targets != wanted:
        raise ConfigError(
            f"{state}: was begun with another style term, at {', '.join(targets) or 'no layer'}; give the loss= and "
            "style= that it was begun with"
        )
    if groups != [len(task.configure_optimizers()["optimizer"].param_groups)]:
        raise ConfigError(
            f"{state}: was begun with another optimizer; give task.optimizer=adam or muon as it was begun"
        )
    return steps


def _continue_table(table: Any, steps_done: int) -> None:
    """Let the CSV of a resumed run go on after the saved step; Lightning's logger would begin anew."""
    path = Path(table.log_dir) / "metrics.csv"
    if not path.is_file():
        return
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) < steps_done]
    if rows:
        table.experiment.metrics_keys = list(rows[0])
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


#: What a run writes beside its configuration and the exported file.
_WRITTEN = (
    *("train.log", "states/step_*.ckpt", "states/step_*.part", "previews/step_*.png"),
    *("csv/metrics.csv", "csv/hparams.yaml", "tensorboard/events.out.tfevents.*", "tensorboard/hparams.yaml"),
)


def _prepare_folder(folder: Path, *, fresh: bool) -> None:
    """Rid a fresh run's folder of what another run wrote there, and keep a log in it."""
    if fresh:
        for pattern in _WRITTEN:
            for leftover in folder.glob(pattern):
                leftover.unlink(missing_ok=True)
    (folder / FAILED).unlink(missing_ok=True)
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if handler.get_name() == "fststyle-run"]:
        root.removeHandler(handler)  # of the run before, in a multirun
        handler.close()
    handler = logging.FileHandler(folder / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.set_name("fststyle-run")
    root.addHandler(handler)


def _callbacks(cfg: DictConfig, folder: Path, data: Any, run_record: dict[str, Any]) -> list[Any]:
    from fststyle.training.callbacks import (
        AverageWeights,
        CountUnreadable,
        Export,
        Health,
        Previews,
        TimedProgressBar,
    )
    from fststyle.training.state import SaveState

    callbacks: list[Any] = [CountUnreadable(cfg.data.max_unreadable)]
    if cfg.trainer.max_time and cfg.trainer.get("enable_progress_bar", True):
        callbacks.append(TimedProgressBar())
    if cfg.average:
        callbacks.append(AverageWeights(cfg.average))
    if cfg.previews.count:
        images = data.held_out_images[: cfg.previews.count]
        callbacks.append(Previews(images, folder / "previews", cfg.previews.every))
    if cfg.health and len(data.held_out_images):
        callbacks.append(Health(data.held_out_images[0], cfg.health))
    exported = folder / f"{cfg.name}.safetensors"
    callbacks.append(Export(exported, run_record, cfg.export_dtype, cfg.candidates, cfg.save_every))
    # After those whose state it saves.
    callbacks.append(SaveState(folder, cfg.save_every, cfg.save_minutes, cfg.keep_states))
    return callbacks


def record(cfg: DictConfig, kind: str, loss: Any, start: Any = None) -> dict[str, Any]:
    """What the exported file tells of how it came to be; the run adds steps and figures."""
    from fststyle.networks.pretrained import file_sha256

    about: dict[str, Any] = {}
    if cfg.get("style"):
        image = Path(cfg.style.image).expanduser()
        about["style"] = {"image": image.name, "sha256": file_sha256(image), "size": cfg.style.size}
        about["style"]["region"] = list(cfg.style.region)
    if loss.encoder is not None:
        about["encoder"] = loss.encoder.record
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    sources = {
        key: {k: without_folders(v) for k, v in node.items()}
        for key, node in plain["data"].items()
        if isinstance(node, dict)
    }
    return {
        "kind": kind,
        "name": cfg.name,
        **about,
        "loss": loss.settings,
        "data": {**plain["data"], **sources},
        "task": plain["task"],
        "seed": cfg.seed,
        "average": cfg.average,
        "init_from": start
        and {k: start.record.get(k) for k in ("name", "command", "steps", "images", "init_from", "history")},
        "precision": str(cfg.trainer.precision),
        "command": command_line(),
        "created": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": {name: version(name) for name in ("fststyle", "torch", "pytorch-lightning")}
        | {"python": platform.python_version()},
        "licence": "Apache-2.0",
    }


def _quiet_libraries() -> None:
    quiet = (
        "not have many workers",
        "in eval mode at the start",
        "LeafSpec",
        "Experiment logs directory",
        "`srun` command",
    )
    for text in quiet:
        warnings.filterwarnings("ignore", f".*{text}.*")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    import datasets

    datasets.disable_progress_bars()
