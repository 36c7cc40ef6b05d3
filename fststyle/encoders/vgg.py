"""VGGEncoder: the frozen loss network (Simonyan & Zisserman 2014), tapped by layer name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fststyle.padding import reflection_pad

#: Convolutions per block.
ARCHITECTURES: dict[str, tuple[int, ...]] = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
#: Channels per block of the published networks.
WIDTHS = (64, 128, 256, 512, 512)
#: The layer before all others, which every encoder has: the picture itself.
PIXELS = "pixels"


@cache
def layer_names(architecture: str) -> tuple[str, ...]:
    """Every tap of an architecture, shallow to deep: conv1_1, relu1_1, conv1_2, …, pool5."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture is {architecture!r}; expected one of {', '.join(ARCHITECTURES)}")
    names: list[str] = []
    for block, count in enumerate(ARCHITECTURES[architecture], 1):
        for index in range(1, count + 1):
            names += [f"conv{block}_{index}", f"relu{block}_{index}"]
        names.append(f"pool{block}")
    return tuple(names)


def conv_names(architecture: str) -> tuple[str, ...]:
    """The convolutions of an architecture, shallow to deep."""
    return tuple(name for name in layer_names(architecture) if name.startswith("conv"))


@dataclass(frozen=True)
class PhotographStatistics:
    """What unstylised photographs measure in an encoder, so that losses can be balanced without any.

    Args:
        content: layer to the mean squared feature difference of two photographs, Σ(F-P)² / (C H W).
        grams: layer to the mean Gram matrix F Fᵀ / (H W), (1, C, C); of the pixels and the first layers of every
            block, also for the photograph at half its size (``relu1_1/2``).
        gram_energies: layer to the mean of the Gram matrices' squared Frobenius norm.
        quantiles: the same for ``losses.feature_quantiles``, (1, 2 C, Q), of the pixels and first layers alone.
        quantile_energies: the same names to the mean square of the quantiles.
        tv: ``squared``, ``l1`` and ``opponent`` to the total variation per value, Σ / (C H W).
        pixel: the mean squared difference of two photographs.
        size: of the photographs, pixels.
        count: of photographs.
    """

    content: dict[str, float]
    grams: dict[str, Tensor]
    gram_energies: dict[str, float]
    tv: dict[str, float]
    pixel: float
    size: int
    count: int
    quantiles: dict[str, Tensor] = field(default_factory=dict)
    quantile_energies: dict[str, float] = field(default_factory=dict)


