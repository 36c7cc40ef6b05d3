"""Which style each photograph is painted in, where a network learns several: every one gets an equal share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset


class InStyles(Dataset[dict[str, Any]]):
    """Samples of another data set, each with the number of a style, which its position decides.

    Of every ``count`` positions in a row, from a multiple of it on, each has another style, in an order that is drawn
    anew; so all styles get equally many, whatever the size of a batch.

    Args:
        samples: a position, or a pair of position and row, to a sample.
        count: of the styles.
        seed: as in ``PositionedCrops``.
    """

    def __init__(self, samples: Dataset[dict[str, Any]], count: int, seed: int) -> None:
        self.samples, self.count, self.seed = samples, count, seed

    def __getitem__(self, item: int | tuple[int, Any]) -> dict[str, Any]:
        block, place = divmod(item if isinstance(item, int) else item[0], self.count)
        order = np.random.default_rng((self.seed, 6, block)).permutation(self.count)
        return {**self.samples[item], "which": int(order[place])}  # type: ignore[index]


#: Held-out photographs that each of several styles is judged by, at least, if there are so many.
HELD_OUT_EACH = 4


class HeldOut(Dataset[dict[str, Any]]):
    """Fixed central crops of the photographs kept from training.

    Several styles share them, so that judging takes about as long as for one: each has an equal number of its own, the
    next ones in turn, in the order of the styles.

    Args:
        images: (3, size, size) each.
        styles: how many there are.
    """

    def __init__(self, images: Sequence[Tensor], styles: int = 1) -> None:
        self.images, self.styles = images, styles
        #: Photographs that each style has.
        self.each = max(-(-len(images) // styles), min(HELD_OUT_EACH, len(images)))

    def __len__(self) -> int:
        return self.styles * self.each

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = {"which": index // self.each} if self.styles > 1 else {}
        return {"image": self.images[index % len(self.images)], "unreadable": [], **which}
