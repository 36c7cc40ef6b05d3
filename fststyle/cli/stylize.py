"""``fststyle stylize``: pictures in one style or several, in one pass each."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from fststyle.cli.pictures import Stream, expand, label_of, plan, process, without_existing
from fststyle.images import Picture, large, read_header, read_picture

if TYPE_CHECKING:
    from fststyle.inference import Looks, Stylizer


def run(options: argparse.Namespace) -> int:
    """Check everything that can be checked before work begins, then stylise picture by picture."""
    labels = [label_of(style) for style in options.style]
    if len(set(labels)) < len(labels):
        raise ValueError(f"found --style {', '.join(options.style)}; expected styles of different names")
    inputs = list(expand(options.inputs, labels, recursive=options.recursive, output=options.output))
    jobs, there = plan(inputs, options.output, labels), 0
    if options.skip_existing:
        jobs, there = without_existing(jobs)

    from fststyle.inference import Looks, Stylizer

    looks = Looks(options.median, options.strength, options.preserve_color, options.style_scale)
    stylizers = [
        Stylizer.from_checkpoint(style, options.device, options.backend, options.precision) for style in options.style
    ]

    def stylised(picture: Picture, number: int) -> np.ndarray:
        stylizer = stylizers[number]
        memory = None if options.tiles == "off" else options.memory or stylizer.memory
        return stylizer.pixels(picture.rgb, looks, memory, options.tiles == "exact")

    def read(path: Path) -> Picture:
        return read_picture(path, options.size, deep=True, max_pixels=options.max_pixels)

    stream = streaming(options, lambda number: stylizers[number], looks)
    return process(jobs, stylised, read, stream, skipped=there, strip=options.strip)


def streaming(options: argparse.Namespace, stylizer_of: Callable[[int], Stylizer], looks: Looks) -> Stream:
    """What makes a result from file to file, where the whole frame would not fit or the user wants it so.

    Args:
        options: ``tiles``, ``memory``, ``size``, ``max_pixels`` and ``strip``.
        stylizer_of: by the number of the label.
        looks: how the style is applied.
    """

    def wants(source: Path, number: int) -> bool:
        if options.tiles == "off" or not large.available():
            return False
        stylizer = stylizer_of(number)
        seen = looks.seen(*read_header(source, options.max_pixels).resized(options.size))
        return options.tiles == "exact" or stylizer.is_too_large(*seen, options.memory or stylizer.memory)

    def apply(source: Path, target: Path, number: int) -> None:
        from fststyle.inference.files import apply_to_file

        stylizer, header = stylizer_of(number), read_header(source, options.max_pixels)
        height, width = header.resized(options.size)
        megapixels = height * width / 1e6
        layout = "{desc}: {percentage:3.0f} %|{bar}| {n:.1f} of {total:.1f} MP, {remaining} left"
        with tqdm(total=megapixels, desc=source.name, bar_format=layout, leave=False, disable=None) as bar:
            apply_to_file(
                stylizer,
                source,
                target,
                header,
                looks=looks,
                size=options.size,
                memory=options.memory or stylizer.memory,
                max_pixels=options.max_pixels,
                strip_metadata=options.strip,
                progress=lambda part: bar.update(part * megapixels) and None,
            )

    return Stream(wants, apply)
