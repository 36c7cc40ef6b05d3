"""Training checkpoints: files that can be trusted, from which a run resumes to the same bits."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import random
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins import TorchCheckpointIO

from fststyle.training.ranks import agreeing, gathered, largest

log = logging.getLogger(__name__)

#: A training checkpoint's file: the step, and how the sha256 of its content begins.
NAME = re.compile(r"step_(\d+)-([0-9a-f]{16})\.ckpt")


# --- files that can be trusted ----------------------------------------------------------------------


class CheckpointFiles(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file, flushes it and moves it to a name with its hash.

    Where that fails, as on a full disk, the run goes on with the checkpoints that are there.
    """

    #: Saves that failed since the last that did not.
    failed = 0

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """To ``path``, ``step_00000500.ckpt``, with the hash before its ending; nothing is left where that fails."""
        path = Path(path)
        if not re.fullmatch(r"step_\d+\.ckpt", path.name):  # of another callback
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getbuffer()
        part = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path.with_name(f"{path.stem}-{_digest(content)}.ckpt"))
            _flush_folder(path.parent)
            self.failed = 0
        except OSError as error:
            self.failed += 1
            log.warning("the checkpoint of step %d could not be saved: %s", checkpoint["global_step"], error)
            try:
                part.unlink(missing_ok=True)
            except OSError as left:
                log.warning("%s", left)


def _digest(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _flush_folder(folder: Path) -> None:
    """Make a move within a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def training_checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """The training checkpoints in a run's folder, the newest first."""
    found = [path for path in (Path(folder) / "checkpoints").glob("step_*.ckpt") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (step_of(path), path.stat().st_mtime_ns), reverse=True)


def step_of(checkpoint: Path) -> int:
    """The step in a training checkpoint's name."""
    named = NAME.fullmatch(checkpoint.name)
    if named is None:
        raise ValueError(
            f"{checkpoint}: is no training checkpoint's name; expected step_00000500-0123456789abcdef.ckpt"
        )
    return int(named[1])


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint's content has the hash in its name; true for a name without one."""
    named = NAME.fullmatch(checkpoint.name)
    try:
        return named is None or _digest(checkpoint.read_bytes()) == named[2]
    except FileNotFoundError:
        return False


def newest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The newest undamaged training checkpoint in a run's folder; a warning names each damaged one."""
    for checkpoint in training_checkpoints(folder):
        if is_whole(checkpoint):
            return checkpoint
        log.warning("%s is damaged: its content does not have the hash in its name; the one before is used", checkpoint)
    return None


class SaveCheckpoints(Checkpoint):
    """Keep a run's newest checkpoints: network, optimizer, schedule, random number generators, loss and position.

    Args:
        folder: of the run; they go to ``checkpoints/`` in it.
        every: steps between two saves; the last step is always saved.
        minutes: and between two saves at most; None: steps alone decide.
        keep: checkpoints kept; older files are removed.
    """

    def __init__(
        self, folder: str | os.PathLike[str], every: int = 500, minutes: float | None = 10, keep: int = 2
    ) -> None:
        if every < 1:
            raise ValueError(f"checkpoints are asked for every {every} steps; expected at least 1")
        if minutes is not None and not minutes > 0:
            raise ValueError(f"checkpoints are asked for every {minutes} minutes; expected a number above 0, or null")
        if keep < 1:
            raise ValueError(f"{keep} checkpoints are to be kept; expected at least 1")
        self.folder, self.every, self.minutes, self.keep = Path(folder), every, minutes, keep
        self.files = CheckpointFiles()
        self.saved = -1
        self._clock = time.monotonic()
        self._random: list[dict[str, Any]] | None = None

    def on_fit_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # the default, no plugin of the user's
            trainer.strategy.checkpoint_io = self.files
        self._clock = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        if trainer.is_global_zero:  # a run that goes on from before them makes them anew
            for later in (each for each in training_checkpoints(self.folder) if step_of(each) > trainer.global_step):
                later.unlink(missing_ok=True)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._random is not None:  # once everything is set up that may have drawn
            if len(self._random) > trainer.global_rank:
                _restore_random(self._random[trainer.global_rank])
            self._random = None

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        # Inside the loop, where Lightning's own counters are those of a run in progress: a longer
        # run can go on from the last step, too.
        step = trainer.global_step
        if step % self.every == 0 or step == trainer.max_steps or trainer.should_stop or self._is_time(trainer):
            self.save(trainer)

    def _is_time(self, trainer: pl.Trainer) -> bool:
        if self.minutes is None or not agreeing(trainer):
            return False
        return bool(largest(trainer, int(time.monotonic() - self._clock > 60 * self.minutes)))

    def on_train_end(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        self.save(trainer)  # for runs that end by time

    def save(self, trainer: pl.Trainer) -> None:
        """Save unless this step is saved already; every rank must ask."""
        if trainer.global_step == self.saved:
            return
        trainer.save_checkpoint(
            self.folder / "checkpoints" / f"step_{trainer.global_step:08d}.ckpt", weights_only=False
        )
        self.saved, self._clock = trainer.global_step, time.monotonic()
        if trainer.is_global_zero and not self.files.failed:
            for old in training_checkpoints(self.folder)[self.keep :]:
                old.unlink(missing_ok=True)

    def on_save_checkpoint(self, trainer: pl.Trainer, _: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["random"] = gathered(trainer, _random_state())

    def on_load_checkpoint(self, _: pl.Trainer, __: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._random = checkpoint.get("random")


def _random_state() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators, in plain types, which load without unpickling."""
    name, keys, *rest = np.random.get_state()
    version, numbers, gauss = random.getstate()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore_random(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
