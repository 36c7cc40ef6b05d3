"""The parser repeats names that live elsewhere, so that ``--help`` loads nothing; here they are held equal."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import pytest

from fststyle.cli import parser
from fststyle.inference.export import FORMATS
from fststyle.inference.stylizer import BACKENDS
from fststyle.networks.pretrained import PUBLISHED
from fststyle.report.figures import FIGURES


@pytest.mark.parametrize(
    ("command", "option", "known"),
    [
        ("compare", "figure", FIGURES),
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
