"""``fststyle evaluate``: what enlarging gives back of pictures that were reduced (``superres``), how much of stylised
pictures looks painted (``style``), how steady styles are over time (``stability``).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from fststyle.cli import evaluate_stability
from fststyle.cli.options import add_backend, figures_file, where_of
from fststyle.images import (
    LARGE,
    check_folder,
    load_image,
    no_pictures,
    read_header,
    read_picture,
    search,
    to_image,
)
from fststyle.inference.paths import label_of, nothing_done, readable, skip
from fststyle.model_file import bundled_files, check_kind, find_model_file, one_style
from fststyle.resources import user_path

if TYPE_CHECKING:
    from torch import Tensor

    from fststyle.encoders.vgg import VGGEncoder


def add_arguments(command: argparse.ArgumentParser) -> None:
    tasks = command.add_subparsers(title="what is measured", required=True, metavar="TASK")
    superres = tasks.add_parser("superres", help="PSNR and SSIM of enlarged pictures, on a folder of them")
    add = superres.add_argument
    add("dataset", metavar="DATASET", help="a folder of pictures, such as BSD100")
    add("--scale", type=int, choices=(4, 8), help="default: the models', or 4")
    add("--model", action="append", metavar="NAME_OR_FILE", help="default: all bundled for the scale; repeat for more")
    add("--blur", type=float, default=0.0, metavar="S", help="of the reduction, pixels; default: 0")
    add("--match-histogram", action="store_true", help="give results the input's colours first")
    add("-o", "--output", default="evaluate", metavar="FOLDER", help="default: evaluate")
    add("--pictures", type=int, default=8, metavar="N", help="shown on the page; default: 8")
    add_backend(superres)
    superres.set_defaults(measure=measure_superres)
    style = tasks.add_parser("style", help="windows of stylised pictures beside windows of the painting")
    add = style.add_argument
    add("--painting", required=True, metavar="PICTURE", help="whose style it is")
    add("--photo", required=True, metavar="PICTURE", help="what was stylised; recoloured, it measures 1")
    add("--result", nargs="+", metavar="PICTURE", help="the photograph, stylised by anything")
    add(
        "--style", action="append", metavar="NAME_OR_FILE", help="stylise the photograph at 640 pixels; repeat for more"
    )
    add("--encoder", default="slim", metavar="NAME_OR_FILE", help="slim, vgg16, vgg19, or a file")
    add("--architecture", choices=("vgg16", "vgg19"), default="vgg19", help="of such a file")
    add("--normalize", metavar="FOLDER", help="photographs to scale the encoder's filters on")
    add("--json", metavar="FILE", help="write the figures there, too")
    add_backend(style)
    style.set_defaults(measure=measure_style)
    evaluate_stability.add_arguments(tasks.add_parser("stability", help="flicker on clips whose motion is known"))


def run(options: argparse.Namespace) -> int:
    return int(options.measure(options))


def measure_superres(options: argparse.Namespace) -> int:
    """Check the data set and the models, measure picture by picture, then write table and page."""
    files, failures = search(options.dataset)
    if not files:
        raise nothing_done(failures, report=True) if failures else no_pictures(options.dataset)
    folder = check_folder(options.output)
    models = options.model or [name for name in bundled_files("superres") if _scale(name) == (options.scale or 4)]
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

    from fststyle.evaluation import superres as evaluation
    from fststyle.inference import Upscaler

    evaluation.check_report(folder, files[: options.pictures], list(map(label_of, models)))
    methods = {}
    for model in models:
        enlarge = Upscaler.from_checkpoint(model, *where_of(options)).pixels
        methods[label_of(model)] = evaluation.to_matched(enlarge) if options.match_histogram else enlarge
    several = len(files) + len(failures) > 1
    for _, reason in failures:
        skip(reason)

    def failed(file: Path, reason: str) -> None:
        failures.append((file, reason))
        if several:
            skip(reason)

    found = evaluation.evaluate(files, methods, scale, options.blur, options.pictures, failed)
    rows = list(tqdm(found, total=len(files), unit="picture", disable=not sys.stderr.isatty()))
    if not rows:
        raise nothing_done(failures)
    print("\n".join(evaluation.lines(rows)))
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "data set": Path(options.dataset).name,
        "scale": scale,
        "blur of the reduction": options.blur,
        "histogram matched": options.match_histogram,
        "measured on": f"luminance (BT.601), a border of {scale} pixels left out",
    }
    evaluation.write(rows, folder, f"Super-resolution ×{scale} on {about['data set']}", about)
    print(folder / "index.html")
    return 1 if failures else 0


def _scale(model: str) -> int:
    arguments = check_kind(find_model_file(model, "superres"), "superres")["network"]["arguments"]
    return int(arguments.get("scale", 1))


def measure_style(options: argparse.Namespace) -> int:
    """Check pictures, models and the encoder, then measure result by result."""
    if not options.result and not options.style:
        raise ValueError("nothing to measure; give pictures with --result, or models with --style")
    for name in options.style or []:
        check_kind(one_style(find_model_file(name, "style")), "style")
    target = figures_file(options, "painting scales", "results")

    from fststyle.evaluation.style import LAYERS, SCALES, SIZE, WINDOW, StyleDistance

    def load(name: str, trim: bool = False) -> Tensor:  # what is large is measured at less all the same
        path = user_path(name)
        header = read_header(path, reduced=True)
        return load_image(path, 4 * SIZE if header.height * header.width > LARGE else None, trim=trim)

    photo, painting = load(options.photo), load(options.painting, trim=True)
    results, failures = readable(options.result or [], load, least=0 if options.style else 1)
    encoder = _encoder(options)
    distance = StyleDistance(photo, painting, encoder)
    if options.style:
        from fststyle.inference import Stylizer

        reduced = read_picture(user_path(options.photo), SIZE).rgb
        for name in options.style:
            stylizer = Stylizer.from_checkpoint(name, *where_of(options))
            results[name] = to_image(stylizer.pixels(reduced))
    rows = []
    for name, image in results.items():
        try:
            rows.append((name, distance(image)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    width = max(len(name) for name in results)
    for name, found in rows:
        print(f"{name:<{width}}  everywhere {found.everywhere:.3f}  all of it {found.all_of_it:.3f}")
    if target is not None:
        from fststyle.evaluation.compare import write_json

        about = {
            "photo": Path(options.photo).name,
            "painting": Path(options.painting).name,
            "encoder": encoder.metadata,
            "layers": LAYERS,
            "size": SIZE,
            "window": WINDOW,
            "painting scales": SCALES,
        }
        write_json(target, {**about, "results": [{"name": name, **vars(found)} for name, found in rows]})
    return 1 if failures else 0


def _encoder(options: argparse.Namespace) -> VGGEncoder:
    """The encoder by name, bundled or published, or from a file; with filters of mean activation 1."""
    from fststyle.config import named_encoder

    encoder = named_encoder(options.encoder, options.architecture, options.normalize)
    if options.normalize is None and encoder.photographs is None:
        raise ValueError(
            f"the filters of {encoder.name} are not scaled to mean activation 1; "
            "give a folder of photographs to scale them on: --normalize FOLDER"
        )
    return encoder
