"""OpenVINO itself, without importing PyTorch: whether it is there, its core, and what its graphs take."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import Any

from fststyle.images import MIN_SIDE


def openvino_installed() -> bool:
    """Whether OpenVINO can be used."""
    return find_spec("openvino") is not None


@functools.cache
def openvino_core() -> Any:
    """OpenVINO's entrance, one for the whole process.

    Each gives the thread a signal stack of its own when it loads the CPU plugin, and puts back the one before
    when it is deleted. Of two that overlap the second puts back the first one's, which is gone by then:
    the next signal ends the process.
    """
    import openvino as ov

    return ov.Core()


def smallest_side(border: int) -> int:
    """The shorter side of the smallest picture that the graph of a network takes: its reflection pad folds only once.

    Args:
        border: the network's.
    """
    return max(MIN_SIDE, border + 4)
