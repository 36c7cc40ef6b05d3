"""Commands as a user gives them, run within the tests' process."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fststyle.cli import main

#: A run of a second or less.
SMALL = (
    "encoder=random",
    "encoder.widths=[4,6,8,10,12]",
    "network.width=4",
    "network.residual_blocks=1",
    "data.size=32",
    "data.workers=0",
    "trainer.accelerator=cpu",
    "calibration_photographs=8",
    "task.schedule=none",  # runs that are resumed with more steps are compared with longer ones
)


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Run there, and undo what a command that is a process of its own may leave behind."""
    root = logging.getLogger()
    before, argv, handlers, level = Path.cwd(), sys.argv, root.handlers[:], root.level
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.argv = argv
        os.environ.pop("HYDRA_FULL_ERROR", None)
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


def train(folder: Path, *words: str) -> int:
    folder.mkdir(exist_ok=True)
    with in_folder(folder):
        return main(["train", *words])
