"""What predicts a painting's style as a graph for runtimes, made of a model file of kind ``arbitrary``.

``networks.arbitrary`` described a second time, as ``inference.graphs`` does with the networks that paint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fststyle.inference.graphs import graph_of
from fststyle.inference.onnx import Graph
from fststyle.model_file import ModelFileError, check_kind
from fststyle.palette import sorted_means
from fststyle.tensor_files import load_arrays, style_sizes, under

#: As in ``networks.arbitrary``.
LEVELS, STEP = 16, 0.25


def colour_statistics(painting: np.ndarray) -> np.ndarray:
    """What the graph is told of a painting's colours (3, N) in [0, 1]: (1, 57), float32."""
    covariance = np.cov(painting, bias=True).astype(np.float32)
    levels = sorted_means(painting, LEVELS)
    return np.concatenate([4 * levels.reshape(-1) - 2, 40 * covariance.reshape(-1)])[None].astype(np.float32)


def predictor_graphs(path: Path, halved: bool = False) -> tuple[bytes, bytes]:
    """What predicts and what paints in a model file of kind ``arbitrary``: the graphs of ``prediction_graph`` and of
    ``graph_of``, between images.

    Raises:
        ModelFileError: another kind; its encoder and its network do not fit each other.
    """
    metadata = check_kind(path, "arbitrary")
    try:
        return prediction_graph(metadata, load_arrays(path), halved), graph_of(path, pixels=False, halved=halved)
    except ModelFileError:
        raise
    except Exception as error:  # whatever foreign metadata and foreign tensors lead to
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelFileError(f"{path}: does not hold what its kind, arbitrary, needs ({reason})") from None


def prediction_graph(metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray], halved: bool = False) -> bytes:
    """The graph, as the content of an ONNX file.

    Its inputs are ``image``, a painting, float32 (1, 3, H, W) in [0, 1], H and W ≥ 16, and ``colours``, what
    ``colour_statistics`` gives of it; it gives ``parameters`` (1, N), in the order of ``style_sizes``.

    Args:
        metadata, tensors: of the model file.
        halved: kernels and matrices that float16 holds exactly, as those of bundled files, take half the bytes.

    Raises:
        Exception: of any kind, for metadata and tensors that do not fit each other.
    """
    graph = Graph()
    add, constant = graph.add, graph.constant
    matrix = graph.halved if halved else constant
    weights = {name: value.astype(np.float32) for name, value in tensors.items()}
    encoder, told = under(weights, "encoder."), metadata["encoder"]
    image = graph.input("image", "float32", (1, 3, "height", "width"))
    described = [graph.input("colours", "float32", (1, 3 * LEVELS + 9))]
    x = add(
        "Conv", image, constant(encoder["preprocess.weight"].reshape(3, 3, 1, 1)), constant(encoder["preprocess.bias"])
    )
    edge = constant([0, 0, 1, 1] * 2, "int64")
    across, block = constant([2, 3], "int64"), 1
    names = sorted(name.removesuffix(".weight") for name in encoder if name.startswith("conv") and "weight" in name)
    for name in names:
        if int(name[4]) > block:
            block, pool = block + 1, "MaxPool" if told["pooling"] == "max" else "AveragePool"
            x = add(pool, x, kernel_shape=[2, 2], strides=[2, 2])
        values = matrix(encoder[f"{name}.weight"]), constant(encoder[f"{name}.bias"])
        reflected = told["padding"] == "reflect"
        x = add("Pad", x, edge, mode="reflect") if reflected else x
        x = add("Relu", add("Conv", x, *values, pads=[0 if reflected else 1] * 4))
        mean = add("ReduceMean", x, across, keepdims=1)
        centred = add("Sub", x, mean)
        spread = add("Sqrt", add("ReduceMean", add("Mul", centred, centred), across, keepdims=1))
        described += [add("Flatten", add("Log", add("Add", value, constant(0.02)))) for value in (mean, spread)]
    network = under(weights, "network.")
    x = add("Sub", add("Concat", *described, axis=1), constant(network["centre"]))
    x = add("Clip", add("MatMul", x, matrix(network["components"])), constant(-4), constant(4))
    for layer in (0, 2, 4):
        weight, bias = (network[f"predict.{layer}.{key}"] for key in ("weight", "bias"))
        x = add("Add", add("MatMul", x, matrix(weight.T)), constant(bias))
        x = add("Mul", x, add("Sigmoid", x)) if layer < 4 else x
    arguments = metadata["network"]["arguments"]
    sizes = style_sizes(int(arguments["width"]), int(arguments["residual_blocks"]))
    own = np.concatenate([network[f"painter.{name}"] for name in sizes])
    x = add("Add", add("Mul", x, constant(STEP)), constant(own), output="parameters")
    return graph.serialized(x, "float32", (1, len(own)))
