"""A model file as a graph for runtimes, made of the file itself: what the backend, ``export`` and the browser share.

Nothing here needs PyTorch. The networks are described a second time, each operation by the one that runtimes know;
``tests/inference/test_graphs.py`` holds the pictures to be PyTorch's within 1 of 255.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fststyle.inference.onnx import Graph, filtered, reflected, resampled
from fststyle.kuwahara import RADIUS
from fststyle.model_file import ModelFileError, mixture_weights, read_metadata, trunk_files
from fststyle.octaves import PHOTOGRAPH
from fststyle.tensor_files import is_style_parameter, load_arrays, load_whole, split_path, style_sizes, trunk_of, under

#: As ``networks.blocks.IMAGENET_MEAN``.
MEAN = np.array([123.68, 116.779, 103.939], np.float32).reshape(1, 3, 1, 1) / 255
#: Of instance and of batch norms.
EPS = 1e-5
#: Arguments of the networks' constructors, with their defaults, and the values that words may have.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "TransformNet": {
        "width": 32,
        "residual_blocks": 5,
        "norm": "instance",
        "padding": "reflect",
        "upsampling": "bilinear",
        "border": 0,
        "output": "sigmoid",
        "styles": 1,
        "colors": False,
        "kuwahara": 0.0,
        "smoothed": None,
    },
    "SuperResNet": {
        "scale": 4,
        "width": 64,
        "residual_blocks": 4,
        "norm": "none",
        "padding": "reflect",
        "upsampling": "nearest",
        "output": "linear",
        "skip": True,
    },
}
_ARGUMENTS["ArbitraryNet"] = _ARGUMENTS["TransformNet"] | {"colors": True, "kuwahara": RADIUS}
_WORDS = {
    "norm": ("instance", "batch", "none"),
    "padding": ("reflect", "zeros"),
    "upsampling": ("bilinear", "nearest", "transposed"),
    "output": ("sigmoid", "tanh", "linear"),
}
Weights = Mapping[str, np.ndarray]


def graph_of(
    path: Path, pixels: bool = True, metadata: Mapping[str, str] | None = None, halved: bool = False, octaves: int = 1
) -> bytes:
    """The graph of a model file, as ``to_onnx`` gives it.

    Args:
        path: the file; or one of several styles with a style or a mixture behind it, whose graph is one style's.
        pixels, metadata, halved, octaves: as for ``to_onnx``.

    Raises:
        ModelFileError: as ``read_metadata``; tensors that do not fit the network.
    """
    network = read_metadata(path)["network"]
    try:
        return to_onnx(network, read_weights(path), pixels, metadata, halved, octaves)
    except ModelFileError:
        raise
    except Exception as error:  # whatever a foreign or damaged file makes numpy and safetensors raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelFileError(f"{path}: does not fit its own description ({reason})") from None


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The state of a model file's network, as arrays; of a mixture, with its scales and shifts."""
    file, mixture = split_path(path)
    tensors = load_whole(file, read_metadata(file), trunk_files(), load_arrays)
    weights = under(tensors, "network.")
    row = mixture_weights(file, mixture) if mixture else None
    if row is None:
        return weights
    own = {name: value for name, value in weights.items() if is_style_parameter(name)}
    return weights | {name: (row @ value.astype(np.float32))[0] for name, value in own.items()}


