"""Where photographs come from: folders, the Hugging Face hub, local shards, or made on the fly.

A source gives encoded pictures by index (``datasets.Dataset``), in a stream
(``datasets.IterableDataset``), or makes them by position (``Generated``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from fststyle.checks import absent, is_address
from fststyle.images import ImageError, find_pictures
from fststyle.resources import printable, user_path
from fststyle.training.generated import dead_leaves


class DataError(ValueError):
    """A source of photographs that cannot be used; the message says what was found and expected."""


def folder(path: str | os.PathLike[str]) -> datasets.Dataset:
    """All pictures below a folder, sub-folders included, in the order of their names."""
    try:
        files = [as_utf8(str(file)) for file in find_pictures(path)]
    except ImageError as error:
        raise DataError(f"the data set is empty: {error}") from None
    return _undecoded(datasets.Dataset.from_dict({"image": files}), "image")


def as_utf8(name: str) -> str:
    """A file's name as Arrow takes it: of one that is not UTF-8, its bytes in hexadecimal digits after a null."""
    return name if printable(name) == name else "\0" + os.fsencode(name).hex()


def from_utf8(text: str) -> str:
    """The name that ``as_utf8`` was given."""
    return os.fsdecode(bytes.fromhex(text[1:])) if text.startswith("\0") else text


def hub(
    repository: str, split: str = "train", column: str = "image", streaming: bool = False
) -> datasets.Dataset | datasets.IterableDataset:
    """A data set of the Hugging Face hub, downloaded once, or streamed."""
    return _undecoded(_load(repository, split=split, streaming=streaming), column)


def parquet(
    files: str | os.PathLike[str] | Sequence[str], column: str = "image", streaming: bool = False
) -> datasets.Dataset | datasets.IterableDataset:
    """Local parquet files (a glob, a folder or a list) with a column of encoded pictures."""
    found = _local_files(files, ".parquet")
    return _undecoded(_load("parquet", data_files=found, split="train", streaming=streaming), column)


def webdataset(
    files: str | os.PathLike[str] | Sequence[str], column: str = "jpg", streaming: bool = True
) -> datasets.Dataset | datasets.IterableDataset:
    """Local tar shards in the WebDataset layout; ``column`` is the members' ending."""
    found = _local_files(files, ".tar")
    return _undecoded(_load("webdataset", data_files=found, split="train", streaming=streaming), column)


class Generated:
    """Dead-leaves pictures made on the fly: endless, offline, no two alike."""

    def __init__(self, size: int = 320) -> None:
        self.size = size

    def picture(self, seed: int, position: int) -> Image.Image:
        """The picture at a position: always the same one for the same seed."""
        return Image.fromarray(dead_leaves(self.size, np.random.default_rng((seed, 1, position))))


Source = datasets.Dataset | datasets.IterableDataset | Generated


def _load(name: str, **options: Any) -> Any:
    try:
        return datasets.load_dataset(name, **options)
    except Exception as error:  # the library raises many kinds: no connection, no such set, no such split
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"the data set {name!r} ({', '.join(f'{k}={v}' for k, v in options.items() if k != 'data_files')}) "
            f"cannot be loaded: {reason}"
        ) from None


def _local_files(files: str | os.PathLike[str] | Sequence[str], suffix: str) -> list[str]:
    found: list[str] = []
    for pattern in [files] if isinstance(files, (str, os.PathLike)) else files:
        if is_address(pattern):
            raise DataError(absent(pattern))
        path = user_path(pattern)
        if path.is_dir():
            found += sorted(str(p) for p in path.rglob(f"*{suffix}"))
        elif path.is_file():
            found.append(str(path))
        else:
            base = next((parent for parent in path.parents if parent.is_dir()), Path())  # it is called so, not alike
            found += sorted(str(p) for p in base.glob(str(path.relative_to(base))) if p.is_file())
    if not found:
        raise DataError(f"the data set is empty: no {suffix} file matches {files!r}")
    return found


def _undecoded(source: Any, column: str) -> Any:
    columns = source.column_names
    if columns is not None and column not in columns:
        raise DataError(f"the data set has no column {column!r}; its columns are {', '.join(columns)}")
    # Decoding is ours: one damaged picture must not end a run, and JPEGs can be decoded at a smaller scale.
    source = source.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    return source.rename_column(column, "image") if column != "image" else source


# --- which source it is -----------------------------------------------------------------------------

#: Files whose content counts, spread evenly over a source, and bytes of each, from its beginning and from its end.
_READ, _ENDS = 64, 2**16


def fingerprint(settings: Mapping[str, Any] | None) -> str | None:
    """What tells one source from another, wherever it lies: its kind and settings, and a hash of its files.

    The names and sizes of all files count, and the content of some.

    Args:
        settings: a source's in ``conf/data``: ``_target_``, and what it takes.
    """
    if not settings:
        return None
    kind, *said = (str(settings["_target_"]).rpartition(".")[2], settings.get("path"), settings.get("files"))
    place = next((each for each in said if each), None)
    rest = ", ".join(f"{k}={v}" for k, v in settings.items() if k not in ("_target_", "path", "files"))
    name = " ".join([kind, *([rest] if rest else [])])
    if place is None or kind not in ("folder", "parquet", "webdataset"):
        return name if place is None else f"{name} {place}"
    if kind == "folder":
        root = user_path(place)
        files = [(os.fspath(file.relative_to(root)), file) for file in find_pictures(root)]
    else:
        files = [
            (Path(file).name, Path(file)) for file in _local_files(place, {"parquet": ".parquet"}.get(kind, ".tar"))
        ]
    digest = hashlib.sha256(name.encode())
    chosen = {index * len(files) // _READ for index in range(_READ)}
    for number, (below, file) in enumerate(files):
        digest.update(os.fsencode(below) + b"\0%d" % file.stat().st_size)
        if number in chosen:
            with open(file, "rb") as content:
                digest.update(content.read(_ENDS))
                content.seek(max(0, file.stat().st_size - _ENDS))
                digest.update(content.read(_ENDS))
    folder = Path(str(place)).name if isinstance(place, str) else ""
    return f"{name}{' ' if folder else ''}{folder}, {len(files)} files ({digest.hexdigest()[:12]})"
