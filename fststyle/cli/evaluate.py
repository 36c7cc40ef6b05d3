"""``fststyle evaluate superres``: what enlarging gives back of pictures that were reduced."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from fststyle.cli.pictures import label_of
from fststyle.images import check_writable, existing_part, find_pictures
from fststyle.networks.checkpoint import find_checkpoint, read_record, shipped


def run(options: argparse.Namespace) -> int:
    """Check the data set and the models, measure picture by picture, then write table and page."""
    files = find_pictures(options.dataset)
    folder = Path(options.output).expanduser()
    check_writable(existing_part(folder))
    models = options.model or [name for name in shipped("superres") if _scale(name) == (options.scale or 4)]
    scales = {model: _scale(model) for model in models}
    scale = options.scale or next(iter(scales.values()), 4)
    for model, own in scales.items():
        if own != scale:
            raise ValueError(f"{model} enlarges by {own}; the others, or --scale, by {scale}: measure them separately")
    twice = [label for label, count in Counter(map(label_of, models)).items() if count > 1]
    if twice:
        raise ValueError(f"two of the models are called {twice[0]}; give one of the files another name")
    if not options.blur >= 0:
        raise ValueError(f"--blur is {options.blur}; expected a number ≥ 0")

    from fststyle.inference import Upscaler
    from fststyle.report import superres

    methods = {}
    for model in models:
        enlarge = Upscaler.from_checkpoint(model, options.device, options.backend, options.precision).pixels
        methods[label_of(model)] = superres.to_matched(enlarge) if options.match_histogram else enlarge
    found = superres.evaluate(files, methods, scale, options.blur, options.pictures)
    rows = list(tqdm(found, total=len(files), unit="picture", disable=not sys.stderr.isatty()))
    print("\n".join(superres.lines(rows)))
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "data set": Path(options.dataset).name,
        "scale": scale,
        "blur of the reduction": options.blur,
        "histogram matched": options.match_histogram,
        "measured on": f"luminance (BT.601), a border of {scale} pixels left out",
    }
    superres.write(rows, folder, f"Super-resolution ×{scale} on {about['data set']}", about)
    print(folder / "index.html")
    return 0


def _scale(model: str) -> int:
    arguments = read_record(find_checkpoint(model, "superres"))["network"]["arguments"]
    return int(arguments.get("scale", 1))
