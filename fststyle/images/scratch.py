"""Arrays in files without a name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np


class Scratch:
    """Rows of an array in a file that has no name, so that it goes with the process.

    Args:
        shape: (rows, …); a row has the rest.
        dtype: numpy's.
        folder: where the space is taken.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, folder: str | os.PathLike[str]) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.row = int(np.prod(shape[1:], dtype=np.int64)) * self.dtype.itemsize
        self._named: str | None = None
        self.file, name = tempfile.mkstemp(prefix=".fststyle-", suffix=".scratch", dir=folder)
        if os.path.exists(f"/proc/self/fd/{self.file}"):
            os.unlink(name)
        else:  # no way to open a file without a name: it goes when it is closed
            self._named = name

    @property
    def path(self) -> str:
        """By which this process can open it again."""
        return self._named or f"/proc/self/fd/{self.file}"

    def read(self, top: int, bottom: int) -> np.ndarray:
        """The rows from one to before another."""
        rows = np.empty((bottom - top, *self.shape[1:]), self.dtype)
        view, done = memoryview(rows.data).cast("B"), 0
        while done < len(view):
            count = os.preadv(self.file, [view[done:]], top * self.row + done)
            assert count, "the rows were never written"
            done += count
        return rows

    def write(self, top: int, rows: np.ndarray) -> None:
        """Put rows at a row.

        Raises:
            OSError: no space is left.
        """
        view, done = memoryview(np.ascontiguousarray(rows).data).cast("B"), 0
        while done < len(view):
            done += os.pwrite(self.file, view[done:], top * self.row + done)

    def fill(self, strips: Iterable[np.ndarray]) -> None:
        """Put strips one below the other, from the first row on; there are as many rows then as they have, or more."""
        top = 0
        for strip in strips:
            self.write(top, strip)
            top += len(strip)
        self.shape = (max(top, self.shape[0]), *self.shape[1:])

    def close(self) -> None:
        """Give the space back."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
            if self._named:
                os.unlink(self._named)

    def __del__(self) -> None:
        self.close()
