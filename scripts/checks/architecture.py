"""How much of the package has to be read: the files that three paths enter, and the lines of code there are.

    python scripts/checks/architecture.py [paths] [lines] [-v]

``paths``: the files of the package in which a function is entered, not counting what imports run: for a stylised file,
by each backend; from a batch to the loss of a style's task, with the default settings; from an override to its
constructor. With ``-v`` the functions too. ``lines``: of code (without blank lines, comments and docstrings) and in
all, and the files of more than 400.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import os
import sys
import tempfile
import threading
import tokenize
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fststyle"
MOST_LINES = 400
Entered = dict[str, set[str]]


def entered(run: Callable[[], Any]) -> Entered:
    """The package's files that a call enters a function of, and those functions."""
    found: Entered = defaultdict(set)

    def see(frame: FrameType | None, event: str, _: Any) -> None:
        code = frame.f_code if frame is not None else None
        if event != "call" or code is None or not code.co_filename.startswith(str(PACKAGE)):
            return
        file, name = os.path.relpath(code.co_filename, PACKAGE), code.co_qualname
        if name not in found.get(file, ()) and not _importing(frame):
            found[file].add(name)

    threading.setprofile(see)
    sys.setprofile(see)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def _importing(frame: FrameType | None) -> bool:
    """Whether a function is called by a module that is being imported."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            return True
        frame = frame.f_back
    return False


def stylised_file(backend: str) -> Entered:
    """``fststyle stylize photo.png --style wave``."""
    from PIL import Image

    from fststyle.cli import main

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        photo = Path(folder) / "photo.png"
        Image.linear_gradient("L").convert("RGB").save(photo)
        found = entered(lambda: main(["stylize", str(photo), "--style", "wave", "--backend", backend]))
        assert photo.with_name("photo_wave.png").is_file()
    return found


def batch_to_loss() -> Entered:
    """The first training step of a style, from the batch to the loss."""
    import torch

    from fststyle.config import compose, instantiate
    from fststyle.losses import measure_normalizers

    config = compose("train", ["encoder=random", "loss.style_layers={pixels: 1.0, relu2_2: 1.0}", "steps=1"])
    loss = instantiate(config.loss, encoder=instantiate(config.encoder))
    batch = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    targets = loss.style_targets(batch[:1])
    loss.normalizers = measure_normalizers(loss, [batch], targets)
    network = instantiate(config.network, width=4, residual_blocks=1)
    task = instantiate(config.task, network=network, loss=loss, style_targets=targets)
    task.trainer = _Trainer()
    task.log = task.log_dict = lambda *_, **__: None
    return entered(lambda: task.training_step({"image": batch, "unreadable": []}, 0))


class _Trainer:
    """What a step asks of Lightning's."""

    global_step, log_every_n_steps = 1, 50


def override_to_constructor() -> Entered:
    """``data.batch_size=2`` to the data module, whose constructor calls no other."""
    from fststyle.config import compose, instantiate

    words = ["data=generated", "data.batch_size=2"]
    return entered(lambda: instantiate(compose("train", words).data))


PATHS: dict[str, Callable[[], Entered]] = {
    "a stylised file, openvino": lambda: stylised_file("openvino"),
    "a stylised file, torch": lambda: stylised_file("torch"),
    "a batch to its loss": batch_to_loss,
    "an override to its constructor": override_to_constructor,
}


def lines(path: Path) -> tuple[int, int]:
    """Lines of code of a Python file, and all."""
    text, code = path.read_text(encoding="utf-8"), set[int]()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            code |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            code -= set(range(first.lineno, (first.end_lineno or 0) + 1))
    return len(code), text.count("\n")


def show_paths(verbose: bool) -> None:
    for name, run in PATHS.items():
        found = run()
        print(f"{name}: {len(found)} files")
        for file, functions in sorted(found.items()):
            print(f"  {file}{': ' + ', '.join(sorted(functions)) if verbose else ''}")


def show_lines(verbose: bool) -> None:
    long = []
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for top in ("fststyle", "scripts", "tests", "examples"):
        for path in sorted((ROOT / top).rglob("*.py")):
            counts, below = lines(path), path.relative_to(ROOT)
            part = f"{top}/{below.parts[1]}" if top == "fststyle" and len(below.parts) > 2 else top
            for package in {top, part}:
                sums[package] = [a + b for a, b in zip(sums[package], counts, strict=True)]
            if counts[1] > MOST_LINES:
                long.append(f"{below} ({counts[1]})")
            if verbose:
                print(f"{counts[0]:>6,} {counts[1]:>6,}  {below}")
    print("  code    all")
    for package, (code, every) in sorted(sums.items()):
        print(f"{code:>6,} {every:>6,}  {package}")
    print(f"of more than {MOST_LINES} lines:", ", ".join(long) or "none")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="paths|lines")
    parser.add_argument("-v", action="store_true", help="name functions, and the lines of every file")
    options = parser.parse_args()
    for each in options.what or ("paths", "lines"):
        {"paths": show_paths, "lines": show_lines}[each](options.v)
