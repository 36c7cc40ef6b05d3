"""``fststyle upscale``: pictures 4 or 8 times as large."""

from __future__ import annotations

import argparse

import numpy as np

from fststyle.cli.pictures import expand, plan, process
from fststyle.images import Picture, read_picture

#: What enlarges where no model is named.
DEFAULT_MODELS = {4: "x4_pixel", 8: "x8_pixel"}


def run(options: argparse.Namespace) -> int:
    """Check everything that can be checked before work begins, then enlarge picture by picture."""
    from fststyle.inference import Upscaler

    model = options.model or DEFAULT_MODELS[options.scale or 4]
    upscaler = Upscaler.from_checkpoint(model, options.device, options.backend, options.precision)
    if options.scale not in (None, upscaler.scale):
        raise ValueError(f"{model} enlarges by {upscaler.scale}; found --scale {options.scale}")
    label = f"x{upscaler.scale}"
    inputs = list(expand(options.inputs, label))
    targets = plan(inputs, options.output, label)

    def enlarged(picture: Picture) -> np.ndarray:
        output = upscaler.pixels(picture.rgb)
        if not options.match_histogram:
            return output
        from fststyle.color import with_histogram_of

        return with_histogram_of(output, picture.rgb)

    return process(inputs, targets, enlarged, lambda path: read_picture(path, options.size))
