"""Picture files in folders: which there are, and what looks like one but is none."""

from __future__ import annotations

import logging
import os
from collections import deque
from pathlib import Path

from fststyle.checks import absent, is_address
from fststyle.images.pillow import ImageError, check_file
from fststyle.resources import user_path

log = logging.getLogger(__name__)

#: File name endings that count as pictures when a folder is searched.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".ppm", ".heic", ".heif"}
)
#: Entries that are no files, named in the line about them.
_NAMED = 10

#: What cannot be used, and why, in a sentence that begins with its name.
Failure = tuple[Path, str]


def search(path: str | os.PathLike[str], *, recursive: bool = True) -> tuple[list[Path], list[Failure]]:
    """The picture files in a folder, by name ending, sorted, but for hidden ones; with ``recursive`` those in its
    sub-folders too, and in folders that links lead to, each folder once.

    Returns:
        The files, and what is called like a picture but is a broken link, a pipe, a socket or a device, or is a
        sub-folder that cannot be read. None of them is opened.

    Raises:
        ImageError: not a folder, or one that cannot be read.
    """
    folder = user_path(path)
    if not folder.is_dir():
        raise ImageError(
            absent(path) if is_address(path) else f"{path}: is not a folder; expected a folder of pictures"
        )
    found: list[Path] = []
    failures: list[Failure] = []
    folders, links = deque([folder]), deque[Path]()
    seen: set[tuple[int, int]] = set()
    while folders or links:  # links last, so that what lies below the folder itself keeps its place
        here = folders.popleft() if folders else links.popleft()
        try:
            status = os.stat(here)
            names = [] if (status.st_dev, status.st_ino) in seen else sorted(os.listdir(here))
        except OSError as error:
            failures.append((here, f"{here}: the folder cannot be read ({error.strerror})"))
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in (here / name for name in names if not name.startswith(".")):
            if os.path.isdir(entry):
                if recursive:
                    (links if entry.is_symlink() else folders).append(entry)
            elif entry.suffix.lower() in SUFFIXES:
                if os.path.isfile(entry):
                    found.append(entry)
                else:
                    failures.append((entry, _reason(entry)))
    if failures and failures[0][0] == folder:
        raise ImageError(failures[0][1])
    return sorted(found), failures


def _reason(path: Path) -> str:
    try:
        check_file(path)
    except ImageError as error:
        return str(error)
    return f"{path}: is no file"  # when it was looked at first


def no_pictures(path: str | os.PathLike[str]) -> ImageError:
    """That a folder has none."""
    return ImageError(f"{path}: has no pictures in it (looked for {', '.join(sorted(SUFFIXES))})")


def find_pictures(path: str | os.PathLike[str], *, recursive: bool = True) -> list[Path]:
    """The picture files of ``search``; the rest is logged.

    Raises:
        ImageError: not a folder, or no picture in it.
    """
    found, failures = search(path, recursive=recursive)
    if failures:
        more = f" and {len(failures) - _NAMED} more" if len(failures) > _NAMED else ""
        log.warning("left out: %s%s", "; ".join(reason for _, reason in failures[:_NAMED]), more)
    if not found:
        raise no_pictures(path)
    return found
