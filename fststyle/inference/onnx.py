"""ONNX files, written without further packages: as many of the protocol buffers of the format as a network takes.

https://github.com/onnx/onnx/blob/main/onnx/onnx.proto has the messages; the numbers here are those of their fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fststyle.images.arrays import YCBCR
from fststyle.kuwahara import DEVIATION, SECTORS, reach_of, sector_kernels

#: Version of the operators, and the oldest version of the format that has it.
OPSET, IR_VERSION = 18, 8
#: Element types by numpy's names.
TYPES = {"float32": 1, "uint8": 2, "int64": 7, "float16": 10}
#: What an attribute is, by Python's type; of a list, by that of its elements.
_KINDS = {float: 1, int: 2, str: 3}

Dims = Sequence[int | str]


class Graph:
    """A graph that grows by one operation after the other; values are known by their names."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []
        self._inputs: list[bytes] = []
        self._count = 0
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def input(self, name: str, dtype: str, dims: Dims) -> str:
        """An input; a dimension that is a word is any number."""
        self._inputs.append(_value(name, dtype, dims))
        return name

    def constant(self, value: object, dtype: str = "float32") -> str:
        """A constant, of anything that numpy takes; the same one again is kept once."""
        array = np.array(value, dtype)
        content = array.tobytes()
        if name := self._known.get((dtype, array.shape, content)):
            return name
        name = self._known[dtype, array.shape, content] = self._name("constant")
        parts = [_number(1, side) for side in array.shape] + [_number(2, TYPES[dtype]), _bytes(8, name.encode())]
        self._constants.append(b"".join([*parts, _bytes(9, content)]))
        return name

    def halved(self, value: np.ndarray) -> str:
        """A constant, float32, that takes half the bytes where float16 holds it exactly."""
        if np.array_equal(value.astype(np.float16), value):
            return self.add("Cast", self.constant(value, "float16"), to=TYPES["float32"])
        return self.constant(value)

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: object) -> str:
        """An operation; returns the name of its result. Inputs that are left out have an empty name."""
        output = output or self._name(operator.lower())
        parts = [_bytes(1, name.encode()) for name in inputs] + [_bytes(2, output.encode())]
        parts += [_bytes(4, operator.encode())] + [_bytes(5, _attribute(*each)) for each in attributes.items()]
        self._nodes.append(b"".join(parts))
        return output

    def serialized(self, output: str, dtype: str, dims: Dims, metadata: Mapping[str, str] | None = None) -> bytes:
        """The file's content.

        Args:
            output: the value that the graph gives.
            metadata: texts by name.
        """
        parts = [_bytes(1, node) for node in self._nodes] + [_bytes(2, b"fststyle")]
        parts += [_bytes(5, each) for each in self._constants] + [_bytes(11, each) for each in self._inputs]
        parts.append(_bytes(12, _value(output, dtype, dims)))
        model = [_number(1, IR_VERSION), _bytes(2, b"fststyle"), _bytes(7, b"".join(parts))]
        model.append(_bytes(8, _bytes(1, b"") + _number(2, OPSET)))
        for key, text in (metadata or {}).items():
            model.append(_bytes(14, _bytes(1, key.encode()) + _bytes(2, text.encode())))
        return b"".join(model)

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"


def resampled(graph: Graph, image: str, sides: Sequence[str], to: Sequence[str]) -> str:
    """An image in [0, 1] with so many rows and columns, (1,) each, at another size; by Lanczos."""
    down, across = (_lanczos(graph, *each) for each in zip(sides, to, strict=True))
    bounds = graph.constant(0), graph.constant(1)
    x = graph.add("Clip", graph.add("MatMul", image, graph.add("Transpose", across)), *bounds)
    return graph.add("Clip", graph.add("MatMul", down, x), *bounds)


def _lanczos(graph: Graph, side: str, to: str) -> str:
    """As ``networks.octaves._lanczos``: weights (to, side)."""
    add, constant = graph.add, graph.constant
    step = add("Div", *(add("Cast", each, to=1) for each in (side, to)))
    places, centres = (
        add("Add", add("Cast", add("Range", zero, add("Squeeze", each), one), to=1), constant(0.5))
        for zero, one in [(constant(0, "int64"), constant(1, "int64"))]
        for each in (side, to)
    )
    centres = add("Unsqueeze", add("Mul", centres, step), constant([1], "int64"))
    distances = add("Div", add("Sub", places, centres), add("Max", step, constant([1])))
    near = add("Less", add("Abs", distances), constant(3))
    turns = add("Mul", distances, constant(np.pi))
    waves = add("Mul", add("Sin", turns), add("Sin", add("Div", turns, constant(3))))
    squares = add("Div", add("Mul", turns, turns), constant(3))
    zero = add("Less", squares, constant(1e-8))
    weights = add("Where", zero, constant(1), add("Div", waves, add("Where", zero, constant(1), squares)))
    weights = add("Where", near, weights, constant(0))
    return add("Div", weights, add("ReduceSum", weights, constant([1], "int64"), keepdims=1))


