"""Hydra's overrides with any file name in them: quoted where its grammar would refuse a name or make another of it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fststyle.config import ConfigError, escaped
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


# --- values of another kind than a setting's ------------------------------------------------------------

#: The last part of keys whose number is a whole one.
_WHOLE = frozenset(
    {
        *("steps", "size", "history", "iterations", "calibration_photographs", "batch_size", "workers", "held_out"),
        *("width", "residual_blocks", "warmup", "accumulate_grad_batches"),
    }
)
#: Those for which the commands themselves say which values there are.
_CHOICES = frozenset({"compile"})
#: Those that take a list of numbers, too.
_LISTS = frozenset({"iterations"})
#: What is unset by default, and what it is expected to be: a list of numbers, of texts, or a number.
_UNSET = {"shape": "[height, width]", "sizes": "a list such as [256,512]", "layers": "a list such as [relu3_1]"}
_UNSET |= {"learning_rate": "a number", "style.size": "a whole number"}


def check_kinds(given: Iterable[str], composed: DictConfig, default: DictConfig) -> None:
    """Refuse what was typed for a number or a switch and is none, which would otherwise be taken for true, or end work.

    Args:
        given: overrides as the user typed them.
        composed: with them.
        default: without; of what is unset in it nothing is known.

    Raises:
        ConfigError: the setting, what was found and what is expected.
    """
    for word in given:
        key = word.partition("=")[0].lstrip("+")
        usual, found = _selected(default, key), _selected(composed, key)
        if found is None and not isinstance(usual, DictConfig):
            continue
        expected = _expected(key, usual, found)
        if expected:
            shown = "null" if found is None else repr(found) if isinstance(found, str) else found
            raise ConfigError(f"{key} is {shown}; expected {expected}")


def _expected(key: str, usual: Any, found: Any) -> str:
    """What is expected of a setting, in words, if what was found is no such thing."""
    last = key.rpartition(".")[2]
    if usual is None and key in _UNSET:
        kind = str if key == "layers" else (int, float)
        listed = "[" in _UNSET[key]
        values = found if listed and isinstance(found, ListConfig) else [None if listed else found]
        sound = all(isinstance(value, kind) and not isinstance(value, bool) for value in values) and len(values)
        return "" if sound else _UNSET[key]
    if last in _CHOICES:
        return ""
    if isinstance(usual, bool):
        return "" if isinstance(found, bool) else "true or false"
    if isinstance(usual, DictConfig):
        optional = "." not in key or key.startswith(("callbacks.", "logger."))
        return "" if isinstance(found, DictConfig) or (found is None and optional) else f"its own settings, {key}.NAME="
    if not isinstance(usual, (int, float)):
        return ""
    whole = last in _WHOLE
    listed = last in _LISTS and isinstance(found, ListConfig)
    for number in found if listed else [found]:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or (whole and number != number // 1):
            return "a whole number" if whole else "a number"
    return ""


def _selected(config: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException:  # missing, or another setting's value that is
        return None
