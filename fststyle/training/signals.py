"""What signals ask of a run: on SIGTERM it saves a checkpoint and ends, on SIGUSR1 it also requeues itself.

Lightning's own handler for Slurm (``SLURMEnvironment(auto_requeue=True)``) is not used: it saves inside the signal
handler, wherever in a step that rank is, so that the run would not resume bit by bit.
"""

from __future__ import annotations

import enum
import logging
import multiprocessing
import os
import signal
import threading
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from fststyle.training.ranks import agreeing, largest

log = logging.getLogger(__name__)


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
                name = "interrupted" if what is Stop.EXPORT else f"received {signal.Signals(number).name}"
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
    """For a decoding worker: signals that end a run are for its main process, which ends the workers in order.

    The main process itself ends a worker by SIGTERM, so the sender decides.
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
