"""What a cluster's environment tells a process, and what it is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fststyle import cluster

KNOWN = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*KNOWN, *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, **environment: int | str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))


def test_alone_it_is_one_node_with_all_its_devices() -> None:
    assert (cluster.nodes(), cluster.ranks_per_node(), cluster.rank()) == (1, "auto", 0)
    assert not cluster.requeued()
    assert not cluster.requeue()
    assert not cluster.launched()


def test_torchrun_tells_nodes_ranks_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, RANK=5, LOCAL_RANK=1, LOCAL_WORLD_SIZE=4, GROUP_WORLD_SIZE=2, SLURM_NNODES=9, SLURM_NTASKS=9)
    assert (cluster.nodes(), cluster.ranks_per_node(), cluster.rank()) == (2, 4, 5)
    assert cluster.launched()


def test_srun_tells_nodes_ranks_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, SLURM_NTASKS=6, SLURM_NNODES=3, SLURM_NTASKS_PER_NODE=2, SLURM_PROCID=4, SLURM_STEP_ID=0)
    assert (cluster.nodes(), cluster.ranks_per_node(), cluster.rank()) == (3, 2, 4)
    assert cluster.launched()


def test_a_shell_within_slurm_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, SLURM_NTASKS=6, SLURM_NNODES=3, SLURM_JOB_NAME="interactive")
    assert (cluster.nodes(), cluster.ranks_per_node()) == (1, "auto")


def test_many_tasks_without_srun_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, SLURM_NTASKS=6, SLURM_NNODES=3)
    with pytest.raises(ValueError, match="this job has 6 tasks, but one process was started; start it with srun"):
        cluster.nodes()


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that notes what it was asked, and fails for job 7."""
    command = tmp_path / "scontrol"
    command.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nif [ "$2" = 7 ]; then echo "no such job" >&2; exit 1; fi\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "asked"


def test_a_job_is_queued_again(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, SLURM_JOB_ID=12)
    assert cluster.requeue()
    given(monkeypatch, SLURM_JOB_ID=15, SLURM_ARRAY_JOB_ID=13, SLURM_ARRAY_TASK_ID=2)
    assert cluster.requeue()
    assert scontrol.read_text() == "requeue 12\nrequeue 13_2\n"
    given(monkeypatch, SLURM_RESTART_COUNT=1)
    assert cluster.requeued()


def test_a_job_that_slurm_does_not_queue_again_says_why(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given(monkeypatch, SLURM_JOB_ID=7)
    assert not cluster.requeue()
    assert "job 7 could not be queued again: no such job" in caplog.text
    given(monkeypatch, PATH=str(scontrol.parent / "nowhere"))
    assert not cluster.requeue()
