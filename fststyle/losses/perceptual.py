"""PerceptualLoss: the terms of ``losses.functional`` over an encoder's layers, weighted and, if wanted, balanced."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fststyle.color import color_statistics, match_statistics
from fststyle.encoders.vgg import PIXELS, VGGEncoder
from fststyle.losses.functional import (
    COLOR_BLOCK,
    ContentForm,
    GramDivisor,
    Reduction,
    StyleDivisor,
    StyleForm,
    TVForm,
    _precise,
    block_colors,
    color_loss,
    content_loss,
    feature_quantiles,
    gram_matrix,
    pixel_loss,
    sliced_wasserstein,
    style_loss,
    total_variation,
)

Layers = Sequence[str] | Mapping[str, float]

#: Conventions, by the names of the constructor's arguments, and the values that they have.
_FORMS = {
    **{"content_form": ContentForm, "gram_divisor": GramDivisor, "style_form": StyleForm},
    **{"style_divisor": StyleDivisor, "tv_form": TVForm, "tv_reduction": Reduction},
}
#: Settings in the metadata of model files made before these names.
_RENAMED = {"content": "content_form", "gram": "gram_divisor", "style": "style_form", "tv": "tv_form"}


@dataclass
class LossTerms:
    """What an image costs.

    ``content`` and ``style`` hold one scalar per layer, ``color``, ``tv`` and ``pixel`` one each, all of them
    before any weight (and after the normalisers, where the loss has some); ``total`` is weighted. ``by_image`` is the
    mean of the style terms of each image (B,), where images have different styles; it is no term of its own.
    ``added`` holds what a training adds to the loss by name, before its weight.
    """

    total: Tensor
    content: dict[str, Tensor] = field(default_factory=dict)
    style: dict[str, Tensor] = field(default_factory=dict)
    color: Tensor | None = None
    tv: Tensor | None = None
    pixel: Tensor | None = None
    by_image: Tensor | None = None
    added: dict[str, Tensor] = field(default_factory=dict)

    def scalars(self) -> dict[str, Tensor]:
        """Every term by name: ``total``, ``content/relu2_2``, ``style/relu1_2``, …, ``color``, ``tv``, ``pixel``."""
        named = {"total": self.total}
        named |= {f"content/{layer}": value for layer, value in self.content.items()}
        named |= {f"style/{layer}": value for layer, value in self.style.items()}
        single = {"color": self.color, "tv": self.tv, "pixel": self.pixel}
        named |= {name: value for name, value in single.items() if value is not None}
        return named | self.added


def mean_term(terms: Mapping[str, float], kind: str) -> float:
    """The mean over layers of the ``content`` or ``style`` terms; NaN without any."""
    values = [value for name, value in terms.items() if name.startswith(f"{kind}/")]
    return sum(values) / len(values) if values else float("nan")


class PerceptualLoss(nn.Module):
    """Content, style, total variation and pixel loss of an image against given targets.

    Targets are values: take them once with ``content_targets`` and ``style_targets``, and pass those
    that should count. Without a content target there is no content term, and so on, so that texture
    synthesis, reconstruction and super-resolution need nothing else.

    Args:
        encoder: the frozen loss network; None for a loss without layers, such as of pixels alone.
        content_layers, style_layers: names, or names with a weight ≥ 0 for each; ``relu3_1/2`` is relu3_1 of the
            picture at half its size.
        content_weight, style_weight, color_weight, tv_weight, pixel_weight: ≥ 0; a term of weight 0 is not computed.
        hue_weight: what hue and saturation count in the colour term, where lightness counts 1; ≥ 0.
        hue_block: side of the blocks over which the colour term averages them, pixels: 1, 2, 4, 8, 16 or 32.
        content_form, gram_divisor, style_form, tv_form, tv_reduction: the conventions in the head of
            ``losses.functional``.
        style_divisor: ``chw`` divides each style layer by C·H·W of the output's features once more.
        balanced: divide every term by its normaliser, from ``losses.measure_normalizers``, so that it is 1 for
            "not done at all", and average over layers instead of summing. Weights then mean the
            same for every encoder, convention and size.

    Raises:
        ValueError: unknown layer or convention, negative weight, or nothing with a weight above 0.
    """

    def __init__(
        self,
        encoder: VGGEncoder | None,
        content_layers: Layers = ("relu2_2",),
        style_layers: Layers = ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
        content_weight: float = 1.0,
        style_weight: float = 5.0,
        color_weight: float = 0.0,
        hue_weight: float = 0.25,
        hue_block: int = COLOR_BLOCK,
        tv_weight: float = 0.0,
        pixel_weight: float = 0.0,
        content_form: ContentForm = "mean",
        gram_divisor: GramDivisor = "chw",
        style_form: StyleForm = "sum",
        style_divisor: StyleDivisor = "none",
        tv_form: TVForm = "squared",
        tv_reduction: Reduction = "sum",
        balanced: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.content_layers = _layer_weights(content_layers, balanced)
        self.style_layers = _layer_weights(style_layers, balanced)
        self.weights = {"content": content_weight, "style": style_weight, "color": color_weight}
        self.weights |= {"tv": tv_weight, "pixel": pixel_weight}
        self.hue_weight, self.hue_block = hue_weight, hue_block
        self.content_form, self.gram_divisor = content_form, gram_divisor
        self.style_form, self.style_divisor = style_form, style_divisor
        self.tv_form, self.tv_reduction, self.balanced = tv_form, tv_reduction, balanced
        #: Term name (as in ``LossTerms.scalars``) to the value it is divided by; to one for each of N styles, (N,).
        self.normalizers: dict[str, float | Tensor] = {}
        #: What the style weight is multiplied by for each of N styles, (N,).
        self.style_factors: Tensor | None = None
        for option, form in _FORMS.items():
            if getattr(self, option) not in get_args(form):
                raise ValueError(f"{option} is {getattr(self, option)!r}; expected {' or '.join(get_args(form))}")
        if encoder is None and (self.content_layers or self.style_layers):
            raise ValueError("a loss over layers takes an encoder; found none")
        if encoder is not None:
            layers = {split_layer(name)[0] for name in (*self.content_layers, *self.style_layers)}
            shallow = balanced and "relu4_3" in encoder.layers and "relu5_1" not in encoder.layers
            hint = "; for an encoder that ends at relu4_3 there is loss=balanced_relu3_3" if shallow else ""
            encoder.check_layers(sorted(layers - {PIXELS}), hint)
        if not isinstance(hue_block, int) or hue_block < 1 or COLOR_BLOCK % hue_block:
            raise ValueError(f"hue_block is {hue_block!r}; expected 1, 2, 4, 8, 16 or {COLOR_BLOCK} pixels")
        numbers = {"hue": hue_weight, **self.weights}
        for name, weight in [*numbers.items(), *self.content_layers.items(), *self.style_layers.items()]:
            if not isinstance(weight, (int, float)) or weight < 0 or not math.isfinite(weight):
                raise ValueError(f"the weight of {name} is {weight}; expected a number ≥ 0")
        compared = {"content": any(self.content_layers.values()), "style": any(self.style_layers.values())}
        if not any(weight and compared.get(name, True) for name, weight in self.weights.items()):
            raise ValueError(
                "every loss weight is 0; give at least one of content, style, color, tv, pixel a weight above 0"
            )

    @classmethod
    def from_metadata(cls, encoder: VGGEncoder, metadata: Mapping[str, Any]) -> PerceptualLoss:
        """The loss that a model file was trained with, normalisers included.

        Args:
            encoder: the model file's, from ``encoders.pretrained.encoder_of``.
            metadata: the model file's.
        """
        settings = {_RENAMED.get(key, key): value for key, value in metadata["loss"].items()}
        normalizers = settings.pop("normalizers", {})
        loss = cls(encoder, **settings)
        loss.normalizers = dict(normalizers)
        return loss

    @property
    def settings(self) -> dict[str, object]:
        """Everything that rebuilds this loss over an encoder, but for the normalisers; for the metadata."""
        return {
            "content_layers": dict(self.content_layers),
            "style_layers": dict(self.style_layers),
            **{f"{name}_weight": weight for name, weight in self.weights.items()},
            "hue_weight": self.hue_weight,
            "hue_block": self.hue_block,
            **{name: getattr(self, name) for name in _FORMS},
            "balanced": self.balanced,
        }

    @torch.no_grad()
    def content_targets(self, image: Tensor, style: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """What is to be kept of a picture, without graph.

        Args:
            image: (B, 3, H, W).
            style: style targets, for the colour term.

        Returns:
            Layer to features (B, C, H', W'); with ``color_weight`` and a style also ``color``, the colours that
            blocks of the picture should have, (B, 3, ⌈H / hue_block⌉, ⌈W / hue_block⌉).
        """
        targets = self.features(image, self.content_layers if self.weights["content"] else ())
        if self.weights["color"] and style and "color" in style:
            photograph = _precise(image)
            recolored = match_statistics(photograph, style["color"].to(photograph), 1e-3)
            targets["color"] = block_colors(recolored, self.hue_block)
        return targets

    @torch.no_grad()
    def style_targets(self, image: Tensor) -> dict[str, Tensor]:
        """Gram matrices (B, C, C) to be matched, or quantiles (B, 2 C, QUANTILES) where ``style`` is ``sliced`` and
        of ``pixels``, by layer, without graph; with ``color_weight`` also ``color``, from ``color.color_statistics``
        (B, 4, 3)."""
        features = self.features(image, self.style_layers if self.weights["style"] else ())
        targets = {
            layer: feature_quantiles(value) if self.is_sliced(layer) else gram_matrix(value, self.gram_divisor)
            for layer, value in features.items()
        }
        return targets | ({"color": color_statistics(_precise(image))} if self.weights["color"] else {})

    def forward(
        self,
        output: Tensor,
        content: Mapping[str, Tensor] | None = None,
        style: Mapping[str, Tensor] | None = None,
        pixels: Tensor | None = None,
        samples: int | None = None,
        which: Tensor | None = None,
        margin: int = 0,
    ) -> LossTerms:
        """Judge ``output``.

        Args:
            output: (B, 3, H, W), RGB, [0, 1] meant.
            content: features per content layer, from ``content_targets`` or elsewhere; and its ``color``.
            style: what ``style_targets`` gave, per style layer: one for all images, or one for each of them.
            pixels: (B, 3, H, W), for the pixel loss.
            samples: positions per layer that a sliced style term takes, as in ``sliced_wasserstein``.
            which: (B,), the number of each image's style, where ``normalizers`` or ``style_factors`` have several.
            margin: pixels at each border, as far as a layer's steps allow, without which the rest has to have the style
                too: a style term is then the mean of that of the whole picture and that of the rest.

        Raises:
            ValueError: a balanced loss that was not calibrated.
        """
        color = (content or {}).get("color") if self.weights["color"] else None
        content = _layers_of(content) if self.weights["content"] else {}
        style = _layers_of(style) if self.weights["style"] else {}
        features = self.features(output, {*content, *style})
        terms = LossTerms(total=torch.zeros((), device=output.device, dtype=_precise(output).dtype))
        for layer, target in content.items():
            value = content_loss(features[layer], target, self.content_form)
            terms.content[layer] = self._normalized(f"content/{layer}", value)
            terms.total = terms.total + self.weights["content"] * self.content_layers[layer] * terms.content[layer]
        for layer, target in style.items():
            value = self.style_distance(layer, features[layer], target, samples)
            if margin:
                inner = self.without_margin(layer, features[layer], margin)
                value = (value + self.style_distance(layer, inner, target, samples)) / 2
            if which is None:
                terms.style[layer] = weighted = self._normalized(f"style/{layer}", value.mean())
            else:
                value = self._normalized(f"style/{layer}", value, which)
                terms.by_image = value.detach() / len(style) + (0 if terms.by_image is None else terms.by_image)
                terms.style[layer] = value.mean()
                weighted = (value if self.style_factors is None else self.style_factors[which] * value).mean()
            terms.total = terms.total + self.weights["style"] * self.style_layers[layer] * weighted
        if color is not None:
            value = color_loss(output, color, self.hue_weight, self.hue_block)
            terms.color = self._normalized("color", value if which is not None else value.mean(), which).mean()
            terms.total = terms.total + self.weights["color"] * terms.color
        if self.weights["tv"]:
            terms.tv = self._normalized("tv", total_variation(output, self.tv_form, self.tv_reduction))
            terms.total = terms.total + self.weights["tv"] * terms.tv
        if self.weights["pixel"] and pixels is not None:
            terms.pixel = self._normalized("pixel", pixel_loss(output, pixels))
            terms.total = terms.total + self.weights["pixel"] * terms.pixel
        return terms

    def style_distance(self, layer: str, features: Tensor, target: Tensor, samples: int | None = None) -> Tensor:
        """A style layer's term before weight and normaliser.

        Args:
            layer: its name.
            features: (B, C, H, W).
            target: (B or 1, …), the layer's entry of ``style_targets``.
            samples: positions that a sliced term takes, as in ``sliced_wasserstein``.

        Returns:
            (B,).
        """
        if self.is_sliced(layer):
            value = sliced_wasserstein(features, target, samples)
        else:
            value = style_loss(gram_matrix(features, self.gram_divisor), target, self.style_form)
        return value / features[0].numel() if self.style_divisor == "chw" else value

    def without_margin(self, layer: str, features: Tensor, margin: int) -> Tensor:
        """A layer's features (B, C, H, W) without those of so many pixels at each border; at least one stays."""
        name, factor = split_layer(layer)
        count = margin // (factor * self.encoder.stride(name)) if self.encoder else 0
        rows, columns = (min(count, (side - 1) // 2) for side in features.shape[2:])
        return features[:, :, rows : features.shape[2] - rows, columns : features.shape[3] - columns]

    def is_sliced(self, layer: str) -> bool:
        """Whether a style layer is compared as a distribution, not as a Gram matrix."""
        return self.style_form == "sliced" or split_layer(layer)[0] == PIXELS

    def features(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Features by name: ``relu3_1/2`` is relu3_1 of the picture at half its size."""
        if self.encoder is None:
            return {}
        by_factor: dict[int, list[str]] = {}
        for name in layers:
            layer, factor = split_layer(name)
            by_factor.setdefault(factor, []).append(layer)
        found: dict[str, Tensor] = {}
        for factor, wanted in by_factor.items():
            needed = factor * max(map(self.encoder.stride, wanted))
            if factor > 1 and min(image.shape[-2:]) < needed:
                raise ValueError(
                    f"a picture of {image.shape[-1]}×{image.shape[-2]} pixels is too small for layers at 1/{factor} of "
                    f"its size; expected at least {needed}, or other style_layers"
                )
            features = self.encoder(F.avg_pool2d(image, factor) if factor > 1 else image, wanted)
            found |= {layer if factor == 1 else f"{layer}/{factor}": value for layer, value in features.items()}
        return found

    def _normalized(self, name: str, value: Tensor, which: Tensor | None = None) -> Tensor:
        """A term, or each image's (B,) by the normaliser of its style."""
        if not self.balanced:
            return value
        if name not in self.normalizers:
            raise ValueError(
                f"the balanced loss has no normalizer for {name}; set its normalizers to measure_normalizers(loss, "
                "photographs, style) first"
            )
        unit = self.normalizers[name]
        if isinstance(unit, Tensor) and unit.dim():
            if which is None:
                raise ValueError(f"the loss has normalizers for {len(unit)} styles; say which of them each image has")
            unit = unit[which]
        return value / unit

    @property
    def term_names(self) -> list[str]:
        """Every term that can be balanced, as ``LossTerms.scalars`` names it."""
        names = [f"content/{layer}" for layer in self.content_layers]
        names += [f"style/{layer}" for layer in self.style_layers]
        return [*names, *(["color"] if self.weights["color"] else []), "tv", "pixel"]


def _layers_of(targets: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Targets without that of the colour term."""
    return {name: target for name, target in (targets or {}).items() if name != "color"}


@torch.no_grad()
def split_layer(name: str) -> tuple[str, int]:
    """``relu3_1/2`` as layer and factor by which the picture is reduced: ``("relu3_1", 2)``; 1 where there is none.

    Raises:
        ValueError: a factor that is not 2, 4, 8 or 16.
    """
    layer, slash, factor = name.partition("/")
    if slash and factor not in ("2", "4", "8", "16"):
        raise ValueError(f"layer {name!r} asks for a picture reduced by {factor!r}; expected /2, /4, /8 or /16")
    return layer, int(factor) if slash else 1


def _layer_weights(layers: Layers, average: bool) -> dict[str, float]:
    layers = [layers] if isinstance(layers, str) else layers
    weights = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
    if any(not isinstance(weight, (int, float)) or weight < 0 for weight in weights.values()):
        return weights  # to be refused; averaging could hide the sign
    used = {layer: float(weight) for layer, weight in weights.items() if weight}
    total = sum(used.values()) if average else 1.0
    if math.isclose(total, 1.0):  # averages already, as in metadata: to the bit
        return used
    return {layer: weight / total for layer, weight in used.items()}
