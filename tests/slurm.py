"""A Slurm that the tests started."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Slurm:
    """Its commands find it by the environment."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, cwd: Path | None = None, timeout: float = 60) -> str:
        """A command's output."""
        done = subprocess.run(
            words, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def state(self, job: str) -> str:
        """Such as PENDING, RUNNING, COMPLETED, FAILED; of a job array the tasks' states together."""
        shown = self.run("scontrol", "show", "job", job)
        return " ".join(word.partition("=")[2] for word in shown.split() if word.startswith("JobState="))

    def submit(self, *words: str, cwd: Path) -> str:
        """Hand in a job; returns its number."""
        return self.run("sbatch", "--parsable", *words, cwd=cwd).strip()

    def until(self, done: Callable[[], bool], what: str, patience: float = 240) -> None:
        """Wait; a job that was queued again is begun soon, not after Slurm's two minutes."""
        deadline = time.monotonic() + patience
        waiting: dict[str, float] = {}
        while not done():
            assert time.monotonic() < deadline, f"{what}: not after {patience} s; {self.run('squeue')}"
            for line in self.run("squeue", "--noheader", "--format=%A %t %r").splitlines():
                job, state, reason = line.split(maxsplit=2)
                if (state, reason) != ("PD", "BeginTime"):
                    continue
                # The nodes do not take a job that ended within the same second.
                if time.monotonic() > waiting.setdefault(job, time.monotonic()) + 4:
                    self.run("scontrol", "update", f"jobid={job}", "StartTime=now")
            time.sleep(0.5)
