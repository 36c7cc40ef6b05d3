"""Where an optimisation writes: the picture and what lies beside it, and what it may not write over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fststyle.checks import check_path
from fststyle.images import check_ending, check_writable
from fststyle.optimization.optimize import Optimization
from fststyle.resources import user_path

_BEGIN_ANEW = "replace it with overwrite=true, or write elsewhere: output=FILE"


def state_file(target: Path) -> Path:
    """What an interrupted run leaves to go on from."""
    return target.with_name(f"{target.name}.state")


def snapshot_file(target: Path, row: int) -> Path:
    """The picture at an iteration, counted over all sizes."""
    return target.with_name(f"{target.stem}_{row:05d}.png")


def check_target(
    target: Path,
    sources: Mapping[str, str | None],
    trace: str | None = None,
    snapshots: bool = False,
    overwrite: bool = False,
    resume: bool = False,
) -> None:
    """Refuse a result that cannot be written, or that would write over what no run of this command wrote.

    Args:
        target: the picture.
        sources: option to picture file that the run reads.
        trace: ``csv`` or ``tensorboard``, if a trace is written beside it.
        snapshots: whether pictures are kept on the way.
        overwrite: what an earlier run wrote there may be replaced.
        resume: what the interrupted run wrote there is gone on with.

    Raises:
        ValueError: what is there, and what to do.
    """
    check_ending(target)
    for file in (target, state_file(target), *([snapshot_file(target, 99999)] if snapshots else [])):
        check_path(file, "output")
    check_writable(target.parent)
    if target.is_dir():
        raise ValueError(f"{target}: is a folder; expected a file to write: output=FILE")
    if target.exists() and not (overwrite or resume):
        raise ValueError(f"{target} exists already; {_BEGIN_ANEW}")
    for key, source in sources.items():
        if source and target.exists() and user_path(source).exists() and target.samefile(user_path(source)):
            raise ValueError(f"{target}: is {key} itself; give another name for the result: output=FILE")
    state, table, events = state_file(target), target.with_suffix(".csv"), target.with_suffix(".tensorboard")
    if state.exists():
        Optimization.load(state)  # refuses any other file
    if trace == "csv" and table.exists() and not _is_trace(table):
        raise ValueError(f"{table}: is no trace of a run; write elsewhere: output=FILE")
    if overwrite or resume:
        return
    if state.exists():
        raise ValueError(f"{state} is what an interrupted run left; go on with resume=true, or {_BEGIN_ANEW}")
    beside = [path for key, path in (("csv", table), ("tensorboard", events)) if trace == key and path.exists()]
    beside += [path for path in sorted(target.parent.iterdir()) if snapshots and _is_snapshot(path, target)]
    if beside:
        raise ValueError(f"{', '.join(map(str, beside[:3]))} exists already; {_BEGIN_ANEW}")


def _is_trace(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return {"iteration", "seconds"} <= set(file.readline().decode().strip().split(","))
    except (OSError, UnicodeDecodeError):
        return False


def _is_snapshot(path: Path, target: Path) -> bool:
    number = path.stem.removeprefix(f"{target.stem}_")
    return number.isdecimal() and path == snapshot_file(target, int(number))
