"""Reading, work and writing at once, in order, with few items in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")
#: Items that are read ahead, and results that wait to be written.
AHEAD = 2


def overlap(items: Iterator[T], work: Callable[[T], U], write: Callable[[U], None]) -> None:
    """Work on every item and write the results; a thread draws items meanwhile, another one writes.

    However it ends, what was worked on is written, and nothing is being read or written any more.

    Args:
        items: drawn by a thread.
        work: called here.
        write: called by a thread, in the order of the items.
    """
    end = object()
    coming: deque[Future[object]] = deque()
    going: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        try:
            for _ in range(AHEAD):
                coming.append(reader.submit(next, items, end))
            while (item := coming.popleft().result()) is not end:
                coming.append(reader.submit(next, items, end))
                result = work(item)  # type: ignore[arg-type]
                if len(going) >= AHEAD:
                    going.popleft().result()
                going.append(writer.submit(write, result))
        finally:
            reader.shutdown(cancel_futures=True)
            while going:
                going.popleft().result()
