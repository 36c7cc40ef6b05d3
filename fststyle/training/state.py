"""What a run leaves to go on from, whatever ends it: saved states that can be trusted, and stops between two steps."""

from __future__ import annotations

import enum
import hashlib
import io
import logging
import multiprocessing
import os
import random
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.plugins import TorchCheckpointIO

from fststyle.training.ranks import agreeing, gathered, largest

log = logging.getLogger(__name__)

#: A state's file: the step, and how the sha256 of its content begins.
NAME = re.compile(r"step_(\d+)-([0-9a-f]{16})\.ckpt")


# --- files that can be trusted ----------------------------------------------------------------------


class StateFiles(TorchCheckpointIO):
    """Writes a state beside its name, flushes it and moves it to a name that holds its hash.

    Where that fails, as on a full disk, the run goes on with the states that are there.
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
            log.warning("the state of step %d could not be saved: %s", checkpoint["global_step"], error)
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


def states(folder: str | os.PathLike[str]) -> list[Path]:
    """The states in a run's folder, the newest first."""
    found = [path for path in (Path(folder) / "states").glob("step_*.ckpt") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (step_of(path), path.stat().st_mtime_ns), reverse=True)


def step_of(state: Path) -> int:
    """The step that a state's name tells."""
    named = NAME.fullmatch(state.name)
    if named is None:
        raise ValueError(f"{state}: is no name of a state; expected step_00000500-0123456789abcdef.ckpt")
    return int(named[1])


def is_whole(state: Path) -> bool:
    """Whether a state's content has the hash that its name tells; true for a name that tells none."""
    named = NAME.fullmatch(state.name)
    try:
        return named is None or _digest(state.read_bytes()) == named[2]
    except FileNotFoundError:
        return False


def newest_state(folder: str | os.PathLike[str]) -> Path | None:
    """The newest whole state in a run's folder; damaged ones are passed over with a warning."""
    for state in states(folder):
        if is_whole(state):
            return state
        log.warning("%s is damaged: its content is not what its name tells; the state before it is taken", state)
    return None


class SaveState(Checkpoint):
    """Keep the newest states of a run in ``states/``: network, optimizer, schedule, random states, loss and position.

    Args:
        folder: of the run.
        every: steps between two saves; the last step is always saved.
        minutes: and between two saves at most; None: steps alone decide.
        keep: states kept; of older ones the files are removed.
    """

    def __init__(
        self, folder: str | os.PathLike[str], every: int = 500, minutes: float | None = 10, keep: int = 2
    ) -> None:
        if every < 1:
            raise ValueError(f"states are asked for every {every} steps; expected at least 1")
        if minutes is not None and not minutes > 0:
            raise ValueError(f"states are asked for every {minutes} minutes; expected a number above 0, or null")
        if keep < 1:
            raise ValueError(f"{keep} states are to be kept; expected at least 1")
        self.folder, self.every, self.minutes, self.keep = Path(folder), every, minutes, keep
        self.files = StateFiles()
        self.saved = -1
        self._clock = time.monotonic()
        self._random: list[dict[str, Any]] | None = None

    def on_fit_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # the default, no plugin of the user's
            trainer.strategy.checkpoint_io = self.files
        self._clock = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        if trainer.is_global_zero:  # a run that goes on from before them makes them anew
            for later in (state for state in states(self.folder) if step_of(state) > trainer.global_step):
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
        trainer.save_checkpoint(self.folder / "states" / f"step_{trainer.global_step:08d}.ckpt", weights_only=False)
        self.saved, self._clock = trainer.global_step, time.monotonic()
        if trainer.is_global_zero and not self.files.failed:
            for old in states(self.folder)[self.keep :]:
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


# --- stops between two steps --------------------------------------------------------------------------


class Stop(enum.IntEnum):
    """What a signal asks for; of several ranks' the largest counts."""

    NONE = 0
    EXPORT = 1  #: save and export: Ctrl-C
    SAVE = 2  #: save: SIGTERM, which also ends a cancelled job
    REQUEUE = 3  #: save and start again: SIGUSR1, SIGUSR2


#: What is heard.
SIGNALS = {
    signal.SIGINT: Stop.EXPORT,
    signal.SIGTERM: Stop.SAVE,
    signal.SIGUSR1: Stop.REQUEUE,
    signal.SIGUSR2: Stop.REQUEUE,  # submitit's
}


class StopOnSignal(Callback):
    """Lets a signal end the run between two steps, on all ranks in the same one, with state saved.

    A second Ctrl-C ends it at once. Outside of the main thread no signals can be heard.
    """

    def __init__(self) -> None:
        self.asked = self.agreed = Stop.NONE
        self.running = False
        self._before: dict[int, Any] = {}

    def listen(self, *signals: int) -> None:
        """Take over signals, all of ``SIGNALS`` if none is named, until ``on_fit_end`` or ``restore``."""
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may
        process = os.getpid()

        def hear(number: int, _: Any) -> None:
            if os.getpid() != process:
                return  # a decoding worker, which the terminal or Slurm tells as well: it ends with this process
            what = SIGNALS[signal.Signals(number)]
            if not self.running:  # there is no step to finish
                self.agreed = what
                raise KeyboardInterrupt
            if what is Stop.EXPORT and self.asked:
                raise KeyboardInterrupt
            if what > self.asked:
                self.asked = what
                then = "saving and exporting; once more to stop at once" if what is Stop.EXPORT else "saving"
                name = "interrupted" if what is Stop.EXPORT else f"told to stop by {signal.Signals(number).name}"
                log.warning("%s: finishing this step, %s", name, then)

        for number in signals or SIGNALS:
            before = signal.signal(number, hear)
            self._before.setdefault(number, before)

    def restore(self) -> None:
        """Give the signals back."""
        for number, before in self._before.items():
            signal.signal(number, before)

    def on_fit_start(self, *_: Any) -> None:
        self.running = True
        self.listen()

    def on_train_start(self, *_: Any) -> None:
        self.listen()  # again: Lightning's own handlers came between

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if agreeing(trainer) and (asked := largest(trainer, self.asked)):
            self.agreed = Stop(asked)
            trainer.should_stop = True

    def on_fit_end(self, *_: Any) -> None:
        self.running = False
        self.restore()

    def on_exception(self, *_: Any) -> None:
        self.running = False
        self.restore()


def stopped_by(trainer: pl.Trainer) -> Stop:
    """What ended a run, on all ranks."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback.agreed for callback in callbacks if isinstance(callback, StopOnSignal)), Stop.NONE)


def leave_signals(_: int = 0) -> None:
    """For a decoding worker: what ends a run is told to its main process, which ends the workers in order.

    SIGTERM is also how that does it where a worker does not hear it otherwise; so who sent it decides.
    """
    for number in (number for number in SIGNALS if number != signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_if_the_parent_says_so, daemon=True).start()


def _end_if_the_parent_says_so() -> None:
    # multiprocessing's parent: under forkserver the system's is the server.
    parent = multiprocessing.parent_process()
    number = parent.pid if parent is not None else os.getppid()
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == number:
            os._exit(0)
