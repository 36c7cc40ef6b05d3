"""``fststyle video``: videos in a style, with their sound."""

from __future__ import annotations

import argparse
from fractions import Fraction
from importlib.util import find_spec

from fststyle.cli.options import add_backend, add_steady, add_style, finish, of_options, one_style_of, size, where_of

#: As ``video.formats.CODECS``, which needs PyAV.
CODECS = ("h264", "h265", "vp9", "av1", "prores", "ffv1")


def add_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("inputs", nargs="+", metavar="IN", help="videos, patterns, or numbered pictures as frames/%%06d.png")
    add(
        "-o",
        "--output",
        metavar="OUT",
        help="a file in .mp4, .mov (ProRes), .mkv, .webm or .gif, numbered pictures as frames/%%06d.png, or a folder; "
        "default: beside each input, in .mp4",
    )
    add("--overwrite", action="store_true", help="replace videos that no run wrote; earlier results always are")
    add_style(command)
    add("--size", type=size, metavar="N", help="bring the longer side to N pixels first")
    add("--start", type=seconds, default=0.0, metavar="TIME", help="seconds, or H:MM:SS; default: 0")
    add("--end", type=seconds, metavar="TIME", help="likewise; default: the end")
    add("--fps", type=rate, metavar="N", help="frames a second, as 24 or 30000/1001; default: every frame at its time")
    add("--codec", choices=CODECS, help="default: h264 in .mp4 and .mkv, prores in .mov, vp9 in .webm")
    add("--crf", type=int, metavar="N", help="lower is better and larger; default: 20 with h264")
    add_steady(command)
    add("--resume", action="store_true", help="go on with what an interrupted run left")
    add("--discard-partial", action="store_true", help="when interrupted, leave nothing instead of what is done")
    add_backend(command)


def run(options: argparse.Namespace) -> int:
    if find_spec("av") is None:
        raise ValueError("PyAV is not installed, which reads and writes videos; pip install 'fststyle[video]'")
    import av

    from fststyle.inference.options import StylizeOptions
    from fststyle.video import VideoOptions, stylize_videos

    av.logging.set_level(av.logging.ERROR)  # so that what decoders complain of can be heard
    summary = stylize_videos(
        options.inputs,
        one_style_of(options),
        options.output,
        of_options(StylizeOptions, options),
        of_options(VideoOptions, options),
        *where_of(options),
        resume=options.resume,
        keep_partial=not options.discard_partial,
        overwrite=options.overwrite,
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
