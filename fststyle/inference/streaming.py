"""Exact streaming: a network applied strip by strip, with the result of the whole frame, in bounded memory.

An instance norm needs the moments of the whole picture; they are sums, gathered over the strips in float64, and the
pass after them uses them. Between norms, what has full or half resolution is computed again from the input; what has
quarter resolution is stored. Without such norms one pass does it all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fststyle.images import to_image, to_pixels
from fststyle.inference.strips import (
    Norm,
    Stored,
    Strips,
    convolved,
    enlarged,
    filtered,
    gathered,
    residual_add,
    upsampled,
)
from fststyle.networks.blocks import Conv, InstanceNorm, ResidualBlock, UpBlock
from fststyle.networks.superres import SuperResNet
from fststyle.networks.transform import TransformNet
from fststyle.padding import reflection_pad

if TYPE_CHECKING:
    from fststyle.inference.backends import TorchBackend

#: Reads rows of the picture from one to before another: (1, 3, bottom - top, width), RGB in [0, 1].
Read = Callable[[int, int], Tensor]
#: Told how much was done, in multiplications.
Tick = Callable[[int], None]

#: Values of the result's resolution and the first layer's channels that a whole frame holds at once, as measured.
WHOLE_FRAME = 8
#: Those that a pass over strips holds for each row, padded, convolved and normed.
PER_ROW = 24


# --- pictures -----------------------------------------------------------------------------------------


def whole_frame_bytes(backend: TorchBackend, height: int, width: int) -> int:
    """What one pass over a whole picture takes, roughly, beside picture and weights."""
    return height * width * scale_of(backend.network) ** 2 * _channels(backend) * WHOLE_FRAME * _size(backend)


def scale_of(network: nn.Module) -> int:
    """How many times larger a network's result is, each way."""
    return network.scale if isinstance(network, SuperResNet) else 1


