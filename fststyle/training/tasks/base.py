"""The training loop that all tasks share: the step, the optimizer, what is logged and saved."""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from fststyle.losses import LossTerms, PerceptualLoss
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


def check_weight(weight: float, name: str = "checkerboard_weight") -> float:
    if not 0 <= weight < math.inf:
        raise ValueError(f"{name} is {weight}; expected a number ≥ 0")
    return weight


def _moved(value: Any, device: Any) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


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
    #: Whether the network's convolutions are those of another file, and stay so.
    norms_only = False
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
        #: What the objective and the order of samples depend on, by name; checkpoints hold it.
        self.settings: dict[str, Any] = {}
        #: Whether the loss stays as it was built, whatever a checkpoint was begun with.
        self.keeps_objective = False
        self._compiled: Callable[..., LossTerms] | None = None
        self._clock: tuple[float, int] | None = None
        # Steps left out for a gradient that is not finite, in all and since the last good one; on the
        # device, so that no step waits to know.
        self.register_buffer("skipped", torch.zeros(2), persistent=False)
        self._reported = 0

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

    def by_style(self, network: nn.Module) -> dict[str, nn.Module]:
        """A network for each style of one for several, by name; else the network itself, under an empty name."""
        return {"": network}

    def finalize(self, network: nn.Module, photographs: Tensor) -> nn.Module | None:
        """What to export instead of a copy of the trained network, which may be changed; None: the copy as it is.

        Args:
            photographs: held out, (B, 3, H, W).
        """
        return None

    def parts(self, batch: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """A batch divided by the styles of its photographs, with their names."""
        yield "", batch

    def observe(self, batch: Mapping[str, Any], terms: LossTerms, logged: bool) -> None:
        """See what each training step has made of a batch; ``logged`` where figures are to be logged now."""

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
        self.loss.normalizers = {name: _moved(value, self.device) for name, value in self.loss.normalizers.items()}
        self.loss.style_factors = _moved(self.loss.style_factors, self.device)

    def training_step(self, batch: Mapping[str, Any], _: int) -> Tensor:
        terms = self.objective(self.inputs(batch))
        step, every = self.trainer.global_step, self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        logged = step == 0 or (step + 1) % every == 0  # at 0 for the progress bar, then when Lightning asks the loggers
        self.observe(batch, terms, logged)
        if logged:
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
        if total > self._reported:
            self._reported = total
            log.warning("steps left out so far, because their gradients were not finite: %d", total)
        if in_a_row >= MAX_SKIPPED:
            raise NonFiniteError(
                f"the gradients of the last {in_a_row} steps were not finite; use a lower task.learning_rate, or "
                "trainer.precision=32-true"
            )

    def validation_step(self, batch: Mapping[str, Any], _: int) -> None:
        for name, part in self.parts(batch):
            terms, count = self.compute_loss(self.inputs(part)), len(part["image"])
            self._log_terms("val", terms, count)
            if name and terms.by_image is not None:
                self.log(f"val/styles/{name}", terms.by_image.mean(), batch_size=count, sync_dist=True)

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
        """The optimizer of the weights that are trained, and the schedule of its learning rate, by step."""
        fused = self.device.type in ("cuda", "cpu")
        optimizer: torch.optim.Optimizer
        trained = [weight for weight in self.network.parameters() if weight.requires_grad]
        if self.optimizer_name == "muon":
            optimizer = Muon(trained, lr=self.learning_rate)
        else:
            optimizer = torch.optim.Adam(trained, lr=self.learning_rate, fused=fused)

        def rate(step: int) -> float:
            rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
            if self.schedule == "none":
                return rise
            return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self.steps))))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["style_targets"] = {layer: target.cpu() for layer, target in self.style_targets.items()}
        checkpoint["normalizers"] = {name: _moved(value, "cpu") for name, value in self.loss.normalizers.items()}
        checkpoint["settings"] = dict(self.settings)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if not self.keeps_objective:
            self.style_targets = checkpoint["style_targets"]
            self.loss.normalizers = dict(checkpoint["normalizers"])
        # Lightning would go on at the saved learning rate; another one takes effect with the next step.
        for schedule in checkpoint["lr_schedulers"]:
            schedule["base_lrs"] = [self.learning_rate for _ in schedule["base_lrs"]]
        for group in (group for state in checkpoint["optimizer_states"] for group in state["param_groups"]):
            if group.get("initial_lr", self.learning_rate) != self.learning_rate:
                group["lr"] *= self.learning_rate / group["initial_lr"]
                group["initial_lr"] = self.learning_rate
