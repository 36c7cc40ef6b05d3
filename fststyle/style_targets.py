"""Style targets in a model file: of Gram matrices the upper triangle in float32; quantiles and colours in float16.

Where a file holds many styles, triangles are in float16 too, as ``halved`` has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


#: Largest value of a halved triangle, as a power of 2: float16 ends at 65504.
_TOP = 15


def stored(targets: Mapping[str, Tensor], under: str, half: bool = False) -> dict[str, Tensor]:
    """Style targets (1, …) as a file has them, by name; ``half``: Gram matrices in half as many bytes."""
    import torch

    tensors = {}
    for layer, target in targets.items():
        is_gram = target.shape[1] == target.shape[2] and torch.allclose(target, target.transpose(1, 2), 1e-4)
        folded = fold(target) if is_gram else compact(target[0])
        tensors[f"{under}.{layer}"] = halved(folded) if is_gram and half else folded
    return tensors


def halved(triangle: Tensor) -> Tensor:
    """A triangle in float16, times the power of 2 that uses its range, whose exponent comes last: exact to 2⁻¹¹."""
    import torch

    top = float(triangle.abs().max())
    exponent = _TOP - math.frexp(top)[1] if top else 0
    return torch.cat([torch.ldexp(triangle, torch.tensor(exponent)), torch.tensor([float(exponent)])]).half()


def all_restored(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Style targets (1, …) again, by layer."""
    return {layer: restored(value) for layer, value in values.items()}


def restored(values: Tensor) -> Tensor:
    """A style target (1, …) again."""
    if values.dim() == 1 and values.element_size() == 2:
        *_, exponent = values.tolist()
        return unfold(values[:-1].float() * 2.0**-exponent)
    if values.dim() == 1:
        return unfold(values)
    if values.dim() != 2 or values.shape[0] % 2:
        raise ValueError(f"a style target has the shape {tuple(values.shape)}; expected (2 C, quantiles)")
    return values[None].float()


def compact(values: Tensor) -> Tensor:
    """In float16, where its range suffices."""
    return (values.half() if values.abs().max() < 6e4 else values.float()).cpu().contiguous()


def fold(gram: Tensor) -> Tensor:
    """The upper triangle (C (C + 1) / 2,) of a symmetric matrix (1, C, C), float32."""
    import torch

    rows, columns = torch.triu_indices(*gram.shape[-2:])
    return gram[0].float().cpu()[rows, columns].contiguous()


def unfold(triangle: Tensor) -> Tensor:
    """The symmetric matrix (1, C, C) of an upper triangle."""
    import torch

    n = int(((8 * triangle.numel() + 1) ** 0.5 - 1) / 2)
    rows, columns = torch.triu_indices(n, n)
    gram = triangle.new_zeros(1, n, n)
    gram[0, rows, columns] = triangle
    gram[0, columns, rows] = triangle
    return gram
