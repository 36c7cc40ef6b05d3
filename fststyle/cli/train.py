"""One training run: everything is built and checked first, then trained, then exported."""

from __future__ import annotations

import csv
import logging
import platform
import warnings
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

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

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> None:
    """One run: everything is built and checked first, then trained, then exported."""
    import pytorch_lightning as pl
    from hydra.utils import get_class, instantiate

    from fststyle.images import load_image
    from fststyle.networks.checkpoint import find_checkpoint, load_checkpoint
    from fststyle.training.tasks import NonFiniteError

    _quiet_libraries()
    set_threads(cfg)
    check_missing(cfg)
    pl.seed_everything(cfg.seed, verbose=False)
    kind = get_class(cfg.task._target_).kind  # type: ignore[attr-defined]
    style = load_image(Path(cfg.style.image).expanduser(), cfg.style.size) if cfg.get("style") else None
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

    steps_done = _check_state(state, task) if state else 0
    callbacks = _callbacks(cfg, folder, data, record(cfg, kind, loss, start))
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
    _make_folder(folder, fresh=state is None)
    if state:
        _continue_table(table, steps_done)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    log.info("training %s in %s", cfg.name, folder)
    try:
        trainer.fit(task, datamodule=data, ckpt_path=state, weights_only=True if state else None)
    except (ValueError, OSError) as error:  # no longer a refusal: work had begun
        raise RuntimeError(f"the training of {cfg.name} stopped: {without_traceback(error)}") from error
    except NonFiniteError as error:
        kept = f"; the last saved state is {folder / 'last.ckpt'}" if (folder / "last.ckpt").is_file() else ""
        raise RuntimeError(f"the training of {cfg.name} stopped: {error}{kept}") from error
    exported = folder / f"{cfg.name}.safetensors"
    if any(getattr(callback, "interrupted", False) for callback in callbacks):
        raise KeyboardInterrupt(
            f"interrupted at step {trainer.global_step} of {cfg.steps}; exported {exported}; resume=last goes on"
        )
    log.info("exported %s", exported)


def _run_folder(cfg: DictConfig) -> Path:
    """Where the run writes: ``output``, or in a multirun the job's own folder."""
    hydra_config = HydraConfig.get()
    return Path(hydra_config.runtime.output_dir if hydra_config.mode == RunMode.MULTIRUN else cfg.output).expanduser()


def _check_folder(folder: Path, cfg: DictConfig) -> str | None:
    """Refuse a folder that cannot be used; return the state to go on from, if the run is to be resumed."""
    last = folder / "last.ckpt"
    if cfg.resume:
        state = last if cfg.resume == "last" else Path(cfg.resume).expanduser()
        if not state.is_file():
            raise ConfigError(f"{state}: no such file; resume=last needs a run in {folder}, or give resume=FILE.ckpt")
        return str(state)
    if last.exists() and not cfg.overwrite:
        raise ConfigError(
            f"{folder} holds a run already; go on with resume=last, start anew with overwrite=true, "
            "or write elsewhere with output=FOLDER"
        )
    check_folder(folder)
    return None


def _check_state(state: str, task: Any) -> int:
    """The steps of a saved state; refuses one that is none, or another network's, before work begins."""
    import torch

    try:
        saved = torch.load(state, "cpu", weights_only=True)
        task.load_state_dict(saved["state_dict"])
        return int(saved["global_step"])
    except Exception as error:  # torch raises many kinds on foreign bytes
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])[:160] or type(error).__name__
        raise ConfigError(
            f"{state}: is not the state of such a run ({reason}); resume takes a last.ckpt and the settings it had"
        ) from None


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


def _make_folder(folder: Path, *, fresh: bool) -> None:
    """Make the run's folder, rid a fresh run's of what another left, and keep a log there."""
    folder.mkdir(parents=True, exist_ok=True)
    if fresh:
        made = [file for name in ("csv", "tensorboard", "previews") for file in (folder / name).glob("*")]
        for leftover in (folder / "last.ckpt", folder / "train.log", *made):
            leftover.unlink(missing_ok=True)
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
        SaveState,
        StopOnInterrupt,
    )

    callbacks: list[Any] = [StopOnInterrupt(), CountUnreadable(cfg.data.max_unreadable)]
    if cfg.average:
        callbacks.append(AverageWeights(cfg.average))
    if cfg.previews.count:
        images = data.held_out_images[: cfg.previews.count]
        callbacks.append(Previews(images, folder / "previews", cfg.previews.every))
    if cfg.health and len(data.held_out_images):
        callbacks.append(Health(data.held_out_images[0], cfg.health))
    exported = folder / f"{cfg.name}.safetensors"
    callbacks.append(Export(exported, run_record, cfg.export_dtype, cfg.candidates, cfg.save_every))
    callbacks.append(SaveState(folder, cfg.save_every))  # after those whose state it saves
    return callbacks


def record(cfg: DictConfig, kind: str, loss: Any, start: Any = None) -> dict[str, Any]:
    """What the exported file tells of how it came to be; the run adds steps and figures."""
    from fststyle.networks.pretrained import file_sha256

    about: dict[str, Any] = {}
    if cfg.get("style"):
        image = Path(cfg.style.image).expanduser()
        about["style"] = {"image": image.name, "sha256": file_sha256(image), "size": cfg.style.size}
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
        "init_from": start and {k: start.record.get(k) for k in ("name", "command", "steps", "images", "init_from")},
        "precision": str(cfg.trainer.precision),
        "command": command_line(),
        "created": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": {name: version(name) for name in ("fststyle", "torch", "pytorch-lightning")}
        | {"python": platform.python_version()},
        "licence": "Apache-2.0",
    }


def _quiet_libraries() -> None:
    for text in ("not have many workers", "in eval mode at the start", "LeafSpec", "Experiment logs directory"):
        warnings.filterwarnings("ignore", f".*{text}.*")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    import datasets

    datasets.disable_progress_bars()