def reflected(graph: Graph, side: str, multiple: int, border: int) -> str:
    """The rows, or columns, of a picture that is padded as ``padding.pad_to_multiple`` does: their numbers, of a side
    (1,); reflection folds as often as it takes.
    """
    add, scalar = graph.add, lambda value: graph.constant(value, "int64")
    side = add("Squeeze", side)
    whole = add("Div", add("Add", side, scalar(multiple - 1)), scalar(multiple))
    end = add("Add", add("Mul", whole, scalar(multiple)), scalar(border))
    period = add("Mul", add("Sub", side, scalar(1)), scalar(2))
    places = add("Mod", add("Range", scalar(-border), end, scalar(1)), period)
    return add("Min", places, add("Sub", period, places))


def filtered(graph: Graph, image: str, radius: float, share: str) -> str:
    """As ``networks.blocks.KuwaharaFilter``.

    Args:
        image: (B, 3, H, W).
        share: (1,), or (B, 1, 1, 1).
    """
    add, constant, reach = graph.add, graph.constant, reach_of(radius)
    luma = constant(YCBCR[0].reshape(1, 3, 1, 1))
    axis, one = constant([1], "int64"), constant(1)

    def part(x: str, number: int) -> str:
        return add("Slice", x, *(constant([each], "int64") for each in (SECTORS * number, SECTORS * (number + 1), 1)))

    padded = add("Pad", image, constant([0, 0, reach, reach] * 2, "int64"), mode="reflect")
    lightness = add("ReduceSum", add("Mul", padded, luma), axis, keepdims=1)
    maps = add("Concat", padded, add("Mul", lightness, lightness), axis=1)
    means = add("Conv", add("Reshape", maps, constant([-1, 1, 0, 0], "int64")), constant(sector_kernels(radius)))
    means = add("Reshape", means, constant([-1, 4 * SECTORS, 0, 0], "int64"))
    *colors, square = (part(means, number) for number in range(4))
    levels = [add("Mul", color, constant(weight)) for color, weight in zip(colors, YCBCR[0], strict=True)]
    level = add("Add", add("Add", *levels[:2]), levels[2])
    variance = add("Relu", add("Sub", square, add("Mul", level, level)))
    variance = add("Mul", variance, constant(1 / DEVIATION**2))
    weights = add("Div", one, add("Add", one, add("Mul", variance, add("Sqrt", variance))))
    weights = add("Div", weights, add("ReduceSum", weights, axis, keepdims=1))
    sums = (add("ReduceSum", add("Mul", weights, color), axis, keepdims=1) for color in colors)
    change = add("Sub", add("Concat", *sums, axis=1), image)
    return add("Add", image, add("Mul", change, share))


def _value(name: str, dtype: str, dims: Dims) -> bytes:
    """A ValueInfoProto."""
    sides = (_bytes(2, each.encode()) if isinstance(each, str) else _number(1, each) for each in dims)
    shape = b"".join(_bytes(1, side) for side in sides)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, TYPES[dtype]) + _bytes(2, shape)))


def _attribute(name: str, value: object) -> bytes:
    """An AttributeProto."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        numbers = list(value)
        assert all(type(number) is int for number in numbers), "of lists, those of whole numbers are written"
        return _bytes(1, name.encode()) + b"".join(_number(8, number) for number in numbers) + _number(20, 7)
    if isinstance(value, float):
        content = _tag(2, 5) + struct.pack("<f", value)
    elif isinstance(value, int):
        content = _number(3, value)
    else:
        content = _bytes(4, str(value).encode())
    return _bytes(1, name.encode()) + content + _number(20, _KINDS[type(value)])


def _number(field: int, value: int) -> bytes:
    return _tag(field, 0) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(value)) + value


def _tag(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; of a negative number, those of its 64 bits."""
    value &= 2**64 - 1
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
