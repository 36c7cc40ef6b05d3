"""The figures of Gatys, Ecker, Bethge 2016 for any photograph and painting: a page and its pictures.

    python examples/figures.py starts photo.jpg painting.jpg --encoder slim -o figures

Each figure is a function to rows of captioned pictures; the numbers are the paper's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio as psnr
from tqdm import tqdm

from fststyle.config import preset_loss
from fststyle.encoders.pretrained import ENCODERS, named_encoder, photographs_for_normalizing
from fststyle.encoders.vgg import VGGEncoder
from fststyle.evaluation import page as html
from fststyle.images import load_image, save_image, to_pixels
from fststyle.losses import PerceptualLoss, measure_normalizers
from fststyle.optimization import optimize
from fststyle.optimization.recipes import content_reconstruction, size_of, starting_image, texture, transfer

#: A caption and its picture, uint8 (H, W, 3).
Captioned = tuple[str, np.ndarray]


@dataclass
class Setting:
    """What a figure is made of: pictures (1, 3, H, W), the encoder, and how long each picture may take.

    ``loss`` makes a loss of the encoder from keyword arguments, calibrated for the painting.
    """

    content: Tensor
    style: Tensor
    encoder: VGGEncoder
    loss: Callable[..., PerceptualLoss]
    iterations: int = 200
    seed: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photograph."""
        return size_of(self.content)

    def start(self, kind: str = "noise", seed: int | None = None) -> Tensor:
        """Where a picture starts."""
        return starting_image(kind, self.size, self.content, self.style, seed=self.seed if seed is None else seed)


def reconstructions(setting: Setting) -> Iterator[list[Captioned]]:
    """Figure 1: the photograph from single layers, the painting from growing sets of layers."""
    blocks = [block for block in range(1, 6) if f"relu{block}_2" in setting.encoder.layers]
    contents, styles = [("photograph", to_pixels(setting.content))], [("painting", to_pixels(setting.style))]
    for block in blocks:
        layer = f"relu{block}_2"
        loss = PerceptualLoss(setting.encoder, [layer], [], style_weight=0)
        run = optimize(setting.start(), content_reconstruction(loss, setting.content), setting.iterations)
        contents.append(
            (f"{layer}, PSNR {psnr(run.image, setting.content, data_range=1.0):.1f} dB", to_pixels(run.image))
        )
    yield contents
    growing: list[str] = []
    for block in (b for b in range(1, 6) if f"relu{b}_1" in setting.encoder.layers):
        growing.append(f"relu{block}_1")
        loss = setting.loss(content_weight=0, style_weight=1, style_layers=list(growing), style_form="mean")
        run = optimize(setting.start(), texture(loss, setting.style), setting.iterations)
        styles.append((f"relu1_1 … {growing[-1]}", to_pixels(run.image)))
    yield styles


def ratios(
    setting: Setting, values: Sequence[float] = (0.03, 0.1, 0.3, 1, 3), start: str = "noise"
) -> Iterator[list[Captioned]]:
    """Figure 4: content against style, from all style to all content; the weights are balanced ones."""
    row = []
    for ratio in values:
        loss = setting.loss(content_weight=ratio, style_weight=1.0)
        run = optimize(setting.start(start), transfer(loss, setting.content, setting.style), setting.iterations)
        row.append((f"α/β = {ratio:g}", to_pixels(run.image)))
    yield row


def content_layers(setting: Setting, layers: Sequence[str] = ("relu2_2", "relu4_2")) -> Iterator[list[Captioned]]:
    """Figure 5: content from a shallow layer and from a deep one."""
    row = [("photograph", to_pixels(setting.content))]
    for layer in layers:
        loss = setting.loss(content_layers=[layer])
        run = optimize(setting.start("noise"), transfer(loss, setting.content, setting.style), setting.iterations)
        row.append((f"content at {layer}", to_pixels(run.image)))
    yield row


def starts(setting: Setting) -> Iterator[list[Captioned]]:
    """Figure 6: from the photograph, from the painting, from grey and from four different noises."""
    loss = setting.loss()
    objective = transfer(loss, setting.content, setting.style)
    row = []
    for kind in ("content", "style", "gray"):
        run = optimize(setting.start(kind), objective, setting.iterations)
        row.append((f"from {kind}, objective {run.best:.3g}", to_pixels(run.image)))
    yield row
    row = []
    for seed in range(4):
        run = optimize(setting.start("noise", setting.seed + seed), objective, setting.iterations)
        row.append((f"from noise {setting.seed + seed}, objective {run.best:.3g}", to_pixels(run.image)))
    yield row


