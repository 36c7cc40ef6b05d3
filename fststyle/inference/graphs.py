"""A network as a graph for other programs: what the OpenVINO backend and ``export`` convert alike.

The graph of a network for several styles has a second input, the mixture (B, styles) that each picture gets.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fststyle.inference.openvino import smallest_side


class Pixels(nn.Module):
    """A network between decoded pictures: uint8 (B, H, W, 3) in and out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor, mixture: Tensor | None = None) -> Tensor:
        image = pixels.permute(0, 3, 1, 2).float() / 255
        output = _applied(self.network, image, mixture).clamp(0, 1) * 255
        return output.round().to(torch.uint8).permute(0, 2, 3, 1)


class Image(nn.Module):
    """A network between images, its result clamped to [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, mixture: Tensor | None = None) -> Tensor:
        return _applied(self.network, image, mixture).clamp(0, 1)


def _applied(network: nn.Module, image: Tensor, mixture: Tensor | None) -> Tensor:
    return network(image) if mixture is None else network(image, mixture)  # type: ignore[no-any-return]


def styles_of(network: nn.Module) -> int:
    """How many styles a network has, of whatever kind it is."""
    return int(getattr(network, "styles", 1))


def to_openvino(network: nn.Module) -> Any:
    """A network between images as OpenVINO's model, dynamic batch, height and width; what ``Stylizer`` runs."""
    import openvino as ov

    least = smallest_side(getattr(network, "border", 0))
    example = torch.zeros(2, 3, least + 24, least + 36)
    with quiet():
        return ov.convert_model(torch_export(Image(network.eval().cpu()), example, (2, 3)))


def torch_export(module: Pixels | Image, example: Tensor, sides: tuple[int, int]) -> torch.export.ExportedProgram:
    """The graph of a network, of any batch, and of any height and width, which are the ``sides`` of its input."""
    dynamic = torch.export.Dim.DYNAMIC  # torch finds the smallest size by itself
    inputs, shapes, styles = [example], [dict.fromkeys((0, *sides), dynamic)], styles_of(module.network)
    if styles > 1:
        inputs.append(torch.full((len(example), styles), 1 / styles))
        shapes.append({0: dynamic})
    with torch.no_grad():
        return torch.export.export(module, tuple(inputs), dynamic_shapes=tuple(shapes))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep exporters from telling the user of their own progress."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
