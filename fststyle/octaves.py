"""A network applied from coarse to fine: first to a small copy of a picture, then to larger ones, each guided by the
result before. What is made at half the size is twice as large in the picture; the last pass draws it finely.

Large strokes are decided where the network's field of view covers them, as in the hierarchical networks of Wang,
Oxholm, Zhang, Wang 2017, "Multimodal transfer"; here one network serves all octaves. Pictures are arrays; no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fststyle.images import MIN_SIDE

#: Share of the photograph in what an octave sees; the rest is the enlarged result of the octave before.
PHOTOGRAPH = 0.5
#: More are refused.
MOST = 6
#: Longer side, in pixels, up to which strokes have the size that the network gives them, unless a style says otherwise.
GROW_FROM = 1024
#: Of ``StylizeOptions.variation``: what networks that are trained in octaves ask for; more than the second is refused.
VARIATION, MOST_VARIATION = 0.1, 0.5


def check_octaves(octaves: int) -> int:
    """Raise ``ValueError`` for a number of octaves that cannot be."""
    if not 1 <= octaves <= MOST:
        raise ValueError(f"octaves is {octaves}; expected a whole number from 1 (a single pass) to {MOST}")
    return octaves


def trained_octaves(metadata: Mapping[str, Any]) -> int:
    """How many octaves a model file's network was trained in."""
    octaves = metadata.get("octaves", 1)
    return octaves if isinstance(octaves, int) and 1 <= octaves <= MOST else 1


def halved(height: int, width: int) -> tuple[int, int]:
    """The size of the octave before."""
    return -(-height // 2), -(-width // 2)


def room_for(height: int, width: int) -> int:
    """How many octaves a picture has room for: none is smaller than the smallest picture that a network takes."""
    return (max(MIN_SIDE, min(height, width)) // MIN_SIDE).bit_length()


def guided(photo: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """What an octave sees: the mean of the photograph and the enlarged result before, of one size and type."""
    return ((photo.astype(np.uint32) + guide + 1) // 2).astype(photo.dtype)


def grow_from(metadata: Mapping[str, Any]) -> float:
    """Longer side, in pixels, from which a model file's strokes grow with the picture."""
    found = metadata.get("grow_from", GROW_FROM)
    return float(found) if isinstance(found, int | float) and found >= MIN_SIDE else GROW_FROM


def variation(metadata: Mapping[str, Any]) -> float:
    """How much lightness is to vary in even areas of what a model file's network sees (``inference.variation``)."""
    found = metadata.get("variation", 0)
    return float(found) if isinstance(found, int | float) and 0 <= found <= MOST_VARIATION else 0.0
