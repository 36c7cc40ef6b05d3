"""OpenVINO itself, without importing PyTorch: whether it is there, its core, and what its graphs take."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fststyle.images import MIN_SIDE

if TYPE_CHECKING:
    import numpy as np


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


def with_mixture(path: str, mixture: np.ndarray) -> Any:
    """The graph of several styles with a constant in place of its second input.

    The norms of that mixture are then folded as those of a network for one style, which is as fast.

    Args:
        path: of the graph, from ``graphs.to_openvino``.
        mixture: (1, styles), float32.
    """
    from openvino import opset13

    model = openvino_core().read_model(path)
    given, constant = model.inputs[1].get_node(), opset13.constant(mixture)
    for user in given.output(0).get_target_inputs():
        user.replace_source_output(constant.output(0))
    model.remove_parameter(given)
    model.validate_nodes_and_infer_types()
    return model


def smallest_side(border: int) -> int:
    """The shorter side of the smallest picture that the graph of a network takes: its reflection pad folds only once.

    Args:
        border: the network's.
    """
    return max(MIN_SIDE, border + 4)
