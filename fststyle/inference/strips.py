"""Strips of rows of a feature map, (1, C, rows, W), top to bottom: convolutions, upsampling, moments, storage.

Each operation keeps the few rows that its next strip needs, so no pixel is computed twice within a pass. Strips may
have any heights, and an operation's result may come in strips of other heights.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fststyle.images.large import Scratch
from fststyle.networks.blocks import Conv, InstanceNorm, KuwaharaFilter, TransposedConv
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
        last = strip[:, :, -(count + 1) :] if begun else strip
        held = last if held is None else torch.cat([held, last], 2)
        if begun:
            yield strip
        elif held.shape[2] <= count:
            continue
        else:
            begun = True
            yield torch.cat([_beyond(held[:, :, : count + 1].flip(2), fill), held], 2)
        held = held[:, :, -(count + 1) :].clone()  # not a view, which would keep the whole strip in memory
        del strip, last
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


def by_rows(strips: Strips, apply: Callable[[Tensor, int], Tensor]) -> Strips:
    """What is made of each strip by itself and the row of the picture that it begins with."""
    top = 0
    for strip in strips:
        yield apply(strip, top)
        top += strip.shape[2]


def filtered(strips: Strips, by: Callable[[Tensor], Tensor]) -> Strips:
    """A filter of 3×3 pixels that reflects at borders, over the picture."""
    for part in windows(with_rows_around(strips, 1, "reflect"), 3):
        yield by(part)[:, :, 1:-1]


def finished(strips: Strips, by: KuwaharaFilter) -> Strips:
    """A network's result, filtered."""
    r, top = by.reach, 0
    for part in windows(with_rows_around(strips, r, "reflect"), 2 * r + 1):
        yield by.of_padded(reflection_pad(part, r, r, 0, 0), top)
        top += part.shape[2] - 2 * r


def windows(strips: Strips, height: int, stride: int = 1) -> Strips:
    """Strips that overlap, so that each holds whole windows of rows and every window is in one of them."""
    held: Tensor | None = None
    for strip in strips:
        held = strip if held is None else torch.cat([held, strip], 2)
        count = (held.shape[2] - height) // stride + 1
        if count > 0:
            yield held[:, :, : (count - 1) * stride + height]
            held = held[:, :, count * stride :].clone()  # not a view, which would keep the whole strip in memory
        del strip


def doubled(strips: Strips, layer: TransposedConv) -> Strips:
    """What a transposed convolution makes of the picture."""
    # Row 2 i + 1 of its result is made of rows i and i + 1: each strip waits for the next one's first row.
    held: Tensor | None = None
    for strip in strips:
        if held is not None:
            yield layer(torch.cat([held, strip[:, :, :1]], 2))[:, :, : 2 * held.shape[2]]
        held = strip
    if held is not None:
        yield layer(held)


def upsampled(strips: Strips, layer: nn.Upsample) -> Strips:
    """What nearest, bilinear or bicubic upsampling by a whole number makes of the picture."""
    reaches, scale = {"nearest": 0, "bilinear": 1, "bicubic": 2}, int(layer.scale_factor or 0)  # type: ignore[arg-type]
    if scale != layer.scale_factor or layer.mode not in reaches or layer.align_corners:
        raise ValueError(f"tiled inference cannot evaluate {layer}; expected a whole scale_factor, no align_corners")
    reach = reaches[layer.mode]
    for part in windows(with_rows_around(strips, reach, "edge"), 2 * reach + 1):
        large = layer(part)
        yield large[:, :, reach * scale : large.shape[2] - reach * scale]


def cropped(strips: Strips, rows: slice, columns: slice) -> Strips:
    """A part of the picture; ``rows.stop`` may be None for all rows."""
    done = 0
    for strip in strips:
        stop = None if rows.stop is None else max(0, rows.stop - done)
        part = strip[:, :, max(0, rows.start - done) : stop, columns]
        done += strip.shape[2]
        if part.shape[2]:
            yield part


