"""Marks of cases that take long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def rest_slow(cases: Sequence[Any], quick: int = 1) -> list[Any]:
    """The first few cases of a parametrised test as they are, the others marked ``slow``: one argument, or a tuple."""
    slow = (case if isinstance(case, tuple) else (case,) for case in cases[quick:])
    return [*cases[:quick], *(pytest.param(*case, marks=pytest.mark.slow) for case in slow)]
