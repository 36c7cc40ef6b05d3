"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from typing import Any, TypeVar

from fststyle.checks import SEEDS, check_seed
from fststyle.cli.pipes import FORMATS
from fststyle.inference.batch import Summary
from fststyle.inference.predictor import SIZE, is_painting, predicted_style
from fststyle.inference.steady import MOVING
from fststyle.model_file import ModelFileError, all_styles
from fststyle.octaves import MOST, MOST_VARIATION, check_octaves
from fststyle.resources import one_line

_Options = TypeVar("_Options")
#: What ``add_backend`` says.
WHERE = ("device", "backend", "precision")


def add_pictures(command: argparse.ArgumentParser) -> None:
    """Pictures in and pictures out; for every command that runs within ``pipes.piped``."""
    add = command.add_argument
    add("inputs", nargs="+", metavar="IN", help="pictures, globs or folders; -: standard input")
    add("-o", "--output", metavar="OUT", help="a file, or a folder; -: standard output; default: beside each input")
    add("--overwrite", action="store_true", help="replace pictures that no run wrote; earlier results always are")
    add("--format", choices=tuple(FORMATS), help="of standard output; default: png")
    add("--size", type=size, metavar="N", help="bring the longer side to N pixels first")


def add_style(command: argparse.ArgumentParser) -> None:
    """Which style, and how it is applied."""
    add = command.add_argument
    add(
        "--style",
        action="append",
        default=[],
        metavar="NAME_OR_FILE",
        help="a bundled style, a model file, hf:USER/REPO, FILE/STYLE of one of several, or any picture, of which a "
        "style is predicted; all: every bundled style",
    )
    add(
        "--style-size",
        type=size,
        default=SIZE,
        metavar="N",
        help=f"bring the longer side of a picture as the style to N pixels: the size of its strokes; default: {SIZE}",
    )
    add(
        "--mix",
        nargs="+",
        metavar="STYLE=WEIGHT",
        help="a mixture of a file's styles, which --style names; after the pictures",
    )
    add("--strength", type=float, default=1.0, metavar="X", help="from 0, the photograph, to 1, the style; default: 1")
    add(
        "--style-scale",
        type=style_scale,
        metavar="X",
        help="strokes so many times larger; default: auto, which grows with pictures above 1024 pixels (1.4 at 2048), "
        "of a picture as the style above 320 (1.5 at 700)",
    )
    add(
        "--octaves",
        type=octaves,
        metavar="N",
        help="from coarse to fine, each at twice the size of the one before: 1 is a single pass, each more lets shapes "
        "grow to twice the size; default: as the style was trained; of videos 1, which is steadier",
    )
    add(
        "--variation",
        type=float,
        metavar="X",
        help="lightness that varies where the photograph is even, so that strokes fill a sky or a wall as well: from 0 "
        f"to {MOST_VARIATION}; default: as the style says, 0.1 for many; of videos 0, since it would stand "
        "still where a camera moves",
    )
    add("--preserve-color", action="store_true", help="the photograph's colours, the result's luminance")
    add("--median", action="store_true", help="3×3 median filter on the result, as Johnson's code")


def styles_of(options: argparse.Namespace) -> list[str]:
    """What ``--style`` and ``--mix`` name."""
    if options.mix is None:
        if not options.style:
            raise ModelFileError("no style is given; expected --style NAME_OR_FILE, or --mix STYLE=WEIGHT ...")
        named = [name for style in options.style for name in (all_styles() if style == "all" else [style])]
        return [str(predicted_style(name, size=options.style_size)) if is_painting(name) else name for name in named]
    if len(options.style) > 1 or options.style == ["all"]:
        raise ModelFileError(f"found --mix with --style {' '.join(options.style)}; expected one file, as --style zoo")
    for part in options.mix:
        if "=" not in part:
            raise ModelFileError(f"found {part} after --mix; expected STYLE=WEIGHT, and pictures before --mix")
    return ["/".join([*options.style, ",".join(options.mix)])]


def one_style_of(options: argparse.Namespace) -> str:
    """The one that they name."""
    styles = styles_of(options)
    if len(styles) > 1:
        raise ModelFileError(f"found {len(styles)} styles; expected one")
    return styles[0]


def add_steady(command: argparse.ArgumentParser) -> None:
    """Videos alone."""
    command.add_argument(
        "--steady",
        type=float,
        nargs="?",
        const=MOVING,
        metavar="LEVELS",
        help="average noise away where frames differ by less than so many levels of 255; without a number: 4",
    )


def add_files(command: argparse.ArgumentParser) -> None:
    """Folders of files, and files of any size."""
    add = command.add_argument
    add("--recursive", action="store_true", help="look into the sub-folders of folders")
    add("--skip-existing", action="store_true", help="leave results alone that are there already")
    add("--strip", action="store_true", help="leave EXIF out of results")
    add("--max-pixels", type=pixels, metavar="N", help="of larger pictures none is read; default: 179M")
    add(
        "--tiles",
        choices=("auto", "exact", "off"),
        default="auto",
        help="evaluate in strips, with the whole picture's result: where it would not fit, always, never",
    )
    add(
        "--memory",
        type=byte_count,
        metavar="SIZE",
        help="that a pass may take, such as 2GiB; default: half of the device's",
    )


def add_backend(command: argparse.ArgumentParser) -> None:
    """What computes a model file's network, and where."""
    command.add_argument(
        "--backend",
        choices=("auto", "torch", "openvino"),
        default="auto",
        help="default: openvino on a CPU, if installed",
    )
    add_precision(command)


def add_device(command: argparse.ArgumentParser) -> None:
    """Where it is computed."""
    command.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")


def add_precision(command: argparse.ArgumentParser) -> None:
    """Where it is computed, and how finely."""
    add_device(command)
    kinds = ("auto", "float32", "bfloat16", "float16")
    command.add_argument(
        "--precision", choices=kinds, default="auto", help="default: the fastest that the hardware has"
    )


def seed(text: str) -> int:
    try:
        return check_seed(int(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number from 0 to {SEEDS - 1}") from None


def size(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 16:
        raise argparse.ArgumentTypeError(
            f"found {text!r}; expected a whole number of at least 16 pixels, at most 999999"
        )
    return int(text)


def octaves(text: str) -> int:
    try:
        return check_octaves(int(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number from 1 to {MOST}") from None


def style_scale(text: str) -> float | None:
    try:
        return None if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a number, or auto") from None


def pixels(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15}(?:\.\d+)?) ?(M?)P?", text, re.IGNORECASE)
    count = int(float(found[1]) * (10**6 if found[2] else 1)) if found else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a number of pixels such as 300M")
    return count


def byte_count(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15}(?:\.\d+)?) ?([KMGT])(i?)B?", text, re.IGNORECASE)
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a size such as 2GiB or 500MB")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** ("KMGT".index(found[2].upper()) + 1))


def of_options(kind: type[_Options], options: argparse.Namespace) -> _Options:
    """What options say that are called as the fields of a dataclass."""
    return kind(**said(options, *(field.name for field in dataclasses.fields(kind))))  # type: ignore[arg-type]


def said(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """What some options say, for a function whose parameters are called so."""
    return {name: getattr(options, name) for name in names}


def where_of(options: argparse.Namespace) -> tuple[str, str, str]:
    """Device, backend and precision."""
    return options.device, options.backend, options.precision


def finish(summary: Summary) -> int:
    """Say what was skipped, if anything was; returns the exit code."""
    if summary.failures or summary.there:
        print(f"fststyle: {one_line(str(summary))}", file=sys.stderr)
    return 1 if summary.failures else 0