class VGGEncoder(nn.Module):
    """``encoder(image, layers) -> {layer: features}`` with weights that nothing can change.

    The weights are buffers outside the state dict: they follow ``.to(device)``, and no optimizer
    and no checkpoint ever sees them. The encoder normalises its input itself, by a 1×1 convolution
    (``preprocess``) that covers mean and standard deviation as well as RGB to BGR.

    Args:
        weights: ``conv1_1.weight`` (C', C, 3, 3), ``conv1_1.bias`` (C',), … as deep as there are
            any, and ``preprocess.weight`` (3, 3), ``preprocess.bias`` (3,). Any channel widths.
            ``encoders.pretrained.load_encoder`` finds published ones.
        architecture: ``vgg16`` or ``vgg19``.
        pooling: ``max``, or ``average`` (Gatys et al. find its pictures slightly more appealing).
        padding: ``zeros`` (as published) or ``reflect``.
        name: what checkpoints and reports call this encoder.
        digest: SHA-256 of the weights' file, for the metadata.
        photographs: what photographs measure in it, where that is known.

    Raises:
        ValueError: weights missing, unknown pooling or padding.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        architecture: str = "vgg16",
        pooling: Literal["max", "average"] = "max",
        padding: Literal["zeros", "reflect"] = "zeros",
        name: str = "custom",
        digest: str = "",
        photographs: PhotographStatistics | None = None,
    ) -> None:
        super().__init__()
        if pooling not in ("max", "average"):
            raise ValueError(f"pooling is {pooling!r}; expected max or average")
        if padding not in ("zeros", "reflect"):
            raise ValueError(f"padding is {padding!r}; expected zeros or reflect")
        self.architecture, self.pooling, self.padding = architecture, pooling, padding
        self.name, self.digest, self.photographs = name, digest, photographs
        self._convolutions: list[str] = []
        for conv in conv_names(architecture):
            if f"{conv}.weight" not in weights:
                break
            self._convolutions.append(conv)
        if not self._convolutions or "preprocess.weight" not in weights:
            raise ValueError("the weights lack conv1_1.weight or preprocess.weight; see encoders/pretrained.py")
        for key in ["preprocess", *self._convolutions]:
            for part in ("weight", "bias"):
                value = weights[f"{key}.{part}"].detach().clone().float()
                self.register_buffer(f"{key}_{part}", value, persistent=False)
        names = layer_names(architecture)
        missing = [conv for conv in conv_names(architecture) if conv not in self._convolutions]
        self._layers = names[: names.index(missing[0])] if missing else names
        self.eval()

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that these weights reach, shallow to deep."""
        return self._layers

    @property
    def metadata(self) -> dict[str, str]:
        """What a model file's metadata says of it."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "pooling": self.pooling,
            "padding": self.padding,
            "sha256": self.digest,
        }

    def weights(self) -> dict[str, Tensor]:
        """The weights, under the names that the constructor takes."""
        return {
            f"{key}.{part}": getattr(self, f"{key}_{part}")
            for key in ["preprocess", *self._convolutions]
            for part in ("weight", "bias")
        }

    def train(self, mode: bool = True) -> VGGEncoder:
        """Stay in evaluation mode, whatever the module around it does."""
        return super().train(False)

    def check_layers(self, layers: Iterable[str], hint: str = "") -> None:
        """Raise ``ValueError`` that lists the known layers, and ends with ``hint``, unless all of ``layers`` are."""
        for layer in layers:
            if layer not in self.layers:
                raise ValueError(f"{self.name} has no layer {layer!r}; expected one of {', '.join(self.layers)}{hint}")

    def stride(self, layer: str) -> int:
        """Pixels from one position of a layer to the next: 4 for ``relu3_1``."""
        before = self.layers[: self.layers.index(layer) + 1] if layer != PIXELS else ()
        return int(2 ** sum(name.startswith("pool") for name in before))

    def forward(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Features of ``image`` at ``layers``; nothing deeper than the deepest of them is computed.

        Args:
            image: (B, 3, H, W), RGB in [0, 1].
            layers: published names such as ``conv4_2``, ``relu2_2``, ``pool1``; ``pixels`` is the image itself.

        Returns:
            Layer to features (B, C, H', W') with H' = H / 2^(pools before it), rounded down.

        Raises:
            ValueError: unknown layer, or a picture that is too small for the deepest one.
        """
        wanted = set(layers)
        features = {PIXELS: image} if PIXELS in wanted else {}
        wanted.discard(PIXELS)
        self.check_layers(wanted)
        if not wanted:
            return features
        x = self._convolve("preprocess", image)
        for layer in self.layers:
            if layer.startswith("conv"):
                x = self._convolve(layer, x)
            elif layer.startswith("relu"):
                x = F.relu(x)
            else:
                if min(x.shape[-2:]) < 2:
                    height, width = image.shape[-2:]
                    raise ValueError(
                        f"a picture of {width}×{height} pixels has nothing left beyond {layer} of {self.name}; "
                        "use a larger picture or shallower layers"
                    )
                x = F.max_pool2d(x, 2) if self.pooling == "max" else F.avg_pool2d(x, 2)
            if layer in wanted:
                features[layer] = x
                wanted.discard(layer)
                if not wanted:
                    break
        return features

    def _convolve(self, key: str, x: Tensor) -> Tensor:
        weight, bias = getattr(self, f"{key}_weight"), getattr(self, f"{key}_bias")
        if key == "preprocess":  # in full precision: bfloat16 cannot tell 200/255 from 201/255
            with torch.autocast(x.device.type, enabled=False):
                return F.conv2d(x.to(weight.dtype), weight[:, :, None, None], bias)
        return self.padded_convolution(x, weight, bias)

    def padded_convolution(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """A 3×3 convolution with this encoder's padding; (B, C, H, W) to (B, C', H, W)."""
        if self.padding == "reflect":
            return F.conv2d(reflection_pad(x, 1, 1, 1, 1), weight, bias)
        return F.conv2d(x, weight, bias, padding=1)


@torch.no_grad()
def mean_activations(encoder: VGGEncoder, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean of every filter's activation after its ReLU, over images and positions (float64).

    Args:
        encoder: any.
        images: (B, 3, H, W) each; every image counts the same, whatever its size.

    Returns:
        Convolution name to (C,).
    """
    relus = [name for name in encoder.layers if name.startswith("relu")]
    sums: dict[str, Tensor] = {}
    count = 0
    for image in images:
        count += image.shape[0]
        for layer, value in encoder(image, relus).items():
            mean = value.double().mean((2, 3)).sum(0)
            key = layer.replace("relu", "conv")
            sums[key] = sums[key] + mean if key in sums else mean
    if not count:
        raise ValueError("no images were given to measure mean activations on")
    return {key: value / count for key, value in sums.items()}


def normalize_activations(encoder: VGGEncoder, means: Mapping[str, Tensor], floor: float = 1e-3) -> VGGEncoder:
    """Rescale the weights so that each filter's mean activation is 1 (Gatys et al. 2015, § 2).

    W'[k, j] = W[k, j] · m[l-1, j] / m[l, k] and b'[k] = b[k] / m[l, k]. ReLU and both poolings
    commute with a positive scale, so the network's output changes by nothing but these scales.

    Args:
        encoder: the network to rescale; it is not changed.
        means: convolution name to mean activations, from ``mean_activations``.
        floor: filters that hardly ever fire are scaled as if their mean were at least this share
            of their layer's mean.

    Returns:
        A new encoder.
    """
    weights = {key: value.double() for key, value in encoder.weights().items()}
    before: Tensor | None = None
    for conv in encoder._convolutions:
        mean = means[conv].double()
        mean = mean.clamp_min(max(floor * float(mean.mean()), 1e-12)).to(weights[f"{conv}.weight"].device)
        weight = weights[f"{conv}.weight"] / mean.view(-1, 1, 1, 1)
        weights[f"{conv}.weight"] = weight if before is None else weight * before.view(1, -1, 1, 1)
        weights[f"{conv}.bias"] = weights[f"{conv}.bias"] / mean
        before = mean
    return VGGEncoder(
        weights,
        architecture=encoder.architecture,
        pooling=encoder.pooling,
        padding=encoder.padding,
        name=f"{encoder.name}+normalized",
        digest=encoder.digest,
    )
