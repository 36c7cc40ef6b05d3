"""What is learned: one training loop, and a task each for styles, super-resolution and style swap."""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from fststyle.images import MIN_SIDE
from fststyle.losses import LossTerms, PerceptualLoss, checkerboard_loss, pixel_loss
from fststyle.networks.styleswap import InverseNet, StyleSwap, check_patch, swap, truncated_encoder
from fststyle.networks.superres import reduce
from fststyle.training.muon import Muon

log = logging.getLogger(__name__)


#: Steps from which compiling, about a minute, is repaid, by device.
COMPILE_FROM = {"cpu": 300, "cuda": 3000}


#: So many steps in a row without a finite gradient end a run.
MAX_SKIPPED = 50


class NonFiniteError(RuntimeError):
    """A run whose gradients stay NaN or infinite."""


def _has_compiler(device: str) -> bool:
    """Whether torch.compile finds what it needs; warns if it does not."""
    if device == "cuda":
        found, missing = importlib.util.find_spec("triton") is not None, "triton"
    else:
        found = bool(os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or shutil.which("cl"))
        missing = "C++ compiler"
    if not found:
        log.warning("no %s was found, so the run is not compiled and takes longer", missing)
    return found


def _weight(weight: float, name: str = "checkerboard_weight") -> float:
    if not 0 <= weight < math.inf:
        raise ValueError(f"{name} is {weight}; expected a number ≥ 0")
    return weight


