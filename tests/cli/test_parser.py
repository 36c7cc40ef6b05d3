"""The parser repeats names that live elsewhere, so that ``--help`` loads nothing; here they are held equal."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable

import pytest

from fststyle.cli import main, parser
from fststyle.encoders.published import PUBLISHED
from fststyle.inference.export import FORMATS
from fststyle.inference.stylizer import BACKENDS


@pytest.mark.parametrize(
    ("command", "option", "known"),
    [
        ("export", "format", FORMATS),
        ("stylize", "backend", BACKENDS),
        ("fetch", "architecture", {architecture for architecture, _ in PUBLISHED}),
        ("fetch", "weights", {weights for _, weights in PUBLISHED}),
    ],
)
def test_choices_are_those_that_there_are(command: str, option: str, known: Iterable[str]) -> None:
    commands = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    found = next(action for action in commands.choices[command]._actions if action.dest == option)
    assert found.choices is not None
    assert set(found.choices) == set(known)


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    """As ``fststyle styles | head -1`` does."""
    ours, theirs = os.pipe()
    os.close(ours)
    run = subprocess.run([sys.executable, "-m", "fststyle", "info", "wave"], stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    assert (run.returncode, run.stderr) == (141, b"")


def test_what_nobody_thought_of_is_one_line_and_with_debug_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(*_: object) -> None:
        raise KeyError("what\never")

    monkeypatch.setattr("fststyle.cli.info.kind_of", find)
    assert main(["info", "wave"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fststyle: failed: unexpected KeyError: 'what")
    assert line.endswith("(--debug shows more)")
    with pytest.raises(KeyError):
        main(["info", "wave", "--debug"])
