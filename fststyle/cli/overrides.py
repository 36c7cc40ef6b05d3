"""Hydra's overrides with any file name in them: quoted where its grammar would refuse a name or make another of it."""

from __future__ import annotations

import os
import re
import shlex
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from fststyle.config import escaped
from fststyle.resources import user_path

#: The last part of keys that take a file, a folder or a name.
_NAMES = frozenset(
    {
        *("content", "image", "output", "start", "init_from", "resume", "ckpt_path", "weights", "normalize"),
        *("path", "files", "folder", "name", "save_dir", "default_root_dir", "dir"),
    }
)
_PARSER = OverridesParser.create()


def literal(text: str) -> str:
    """A text as Hydra's grammar writes it, so that nothing in it has a meaning."""
    return QuotedString(escaped(text), Quote.single).with_quotes()


def understood(word: str, several: bool = False) -> str:
    """An override whose value, if its key takes a file or a name, is what the user typed.

    What is there under the very name is meant. Else quotes, escapes, ``${…}``, ``null`` and, with ``several`` runs,
    lists mean what they mean to Hydra, and everything else is a name, too.

    Args:
        word: ``KEY=VALUE``; of other keys, and of none, it is left as it is.
        several: of a multirun, where ``a,b`` are two values unless there is such a file.
    """
    key, _, value = word.partition("=")
    last = key.lstrip("+").rpartition(".")[2]
    if last not in _NAMES or key.startswith("~") or value.lower() in ("", "null"):
        return word
    found = parsed(word)
    if _is_there(value):
        return word if _is_plain(found, value) else f"{key}={literal(value)}"
    listed = last == "files" and value.startswith("[") and value.endswith("]")
    if listed or (several and "," in value):
        inner = value[1:-1] if listed else value
        parts = ",".join(_element(part) for part in inner.split(","))
        word = f"{key}=[{parts}]" if listed else f"{key}={parts}"
        return word if parsed(word) else f"{key}={literal(value)}"
    if found is None:
        return f"{key}={literal(value)}"
    meant: Any = found.value()
    if isinstance(meant, str):
        if "${" in value and _is_there(meant):  # in quotes, or with escapes, it still was an interpolation
            return f"{key}={literal(meant)}"
        trimmed = meant == value.strip() != value and not _is_there(meant)
        return f"{key}={literal(value)}" if trimmed else word
    kept = found.is_sweep_override() if several else last == "start" or (last == "resume" and isinstance(meant, bool))
    return word if kept else f"{key}={literal(value)}"


def parsed(word: str) -> Override | None:
    """An override as Hydra understands it; None for what it refuses."""
    try:
        return _PARSER.parse_override(word)
    except HydraException:
        return None


def refused(word: str) -> str:
    """What to do about an override that Hydra cannot read, in one line."""
    key, equals, value = word.partition("=")
    if not equals or parsed(f"{key}=1") is None:
        return f"found {shlex.quote(word)}; expected KEY=VALUE, such as style.image=PAINTING"
    quoted = shlex.quote(f"{key}={literal(value)}")
    return f"found {shlex.quote(word)}, which Hydra cannot read; for a text of any characters, quote it twice: {quoted}"


def _is_there(text: str) -> bool:
    return bool(text) and os.path.lexists(user_path(text))


def _is_plain(found: Override | None, text: str) -> bool:
    """Whether Hydra makes of a value the very text that was typed."""
    return found is not None and not found.is_sweep_override() and found.value() == text and "${" not in text


def _element(text: str) -> str:
    """One of several values; what is there under this name, or what Hydra cannot read, in quotes."""
    found = parsed(f"x={text}")
    if _is_there(text):
        return text if _is_plain(found, text) else literal(text)
    return text if found or re.search(r"[\[\](){}'\"]", text) else literal(text)  # else a part of something larger
