"""The ``fststyle`` command.

Exit codes: 0 all done; 1 failed or partly failed during the work; 2 refused before it began; 75 told to stop
(SIGTERM, SIGUSR1) with everything saved, the same command with resume=auto goes on; 141 the reader of a pipe left.
Every command is a function of the parsed options that returns its exit code; what a command needs
is imported when it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence

from fststyle import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # hints on odd metadata
    try:
        if words[:1] in (["train"], ["optimize"], ["preview"]):  # their words are Hydra's
            from fststyle.cli import compose, optimize, preview, train

            if words[0] == "preview":
                return compose.run("preview", preview.photo_first(words[1:]), preview.preview)
            return compose.run(words[0], words[1:], train.train if words[0] == "train" else optimize.optimize)
        options = parser().parse_args(words)
        return int(options.run(options))
    except BrokenPipeError:  # who read our words has enough of them, as head and less
        return 141
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
        return int(getattr(interrupt, "exit_code", 1))


def entry() -> None:
    """The console script."""
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # nobody listens any more; Python tries once more at its end
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def parser() -> argparse.ArgumentParser:
    """All commands and options but those of ``train``, ``optimize`` and ``preview``, which are Hydra's."""
    top = argparse.ArgumentParser(prog="fststyle", description="Fast neural style transfer.")
    top.add_argument("--version", action="version", version=f"fststyle {__version__}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    for name, purpose in (
        ("train", "train a network for one style"),
        ("optimize", "style transfer, textures and reconstructions by slow optimisation"),
        ("preview", "look before you train: style weight by style size, in minutes"),
    ):  # for the list of commands only
        commands.add_parser(name, help=f"{purpose} (fststyle {name} --help)", add_help=False)

    stylize = commands.add_parser("stylize", help="apply a style to pictures, in one pass")
    stylize.add_argument("inputs", nargs="+", metavar="IN", help="pictures, globs or folders")
    stylize.add_argument(
        "--style",
        required=True,
        action="append",
        metavar="NAME_OR_FILE",
        help="a shipped style or a checkpoint; repeat for several",
    )
    stylize.add_argument("-o", "--output", metavar="OUT", help="a file, or a folder; default: beside each input")
    stylize.add_argument("--size", type=_size, metavar="N", help="bring the longer side to N pixels first")
    stylize.add_argument(
        "--strength", type=float, default=1.0, metavar="X", help="from 0, the photograph, to 1, the style; default: 1"
    )
    stylize.add_argument(
        "--style-scale",
        type=_style_scale,
        metavar="X",
        help="strokes so many times larger; default: auto, 1 up to 1024 pixels, 1.4 at 2048, 2 at 4096",
    )
    stylize.add_argument(
        "--preserve-color", action="store_true", help="the photograph's colours, the result's luminance"
    )
    stylize.add_argument("--median", action="store_true", help="3×3 median filter on the result, as Johnson's code")
    _add_files(stylize)
    _add_backend(stylize)
    stylize.set_defaults(run=_stylize)

    upscale = commands.add_parser("upscale", help="enlarge pictures, in one pass")
    upscale.add_argument("inputs", nargs="+", metavar="IN", help="pictures, globs or folders")
    upscale.add_argument("--scale", type=int, choices=(4, 8), help="how many times larger; default: the model's, or 4")
    upscale.add_argument("--model", metavar="NAME_OR_FILE", help="a checkpoint; default: x4_pixel or x8_pixel")
    upscale.add_argument("-o", "--output", metavar="OUT", help="a file, or a folder; default: beside each input")
    upscale.add_argument("--size", type=_size, metavar="N", help="bring the longer side to N pixels first")
    upscale.add_argument("--match-histogram", action="store_true", help="give the result the input's colours, exactly")
    _add_files(upscale)
    _add_backend(upscale)
    upscale.set_defaults(run=_upscale)

    evaluate = commands.add_parser("evaluate", help="measure super-resolution, or how much of results looks painted")
    tasks = evaluate.add_subparsers(title="what is measured", required=True, metavar="TASK")
    superres = tasks.add_parser("superres", help="PSNR and SSIM of enlarged pictures, on a folder of them")
    superres.add_argument("dataset", metavar="DATASET", help="a folder of pictures, such as BSD100")
    superres.add_argument("--scale", type=int, choices=(4, 8), help="default: the models', or 4")
    superres.add_argument(
        "--model", action="append", metavar="NAME_OR_FILE", help="default: all that ship for the scale; repeat for more"
    )
    superres.add_argument("--blur", type=float, default=0.0, metavar="S", help="of the reduction, pixels; default: 0")
    superres.add_argument("--match-histogram", action="store_true", help="give results the input's colours first")
    superres.add_argument("-o", "--output", default="evaluate", metavar="FOLDER", help="default: evaluate")
    superres.add_argument("--pictures", type=int, default=8, metavar="N", help="shown on the page; default: 8")
    _add_backend(superres)
    superres.set_defaults(run=_evaluate_superres)
    style = tasks.add_parser("style", help="windows of stylised pictures beside windows of the painting")
    style.add_argument("--painting", required=True, metavar="PICTURE", help="whose style it is")
    style.add_argument("--photo", required=True, metavar="PICTURE", help="what was stylised; recoloured, it measures 1")
    style.add_argument("--result", nargs="+", metavar="PICTURE", help="the photograph, stylised by anything")
    style.add_argument(
        "--style", action="append", metavar="NAME_OR_FILE", help="stylise the photograph at 640 pixels; repeat for more"
    )
    style.add_argument("--encoder", default="slim", metavar="NAME_OR_FILE", help="slim, vgg16, vgg19, or a file")
    style.add_argument("--architecture", choices=("vgg16", "vgg19"), default="vgg19", help="of such a file")
    style.add_argument("--normalize", metavar="FOLDER", help="photographs to scale the encoder's filters on")
    style.add_argument("--json", metavar="FILE", help="write the figures there, too")
    _add_backend(style)
    style.set_defaults(run=_evaluate_style)

    swap = commands.add_parser("swap", help="paint pictures with patches of any other picture, in one pass")
    swap.add_argument("inputs", nargs="+", metavar="IN", help="pictures, globs or folders")
    swap.add_argument("--style-image", required=True, metavar="PICTURE", help="any picture: nothing is trained for it")
    swap.add_argument(
        "--model", default="slim", metavar="NAME_OR_FILE", help="the network, shipped or a checkpoint; default: slim"
    )
    swap.add_argument("-o", "--output", metavar="OUT", help="a file, or a folder; default: beside each input")
    swap.add_argument("--size", type=_size, metavar="N", help="bring the longer side to N pixels first")
    swap.add_argument("--style-size", type=_size, metavar="N", help="and that of the style picture")
    swap.add_argument("--patch", type=int, default=3, metavar="N", help="side in feature positions, each 4 pixels; 3")
    swap.add_argument("--stride", type=int, default=1, metavar="N", help="from one patch to the next; default: 1")
    swap.add_argument("--preserve-color", action="store_true", help="the photograph's colours, the result's luminance")
    _add_precision(swap)
    swap.set_defaults(run=_swap)

    compare = commands.add_parser("compare", help="hold one pass against the slow optimisation; the papers' figures")
    compare.add_argument("photos", nargs="+", metavar="PHOTO", help="pictures, globs or folders")
    compare.add_argument("--style", action="append", metavar="NAME_OR_FILE", help="a shipped style or a checkpoint")
    compare.add_argument("--style-image", action="append", metavar="PICTURE", help="the painting, to be shown")
    compare.add_argument("-o", "--output", default="compare", metavar="FOLDER", help="default: compare")
    compare.add_argument("--size", type=_size, action="append", metavar="N", help="longer side; default: 256")
    compare.add_argument("--iterations", type=int, default=500, help="of the slow side; default: 500")
    compare.add_argument("--until-crossed", action="store_true", help="stop once it is as good as the one pass")
    compare.add_argument(
        "--figure",
        choices=("reconstructions", "ratios", "content-layers", "starts", "features"),
        help="a figure of Gatys et al. 2016 instead of the report",
    )
    compare.add_argument("--layers", nargs="+", metavar="LAYER", help="of --figure features")
    compare.add_argument("--channels", nargs="+", type=int, metavar="N", help="of --figure features")
    compare.add_argument("--encoder", metavar="NAME_OR_FILE", help="weights: slim, vgg16, vgg19, or a file")
    compare.add_argument("--architecture", choices=("vgg16", "vgg19"), default="vgg16", help="of such a file")
    compare.add_argument("--normalize", metavar="FOLDER", help="photographs to scale the encoder's filters on")
    compare.add_argument("--photographs", metavar="FOLDER", help="to balance the loss of a figure on")
    compare.add_argument("--seed", type=int, default=0, help="of the noise")
    _add_device(compare)
    compare.set_defaults(run=_compare)

    export = commands.add_parser("export", help="write a style as ONNX, OpenVINO or PyTorch file for other programs")
    export.add_argument("style", metavar="NAME_OR_FILE", help="a shipped style or a checkpoint")
    export.add_argument("--format", required=True, choices=("onnx", "openvino", "pt2"))
    export.add_argument("-o", "--output", metavar="OUT", help="a file or a folder; default: the style's name, here")
    export.add_argument("--overwrite", action="store_true", help="replace a file that is there already")
    export.set_defaults(run=_export)

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