def to_onnx(
    network: Mapping[str, Any],
    weights: Weights,
    pixels: bool = True,
    metadata: Mapping[str, str] | None = None,
    halved: bool = False,
    octaves: int = 1,
) -> bytes:
    """The graph of a network, of any batch, and of any height and width from 16 on, as the content of an ONNX file.

    Args:
        network: ``class`` and ``arguments``, as a model file's metadata has them.
        weights: its state, by name, of any floating type.
        pixels: between decoded pictures, uint8 (B, H, W, 3); else between images, float32 (B, 3, H, W) in [0, 1].
        metadata: texts that the file gets.
        halved: kernels that float16 holds exactly, as those of bundled styles, take half the bytes.
        octaves: from coarse to fine, in which the network is applied (``fststyle.octaves``); height and width are to
            be so large that none is below 16 pixels.

    For several styles there is a second input, the mixture (B or 1, styles), float32, that each picture gets. For any
    painting it is what a style has of its own (B or 1, N), in the order of ``style_sizes``, and the filter's share.

    Raises:
        ValueError: a network that has no description here, arguments or weights that are not its own.
    """
    name, arguments = network["class"], dict(network["arguments"])
    if name == "ArbitraryNet":
        arguments, weights = {key: arguments[key] for key in ("width", "residual_blocks")}, trunk_of(weights)
    if name not in _ARGUMENTS:
        raise ValueError(f"it names a network {name!r}; a runtime takes {' or '.join(_ARGUMENTS)}")
    if strange := arguments.keys() - _ARGUMENTS[name].keys():
        raise ValueError(f"{name} has no argument {', '.join(sorted(strange))}")
    arguments = _ARGUMENTS[name] | arguments
    for key, known in _WORDS.items():
        if arguments[key] not in known:
            raise ValueError(f"{key} is {arguments[key]!r}; expected one of {', '.join(known)}")
    if arguments.get("border", 0) not in (0, 8 * arguments["residual_blocks"]):
        raise ValueError(f"border is {arguments['border']}; expected 0 or {8 * arguments['residual_blocks']}")
    builder = _Builder(name, arguments, weights, pixels, halved)
    content = builder.built(metadata, octaves)
    if unused := sorted(key for key in weights.keys() - builder.used if not key.endswith("num_batches_tracked")):
        raise ValueError(f"it holds {len(unused)} tensors too many, such as {unused[0]}")
    return content


