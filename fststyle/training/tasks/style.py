"""A network for one style, or for several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fststyle.kuwahara import RADIUS
from fststyle.losses import WARP_POINTS, LossTerms, PerceptualLoss, checkerboard_loss, random_warp, stability_loss
from fststyle.networks.blocks import KuwaharaFilter
from fststyle.networks.octaves import in_octaves
from fststyle.networks.transform import TransformNet
from fststyle.octaves import check_octaves, inference_metadata
from fststyle.training.colors import LEAST, match_styles
from fststyle.training.tasks.base import Task, check_weight

#: Standard deviation of the noise in the stability term's pictures: two levels of 255.
STABILITY_NOISE = 2 / 255
#: Of so many photographs in a row one is judged by the stability term, which costs a pass of the network for each.
STABILITY_EVERY = 4
#: Of so many steps in a row one is a single pass, so that the network serves both.
SINGLE_EVERY = 3


class PaintingTask(Task):
    """What the training of one style, of several and of any has in common: what is minimised besides the loss.

    Args:
        network, loss, options: as in ``Task``.
        style_samples: positions per layer that a sliced style term takes in training; None: all. Validation takes all.
        checkerboard_weight: of ``losses.checkerboard_loss`` in what is minimised. It is no part of the
            style's loss, by which results are compared with the slow mode, whose pixels need none.
        stability_weight: of ``losses.stability_loss`` in what is minimised, by another warp, brightness and noise in
            each step; a network trained without measures about 1.
        margin: pixels at each border without which a picture has to have the style too, in training: a network knows
            borders by their reflection, and puts colours there that the photograph has no place for elsewhere.
        train: ``all`` weights, or ``norms``, what a task has besides convolutions.
        octaves: from coarse to fine, in which the network is applied (``networks.octaves``); every third step is a
            single pass.
    """

    warp: Tensor
    gain: Tensor
    noise: Tensor

    def __init__(
        self,
        network: nn.Module,
        loss: PerceptualLoss,
        style_samples: int | None = 8192,
        checkerboard_weight: float = 1000.0,
        stability_weight: float = 1.0,
        margin: int = 16,
        train: str = "all",
        octaves: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(network, loss, **options)
        if train not in ("all", "norms"):
            raise ValueError(f"train is {train!r}; expected all or norms")
        if style_samples is not None and style_samples < 1:
            raise ValueError(f"style_samples is {style_samples}; expected at least 1, or null for all positions")
        if margin < 0:
            raise ValueError(f"margin is {margin}; expected a number of pixels ≥ 0")
        self.style_samples, self.margin, self.octaves = style_samples, margin, check_octaves(octaves)
        self.checkerboard_weight = check_weight(checkerboard_weight)
        self.stability_weight = check_weight(stability_weight, "stability_weight")
        self.register_buffer("warp", torch.zeros(1, 2, WARP_POINTS, WARP_POINTS), persistent=False)
        self.register_buffer("gain", torch.ones(()), persistent=False)

    def _repays(self, device: str) -> bool:
        # A graph of several octaves took more than six minutes to compile on two cores.
        return self.octaves == 1 and super()._repays(device)

    def exported(self) -> tuple[Mapping[str, Tensor] | None, dict[str, Any]]:
        weights, metadata = super().exported()
        return weights, {**metadata, **inference_metadata(self.octaves)}

    def draw_warp(self, photographs: Tensor) -> None:
        """Warp and noise of the stability term, which the step decides: the same on all ranks and in a run that is
        resumed."""
        if self.stability_weight:
            rng = np.random.default_rng((5, self.trainer.global_step if self._trainer is not None else 0))
            for buffer, value in zip((self.warp, self.gain), random_warp(rng), strict=True):
                buffer.copy_(value)
            noise = rng.normal(0, STABILITY_NOISE, (1, *photographs.shape[1:])).astype(np.float32)
            self.noise = torch.from_numpy(noise).to(self.warp.device)

    def steadied(self, count: int) -> tuple[slice, float]:
        """Which of a rank's photographs the stability term judges, and the factor of their mean: every fourth of all
        ranks' together, so that the mean over the ranks does not depend on how many there are."""
        attached = self._trainer is not None
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if attached else (0, 1)
        chosen = slice(-rank * count % STABILITY_EVERY, None, STABILITY_EVERY)
        here, everywhere = (len(range(*chosen.indices(count))), -(-ranks * count // STABILITY_EVERY))
        return chosen, ranks * here / everywhere

    def judge(
        self,
        paint: Callable[[Tensor, slice], Tensor],
        photographs: Tensor,
        targets: Mapping[str, Tensor],
        which: Tensor | None,
        regularized: bool,
    ) -> LossTerms:
        """The loss of what is painted; ``regularized`` adds to the total what only training needs.

        Args:
            paint: photographs, and which of the batch they are, to pictures of their size.
            photographs: (B, 3, H, W).
            targets: style targets, of one style or of each photograph's.
            which: (B,), as the loss takes it.
        """
        step = self.trainer.global_step if self._trainer is not None else 0
        octaves = 1 if regularized and step % SINGLE_EVERY == 0 else self.octaves

        def painted(images: Tensor, which: slice) -> Tensor:
            return in_octaves(lambda image: paint(image, which), images, octaves)

        content = self.loss.content_targets(photographs, targets)
        output = painted(photographs, slice(None))
        samples, margin = (self.style_samples, self.margin) if regularized else (None, 0)
        terms: LossTerms = self.loss(output, content, targets, samples=samples, which=which, margin=margin)
        if regularized and self.checkerboard_weight:
            terms.added["checkerboard"] = checkerboard_loss(output)
            terms.total = terms.total + self.checkerboard_weight * terms.added["checkerboard"]
        if regularized and self.stability_weight:
            chosen, share = self.steadied(len(photographs))
            terms.added["stability"] = terms.total.new_zeros(())  # of one type on all ranks, which log their mean
            if share:
                pictures = (photographs[chosen], output[chosen], self.warp, self.gain, self.noise)
                moved = stability_loss(lambda images: painted(images, chosen), *pictures)
                terms.added["stability"] = (share * moved).to(terms.total)
            terms.total = terms.total + self.stability_weight * terms.added["stability"]
        return terms


class StyleTask(PaintingTask):
    """Train a network for one style (Johnson, Alahi, Fei-Fei 2016, § 3), or for several.

    Of several (Dumoulin, Shlens, Kudlur 2017), each photograph of a batch is painted in one, and judged by its targets,
    normalisers and weight.

    Args:
        network: image in, image of the same size out; ``TransformNet(styles=N)`` for several styles.
        loss: compares the output with the photograph and the style.
        style_targets: from ``loss.style_targets(painting)``; of several styles in rows, (N, …).
        names: of several styles; empty for one.
        paintings: (N, 5), ``colors.spread`` of each style's painting.
        kuwahara: radius in pixels of the ``KuwaharaFilter`` that the exported network ends with; 0: none.
        smoothed: how much of its result each style gets, (N,) from 0 to 1; None: all of it.
        match_colors: bring contrast and saturation of the exported network to those of ``paintings``, if given.
        train: ``all`` weights, or with ``norms`` what a style has of its own alone (scales and shifts of the instance
            norms, and its colour transform), on the convolutions of another network.
        optimizer, learning_rate, schedule, warmup: as in ``Task``, whose defaults are the paper's.
        options: as in ``PaintingTask``.
    """

    kind = "style"
    #: Sums of the style terms of each style's photographs since they were logged, and how many these are.
    sums: Tensor

    def __init__(
        self,
        network: nn.Module,
        loss: PerceptualLoss,
        style_targets: Mapping[str, Tensor],
        optimizer: str = "muon",
        learning_rate: float = 3e-3,
        schedule: str = "cosine",
        warmup: int = 50,
        names: Sequence[str] = (),
        paintings: Tensor | None = None,
        kuwahara: float = RADIUS,
        smoothed: Sequence[float] | None = None,
        match_colors: bool = True,
        train: str = "all",
        **options: Any,
    ) -> None:
        scheduled = {"optimizer": optimizer, "learning_rate": learning_rate, "schedule": schedule, "warmup": warmup}
        super().__init__(network, loss, train=train, **scheduled, **options)  # type: ignore[arg-type]
        if getattr(network, "scale", 1) != 1:
            raise ValueError(
                f"the network is a {type(network).__name__}, which enlarges; a style takes one that keeps the size, "
                "such as network=resnet"
            )
        self.style_targets = {layer: target.detach() for layer, target in style_targets.items()}
        self.names, styles = tuple(names), getattr(network, "styles", 1)
        self.paintings, self.match_colors = paintings, match_colors
        self.kuwahara, self.smoothed = kuwahara, None if smoothed is None else [*smoothed]
        if kuwahara:
            KuwaharaFilter(kuwahara, self.smoothed or [1.0])  # what is wrong with them is said now
        if {styles, max(1, len(names))} != {max(map(len, style_targets.values()), default=1)}:
            raise ValueError(
                f"the network is for {styles} styles, and there are {max(1, len(names))}; expected the same number of "
                "norms, names and style targets"
            )
        self.norms_only = train == "norms"
        if self.norms_only:
            own = network.style_parameters() if isinstance(network, TransformNet) else {}
            if not own:
                raise ValueError("the network has no instance norms that could be trained alone; use task.train=all")
            network.requires_grad_(False)
            for value in own.values():
                value.requires_grad_(True)
        self.register_buffer("sums", torch.zeros(2, styles), persistent=styles > 1)

    def inputs(self, batch: Mapping[str, Any]) -> Any:
        """Photographs (B, 3, H, W), with the numbers (B,) of their styles, if there are several."""
        self.draw_warp(batch["image"])
        return (batch["image"], batch["which"]) if self.names else batch["image"]

    def compute_loss(self, inputs: Any, network: nn.Module | None = None, regularized: bool = False) -> LossTerms:
        photographs, which = inputs if self.names else (inputs, None)
        photographs = photographs.contiguous(memory_format=torch.channels_last)
        applied: Callable[..., Tensor] = network or self.network
        targets, mixture = self.style_targets, None
        if which is not None:
            targets = {layer: target[which] for layer, target in targets.items()}
            mixture = F.one_hot(which, len(self.names)).to(photographs)

        def paint(image: Tensor, chosen: slice) -> Tensor:
            return applied(image) if mixture is None else applied(image, mixture[chosen])

        return self.judge(paint, photographs, targets, which, regularized)

    def show(self, photograph: Tensor, network: nn.Module) -> Tensor:
        return in_octaves(network, photograph, self.octaves)

    def by_style(self, network: nn.Module) -> dict[str, nn.Module]:
        if not self.names:
            return super().by_style(network)  # type: ignore[no-any-return]
        assert isinstance(network, TransformNet)
        mixtures = torch.eye(len(self.names), device=self.device)
        each = (network.of_mixture(mixture).to(self.device) for mixture in mixtures)
        return dict(zip(self.names, each, strict=True))

    def finalize(self, network: nn.Module, photographs: Tensor) -> nn.Module | None:
        if not isinstance(network, TransformNet):
            return None
        final = network.with_kuwahara(self.kuwahara, self.smoothed).to(self.device)
        fits = self.match_colors and network.config["output"] == "sigmoid" and len(photographs) >= LEAST
        if self.paintings is None or not fits:
            return final if final.config != network.config else None
        return match_styles(final, self.paintings, photographs.to(self.device), self.octaves)

    def parts(self, batch: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
        if not self.names:
            yield from super().parts(batch)
            return
        for number in batch["which"].unique().tolist():
            own = batch["which"] == number
            yield self.names[number], {k: v[own] if isinstance(v, Tensor) else v for k, v in batch.items()}

    def observe(self, batch: Mapping[str, Any], terms: LossTerms, logged: bool) -> None:
        """Log, as ``train/styles/NAME``, the style term of each style's photographs since it was last logged."""
        if terms.by_image is None:
            return
        found = terms.by_image.detach().to(self.sums)
        self.sums.index_add_(1, batch["which"], torch.stack([found, torch.ones_like(found)]))
        if logged:
            sums: Tensor = self.trainer.strategy.reduce(self.sums.clone(), reduce_op="sum")
            for name, total, count in zip(self.names, *sums.tolist(), strict=True):
                if count:
                    self.log(f"train/styles/{name}", total / count)
            self.sums.zero_()