def streamed(
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
        backend: of a ``TransformNet`` or a ``SuperResNet``.
        read: rows of the picture from one to before another: uint8 or uint16 (rows, width, 3).
        height, width: of the picture.
        memory: bytes that activations may take. A quarter goes to strips; what is stored at quarter resolution
            goes to a scratch file where it would take more than half.
        folder: of the scratch file.
        by: a filter of 3×3 pixels for the result; None for none.
        tick: called with how much was done, of ``work``.

    Yields:
        Rows of the result, of the input's type, top to bottom.
    """
    network = backend.network
    if not isinstance(network, TransformNet | SuperResNet):
        raise ValueError(f"found a {type(network).__name__}; expected a network that is streamed")
    scale, dtype = scale_of(network), read(0, 1).dtype
    row = width * scale**2 * _channels(backend) * PER_ROW * _size(backend)
    rows = max(16, min(256, memory // 4 // row // 4 * 4))
    stored = 3 * height * width // 16 * 4 * _channels(backend) * _size(backend)
    scratch = folder if isinstance(network, TransformNet) and stored > memory // 2 else None

    def images(top: int, bottom: int) -> Tensor:
        return to_image(read(top, bottom)).to(backend.device)

    strips = stream(network, images, height, width, rows, scratch, tick)
    shown = (strip.float().clamp(0, 1) for strip in strips)
    parts = shown if by is None else filtered(shown, by)
    while True:
        with torch.no_grad(), backend.autocast():  # they belong to a thread, not to a generator
            strip = next(parts, None)
        if strip is None:
            return
        yield to_pixels(strip, dtype)


def _channels(backend: TorchBackend) -> int:
    return int(backend.network.config["width"])  # type: ignore[index, arg-type, call-overload]


def _size(backend: TorchBackend) -> int:
    return 4 if backend.precision == "float32" else 3  # norms take float32 beside the half


def _weights_of(module: nn.Module) -> int:
    """Weights of all convolutions in a module: multiplications for each position of its output."""
    return sum(p.numel() for p in module.parameters() if p.dim() == 4)


def work(network: TransformNet | SuperResNet, height: int, width: int) -> int:
    """How many multiplications ``stream`` makes, roughly."""
    pixels = height * width
    if isinstance(network, SuperResNet):
        ups, last = network.decode[:-1], network.decode[-1]
        small = _weights_of(network.encode) + _weights_of(network.transform)
        passes = 1 + sum(isinstance(module, InstanceNorm) for module in network.modules())
        large = sum(_weights_of(up) * 4 ** (n + 1) for n, up in enumerate(ups)) + _weights_of(last) * network.scale**2
        return passes * pixels * (small + large)
    first, second, third = network.encode
    up, again, last = network.decode
    one, two, three, four = (isinstance(block.norm, InstanceNorm) for block in (first, second, up, again))
    full = _weights_of(first) * (one + two + 1) + _weights_of(again) * (four + 1) + _weights_of(last)
    half = _weights_of(second) * (two + 1) + _weights_of(up) * (three + four + 1)
    return pixels * (16 * full + 4 * half + _weights_of(third) + _weights_of(network.transform)) // 16


# --- networks -----------------------------------------------------------------------------------------


@torch.no_grad()
def stream(
    network: TransformNet | SuperResNet,
    read: Read,
    height: int,
    width: int,
    rows: int = 64,
    scratch: str | None = None,
    tick: Tick = lambda _: None,
) -> Strips:
    """What a network makes of a picture, strip by strip; the whole frame's result, but for rounding.

    Args:
        network: in evaluation mode; every variant.
        read: rows of the picture.
        height, width: of the picture.
        rows: of a strip of the input, a multiple of 4.
        scratch: a folder for what is stored at quarter resolution; None keeps it in memory.
        tick: called with how much was done, of ``work``.

    Yields:
        Strips (1, 3, rows, width) of the result, of any heights, top to bottom, as ``network`` gives it.
    """
    kind = _Transform if isinstance(network, TransformNet) else _SuperRes
    yield from kind(network, read, height, width, rows, scratch, tick).output()


class _Run:
    """The passes of one picture."""

    def __init__(
        self, network: Any, read: Read, height: int, width: int, rows: int, scratch: str | None, tick: Tick
    ) -> None:
        self.network, self.read, self.height, self.width = network, read, height, width
        self.rows, self.scratch, self.tick = rows, scratch, tick
        self.mean = network.mean.to(next(network.parameters()).dtype)

    def conv(self, strips: Strips, layer: Conv) -> Strips:
        return self.counted(convolved(strips, layer), layer)

    def up(self, strips: Strips, block: UpBlock) -> Strips:
        return self.counted(enlarged(strips, block), block)

    def counted(self, strips: Strips, layer: nn.Module) -> Strips:
        weights = _weights_of(layer)
        for strip in strips:
            self.tick(strip.shape[2] * strip.shape[3] * weights)
            yield strip


class _Transform(_Run):
    """Of a ``TransformNet``."""

    def input(self) -> Strips:
        """The picture, less the mean, filled up by reflection as ``blocks.fill_up`` does."""
        border, height = self.network.border, self.height
        left, right = border, border + -self.width % 4
        for top in range(-border, height + border + -height % 4, self.rows):
            bottom = min(top + self.rows, height + border + -height % 4)
            places = [_reflected(row, height) for row in range(top, bottom)]
            first, last = min(places), max(places)
            strip = self.read(first, last + 1).to(self.mean.dtype)
            if places != list(range(first, last + 1)):
                strip = strip[:, :, [place - first for place in places]]
            yield reflection_pad(strip - self.mean, left, right, 0, 0)

    def output(self) -> Strips:
        first, second, third = self.network.encode
        up, again, last = self.network.decode

        def whole() -> Strips:  # full resolution
            return (F.relu(norms[0](strip)) for strip in self.conv(self.input(), first.conv))

        def half() -> Strips:
            return (F.relu(norms[1](strip)) for strip in self.conv(whole(), second.conv))

        norms: list[Norm] = [gathered(self.conv(self.input(), first.conv), first.norm)]
        norms.append(gathered(self.conv(whole(), second.conv), second.norm))
        x, norm = self.store(self.conv(half(), third.conv), third.norm)
        self.change(x, lambda strip, _: F.relu(norm(strip)))
        for block in self.network.transform:
            x = self.residual(x, block)

        def half_again() -> Strips:
            return (F.relu(upper[0](strip)) for strip in self.up(self.quarter(x), up))

        def whole_again() -> Strips:
            return (F.relu(upper[1](strip)) for strip in self.up(half_again(), again))

        upper: list[Norm] = [gathered(self.up(self.quarter(x), up), up.norm)]
        upper.append(gathered(self.up(half_again(), again), again.norm))
        done = 0
        for strip in self.conv(whole_again(), last):
            shown = strip[:, :, : max(0, self.height - done), : self.width]
            done += strip.shape[2]
            if shown.shape[2]:
                yield self.network.finished(shown)

    def residual(self, x: Stored, block: ResidualBlock) -> Stored:
        """The sum of what is stored and its change, stored."""
        inner, norm = self.store(self.conv(self.quarter(x), block.first.conv), block.first.norm)
        changed, last = self.store(
            self.conv(self.quarter(inner, lambda strip: F.relu(norm(strip))), block.conv), block.norm
        )
        crop = block.crop

        def summed(strip: Tensor, top: int) -> Tensor:
            skipped = x.read(top + crop, top + crop + strip.shape[2])
            return skipped[..., crop : skipped.shape[3] - crop] + last(strip)

        self.change(changed, summed)
        return changed

    def quarter(self, x: Stored, then: Callable[[Tensor], Tensor] = lambda strip: strip) -> Strips:
        return x.strips(max(1, self.rows // 4), then)

    def change(self, x: Stored, to: Callable[[Tensor, int], Tensor]) -> None:
        """Replace what is stored, strip by strip."""
        top = 0
        for strip in self.quarter(x):
            x.write(top, to(strip, top))
            top += strip.shape[2]

    def store(self, strips: Strips, norm: nn.Module) -> tuple[Stored, Norm]:
        """Keep strips, and gather their moments on the way."""
        stored: Stored | None = None
        top = 0

        def keeping() -> Strips:
            nonlocal stored, top
            for strip in strips:
                if stored is None:
                    # A strip tells channels and width; no picture is higher than a quarter of the input.
                    stored = Stored((self.height + 2 * self.network.border) // 4 + 2, strip, self.scratch)
                stored.write(top, strip)
                top += strip.shape[2]
                yield strip

        passing = keeping()
        known = gathered(passing, norm)
        for _ in passing:  # a norm without moments has read none
            pass
        assert stored is not None
        stored.height = top
        return stored, known


class _SuperRes(_Run):
    """Of a ``SuperResNet``: one pass, and one more for each instance norm, over all that is before it."""

    def output(self) -> Strips:
        self.known: dict[nn.Module, Norm] = {}
        while True:
            try:
                yield from self.passed()
                return
            except _Gathered:  # before the first strip came out
                continue

    def passed(self) -> Strips:
        network = self.network
        x = self.block((strip - self.mean for strip in self.picture()), network.encode.conv, network.encode.norm)
        for block in network.transform:
            if self.known.keys() >= {norm for norm in (block.first.norm, block.norm) if isinstance(norm, InstanceNorm)}:
                x = residual_add(x, functools.partial(self.residual, block=block))
            else:  # this pass ends within
                x = self.residual(x, block)
        for up in network.decode[:-1]:
            x = self.normed(self.up(x, up), up.norm, relu=True)
        result = self.conv(x, network.decode[-1])
        if not network.skip:
            return (network.finished(strip) for strip in result)
        large = upsampled(self.picture(), network.scale, "bicubic")
        return residual_add(large, lambda strips: _led_by(result, strips))

    def picture(self) -> Strips:
        for top in range(0, self.height, self.rows):
            yield self.read(top, min(self.height, top + self.rows)).to(self.mean.dtype)

    def residual(self, strips: Strips, block: ResidualBlock) -> Strips:
        inner = self.block(strips, block.first.conv, block.first.norm)
        return self.normed(self.conv(inner, block.conv), block.norm, relu=False)

    def block(self, strips: Strips, conv: Conv, norm: nn.Module) -> Strips:
        return self.normed(self.conv(strips, conv), norm, relu=True)

    def normed(self, strips: Strips, norm: nn.Module, relu: bool) -> Strips:
        if isinstance(norm, InstanceNorm) and norm not in self.known:
            self.known[norm] = gathered(strips, norm)
            raise _Gathered
        known = self.known.get(norm, norm)
        for strip in strips:
            yield F.relu(known(strip)) if relu else known(strip)


class _Gathered(Exception):  # noqa: N818 - no error: a pass has given the moments that it was for
    """The moments of one more norm are known."""


def _led_by(strips: Strips, others: Strips) -> Strips:
    """Strips, each once as many rows of ``others`` were drawn."""
    drawn = needed = 0
    for strip in strips:
        needed += strip.shape[2]
        while drawn < needed:
            drawn += next(others).shape[2]
        yield strip


def _reflected(row: int, height: int) -> int:
    """The row of the picture that one beyond its border shows."""
    period = 2 * (height - 1)
    row = row % period
    return min(row, period - row)
