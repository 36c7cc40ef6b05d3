"""PerceptualLoss: the terms of ``losses.functional`` over an encoder's layers, weighted and, if wanted, balanced."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fststyle.color import color_statistics, match_statistics
from fststyle.encoders.vgg import PIXELS, VGGEncoder
from fststyle.losses.functional import (
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
from fststyle.losses.terms import LossTerms

Layers = Sequence[str] | Mapping[str, float]


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
        content, gram, style, tv, tv_reduction: the conventions in the head of this file.
        style_divisor: ``chw`` divides each style layer by C·H·W of the output's features once more.
        balanced: divide every term by its normaliser, set by ``calibrate``, so that it is 1 for
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
        tv_weight: float = 0.0,
        pixel_weight: float = 0.0,
        content: ContentForm = "mean",
        gram: GramDivisor = "chw",
        style: StyleForm = "sum",
        style_divisor: StyleDivisor = "none",
        tv: TVForm = "squared",
        tv_reduction: Reduction = "sum",
        balanced: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.content_layers = _layer_weights(content_layers, balanced)
        self.style_layers = _layer_weights(style_layers, balanced)
        self.weights = {
            "content": content_weight,
            "style": style_weight,
            "color": color_weight,
            "tv": tv_weight,
            "pixel": pixel_weight,
        }
        self.content, self.gram, self.style, self.style_divisor = content, gram, style, style_divisor
        self.tv, self.tv_reduction, self.balanced = tv, tv_reduction, balanced
        #: Term name (as in ``LossTerms.scalars``) to the value it is divided by.
        self.normalizers: dict[str, float] = {}
        forms = {"content": ContentForm, "gram": GramDivisor, "style": StyleForm, "style_divisor": StyleDivisor}
        for option, form in {**forms, "tv": TVForm, "tv_reduction": Reduction}.items():
            if getattr(self, option) not in get_args(form):
                raise ValueError(f"{option} is {getattr(self, option)!r}; expected {' or '.join(get_args(form))}")
        if encoder is None and (self.content_layers or self.style_layers):
            raise ValueError("a loss over layers takes an encoder; found none")
        if encoder is not None:
            layers = {split_layer(name)[0] for name in (*self.content_layers, *self.style_layers)}
            encoder.check_layers(sorted(layers - {PIXELS}))
        for name, weight in [*self.weights.items(), *self.content_layers.items(), *self.style_layers.items()]:
            if not isinstance(weight, (int, float)) or weight < 0 or not math.isfinite(weight):
                raise ValueError(f"the weight of {name} is {weight}; expected a number ≥ 0")
        judged = {"content": any(self.content_layers.values()), "style": any(self.style_layers.values())}
        if not any(weight and judged.get(name, True) for name, weight in self.weights.items()):
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
        settings = {key: value for key, value in metadata["loss"].items() if key != "normalizers"}
        loss = cls(encoder, **settings)
        loss.normalizers = dict(metadata["loss"].get("normalizers", {}))
        return loss

    @property
    def settings(self) -> dict[str, object]:
        """Everything that rebuilds this loss over an encoder, but for the normalisers; for the metadata."""
        return {
            "content_layers": dict(self.content_layers),
            "style_layers": dict(self.style_layers),
            **{f"{name}_weight": weight for name, weight in self.weights.items()},
            "content": self.content,
            "gram": self.gram,
            "style": self.style,
            "style_divisor": self.style_divisor,
            "tv": self.tv,
            "tv_reduction": self.tv_reduction,
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
            blocks of the picture should have, (B, 3, ⌈H / 32⌉, ⌈W / 32⌉).
        """
        targets = self.features(image, self.content_layers if self.weights["content"] else ())
        if self.weights["color"] and style and "color" in style:
            photograph = _precise(image)
            targets["color"] = block_colors(match_statistics(photograph, style["color"].to(photograph), 1e-3))
        return targets

    @torch.no_grad()
    def style_targets(self, image: Tensor) -> dict[str, Tensor]:
        """Gram matrices (B, C, C) to be matched, or quantiles (B, 2 C, QUANTILES) where ``style`` is ``sliced`` and
        of ``pixels``, by layer, without graph; with ``color_weight`` also ``color``, from ``color.color_statistics``
        (B, 4, 3)."""
        features = self.features(image, self.style_layers if self.weights["style"] else ())
        targets = {
            layer: feature_quantiles(value) if self._sliced(layer) else gram_matrix(value, self.gram)
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
    ) -> LossTerms:
        """Judge ``output``.

        Args:
            output: (B, 3, H, W), RGB, [0, 1] meant.
            content: features per content layer, from ``content_targets`` or elsewhere; and its ``color``.
            style: what ``style_targets`` gave, per style layer.
            pixels: (B, 3, H, W), for the pixel loss.
            samples: positions per layer that a sliced style term takes, as in ``sliced_wasserstein``.

        Raises:
            ValueError: a balanced loss that was not calibrated.
        """
        color = (content or {}).get("color") if self.weights["color"] else None
        content = _layers_of(content) if self.weights["content"] else {}
        style = _layers_of(style) if self.weights["style"] else {}
        features = self.features(output, {*content, *style})
        terms = LossTerms(total=torch.zeros((), device=output.device, dtype=_precise(output).dtype))
        for layer, target in content.items():
            value = content_loss(features[layer], target, self.content)
            terms.content[layer] = self._normalized(f"content/{layer}", value)
            terms.total = terms.total + self.weights["content"] * self.content_layers[layer] * terms.content[layer]
        for layer, target in style.items():
            value = self.style_distance(layer, features[layer], target, samples).mean()
            terms.style[layer] = self._normalized(f"style/{layer}", value)
            terms.total = terms.total + self.weights["style"] * self.style_layers[layer] * terms.style[layer]
        if color is not None:
            terms.color = self._normalized("color", color_loss(output, color).mean())
            terms.total = terms.total + self.weights["color"] * terms.color
        if self.weights["tv"]:
            terms.tv = self._normalized("tv", total_variation(output, self.tv, self.tv_reduction))
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
        if self._sliced(layer):
            value = sliced_wasserstein(features, target, samples)
        else:
            value = style_loss(gram_matrix(features, self.gram), target, self.style)
        return value / features[0].numel() if self.style_divisor == "chw" else value

    def _sliced(self, layer: str) -> bool:
        return self.style == "sliced" or split_layer(layer)[0] == PIXELS

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

    def _normalized(self, name: str, value: Tensor) -> Tensor:
        if not self.balanced:
            return value
        if name not in self.normalizers:
            raise ValueError(f"the balanced loss has no normalizer for {name}; call calibrate() on photographs first")
        return value / self.normalizers[name]

    @torch.no_grad()
    def calibrate(self, photographs: Iterable[Tensor] | None, style: Mapping[str, Tensor]) -> dict[str, float]:
        """Measure what every term is worth when nothing was done, and divide by it from now on.

        A style layer's normaliser is its term for unstylised photographs, a content layer's its term
        between two different photographs, that of total variation and of pixels likewise. The colour term's is the
        mean squared difference of two pixels of the painting, which colours in the wrong places do not quite reach.

        Args:
            photographs: batches (B, 3, H, W) of different photographs, one size, B ≥ 2; or None, to
                take what the encoder knows of photographs.
            style: the style targets.

        Returns:
            Term name to normaliser; also kept in ``normalizers``.

        Raises:
            ValueError: no photographs; a term that is 0 on them; without photographs, an encoder that
                knows none, or a convention whose terms depend on the picture's size.
        """
        if not self.balanced:
            return {}
        color = {}
        if "color" in style:
            color["color"] = max(1e-3, 2 / 3 * float(style["color"][:, 1:].square().sum((1, 2)).mean()))
        if photographs is None:
            self.normalizers = self._known_normalizers(_layers_of(style)) | color
            return self.normalizers
        self.normalizers = dict.fromkeys(self.term_names, 1.0)
        sums: dict[str, float] = {}
        count = 0
        for batch in photographs:
            if batch.shape[0] < 2:
                continue  # a photograph needs another one beside it
            other = batch.roll(1, 0)
            terms = self(batch, content=self.content_targets(other), style=style, pixels=other)
            for name, value in terms.scalars().items():
                sums[name] = sums.get(name, 0.0) + float(value) * batch.shape[0]
            count += batch.shape[0]
        self.normalizers = {}
        if not count:
            raise ValueError("no photographs were given to calibrate the balanced loss on; expected at least two")
        normalizers = {name: sums[name] / count for name in self.term_names if name in sums}
        for name, value in normalizers.items():
            if not value > 0 or not math.isfinite(value):
                raise ValueError(
                    f"{name} is {value} on unstylised photographs, so it cannot be balanced; leave that layer out"
                )
        self.normalizers = normalizers | color
        return self.normalizers

    @property
    def unmeasured(self) -> list[str]:
        """Layers, ``tv`` or all terms that the encoder knows too little of to balance it without photographs."""
        known = self.encoder.photographs if self.encoder is not None else None
        if known is None:
            return self.term_names
        missing = [layer for layer in self.content_layers if layer not in known.content]
        for layer in self.style_layers:
            if layer not in (known.quantiles if self._sliced(layer) else known.grams):
                missing.append(layer)
        if self.tv not in known.tv:
            missing.append("tv")
        return missing

    def _known_normalizers(self, style: Mapping[str, Tensor]) -> dict[str, float]:
        known = self.encoder.photographs if self.encoder is not None else None
        if known is None:
            name = self.encoder.name if self.encoder is not None else "none"
            raise ValueError(
                f"the encoder {name} carries no measurements of photographs; give photographs to calibrate the "
                "balanced loss on"
            )
        if (self.content, self.style_divisor, self.tv_reduction) != ("mean", "none", "mean") or self.gram == "none":
            raise ValueError(
                "without photographs, terms can be balanced only as means: content=mean, gram=hw or chw, "
                "style_divisor=none, tv_reduction=mean"
            )
        if self.unmeasured:
            raise ValueError(
                f"the encoder {self.encoder.name} has no measurements of photographs at "  # type: ignore[union-attr]
                f"{', '.join(self.unmeasured)}; give photographs to calibrate the balanced loss on"
            )
        normalizers = {f"content/{layer}": known.content[layer] for layer in self.content_layers}
        for layer, target in style.items():
            if self._sliced(layer):
                quantiles = known.quantiles[layer].to(target)
                spread = known.quantile_energies[layer] - float(quantiles.square().mean())
                normalizers[f"style/{layer}"] = float((quantiles - target).square().mean()) + spread
                continue
            # The mean of |G - A|² over photographs' Gram matrices G is |E G - A|² + E |G|² - |E G|².
            divisor = target.shape[-1] if self.gram == "chw" else 1
            mean = known.grams[layer].to(target) / divisor
            spread = known.gram_energies[layer] / divisor**2 - float(mean.square().sum())
            share = spread / float((mean - target).square().sum())
            normalizers[f"style/{layer}"] = float(style_loss(mean, target, self.style).mean()) * (1 + share)
        return normalizers | {"tv": known.tv[self.tv], "pixel": known.pixel}

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
