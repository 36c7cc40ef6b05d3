"""Training under a real Slurm: many ranks, a job that is stopped and goes on, a style per job."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from commands import SMALL
from fststyle.images import save_image
from fststyle.model_file import read_metadata
from fststyle.training.checkpoints import newest_checkpoint, step_of, training_checkpoints
from slurm import Slurm

JOB = Path(__file__).resolve().parents[2] / "scripts" / "slurm" / "train.sbatch"
#: Two ranks, on a node each.
TWO = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1", "--time=10")


@pytest.fixture(autouse=True)
def _found(slurm: Slurm) -> None:
    """The command, wherever the tests run from."""
    slurm.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def desk(tmp_path: Path, photographs: Path, astronaut: np.ndarray) -> Path:
    shutil.copytree(photographs, tmp_path / "photographs")
    save_image(astronaut[:96, 100:228].copy(), tmp_path / "painting.png")
    return tmp_path


WORDS = ("style.image=painting.png", "style.size=96", "data=folder", "data.source.path=photographs", *SMALL)


def log_of(desk: Path, job: str) -> str:
    return (desk / f"fststyle-{job}.out").read_text()


def test_a_job_on_two_nodes_is_stopped_queued_again_and_ends_with_the_same_weights(slurm: Slurm, desk: Path) -> None:
    words = (
        *WORDS,
        "steps=300",
        "callbacks.export.dtype=float32",
        "callbacks.checkpoints.every=1000",
        "callbacks.diagnostics=null",
    )
    whole = slurm.submit(*TWO, str(JOB), *words, "output=whole", cwd=desk)
    slurm.until(lambda: slurm.state(whole) not in ("PENDING", "RUNNING", "COMPLETING"), "the whole run")
    assert slurm.state(whole) == "COMPLETED", log_of(desk, whole)
    assert read_metadata(desk / "whole" / "painting.safetensors")["ranks"] == 2

    job = slurm.submit(*TWO, str(JOB), *words, "output=stopped", cwd=desk)
    csv = desk / "stopped" / "csv" / "metrics.csv"
    slurm.until(lambda: csv.is_file() and len(csv.read_text().splitlines()) > 3, "some steps")
    slurm.run("scancel", "--signal=USR1", job)  # as before the end of its time
    slurm.until(lambda: "is queued again" in log_of(desk, job), "to be queued again")
    stopped = [step_of(state) for state in training_checkpoints(desk / "stopped")]
    assert len(stopped) == 1
    assert 0 < stopped[0] < 300
    slurm.until(lambda: slurm.state(job) not in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED"), "the second part")
    assert slurm.state(job) == "COMPLETED", log_of(desk, job)
    assert f"from step {stopped[0]} on" in log_of(desk, job)

    first, second = (load_file(desk / run / "painting.safetensors") for run in ("whole", "stopped"))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_a_job_that_is_cancelled_saves_and_is_not_queued_again(slurm: Slurm, desk: Path) -> None:
    job = slurm.submit(*TWO, str(JOB), *WORDS, "steps=1000000", "output=cancelled", cwd=desk)
    csv = desk / "cancelled" / "csv" / "metrics.csv"
    slurm.until(lambda: csv.is_file() and len(csv.read_text().splitlines()) > 1, "some steps")
    slurm.run("scancel", job)
    slurm.until(lambda: slurm.state(job) == "CANCELLED", "to end")
    assert newest_checkpoint(desk / "cancelled") is not None, log_of(desk, job)
    assert "is queued again" not in log_of(desk, job)


def test_a_style_per_job_of_which_one_fails(slurm: Slurm, desk: Path) -> None:
    styles = desk / "mine" / "style"
    styles.mkdir(parents=True)
    for name in ("rose", "lily", "broken", "iris"):
        painting = "nowhere.png" if name == "broken" else desk / "painting.png"
        (styles / f"{name}.yaml").write_text(f"defaults:\n  - custom\n\nname: {name}\nimage: {painting}\nsize: 64\n")
    resources = ("gpus_per_node=0", "mem_gb=1", "cpus_per_task=1", "timeout_min=10")
    launcher = ("hydra/launcher=slurm", *(f"hydra.launcher.{setting}" for setting in resources))
    data = [word for word in WORDS if not word.startswith("style.")]
    words = ["--config-dir", "mine", "-m", "style=rose,lily,broken,iris", *data, "steps=2", *launcher]
    done = subprocess.run(
        [sys.executable, "-m", "fststyle", "train", *words],
        **{"env": slurm.environment, "cwd": desk, "capture_output": True, "text": True, "timeout": 280, "check": False},
    )
    assert done.returncode == 1, done.stderr
    table = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    for name in ("rose", "lily", "iris"):
        assert table[name][1] == "2"
        assert read_metadata(table[name][-1] if Path(table[name][-1]).is_absolute() else desk / table[name][-1])
    assert "broken: refused: nowhere.png: no such file" in done.stdout
    assert "again: fststyle train style=broken" in done.stdout
