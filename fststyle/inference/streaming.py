"""Exact streaming: a style applied strip by strip, with the result of the whole frame, in bounded memory.

Strips are (1, C, rows, W), top to bottom. Convolutions keep the few rows that the next strip needs, so no
pixel is computed twice within a pass. An instance norm needs the moments of the whole picture; they are
sums, gathered over the strips in float64, and the pass after them uses them. Between norms, what has full
or half resolution is computed again from the input; what has quarter resolution is stored.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fststyle.images import to_image, to_pixels
from fststyle.networks.blocks import Conv, InstanceNorm, ResidualBlock, UpBlock, reflection_pad
from fststyle.networks.transform import TransformNet

if TYPE_CHECKING:
    from fststyle.inference.backends import TorchBackend

Strips = Iterator[Tensor]

#: Values of full resolution and the first layer's channels that a whole frame holds at once, as measured.
WHOLE_FRAME = 8
#: Those that a pass over strips holds for each row, padded, convolved and normed.
PER_ROW = 24


# --- pictures -----------------------------------------------------------------------------------------


def whole_frame_bytes(backend: TorchBackend, height: int, width: int) -> int:
    """What one pass over a whole picture takes, roughly, beside picture and weights."""
    return height * width * _channels(backend) * WHOLE_FRAME * _size(backend)


def streamed(
    backend: TorchBackend, rgb: np.ndarray, memory: int, by: Callable[[Tensor], Tensor] | None = None
) -> np.ndarray:
    """Stylise a decoded picture, uint8 (H, W, 3), strip by strip.

    Args:
        backend: of a ``TransformNet``.
        memory: bytes that activations may take. A quarter goes to strips; what is stored at quarter resolution
            goes to a scratch file where it would take more than half.
        by: a filter of 3×3 pixels for the result; None for none.
    """
    network = backend.network
    if not isinstance(network, TransformNet):
        raise ValueError(f"found a {type(network).__name__}; expected a TransformNet, which alone is streamed")
    height, width = rgb.shape[:2]
    row = width * _channels(backend) * PER_ROW * _size(backend)
    rows = max(16, min(256, memory // 4 // row // 4 * 4))
    stored = 3 * height * width // 16 * 4 * _channels(backend) * _size(backend)
    scratch = tempfile.gettempdir() if stored > memory // 2 and backend.device.type == "cpu" else None

    def read(top: int, bottom: int) -> Tensor:
        return to_image(rgb[top:bottom]).to(backend.device)

    output, done = np.empty_like(rgb), 0
    with backend.autocast():
        strips = (strip.float().clamp(0, 1) for strip in stream(network, read, height, width, rows, scratch))
        for strip in strips if by is None else filtered(strips, by):
            output[done : done + strip.shape[2]] = to_pixels(strip)
            done += strip.shape[2]
    return output


def _channels(backend: TorchBackend) -> int:
    return int(backend.network.config["width"])  # type: ignore[index, arg-type, call-overload]


def _size(backend: TorchBackend) -> int:
    return 4 if backend.precision == "float32" else 3  # norms take float32 beside the half


# --- rows ---------------------------------------------------------------------------------------------


def with_rows_around(strips: Strips, count: int, reflect: bool) -> Strips:
    """Add ``count`` rows above and below: reflected about the border rows, or zeros."""
    if not count:
        yield from strips
        return
    held: Tensor | None = None  # the first rows, until there are enough to reflect; then the last ones
    begun = False
    for strip in strips:
        held = strip if held is None else torch.cat([held, strip], 2)
        if not begun:
            if held.shape[2] <= count:
                continue
            begun = True
            head = held[:, :, 1 : count + 1].flip(2)
            yield torch.cat([head if reflect else torch.zeros_like(head), held], 2)
        else:
            yield strip
        held = held[:, :, -(count + 1) :]
    if held is None:
        return
    if not begun:
        raise ValueError(f"found {held.shape[2]} rows; expected more than {count} to reflect")
    tail = held[:, :, -(count + 1) : -1].flip(2)
    yield tail if reflect else torch.zeros_like(tail)


def convolved(strips: Strips, layer: Conv) -> Strips:
    """What a padded convolution makes of the picture."""
    conv, pad = layer.conv, layer.reflect or int(layer.conv.padding[0])
    kernel, stride = int(conv.kernel_size[0]), int(conv.stride[0])
    padded = with_rows_around(strips, pad, bool(layer.reflect))
    wide = (reflection_pad(x, pad, pad, 0, 0) if layer.reflect else F.pad(x, (pad, pad)) for x in padded)
    for part in windows(wide, kernel, stride):
        yield F.conv2d(part, conv.weight, conv.bias, stride)


def filtered(strips: Strips, by: Callable[[Tensor], Tensor]) -> Strips:
    """A filter of 3×3 pixels that reflects at borders, over the picture."""
    for part in windows(with_rows_around(strips, 1, reflect=True), 3):
        yield by(part)[:, :, 1:-1]


def windows(strips: Strips, height: int, stride: int = 1) -> Strips:
    """Strips that overlap, so that each holds whole windows of rows and every window is in one of them."""
    held: Tensor | None = None
    for strip in strips:
        held = strip if held is None else torch.cat([held, strip], 2)
        count = (held.shape[2] - height) // stride + 1
        if count > 0:
            yield held[:, :, : (count - 1) * stride + height]
            held = held[:, :, count * stride :]


def enlarged(strips: Strips, block: UpBlock) -> Strips:
    """What an upsampling convolution makes of the picture, before its norm."""
    if block.nearest:
        assert isinstance(block.conv, Conv)
        yield from convolved((F.interpolate(strip, scale_factor=2.0, mode="nearest") for strip in strips), block.conv)
        return
    # Row 2 i + 1 of a transposed convolution is made of rows i and i + 1: each strip waits for the next one's first.
    held: Tensor | None = None
    for strip in strips:
        if held is not None:
            yield block.conv(torch.cat([held, strip[:, :, :1]], 2))[:, :, : 2 * held.shape[2]]
        held = strip
    if held is not None:
        yield block.conv(held)


# --- moments ------------------------------------------------------------------------------------------


class Moments:
    """Mean and variance of each channel over strips, in float64, merged as Chan, Golub, LeVeque (1979) do."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros(())

    def add(self, strip: Tensor) -> None:
        """Take a strip (1, C, rows, W) in."""
        values = strip[0].double().flatten(1)
        variance, mean = torch.var_mean(values, 1, correction=0)
        count = values.shape[1]
        if not self.count:
            self.count, self.mean, self.squares = count, mean, variance * count
            return
        away, both = mean - self.mean, self.count + count
        self.mean = self.mean + away * (count / both)
        self.squares = self.squares + variance * count + away.square() * (self.count * count / both)
        self.count = both


