"""Which pictures runs wrote, so that later runs replace those and nothing else.

A digest of each result's name, size and time of change is kept in the user's cache folder, up to a million of them. A
picture that was changed since, by whatever program, has another and is the user's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from fststyle.images import ImageError, read_header
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


def check_replaced(
    targets: Iterable[Path],
    kept: Iterable[Path],
    overwrite: bool = False,
    is_kind: Callable[[Path], bool] | None = None,
    kind: str = "picture",
) -> None:
    """Refuse results that would be written over anything but an earlier result.

    An empty file holds nothing; whatever else no run wrote is not ours to replace, nor what a link leads to: whoever
    typed the link's name does not see it.

    Args:
        targets: files that are to be written, which ``check_path`` took.
        kept: what the command reads, under whatever other names, hard links among them.
        overwrite: pictures may be replaced that no run wrote.
        is_kind: whether a file is of the kind of results; None: whether it is a picture.
        kind: what such a file is called.

    Raises:
        ImageError: what is there, and what to do.
    """
    read = {}
    for path in kept:
        with contextlib.suppress(OSError, ValueError):
            read[_identity(path)] = path
    known: frozenset[bytes] | None = None
    for target in targets:
        if not os.path.lexists(target):
            continue
        reason, instead = None, ", or remove it first"
        if target.is_symlink():
            reason = f"is a link to {os.path.realpath(target)}, which would be overwritten"
        elif target.is_dir():
            reason = "is a folder"
        elif not target.is_file():
            reason = "is a pipe, a socket or a device"
        elif _identity(target) in read:
            name = read[_identity(target)]
            reason = "is read itself" if name == target else f"is {name}, which is read, under another name"
            instead = ""
        elif target.stat().st_size:
            known = _known() if known is None else known
            if _digest(target) not in known:
                if not (is_kind or _is_picture)(target):
                    reason = f"is there already, and no {kind}"
                elif not overwrite:
                    reason = f"is a {kind} that no run wrote, or that was changed since"
                    instead = ", or replace it with --overwrite"
        if reason:
            raise ImageError(f"{target}: {reason}; give another name for the result{instead}")


def _identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_picture(path: Path) -> bool:
    try:
        return read_header(path, max_pixels=2**62).height > 0
    except ImageError:
        return False


def _known() -> frozenset[bytes]:
    """The digests of all results."""
    with contextlib.suppress(OSError, RuntimeError):
        return frozenset(_record().read_bytes().split())
    return frozenset()


def _record() -> Path:
    return cache_folder("results") / "written"


def _digest(path: Path) -> bytes:
    status = os.stat(path)
    text = b"%b\0%d\0%d" % (os.fsencode(path.name), status.st_size, status.st_mtime_ns)
    return hashlib.blake2b(text, digest_size=16).hexdigest().encode()
