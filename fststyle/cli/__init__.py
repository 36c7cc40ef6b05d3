"""The ``fststyle`` command.

Exit codes: 0 all done; 1 failed or partly failed during the work; 2 refused before it began.
Every command is a function of the parsed options that returns its exit code; what a command needs
is imported when it runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from fststyle import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if words[:1] == ["train"]:  # its words are Hydra's
            from fststyle.cli.compose import run

            return run(words[1:])
        options = parser().parse_args(words)
        return int(options.run(options))
    except (ValueError, OSError) as error:
        if debug:
            raise
        print(f"fststyle: error: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if debug:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"fststyle: failed: {reason} (--debug shows more)", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"fststyle: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 1


def entry() -> None:
    """The console script."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def parser() -> argparse.ArgumentParser:
    """All commands and options but those of ``train``, which are Hydra's."""
    top = argparse.ArgumentParser(prog="fststyle", description="Fast neural style transfer.")
    top.add_argument("--version", action="version", version=f"fststyle {__version__}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    commands.add_parser(
        "train", help="train a network for one style (fststyle train --help)", add_help=False
    )  # for the list of commands only

    stylize = commands.add_parser("stylize", help="apply a style to pictures, in one pass")
    stylize.add_argument("inputs", nargs="+", metavar="IN", help="pictures, globs or folders")
    stylize.add_argument("--style", required=True, metavar="NAME_OR_FILE", help="a shipped style or a checkpoint")
    stylize.add_argument("-o", "--output", metavar="OUT", help="a file, or a folder; default: beside each input")
    stylize.add_argument("--size", type=_size, metavar="N", help="bring the longer side to N pixels first")
    stylize.add_argument("--median", action="store_true", help="3×3 median filter on the result, as Johnson's code")
    stylize.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    stylize.set_defaults(run=_stylize)

    styles = commands.add_parser("styles", help="list the styles that came with the installation")
    styles.set_defaults(run=_styles)

    info = commands.add_parser("info", help="tell what a checkpoint is and how it came to be")
    info.add_argument("checkpoint", metavar="NAME_OR_FILE")
    info.add_argument("--json", action="store_true", help="the whole record as JSON")
    info.set_defaults(run=_info)

    fetch = commands.add_parser("fetch", help="download encoder weights ahead of a run without internet")
    fetch.add_argument("architecture", choices=("vgg16", "vgg19"))
    fetch.add_argument("--weights", choices=("features", "imagenet"), help="default: features for vgg16, else imagenet")
    fetch.set_defaults(run=_fetch)
    return top


def _size(text: str) -> int:
    if not text.isdigit() or int(text) < 16:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number of at least 16 pixels")
    return int(text)


def _stylize(options: argparse.Namespace) -> int:
    from fststyle.cli.stylize import run

    return run(options)


def _styles(_: argparse.Namespace) -> int:
    from fststyle.cli.catalog import styles

    return styles()


def _info(options: argparse.Namespace) -> int:
    from fststyle.cli.catalog import info

    return info(options.checkpoint, as_json=options.json)


def _fetch(options: argparse.Namespace) -> int:
    from fststyle.networks.pretrained import DEFAULT_WEIGHTS, PUBLISHED, WeightsError, fetch

    weights = options.weights or DEFAULT_WEIGHTS[options.architecture]
    if (options.architecture, weights) not in PUBLISHED:
        known = [w for a, w in PUBLISHED if a == options.architecture]
        raise WeightsError(f"{options.architecture} has no weights {weights!r}; expected {', '.join(known)}")
    print(os.fspath(fetch(PUBLISHED[options.architecture, weights])))
    return 0
