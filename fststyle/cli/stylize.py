"""``fststyle stylize``: pictures in one style, in one pass each."""

from __future__ import annotations

import argparse

import numpy as np

from fststyle.cli.pictures import expand, label_of, plan, process
from fststyle.images import Picture, read_picture, with_luminance_of


def run(options: argparse.Namespace) -> int:
    """Check everything that can be checked before work begins, then stylise picture by picture."""
    label = label_of(options.style)
    inputs = list(expand(options.inputs, label))
    targets = plan(inputs, options.output, label)

    from fststyle.inference import Stylizer

    stylizer = Stylizer.from_checkpoint(options.style, options.device, options.backend, options.precision)

    def stylised(picture: Picture) -> np.ndarray:
        if options.tiles == "exact":
            output = stylizer.streamed(picture.rgb, options.memory, options.median)
        else:
            output = stylizer.pixels(picture.rgb, options.median, options.memory if options.tiles == "auto" else None)
        return with_luminance_of(picture.rgb, output) if options.preserve_color else output

    return process(inputs, targets, stylised, lambda path: read_picture(path, options.size))
