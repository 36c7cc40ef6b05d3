"""What the benchmark and the checks share: command line, timing in turn, the machine's limits, memory."""

from __future__ import annotations

import argparse
import inspect
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import torch
from skimage import data as pictures
from torch.utils.flop_counter import FlopCounterMode

from fststyle.evaluation.figures import write_json
from fststyle.images import resize_pixels

#: Options of a check: files, numbers of pixels, names, a folder that need not be given.
Files, Sizes, Names, Folder = Sequence[Path], Sequence[int], Sequence[str], Path | None
#: What a check finds, by name, one after the other.
Figures = Iterator[tuple[str, Any]]
Check = Callable[..., Figures]
Measured = tuple[dict[str, dict[str, Any]], Path | None]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Row = dict[str, Any]
#: For processes that run ``python -m fststyle``: they import the same package as this one.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def show_json(name: str, figures: Any) -> None:
    """Print figures in a line."""
    print(f"{name}: {json.dumps(figures)}", flush=True)


def measure(doc: str | None, checks: Mapping[str, Check], show: Callable[[str, Any], None] = show_json) -> Measured:
    """Run the checks that the command line names; their parameters are its options.

    ``size: Sequence[int] = (256,)`` becomes ``--size 256 512``; where an option is not given each check has its own
    default. A parameter ``output`` is the folder of ``-o``, which exists then.

    Args:
        doc: describes the script.
        checks: by name; where there is only one, it need not be named.
        show: prints figures by name, as soon as a check has them.

    Returns:
        Check to name to figures, which ``--json FILE`` also writes; and the folder of ``-o``.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if len(checks) > 1:
        parser.add_argument("checks", nargs="+", choices=checks)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="write pictures and pages there")
    kinds = {option: kind for check in checks.values() for option, kind in get_type_hints(check).items()}
    for option in sorted(kinds.keys() - {"return", "output"}):
        kind, flag = kinds[option], f"--{option.replace('_', '-')}"
        told = ", ".join(name for name, check in checks.items() if option in inspect.signature(check).parameters)
        if kind is bool:
            parser.add_argument(flag, action="store_true", default=None, help=f"of {told}")
        else:
            several = {"nargs": "+", "action": "extend"} if get_origin(kind) is Sequence else {}
            parser.add_argument(flag, type=(get_args(kind) or (kind,))[0], help=f"of {told}", **several)
    chosen = vars(parser.parse_args())
    arguments = {}
    for name in chosen.get("checks", checks):
        parameters = inspect.signature(checks[name]).parameters.values()
        arguments[name] = {each.name: chosen[each.name] for each in parameters if chosen[each.name] is not None}
        for each in parameters:
            if each.default is each.empty and each.name not in arguments[name]:
                parser.error(f"{name} needs --{each.name.replace('_', '-')}")
    if chosen["output"]:
        chosen["output"].mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {name: {} for name in arguments}
    for check, own in arguments.items():
        for name, figures in checks[check](**own):
            found[check][name] = figures
            show(name, figures)
    if chosen["json"]:
        write_json(chosen["json"], found)
    return found, chosen["output"]


def in_turn(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, run one after the other, again and again, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            seconds = timed(run)
            if repeat:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def timed(run: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def matmul_peak(dtype: torch.dtype, side: int = 4096) -> float:
    """Operations per second of a matrix product, the best of several; of smaller ones where it would take minutes."""

    def best(side: int) -> float:
        a = torch.randn(side, side, device=DEVICE).to(dtype)
        return 2 * side**3 / min(in_turn({str(n): lambda: a @ a for n in range(3)}, 3).values())

    small = best(side // 8)  # a processor without instructions for a type is a hundred times slower in it
    return small if 2 * side**3 / small > 5 else best(side)


def peaks() -> dict[str, float]:
    """The machine's limit by precision."""
    kinds = ("float32", "bfloat16", *(["float16"] if DEVICE == "cuda" else []))
    return {kind: matmul_peak(getattr(torch, kind)) for kind in kinds}


def operations(run: Callable[[], object]) -> int:
    """Multiplications and additions of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def rows(medians: Mapping[str, float], work: Mapping[str, int], images: int = 1) -> list[Row]:
    """What each took, by name; its operations, or those of ``reference``, over the peak of the precision named."""
    found, limits = [], peaks()
    for name, seconds in medians.items():
        speed = work.get(name, work["reference"]) / seconds
        peak = next(limits[kind] for kind in ("bfloat16", "float16", "float32") if kind in f"{name} float32")
        row = {"what": name, "seconds": round(seconds, 4), "times": round(medians["reference"] / seconds, 2)}
        found.append({**row, "images/s": round(images / seconds, 2), "of peak": round(speed / peak, 3)})
    return found


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module in a new process, which has imported only what that module needs."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_memory(process: int | str = "self") -> float:
    """The most memory that a process, by its number, has had so far, in GiB (on Linux)."""
    # Not getrusage's: what starts a process hands its own peak on.
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0) / 2**20


def photograph(height: int, width: int) -> np.ndarray:
    """Four photographs side by side and one below the other, at this size."""
    four = [pictures.astronaut(), pictures.coffee(), pictures.chelsea(), pictures.rocket()]
    squares = [resize_pixels(picture[:, : len(picture)], 512, 512) for picture in four]
    quad = np.vstack([np.hstack(squares[:2]), np.hstack(squares[2:])])
    return resize_pixels(np.ascontiguousarray(quad), height, width)
