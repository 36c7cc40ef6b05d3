"""Hydra around ``fststyle train``: compose, run once or many times, and say in one line what was refused."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fststyle.resources import resource

OmegaConf.register_new_resolver("stem", lambda path: Path(path).stem, replace=True)


class ConfigError(ValueError):
    """A configuration that cannot be composed or used; the message suggests what was meant."""


def run(arguments: list[str]) -> int:
    """Train as the Hydra overrides say; ``-m`` runs several. Returns the exit code."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing its own story
    sys.argv = ["fststyle train", *_flags_first(arguments)]
    _failures.clear()
    try:
        hydra.main(version_base="1.3", config_path=str(resource("conf")), config_name="train")(job)()
    except HydraException as error:
        raise ConfigError(explain(error)) from None
    except OmegaConfBaseException as error:
        raise ConfigError(_missing(error)) from None
    if _failures:
        raise _failures.pop(0)
    return 0


#: What went wrong in the jobs of this process. Hydra would print a story of its own around an exception.
_failures: list[Exception] = []


def job(cfg: DictConfig) -> None:
    """One job of Hydra's: a run whose failure is kept for ``run`` to report."""
    from fststyle.cli.train import train

    try:
        train(cfg)
    except InstantiationException as error:  # around what a constructor of ours raised
        cause = error.__cause__
        _failures.append(cause if isinstance(cause, (ValueError, OSError)) else ConfigError(_instantiation(error)))
    except OmegaConfBaseException as error:
        _failures.append(ConfigError(_missing(error)))
    except Exception as error:
        _failures.append(without_traceback(error))


def _flags_first(arguments: list[str]) -> list[str]:
    """Hydra's flags before the overrides, wherever they were typed: its parser wants them together."""
    with_value = (
        "--config-dir",
        "-cd",
        "--config-name",
        "-cn",
        "--config-path",
        "-cp",
        "--cfg",
        "-c",
        "--package",
        "-p",
    )
    flags: list[str] = []
    overrides: list[str] = []
    words = iter(arguments)
    for word in words:
        if word.startswith("-"):
            flags += [word, *([next(words, "")] if word in with_value else [])]
        else:
            overrides.append(word)
    return flags + overrides


# --- explaining what Hydra refused ----------------------------------------------------------------


def explain(error: Exception) -> str:
    """One line for an exception of Hydra: what was found, and the nearest thing that is known."""
    text = str(error)
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1]
        group = key.split("@")[0]
        groups = [p.name for p in resource("conf").iterdir() if p.is_dir()]
        return f"unknown key {key!r}{_nearest(group, [*_keys(), *groups])}; fststyle train --cfg job lists them all"
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, option = match[1].rpartition("/")
        options = [name for name in re.findall(r"^\t(\S+)$", text, re.M) if not name.startswith("_")]
        return f"{group or 'config'} has no option {option!r}{_nearest(option, options)}; known: {', '.join(options)}"
    return _first_line(error)


def _keys() -> list[str]:
    """Every dotted key of the default configuration."""
    with hydra.initialize_config_dir(str(resource("conf")), version_base="1.3"):
        cfg = hydra.compose("train")

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key in node:
            yield prefix + str(key)
            if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node._get_node(key)):
                yield from walk(node[key], f"{prefix}{key}.")

    return list(walk(cfg, ""))


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _missing(error: Exception) -> str:
    match = re.search(r"Missing mandatory value: (\S+)", str(error))
    return f"{match[1]} is missing; give it as {match[1]}=…" if match else _first_line(error)


def _instantiation(error: Exception) -> str:
    key = re.search(r"full_key: (\S+)", str(error))
    return f"{key[1] if key else 'config'}: {_first_line(error.__cause__ or error)}"


def without_traceback(error: Exception) -> Exception:
    """The error; one that a loader's worker has sent carries a traceback in its message."""
    lines = str(error).strip().splitlines()
    if isinstance(error, ValueError) and lines and lines[0].startswith("Caught "):
        return type(error)(lines[-1].partition(": ")[2])
    return error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
