"""Commands as a user gives them, run within the tests' process."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fststyle.cli import main
from fststyle.images import save_image
from fststyle.model_file import save_model_file
from fststyle.networks.transform import TransformNet

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

#: Commands from picture to picture in such a folder as ``pictures_and_style`` makes, and how their results end.
STYLIZE = ["stylize", "--style", "wave.safetensors", "--backend", "torch"]
COMMANDS = [
    (STYLIZE, "_wave"),
    (["upscale", "--backend", "torch"], "_x4"),
    (["swap", "--style-image", "a.png", "--size", "24", "--style-size", "24"], "_a"),
]


def pictures_and_style(folder: Path, photograph: np.ndarray, network: TransformNet) -> Path:
    """A folder to be in: two pictures, one of them in a folder of its own, and a style."""
    (folder / "more").mkdir(parents=True)
    for top, name in enumerate(("a.png", "more/b.png")):
        save_image(photograph[20 + top : 44 + top, 100:133].copy(), folder / name)
    save_model_file(folder / "wave.safetensors", network, {"kind": "style", "name": "wave"})
    return folder


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