class _Builder:
    """The operations of one network, in the order in which they are applied."""

    def __init__(self, name: str, arguments: Mapping[str, Any], weights: Weights, pixels: bool, halved: bool) -> None:
        self.pixels, self.halved, self.graph, self.weights = pixels, halved, Graph(), weights
        self.chosen, self.used = "", set[str]()
        self.width, self.blocks = int(arguments["width"]), int(arguments["residual_blocks"])
        self.given = style_sizes(self.width, self.blocks) | {"finish.share": 1} if name == "ArbitraryNet" else {}
        self.norm_kind, self.padding = arguments["norm"], arguments["padding"]
        self.upsampling, self.output = arguments["upsampling"], arguments["output"]
        self.border, self.styles = int(arguments.get("border", 0)), int(arguments.get("styles", 1))
        self.colors, self.radius = bool(arguments.get("colors")), float(arguments.get("kuwahara", 0.0))
        self.smoothed = np.array(arguments.get("smoothed") or [1.0] * self.styles).reshape(self.styles, 1)
        self.scale, self.skip = int(arguments.get("scale", 1)), bool(arguments.get("skip", False))
        self.stages: Callable[[str], str] = self.enlarge if name == "SuperResNet" else self.transform
        self.multiple = 1 if name == "SuperResNet" else 4

    def built(self, metadata: Mapping[str, str] | None, octaves: int = 1) -> bytes:
        """The whole graph: padded, through the stages, cropped, in range."""
        add, constant, pixels = self.graph.add, self.graph.constant, self.pixels
        dims: tuple[int | str, ...] = ("batch", "height", "width", 3) if pixels else ("batch", 3, "height", "width")
        given = self.graph.input("pixels" if pixels else "image", "uint8" if pixels else "float32", dims)
        if self.styles > 1:
            self.chosen = self.graph.input("mixture", "float32", ("mixtures", self.styles))
        elif self.given:
            self.chosen = self.graph.input("parameters", "float32", ("styles", sum(self.given.values())))
        if octaves > 1:
            given, self.pixels = self.image(given), False
        x = self.in_octaves(given, octaves)
        if not pixels:
            x = add("Clip", x, constant(0), constant(1), output="result")
            return self.graph.serialized(x, "float32", ("batch", 3, "result_height", "result_width"), metadata)
        x = add("Round", add("Clip", add("Mul", x, constant(255)), constant(0), constant(255)))
        x = add("Transpose", add("Cast", x, to=2), perm=[0, 2, 3, 1], output="result")
        return self.graph.serialized(x, "uint8", ("batch", "result_height", "result_width", 3), metadata)

    def in_octaves(self, image: str, octaves: int) -> str:
        """As ``networks.octaves.coarse_to_fine``."""
        if octaves == 1:
            return self.applied(image)
        add, constant = self.graph.add, self.graph.constant
        sides = [add("Shape", image, start=axis, end=axis + 1) for axis in (2, 3)]
        small = [add("Div", add("Add", side, constant([1], "int64")), constant([2], "int64")) for side in sides]
        coarse = self.in_octaves(resampled(self.graph, image, sides, small), octaves - 1)
        guide = resampled(self.graph, coarse, small, sides)
        parts = (add("Mul", each, constant(share)) for each, share in ((image, PHOTOGRAPH), (guide, 1 - PHOTOGRAPH)))
        return self.applied(add("Add", *parts))

    def applied(self, given: str) -> str:
        """One pass."""
        add, constant = self.graph.add, self.graph.constant
        first = 1 if self.pixels else 2
        padded = given
        sides = [add("Shape", given, start=axis, end=axis + 1) for axis in (first, first + 1)]
        if self.multiple > 1 or self.border:
            for axis, side in zip((first, first + 1), sides, strict=True):
                places = reflected(self.graph, side, self.multiple, self.border)
                padded = add("Gather", padded, places, axis=axis)
        x = self.stages(padded)
        if self.multiple > 1 or self.border:
            ends = add("Mul", add("Concat", *sides, axis=0), constant([self.scale], "int64"))
            x = add("Slice", x, constant([0, 0], "int64"), ends, constant([2, 3], "int64"))
        if self.skip:
            return add("Add", x, self.resized(self.image(given), "cubic", self.scale))
        if self.output == "sigmoid":
            return self.finished(add("Sigmoid", x))
        x = add("Mul", add("Tanh", x), constant(150 / 255)) if self.output == "tanh" else x
        return self.finished(add("Add", x, constant(MEAN)))

    def finished(self, x: str) -> str:
        """The result, filtered as far as its style says."""
        if not self.radius:
            return x
        add, constant = self.graph.add, self.graph.constant
        share = constant(self.smoothed)
        if self.chosen:
            share = self.own("finish.share", 1) if self.given else add("MatMul", self.chosen, share)
            share = add("Reshape", share, constant([-1, 1, 1, 1], "int64"))
        return filtered(self.graph, x, self.radius, share)

    def levels(self, given: str) -> str:
        """The input as floating point (B, 3, H, W), in its own units."""
        if not self.pixels:
            return given
        return self.graph.add("Cast", self.graph.add("Transpose", given, perm=[0, 3, 1, 2]), to=1)

    def image(self, given: str) -> str:
        """The input as an image in [0, 1]."""
        levels = self.levels(given)
        return self.graph.add("Mul", levels, self.graph.constant(1 / 255)) if self.pixels else levels

    def transform(self, x: str) -> str:
        """The stages of a ``TransformNet``."""
        w = self.width
        x = self.first(x, "encode.0")
        x = self.relu(self.conv(x, "encode.1", (w, 2 * w), stride=2))
        x = self.relu(self.conv(x, "encode.2", (2 * w, 4 * w), stride=2))
        x = self.residual_blocks(x, 4 * w, "none" if self.border else self.padding)
        x = self.upblock(x, "decode.0", (4 * w, 2 * w))
        x = self.upblock(x, "decode.1", (2 * w, w))
        return self.last(x, "decode.2")

    def enlarge(self, x: str) -> str:
        """The stages of a ``SuperResNet``."""
        x = self.residual_blocks(self.first(x, "encode"), self.width, self.padding)
        doublings = self.scale.bit_length() - 1
        for number in range(doublings):
            x = self.upblock(x, f"decode.{number}", (self.width, self.width))
        return self.last(x, f"decode.{doublings}")

    def first(self, x: str, name: str) -> str:
        """The block that takes the picture, of which the mean is subtracted.

        Its convolution does this, and brings levels to [0, 1], where no zeros are padded, which would change with them.
        """
        if self.padding == "reflect":
            return self.relu(self.conv(self.levels(x), name, (3, self.width), 9, of_levels=True))
        x = self.graph.add("Sub", self.image(x), self.graph.constant(MEAN))
        return self.relu(self.conv(x, name, (3, self.width), 9))

    def residual_blocks(self, x: str, width: int, padding: str) -> str:
        """All residual blocks; without padding, what is added is cropped at its centre."""
        add, constant = self.graph.add, self.graph.constant
        for number in range(self.blocks):
            name = f"transform.{number}"
            change = self.relu(self.conv(x, f"{name}.first", (width, width), padding=padding))
            change = self.conv(change, name, (width, width), padding=padding)
            if padding == "none":
                bounds = ([2, 2], [-2, -2], [2, 3])
                x = add("Slice", x, *(constant(each, "int64") for each in bounds))
            x = add("Add", x, change)
        return x

    def upblock(self, x: str, name: str, channels: tuple[int, int]) -> str:
        """Twice the size."""
        transposed = self.upsampling == "transposed"
        if not transposed:
            x = self.resized(x, "linear" if self.upsampling == "bilinear" else "nearest", 2)
        return self.relu(self.conv(x, name, channels, transposed=transposed))

    def last(self, x: str, name: str) -> str:
        """The convolution to 3 channels, of a feature map of even sides.

        As one of stride 2 that gives the 4 pixels of a square as 12 channels: processors compute 16 at once, and 3 of
        them take as long.
        """
        side, reach, add, constant = 9, 4, self.graph.add, self.graph.constant
        kernel, bias = self.of(f"{name}.conv.weight", (3, self.width, side, side)), self.of(f"{name}.conv.bias", (3,))
        if self.colors and not self.chosen:
            matrix, shift = self.of("colors.weight", (9,)).reshape(3, 3), self.of("colors.bias", (3,))
            kernel, bias = np.einsum("ij,jkyx->ikyx", matrix, kernel), matrix @ bias + shift
        spread = np.zeros((3, 2, 2, self.width, side + 1, side + 1), np.float32)
        for row, column in np.ndindex(2, 2):
            spread[:, row, column, :, row : row + side, column : column + side] = kernel
        values = self.kernel(spread.reshape(12, *spread.shape[3:])), constant(np.repeat(bias, 4))
        x = self.padded(x, reach) if self.padding == "reflect" else x
        x = add("Conv", x, *values, strides=[2, 2], pads=[reach if self.padding == "zeros" else 0] * 4)
        x = add("DepthToSpace", x, blocksize=2, mode="CRD")
        return self.coloured(x) if self.colors and self.chosen else x

    def coloured(self, x: str) -> str:
        """The colour transform of each picture's own; that of one style goes into the last convolution."""
        add, constant = self.graph.add, self.graph.constant
        sides = add("Shape", x)
        matrix = add("Reshape", self.own("colors.weight", 9), constant([-1, 3, 3], "int64"))
        shifts = add("Reshape", self.own("colors.bias", 3), constant([-1, 3, 1], "int64"))
        values = add("MatMul", matrix, add("Reshape", x, constant([0, 3, -1], "int64")))
        return add("Reshape", add("Add", values, shifts), sides)

    def own(self, name: str, size: int) -> str:
        """A style's parameters (B or 1, size) that are no constant: mixed, or a part of those that are given."""
        add, constant = self.graph.add, self.graph.constant
        if not self.given:
            return add("MatMul", self.chosen, constant(self.of(name, (self.styles, size))))
        start = sum(list(self.given.values())[: list(self.given).index(name)])
        return add("Slice", self.chosen, *(constant([each], "int64") for each in (start, start + size, 1)))

    def resized(self, x: str, mode: str, scale: int) -> str:
        """As ``torch.nn.functional.interpolate``, of which ``linear`` and ``cubic`` do not align corners."""
        more: dict[str, Any] = {"coordinate_transformation_mode": "half_pixel"}
        if mode == "nearest":
            more = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        elif mode == "cubic":
            more["cubic_coeff_a"] = -0.75
        scales = self.graph.constant([1, 1, scale, scale])
        return self.graph.add("Resize", x, "", scales, mode=mode, **more)

    def relu(self, x: str) -> str:
        return self.graph.add("Relu", x)

    def conv(
        self,
        x: str,
        name: str,
        channels: tuple[int, int],
        side: int = 3,
        stride: int = 1,
        padding: str | None = None,
        *,
        transposed: bool = False,
        of_levels: bool = False,
    ) -> str:
        """A block's convolution with its padding in front, and its norm behind; a batch norm goes into the weights.

        Args:
            channels: how many go in and come out.
            of_levels: it takes the picture as it is, brings it to [0, 1] and subtracts the mean.
        """
        inner, add = f"{name}.conv" if transposed else f"{name}.conv.conv", self.graph.add
        outputs = channels[1]
        kernel = self.of(f"{inner}.weight", (*(channels if transposed else channels[::-1]), side, side))
        bias, padding, reach = self.of(f"{inner}.bias", (outputs,)), padding or self.padding, side // 2
        if of_levels:
            bias = bias - (kernel * MEAN).sum((1, 2, 3))
        if self.norm_kind == "batch":
            keys = ("weight", "bias", "running_mean", "running_var")
            weight, shift, mean, variance = (self.of(f"{name}.norm.{key}", (outputs,)) for key in keys)
            scale = weight / np.sqrt(variance + EPS)
            kernel = kernel * scale.reshape((1, -1, 1, 1) if transposed else (-1, 1, 1, 1))
            bias = (bias - mean) * scale + shift
        values = self.kernel(kernel), self.graph.constant(bias)
        if of_levels and self.pixels:
            values = add("Mul", values[0], self.graph.constant(1 / 255)), values[1]
        if transposed:
            x = add("ConvTranspose", x, *values, strides=[2, 2], pads=[1] * 4, output_padding=[1, 1])
        else:
            x = self.padded(x, reach) if padding == "reflect" else x
            x = add("Conv", x, *values, strides=[stride] * 2, pads=[reach if padding == "zeros" else 0] * 4)
        return self.instance_norm(x, f"{name}.norm", outputs) if self.norm_kind == "instance" else x

    def kernel(self, value: np.ndarray) -> str:
        """A constant that may be halved."""
        return self.graph.halved(value) if self.halved else self.graph.constant(value)

    def padded(self, x: str, reach: int) -> str:
        return self.graph.add("Pad", x, self.graph.constant([0, 0, reach, reach] * 2, "int64"), mode="reflect")

    def instance_norm(self, x: str, name: str, channels: int) -> str:
        """The one operation that runtimes know; with scale and shift behind it where each picture has its own."""
        add, constant = self.graph.add, self.graph.constant
        if not self.chosen:
            values = [constant(self.of(f"{name}.{key}", (channels,))) for key in ("weight", "bias")]
            return add("InstanceNormalization", x, *values, epsilon=EPS)
        x = add("InstanceNormalization", x, constant(np.ones(channels)), constant(np.zeros(channels)), epsilon=EPS)
        sides = constant([-1, channels, 1, 1], "int64")
        scale, shift = (add("Reshape", self.own(f"{name}.{key}", channels), sides) for key in ("weight", "bias"))
        return add("Add", add("Mul", x, scale), shift)

    def of(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor of the state, float32."""
        if name not in self.weights:
            raise ValueError(f"it lacks the tensor {name}")
        if self.weights[name].shape != shape:
            raise ValueError(f"{name} has the shape {self.weights[name].shape}; expected {shape}")
        self.used.add(name)
        return self.weights[name].astype(np.float32)