Norm = Callable[[Tensor], Tensor]


def gathered(strips: Strips, norm: nn.Module) -> Norm:
    """The norm with the moments of the picture; a norm that needs none reads none."""
    if not isinstance(norm, InstanceNorm):
        return norm
    moments = Moments()
    for strip in strips:
        moments.add(strip)
    mean, variance = (x.view(1, -1, 1, 1) for x in (moments.mean, moments.squares / moments.count))
    scale, shift = norm.affine(mean, variance)

    def apply(strip: Tensor) -> Tensor:
        precise = strip if strip.dtype == torch.float64 else strip.float()
        return (precise * scale.to(precise.dtype) + shift.to(precise.dtype)).to(strip.dtype)

    return apply


# --- storage ------------------------------------------------------------------------------------------


class Stored:
    """Rows kept for several passes, in memory or, given a folder, in a scratch file that goes with it."""

    def __init__(self, channels: int, height: int, width: int, like: Tensor, folder: str | None) -> None:
        shape = (height, channels, width)
        if folder is None:
            self.rows = torch.empty(shape, dtype=like.dtype, device=like.device)
            return
        descriptor, file = tempfile.mkstemp(dir=folder, suffix=".scratch")
        os.close(descriptor)
        size = height * channels * width
        self.rows = torch.from_file(file, shared=True, size=size, dtype=like.dtype).view(shape)
        os.unlink(file)  # the space is given back when the last map of it goes

    def write(self, top: int, strip: Tensor) -> None:
        """Put a strip at a row."""
        self.rows[top : top + strip.shape[2]] = strip[0].transpose(0, 1).to(self.rows.device)

    def read(self, top: int, bottom: int) -> Tensor:
        """The strip between two rows."""
        return self.rows[top:bottom].transpose(0, 1)[None]

    def strips(self, count: int, then: Callable[[Tensor], Tensor] = lambda strip: strip) -> Strips:
        """All rows, so many at a time."""
        for top in range(0, len(self.rows), count):
            yield then(self.read(top, top + count))


