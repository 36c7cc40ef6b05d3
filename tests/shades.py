"""Photographs of one shade each, and the batches that they come in."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor

from fststyle.training.data import Photographs
from fststyle.training.sources import Source, folder

SHADES = 13  # a prime: no batch size divides an epoch


def shade(index: int) -> tuple[int, int, int]:
    return 10 * index + 5, 90, 250 - 10 * index


def shades_of(images: Tensor) -> list[int]:
    """Which of the shades each image (B, 3, H, W) was cropped from."""
    red = images[:, 0].mean((1, 2)) * 255
    return [round((float(value) - 5) / 10) for value in red]


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    features = datasets.Features({"image": datasets.Image(decode=False)})
    datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(str(path))


def photographs_of(source: Source, **options: Any) -> Photographs:
    return Photographs(source, **{"size": 32, "batch_size": 4, "workers": 0, "held_out": 2, **options})


def batches(data: Photographs, count: int) -> list[dict[str, Any]]:
    return list(islice(data.train_dataloader(), count))


def images(data: Photographs, count: int) -> Tensor:
    return torch.cat([batch["image"] for batch in batches(data, count)])


def whole(path: Path) -> Tensor:
    """Half of the training crops are mirrored, all of them are the whole picture: the mean over a few."""
    data = photographs_of(folder(path), held_out=0, scale=(1.0, 1.0), batch_size=1)
    return images(data, 6).mean(0) * 255
