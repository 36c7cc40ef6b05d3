"""``fststyle evaluate stability``: how steady styles are on clips that are made from photographs."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

from tqdm import tqdm

from fststyle.cli.options import add_backend, add_steady, figures_file, size, where_of
from fststyle.images import ImageError, check_folder, read_picture
from fststyle.inference.paths import label_of, readable
from fststyle.model_file import check_kind, find_model_file, one_style
from fststyle.resources import user_path


def add_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("photos", nargs="+", metavar="PHOTO", help="photographs that clips are made from")
    add("--style", action="append", default=[], metavar="NAME_OR_FILE", help="repeat for more")
    add(
        "--results",
        action="append",
        default=[],
        metavar="FOLDER",
        help="clips that were stylised elsewhere, laid out as --write does; repeat for more",
    )
    add("--write", metavar="FOLDER", help="write the clips' frames there, as PHOTO/CLIP/0001.png")
    add("--clip", action="append", metavar="NAME", help="of pan, zoom, rotation, layer, noise, still")
    add("--width", type=size, default=320, metavar="N", help="of frames, three quarters high; 320")
    add("--frames", type=int, default=24, metavar="N", help="of each clip; default: 24")
    add_steady(command)
    add("--json", metavar="FILE", help="write the figures there, too")
    add_backend(command)
    command.set_defaults(measure=measure)


def measure(options: argparse.Namespace) -> int:
    """Check styles, folders and photographs, then measure clip by clip."""
    for name in options.style:
        check_kind(one_style(find_model_file(name, "style")), "style")
    names = [*map(label_of, options.style), *(Path(folder).name for folder in options.results)]
    twice = sorted({name for name in [*names, "input"] if [*names, "input"].count(name) > 1})
    if twice:
        raise ValueError(f"two of the results are called {twice[0]}; give one of them another name")
    for folder in map(user_path, options.results):
        if not folder.is_dir():
            raise ImageError(f"{folder}: no such folder; expected stylised clips in PHOTO/CLIP/")
    target = figures_file(options, "clips", "stability")
    written = None if options.write is None else check_folder(options.write, "--write")
    if written is not None and written.exists() and any(written.iterdir()):
        raise ImageError(f"{written}: is there already, and not empty; give another folder for --write")
    paths = [user_path(name) for name in options.photos]
    if len({path.stem for path in paths}) < len(paths):
        raise ValueError("two of the photographs have one name; give one of them another")
    read, failures = readable(paths, lambda path: read_picture(path, 4 * options.width).rgb)
    photos = {path.stem: rgb for path, rgb in read.items()}

    from fststyle.evaluation import stability
    from fststyle.evaluation.clips import make_clips

    clips = make_clips((options.width * 3 // 4, options.width), options.frames)
    for name in options.clip or []:
        if name not in clips:
            raise ValueError(f"unknown clip {name!r}; expected one of {', '.join(clips)}")
    clips = {name: clip for name, clip in clips.items() if name in (options.clip or clips)}
    if written is not None:
        for folder in stability.write_clips(photos, clips, written):
            print(folder)
    from fststyle.inference import Stylizer
    from fststyle.inference.steady import SteadyInput

    def fresh(stylizer: Stylizer) -> stability.Method:
        if options.steady is None:
            return stylizer.pixels
        calm = SteadyInput(options.steady)
        return lambda rgb: stylizer.pixels(calm(rgb))

    stylizers = {label_of(name): Stylizer.from_checkpoint(name, *where_of(options)) for name in options.style}
    methods = {name: functools.partial(fresh, stylizer) for name, stylizer in stylizers.items()}
    results = {folder.name: folder for folder in map(user_path, options.results)}
    work = len(clips) * len(photos) * (len(methods) + len(results))
    with tqdm(total=work, unit="clip", disable=not sys.stderr.isatty()) as bar:
        rows = list(stability.evaluate(photos, clips, methods, results, bar.update))
    print("\n".join(stability.lines(rows)))
    if target is not None:
        from fststyle.evaluation.compare import write_json

        about = {"photos": list(photos), "clips": list(clips), "frames": options.frames, "width": options.width}
        write_json(target, {**about, "stability": [vars(row) for row in rows]})
    return 1 if failures else 0
