"""Several runs of one command (``-m``): each has a folder of its own, and a table at the end shows them all."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fststyle.config import COMMAND, FAILED
from fststyle.images import check_folder

log = logging.getLogger(__name__)


class Refused(BaseException):
    """A multirun's folder that cannot be used. Hydra would swallow any other exception of a hook."""


class Folder(Callback):
    """Hydra's hook at the beginning of a multirun: Hydra itself writes over what is in the folder."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        try:
            folder = check_folder(config.hydra.sweep.dir, "hydra.sweep.dir")
        except ValueError as error:
            raise Refused(str(error)) from None
        if folder.is_dir() and any(folder.iterdir()) and not _is_multirun(folder):
            raise Refused(
                f"{folder}: holds files that no multirun wrote; expected an empty folder, a new one, or that of a "
                "multirun; give another hydra.sweep.dir="
            )


class Sweep(Folder):
    """And which folder that is, in the process that was started."""

    #: The folder of the one that began last.
    folder: Path | None = None
    #: Those folders, of it and of the two above, that it made.
    made: tuple[Path, ...] = ()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        super().on_multirun_start(config)
        Sweep.folder = Path(config.hydra.sweep.dir)
        above = (Sweep.folder, *list(Sweep.folder.parents)[:2])  # runs/multirun/TIME
        Sweep.made = tuple(folder for folder in above if not folder.exists())


def _is_multirun(folder: Path) -> bool:
    """Whether Hydra has written a multirun's configuration there: only that holds Hydra's own, and is of fststyle."""
    try:
        text = (folder / "multirun.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return text.startswith("hydra:") and "app_name: fststyle" in text


def forget() -> None:
    """Remove the folder of a multirun that was refused before its first run."""
    folder = Sweep.folder
    if folder not in Sweep.made or [path.name for path in folder.glob("*")] not in ([], ["multirun.yaml"]):
        return
    (folder / "multirun.yaml").unlink(missing_ok=True)
    for empty in Sweep.made:
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()


def is_one() -> bool:
    """Whether this is one run of a multirun."""
    config = HydraConfig.get()
    return bool(config.mode == RunMode.MULTIRUN and "sweep" in config.callbacks)


def output_folder() -> str:
    """Of this run of a multirun; unresolved, for it is a name already, which may have a ``${`` in it."""
    runtime: Any = OmegaConf.to_container(HydraConfig.get().runtime)
    return str(runtime["output_dir"])


def begin(command: str) -> None:
    """Keep the command that makes this run of a multirun alone."""
    # Where another process runs it, on a cluster, nobody has set this up.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    config = HydraConfig.get()
    folder = Path(output_folder())
    overrides: Any = OmegaConf.to_container(config.overrides.task)  # unresolved: as they are typed
    words = ["fststyle", command, *overrides, f"output={folder}", "resume=auto"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COMMAND).write_text(shlex.join(words) + "\n", encoding="utf-8", errors="surrogateescape")
    forget_failure(folder)


def forget_failure(folder: Path) -> None:
    """Remove what ``fail`` has left of an earlier try."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if (folder / FAILED).read_text(encoding="utf-8").startswith(("refused: ", "failed: ")):
            (folder / FAILED).unlink()


def fail(error: Exception) -> None:
    """Keep why this run of a multirun failed; the others go on."""
    refused = isinstance(error, (ValueError, OSError))
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    log.error("%s: %s", "error" if refused else "failed", text)
    folder = Path(output_folder())
    (folder / FAILED).write_text(
        f"{'refused' if refused else 'failed'}: {text}\n", encoding="utf-8", errors="backslashreplace"
    )


def report(folder: Path) -> int:
    """Print the table of a multirun, and how to repeat what failed; returns the exit code.

    0 where all are done, 2 where all were refused, else 1.
    """
    from fststyle.evaluation.multirun import rows, table

    runs = rows(folder)
    print("\n".join(table(runs)))
    missing = [run for run in runs if run.metadata is None]
    for run in missing:
        again = (run.folder / COMMAND).read_text("utf-8", "surrogateescape").strip()
        print(f"{run.name}: {run.reason}\n  again: {again}")
    if not missing:
        return 0
    return 2 if all(run.refused for run in runs) else 1
