"""Any painting in one pass: a small network tells from a painting what a style has of its own in a TransformNet.

Ghiasi, Lee, Kudlur, Dumoulin, Shlens, *Exploring the structure of a real-time, arbitrary neural artistic stylization
network* (2017): conditional instance norm, whose scales and shifts are predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fststyle import palette
from fststyle.encoders.truncated import encoder_in, unfit
from fststyle.encoders.vgg import VGGEncoder
from fststyle.model_file import ModelFile
from fststyle.networks.transform import TransformNet

#: The deepest layer of an encoder that a painting's statistics are taken of.
DEEPEST = "relu4_3"
#: Means of the sorted values of each colour.
LEVELS = 16
#: Of an output of the last layer, so that one learning rate serves prediction and convolutions.
_STEP = 0.25


def statistics_layers(encoder: VGGEncoder) -> list[str]:
    """The layers whose statistics describe a painting: every ReLU up to ``DEEPEST``."""
    encoder.check_layers([DEEPEST])
    return [layer for layer in encoder.layers[: encoder.layers.index(DEEPEST) + 1] if layer.startswith("relu")]


@torch.no_grad()
def style_statistics(encoder: VGGEncoder, painting: Tensor) -> Tensor:
    """What a style is predicted from.

    Args:
        encoder: reaches ``DEEPEST``.
        painting: (B, 3, H, W), RGB in [0, 1], H and W ≥ 16.

    Returns:
        (B, F): of each layer, logarithms of every channel's mean and standard deviation; sorted values of each colour
        in ``LEVELS`` means, and the colours' covariance.
    """
    with torch.autocast(painting.device.type, enabled=False):
        pixels = painting.float().flatten(2)
        centred = pixels - pixels.mean(2, keepdim=True)
        covariance = centred @ centred.transpose(1, 2) / pixels.shape[2]
        levels = nn.functional.adaptive_avg_pool1d(pixels.sort(-1).values, LEVELS)
        found = [4 * levels.flatten(1) - 2, 40 * covariance.flatten(1)]
        layers = statistics_layers(encoder)
        features = encoder(painting.float(), layers)
        for layer in layers:
            variance, mean = torch.var_mean(features[layer].flatten(2), -1, correction=0)
            found += [(value + 0.02).log() for value in (mean, variance.sqrt())]
        return torch.cat(found, 1)


def encoder_of_paintings(checkpoint: ModelFile) -> VGGEncoder:
    """The encoder in a model file of kind ``arbitrary``.

    Raises:
        ModelFileError: its encoder and its network do not fit each other, or its metadata.
    """
    network: Any = checkpoint.network
    try:
        assert isinstance(network, ArbitraryNet), f"its network is {type(network).__name__}"
        encoder = encoder_in(checkpoint)
        found = style_statistics(encoder, torch.zeros(1, 3, 32, 32)).shape[1]
        assert found == network.config["statistics"], f"{found} statistics, for {network.config['statistics']}"
        return encoder
    except Exception as error:  # whatever foreign metadata and foreign tensors lead to
        raise unfit(checkpoint, error) from None


class ArbitraryNet(nn.Module):
    """``network(image, statistics)``: a picture in the style of the painting that has these statistics.

    Args:
        statistics: how many there are, F.
        components: principal components of the statistics of many paintings that a style is predicted from.
        width, residual_blocks: of the ``TransformNet`` that paints.
        hidden: units of the two layers between these and the style.
    """

    centre: Tensor
    components: Tensor

    def __init__(
        self, statistics: int, components: int = 96, width: int = 32, residual_blocks: int = 5, hidden: int = 256
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "statistics": statistics,
            "components": components,
            "width": width,
            "residual_blocks": residual_blocks,
            "hidden": hidden,
        }
        if min(statistics, components, hidden) < 1:
            raise ValueError(
                f"statistics is {statistics}, components {components}, hidden {hidden}; expected at least 1 each"
            )
        self.painter = TransformNet(width, residual_blocks, colors=True)
        self._sizes = {name: value.numel() for name, value in self.painter.style_parameters().items()}
        #: What the statistics of many paintings have as mean, and what they differ in most, each to a variance of 1.
        self.register_buffer("centre", torch.zeros(statistics))
        self.register_buffer("components", torch.zeros(statistics, components))
        self.predict = nn.Sequential(
            nn.Linear(components, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, sum(self._sizes.values())),
        )
        last: Any = self.predict[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    @classmethod
    def from_style(
        cls, network: TransformNet, statistics: int, components: int = 96, hidden: int = 256
    ) -> ArbitraryNet:
        """One that begins with the convolutions of a network, and gives every painting the mean of its styles.

        Raises:
            ValueError: a network of another form than the default's, but for width and residual blocks.
        """
        if network.styles > 1:
            network = network.of_mixture(torch.full((network.styles,), 1 / network.styles))
        made = cls(statistics, components, network.config["width"], network.config["residual_blocks"], hidden)
        if network.shape != made.painter.shape:
            raise ValueError(f"the network is {network.config}; expected one like {made.painter.config}")
        made.painter.load_state_dict(network.with_colors().state_dict())
        return made

    @torch.no_grad()
    def learn_components(self, statistics: Tensor) -> None:
        """Find the principal components of the statistics (N, F) of many paintings."""
        values = statistics.double()
        mean, spread = values.mean(0), values.std(0).clamp(min=0.01)
        _, sizes, directions = torch.linalg.svd((values - mean) / spread, full_matrices=False)
        count = min(len(values) - 1, self.components.shape[1])
        scales = len(values) ** 0.5 / sizes[:count].clamp(min=1e-6)
        self.centre.copy_(mean)
        self.components.zero_()
        self.components[:, :count] = directions[:count].T * scales / spread[:, None]

    def described(self, statistics: Tensor) -> Tensor:
        """A painting by its principal components, (B, K), of its statistics (B, F)."""
        with torch.autocast(statistics.device.type, enabled=False):
            return ((statistics.float() - self.centre) @ self.components).clamp(-4, 4)

    def style_parameters(self, statistics: Tensor) -> dict[str, Tensor]:
        """What a style has of its own, by name: (B, C) each, of statistics (B, F)."""
        changes = _STEP * self.predict(self.described(statistics)).float()
        own = self.painter.style_parameters()
        parts = changes.split(list(self._sizes.values()), 1)
        return {name: own[name] + part for name, part in zip(self._sizes, parts, strict=True)}

    def forward(self, image: Tensor, statistics: Tensor) -> Tensor:
        """An image (B, 3, H, W) in [0, 1], and statistics (B, F) of as many paintings, to an image of the same size."""
        painted: Tensor = functional_call(self.painter, self.style_parameters(statistics), (image,))
        return painted

    @torch.no_grad()
    def of_painting(self, statistics: Tensor) -> TransformNet:
        """An ordinary network for the style of one painting, statistics (1, F); it shares no memory with this one."""
        return self.of_style({name: value[0] for name, value in self.style_parameters(statistics).items()})

    def of_style(self, own: Mapping[str, Tensor]) -> TransformNet:
        """An ordinary network for the style that has these parameters of its own, by name."""
        network = TransformNet(**self.painter.config)
        network.load_state_dict({**self.painter.state_dict(), **own})
        return network.eval()


def predicted_network(network: ArbitraryNet, encoder: VGGEncoder, painting: Tensor) -> TransformNet:
    """A network for the style of a painting (1, 3, H, W), RGB in [0, 1], H and W ≥ 16, in that painting's colours."""
    predicted = network.of_painting(style_statistics(encoder, painting))
    fit_palette(predicted, painting)
    return predicted


@torch.no_grad()
def fit_palette(network: TransformNet, painting: Tensor) -> None:
    """Bend a network's colour transform until its colours are distributed as a painting's (``palette.fitted``).

    Predictions are a little off for paintings unlike those of the training, and wrong colours are what shows first.

    Args:
        network: of one style, with a colour transform and ``output="sigmoid"``.
        painting: (1, 3, H, W), RGB in [0, 1].
    """
    noise = torch.from_numpy(palette.noise()).permute(0, 3, 1, 2) / 255
    made = network.colors(network.decode(network.transform(network.encode(noise))))
    matrix, shift = map(torch.from_numpy, palette.fitted(made.numpy(), painting.flatten(2)[0].numpy()))
    network.fold_color_transform(matrix, shift[:, 0])
