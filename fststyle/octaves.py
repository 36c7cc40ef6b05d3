"""A network applied from coarse to fine: first to a small copy of a picture, then to larger ones, each guided by the
result before. What is made at half the size is twice as large in the picture; the last pass draws it finely.

Large strokes are decided where the network's field of view covers them, as in the hierarchical networks of Wang,
Oxholm, Zhang, Wang 2017, "Multimodal transfer"; here one network serves all octaves. Pictures are arrays; no torch.

What a model file says of how its network is applied, octaves and variation, is read and written here, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fststyle.images import MIN_SIDE

#: Share of the photograph in what an octave sees; the rest is the enlarged result of the octave before.
PHOTOGRAPH = 0.5
#: More are refused.
MOST = 6
#: Longer side, in pixels, up to which strokes have the size that the network gives them, unless a style says otherwise.
GROW_FROM = 1024
#: Of ``StylizeOptions.variation``; more is refused.
MOST_VARIATION = 0.5


@dataclass(frozen=True)
class Variation:
    """How much lightness varies in even areas of what a network sees (``inference.variation``).

    Args:
        amount: standard deviation where it is quite even, of a range of 1.
        width: pixels across a mark; wider ones suit styles of planes.
    """

    amount: float = 0.1
    width: float = 10.0

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Variation:
        """What a model file asks for: none, if it says nothing, or nothing that makes sense."""
        found = metadata.get("variation")
        try:
            asked = cls(**{key: float(value) for key, value in dict(found or {"amount": 0}).items()})
        except (TypeError, ValueError):
            return NO_VARIATION
        sensible = 0 <= asked.amount <= MOST_VARIATION and 4 <= asked.width <= 100
        return asked if sensible else NO_VARIATION


NO_VARIATION = Variation(0.0)


def check_octaves(octaves: int) -> int:
    """Raise ``ValueError`` for a number of octaves that cannot be."""
    if not 1 <= octaves <= MOST:
        raise ValueError(f"octaves is {octaves}; expected a whole number from 1 (a single pass) to {MOST}")
    return octaves


def trained_octaves(metadata: Mapping[str, Any]) -> int:
    """How many octaves a model file's network was trained in."""
    octaves = metadata.get("octaves", 1)
    return octaves if isinstance(octaves, int) and 1 <= octaves <= MOST else 1


def inference_metadata(octaves: int) -> dict[str, Any]:
    """What a newly trained network's file says of how it is applied."""
    return {"octaves": octaves} | ({"variation": asdict(Variation())} if octaves > 1 else {})


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
