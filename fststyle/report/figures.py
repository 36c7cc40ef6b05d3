"""The figures of Gatys, Ecker, Bethge 2016, for any photograph and painting.

Each figure is a function to rows of captioned pictures; the numbers are the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio as psnr

from fststyle.encoders.vgg import VGGEncoder
from fststyle.images import to_pixels
from fststyle.losses import PerceptualLoss
from fststyle.optimization import optimize
from fststyle.optimization.recipes import (
    content_reconstruction,
    size_of,
    starting_image,
    style_reconstruction,
    transfer,
)

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
        run = optimize(setting.start(), style_reconstruction(loss, setting.style), setting.iterations)
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