# --- the network --------------------------------------------------------------------------------------


@torch.no_grad()
def stream(
    network: TransformNet,
    read: Callable[[int, int], Tensor],
    height: int,
    width: int,
    rows: int = 64,
    scratch: str | None = None,
) -> Strips:
    """What a network makes of a picture, strip by strip; the whole frame's result, but for rounding.

    Args:
        network: in evaluation mode; every variant.
        read: rows of the picture from one to before another: (1, 3, bottom - top, width), RGB in [0, 1].
        height, width: of the picture.
        rows: of a strip of the input, a multiple of 4.
        scratch: a folder for what is stored at quarter resolution; None keeps it in memory.

    Yields:
        Strips (1, 3, rows, width) of the result, of any heights, top to bottom, as ``network`` gives it.
    """
    yield from _Run(network, read, height, width, rows, scratch).output()


class _Run:
    """The passes of one picture."""

    def __init__(
        self,
        network: TransformNet,
        read: Callable[[int, int], Tensor],
        height: int,
        width: int,
        rows: int,
        scratch: str | None,
    ) -> None:
        self.network, self.read, self.height, self.width, self.rows, self.scratch = (
            *(network, read, height, width, rows, scratch),
        )
        self.mean = network.mean.to(next(network.parameters()).dtype)

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
        network: Any = self.network
        first, second, third = network.encode
        up, again, last = network.decode

        def whole() -> Strips:  # full resolution
            return (F.relu(norms[0](strip)) for strip in convolved(self.input(), first.conv))

        def half() -> Strips:
            return (F.relu(norms[1](strip)) for strip in convolved(whole(), second.conv))

        norms: list[Norm] = [gathered(convolved(self.input(), first.conv), first.norm)]
        norms.append(gathered(convolved(whole(), second.conv), second.norm))
        x, norm = self.store(convolved(half(), third.conv), third.norm)
        self.change(x, lambda strip, _: F.relu(norm(strip)))
        for block in network.transform:
            x = self.residual(x, block)

        def half_again() -> Strips:
            return (F.relu(upper[0](strip)) for strip in enlarged(self.quarter(x), up))

        def whole_again() -> Strips:
            return (F.relu(upper[1](strip)) for strip in enlarged(half_again(), again))

        upper: list[Norm] = [gathered(enlarged(self.quarter(x), up), up.norm)]
        upper.append(gathered(enlarged(half_again(), again), again.norm))
        done = 0
        for strip in convolved(whole_again(), last):
            shown = strip[:, :, : max(0, self.height - done), : self.width]
            done += strip.shape[2]
            if shown.shape[2]:
                yield network.finished(shown)

    def residual(self, x: Stored, block: ResidualBlock) -> Stored:
        """The sum of what is stored and its change, stored."""
        inner, norm = self.store(convolved(self.quarter(x), block.first.conv), block.first.norm)
        changed, last = self.store(
            convolved(self.quarter(inner, lambda strip: F.relu(norm(strip))), block.conv), block.norm
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
                    most = (self.height + 2 * self.network.border) // 4 + 2
                    stored = Stored(strip.shape[1], most, strip.shape[3], strip, self.scratch)
                stored.write(top, strip)
                top += strip.shape[2]
                yield strip

        passing = keeping()
        known = gathered(passing, norm)
        for _ in passing:  # a norm without moments has read none
            pass
        assert stored is not None
        stored.rows = stored.rows[:top]
        return stored, known


def _reflected(row: int, height: int) -> int:
    """The row of the picture that one beyond its border shows."""
    period = 2 * (height - 1)
    row = row % period
    return min(row, period - row)
