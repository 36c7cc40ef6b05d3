"""The loss terms as pure functions, and PerceptualLoss over them.

Conventions
===========
F is a layer's features of one image, C × H × W; N = C channels, M = H · W positions; G = F Fᵀ the
Gram matrix over channels (N × N). Every term is a mean over the batch, so that a batch may be
split without changing anything. The published systems differ in every divisor:

=================  ==========================  ==========================  =========================
term               Johnson 2016 (paper)        Johnson's code              Gatys 2015, 2016
=================  ==========================  ==========================  =========================
content            Σ(F-P)² / (C H W)     (2)   the same                    ½ Σ(F-P)²             (1)
Gram matrix        F Fᵀ / (C H W)        (3)   the same                    F Fᵀ                  (3)
style              Σ(G-A)²               (4)   Σ(G-A)² / N²                Σ(G-A)² / (4 N² M²)   (4)
total variation    Σ of squared steps          the same                    none
=================  ==========================  ==========================  =========================

(numbers are the papers' equations). Gatys' style term is computed from F Fᵀ / M as Σ(G-A)² / (4 N²):
the same value when style and output have equal size, as in the paper, and the meaningful one when
they do not. ``gram`` and ``style`` choose the divisors independently: ``gram`` one of ``none``,
``hw`` (1/M), ``chw`` (1/(C M)); ``style`` one of ``sum``, ``mean`` (1/N²), ``quarter`` (1/(4 N²)).

``style="sliced"`` compares whole distributions of features instead of Gram matrices: the sliced Wasserstein distance
(Heitz et al. 2021, eq. 3). Features of all positions are projected on 2 C directions, the channels and their cosine
transform (DCT-II, orthonormal); along each, both sorted lists are subtracted, squared and averaged. A style target is
then the painting's sorted lists, shortened to ``QUANTILES`` means (1, 2 C, QUANTILES).

The layer ``pixels`` is the picture itself: as a style layer it asks for the painting's palette, and for nothing
beside it. It is always compared as a distribution, whatever ``style`` says. Gram matrices of an encoder's few channels
are soon matched with two colours and with neon fringes along edges; together with the palette they are not.

A layer's name may end in ``/2``, ``/4``, …: that layer for the picture (and painting) averaged over blocks of 2 × 2,
4 × 4, … pixels, so that larger shapes come within its view (Snelgrove 2017, § 3).

``color_weight`` (from no paper) holds colours in their places: the photograph is given the mean and covariance of the
painting's colours (``color.match_statistics``), both it and the output are averaged over blocks of 32 × 32 pixels, and
their squared difference is averaged, that of hue and saturation counting a quarter (``color_loss``). Style terms ask
which colours a picture has, content terms hardly see an even area's colour: without this one, networks turn dark
objects light and put the painting's strongest colours anywhere.

Total variation is the sum over the image of squared differences between neighbours (``squared``; Johnson's code), or of
absolute ones (``l1``); ``tv_reduction="mean"`` divides by C · H · W. ``opponent`` (from no paper) divides a difference
into its mean over the channels and the rest, of which the absolute values count ``CHROMA`` times as much; for grey
pictures it is ``l1``. Paintings change their colour less often than their light, and networks draw lines in
complementary colours along edges.

Variants met in lecture notes and posts that are misprints and therefore absent: 1/(4 C_in² C_out²)
for 1/(4 N² M²), Σ(G·H)² for Σ(G-H)², M as the side length of a feature map. A style loss divided
by C·H·W once more beside the Gram's own divisor is ``style_divisor="chw"``.

The closed-form gradients of the papers hold for the Gatys convention behind a ReLU:
∂L_content/∂F = F - P where F > 0, else 0; ∂E/∂F = (1/(N² M²)) (G - A) F where F > 0, else 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fststyle.color import color_statistics, match_statistics
from fststyle.diagnostics import WINDOW, folded
from fststyle.networks.vgg import PIXELS, PhotographStatistics, VGGEncoder

ContentForm = Literal["mean", "half_sum"]
GramDivisor = Literal["none", "hw", "chw"]
StyleForm = Literal["sum", "mean", "quarter", "sliced"]
StyleDivisor = Literal["none", "chw"]
TVForm = Literal["squared", "l1", "opponent"]
Reduction = Literal["sum", "mean"]
Layers = Sequence[str] | Mapping[str, float]

#: Values that a sorted list of a style target is shortened to.
QUANTILES = 128
#: What a difference in colour counts beside one in light, in total variation of the form ``opponent``.
CHROMA = 6.0
#: Side of the blocks, in pixels, over which the colour term averages.
COLOR_BLOCK = 32


# --- pure functions -------------------------------------------------------------------------------


def content_loss(features: Tensor, target: Tensor, form: ContentForm = "mean") -> Tensor:
    """Feature reconstruction loss.

    Args:
        features, target: (B, C, H, W); the target's batch may be 1.
        form: ``mean`` Σ(F-P)² / (C H W), Johnson eq. 2; ``half_sum`` ½ Σ(F-P)², Gatys 2016 eq. 1.

    Returns:
        Scalar, mean over the batch, float32 or better.
    """
    squares = (_precise(features) - _precise(target)).square()
    per_image = squares.sum((1, 2, 3)).mean()
    if form == "mean":
        return per_image / features[0].numel()
    if form == "half_sum":
        return per_image / 2
    raise ValueError(f"content form is {form!r}; expected mean or half_sum")


def gram_matrix(features: Tensor, divisor: GramDivisor = "chw") -> Tensor:
    """Gram matrix over channels, F Fᵀ over a divisor (Gatys 2015 eq. 1, Johnson eq. 3).

    Accumulated in float32 or better, with autocast off: half precision overflows or loses the small
    entries. The divisor is applied to the factors before the product, for the same reason.

    Args:
        features: (B, C, H, W).
        divisor: ``none`` 1, ``hw`` H·W, ``chw`` C·H·W.

    Returns:
        (B, C, C), symmetric.
    """
    channels, height, width = features.shape[1:]
    divisors = {"none": 1, "hw": height * width, "chw": channels * height * width}
    if divisor not in divisors:
        raise ValueError(f"Gram divisor is {divisor!r}; expected one of {', '.join(divisors)}")
    with torch.autocast(features.device.type, enabled=False):
        flat = _precise(features).flatten(2) / math.sqrt(divisors[divisor])
        return flat @ flat.transpose(1, 2)


def style_loss(gram: Tensor, target: Tensor, form: StyleForm = "sum") -> Tensor:
    """Squared Frobenius distance of Gram matrices.

    Args:
        gram, target: (B, N, N); the target's batch may be 1.
        form: ``sum`` (Johnson eq. 4), ``mean`` 1/N² (Johnson's code), ``quarter`` 1/(4 N²) (Gatys
            eq. 4, for Gram matrices divided by H·W).

    Returns:
        (B,).
    """
    n = gram.shape[-1]
    divisors = {"sum": 1, "mean": n**2, "quarter": 4 * n**2}
    if form not in divisors:
        raise ValueError(f"style form is {form!r}; expected one of {', '.join(divisors)}")
    return (_precise(gram) - _precise(target)).square().sum((1, 2)) / divisors[form]


def projected(features: Tensor, samples: int | None = None) -> Tensor:
    """Each position's features along 2 C directions: the channels, and their orthonormal DCT-II.

    Args:
        features: (B, C, H, W).
        samples: take every k-th position in reading order, about so many in all, k and W without a common
            divisor so that they are spread over rows and columns; None: all.

    Returns:
        (B, 2 C, positions), float32 or better.
    """
    with torch.autocast(features.device.type, enabled=False):
        flat = _precise(features).flatten(2)
        if samples:
            every = max(1, flat.shape[-1] // samples)
            while math.gcd(every, 2 * features.shape[-1]) > 1:  # odd too, for networks that upsample by 2
                every += 1
            flat = flat[:, :, ::every]
        channels = flat.shape[1]
        row = torch.arange(channels, device=flat.device, dtype=flat.dtype)
        cosines = torch.cos(math.pi / channels * row[:, None] * (row + 0.5)) * math.sqrt(2 / channels)
        cosines = torch.where(row[:, None] == 0, cosines / math.sqrt(2), cosines)
        return torch.cat([flat, cosines @ flat], 1)


def feature_quantiles(features: Tensor, count: int = QUANTILES) -> Tensor:
    """The distribution of features, as ``sliced_wasserstein`` takes it: sorted lists in ``count`` means.

    Args:
        features: (B, C, H, W).

    Returns:
        (B, 2 C, count), rising along the last axis.
    """
    return F.adaptive_avg_pool1d(projected(features).sort(-1).values, count)


def sliced_wasserstein(features: Tensor, target: Tensor, samples: int | None = None) -> Tensor:
    """Squared sliced Wasserstein distance of features to a distribution (Heitz et al. 2021, eq. 3).

    Args:
        features: (B, C, H, W).
        target: (B or 1, 2 C, Q), from ``feature_quantiles``.
        samples: positions to take, as in ``projected``; sorting fewer is faster.

    Returns:
        (B,): mean over directions and positions of the squared difference of the sorted lists.
    """
    found = projected(features, samples).sort(-1).values
    count = found.shape[-1]
    wanted = F.interpolate(target.to(found), count, mode="linear" if count >= target.shape[-1] else "area")
    return (found - wanted).square().mean((1, 2))


def total_variation(image: Tensor, form: TVForm = "squared", reduction: Reduction = "sum") -> Tensor:
    """Total variation: differences between neighbouring pixels, down and across.

    Args:
        image: (B, C, H, W).
        form: ``squared`` Σ d² (Johnson, § 3.2, after Mahendran & Vedaldi), ``l1`` Σ |d|, or ``opponent``
            Σ |m| + ``CHROMA`` |d - m|, where m is the mean of d over the channels.
        reduction: ``sum`` over the image, or ``mean``: that over C · H · W.

    Returns:
        Scalar, mean over the batch.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"total variation reduction is {reduction!r}; expected sum or mean")
    image = _precise(image)
    down = image[:, :, 1:] - image[:, :, :-1]
    across = image[:, :, :, 1:] - image[:, :, :, :-1]
    if form == "squared":
        per_image = (down.square().sum((1, 2, 3)) + across.square().sum((1, 2, 3))).mean()
    elif form in ("l1", "opponent"):
        if form == "opponent":
            down, across = _opponent(down), _opponent(across)
        per_image = (down.abs().sum((1, 2, 3)) + across.abs().sum((1, 2, 3))).mean()
    else:
        raise ValueError(f"total variation form is {form!r}; expected squared, l1 or opponent")
    return per_image / image[0].numel() if reduction == "mean" else per_image


