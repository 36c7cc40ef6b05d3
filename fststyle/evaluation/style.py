"""How much of a picture looks painted: windows of it compared with windows of the painting.

A distance of Gram matrices over the whole picture falls with colours and with the texture of a few edges. Here every
window of the result looks for the most similar window of the painting ("everywhere"), and every window of the painting
for the most similar one of the result ("all of it"). A guide, not a verdict: docs/evaluate.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from fststyle.color import match_color
from fststyle.encoders.pretrained import named_encoder
from fststyle.encoders.vgg import VGGEncoder
from fststyle.evaluation.figures import figures_file, write_json
from fststyle.images import LARGE, Failure, check_size, load_image, read_header, read_picture, to_image
from fststyle.inference import Stylizer
from fststyle.inference.paths import readable
from fststyle.resources import user_path

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
#: Longer side, in pixels, at which photograph and result are measured.
SIZE = 640
#: Side of a window in pixels at that size. Neighbours overlap by half or a little more.
WINDOW = 96
#: Longer side of the painting over ``SIZE``: strokes may be larger or smaller than at scale 1.
SCALES = (0.7, 1.0, 1.4)
#: Mean squared distance to the painting below which a photograph counts as the painting itself.
_SAME = 1e-9


@dataclass(frozen=True)
class StyleFigures:
    """Both figures: 0 is the painting, 1 the photograph in the painting's colours; lower is better.

    Args:
        everywhere: does every part of the result look like some part of the painting?
        all_of_it: does every part of the painting have a counterpart in the result?
    """

    everywhere: float
    all_of_it: float


def measure_files(
    painting: str,
    photo: str,
    results: Sequence[str] = (),
    styles: Sequence[str] = (),
    encoder: str = "slim",
    architecture: str = "vgg19",
    normalize: str | None = None,
    json: str | None = None,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
) -> tuple[dict[str, StyleFigures], list[Failure]]:
    """Measure pictures that were stylised by anything, and what styles make of the photograph at ``SIZE`` pixels.

    Args:
        painting, photo: picture files, whose style it is, and what was stylised.
        results: picture files.
        styles: bundled names, or model files.
        encoder, architecture: a name of ``ENCODERS``, or a file with weights of that architecture.
        normalize: a folder of photographs to scale its filters on.
        json: a file for the figures.
        device, backend, precision: as for ``Stylizer.from_checkpoint``.

    Returns:
        Figures by result and style, and the results that could not be read, which stderr names.

    Raises:
        ValueError, OSError: refused before work began, or what cannot be measured.
    """
    if not results and not styles:
        raise ValueError("nothing to measure; give pictures with --result, or models with --style")
    stylizers = {name: Stylizer.from_checkpoint(name, device, backend, precision) for name in styles}
    target = figures_file(json, "painting scales", "results")

    def load(name: str, trim: bool = False) -> Tensor:  # what is large is measured at less all the same
        path = user_path(name)
        header = read_header(path, reduced=True)
        return load_image(path, 4 * SIZE if header.height * header.width > LARGE else None, trim=trim)

    photograph, style = load(photo), load(painting, trim=True)
    images, failures = readable(results, load, least=0 if styles else 1)
    judge = named_encoder(encoder, architecture, normalize)
    if normalize is None and judge.photographs is None:
        raise ValueError(
            f"the filters of {judge.name} are not scaled to mean activation 1; "
            "give a folder of photographs to scale them on: --normalize FOLDER"
        )
    distance = StyleDistance(photograph, style, judge)
    if stylizers:
        reduced = read_picture(user_path(photo), SIZE).rgb
        images |= {name: to_image(stylizer.pixels(reduced)) for name, stylizer in stylizers.items()}
    figures = {}
    for name, image in images.items():
        try:
            figures[name] = distance(image)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if target is not None:
        about = {
            "photo": Path(photo).name,
            "painting": Path(painting).name,
            "encoder": judge.metadata,
            "layers": LAYERS,
            "size": SIZE,
            "window": WINDOW,
            "painting scales": SCALES,
        }
        write_json(target, {**about, "results": [{"name": name, **vars(found)} for name, found in figures.items()]})
    return figures, failures


class StyleDistance:
    """``distance(result) -> StyleFigures``, for one photograph and one painting.

    All pictures are brought to a longer side of ``size`` pixels, and to the painting's mean and covariance of colours.
    A window is described by mean and standard deviation of each channel at each layer; the distance of two windows is
    the mean over layers of the mean over these of their squared differences. Each figure is the mean of the
    nearest windows' distances, divided by that of the recoloured photograph.

    Args:
        photograph, painting: (1, 3, H, W), RGB in [0, 1], of any sizes.
        encoder: each of its filters scaled to mean activation 1 on photographs, or a few filters outweigh all others.
        layers: that it reaches.
        size: longer side of photograph and result, pixels.
        window: side, pixels; a multiple of the stride of the deepest layer (16 at relu5_1).
        scales: of the painting whose windows are candidates for the result's; at scale 1 its longer side is ``size``,
            and there its own windows are looked up in the result.

    Raises:
        ValueError: a layer that the encoder does not have, no layers, a window that does not fit the layers or a
            picture, a shape other than (1, 3, H, W), a photograph that cannot be told from the painting.
    """

    def __init__(
        self,
        photograph: Tensor,
        painting: Tensor,
        encoder: VGGEncoder,
        layers: Sequence[str] = LAYERS,
        size: int = SIZE,
        window: int = WINDOW,
        scales: Sequence[float] = SCALES,
    ) -> None:
        _cell(encoder, layers, window)
        self.encoder, self.layers, self.size, self.window = encoder, tuple(layers), size, window
        self.painting = _scaled(painting, size, "the painting")
        self._whole = self._windows(self.painting, "the painting")
        scaled = [_scaled(painting, round(scale * size), "the painting") for scale in scales]
        self._anywhere = torch.cat([self._windows(image, "the painting") for image in scaled])
        self._one = self._distances(photograph, "the photograph")
        if min(self._one) < _SAME:
            raise ValueError("the photograph cannot be told from the painting, so there is nothing to compare with")

    def __call__(self, result: Tensor) -> StyleFigures:
        """The figures of a result.

        Args:
            result: (1, 3, H, W), RGB in [0, 1], of any size.

        Raises:
            ValueError: another shape, or too narrow for a window.
        """
        found = self._distances(result, "the result")
        return StyleFigures(*(distance / one for distance, one in zip(found, self._one, strict=True)))

    @torch.no_grad()
    def _distances(self, image: Tensor, name: str) -> tuple[float, float]:
        windows = self._windows(match_color(_scaled(image, self.size, name), self.painting), name)
        return _nearest(windows, self._anywhere), _nearest(self._whole, windows)

    def _windows(self, image: Tensor, name: str) -> Tensor:
        try:
            return window_statistics(image, self.encoder, self.layers, self.window)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


@torch.no_grad()
def window_statistics(image: Tensor, encoder: VGGEncoder, layers: Sequence[str], window: int = WINDOW) -> Tensor:
    """Mean and standard deviation of each channel at each layer, in windows spread evenly over a picture.

    Windows lie on the grid of the deepest layer's positions, begin and end at the picture's borders (but for less than
    one position), and overlap by at least half, rounded to that grid.

    Args:
        image: (1, 3, H, W).
        encoder, layers: where.
        window: side, pixels; a multiple of the stride of the deepest layer.

    Returns:
        (windows, 2 · channels of all layers), float64, scaled so that the squared Euclidean distance of two rows is
        the mean over layers of the mean over statistics of squared differences.

    Raises:
        ValueError: a window that is no such multiple, or does not fit into the picture.
    """
    cell = _cell(encoder, layers, window)
    height, width = image.shape[-2:]
    if min(height, width) < window:
        raise ValueError(f"{width}×{height} pixels, as it is measured, have no window of {window}×{window}")
    features = encoder(image, layers)
    across = window // cell
    rows, columns = (_starts(side // cell, across, image.device) for side in (height, width))
    parts: list[Tensor] = []
    for layer in layers:
        values = features[layer].double()
        mean, square = (
            F.avg_pool2d(F.avg_pool2d(power, cell // encoder.stride(layer)), across, stride=1)[0]
            for power in (values, values.square())
        )
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        statistics = torch.cat([mean, deviation])[:, rows][:, :, columns].flatten(1)
        parts.append(statistics / math.sqrt(len(statistics) * len(layers)))
    return torch.cat(parts).T


def _cell(encoder: VGGEncoder, layers: Sequence[str], window: int) -> int:
    """Stride of the deepest layer, in pixels; ``ValueError`` for layers or a window that cannot be."""
    if not layers:
        raise ValueError("found no layers; expected at least one")
    for layer in layers:
        if layer not in encoder.layers:
            raise ValueError(
                f"{encoder.name} ends at {encoder.layers[-1]} and has no {layer}; use an encoder that reaches it"
            )
    cell = max(map(encoder.stride, layers))
    if window < cell or window % cell:
        raise ValueError(f"windows are of {window} pixels; expected a multiple of {cell}, the stride of the layers")
    return cell


def _starts(cells: int, across: int, device: torch.device) -> Tensor:
    """Where windows of ``across`` cells begin among ``cells``: as few as overlap by half, evenly, border to border."""
    last = cells - across
    count = math.ceil(last / max(1, across // 2)) + 1
    return torch.linspace(0, last, count, dtype=torch.float64, device=device).round().long()


def _nearest(windows: Tensor, candidates: Tensor) -> float:
    """Mean over windows of the squared distance to the nearest candidate."""
    distances = torch.cdist(windows, candidates, compute_mode="donot_use_mm_for_euclid_dist")
    return float(distances.min(1).values.square().mean())


def _scaled(image: Tensor, size: int, name: str) -> Tensor:
    """An image whose longer side has ``size`` pixels."""
    if len(image) != 1:
        raise ValueError(f"{name}: found a batch of {len(image)} images; expected one")
    check_size(image)
    height, width = (max(1, round(side * size / max(image.shape[-2:]))) for side in image.shape[-2:])
    if (height, width) == tuple(image.shape[-2:]):
        return image
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
