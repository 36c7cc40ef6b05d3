"""Whether a run that is killed again and again ends with the bits of one that nobody touched.

    python scripts/checks/resume.py [--cases workers ranks …] [--kills 20] [--steps 200] [--json FILE]

Each case is trained once in one go, and once with a SIGKILL at so many random points, after each of
which it goes on with ``resume=auto``. Network, average, optimizer and the exported file are compared
bit for bit. Processes are forked from this one, which has imported everything, so that a start takes
a second and not ten.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytorch_lightning  # noqa: F401  (imported before the forks)
import torch
from safetensors.torch import load_file
from skimage import data as pictures

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fststyle.cli.train
import fststyle.training.callbacks
import fststyle.training.tasks
from fststyle.cli import main as fststyle
from fststyle.images import save_image
from fststyle.training.checkpoints import newest_checkpoint
from measuring import Figures, Names, measure

#: A network small enough for 20 steps a second, and little beside the steps.
SMALL = (
    *("encoder=random", "encoder.widths=[4,6,8,10,12]", "network.width=4", "network.residual_blocks=1", "threads=1"),
    *("data.size=32", "data.held_out=4", "calibration_photographs=8", "style.image=painting.png", "style.size=96"),
    *("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.val_check_interval=50"),
    *("callbacks.export.dtype=float32", "callbacks.previews.count=0", "callbacks.diagnostics=null"),
    "callbacks.checkpoints.every=7",
)
FOLDER = ("data=folder", "data.source.path=photographs")
#: Case to the options that it is run with, and its ranks.
CASES: dict[str, tuple[tuple[str, ...], int]] = {
    "workers": ((*FOLDER, "data.workers=2"), 1),
    "no workers": ((*FOLDER, "data.workers=0"), 1),
    "ranks": ((*FOLDER, "data.workers=1", "trainer=ddp"), 2),
    "parquet": (("data=parquet", "data.source.files=photographs.parquet", "data.workers=2"), 1),
    "shards": (("data=webdataset", "data.source.files=shards/*.tar", "data.workers=2", "data.buffer=5"), 1),
    "generated": (("data=generated", "data.workers=2"), 1),
}


def make_data(folder: Path) -> None:
    """Thirty small photographs, cut from one of scikit-image's, as a folder, a parquet file and tar shards."""
    rng = np.random.default_rng(0)
    source = np.asarray(pictures.astronaut())
    save_image(source[:96, 100:228].copy(), folder / "painting.png")
    photographs = folder / "photographs"
    photographs.mkdir()
    for index in range(30):
        top, left = rng.integers(0, 512 - 96, 2)
        save_image(source[top : top + 96, left : left + 80].copy(), photographs / f"{index:02d}.jpg")
    files = sorted(photographs.iterdir())
    rows = {"image": [{"bytes": file.read_bytes(), "path": file.name} for file in files]}
    features = datasets.Features({"image": datasets.Image(decode=False)})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / "photographs.parquet"))
    (folder / "shards").mkdir()
    for shard in range(3):
        with tarfile.open(folder / "shards" / f"{shard}.tar", "w") as tar:
            for file in files[shard::3]:
                tar.add(file, file.name)


def start(words: list[str], ranks: int, log: Path) -> list[multiprocessing.Process]:
    """The command in forked processes, one per rank, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1], "TORCHELASTIC_RUN_ID": "none"}
    sizes = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_WORLD_SIZE": 1, "GROUP_RANK": 0}
    started = []
    for rank in range(ranks):
        torchrun = {**address, **sizes, "RANK": rank, "LOCAL_RANK": rank, "ROLE_RANK": rank} if ranks > 1 else {}
        environment = {key: str(value) for key, value in torchrun.items()}
        started.append(multiprocessing.get_context("fork").Process(target=_run, args=(words, environment, log)))
        started[-1].start()
    return started


def _run(words: list[str], environment: dict[str, str], log: Path) -> None:
    os.setsid()  # to be killed with its workers
    os.environ.update(environment)
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(fststyle(["train", *words]))


def end(processes: list[multiprocessing.Process]) -> bool:
    """Kill what still runs, workers included; returns whether anything did."""
    running = [process for process in processes if process.is_alive()]
    for process in running:
        os.killpg(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
    for process in processes:
        process.join()
    return bool(running)


def in_one_go(words: list[str], ranks: int, log: Path) -> float:
    """Train without a kill; returns the seconds."""
    began = time.monotonic()
    for process in (processes := start(words, ranks, log)):
        process.join(600)
    if end(processes) or any(process.exitcode for process in processes):
        raise SystemExit(f"the run failed:\n{log.read_text()[-2000:]}")
    return time.monotonic() - began


def killed(words: list[str], ranks: int, log: Path, told: Path, kills: int, chance: random.Random, lasts: float) -> int:
    """Train with kills at random points of the time that it trains, then to the end; returns the kills that struck.

    ``told``: the run's own log.
    """
    struck = 0
    for _ in range(kills):
        processes, before = start(words, ranks, log), _trainings(told)
        while _trainings(told) == before and any(process.is_alive() for process in processes):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 2 * lasts / (kills + 1)))
        struck += end(processes) and told.is_file()
    in_one_go(words, ranks, log)
    return struck


def _trainings(log: Path) -> int:
    return log.read_text().count("training ") if log.is_file() else 0


def contents(run: Path) -> dict[str, Any]:
    """What a run ended with, by name: of its newest training checkpoint, and of the model file."""
    state = torch.load(newest_checkpoint(run), weights_only=True)  # type: ignore[arg-type]
    parts = {
        "network": state["state_dict"],
        "optimizer": state["optimizer_states"],
        "callbacks": {key: value for key, value in state["callbacks"].items() if "Average" in key},
        "exported": load_file(next(run.glob("*.safetensors"))),
    }
    assert all(parts.values())
    return {"global_step": state["global_step"], **flat(parts)}


def flat(node: Any, name: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one dictionary, its keys put together of theirs."""
    if isinstance(node, dict | list | tuple):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return {key: value for k, v in items for key, value in flat(v, f"{name} {k}".lstrip()).items()}
    return {name: node}


def resume(cases: Names = tuple(CASES), kills: int = 20, steps: int = 200, seed: int = 0) -> Figures:
    """Every case in one go and with kills; ``seed``: of the points in time."""
    chance, before = random.Random(seed), Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        os.environ["HF_DATASETS_CACHE"] = place
        datasets.config.HF_DATASETS_CACHE = Path(place) / "cache"
        make_data(Path(place))
        for case in cases:
            own, ranks = CASES[case]
            words, log = [*SMALL, f"steps={steps}", *own], Path("log.txt")
            seconds = in_one_go([*words, "output=whole"], ranks, log)
            # Before the first step a run starts up; a single step tells how long that takes.
            seconds -= in_one_go([*words, "output=short", "steps=1"], ranks, log)
            words += ["output=killed", "resume=auto"]
            struck = killed(words, ranks, log, Path("killed/train.log"), kills, chance, max(1.0, seconds))
            whole, other = contents(Path("whole")), contents(Path("killed"))
            assert whole.keys() == other.keys()
            differing = [name for name in whole if not np.array_equal(whole[name], other[name])]
            yield case, {"kills": struck, "asked": kills, "differing": differing}
            for run in ("whole", "short", "killed"):
                shutil.rmtree(run)
            log.unlink()
        os.chdir(before)


if __name__ == "__main__":
    found, _ = measure(__doc__, {"resume": resume})
    sys.exit(any(case["differing"] for case in found["resume"].values()))
