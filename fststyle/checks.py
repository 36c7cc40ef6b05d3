"""Names, paths, addresses and seeds as users give them, checked before work begins."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from fststyle.resources import user_path

#: How an address begins, also once ``Path`` has made one slash of two; no drive's letter.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+|data:")
#: Bytes of a name and of a whole path where the system does not say what it takes.
_LONGEST = {"PC_NAME_MAX": 255, "PC_PATH_MAX": 4096}
#: Seeds are below it: what all random generators take.
SEEDS = 2**32


def check_name(name: object, key: str, ending: str = "") -> str:
    """A name that is to become that of a file or folder, as text.

    Args:
        name: as it was given; a number is a name, too.
        key: what it was given as, for the message.
        ending: that the file's name gets.

    Raises:
        ValueError: empty, too long, hidden, or of another folder.
    """
    text = str(name) if isinstance(name, (str, int, float)) else ""
    reason = _unfit(text, text + ending)
    if reason:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        found = repr(shown) if isinstance(name, (str, int, float)) else name
        raise ValueError(f"{key} is {found}, {reason}; expected the name of a file, such as {key}=mine")
    return text


def _unfit(text: str, name: str) -> str:
    """Why a text is no file's name, in words; empty for one that is."""
    if not text:
        return "which is empty"
    if text in (".", "..") or any(mark in text for mark in (os.sep, os.altsep) if mark):
        return "which leads to another folder"
    if "\0" in text:
        return "which has a zero byte"
    if text.startswith("."):
        return "which makes a hidden file"
    return _too_long(name, _longest("PC_NAME_MAX", Path()))


def check_path(path: object, key: str) -> Path:
    """A path that is to be written to, with ``~`` expanded.

    Args:
        path: as it was given.
        key: what it was given as, for the message.

    Raises:
        ValueError: empty, an address of the internet, too long, a link to nothing, or in a folder that is one.
    """
    if path is None or not str(path):
        raise ValueError(f"found an empty {key}; expected a path to write to")
    if is_address(path):
        raise ValueError(f"{key}: {address(path)} is an address; expected a path on this machine")
    found = user_path(str(path))
    if "\0" in str(found):
        raise ValueError(f"{key} is {str(found)!r}, which has a zero byte; expected a path to write to")
    whole = _too_long(os.path.abspath(found), _longest("PC_PATH_MAX", found) - 1)
    most = 0 if whole else _longest("PC_NAME_MAX", found)
    for text, reason in [(str(found), whole), *((part, _too_long(part, most)) for part in found.parts if not whole)]:
        if reason:
            raise ValueError(f"{key}: {text[:40]}… is a name {reason.removeprefix('which is ')}; give a shorter one")
    for place in (found, *found.parents):
        if place.is_symlink() and not os.path.exists(place):
            loop = os.path.islink(os.path.realpath(place))
            where = "itself" if loop else f"{os.readlink(place)}, which is not there"
            raise ValueError(f"{place}: is a link to {where}; remove it or mend it")
    return found


def check_free(files: Iterable[Path], elsewhere: str) -> None:
    """Refuse to write over files that are there.

    Args:
        files: that are to be written.
        elsewhere: the option that names another place.

    Raises:
        ValueError: at least one is there.
    """
    found = [str(file) for file in files if os.path.lexists(file)]
    if found:
        some = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise ValueError(f"{some}: would be overwritten, and no such run wrote it; choose another {elsewhere}")


def has_keys(path: Path, *keys: str) -> bool:
    """Whether a file holds a JSON object with these keys, as a command of ours wrote it."""
    try:
        return set(keys) <= json.loads(path.read_text(encoding="utf-8")).keys()
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _too_long(text: str, most: int) -> str:
    try:
        length = len(os.fsencode(text))
    except UnicodeEncodeError:
        return "which is of characters that no file's name has"
    return f"which is of {length} bytes, where the file system takes {most}" if length > most else ""


def _longest(limit: str, path: Path) -> int:
    """Bytes that the file system of a path takes."""
    for folder in (path, *path.absolute().parents):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return os.pathconf(folder, limit)
    return _LONGEST[limit]


def is_address(path: object) -> bool:
    """Whether a path that is not there is an address of the internet, or a file's as browsers write it."""
    return bool(_ADDRESS.match(str(path))) and not os.path.lexists(str(path))


def address(path: object) -> str:
    """An address as it was typed, of one that may have been a ``Path`` in between; not all of a long one."""
    text = re.sub(r"^([A-Za-z][A-Za-z0-9+.-]+):/(?!/)", r"\1://", str(path))
    return text if len(text) <= 100 else f"{text[:100]}…"


def absent(path: object, expected: str = "") -> str:
    """What to say of a path where there is nothing: an address is told apart.

    Args:
        path: as it was given.
        expected: what is needed, after ``expected``.
    """
    if is_address(path):
        return f"{address(path)}: is an address, which is not read; download the file and give its path"
    return f"{path}: no such file" + (f"; expected {expected}" if expected else "")


def check_seed(seed: object, key: str = "seed") -> int:
    """A seed that every random generator takes.

    Raises:
        ValueError: no whole number from 0 to 2³² - 1.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEEDS:
        raise ValueError(f"{key} is {seed}; expected a whole number from 0 to {SEEDS - 1}")
    return seed
