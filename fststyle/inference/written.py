"""Which pictures runs wrote, so that later runs replace those and nothing else.

A digest of each result's name, size and time of change is kept in the user's cache folder, up to a million of them. A
picture that was changed since, by whatever program, has another and is the user's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from fststyle.resources import cache_folder

#: Bytes of a digest in hexadecimal and the end of its line; lines that are kept.
_LINE, _MOST = 33, 2**20


def remember(path: Path) -> None:
    """Note a result that was just written; where nothing can be noted, it is taken for the user's own."""
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home folder
        record = _record()
        record.parent.mkdir(parents=True, exist_ok=True)
        if record.exists() and record.stat().st_size > _MOST * _LINE:
            part = record.with_name(f"{record.name}.{os.getpid()}")
            part.write_bytes(record.read_bytes()[-_MOST // 2 * _LINE :])
            os.replace(part, record)
        with open(record, "ab", buffering=0) as file:  # one write, so that several processes may
            file.write(_digest(path) + b"\n")


def remembered() -> frozenset[bytes]:
    """The digests of all results that are known."""
    with contextlib.suppress(OSError, RuntimeError):
        return frozenset(_record().read_bytes().split())
    return frozenset()


def is_result(path: Path, known: frozenset[bytes]) -> bool:
    """Whether a file is one of the results ``known``, as it was written."""
    return bool(known) and _digest(path) in known


def _record() -> Path:
    return cache_folder("results") / "written"


def _digest(path: Path) -> bytes:
    status = os.stat(path)
    text = b"%b\0%d\0%d" % (os.fsencode(path.name), status.st_size, status.st_mtime_ns)
    return hashlib.blake2b(text, digest_size=16).hexdigest().encode()
