"""The ``fststyle`` command.

Exit codes: 0 all done; 1 failed or partly failed during the work; 2 refused before it began; 75 stopped by a signal
(SIGTERM, SIGUSR1) with everything saved, the same command with resume=auto goes on; 141 the reader of a pipe left.
Every command is a function of the parsed options that returns its exit code; what a command needs
is imported when it runs.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import importlib
import importlib.util
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from fststyle.resources import (
    NOT_LITE,
    address_space,
    lacks_address_space,
    one_line,
    own_memory,
    while_importing,
    without_torch,
)
from fststyle.version import __version__

#: Commands with options of their own; the file ``cli/NAME.py`` has ``add_arguments`` and ``run``.
COMMANDS = {
    "stylize": "apply a style to pictures, in one pass",
    "video": "apply a style to videos, with their sound",
    "upscale": "enlarge pictures, in one pass",
    "evaluate": "measure super-resolution, how much of results looks painted, how steady styles are over time",
    "swap": "paint pictures with patches of any other picture, in one pass",
    "compare": "hold one pass against the slow optimisation that it replaces",
    "export": "write a style as ONNX, OpenVINO or PyTorch file for other programs",
    "styles": "list the styles that came with the installation",
    "predict": "make a style of any painting, without training",
    "merge": "join model files whose styles share their convolutions into one",
    "info": "show what a model file is and how it came to be",
    "web": "make a page that applies styles in the browser, on the visitor's device",
    "push": "share a model on the Hugging Face Hub, with a model card and pictures",
    "fetch": "download encoder weights ahead of a run without internet",
}
#: Those that take Hydra's overrides: ``run`` gets the words.
HYDRAS = {
    "train": "train a network for one style",
    "optimize": "style transfer, textures and reconstructions by slow optimisation",
    "preview": "look before you train: style weight by style size, in minutes",
}

#: Bytes of address space without which numpy, Pillow, libvips and OpenVINO end the process.
LEAST_SPACE = 512 * 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    typed = words.index("--") if "--" in words else len(words)  # after it there are names alone
    debug = "--debug" in words[:typed]
    words = [word for word in words[:typed] if word != "--debug"] + words[typed:]
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", "") == "strict":  # it may have to say names that it has no characters for
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # hints on odd metadata
    space = address_space()
    if space is not None:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each maps tens of megabytes, or ends the process
    try:
        if space is not None and {*COMMANDS, *HYDRAS} & set(words):
            _check_imports(words, space)
        if words and words[0] in HYDRAS:
            return int(importlib.import_module(f"fststyle.cli.{words[0]}").run(words[1:]))
        options = parser(next((word for word in words if word in COMMANDS), "")).parse_args(words)
        return int(options.run(options))
    except BrokenPipeError:  # who read our words has enough of them, as head and less
        return 141
    except Exception as error:
        if debug:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if space is not None and lacks_address_space(error):
            found = f"ulimit -v allows {space / 2**20:.0f} MiB of address space, which is too little ({reason})"
            print(f"fststyle: error: {found}; raise it: ulimit -v unlimited", file=sys.stderr)
            late = words[0] in HYDRAS and not while_importing(error)  # a training may have come far
            return 1 if late else 2
        if isinstance(error, ImportError):
            if not without_torch():
                raise
            print(f"fststyle: error: {words[0]} takes {error.name}; {NOT_LITE}", file=sys.stderr)
            return 2
        if isinstance(error, (ValueError, OSError)):
            print(f"fststyle: error: {one_line(str(error).strip())}", file=sys.stderr)
            return 2
        if not isinstance(error, (RuntimeError, MemoryError)):  # a mistake of ours, or what we forgot to check
            reason = f"unexpected {type(error).__name__}: {error}"
        print(f"fststyle: failed: {one_line(reason)} (--debug shows more)", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"fststyle: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return int(getattr(interrupt, "exit_code", 1))


def _check_imports(words: Sequence[str], space: int) -> None:
    """Refuse a limit of address space that is too low for what a command imports, before libraries end the process.

    Raises:
        ImportError: it is too low.
    """
    if space < LEAST_SPACE:
        raise ImportError(f"at least {LEAST_SPACE // 2**20} MiB are needed")
    without = {"stylize", "video", "upscale", "styles", "info", "web", "fetch"} & set(words)
    light = without and importlib.util.find_spec("openvino")
    if (light and not {"torch", "--mask"} & set(words)) or "torch" in sys.modules or not hasattr(os, "fork"):
        return
    child = os.fork()
    if child == 0:  # whatever becomes of it, nobody hears of it
        null, code = os.open(os.devnull, os.O_WRONLY), 1
        os.dup2(null, 1)
        os.dup2(null, 2)
        signal.alarm(120)
        try:
            importlib.import_module("fststyle.training.run" if {*HYDRAS} & set(words) else "torch")
            code = int(space - own_memory()[0] < LEAST_SPACE // 2)
        except ModuleNotFoundError:  # which says more than we would
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise ImportError("PyTorch cannot be loaded within it")


def entry() -> None:
    """The console script."""
    codecs.register_error("fststyle", _as_bytes)
    with contextlib.suppress(AttributeError):  # closed
        sys.stdout.reconfigure(errors="fststyle")  # type: ignore[union-attr]
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # nobody listens any more; Python tries once more at its end
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _as_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """What a stream cannot encode: of a name that is not UTF-8 its bytes, as other commands do; else escapes."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    try:
        return found.encode("ascii", "surrogateescape"), error.end
    except UnicodeEncodeError:
        return codecs.backslashreplace_errors(error)


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """All commands; the options of those of ``train``, ``optimize`` and ``preview`` are Hydra's.

    Args:
        only: the command whose options are needed, so that no other's file is loaded; None: all.
    """
    top = argparse.ArgumentParser(prog="fststyle", description="Fast neural style transfer.")
    top.add_argument("--version", action="version", version=f"fststyle {__version__}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, purpose in HYDRAS.items():
        commands.add_parser(name, help=f"{purpose} (fststyle {name} --help)", add_help=False)
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose)
        if only in (None, name):
            module = importlib.import_module(f"fststyle.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return top
