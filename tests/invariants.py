"""A command within the tests' process, and what must hold of every one; and how examples for it are drawn."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings

from commands import in_folder
from fststyle.cli import main


def examples(count: int) -> Any:
    """Always the same ones, so that a test that fails does so again."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # to shrink an example takes minutes more, and they are small
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Done:
    """How a command ended, what it said, and the entries that are new."""

    code: int
    out: str
    err: str
    new: frozenset[bytes]


@contextlib.contextmanager
def desk() -> Iterator[bytes]:
    """An empty folder that a user is in."""
    with tempfile.TemporaryDirectory(prefix="fststyle-") as folder:
        yield os.fsencode(folder)


def entries(folder: bytes) -> dict[bytes, bytes]:
    """Everything below a folder, with its content."""
    found = {}
    for here, folders, files in os.walk(folder):
        for name in folders:
            found[os.path.join(here, name)] = b"a folder"
        for name in files:
            with open(os.path.join(here, name), "rb") as file:
                found[os.path.join(here, name)] = file.read()
    return found


def said(folder: bytes, *words: str) -> Done:
    """Run a command there; what must hold of every one is checked."""
    before, out, err = entries(folder), io.StringIO(), io.StringIO()
    with in_folder(Path(os.fsdecode(folder))), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as refusal:  # argparse's, after its usage
            code = int(refusal.code or 0)
    after = entries(folder)
    done = Done(code, out.getvalue(), err.getvalue(), frozenset(after.keys() - before.keys()))
    assert code in (0, 1, 2), (words, done)
    assert {name: content for name, content in after.items() if name in before} == before, (words, "something is lost")
    assert "Traceback" not in done.err, (words, done)
    assert "failed: unexpected" not in done.err, (words, done)  # in place of a traceback
    assert not [name for name in done.new if name.endswith((b".part", b".state"))], (words, done)
    if code == 0:
        assert "error:" not in done.err, (words, done)
    else:
        last = done.err.splitlines()[-1] if done.err else ""
        assert last.startswith("fststyle"), (words, done)
        assert len(last) > len("fststyle: error: ") + 5, (words, done)
    if code == 2:
        lines = [line for line in done.err.splitlines() if ": error: " in line]
        assert len(lines) == 1, (words, done)
        assert not done.new, (words, "refused, and something was written", done)
    return done
