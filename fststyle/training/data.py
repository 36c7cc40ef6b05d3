"""Photographs for training, as one endless sequence of crops, and a few held back from it.

The sequence is the permutation of epoch 0, of epoch 1, …. Which picture a position holds, and how
it is cropped, depends on (seed, position) alone, so the number of workers and ranks changes nothing
and a run goes on at any position.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

import datasets
import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fststyle.checks import check_seed
from fststyle.images import ImageError
from fststyle.training.crops import Scale, as_tensor, centre_crop, collate, decode, random_crop, shortest_side
from fststyle.training.shares import HeldOut, InStyles
from fststyle.training.signals import leave_signals
from fststyle.training.sources import DataError, Generated, Source

log = logging.getLogger(__name__)

#: A picture that cannot be read is replaced by another; after so many in a row the source is given up.
ATTEMPTS = 50
#: The share of unreadable pictures counts once this many were met.
UNREADABLE_MINIMUM = 10


# --- the sequence ---------------------------------------------------------------------------------


class PositionedCrops(Dataset[dict[str, Any]]):
    """Samples by position in the endless training sequence, from a source that can be indexed.

    Args:
        source: rows with an encoded ``image``, or ``Generated``.
        indices: the rows that training may use.
        size, scale: as in ``random_crop``.
        seed: of order and crops.
    """

    def __init__(
        self, source: datasets.Dataset | Generated, indices: Sequence[int], size: int, scale: Scale, seed: int
    ) -> None:
        self.source, self.indices, self.size, self.scale, self.seed = source, indices, size, scale, seed

    def __getitem__(self, position: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, 0, position))
        if isinstance(self.source, Generated):
            picture = self.source.picture(self.seed, position)
            return {"image": as_tensor(random_crop(picture, self.size, self.scale, rng)), "unreadable": []}
        epoch, place = divmod(position, len(self.indices))
        row = int(_permutation(self.seed, epoch, len(self.indices))[place])
        draft = shortest_side(self.size, self.scale)
        unreadable: list[str] = []
        while len(unreadable) < ATTEMPTS:
            try:
                picture = decode(self.source[self.indices[row]], draft)
                return {"image": as_tensor(random_crop(picture, self.size, self.scale, rng)), "unreadable": unreadable}
            except ImageError as error:
                unreadable.append(str(error))
                row = int(rng.integers(len(self.indices)))
        raise DataError(f"{ATTEMPTS} pictures in a row cannot be read, the last: {unreadable[-1]}")


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, 2, epoch)).permutation(count)


class Positions(Sampler[list[int]]):
    """Batches of positions without end: batch k holds first + k · global batch + rank · batch + 0 … batch - 1."""

    def __init__(self, first: int, batch_size: int, rank: int = 0, ranks: int = 1) -> None:
        self.first, self.batch_size, self.rank, self.ranks = first, batch_size, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        first = self.first + self.rank * self.batch_size
        while True:
            yield list(range(first, first + self.batch_size))
            first += self.ranks * self.batch_size


class StreamedPositions(Sampler[list[tuple[int, Any]]]):
    """As ``Positions``, for a source that can only be streamed: pairs of position and encoded row.

    The stream is read here, in the main process, and rows are decoded by the workers; so the order
    is one, whatever their number. It is shuffled within a buffer, anew each epoch, and going on at
    a later batch replays it to there.
    """

    def __init__(self, source: datasets.IterableDataset, skip: int, seed: int, buffer: int, positions: Positions):
        self.source, self.skip, self.seed, self.buffer, self.positions = source, skip, seed, buffer, positions

    def __iter__(self) -> Iterator[list[tuple[int, Any]]]:
        rows = self._rows()
        next_position = 0
        for batch in self.positions:
            taken = []
            for position in batch:
                for _ in range(position - next_position):
                    next(rows)
                taken.append((position, next(rows)))
                next_position = position + 1
            yield taken

    def _rows(self) -> Iterator[Any]:
        epoch = 0
        while True:
            seed = int(np.random.default_rng((self.seed, 2, epoch)).integers(2**31))
            empty = True
            for row in _streamed(self.source.skip(self.skip).shuffle(seed=seed, buffer_size=self.buffer)):
                empty = False
                yield row
            if empty:
                raise DataError(f"the stream has no pictures beyond the {self.skip} that are held back")
            epoch += 1


def _streamed(rows: datasets.IterableDataset) -> Iterator[Any]:
    try:
        yield from rows
    except Exception as error:  # whatever a damaged shard makes tarfile, Arrow or the network raise
        raise DataError(f"the stream broke off: {str(error) or type(error).__name__}") from error


class StreamedCrops(Dataset[dict[str, Any]]):
    """Samples for ``StreamedPositions``; in place of an unreadable picture a generated one."""

    def __init__(self, size: int, scale: Scale, seed: int) -> None:
        self.size, self.scale, self.seed = size, scale, seed

    def __getitem__(self, item: tuple[int, Any]) -> dict[str, Any]:
        position, row = item
        unreadable: list[str] = []
        try:
            picture = decode(row, shortest_side(self.size, self.scale))
        except ImageError as error:
            unreadable.append(str(error))
            picture = Generated(self.size).picture(self.seed, position)
        rng = np.random.default_rng((self.seed, 0, position))
        return {"image": as_tensor(random_crop(picture, self.size, self.scale, rng)), "unreadable": unreadable}


class WithStyles(Dataset[dict[str, Any]]):
    """Samples of another data set, each with a crop of a style picture, which its position decides.

    Args:
        samples: a position, or a pair of position and row, to a sample.
        styles: rows with an encoded ``image``.
        size, scale, seed: as in ``PositionedCrops``.
    """

    def __init__(
        self, samples: Dataset[dict[str, Any]], styles: datasets.Dataset, size: int, scale: Scale, seed: int
    ) -> None:
        self.samples, self.styles, self.size, self.scale, self.seed = samples, styles, size, scale, seed

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]

    def __getitem__(self, item: int | tuple[int, Any]) -> dict[str, Any]:
        style = self.style_for(item if isinstance(item, int) else item[0])
        return {**self.samples[item], "style": style}  # type: ignore[index]

    def style_for(self, position: int) -> Tensor:
        """The crop of a style picture that goes with the sample at a position: (3, size, size)."""
        rng = np.random.default_rng((self.seed, 3, position))
        picture = decode(self.styles[int(rng.integers(len(self.styles)))], shortest_side(self.size, self.scale))
        return as_tensor(random_crop(picture, self.size, self.scale, rng))


# --- the data module ------------------------------------------------------------------------------


class Photographs(pl.LightningDataModule):
    """Batches of photographs, ``{"image": (B, 3, size, size) in [0, 1], "unreadable": messages}``.

    Args:
        source: from ``training.sources``.
        size: of the training crops, pixels.
        batch_size: per rank.
        workers: processes that decode; the sequence is the same for any number.
        seed: of order and crops.
        scale: side of a crop as a share of the picture's shorter side, smallest and largest; None takes
            crops of pixels as they are.
        held_out: photographs kept from training for validation (at most a fifth of them).
        max_unreadable: share of unreadable pictures above which the run is stopped.
        buffer: of the shuffle, for streams.
        styles: style pictures, from ``training.sources``, a crop of which goes with every photograph.
        style_count: of a network's styles; with several, batches have ``which``, (B,), the style of each photograph.

    Raises:
        DataError: an empty source; in the loaders: too many unreadable pictures.
    """

    def __init__(
        self,
        source: Source,
        size: int = 256,
        batch_size: int = 4,
        workers: int = 2,
        seed: int = 0,
        scale: Scale = (0.3, 1.0),
        held_out: int = 32,
        max_unreadable: float = 0.05,
        buffer: int = 1000,
        styles: Source | None = None,
        style_count: int = 1,
    ) -> None:
        super().__init__()
        check_seed(seed, "data.seed")
        if size < 32 or batch_size < 1 or workers < 0:
            raise DataError(
                f"size is {size}, batch_size {batch_size}, workers {workers}; expected at least 32, 1 and 0"
            )
        if held_out < 0 or buffer < 1 or not 0 <= max_unreadable <= 1:
            raise DataError(
                f"held_out is {held_out}, buffer {buffer}, max_unreadable {max_unreadable}; "
                "expected at least 0, at least 1, and a share between 0 and 1"
            )
        if scale and not 0 < scale[0] <= scale[1] <= 1:
            raise DataError(f"scale is {tuple(scale)}; expected two shares with 0 < smallest ≤ largest ≤ 1")
        self.source, self.size, self.batch_size, self.workers, self.seed = source, size, batch_size, workers, seed
        self.scale = (float(scale[0]), float(scale[1])) if scale else None
        self.max_unreadable, self.buffer = max_unreadable, buffer
        if styles is not None and not (isinstance(styles, datasets.Dataset) and len(styles)):
            raise DataError("the style pictures cannot be indexed, or there are none; give a folder of them")
        self.styles, self.style_count = styles, style_count
        self.streamed = isinstance(source, datasets.IterableDataset)
        self.indices: list[int] = []
        held: list[int] = []
        self.held_out = held_out
        if isinstance(source, datasets.Dataset):
            if not len(source):
                raise DataError("the data set is empty; expected at least one picture")
            order = _permutation(seed, -1 % 2**32, len(source))
            self.held_out = min(held_out, len(source) // 5)
            held = sorted(int(i) for i in order[: self.held_out])
            self.indices = sorted(int(i) for i in order[self.held_out :])
        self._held = held
        #: Where a run that was resumed begins, and where its step 0 was, had its batches always been these.
        self._resumed: int | None = None
        self._origin = 0

    def setup(self, stage: str | None = None) -> None:
        """Read the held-out photographs, once."""
        _ = self._held_images

    @cached_property
    def _held_images(self) -> list[Tensor]:
        if isinstance(self.source, Generated):
            # Positions that training cannot reach before 2^62 steps.
            pictures = (self.source.picture(self.seed, 2**62 + i) for i in range(self.held_out))
            return [as_tensor(centre_crop(picture, self.size, self.scale)) for picture in pictures]
        rows = _streamed(self.source.take(self.held_out)) if self.streamed else (self.source[i] for i in self._held)
        images = []
        for row in rows:
            try:
                images.append(as_tensor(centre_crop(decode(row, self.scale and self.size), self.size, self.scale)))
            except ImageError as error:
                log.warning("skipped, cannot be read: %s", error)
        return images

    @property
    def held_out_images(self) -> Tensor:
        """The held-out crops (N, 3, size, size); N may be 0 for a tiny source."""
        return torch.stack(self._held_images) if self._held_images else torch.zeros(0, 3, self.size, self.size)

    def train_dataloader(self) -> DataLoader[Any]:
        """The sequence from the run's position on (from the start, without a trainer)."""
        if self.trainer is None:
            return self._loader(Positions(0, self.batch_size))
        if self._resumed is not None:
            # What the run before took, whatever the size of its batches.
            self._origin = self._resumed - self.trainer.global_step * self.global_batch
            self._resumed = None
        ranks = self.trainer.global_rank, self.trainer.world_size
        return self._loader(Positions(self._position(), self.batch_size, *ranks))

    @property
    def global_batch(self) -> int:
        """The photographs of one step of the optimizer, on all ranks together."""
        trainer = self.trainer
        return self.batch_size * (trainer.accumulate_grad_batches * trainer.world_size if trainer else 1)

    def _position(self) -> int:
        assert self.trainer is not None
        return self._origin + self.trainer.global_step * self.global_batch

    def state_dict(self) -> dict[str, Any]:
        """Where the sequence goes on, and what it depends on."""
        return {"position": self._position(), "seed": self.seed, "pictures": len(self.indices)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._resumed = state["position"]
        if (state["seed"], state["pictures"]) != (self.seed, len(self.indices)):
            log.warning(
                "the run before had seed %d and %d pictures, this one has %d and %d: pictures come in another order",
                *(state["seed"], state["pictures"], self.seed, len(self.indices)),
            )

    def calibration_batches(self, count: int) -> Iterator[Tensor]:
        """The first ``count`` training crops, in batches (B, 3, size, size)."""
        if count < 2:
            raise DataError(f"calibration takes at least 2 photographs; found {count}")
        size = min(8, count)
        batches = iter(self._loader(Positions(0, size)))
        for first in range(0, count, size):
            yield next(batches)["image"][: count - first]

    def batches_from(self, batch: int) -> Iterator[Tensor]:
        """The endless sequence from a batch on, (B, 3, size, size) each, for loops without a trainer."""
        for samples in self._loader(Positions(batch * self.batch_size, self.batch_size)):
            yield samples["image"]

    def _loader(self, positions: Positions) -> DataLoader[Any]:
        dataset: Dataset[dict[str, Any]]
        sampler: Sampler[Any] = positions
        if isinstance(self.source, datasets.IterableDataset):
            dataset = StreamedCrops(self.size, self.scale, self.seed)
            sampler = StreamedPositions(self.source, self.held_out, self.seed, self.buffer, positions)
        else:
            dataset = PositionedCrops(self.source, self.indices, self.size, self.scale, self.seed)
        if self.style_count > 1:
            dataset = InStyles(dataset, self.style_count, self.seed)
        return DataLoader(
            self._with_styles(dataset),
            batch_sampler=sampler,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if self.workers else None,
            worker_init_fn=leave_signals,
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The held-out photographs, the same central crops every time; an empty list where there are none."""
        if not self._held_images:
            return []
        held_out = self._with_styles(HeldOut(self._held_images, self.style_count))
        return DataLoader(held_out, batch_size=self.batch_size, collate_fn=collate)

    def style_pictures(self, count: int) -> Iterator[Tensor]:
        """Crops of the style pictures, (1, 3, size, size) each, those of the first samples."""
        if self.styles is not None:
            known = WithStyles([], self.styles, self.size, self.scale, self.seed)  # type: ignore[arg-type]
            yield from (known.style_for(position)[None] for position in range(count))

    def _with_styles(self, samples: Dataset[dict[str, Any]]) -> Dataset[dict[str, Any]]:
        if self.styles is None:
            return samples
        return WithStyles(samples, self.styles, self.size, self.scale, self.seed)
