"""``fststyle train``: one training run, and what signals, Slurm and a multirun ask of it."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from fststyle.cli import compose
from fststyle.cli.sweep import forget_failure, is_one, output_folder
from fststyle.cluster import Preempted, launched, rank, requeue, wait_for_the_end
from fststyle.config import ConfigError, escaped

if TYPE_CHECKING:
    from fststyle.training.signals import StopOnSignal

log = logging.getLogger(__name__)


def run(words: list[str]) -> int:
    return compose.run("train", words, train)


def train(cfg: DictConfig) -> None:
    """One run, or what this process, one of its ranks, does of it.

    Raises:
        ValueError, OSError: refused, before anything was written.
        RuntimeError: failed; the training checkpoints are there to resume from.
        Preempted: a signal stopped the run, with everything saved.
        KeyboardInterrupt: Ctrl-C.
    """
    from fststyle.training.signals import Stop, StopOnSignal

    _quiet_libraries()
    stopper = StopOnSignal()
    # Before there is a step to finish, they end it at once.
    stopper.listen(signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    try:
        ended = _run(cfg, stopper)
    except KeyboardInterrupt:
        if stopper.agreed <= Stop.EXPORT:
            raise
        ended = f"{cfg.name} was stopped by a signal before its first step"
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


def _run(cfg: DictConfig, stopper: StopOnSignal) -> str:
    """Train; returns how the run ended, in words, if a signal ended it."""
    from fststyle.training.run import build, kept_checkpoint

    if is_one():
        cfg.output = escaped(output_folder())
    run = build(cfg, [stopper], compose.command_line())
    if run.trainer.world_size > 1 and is_one() and not launched():
        raise ConfigError(
            f"a run of a multirun cannot start {run.trainer.world_size} ranks itself; let Slurm do it, with "
            "hydra/launcher=slurm hydra.launcher.tasks_per_node=N, or train the styles one by one"
        )
    if rank():
        logging.getLogger().setLevel(logging.WARNING)
    else:
        forget_failure(run.folder)
    exported = run.fit()
    if not run.stopped:
        return ""
    at = f"at step {run.trainer.global_step} of {cfg.steps}"
    if exported:
        return f"interrupted {at}; exported {exported}; resume=last goes on"
    return f"{cfg.name} was stopped by a signal {at}{kept_checkpoint(run.folder)}"


def _quiet_libraries() -> None:
    workers, mode = "not have many workers", "in eval mode at the start"
    for text in (workers, mode, "LeafSpec", "Experiment logs directory", "`srun` command"):
        warnings.filterwarnings("ignore", f".*{text}.*")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    import datasets

    datasets.disable_progress_bars()
