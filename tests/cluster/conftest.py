"""A real Slurm of two nodes on this machine, on loopback, for as long as the tests take."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm import Slurm

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{second}] CPUs=8 RealMemory=8000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
"""


def _ports(count: int) -> list[int]:
    """Free ones that follow each other."""
    for first in range(26800, 60000, 10):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return list(range(first, first + count))
    raise RuntimeError("no free ports")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    missing = [command for command in NEEDED if shutil.which(command) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"no Slurm that can be started here (missing: {', '.join(missing) or 'root'}); make test-cluster")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("run", "log", "state", "n1", "n2"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    port, first, second = _ports(3)
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(folder=folder, host=host, port=port, first=first, second=second))
    (folder / "gres.conf").write_text("NodeName=n[1-2] Name=gpu File=/dev/tty[1-2]\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    environment |= {"SLURM_CONF": str(config), "MASTER_ADDR": "127.0.0.1"}
    started = Slurm(folder, environment)
    begun: list[Path] = []
    try:
        files = [f"--{name}-file={folder}/{place}" for name, place in (("key", "munge.key"), ("pid", "run/munged.pid"))]
        files += [f"--log-file={folder}/log/munged.log", f"--seed-file={folder}/run/munge.seed"]
        begun.append(folder / "run/munged.pid")
        started.run("munged", "--force", f"--socket={folder}/run/munge.sock", *files)
        begun.append(folder / "run/slurmctld.pid")
        started.run("slurmctld")
        for node in ("n1", "n2"):
            begun.append(folder / f"run/slurmd-{node}.pid")
            started.run("slurmd", "-N", node)
        deadline = time.monotonic() + 60
        while started.run("sinfo", "--noheader", "--format=%t %D").split() != ["idle", "2"]:
            assert time.monotonic() < deadline, started.run("sinfo")
            time.sleep(0.5)
        yield started
    finally:
        if (folder / "run/slurmctld.pid").exists():
            subprocess.run(["scancel", "--state=RUNNING"], env=environment, check=False)
            subprocess.run(["scancel", "--state=PENDING"], env=environment, check=False)
            time.sleep(2)
        for file in reversed(begun):
            if file.is_file():
                os.kill(int(file.read_text()), signal.SIGTERM)