class Task(pl.LightningModule):
    """What all training shares: the step, the optimizer, what is logged and saved. A task defines its loss.

    A checkpoint holds the network, and what the loss measures against: style targets, where there are any,
    and normalisers. The encoder is never part of it.

    Args:
        network: what is trained.
        loss: of what it makes.
        learning_rate: the optimizer's.
        optimizer: ``adam``, or ``muon`` (``training.muon``), which took about 70 % of the steps in one comparison.
        schedule: ``none``, or ``cosine`` to zero over ``steps``.
        warmup: steps over which the learning rate rises linearly from zero.
        steps: length of the run, for the schedule.
        compile: run network and loss through ``torch.compile``: true, false, or ``auto``, where the run
            has steps enough to repay the minute that it takes. Without a compiler, or where it fails,
            the run goes on without, with a warning.
    """

    #: What the exported file is, as ``model_file.KINDS`` names it.
    kind = ""
    skipped: Tensor

    def __init__(
        self,
        network: nn.Module,
        loss: PerceptualLoss,
        learning_rate: float = 1e-3,
        schedule: str = "none",
        warmup: int = 0,
        steps: int = 40_000,
        compile: bool | str = "auto",
        optimizer: str = "adam",
    ) -> None:
        super().__init__()
        if schedule not in ("none", "cosine"):
            raise ValueError(f"schedule is {schedule!r}; expected none or cosine")
        if optimizer not in ("adam", "muon"):
            raise ValueError(f"optimizer is {optimizer!r}; expected adam or muon")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate is {learning_rate}; expected a number above 0")
        if compile not in (True, False, "auto"):
            raise ValueError(f"compile is {compile!r}; expected true, false or auto")
        if steps < 1 or warmup < 0:
            raise ValueError(f"steps is {steps}, warmup {warmup}; expected at least 1 and 0")
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = loss
        self.style_targets: dict[str, Tensor] = {}
        self.learning_rate, self.schedule, self.warmup, self.steps = learning_rate, schedule, warmup, steps
        self.compile_when, self.optimizer_name = compile, optimizer
        self._compiled: Callable[..., LossTerms] | None = None
        self._clock: tuple[float, int] | None = None
        # Steps left out for a gradient that is not finite, in all and since the last good one; on the
        # device, so that no step waits to know.
        self.register_buffer("skipped", torch.zeros(2), persistent=False)
        self._told = 0

    # --- what a task says ---------------------------------------------------------------------------

    def inputs(self, batch: Mapping[str, Any]) -> Any:
        """What ``compute_loss`` takes, of a batch; it is not compiled."""
        return batch["image"]

    def compute_loss(self, inputs: Any, network: nn.Module | None = None, regularized: bool = False) -> LossTerms:
        """Let a network, the task's unless another is given, make what it is for; returns the loss of that.

        ``regularized`` adds to the total what only training needs.

        Args:
            inputs: photographs (B, 3, H, W), unless ``inputs`` says otherwise.
        """
        raise NotImplementedError

    def check_crops(self, size: int) -> None:
        """Raise ``ValueError`` for photographs of a size (pixels each way) that the task cannot use."""

    def exported(self) -> tuple[Mapping[str, Tensor] | None, dict[str, Any]]:
        """What the exported file holds besides the network: an encoder's weights, and more of the metadata."""
        return None, {}

    def show(self, photograph: Tensor, network: nn.Module) -> Tensor:
        """What a preview shows next to a photograph (1, 3, H, W), of the same size."""
        raise NotImplementedError

    # --- the loop -----------------------------------------------------------------------------------

    def objective(self, inputs: Any) -> LossTerms:
        """What a training step minimises: ``compute_loss``, regularised, compiled where that pays."""
        if self._compiled is None:
            eager: Callable[..., LossTerms] = functools.partial(self.compute_loss, regularized=True)
            device = self.device.type
            worth = self.compile_when is True or (self.compile_when == "auto" and self._repays(device))
            self._compiled = torch.compile(eager) if worth and _has_compiler(device) else eager
            if self._compiled is not eager:
                try:
                    return self._compiled(inputs)
                except TorchDynamoException as error:
                    log.warning("torch.compile failed, so the run goes on without: %s", str(error).splitlines()[0])
                    self._compiled = eager
        return self._compiled(inputs)

    def _repays(self, device: str) -> bool:
        # By the run's whole length, so that one that is resumed computes as the one that was interrupted.
        return self.steps >= COMPILE_FROM.get(device, COMPILE_FROM["cpu"])

    def on_fit_start(self) -> None:
        # Each rank has measured them on the same photographs; its hardware may round as no other's does.
        self.loss.normalizers = self.trainer.strategy.broadcast(self.loss.normalizers)
        self.style_targets = {layer: target.to(self.device) for layer, target in self.style_targets.items()}

    def training_step(self, batch: Mapping[str, Any], _: int) -> Tensor:
        terms = self.objective(self.inputs(batch))
        step, every = self.trainer.global_step, self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step == 0 or (step + 1) % every == 0:  # at 0 for the progress bar, then when Lightning asks the loggers
            self._log_terms("train", terms, len(batch["image"]))
            self._show_progress(terms, len(batch["image"]))
            self._check_skipped()
        return terms.total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer leave a step out, moments and all, unless every gradient is finite."""
        if not optimizer.defaults["fused"]:
            return  # only the fused one can
        gradients = [weight.grad for weight in self.network.parameters() if weight.grad is not None]
        bad = (~torch.isfinite(torch.nn.utils.get_total_norm(gradients))).float()
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:  # a gradient scaler does this itself
            optimizer.found_inf, optimizer.grad_scale = bad, None  # type: ignore[attr-defined]
        self.skipped += bad
        self.skipped[1] *= bad

    def _check_skipped(self) -> None:
        total, in_a_row = (int(count) for count in self.skipped)
        if total > self._told:
            self._told = total
            log.warning("steps left out so far, because their gradients were not finite: %d", total)
        if in_a_row >= MAX_SKIPPED:
            raise NonFiniteError(
                f"the gradients of the last {in_a_row} steps were not finite; use a lower task.learning_rate, or "
                "trainer.precision=32-true"
            )

    def validation_step(self, batch: Mapping[str, Any], _: int) -> None:
        self._log_terms("val", self.compute_loss(self.inputs(batch)), len(batch["image"]))

    def _log_terms(self, stage: str, terms: LossTerms, batch_size: int) -> None:
        named = {f"{stage}/{name}": value.detach() for name, value in terms.scalars().items()}
        self.log_dict(named, batch_size=batch_size, sync_dist=True)

    def _show_progress(self, terms: LossTerms, batch_size: int) -> None:
        shown = {"loss": terms.total.detach()}
        for kind, values in (("content", terms.content), ("style", terms.style)):
            if values:
                shown[kind] = torch.stack(list(values.values())).mean().detach()
        now, step = time.perf_counter(), self.trainer.global_step
        if self._clock and step > self._clock[1]:
            images = (step - self._clock[1]) * batch_size * self.trainer.accumulate_grad_batches
            shown["img/s"] = torch.tensor(images * self.trainer.world_size / (now - self._clock[0]))
            self.log("train/images_per_second", shown["img/s"])
        self._clock = (now, step)
        self.log_dict(shown, batch_size=batch_size, prog_bar=True, logger=False)
        self.log("train/learning_rate", self.lr_schedulers().get_last_lr()[0])  # type: ignore[union-attr]

    def configure_optimizers(self) -> Any:
        fused = self.device.type in ("cuda", "cpu")
        optimizer: torch.optim.Optimizer
        if self.optimizer_name == "muon":
            optimizer = Muon(self.network.parameters(), lr=self.learning_rate)
        else:
            optimizer = torch.optim.Adam(self.network.parameters(), lr=self.learning_rate, fused=fused)

        def rate(step: int) -> float:
            rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
            if self.schedule == "none":
                return rise
            return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self.steps))))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["style_targets"] = {layer: target.cpu() for layer, target in self.style_targets.items()}
        checkpoint["normalizers"] = dict(self.loss.normalizers)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.style_targets = checkpoint["style_targets"]
        self.loss.normalizers = dict(checkpoint["normalizers"])


class StyleTask(Task):
    """Train a network for one style (Johnson, Alahi, Fei-Fei 2016, § 3).

    Args:
        network: image in, image of the same size out.
        loss: compares the output with the photograph and the style.
        style_targets: from ``loss.style_targets(painting)``.
        style_samples: positions per layer that a sliced style term takes in training; None: all. Validation takes all.
        checkerboard_weight: of ``losses.checkerboard_loss`` in what is minimised. It is no part of the
            style's loss, by which results are compared with the slow mode, whose pixels need none.
        optimizer, learning_rate, schedule, warmup, options: as in ``Task``, whose defaults are the paper's.
    """

    kind = "style"

    def __init__(
        self,
        network: nn.Module,
        loss: PerceptualLoss,
        style_targets: Mapping[str, Tensor],
        style_samples: int | None = 8192,
        checkerboard_weight: float = 1000.0,
        optimizer: str = "muon",
        learning_rate: float = 3e-3,
        schedule: str = "cosine",
        warmup: int = 50,
        **options: Any,
    ) -> None:
        super().__init__(network, loss, learning_rate, schedule, warmup, optimizer=optimizer, **options)
        if hasattr(network, "scale"):
            raise ValueError(
                f"the network is a {type(network).__name__}, which enlarges; a style takes one that keeps the size, "
                "such as network=resnet"
            )
        self.style_targets = {layer: target.detach() for layer, target in style_targets.items()}
        if style_samples is not None and style_samples < 1:
            raise ValueError(f"style_samples is {style_samples}; expected at least 1, or null for all positions")
        self.style_samples = style_samples
        self.checkerboard_weight = _weight(checkerboard_weight)

    def compute_loss(self, inputs: Tensor, network: nn.Module | None = None, regularized: bool = False) -> LossTerms:
        photographs = inputs.contiguous(memory_format=torch.channels_last)
        content = self.loss.content_targets(photographs, self.style_targets)
        output = (network or self.network)(photographs)
        samples = self.style_samples if regularized else None
        terms: LossTerms = self.loss(output, content=content, style=self.style_targets, samples=samples)
        if regularized and self.checkerboard_weight:
            terms.total = terms.total + self.checkerboard_weight * checkerboard_loss(output)
        return terms

    def show(self, photograph: Tensor, network: nn.Module) -> Tensor:
        return network(photograph)  # type: ignore[no-any-return]


class SuperResTask(Task):
    """Train a network to undo a reduction, by features or by pixels (Johnson, Alahi, Fei-Fei 2016, § 4.2).

    Args:
        network: ``networks.superres.SuperResNet``.
        loss: compares the enlarged picture with the photograph: content layers, or pixels.
        blur: of the reduction, a standard deviation in pixels of the photograph; the paper's is 1.
        checkerboard_weight: of ``losses.checkerboard_loss`` of what is wrong, in what is minimised: features
            hardly see the checkerboard artifacts that the paper's results have.
        random_rotation: minimise the loss of both pictures turned by the same random angle and enlarged, anew in each
            step. A weave that features do not see as it is they see then (as Olah, Mordvintsev, Schubert
            2017, "Feature visualization", do against such patterns).
        options: as in ``Task``.
    """

    kind = "superres"

    def __init__(
        self,
        network: nn.Module,
        loss: PerceptualLoss,
        blur: float = 1.0,
        checkerboard_weight: float = 150.0,
        random_rotation: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(network, loss, **options)
        self.checkerboard_weight, self.random_rotation = _weight(checkerboard_weight), random_rotation
        if not 0 <= blur < math.inf:
            raise ValueError(f"blur is {blur}; expected a number ≥ 0")
        if not isinstance(getattr(network, "scale", None), int):
            raise ValueError(
                f"the network is a {type(network).__name__}; super-resolution takes one that enlarges: "
                "network=superres_x4 or superres_x8"
            )
        self.blur = blur
        self.scale: int = network.scale  # type: ignore[assignment]

    def check_crops(self, size: int) -> None:
        least = MIN_SIDE * self.scale
        if size < least or size % self.scale:
            raise ValueError(f"data.size is {size}; expected a multiple of {self.scale} of at least {least}")

    def inputs(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Photographs (B, 3, H, W), and how to turn them this time: an affine map (2, 3), or None."""
        if not self.random_rotation:
            return batch["image"], None
        step = self.trainer.global_step if self._trainer is not None else 0
        return batch["image"], random_rotation_map(step).to(batch["image"])

    def compute_loss(
        self, inputs: tuple[Tensor, Tensor | None], network: nn.Module | None = None, regularized: bool = False
    ) -> LossTerms:
        photographs, turn = inputs
        photographs = photographs.contiguous(memory_format=torch.channels_last)
        output = (network or self.network)(reduce(photographs, self.scale, self.blur))
        judged, wanted = output, photographs
        if regularized and turn is not None:
            judged, wanted = rotated(output, turn), rotated(photographs, turn)
        terms: LossTerms = self.loss(judged, content=self.loss.content_targets(wanted), pixels=wanted)
        if regularized and self.checkerboard_weight:
            terms.total = terms.total + self.checkerboard_weight * checkerboard_loss(output - photographs)
        return terms

    def show(self, photograph: Tensor, network: nn.Module) -> Tensor:
        return network(reduce(photograph, self.scale, self.blur))  # type: ignore[no-any-return]