def _add_files(command: argparse.ArgumentParser) -> None:
    """Folders of files, and files of any size."""
    command.add_argument("--recursive", action="store_true", help="look into the sub-folders of folders")
    command.add_argument("--skip-existing", action="store_true", help="leave results alone that are there already")
    command.add_argument("--strip", action="store_true", help="leave EXIF out of results")
    command.add_argument(
        "--max-pixels", type=_pixels, metavar="N", help="of larger pictures none is read; default: 179M"
    )
    command.add_argument(
        "--tiles",
        choices=("auto", "exact", "off"),
        default="auto",
        help="stream strip by strip, with the whole frame's result: where it would not fit, always, never",
    )
    command.add_argument(
        "--memory",
        type=_bytes,
        metavar="SIZE",
        help="that a pass may take, such as 2GiB; default: half of the device's",
    )


def _add_backend(command: argparse.ArgumentParser) -> None:
    """What computes a checkpoint's network, and where."""
    command.add_argument(
        "--backend",
        choices=("auto", "torch", "openvino"),
        default="auto",
        help="default: openvino on a CPU, if installed",
    )
    _add_precision(command)


def _add_device(command: argparse.ArgumentParser) -> None:
    """Where it is computed."""
    command.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")


def _add_precision(command: argparse.ArgumentParser) -> None:
    """Where it is computed, and how finely."""
    _add_device(command)
    command.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="default: the fastest that the hardware has",
    )


