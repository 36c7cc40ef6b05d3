"""Whether a run that is killed again and again ends with the bits of one that nobody touched.

    python scripts/check_resume.py [--cases workers ranks …] [--kills 20] [--steps 200] [--json FILE]

Each case is trained once in one go, and once with a SIGKILL at so many random points, after each of
which it goes on with ``resume=auto``. Network, average, optimizer and the exported file are compared
bit for bit. Processes are forked from this one, which has imported everything, so that a start takes
a second and not ten.
"""

from __future__ import annotations

import argparse
import json
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytorch_lightning  # noqa: F401  (imported before the forks)
import torch
from safetensors.torch import load_file
from skimage import data as pictures

import fststyle.cli.train
import fststyle.training.callbacks
import fststyle.training.tasks
from fststyle.cli import main as fststyle
from fststyle.images import save_image
from fststyle.training.checkpoints import newest_checkpoint

#: A network small enough for 20 steps a second.
SMALL = (
    "encoder=random",
    "encoder.widths=[4,6,8,10,12]",
    "network.width=4",
    "network.residual_blocks=1",
    "data.size=32",
    "trainer.accelerator=cpu",
    "+trainer.enable_progress_bar=false",
    "trainer.val_check_interval=50",
    "calibration_photographs=8",
    "data.held_out=4",
    "threads=1",
    "callbacks.export.dtype=float32",
    "callbacks.previews.count=0",
    "callbacks.diagnostics=null",
    "callbacks.checkpoints.every=7",
)
#: Case to the options that it is run with, and its ranks.
CASES: dict[str, tuple[tuple[str, ...], int]] = {
    "workers": (("data=folder", "data.source.path=photographs", "data.workers=2"), 1),
    "no workers": (("data=folder", "data.source.path=photographs", "data.workers=0"), 1),
    "ranks": (("data=folder", "data.source.path=photographs", "data.workers=1", "trainer=ddp"), 2),
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
        port = free.getsockname()[1]
    started = []
    for rank in range(ranks):
        places = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "ROLE_RANK": rank}
        sizes = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_WORLD_SIZE": 1}
        torchrun = {**places, **sizes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
        process = multiprocessing.get_context("fork").Process(
            target=_run, args=(words, {key: str(value) for key, value in torchrun.items()} if ranks > 1 else {}, log)
        )
        process.start()
        started.append(process)
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


def killed(
    words: list[str], ranks: int, log: Path, folder: Path, kills: int, chance: random.Random, lasts: float
) -> int:
    """Train with kills at random points of the time that it trains, then to the end; returns the kills that struck."""
    struck = 0
    for _ in range(kills):
        processes = start(words, ranks, log)
        told, before = folder / "train.log", _trainings(folder)
        while _trainings(folder) == before and any(process.is_alive() for process in processes):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 2 * lasts / (kills + 1)))
        struck += end(processes) and told.is_file()
    in_one_go(words, ranks, log)
    return struck


def _trainings(folder: Path) -> int:
    log = folder / "train.log"
    return log.read_text().count("training ") if log.is_file() else 0


def same(a: Path, b: Path) -> list[str]:
    """What differs between two runs: names of tensors; empty where nothing does."""
    first, second = newest_checkpoint(a), newest_checkpoint(b)
    assert first is not None
    assert second is not None
    states = [torch.load(path, weights_only=True) for path in (first, second)]
    differing = []
    if [state["global_step"] for state in states] != [states[0]["global_step"]] * 2:
        differing.append("global_step")
    parts: tuple[tuple[str, Callable[[Any], dict[str, Any]]], ...] = (
        ("network", lambda state: state["state_dict"]),
        ("optimizer", lambda state: _flat(state["optimizer_states"])),
        ("callbacks", lambda state: _flat({k: v for k, v in state["callbacks"].items() if "Average" in k})),
    )
    for part, of in parts:
        one, other = (of(state) for state in states)
        assert one.keys() == other.keys()
        assert one
        differing += [f"{part} {name}" for name in one if not _equal(one[name], other[name])]
    one, other = (load_file(next(run.glob("*.safetensors"))) for run in (a, b))
    return differing + [f"exported {name}" for name in one if not torch.equal(one[name], other[name])]


def _equal(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def _flat(node: Any, name: str = "") -> dict[str, Any]:
    if isinstance(node, dict | list | tuple):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return {key: value for k, v in items for key, value in _flat(v, f"{name}.{k}").items()}
    return {name: node}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--seed", type=int, default=0, help="of the points in time")
    options.add_argument("--json", type=Path, help="write the figures there")
    chosen = options.parse_args()
    chance = random.Random(chosen.seed)
    figures, failed, before = {}, 0, Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        os.environ["HF_DATASETS_CACHE"] = place
        datasets.config.HF_DATASETS_CACHE = Path(place) / "cache"
        make_data(Path(place))
        for case in chosen.cases:
            words, ranks = CASES[case]
            words = ("style.image=painting.png", "style.size=96", *SMALL, f"steps={chosen.steps}", *words)
            log = Path("log.txt")
            seconds = in_one_go([*words, "output=whole"], ranks, log)
            # Before the first step a run starts up; twenty steps tell how long that takes.
            started = in_one_go([*words, "output=short", "steps=1"], ranks, log)
            folder = Path("killed")
            struck = killed(
                [*words, f"output={folder}", "resume=auto"],
                *(ranks, log, folder, chosen.kills, chance, max(1.0, seconds - started)),
            )
            differing = same(Path("whole"), folder)
            figures[case] = {"kills": struck, "asked": chosen.kills, "differing": differing}
            failed += bool(differing)
            told = f"differ: {', '.join(differing[:5])}" if differing else "bitwise equal"
            print(f"{case}: {struck} of {chosen.kills} kills struck; {told}", flush=True)
            for run in ("whole", "short", "killed"):
                shutil.rmtree(run)
            log.unlink()
        os.chdir(before)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