def added(strips: Strips, others: Strips) -> Strips:
    """The sum of two feature maps of one size. Of ``strips`` no more is read than the next of ``others`` needs."""
    held: Tensor | None = None
    for other in others:
        rows = other.shape[2]
        while held is None or held.shape[2] < rows:
            held = next(strips) if held is None else torch.cat([held, next(strips)], 2)
        yield held[:, :, :rows] + other
        held = held[:, :, rows:] if held.shape[2] > rows else None


def residual_sum(strips: Strips, change: Callable[[Strips], Strips], crop: int) -> Strips:
    """A feature map, cropped by ``crop`` pixels on every side, and its change; strips wait until theirs is known."""
    waiting: deque[Tensor] = deque()

    def through() -> Strips:
        for strip in strips:
            waiting.append(strip)
            yield strip

    return added(without_border((waiting.popleft() for _ in count()), crop), change(through()))


def without_border(strips: Strips, border: int) -> Strips:
    """A feature map without ``border`` columns left and right and rows at the top; rows at the bottom are left."""
    return cropped(strips, slice(border, None), slice(border, -border or None))


# --- moments ------------------------------------------------------------------------------------------


class Moments:
    """Mean and variance of each channel over strips, in float64, merged as Chan, Golub, LeVeque (1979) do."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros(())

    def add(self, strip: Tensor) -> None:
        """Take in a strip (1, C, rows, W), or (0, C, rows, W), which has no moments."""
        count = strip.numel() // strip.shape[1]
        if not count:  # a batch of no pictures
            return
        variance, mean = torch.var_mean(strip.double(), (0, 2, 3), correction=0)
        if not self.count:
            self.count, self.mean, self.squares = count, mean, variance * count
            return
        away, both = mean - self.mean, self.count + count
        self.mean = self.mean + away * (count / both)
        self.squares = self.squares + variance * count + away.square() * (self.count * count / both)
        self.count = both

    def applied(self, norm: InstanceNorm, strips: Strips) -> Strips:
        """The norm of a feature map by these moments; a batch of no pictures has none, and stays as it is."""
        mean, variance = (x.view(1, -1, 1, 1) for x in (self.mean, self.squares / max(self.count, 1)))

        def normed(strip: Tensor, top: int) -> Tensor:
            if not self.count:
                return strip
            precise = strip if strip.dtype == torch.float64 else strip.float()
            return norm.normed(precise, mean, variance, top).to(strip.dtype)

        return by_rows(strips, normed)


# --- storage ------------------------------------------------------------------------------------------


class Stored:
    """A feature map kept for several passes: in memory or, given a folder, in a scratch file that goes with it."""

    def __init__(self, folder: str | None) -> None:
        self.folder = folder
        self.height = self.values = self.tallest = 0
        self.kept: list[Tensor] = []
        self.file: Scratch | None = None

    def add(self, strip: Tensor) -> None:
        """Put a strip below those that are there."""
        if self.folder is None:
            self.kept.append(strip)
        else:
            rows = strip[0].transpose(0, 1).cpu().contiguous().view(torch.uint8).numpy()
            if self.file is None:
                self.like, self.file = strip[:, :, :0], Scratch((0, *rows.shape[1:]), np.uint8, self.folder)
            self.file.write(self.height, rows)
        self.height, self.values = self.height + strip.shape[2], self.values + strip.shape[1:].numel()
        self.tallest = max(self.tallest, strip.shape[2])

    def strips(self) -> Strips:
        """All rows, in strips of about one height: passes leave small ones at the borders."""
        if self.file is None:
            held: list[Tensor] = []
            for n, strip in enumerate(self.kept, 1):
                held.append(strip)
                if 2 * sum(part.shape[2] for part in held) >= self.tallest or n == len(self.kept):
                    yield torch.cat(held, 2) if len(held) > 1 else strip
                    held = []
            return
        for top in range(0, self.height, self.tallest):
            rows = torch.from_numpy(self.file.read(top, min(self.height, top + self.tallest))).view(self.like.dtype)
            yield rows.to(self.like.device).transpose(0, 1)[None]
