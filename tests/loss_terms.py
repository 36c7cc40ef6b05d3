"""Losses and pictures that tests of losses share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from fststyle.encoders.vgg import VGGEncoder
from fststyle.images import to_image
from fststyle.losses import PerceptualLoss, measure_normalizers, measure_photographs
from fststyle.resources import resource

STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def crop(picture: np.ndarray, top: int, left: int, size: int = 64, step: int = 2) -> Tensor:
    """An image of ``size`` pixels a side, each of which stands for ``step`` × ``step`` of the picture."""
    return to_image(np.ascontiguousarray(picture[top : top + size * step : step, left : left + size * step : step]))


def everything(encoder: VGGEncoder, **settings: Any) -> PerceptualLoss:
    return PerceptualLoss(encoder, tv_weight=1e-3, pixel_weight=0.5, **settings)


def compute_loss(loss: PerceptualLoss, images: Tensor, painting: Tensor) -> dict[str, Tensor]:
    """Every term of the images, darkened, against themselves (content, pixels) and the painting (style)."""
    terms = loss(images * 0.6, loss.content_targets(images), loss.style_targets(painting), images)
    return terms.scalars()


# Down: 2, 1, -3. Across: 1, 2 and 0, -2. Squares 14 + 9 = 23, absolute values 6 + 5 = 11.
# The second channel is flat: it adds nothing to the sum, but counts among the C·H·W = 12 of the mean.
PICTURE = torch.tensor([[[[0.0, 1.0, 3.0], [2.0, 2.0, 0.0]], [[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]]]])


def build(name: str, encoder: VGGEncoder) -> PerceptualLoss:
    with initialize_config_dir(str(resource("conf")), version_base="1.3"):
        config = compose("train", overrides=[f"loss={name}"])
    return instantiate(config.loss, encoder=encoder)


def squares(tensor: Tensor) -> Tensor:
    return (tensor * tensor).sum()


def steps(image: Tensor) -> Iterator[Tensor]:
    yield image[..., 1:, :] - image[..., :-1, :]
    yield image[..., :, 1:] - image[..., :, :-1]


Features = Mapping[str, Tensor]


def johnson_content(f: Tensor, p: Tensor) -> Tensor:
    return squares(f - p) / f.numel()


def johnson_gram(f: Tensor) -> Tensor:
    return f @ f.T / f.numel()


def johnson(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """The paper's equations 2 to 5, and the squared total variation of its section 3.2."""
    style = sum(squares(johnson_gram(f[name]) - johnson_gram(s[name])) for name in STYLE_LAYERS)
    return johnson_content(f["relu2_2"], p["relu2_2"]) + 5 * style + 1e-6 * sum(map(squares, steps(y)))


def johnson_lua(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """fast-neural-style: content at relu3_3, and nn.MSECriterion over the Gram matrices."""
    style = sum((johnson_gram(f[name]) - johnson_gram(s[name])).square().mean() for name in STYLE_LAYERS)
    return johnson_content(f["relu3_3"], p["relu3_3"]) + 5 * style + 1e-6 * sum(map(squares, steps(y)))


def gatys_styles(f: Features, s: Features, layers: Iterable[str]) -> list[Tensor]:
    """Equation 4 of Gatys et al. 2016, the same as equation 3 of 2015; Gram matrices as they are, not divided."""
    terms = []
    for layer in layers:
        n, m = f[layer].shape
        terms.append(squares(f[layer] @ f[layer].T - s[layer] @ s[layer].T) / (4 * n**2 * m**2))
    return terms


def gatys(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """Gatys et al. 2016, equations 1 to 7, alpha / beta = 1e-3, w = 1/5."""
    style = gatys_styles(f, s, [f"relu{block}_1" for block in range(1, 6)])
    return squares(f["relu4_2"] - p["relu4_2"]) / 2 + 1000 * 0.2 * sum(style)


def gatys_code(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """Their later code: nn.MSELoss of features and of Gram matrices over H·W, the latter times 1000 / N²."""
    total = (f["relu4_2"] - p["relu4_2"]).square().mean()
    for block in range(1, 6):
        a, b = f[f"relu{block}_1"], s[f"relu{block}_1"]
        channels = (64, 128, 256, 512, 512)[block - 1]
        total = total + 1e3 / channels**2 * ((a @ a.T - b @ b.T) / a.shape[1]).square().mean()
    return total


def texture(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """Gatys et al. 2015: the first layer and four poolings, each weighing 1."""
    return sum(gatys_styles(f, s, ["relu1_1", "pool1", "pool2", "pool3", "pool4"]), torch.zeros(()))


def content(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """Feature reconstruction alone."""
    return johnson_content(f["relu2_2"], p["relu2_2"])


def tutorial(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """Mean squared errors of features and of Gram matrices that are not divided, absolute total variation."""
    grams = [(f[f"conv{i}_1"] @ f[f"conv{i}_1"].T, s[f"conv{i}_1"] @ s[f"conv{i}_1"].T) for i in range(1, 6)]
    style = sum((a - b).square().mean() for a, b in grams)
    content = (f["conv4_2"] - p["conv4_2"]).square().mean()
    return content + 1e6 * style + 1e-6 * sum(step.abs().sum() for step in steps(y))


PRESETS = {
    "johnson": johnson,
    "johnson-lua": johnson_lua,
    "gatys": gatys,
    "gatys-code": gatys_code,
    "texture": texture,
    "content": content,
    "tutorial": tutorial,
}


def photographs(astronaut: np.ndarray, seed: int, count: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.cat([crop(astronaut, *rng.integers(0, 512 - 192, 2), 96, 2) for _ in range(count)])


def knowing(encoder: VGGEncoder, photographs: list[Tensor]) -> VGGEncoder:
    measured = measure_photographs(encoder, photographs)
    return VGGEncoder(encoder.weights(), encoder.architecture, photographs=measured)


def check_known_normalizers(
    encoder: VGGEncoder, photographs: list[Tensor], painting: Tensor, settings: dict[str, Any], rel: float
) -> None:
    """What the encoder knows of photographs balances a loss as these photographs do."""
    loss = PerceptualLoss(encoder, **settings)
    style = loss.style_targets(painting)
    measured = loss.normalizers = measure_normalizers(loss, photographs, style)
    known = measure_normalizers(PerceptualLoss(knowing(encoder, photographs), **settings), None, style)
    assert known.keys() == measured.keys()
    for name, value in measured.items():
        assert known[name] == pytest.approx(value, rel=rel), name
