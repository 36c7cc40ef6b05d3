"""Strips of a picture, (1, C, rows, W), top to bottom: convolutions, enlargements and moments over them.

Each keeps the few rows that the next strip needs, so no pixel is computed twice within a pass. Strips may have any
heights, and change them on the way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fststyle.images.large import Scratch
from fststyle.networks.blocks import Conv, InstanceNorm, UpBlock
from fststyle.padding import reflection_pad

Strips = Iterator[Tensor]

# --- rows ---------------------------------------------------------------------------------------------

Fill = Literal["reflect", "zeros", "edge"]


def with_rows_around(strips: Strips, count: int, fill: Fill) -> Strips:
    """Add ``count`` rows above and below: reflected about the border rows, zeros, or the border rows again."""
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
            yield torch.cat([_beyond(held[:, :, : count + 1].flip(2), fill), held], 2)
        else:
            yield strip
        held = held[:, :, -(count + 1) :]
    if held is None:
        return
    if not begun:
        raise ValueError(f"found {held.shape[2]} rows; expected more than {count} to reflect")
    yield _beyond(held[:, :, -(count + 1) :].flip(2), fill, after=True)


def _beyond(mirrored: Tensor, fill: Fill, after: bool = False) -> Tensor:
    """Rows beyond a border, of the mirrored rows up to it."""
    border = mirrored[:, :, :1] if after else mirrored[:, :, -1:]
    others = mirrored[:, :, 1:] if after else mirrored[:, :, :-1]
    if fill == "edge":
        return border.expand_as(others)
    return others if fill == "reflect" else torch.zeros_like(others)


def convolved(strips: Strips, layer: Conv) -> Strips:
    """What a padded convolution makes of the picture."""
    conv, pad = layer.conv, layer.reflect or int(layer.conv.padding[0])
    kernel, stride = int(conv.kernel_size[0]), int(conv.stride[0])
    padded = with_rows_around(strips, pad, "reflect" if layer.reflect else "zeros")
    wide = (reflection_pad(x, pad, pad, 0, 0) if layer.reflect else F.pad(x, (pad, pad)) for x in padded)
    for part in windows(wide, kernel, stride):
        yield F.conv2d(part, conv.weight, conv.bias, stride)


def filtered(strips: Strips, by: Callable[[Tensor], Tensor]) -> Strips:
    """A filter of 3×3 pixels that reflects at borders, over the picture."""
    for part in windows(with_rows_around(strips, 1, "reflect"), 3):
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
    if block.upsampling != "transposed":
        assert isinstance(block.conv, Conv)
        yield from convolved(upsampled(strips, 2, block.upsampling), block.conv)
        return
    # Row 2 i + 1 of a transposed convolution is made of rows i and i + 1: each strip waits for the next one's first.
    held: Tensor | None = None
    for strip in strips:
        if held is not None:
            yield block.conv(torch.cat([held, strip[:, :, :1]], 2))[:, :, : 2 * held.shape[2]]
        held = strip
    if held is not None:
        yield block.conv(held)


def upsampled(strips: Strips, scale: int, mode: str) -> Strips:
    """An enlargement of the picture, as ``torch.nn.functional.interpolate`` makes it: nearest, bilinear or bicubic."""
    reach = {"nearest": 0, "bilinear": 1, "bicubic": 2}[mode]
    for part in windows(with_rows_around(strips, reach, "edge"), 2 * reach + 1):
        large = F.interpolate(part, scale_factor=float(scale), mode=mode)
        yield large[:, :, reach * scale : large.shape[2] - reach * scale]


def residual_add(strips: Strips, change: Callable[[Strips], Strips]) -> Strips:
    """The sum of a picture and its change, of one size: what is ahead of its change waits for it."""
    waiting: deque[Tensor] = deque()

    def passing() -> Strips:
        for strip in strips:
            waiting.append(strip)
            yield strip

    for changed in change(passing()):
        yield torch.cat(list(taken(waiting, changed.shape[2])), 2) + changed


def taken(waiting: deque[Tensor], rows: int) -> Strips:
    """So many rows off the front of strips that wait."""
    while rows:
        strip = waiting.popleft()
        if strip.shape[2] > rows:
            waiting.appendleft(strip[:, :, rows:])
            strip = strip[:, :, :rows]
        rows -= strip.shape[2]
        yield strip


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

    def __init__(self, height: int, like: Tensor, folder: str | None) -> None:
        """``height`` rows at most, of the channels, width, type and device of a strip."""
        shape = (height, like.shape[1], like.shape[3])
        self.height, self.like = height, like[:, :, :0]
        self.rows = torch.empty(shape, dtype=like.dtype, device=like.device) if folder is None else None
        self.file = None if folder is None else Scratch((*shape[:2], shape[2] * like.element_size()), np.uint8, folder)

    def write(self, top: int, strip: Tensor) -> None:
        """Put a strip at a row."""
        rows = strip[0].transpose(0, 1)
        if self.rows is not None:
            self.rows[top : top + strip.shape[2]] = rows
        elif self.file is not None:
            self.file.write(top, rows.cpu().contiguous().view(torch.uint8).numpy())

    def read(self, top: int, bottom: int) -> Tensor:
        """The strip between two rows."""
        if self.file is None:
            assert self.rows is not None
            return self.rows[top:bottom].transpose(0, 1)[None]
        rows = torch.from_numpy(self.file.read(top, bottom)).view(self.like.dtype)
        return rows.to(self.like.device).transpose(0, 1)[None]

    def strips(self, count: int, then: Callable[[Tensor], Tensor] = lambda strip: strip) -> Strips:
        """All rows, so many at a time."""
        for top in range(0, self.height, count):
            yield then(self.read(top, min(self.height, top + count)))