@torch.no_grad()
def features(
    setting: Setting, layers: Sequence[str] = (), channels: Sequence[int] = tuple(range(8))
) -> Iterator[list[Captioned]]:
    """Feature maps of chosen channels, a row per layer: black is 0, white the channel's largest value."""
    chosen = list(layers) or [f"relu{b}_1" for b in range(1, 6) if f"relu{b}_1" in setting.encoder.layers]
    for layer, maps in setting.encoder(setting.content, chosen).items():
        row = []
        for channel in channels:
            if channel >= maps.shape[1]:
                raise ValueError(f"{layer} has {maps.shape[1]} channels; found {channel} among the chosen ones")
            value = maps[0, channel]
            grey = (value / value.max().clamp_min(1e-12) * 255).clamp(0, 255).byte().cpu().numpy()
            grey = np.kron(grey, np.ones((-(-128 // max(grey.shape)),) * 2, np.uint8))
            row.append((f"{layer}, channel {channel}", np.repeat(grey[:, :, None], 3, axis=2)))
        yield row


FIGURES: dict[str, Callable[..., Iterator[list[Captioned]]]] = {
    "reconstructions": reconstructions,
    "ratios": ratios,
    "content-layers": content_layers,
    "starts": starts,
    "features": features,
}


def balanced(encoder: VGGEncoder, style: Tensor, photographs: str | None = None) -> Callable[..., PerceptualLoss]:
    """Losses for ``Setting``, calibrated on a folder of photographs, or on what the encoder knows of them."""
    if encoder.photographs is None and photographs is None:
        raise ValueError(
            f"the encoder {encoder.name} knows no photographs to balance the loss on; use --encoder slim, or give a "
            "folder of photographs: --photographs FOLDER"
        )
    batches = None
    if photographs is not None:
        images = photographs_for_normalizing(photographs, 64, 256)
        batches = [torch.cat([image[:, :, :256, :256] for image in images])]

    def loss(**changes: object) -> PerceptualLoss:
        made: PerceptualLoss = preset_loss(encoder, **{"color_weight": 0, **changes})  # the paper has no such term
        made.normalizers = measure_normalizers(made, batches, made.style_targets(style))
        return made

    return loss


def write(name: str, rows: Iterator[list[Captioned]], folder: Path, title: str, note: str) -> Path:
    """Write the pictures of a figure, and a page that shows them; returns the page's file."""
    parts = [html.paragraph(note, note=True)]
    for number, row in enumerate(tqdm(rows, unit="row")):
        folder.mkdir(parents=True, exist_ok=True)  # not before there is something to keep
        for column, (_, pixels) in enumerate(row):
            save_image(pixels, folder / f"{name}_{number}_{column}.png")
        parts.append(html.row([html.picture(pixels, caption) for caption, pixels in row]))
    page = folder / f"{name}.html"
    html.write_page(page, title, parts)
    return page


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("photo")
    parser.add_argument("painting")
    parser.add_argument("-o", "--output", type=Path, default=Path("figures"), metavar="FOLDER")
    parser.add_argument("--size", type=int, default=256, metavar="N", help="longer side; default: 256")
    parser.add_argument("--iterations", type=int, default=500, metavar="N", help="of each picture; default: 500")
    parser.add_argument("--layers", nargs="+", default=(), metavar="LAYER", help="of the figure features")
    parser.add_argument("--channels", nargs="+", type=int, default=range(8), metavar="N", help="of the figure features")
    parser.add_argument("--encoder", default="vgg16", help=f"{', '.join(ENCODERS)}, or a file; default: vgg16")
    parser.add_argument("--architecture", choices=("vgg16", "vgg19"), default="vgg16", help="of such a file")
    parser.add_argument("--normalize", metavar="FOLDER", help="photographs to scale the encoder's filters on")
    parser.add_argument("--photographs", metavar="FOLDER", help="to balance the loss on")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    chosen = parser.parse_args(words)
    try:
        content, style = load_image(chosen.photo, chosen.size), load_image(chosen.painting, chosen.size)
        encoder = named_encoder(chosen.encoder, chosen.architecture, chosen.normalize)
        losses = balanced(encoder, style, chosen.photographs)
        setting = Setting(content, style, encoder, losses, chosen.iterations, chosen.seed)
        more = {"layers": chosen.layers, "channels": chosen.channels} if chosen.figure == "features" else {}
        title = f"{chosen.figure}: {Path(chosen.photo).stem}"
        note = f"{chosen.iterations} iterations each, encoder {encoder.name}"
        print(write(chosen.figure, FIGURES[chosen.figure](setting, **more), chosen.output, title, note))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
