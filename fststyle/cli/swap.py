"""``fststyle swap``: pictures in, the same painted with patches of any style picture out."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from tqdm import tqdm

from fststyle.cli.stylize import expand, plan
from fststyle.images import ImageError, Picture, check_writable, read_picture, save_image, with_luminance_of

#: Pairs of patches that take minutes on a CPU: more than two pictures of 1250 pixels have.
MANY_PAIRS = 10**10


def run(options: argparse.Namespace) -> int:
    """Check everything that can be checked before work begins, then swap picture by picture."""
    label = Path(options.style_image).stem
    inputs = list(expand(options.inputs, label))
    targets = plan(inputs, options.output, label)

    from fststyle.inference import Swapper
    from fststyle.networks.styleswap import check_patch

    check_patch(options.patch, options.stride)
    style = _read(Path(options.style_image).expanduser(), options.style_size, options.patch).rgb
    swapper = Swapper.from_checkpoint(options.model, options.device, options.precision)
    for folder in {target.parent for target in targets}:
        if options.output and not folder.exists():
            continue  # made when the first picture is done, so that a refusal leaves nothing behind
        check_writable(folder)

    failures: list[str] = []
    with tqdm(total=len(inputs), unit="picture", disable=len(inputs) == 1 or not sys.stderr.isatty()) as bar:
        for source, target in zip(inputs, targets, strict=True):
            try:
                picture = _read(source, options.size, options.patch)
                _warn(source, *(math.prod(rgb.shape[:2]) // (4 * options.stride) ** 2 for rgb in (picture.rgb, style)))
                output = swapper.pixels(picture.rgb, style, options.patch, options.stride)
                if options.preserve_color:
                    output = with_luminance_of(picture.rgb, output)
                target.parent.mkdir(parents=True, exist_ok=True)
                save_image(output, target, picture.alpha)
                tqdm.write(str(target))
            except (ImageError, OSError) as error:
                unwritten = f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})"
                failures.append(str(error) if isinstance(error, ImageError) else unwritten)
                if len(inputs) > 1:
                    tqdm.write(f"fststyle: skipped: {failures[-1]}", file=sys.stderr)
            bar.update()
    if not failures:
        return 0
    if len(failures) == len(inputs):  # nothing was done at all: refused
        raise ImageError(failures[0] if len(inputs) == 1 else f"none of the {len(inputs)} pictures could be swapped")
    print(f"fststyle: {len(inputs) - len(failures)} done, {len(failures)} skipped", file=sys.stderr)
    return 1


def _read(path: Path, size: int | None, patch: int) -> Picture:
    """A picture that has at least one patch, each of whose positions covers 4 pixels."""
    picture = read_picture(path, size)
    height, width = picture.rgb.shape[:2]
    if min(height, width) <= 4 * (patch - 1):
        least = 4 * (patch - 1) + 1
        raise ImageError(
            f"{path}: is {width}×{height} pixels; patches of {patch}×{patch} need at least {least}×{least}"
        )
    return picture


def _warn(path: Path, content: int, style: int) -> None:
    """Tell of a picture that will take long, given how many patches there are in it and in the style."""
    if content * style > MANY_PAIRS:
        tqdm.write(
            f"fststyle: {path}: {content:,} patches against {style:,} take minutes and more; "
            "a smaller --size or --style-size, or a larger --stride, is faster",
            file=sys.stderr,
        )
