"""Tiled inference: a network is evaluated strip by strip, with the whole picture's result, in bounded memory.

The blocks that ``ImageNetwork.stages`` gives are evaluated one after the other, each from strips of its input to strips
of its result. An instance norm needs the moments of the whole feature map: a pass gathers them over the strips, in
float64, and the passes after it use them. What precedes the norm is stored in that pass where it is at most a quarter
as wide as the picture, and computed again by the next pass where it is wider. Without instance norm one pass is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fststyle.images import to_image, to_pixels
from fststyle.inference.strips import (
    Moments,
    Stored,
    Strips,
    added,
    by_rows,
    convolved,
    cropped,
    doubled,
    filtered,
    finished,
    residual_sum,
    upsampled,
    without_border,
)
from fststyle.networks.blocks import (
    ColorTransform,
    Conv,
    ImageNetwork,
    InstanceNorm,
    KuwaharaFilter,
    ResidualBlock,
    TransposedConv,
)
from fststyle.networks.regions import RegionColors
from fststyle.padding import reflection_pad

if TYPE_CHECKING:
    from fststyle.inference.backends import TorchBackend

#: Reads rows of the picture from one to before another: (1, 3, bottom - top, width), RGB in [0, 1].
Read = Callable[[int, int], Tensor]
#: Told how much was done, in multiplications.
Tick = Callable[[int], None]

#: Modules that need no more than the strip, in evaluation mode.
ELEMENTWISE = (nn.BatchNorm2d, ColorTransform, nn.Identity, nn.LeakyReLU, nn.ReLU, nn.Sigmoid, nn.Tanh)
#: Modules that need rows around the strip, and what evaluates them.
WITH_ROWS_AROUND: dict[type[nn.Module], Callable[[Strips, Any], Strips]] = {
    Conv: convolved,
    TransposedConv: doubled,
    nn.Upsample: upsampled,
}
#: How many times the values of its largest feature map a whole picture takes at once, as measured.
WHOLE_PICTURE = 8
#: Those that a pass over strips takes for each row, padded, convolved and normed.
PER_ROW = 24
#: Of a strip; a few more are faster.
LEAST_ROWS = 4
#: Stored feature maps at once: the input of a residual block, what is within it, its result.
STORED_AT_ONCE = 3


# --- pictures -----------------------------------------------------------------------------------------


def whole_picture_bytes(backend: TorchBackend, height: int, width: int) -> int:
    """What one pass over a whole picture takes, roughly, beside picture and weights."""
    return cost(backend.network, height, width).largest * WHOLE_PICTURE * _size(backend)


def least_bytes(backend: TorchBackend, height: int, width: int) -> int:
    """What a pass over strips takes at least, roughly: of as few rows as they may have."""
    return LEAST_ROWS * _row_bytes(backend, cost(backend.network, height, width), height)


def _row_bytes(backend: TorchBackend, known: Cost, height: int) -> int:
    return known.largest // height * PER_ROW * _size(backend)


def pixels_in_strips(
    backend: TorchBackend,
    read: Callable[[int, int], np.ndarray],
    height: int,
    width: int,
    memory: int,
    folder: str,
    by: Callable[[Tensor], Tensor] | None = None,
    tick: Tick = lambda _: None,
) -> Iterator[np.ndarray]:
    """Apply a network to decoded pixels, strip by strip.

    Args:
        backend: of an ``ImageNetwork``.
        read: rows of the picture from one to before another: uint8 or uint16 (rows, width, 3).
        height, width: of the picture, in pixels.
        memory: bytes that activations may take. A quarter goes to strips, or more for 16 rows, but at least
            ``least_bytes``; stored feature maps go to a scratch file where they would take more than half, or more than
            strips leave.
        folder: of the scratch file.
        by: a filter of 3×3 pixels for the result; None for none.
        tick: called with how much was done, of ``cost(…).multiplications``.

    Yields:
        Rows of the result, of the input's type, top to bottom.

    Raises:
        ValueError: the network is no ``ImageNetwork``, or has a module that cannot be evaluated strip by strip.
    """
    known, dtype = cost(backend.network, height, width), read(0, 1).dtype
    row = _row_bytes(backend, known, height)
    rows = max(LEAST_ROWS, min(16, memory // row // 4 * 4), min(256, memory // 4 // row // 4 * 4))
    kept = known.stored * STORED_AT_ONCE * _size(backend)
    scratch = folder if kept > min(memory // 2, memory - rows * row) else None

    def images(top: int, bottom: int) -> Tensor:
        return to_image(read(top, bottom)).to(backend.device)

    strips = evaluate_in_strips(backend.network, images, height, width, rows, scratch, tick)
    shown = (strip.float().clamp(0, 1) for strip in strips)
    parts = shown if by is None else filtered(shown, by)
    while True:
        with torch.no_grad(), backend.autocast():  # they belong to a thread, not to a generator
            strip = next(parts, None)
        if strip is None:
            return
        yield to_pixels(strip, dtype)


def _size(backend: TorchBackend) -> int:
    return 4 if backend.precision == "float32" else 3  # norms take float32 beside the half


class Cost(NamedTuple):
    """What evaluating a picture strip by strip takes, but for the borders of strips."""

    #: Multiplications of all passes.
    multiplications: int
    #: Values of the largest feature map that a convolution gives.
    largest: int
    #: Values of the largest feature map that is stored.
    stored: int


def cost(network: nn.Module, height: int, width: int) -> Cost:
    """What ``evaluate_in_strips`` takes for a picture of so many pixels: found by evaluating a batch of no pictures.

    Raises:
        ValueError: as ``evaluate_in_strips``.
    """
    known = _checked(network)

    def read(top: int, bottom: int) -> Tensor:
        return known.mean.new_empty(0, 3, bottom - top, width)

    run = _Evaluation(known, read, height, width, rows=height + 2 * known.border + known.multiple)
    with torch.no_grad():
        for _ in run.result():
            pass
    return Cost(run.multiplications, run.largest, run.largest_stored)


# --- networks -----------------------------------------------------------------------------------------


@torch.no_grad()
def evaluate_in_strips(
    network: nn.Module,
    read: Read,
    height: int,
    width: int,
    rows: int = 64,
    scratch: str | None = None,
    tick: Tick = lambda _: None,
) -> Strips:
    """What a network makes of a picture, strip by strip; the whole picture's result, but for rounding.

    Args:
        network: an ``ImageNetwork`` in evaluation mode.
        read: rows of the picture.
        height, width: of the picture, in pixels.
        rows: of a strip of the input.
        scratch: a folder for stored feature maps; None keeps them in memory.
        tick: called with how much was done, of ``cost(…).multiplications``.

    Yields:
        Strips (1, 3, rows, scale · width) of the result, of any heights, top to bottom, as ``network`` gives it.

    Raises:
        ValueError: another network, or one with a module that cannot be evaluated strip by strip.
    """
    yield from _Evaluation(_checked(network), read, height, width, rows, scratch, tick).result()


def _checked(network: nn.Module) -> ImageNetwork:
    if not isinstance(network, ImageNetwork):
        raise ValueError(f"found a {type(network).__name__}; tiled inference takes an ImageNetwork")
    return network


@dataclass(frozen=True)
class _Map:
    """A feature map that is computed each time ``strips`` is called; ``stored``: without convolutions."""

    strips: Callable[[], Strips]
    stored: bool = False


class _Evaluation:
    """The passes of one picture, and what they took."""

    def __init__(
        self,
        network: ImageNetwork,
        read: Read,
        height: int,
        width: int,
        rows: int,
        scratch: str | None = None,
        tick: Tick = lambda _: None,
    ) -> None:
        self.network, self.read, self.height, self.width = network, read, height, width
        self.rows, self.scratch, self.tick = rows, scratch, tick
        self.quarter = -(-(width + 2 * network.border + -width % network.multiple) // 4)
        self.multiplications = self.largest = self.largest_stored = 0

    def result(self) -> Strips:
        """As ``ImageNetwork.forward``."""
        network, scale = self.network, self.network.scale
        x = _Map(self.padded, stored=True)
        for module in _flat(network.stages()):
            x = self.applied(module, x)
        strips = cropped(x.strips(), slice(0, scale * self.height), slice(0, scale * self.width))
        if network.skip:
            return added(upsampled(self.picture(), nn.Upsample(scale_factor=scale, mode="bicubic")), strips)
        made = (network.to_range(strip) for strip in strips)
        return finished(made, network.finish) if isinstance(network.finish, KuwaharaFilter) else made

    def picture(self) -> Strips:
        """The picture as it is read."""
        for top in range(0, self.height, self.rows):
            yield self.read(top, min(self.height, top + self.rows)).to(self.network.mean.dtype)

    def padded(self) -> Strips:
        """The picture, less the mean, padded by reflection as ``padding.pad_to_multiple`` does."""
        border, multiple, mean = self.network.border, self.network.multiple, self.network.mean
        bottom, right = border + -self.height % multiple, border + -self.width % multiple
        for top in range(-border, self.height + bottom, self.rows):
            lines = range(top, min(top + self.rows, self.height + bottom))
            places = [_reflected(row, self.height) for row in lines]
            first, last = min(places), max(places)
            strip = self.read(first, last + 1).to(mean.dtype)
            if places != list(range(first, last + 1)):
                strip = strip[:, :, [place - first for place in places]]
            yield reflection_pad(strip - mean, border, right, 0, 0)

    def applied(self, module: nn.Module, x: _Map, store: bool = False) -> _Map:
        """What a module makes of a feature map; with ``store``, all that is read twice is stored."""
        if isinstance(module, ResidualBlock):
            return self.residual(module, x)
        if isinstance(module, InstanceNorm):
            return self.normed(module, x, store)
        if isinstance(module, ELEMENTWISE):
            if getattr(module, "inplace", False):  # stored strips must stay as they are
                return _Map(lambda: (module(strip.clone()) for strip in x.strips()), x.stored)
            return _Map(lambda: map(module, x.strips()), x.stored)
        if isinstance(module, RegionColors):
            return _Map(lambda: by_rows(x.strips(), module.rows), x.stored)
        evaluated = WITH_ROWS_AROUND.get(type(module))
        if evaluated is None:
            raise ValueError(f"tiled inference cannot evaluate a {type(module).__name__}; expected networks.blocks")
        return _Map(lambda: self.counted(evaluated(x.strips(), module), module))

    def normed(self, norm: InstanceNorm, x: _Map, store: bool) -> _Map:
        """Gather the moments of a feature map in one pass; the next ones apply them."""
        moments = Moments()
        x = self.kept(x, store, moments.add)
        return _Map(lambda: moments.applied(norm, x.strips()), x.stored)

    def kept(self, x: _Map, store: bool = True, see: Callable[[Tensor], None] = lambda _: None) -> _Map:
        """Read a feature map once, showing ``see`` its strips, and store it; without ``store``, only a small one."""
        kept = Stored(self.scratch)
        for strip in x.strips():
            see(strip)
            if not x.stored and (store or strip.shape[3] <= self.quarter):
                kept.add(strip)
        self.largest_stored = max(self.largest_stored, kept.values)
        return _Map(kept.strips, stored=True) if kept.values else x

    def residual(self, block: ResidualBlock, x: _Map) -> _Map:
        """In one pass where no instance norm is within; else the input and the sum are stored."""

        def change_of(x: _Map, store: bool = False) -> _Map:
            for module in _flat(block.children()):
                x = self.applied(module, x, store)
            return x

        if not any(isinstance(module, InstanceNorm) for module in block.modules()):
            one_pass = lambda strips: change_of(_Map(lambda: strips)).strips()  # noqa: E731
            return _Map(lambda: residual_sum(x.strips(), one_pass, block.crop))
        x = x if x.stored else self.kept(x)
        change = change_of(x, store=True)
        return self.kept(_Map(lambda: added(without_border(x.strips(), block.crop), change.strips())))

    def counted(self, strips: Strips, module: nn.Module) -> Strips:
        """Count the multiplications and values of what a module gives."""
        weights = sum(parameter.numel() for parameter in module.parameters() if parameter.dim() == 4)
        if not weights:
            return strips

        def count(strip: Tensor) -> Tensor:
            done = strip.shape[2] * strip.shape[3] * weights
            self.multiplications, self.largest = self.multiplications + done, max(self.largest, strip.shape[1:].numel())
            self.tick(done)
            return strip

        return map(count, strips)


def _flat(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Modules, those in sequences one by one."""
    for module in modules:
        if type(module).forward is nn.Sequential.forward:
            yield from _flat(module.children())
        else:
            yield module


def _reflected(row: int, height: int) -> int:
    """The row of the picture that one beyond its border shows."""
    period = 2 * (height - 1)
    row = row % period
    return min(row, period - row)
