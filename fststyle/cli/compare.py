"""``fststyle compare``: fast against slow, and the figures of the papers, as a page with pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from fststyle.cli.options import add_device, size
from fststyle.images import ImageError, check_writable, existing_part, load_image, read_picture, save_image
from fststyle.inference.paths import expand

if TYPE_CHECKING:
    from fststyle.encoders.vgg import VGGEncoder
    from fststyle.losses import PerceptualLoss, measure_normalizers


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("photos", nargs="+", metavar="PHOTO", help="pictures, globs or folders")
    command.add_argument("--style", action="append", metavar="NAME_OR_FILE", help="a bundled style or a model file")
    command.add_argument("--style-image", action="append", metavar="PICTURE", help="the painting, to be shown")
    command.add_argument("-o", "--output", default="compare", metavar="FOLDER", help="default: compare")
    command.add_argument("--size", type=size, action="append", metavar="N", help="longer side; default: 256")
    command.add_argument("--iterations", type=int, default=500, help="of the slow side; default: 500")
    command.add_argument("--until-crossed", action="store_true", help="stop once it is as good as the one pass")
    command.add_argument(
        "--figure",
        choices=("reconstructions", "ratios", "content-layers", "starts", "features"),
        help="a figure of Gatys et al. 2016 instead of the report",
    )
    command.add_argument("--layers", nargs="+", metavar="LAYER", help="of --figure features")
    command.add_argument("--channels", nargs="+", type=int, metavar="N", help="of --figure features")
    command.add_argument("--encoder", metavar="NAME_OR_FILE", help="weights: slim, vgg16, vgg19, or a file")
    command.add_argument("--architecture", choices=("vgg16", "vgg19"), default="vgg16", help="of such a file")
    command.add_argument("--normalize", metavar="FOLDER", help="photographs to scale the encoder's filters on")
    command.add_argument("--photographs", metavar="FOLDER", help="to balance the loss of a figure on")
    command.add_argument("--seed", type=int, default=0, help="of the noise")
    add_device(command)


def run(options: argparse.Namespace) -> int:
    """The report, or one of the figures."""
    photos = [found.path for found in expand(options.photos)]
    folder = Path(options.output).expanduser()
    check_writable(existing_part(folder))
    if options.iterations < 1:
        raise ValueError(f"iterations is {options.iterations}; expected at least 1")
    return _figure(options, photos, folder) if options.figure else _report(options, photos, folder)


def _report(options: argparse.Namespace, photos: list[Path], folder: Path) -> int:
    from fststyle.encoders.pretrained import encoder_of
    from fststyle.losses import PerceptualLoss
    from fststyle.model_file import find_model_file, load_model_file
    from fststyle.report.compare import Style, compare, equality_table, speed_table

    if not options.style:
        raise ValueError("--style is missing; give a bundled style or a model file, or --figure NAME")
    stems = [photo.stem for photo in photos]
    if len(set(stems)) < len(stems):
        raise ImageError("two photographs have one name; compare them separately")
    paintings = options.style_image or []
    if paintings and len(paintings) != len(options.style):
        raise ValueError(
            f"found {len(paintings)} --style-image for {len(options.style)} --style; expected one for each"
        )
    for photo in photos:
        read_picture(photo, min(options.size or [256]))
    styles = []
    for number, name in enumerate(options.style):
        checkpoint = load_model_file(find_model_file(name, "style"), "style")
        encoder = encoder_of(checkpoint.metadata, options.encoder, options.normalize)
        painting = read_picture(paintings[number], 512).rgb if paintings else None
        styles.append(Style(checkpoint, PerceptualLoss.from_metadata(encoder, checkpoint.metadata), painting))
    cases = compare(
        photos,
        styles,
        options.size or [256],
        folder,
        iterations=options.iterations,
        until_crossed=options.until_crossed,
        device=options.device,
        seed=options.seed,
    )
    for head, rows in (equality_table(cases), speed_table(cases)):
        print("\n".join("\t".join(line) for line in [head, *rows]))
    print(folder / "index.html")
    return 0


def _figure(options: argparse.Namespace, photos: list[Path], folder: Path) -> int:
    from fststyle.config import named_encoder
    from fststyle.report import page as html
    from fststyle.report.figures import FIGURES, Setting

    if len(photos) != 1:
        raise ImageError(f"found {len(photos)} photographs; a figure takes one")
    if not options.style_image or len(options.style_image) != 1:
        raise ValueError("--style-image is missing; a figure takes one painting")
    size = (options.size or [256])[0]
    content, style = load_image(photos[0], size), load_image(options.style_image[0], size)
    encoder = named_encoder(options.encoder or "vgg16", options.architecture, options.normalize)
    setting = Setting(content, style, encoder, _losses(encoder, style, options), options.iterations, options.seed)
    parts = [html.paragraph(f"{options.iterations} iterations each, encoder {encoder.name}", note=True)]
    chosen: dict[str, Any] = {}
    if options.figure == "features":
        chosen = {"layers": options.layers or (), "channels": options.channels or tuple(range(8))}
    for number, row in enumerate(tqdm(FIGURES[options.figure](setting, **chosen), unit="row")):
        folder.mkdir(parents=True, exist_ok=True)  # not before there is something to keep
        for column, (_, pixels) in enumerate(row):
            save_image(pixels, folder / f"{options.figure}_{number}_{column}.png")
        parts.append(html.row([html.picture(pixels, caption) for caption, pixels in row]))
    page = folder / f"{options.figure}.html"
    page.write_text(html.page(f"{options.figure}: {photos[0].stem}", parts), encoding="utf-8")
    print(page)
    return 0


def _losses(encoder: VGGEncoder, style: Any, options: argparse.Namespace) -> Any:
    """Balanced losses over one encoder, calibrated on what it knows of photographs, or on a folder of them."""
    import torch

    from fststyle.config import preset_loss

    if encoder.photographs is None and options.photographs is None:
        raise ValueError(
            f"the encoder {encoder.name} knows no photographs to balance the loss on; use --encoder slim, or give a "
            "folder of photographs: --photographs FOLDER"
        )
    photographs = None
    if options.photographs is not None:
        from fststyle.encoders.pretrained import photographs_for_normalizing

        images = list(photographs_for_normalizing(options.photographs, 64, 256))
        photographs = torch.cat([image[:, :, :256, :256] for image in images])

    def loss(**changes: Any) -> PerceptualLoss:
        made: PerceptualLoss = preset_loss(encoder, **{"color_weight": 0, **changes})  # the paper has no such term
        made.normalizers = measure_normalizers(
            made, None if photographs is None else [photographs], made.style_targets(style)
        )
        return made

    return loss
