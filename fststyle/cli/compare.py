"""``fststyle compare``: fast against slow, and the figures of the papers, as a page with pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from fststyle.cli.pictures import expand
from fststyle.images import ImageError, check_writable, existing_part, load_image, read_picture, save_image

if TYPE_CHECKING:
    from fststyle.losses import PerceptualLoss
    from fststyle.networks.vgg import VGGEncoder


def run(options: argparse.Namespace) -> int:
    """The report, or one of the figures."""
    photos = [found.path for found in expand(options.photos)]
    folder = Path(options.output).expanduser()
    check_writable(existing_part(folder))
    if options.iterations < 1:
        raise ValueError(f"iterations is {options.iterations}; expected at least 1")
    return _figure(options, photos, folder) if options.figure else _report(options, photos, folder)


def _report(options: argparse.Namespace, photos: list[Path], folder: Path) -> int:
    from fststyle.losses import PerceptualLoss
    from fststyle.networks.checkpoint import find_checkpoint, load_checkpoint
    from fststyle.networks.pretrained import encoder_of
    from fststyle.report.compare import Style, compare, equality_table, speed_table

    if not options.style:
        raise ValueError("--style is missing; give a shipped style or a checkpoint, or --figure NAME")
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
        checkpoint = load_checkpoint(find_checkpoint(name, "style"), "style")
        encoder = encoder_of(checkpoint.record, options.encoder, options.normalize)
        painting = read_picture(paintings[number], 512).rgb if paintings else None
        styles.append(Style(checkpoint, PerceptualLoss.from_record(encoder, checkpoint.record), painting))
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
        from fststyle.networks.pretrained import photographs_for_normalizing

        images = list(photographs_for_normalizing(options.photographs, 64, 256))
        photographs = torch.cat([image[:, :, :256, :256] for image in images])

    def loss(**changes: Any) -> PerceptualLoss:
        made: PerceptualLoss = preset_loss(encoder, **{"color_weight": 0, **changes})  # the paper has no such term
        made.calibrate(None if photographs is None else [photographs], made.style_targets(style))
        return made

    return loss