def _size(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 16:
        raise argparse.ArgumentTypeError(
            f"found {text!r}; expected a whole number of at least 16 pixels, at most 999999"
        )
    return int(text)


def _style_scale(text: str) -> float | None:
    try:
        return None if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a number, or auto") from None


def _pixels(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(M?)P?", text, re.IGNORECASE)
    count = int(float(found[1]) * (10**6 if found[2] else 1)) if found else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a number of pixels such as 300M")
    return count


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT])(i?)B?", text, re.IGNORECASE)
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a size such as 2GiB or 500MB")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** ("KMGT".index(found[2].upper()) + 1))


def _stylize(options: argparse.Namespace) -> int:
    from fststyle.cli.stylize import run

    return run(options)


def _upscale(options: argparse.Namespace) -> int:
    from fststyle.cli.upscale import run

    return run(options)


def _evaluate_superres(options: argparse.Namespace) -> int:
    from fststyle.cli.evaluate import superres

    return superres(options)


def _evaluate_style(options: argparse.Namespace) -> int:
    from fststyle.cli.evaluate import style

    return style(options)


def _swap(options: argparse.Namespace) -> int:
    from fststyle.cli.swap import run

    return run(options)


def _compare(options: argparse.Namespace) -> int:
    from fststyle.cli.compare import run

    return run(options)


def _export(options: argparse.Namespace) -> int:
    from fststyle.cli.export import run

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
