"""``fststyle video``: videos in a style, with their sound."""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from importlib.util import find_spec

from fststyle.cli.options import add_backend, add_steady, add_style, finish, one_style_of, size

#: As ``video.formats.CODECS``, which needs PyAV.
CODECS = ("h264", "h265", "vp9", "av1", "prores", "ffv1")


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "inputs", nargs="+", metavar="IN", help="videos, patterns, or numbered pictures as frames/%%06d.png"
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a file in .mp4, .mov (ProRes), .mkv, .webm or .gif, numbered pictures as frames/%%06d.png, or a folder; "
        "default: beside each input, in .mp4",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace videos that no run wrote; earlier results always are"
    )
    add_style(command)
    command.add_argument("--size", type=size, metavar="N", help="bring the longer side to N pixels first")
    command.add_argument("--start", type=seconds, default=0.0, metavar="TIME", help="seconds, or H:MM:SS; default: 0")
    command.add_argument("--end", type=seconds, metavar="TIME", help="likewise; default: the end")
    command.add_argument(
        "--fps", type=rate, metavar="N", help="frames a second, as 24 or 30000/1001; default: every frame at its time"
    )
    command.add_argument("--codec", choices=CODECS, help="default: h264 in .mp4 and .mkv, prores in .mov, vp9 in .webm")
    command.add_argument("--crf", type=int, metavar="N", help="lower is better and larger; default: 20 with h264")
    add_steady(command)
    command.add_argument("--resume", action="store_true", help="go on with what an interrupted run left")
    command.add_argument(
        "--discard-partial", action="store_true", help="when interrupted, leave nothing instead of what is done"
    )
    add_backend(command)


def run(options: argparse.Namespace) -> int:
    if find_spec("av") is None:
        raise ValueError("PyAV is not installed, which reads and writes videos; pip install 'fststyle[video]'")
    import av
    from tqdm import tqdm

    from fststyle.inference.options import StylizeOptions
    from fststyle.video import VideoOptions, stylize_videos

    av.logging.set_level(av.logging.ERROR)  # so that what decoders complain of can be heard
    how = StylizeOptions(options.median, options.strength, options.preserve_color, options.style_scale)
    what = VideoOptions(
        options.start, options.end, options.fps, options.size, options.codec, options.crf, options.steady
    )
    summary = stylize_videos(
        options.inputs,
        one_style_of(options),
        options.output,
        how,
        what,
        options.device,
        options.backend,
        options.precision,
        options.resume,
        not options.discard_partial,
        options.overwrite,
        tqdm if sys.stderr.isatty() else None,
    )
    return finish(summary)


def seconds(text: str) -> float:
    parts = text.split(":")
    try:
        found = [float(part) for part in parts]
    except ValueError:
        found = []
    if not 1 <= len(found) <= 3 or not all(0 <= part < float("inf") for part in found):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected seconds, or H:MM:SS")
    return sum(part * 60**power for power, part in enumerate(reversed(found)))


def rate(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a number, as 24 or 30000/1001") from None
