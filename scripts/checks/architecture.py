"""How much of the package has to be read.

    python scripts/checks/architecture.py paths [--functions]
    python scripts/checks/architecture.py lines

``paths``: the files of the package in which a function is entered, not counting what imports run: for a stylised file,
by each backend; from a batch to the loss of a style's task, with the default settings; from an override to its
constructor. ``lines``: of code (without blank lines, comments and docstrings) and in all, by folder, and the files of
more than 400.
"""

from __future__ import annotations

import ast
import contextlib
import io
import sys
import tempfile
import threading
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fststyle.cli import main
from fststyle.config import compose, instantiate
from fststyle.images import save_image
from fststyle.losses import measure_normalizers
from measuring import Figures, measure, photograph

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = f"{ROOT / 'fststyle'}/"
MOST_LINES = 400


def entered(run: Callable[[], Any]) -> dict[str, list[str]]:
    """The package's files that a call enters a function of, in any thread, and those functions."""
    found: dict[str, list[str]] = defaultdict(list)

    def see(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and not importing(frame):
            functions = found[code.co_filename.removeprefix(PACKAGE)]
            functions += [code.co_qualname] * (code.co_qualname not in functions)

    threading.setprofile(see)
    sys.setprofile(see)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return found


def importing(frame: FrameType | None) -> bool:
    """Whether a function runs because a module of the package is imported."""
    while frame and not (frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(PACKAGE)):
        frame = frame.f_back
    return frame is not None


def stylise(backend: str) -> dict[str, list[str]]:
    """``fststyle stylize photo.png --style wave``."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        save_image(photograph(64, 64), f"{folder}/photo.png")
        return entered(lambda: main(["stylize", f"{folder}/photo.png", "--style", "wave", "--backend", backend]))


def train_step() -> dict[str, list[str]]:
    """A training step by hand: no trainer."""
    config = compose("train", ["encoder=random", "loss.style_layers={pixels: 1.0, relu2_2: 1.0}", "steps=1"])
    loss, batch = instantiate(config.loss, encoder=instantiate(config.encoder)), torch.rand(2, 3, 64, 64)
    targets = loss.style_targets(batch[:1])
    loss.normalizers = measure_normalizers(loss, [batch], targets)
    network = instantiate(config.network, width=4, residual_blocks=1)
    task = instantiate(config.task, network=network, loss=loss, style_targets=targets)
    task._trainer = SimpleNamespace(global_step=1, log_every_n_steps=50, global_rank=0, world_size=1)
    return entered(lambda: task.training_step({"image": batch}, 0))


def construct() -> dict[str, list[str]]:
    """An override, to a constructor that calls no other."""
    return entered(lambda: instantiate(compose("train", ["callbacks.average.decay=0.99"]).callbacks.average))


def paths(functions: bool = False) -> Figures:
    """The files that are entered."""
    found = {f"a stylised file, {backend}": stylise(backend) for backend in ("openvino", "torch")}
    found |= {"a batch to its loss": train_step(), "an override to its constructor": construct()}
    for name, files in found.items():
        yield f"{name}, {len(files)} files", dict(sorted(files.items())) if functions else sorted(files)


def lines() -> Figures:
    """Lines of code and in all."""
    code, every, long = Counter[str](), Counter[str](), {}
    for top in ("fststyle", "scripts", "tests", "examples"):
        for path in sorted((ROOT / top).rglob("*.py")):
            below, (own, whole) = path.relative_to(ROOT), counted(path.read_text(encoding="utf-8"))
            for folder in {top, str(below.parent)} if top == "fststyle" else {top}:
                code[folder], every[folder] = code[folder] + own, every[folder] + whole
            if whole > MOST_LINES:
                long[str(below)] = whole
    yield from ((folder, {"code": code[folder], "all": every[folder]}) for folder in sorted(code))
    yield f"files of more than {MOST_LINES} lines", long


def counted(text: str) -> tuple[int, int]:
    """Lines of code of a Python file, and all."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            found |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            found -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(found), text.count("\n")


if __name__ == "__main__":
    measure(__doc__, {"paths": paths, "lines": lines})
