"""A process's place in a run on a cluster (ranks, nodes), and preemption."""

from __future__ import annotations

import logging
import os
import subprocess
import time

log = logging.getLogger(__name__)

#: The exit code of a run that a signal stopped after it saved a checkpoint: started again, it resumes (EX_TEMPFAIL).
PREEMPTED = 75
#: Seconds that a requeued process waits for Slurm to end it.
WAIT = 120


class Preempted(KeyboardInterrupt):
    """A run that a signal stopped after it saved a checkpoint."""

    exit_code = PREEMPTED


def nodes() -> int:
    """The nodes that srun or torchrun started this run on; 1 without them."""
    if "GROUP_WORLD_SIZE" in os.environ:  # torchrun
        return int(os.environ["GROUP_WORLD_SIZE"])
    return int(os.environ.get("SLURM_NNODES", 1)) if _of_slurm() else 1


def ranks_per_node() -> int | str:
    """The processes that srun or torchrun started on each node; ``auto``, one per GPU, without them."""
    if "LOCAL_WORLD_SIZE" in os.environ:  # torchrun
        return int(os.environ["LOCAL_WORLD_SIZE"])
    return int(os.environ.get("SLURM_NTASKS_PER_NODE", 1)) if _of_slurm() else "auto"


def launched() -> bool:
    """Whether srun or torchrun starts the ranks of this run; else the command does it itself."""
    return "LOCAL_WORLD_SIZE" in os.environ or _of_slurm()


def rank() -> int:
    """This process among those of its run."""
    known = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))  # torchrun, the command, srun
    return int(next((value for value in known if value is not None), 0))


def _of_slurm() -> bool:
    """Whether Slurm starts the processes of this run."""
    if "SLURM_NTASKS" not in os.environ or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return False
    if "SLURM_STEP_ID" not in os.environ and int(os.environ["SLURM_NTASKS"]) > 1:
        raise ValueError(
            f"this job has {os.environ['SLURM_NTASKS']} tasks, but one process was started; start it with srun"
        )
    return True


def requeue() -> bool:
    """Ask Slurm to queue this job again; false where there is no job, or Slurm refuses."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("job %s could not be queued again: %s", job, error)
        return False
    if done.returncode:
        log.warning("job %s could not be queued again: %s", job, done.stderr.strip())
        return False
    log.warning("job %s is queued again", job)
    return True


def requeued() -> bool:
    """Whether Slurm has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0


def wait_for_the_end() -> None:
    """Let Slurm end a requeued process: one that ended by itself would count as failed."""
    time.sleep(WAIT)