def _opponent(difference: Tensor) -> Tensor:
    mean = difference.mean(1, keepdim=True).expand_as(difference)
    return torch.cat([mean, CHROMA * (difference - mean)], 1)


def pixel_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of pixels, Σ(Y-X)² / (C H W) (Johnson § 3.2); (B, 3, H, W) each."""
    return content_loss(image, target, "mean")


def checkerboard_loss(image: Tensor) -> Tensor:
    """What repeats in an image with the period of two upsamplings by 2: see ``diagnostics.folded``.

    Nothing but its position modulo 4 tells a network the pixels of an even area apart, so it uses that
    to make a texture there: checkerboard artifacts. Pixels that are optimised themselves need no such term.

    Args:
        image: (B, 3, H, W).

    Returns:
        Scalar: mean square of the windows' mean 4×4 pixels less their mean; 0 for less than a window.
    """
    if min(image.shape[-2:]) < WINDOW:
        return torch.zeros((), device=image.device)
    return folded(_precise(image)).square().mean()


def block_colors(image: Tensor) -> Tensor:
    """Mean colours of blocks of ``COLOR_BLOCK`` pixels each way, those at the edges smaller.

    Args:
        image: (B, 3, H, W).

    Returns:
        (B, 3, ⌈H / 32⌉, ⌈W / 32⌉).
    """
    return _block_sums(_precise(image)) / _block_sums(torch.ones_like(image[:1, :1]))


def _block_sums(image: Tensor) -> Tensor:
    # A sum, since the compiled gradient of a mean divides by whole blocks at the edges, too (torch 2.14).
    return F.avg_pool2d(image, COLOR_BLOCK, ceil_mode=True, divisor_override=1)


def color_loss(image: Tensor, target: Tensor) -> Tensor:
    """Difference of an image's blocks from the colours that they should have.

    Args:
        image: (B, 3, H, W).
        target: (B or 1, 3, ⌈H / 32⌉, ⌈W / 32⌉), from ``block_colors``.

    Returns:
        (B,): mean over the image of its block's squared difference of the channels' mean, and a quarter of the mean
        square of what the channels differ by beyond that.
    """
    difference = block_colors(image) - target
    grey = difference.mean(1).square()
    share = _block_sums(difference.new_ones(1, 1, *image.shape[-2:])) / image[0, 0].numel()
    return ((0.75 * grey + 0.25 * difference.square().mean(1)) * share[0]).sum((1, 2))


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


# --- the loss -------------------------------------------------------------------------------------


@dataclass
class LossTerms:
    """What an image costs.

    ``content`` and ``style`` hold one scalar per layer, ``color``, ``tv`` and ``pixel`` one each, all of them
    before any weight (and after the normalisers, where the loss has some); ``total`` is weighted.
    """

    total: Tensor
    content: dict[str, Tensor] = field(default_factory=dict)
    style: dict[str, Tensor] = field(default_factory=dict)
    color: Tensor | None = None
    tv: Tensor | None = None
    pixel: Tensor | None = None

    def scalars(self) -> dict[str, Tensor]:
        """Every term by name: ``total``, ``content/relu2_2``, ``style/relu1_2``, …, ``color``, ``tv``, ``pixel``."""
        named = {"total": self.total}
        named |= {f"content/{layer}": value for layer, value in self.content.items()}
        named |= {f"style/{layer}": value for layer, value in self.style.items()}
        single = {"color": self.color, "tv": self.tv, "pixel": self.pixel}
        named |= {name: value for name, value in single.items() if value is not None}
        return named


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
        """The loss that a checkpoint was trained with, normalisers included.

        Args:
            encoder: the checkpoint's, from ``networks.pretrained.encoder_of``.
            metadata: the checkpoint's.
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
def measure_photographs(encoder: VGGEncoder, photographs: Iterable[Tensor]) -> PhotographStatistics:
    """What photographs measure at every ReLU of an encoder, for ``PerceptualLoss.calibrate(None, …)``.

    Args:
        encoder: any.
        photographs: batches (B, 3, S, S) of different photographs, B ≥ 2.
    """
    layers = [PIXELS, *(layer for layer in encoder.layers if layer.startswith("relu"))]
    firsts = [f"{layer}{part}" for part in ("", "/2") for layer in layers if layer == PIXELS or layer.endswith("_1")]
    names = list(dict.fromkeys([*layers, *firsts]))
    view = PerceptualLoss(encoder, (), firsts, style="sliced")
    sums: dict[str, Tensor | float] = {}
    count, size = 0, 0

    def add(name: str, value: Tensor, images: int) -> None:
        sums[name] = sums.get(name, 0.0) + value.double() * images

    for batch in photographs:
        if len(batch) < 2:
            continue
        for name, value in view.features(batch, names).items():
            if name in layers:
                add(f"content/{name}", content_loss(value, value.roll(1, 0)), len(batch))
            grams = gram_matrix(value, "hw")
            add(f"gram/{name}", grams.mean(0, keepdim=True), len(batch))
            add(f"energy/{name}", grams.square().sum((1, 2)).mean(), len(batch))
            if name in firsts:
                quantiles = feature_quantiles(value)
                add(f"quantiles/{name}", quantiles.mean(0, keepdim=True), len(batch))
                add(f"quantile energy/{name}", quantiles.square().mean(), len(batch))
        for form in get_args(TVForm):
            add(form, total_variation(batch, form, "mean"), len(batch))
        add("pixel", pixel_loss(batch, batch.roll(1, 0)), len(batch))
        count, size = count + len(batch), batch.shape[-1]
    if not count:
        raise ValueError("no photographs were given to measure; expected batches of at least two")
    return PhotographStatistics(
        content={layer: float(sums[f"content/{layer}"]) / count for layer in layers},
        grams={layer: (sums[f"gram/{layer}"] / count).float() for layer in names},  # type: ignore[union-attr]
        gram_energies={layer: float(sums[f"energy/{layer}"]) / count for layer in names},
        quantiles={layer: (sums[f"quantiles/{layer}"] / count).float() for layer in firsts},  # type: ignore[union-attr]
        quantile_energies={layer: float(sums[f"quantile energy/{layer}"]) / count for layer in firsts},
        tv={form: float(sums[form]) / count for form in get_args(TVForm)},
        pixel=float(sums["pixel"]) / count,
        size=size,
        count=count,
    )


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
