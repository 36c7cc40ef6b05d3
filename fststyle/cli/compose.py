"""Hydra around ``train``, ``optimize``, ``preview``: compose, run once or often, say in one line what was refused."""

from __future__ import annotations

import difflib
import functools
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, InterpolationResolutionError, OmegaConfBaseException

from fststyle.cli import sweep
from fststyle.cli.overrides import check_kinds, literal, refused, understood
from fststyle.config import (
    CONF,
    ConfigError,
    compose,
    register_resolvers,
    several_styles,
    without_folders,
    without_traceback,
)
from fststyle.images import SUFFIXES
from fststyle.resources import user_path

register_resolvers()

#: Hydra's flags whose next word belongs to them.
_FLAGS_WITH_VALUE = (
    *("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"),
    *("--cfg", "-c", "--package", "-p"),
)


def run(command: str, arguments: list[str], work: Callable[[DictConfig], None]) -> int:
    """Do a command's work with the configuration that Hydra's overrides give; ``-m`` does several.

    Args:
        command: ``train``, ``optimize`` or ``preview``, the name of its YAML.
        arguments: the overrides and Hydra's flags.
        work: what to do with one composed configuration.

    Returns:
        The exit code.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing its own story
    flags, overrides = split(arguments)  # Hydra's parser wants them in this order, wherever they were typed
    script = sys.argv[0]
    several = bool({"-m", "--multirun"} & set(flags))
    words = several_styles(command, [understood(word, several) for word in overrides])
    sys.argv = [f"fststyle {command}", *flags, *words]
    failures: list[Exception] = []
    usual = defaults(command)

    def job(cfg: DictConfig) -> None:
        sys.argv = [script, command, *arguments]  # what starts further ranks
        one_of_several = sweep.is_one()
        if one_of_several:
            sweep.begin(command)
        # Kept for later: Hydra would print a story of its own around an exception.
        try:
            check_kinds(overrides, cfg, usual)
            work(cfg)
        except Exception as error:
            failures.append(explained(error))
            if one_of_several:
                sweep.fail(failures[-1])

    sweep.Sweep.folder = None
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)(job)()
    except (HydraException, OmegaConfBaseException) as error:
        sweep.forget()
        reason = explain(error, command) if isinstance(error, HydraException) else _missing(error)
        raise ConfigError(reason) from None
    except sweep.Refused as error:
        raise ConfigError(str(error)) from None
    except Exception as error:
        if sweep.Sweep.folder is None:
            raise
        print(f"fststyle: a job ended without a result: {_first_line(error)}", file=sys.stderr)
    if sweep.Sweep.folder is not None:
        return sweep.report(sweep.Sweep.folder)
    if failures:
        raise failures[0]
    return 0


@functools.cache
def defaults(command: str) -> DictConfig:
    """What a command does without overrides; read it only."""
    return compose(command)


def explained(error: Exception) -> Exception:
    """What a job raised, without the stories around it."""
    if isinstance(error, InstantiationException):  # around what a constructor of ours raised
        cause = error.__cause__
        return cause if isinstance(cause, (ValueError, OSError)) else ConfigError(_instantiation(error))
    if isinstance(error, OmegaConfBaseException):
        return ConfigError(_missing(error))
    return without_traceback(error)


def command_line() -> str:
    """The command as it was typed, without the folders of the machine it was typed on."""
    return shlex.join(["fststyle", *(without_folders(argument) for argument in sys.argv[1:])])


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and the overrides; after ``--`` there are overrides alone."""
    flags: list[str] = []
    overrides: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            overrides += words
        elif word.startswith("-"):
            flags += [word, *([next(words, "")] if word in _FLAGS_WITH_VALUE else [])]
        else:
            overrides.append(word)
    return flags, overrides


# --- explaining what Hydra refused ----------------------------------------------------------------


def explain(error: Exception, command: str = "train") -> str:
    """One line for an exception of Hydra: what was found, and the nearest thing that is known."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        return refused(error.override)
    if match := re.search(r"Ambiguous value for argument '([^=]+)=(.*)'\n", text, re.DOTALL):
        key, value = match.groups()
        quoted = shlex.quote(f"{key}={literal(value)}")
        return f"{key} has several values; -m does one run for each, {key}=[{value}] is a list, {quoted} one text"
    if "hydra/launcher/submitit" in text:
        return "hydra/launcher=local and slurm need hydra-submitit-launcher: pip install 'fststyle[cluster]'"
    if match := re.search(r"Could not override '([^']*)'", text):
        key = match[1]
        if key in _keys(command):
            return f"{key} has no such entry; add one as +{key}.NAME=VALUE"
        group = key.split("@")[0]
        groups = [p.name for p in CONF.iterdir() if p.is_dir()]
        near = _nearest(group, [*_keys(command), *groups])
        return f"unknown key {key!r}{near}; fststyle {command} --cfg job lists them all"
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, option = match[1].rpartition("/")
        options = [name for name in re.findall(r"^\t(\S+)$", text, re.M) if not name.startswith("_")]
        return f"{group or 'config'} has no option {option!r}{_nearest(option, options)}; known: {', '.join(options)}"
    return _first_line(error)


def known_key(word: str, command: str) -> bool:
    """Whether a word is an override, and no picture that is there and has a ``=`` in its name."""
    key, equals, value = word.lstrip("+~").partition("=")
    if not equals or not os.path.isfile(user_path(word)):
        return bool(equals)
    group = key.partition("@")[0]
    known = key in _keys(command) or (bool(group) and (CONF / group).is_dir())
    return known and (os.path.lexists(user_path(value)) or Path(word).suffix.lower() not in SUFFIXES)


def _keys(command: str) -> list[str]:
    """Every dotted key of the default configuration."""

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key in node:
            yield prefix + str(key)
            if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node._get_node(key)):
                yield from walk(node[key], f"{prefix}{key}.")

    return list(walk(defaults(command), ""))


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _missing(error: Exception) -> str:
    if match := re.search(r"Missing mandatory value: (\S+)", str(error)):
        return f"{match[1]} is missing; give it as {match[1]}=…"
    if isinstance(error, (InterpolationResolutionError, GrammarParseError)):
        return f"{_first_line(error)}; ${{…}} is another setting's value; as a part of a name it is written \\${{…}}"
    return _first_line(error)


def _instantiation(error: Exception) -> str:
    key = re.search(r"full_key: (\S+)", str(error))
    return f"{key[1] if key else 'config'}: {_first_line(error.__cause__ or error)}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
