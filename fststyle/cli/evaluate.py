"""``fststyle evaluate``: what enlarging gives back of pictures that were reduced (``superres``), how much of stylised
pictures looks painted (``style``), how steady styles are over time (``stability``).
"""

from __future__ import annotations

import argparse

from fststyle.cli.options import WHERE, add_backend, add_steady, octaves, said, size
from fststyle.resources import user_path


def add_arguments(command: argparse.ArgumentParser) -> None:
    tasks = command.add_subparsers(title="what is measured", required=True, metavar="TASK")
    superres = tasks.add_parser("superres", help="PSNR and SSIM of enlarged pictures, on a folder of them")
    add = superres.add_argument
    add("dataset", metavar="DATASET", help="a folder of pictures, such as BSD100")
    add("--scale", type=int, choices=(4, 8), help="default: the models', or 4")
    add(
        "--model",
        action="append",
        default=[],
        metavar="NAME_OR_FILE",
        help="default: all of that scale; repeat for more",
    )
    add("--blur", type=float, default=0.0, metavar="S", help="of the reduction, pixels; default: 0")
    add("--match-histogram", action="store_true", help="give results the input's colours first")
    add("-o", "--output", default="evaluate", metavar="FOLDER", help="default: evaluate")
    add("--pictures", type=int, default=8, metavar="N", help="shown on the page; default: 8")
    add_backend(superres)
    superres.set_defaults(measure=superres_report)
    style = tasks.add_parser("style", help="windows of stylised pictures beside windows of the painting")
    add = style.add_argument
    add("--painting", required=True, metavar="PICTURE", help="whose style it is")
    add("--photo", required=True, metavar="PICTURE", help="what was stylised; recoloured, it measures 1")
    add("--result", nargs="+", default=[], metavar="PICTURE", help="the photograph, stylised by anything")
    add("--style", action="append", default=[], metavar="NAME_OR_FILE", help="apply it at 640 pixels; repeat for more")
    add("--encoder", default="slim", metavar="NAME_OR_FILE", help="slim, vgg16, vgg19, or a file")
    add("--architecture", choices=("vgg16", "vgg19"), default="vgg19", help="of such a file")
    add("--normalize", metavar="FOLDER", help="photographs to scale the encoder's filters on")
    add("--json", metavar="FILE", help="write the figures there, too")
    add_backend(style)
    style.set_defaults(measure=style_figures)
    stability = tasks.add_parser(
        "stability",
        help="flicker on clips whose motion is known, and on videos",
        epilog="The motion of a video is estimated, with errors of its own: compare methods on the same video alone, "
        "beside its own row (input).",
    )
    add = stability.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="PHOTO_OR_VIDEO",
        help="photographs that clips are made from; videos, or numbered pictures as frames/%%06d.png",
    )
    add("--style", action="append", default=[], metavar="NAME_OR_FILE", help="repeat for more")
    add(
        "--results",
        action="append",
        default=[],
        metavar="FOLDER",
        help="clips that were stylised elsewhere, laid out as --write does; repeat for more",
    )
    add("--write", metavar="FOLDER", help="write the frames there, as PHOTO/CLIP/0001.png, VIDEO/0001.png")
    add("--clip", action="append", default=[], metavar="NAME", help="of pan, zoom, rotation, layer, noise, still")
    add("--width", type=size, default=320, metavar="N", help="of frames; clips are three quarters high; 320")
    add("--frames", type=int, default=24, metavar="N", help="of each clip; of a video the first; default: 24")
    add("--octaves", type=octaves, default=1, metavar="N", help="in which styles are applied; default: 1, as of videos")
    add_steady(stability)
    add("--json", metavar="FILE", help="write the figures there, too")
    add_backend(stability)
    stability.set_defaults(measure=stability_table)


def run(options: argparse.Namespace) -> int:
    return int(options.measure(options))


def superres_report(options: argparse.Namespace) -> int:
    """Print the means, and where the page is."""
    from fststyle.evaluation import superres

    how = said(options, "scale", "blur", "match_histogram", "pictures", *WHERE)
    rows, failures = superres.measure_files(options.dataset, options.output, options.model, **how)
    print("\n".join(superres.lines(rows)))
    print(user_path(options.output) / "index.html")
    return 1 if failures else 0


def style_figures(options: argparse.Namespace) -> int:
    """Print a line for each result."""
    from fststyle.evaluation import style

    how = said(options, "painting", "photo", "encoder", "architecture", "normalize", "json", *WHERE)
    figures, failures = style.measure_files(results=options.result, styles=options.style, **how)
    width = max(map(len, figures))
    for name, found in figures.items():
        print(f"{name:<{width}}  everywhere {found.everywhere:.3f}  all of it {found.all_of_it:.3f}")
    return 1 if failures else 0


def stability_table(options: argparse.Namespace) -> int:
    """Print the table."""
    from fststyle.evaluation import stability

    how = said(options, "inputs", "results", "width", "frames", "steady", "octaves", "write", "json", *WHERE)
    rows, failures = stability.measure_files(styles=options.style, clips=options.clip, **how)
    print("\n".join(stability.lines(rows)))
    return 1 if failures else 0
