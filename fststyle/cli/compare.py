"""``fststyle compare``: fast against slow, as a page with pictures."""

from __future__ import annotations

import argparse

from fststyle.cli.options import add_device, seed, size
from fststyle.images import ImageError, check_folder, check_style_sides, read_picture
from fststyle.inference.paths import expand, readable
from fststyle.resources import user_path


def add_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("photos", nargs="+", metavar="PHOTO", help="pictures, globs or folders")
    add("--style", action="append", metavar="NAME_OR_FILE", help="a bundled style or a model file")
    add("--style-image", action="append", metavar="PICTURE", help="the painting, to be shown")
    add("-o", "--output", default="compare", metavar="FOLDER", help="default: compare")
    add("--size", type=size, action="append", metavar="N", help="longer side; default: 256")
    add("--iterations", type=int, default=500, help="of the slow side; default: 500")
    add("--until-crossed", action="store_true", help="stop once it is as good as the one pass")
    add("--encoder", metavar="NAME_OR_FILE", help="weights: slim, vgg16, vgg19, or a file")
    add("--normalize", metavar="FOLDER", help="photographs to scale the encoder's filters on")
    add("--seed", type=seed, default=0, help="of the noise")
    add_device(command)


def run(options: argparse.Namespace) -> int:
    """The report."""
    given, failures = expand(options.photos)
    folder = check_folder(options.output)
    if options.iterations < 1:
        raise ValueError(f"iterations is {options.iterations}; expected at least 1")
    if not options.style:
        raise ValueError("--style is missing; give a bundled style or a model file")
    stems = [photo.path.stem for photo in given]
    if len(set(stems)) < len(stems):
        raise ImageError("two photographs have one name; compare them separately")
    paintings = options.style_image or []
    if paintings and len(paintings) != len(options.style):
        raise ValueError(
            f"found {len(paintings)} --style-image for {len(options.style)} --style; expected one for each"
        )
    sizes = options.size or [256]
    seen, failures = readable((each.path for each in given), lambda path: read_picture(path, min(sizes)), failures)
    photos = list(seen)

    from fststyle.encoders.pretrained import encoder_of
    from fststyle.evaluation.compare import Style, check_report, compare, equality_table, speed_table
    from fststyle.losses import PerceptualLoss
    from fststyle.model_file import find_model_file, load_model_file, one_style

    styles = []
    for number, name in enumerate(options.style):
        checkpoint = load_model_file(one_style(find_model_file(name, "style")), "style")
        encoder = encoder_of(checkpoint.metadata, options.encoder, options.normalize)
        painting = read_picture(user_path(paintings[number]), 512, trim=True).rgb if paintings else None
        if paintings:
            check_style_sides(user_path(paintings[number]))
        styles.append(Style(checkpoint, PerceptualLoss.from_metadata(encoder, checkpoint.metadata), painting))
    check_report(folder, photos, styles, sizes)
    how = {name: getattr(options, name) for name in ("iterations", "until_crossed", "device", "seed")}
    cases = compare(photos, styles, sizes, folder, **how)
    for head, rows in (equality_table(cases), speed_table(cases)):
        print("\n".join("\t".join(line) for line in [head, *rows]))
    print(folder / "index.html")
    return 1 if failures else 0