def random_rotation_map(step: int) -> Tensor:
    """An affine map (2, 3), as ``rotated`` takes it: by any angle, enlarged by 1 to 1.3 times what keeps within.

    The step decides, so that it is the same on all ranks and in a run that goes on.
    """
    angle, zoom = np.random.default_rng((4, step)).random(2).tolist()
    cos, sin = math.cos(2 * math.pi * angle), math.sin(2 * math.pi * angle)
    scale = 1 / ((1 + 0.3 * zoom) * (abs(cos) + abs(sin)))
    return torch.tensor([[scale * cos, -scale * sin, 0.0], [scale * sin, scale * cos, 0.0]])


def rotated(image: Tensor, turn: Tensor) -> Tensor:
    """A square image (B, C, S, S) seen through an affine map (2, 3) of places, -1 to 1 along each side; bilinear."""
    image = image if image.dtype == torch.float64 else image.float()
    grid = F.affine_grid(turn.to(image).expand(len(image), 2, 3), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


class InverseTask(Task):
    """Train a network to make pictures of swapped features, whatever the style (Chen & Schmidt 2016, § 4.2).

    Each step decodes the features of photographs, those of style pictures, and the swap of every photograph
    with every style; the features of what comes out are to be those that went in.

    Args:
        network: ``networks.styleswap.InverseNet``, with as many channels as the encoder's layer.
        loss: of one content layer, at which patches are swapped.
        patch, stride: of the swap.
        pixel_weight: of the mean squared difference to the photographs and style pictures, of those features that
            are of one picture alone, in what is minimised. Features leave colours to find; this finds them soon.
        options: as in ``Task``.
    """

    kind = "swap"

    def __init__(
        self,
        network: nn.Module,
        loss: PerceptualLoss,
        patch: int = 3,
        stride: int = 1,
        pixel_weight: float = 5.0,
        **options: Any,
    ) -> None:
        super().__init__(network, loss, **options)
        check_patch(patch, stride)
        self.pixel_weight = _weight(pixel_weight, "pixel_weight")
        if loss.encoder is None or len(loss.content_layers) != 1 or loss.style_layers:
            raise ValueError("style swap is trained with a loss of one content layer alone, such as loss=inverse")
        if not isinstance(network, InverseNet):
            raise ValueError(f"the network is a {type(network).__name__}; style swap takes network=inverse")
        (self.layer,) = loss.content_layers
        StyleSwap(loss.encoder, network, self.layer)  # refuses what does not fit
        self.patch, self.stride = patch, stride
        self._style: Tensor | None = None

    def check_crops(self, size: int) -> None:
        least = max(MIN_SIDE, 4 * self.patch)
        if size < least or size % 4:
            raise ValueError(f"data.size is {size}; expected a multiple of 4 of at least {least}")

    @torch.no_grad()
    def inputs(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Features (2 B + B², C, H / 4, W / 4) of photographs, styles and all their swaps; the 2 B pictures."""
        photographs, styles = batch["image"], batch["style"]
        self._style = styles[:1]
        content, style = self._encode(photographs), self._encode(styles)
        count = len(content)
        swapped = swap(content.repeat_interleave(len(style), 0), style.repeat(count, 1, 1, 1), self.patch, self.stride)
        return torch.cat([content, style, swapped]), torch.cat([photographs, styles])

    def _encode(self, image: Tensor) -> Tensor:
        assert self.loss.encoder is not None
        return self.loss.encoder(image, [self.layer])[self.layer]

    def compute_loss(
        self, inputs: tuple[Tensor, Tensor], network: nn.Module | None = None, regularized: bool = False
    ) -> LossTerms:
        """Judge what is made of features (N, C, h, w) by its own; of the first, the pictures (M, 3, H, W) are known."""
        features, pictures = inputs
        output = (network or self.network)(features)
        terms: LossTerms = self.loss(output, content={self.layer: features})
        if regularized and self.pixel_weight:
            terms.total = terms.total + self.pixel_weight * pixel_loss(output[: len(pictures)], pictures)
        return terms

    def show(self, photograph: Tensor, network: nn.Module) -> Tensor:
        """In the style of the last batch."""
        style = photograph if self._style is None else self._style.to(photograph)
        features = swap(self._encode(photograph), self._encode(style), self.patch, self.stride)
        return network(features)  # type: ignore[no-any-return]

    def exported(self) -> tuple[Mapping[str, Tensor] | None, dict[str, Any]]:
        assert self.loss.encoder is not None
        weights, told = truncated_encoder(self.loss.encoder, self.layer)
        return weights, {"encoder": told}
