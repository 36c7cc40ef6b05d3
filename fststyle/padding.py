"""Padding by reflection, and cropping, as networks and encoders use them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def reflection_pad(image: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pad by reflection about the border pixels, which are not repeated.

    A pad of the picture's size or more folds back and forth, as ``numpy.pad(mode="reflect")`` does;
    ``torch.nn.functional.pad`` refuses it.

    Args:
        image: (B, C, H, W), any dtype.
        left, right, top, bottom: pixels to add, ≥ 0.

    Returns:
        (B, C, top + H + bottom, left + W + right).
    """
    height, width = image.shape[-2:]
    once = max(top, bottom) < height and max(left, right) < width and image.is_floating_point()
    if torch.compiler.is_exporting() or (once and torch.compiler.is_compiling()):
        return F.pad(image, (left, right, top, bottom), mode="reflect")
    if not once or not image.numel():
        return _reflect(_reflect(image, top, bottom, dim=2), left, right, dim=3)
    if image.is_cuda and image.requires_grad and torch.is_grad_enabled():
        return _Reflected.apply(image, left, right, top, bottom)  # type: ignore[no-any-return]
    return F.pad(image, (left, right, top, bottom), mode="reflect")


class _Reflected(torch.autograd.Function):
    """``F.pad``, whose own gradient adds up on a GPU in an order that changes from run to run."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
        ctx.pads = ((3, left, right), (2, top, bottom))
        return F.pad(image, (left, right, top, bottom), mode="reflect")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        for dim, before, after in ctx.pads:
            size = gradient.shape[dim] - before - after
            inner = gradient.narrow(dim, before, size).clone()
            inner.narrow(dim, 1, before).add_(gradient.narrow(dim, 0, before).flip(dim))
            inner.narrow(dim, size - 1 - after, after).add_(gradient.narrow(dim, before + size, after).flip(dim))
            gradient = inner
        return gradient, None, None, None, None


def pad_to_multiple(image: Tensor, multiple: int, border: int = 0) -> Tensor:
    """Pad by reflection: ``border`` on every side, and right and bottom up to a multiple of ``multiple`` pixels.

    Args:
        image: (B, C, H, W).

    Returns:
        (B, C, H' + 2 · border, W' + 2 · border) with H', W' the multiples.
    """
    b, (height, width) = border, image.shape[-2:]
    if torch.compiler.is_exporting():  # runtimes want pads that do not depend on the size: pad too far, then crop
        padded = reflection_pad(image, b, b + multiple - 1, b, b + multiple - 1)
        bottom, right = (2 * b + (side + multiple - 1) // multiple * multiple for side in (height, width))
        return crop(padded, bottom, right)
    return reflection_pad(image, b, b + -width % multiple, b, b + -height % multiple)


def crop(image: Tensor, height: int, width: int) -> Tensor:
    """The upper left ``height`` × ``width`` pixels of an image (B, C, H, W)."""
    if torch.compiler.is_exporting():  # a slice would tie the graph to sizes at which it is as contiguous as now
        rows, columns = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
        return image.index_select(2, rows).index_select(3, columns)
    return image[:, :, :height, :width]


def _reflect(x: Tensor, before: int, after: int, dim: int) -> Tensor:
    while before or after:
        size = x.shape[dim]
        if size == 1:  # one pixel has nothing to fold about: numpy repeats it
            parts = [x] * (before + 1 + after)
            before = after = 0
        else:
            a, b = min(before, size - 1), min(after, size - 1)
            head = [x.narrow(dim, 1, a).flip(dim)] if a else []
            tail = [x.narrow(dim, size - 1 - b, b).flip(dim)] if b else []
            parts = [*head, x, *tail]
            before, after = before - a, after - b
        x = torch.cat(parts, dim)
    return x
