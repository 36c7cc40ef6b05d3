"""``fststyle upscale``: pictures 4 or 8 times as large."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fststyle.cli.pictures import NO_STREAM, expand, plan, process, without_existing
from fststyle.cli.stylize import streaming
from fststyle.images import Picture, read_picture

#: What enlarges where no model is named.
DEFAULT_MODELS = {4: "x4_pixel", 8: "x8_pixel"}


def run(options: argparse.Namespace) -> int:
    """Check everything that can be checked before work begins, then enlarge picture by picture."""
    from fststyle.inference import Looks, Upscaler

    model = options.model or DEFAULT_MODELS[options.scale or 4]
    upscaler = Upscaler.from_checkpoint(model, options.device, options.backend, options.precision)
    if options.scale not in (None, upscaler.scale):
        raise ValueError(f"{model} enlarges by {upscaler.scale}; found --scale {options.scale}")
    label = f"x{upscaler.scale}"
    inputs = list(expand(options.inputs, [label], recursive=options.recursive, output=options.output))
    jobs, there = plan(inputs, options.output, [label]), 0
    if options.skip_existing:
        jobs, there = without_existing(jobs)

    def enlarged(picture: Picture, _: int) -> np.ndarray:
        memory = None if options.tiles == "off" else options.memory or upscaler.memory
        output = upscaler.pixels(picture.rgb, memory=memory, always=options.tiles == "exact")
        if not options.match_histogram:
            return output
        from fststyle.color import with_histogram_of

        return with_histogram_of(output, picture.rgb)

    def read(path: Path) -> Picture:
        return read_picture(path, options.size, deep=not options.match_histogram, max_pixels=options.max_pixels)

    # Histograms are of the whole picture, in memory.
    stream = NO_STREAM if options.match_histogram else streaming(options, lambda _: upscaler, Looks())
    return process(jobs, enlarged, read, stream, skipped=there, strip=options.strip)
