"""What happens besides the training steps: averaged weights, previews, examinations, the exported file."""

from __future__ import annotations

import copy
import functools
import logging
import math
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fststyle import diagnostics
from fststyle.images import contact_sheet, save_image, to_pixels
from fststyle.losses import normalizers_of
from fststyle.model_file import StyleEntry, save_model_file
from fststyle.networks.octaves import in_octaves
from fststyle.training.data import UNREADABLE_MINIMUM
from fststyle.training.ranks import agreeing, total
from fststyle.training.signals import Stop, stopped_by
from fststyle.training.sources import DataError
from fststyle.training.thumbnails import thumbnail

log = logging.getLogger(__name__)


class TimedProgressBar(TQDMProgressBar):
    """Lightning's progress bar without an estimate, for a run that a time ends before its steps do."""

    @property
    def total_train_batches(self) -> float:
        return math.inf


class AverageWeights(Callback):
    """An exponential moving average of the network's weights, which is validated and exported.

    Lightning's ``EMAWeightAveraging`` averages the whole module, and would hold and save the loss network twice.

    Args:
        decay: share of the old average that stays at each step.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"the decay of the moving average is {decay}; expected between 0 and 1")
        self.decay = decay
        self.average: AveragedModel | None = None
        self._state: Mapping[str, Any] | None = None

    def on_fit_start(self, _: pl.Trainer, task: pl.LightningModule) -> None:
        network: nn.Module = task.network  # type: ignore[assignment]
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(self.decay))
        if self._state is not None:
            self.average.load_state_dict(self._state)

    def on_train_batch_end(self, trainer: pl.Trainer, task: pl.LightningModule, *_: Any) -> None:
        assert self.average is not None
        # Early weights are far off; let the average forget them: at step n it looks back n/10 steps at most.
        step = trainer.global_step
        decay = min(self.decay, (1 + step) / (10 + step))
        self.average.multi_avg_fn = get_ema_multi_avg_fn(decay)
        self.average.update_parameters(task.network)  # type: ignore[arg-type]

    def on_validation_start(self, _: pl.Trainer, task: pl.LightningModule) -> None:
        self._swap(task)

    def on_validation_end(self, _: pl.Trainer, task: pl.LightningModule) -> None:
        self._swap(task)

    def _swap(self, task: pl.LightningModule) -> None:
        assert self.average is not None
        with torch.no_grad():
            pairs = zip(task.network.parameters(), self.average.module.parameters(), strict=True)  # type: ignore[union-attr]
            for weight, average in pairs:
                weight_now = weight.detach().clone()
                weight.copy_(average)
                average.copy_(weight_now)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.average is None else {"average": self.average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state.get("average")


def trained_network(trainer: pl.Trainer, task: pl.LightningModule) -> nn.Module:
    """The network to show and export: the averaged one, where the trainer has an ``AverageWeights``."""
    averages = (callback.average for callback in trainer.callbacks if isinstance(callback, AverageWeights))  # type: ignore[attr-defined]
    network: Any = next((average.module for average in averages if average is not None), task.network)
    return network


@contextmanager
def evaluating(network: nn.Module) -> Iterator[nn.Module]:
    """The network in evaluation mode, and afterwards in the mode that it was in."""
    training = network.training
    network.eval()
    try:
        yield network
    finally:
        network.train(training)


class CountUnreadable(Callback):
    """Name each picture that cannot be read once; stop, on all ranks, when more than a share of them are unreadable.

    Args:
        max_share: of the pictures met so far, by all ranks together.
    """

    def __init__(self, max_share: float = 0.05) -> None:
        self.max_share = max_share
        self.named: set[str] = set()
        self.met = self.seen = 0

    def on_train_batch_start(self, trainer: pl.Trainer, task: pl.LightningModule, batch: Any, _: int) -> None:
        self.seen += len(batch["image"]) + len(batch["unreadable"])
        self.met += len(batch["unreadable"])
        for message in batch["unreadable"]:
            if message not in self.named:
                self.named.add(message)
                log.warning("skipped, cannot be read (%d so far): %s", len(self.named), message)
        if not agreeing(trainer):
            return
        met, seen = total(trainer, [self.met, self.seen])
        if met >= UNREADABLE_MINIMUM and met > self.max_share * seen:
            last = f"; the last: {batch['unreadable'][-1]}" if batch["unreadable"] else ""
            raise DataError(
                f"{met} of the first {seen} pictures cannot be read, more than data.max_unreadable="
                f"{self.max_share:g} allows{last}"
            )


class Previews(Callback):
    """Show what becomes of fixed photographs now and then: a PNG each time, and in TensorBoard.

    Args:
        folder: for ``step_00000500.png``: photographs above, results below, of several styles a row each.
        every: steps between two previews.
        count: held-out photographs of the data module to show.
        images: (N, 3, H, W), to show instead.
    """

    def __init__(
        self, folder: str | os.PathLike[str], every: int = 500, count: int = 4, images: Tensor | None = None
    ) -> None:
        if count < 0:
            raise ValueError(f"previews are asked of {count} photographs; expected at least 0")
        self.folder, self.every, self.count = Path(folder), _steps(every, "previews"), count
        self._given = images
        self.images = torch.zeros(0) if images is None else images
        self.shown = -1

    def on_fit_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        if self._given is None:
            self.images = trainer.datamodule.held_out_images[: self.count]  # type: ignore[attr-defined]

    def on_train_batch_end(self, trainer: pl.Trainer, task: pl.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step == self.shown or not trainer.is_global_zero or not len(self.images):
            return
        if step == 1 or step % self.every == 0 or step == trainer.max_steps:
            self.shown = step
            self.show(trainer, task)

    @torch.no_grad()
    def show(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        rows = [[to_pixels(image) for image in self.images]]
        with evaluating(trained_network(trainer, task)) as network:
            for one in task.by_style(network).values():  # type: ignore[operator]
                rows.append([to_pixels(task.show(image[None].to(task.device), one)) for image in self.images])  # type: ignore[operator]
        sheet = contact_sheet(rows)
        self.folder.mkdir(parents=True, exist_ok=True)
        save_image(sheet, self.folder / f"step_{trainer.global_step:08d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.TensorBoardLogger):
                logger.experiment.add_image("preview", sheet, trainer.global_step, dataformats="HWC")


class Diagnostics(Callback):
    """Score the network on probe pictures now and then; scores are logged, a new fault is named in a warning.

    Args:
        every: steps between two examinations.
        photograph: (3, H, W); the data module's first that is held out, unless one is given. Without any
            nothing is examined.
    """

    def __init__(self, every: int = 500, photograph: Tensor | None = None) -> None:
        self.every, self.photograph = _steps(every, "examinations"), photograph
        self.known: set[str] = set()

    def on_fit_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        if self.photograph is None and len(held_out := trainer.datamodule.held_out_images):  # type: ignore[attr-defined]
            self.photograph = held_out[0]

    def on_train_batch_end(self, trainer: pl.Trainer, task: pl.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every or not trainer.is_global_zero or self.photograph is None:
            return
        known, self.known = self.known, set()
        for style, network in task.by_style(trained_network(trainer, task)).items():  # type: ignore[operator]
            found = self.examine(network, task.device, getattr(task, "octaves", 1))
            at = f"diagnostics/{style}/" if style else "diagnostics/"
            task.log_dict({f"{at}{name}": score for name, score in found.items()}, rank_zero_only=True)
            for fault in diagnostics.faults(found):
                what = f"{style}: {fault.partition(' (')[0]}"
                if what not in known:
                    log.warning("at step %d the network%s makes %s", step, f" for {style}" if style else "", fault)
                self.known.add(what)

    def examine(self, network: nn.Module, device: torch.device, octaves: int = 1) -> dict[str, float]:
        """The network's scores, in evaluation mode, applied in so many octaves; none without a photograph."""
        if self.photograph is None:
            return {}
        with evaluating(network):
            applied = functools.partial(in_octaves, network, octaves=octaves)
            return diagnostics.scores(applied, self.photograph[None].to(device))


class Export(Callback):
    """At the end, unless a signal asked for a checkpoint alone, write a file: the best of the run's last networks.

    Best is the one with the fewest faults, and among those the one of the lowest held-out objective.

    Args:
        path: the ``.safetensors`` file.
        metadata: what is known before; kind, name, steps, pictures, seconds, held-out terms and scores are added.
            Of several styles, ``styles`` maps names to what is known of each.
        dtype: ``float16`` or ``float32``.
        candidates: networks to choose from, the last one included.
        every: steps between two candidates.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, Any] | None = None,
        dtype: str = "float16",
        candidates: int = 4,
        every: int = 500,
    ) -> None:
        if dtype not in ("float16", "float32"):  # said now, not after hours of training
            raise ValueError(f"dtype is {dtype!r}; expected float16 or float32")
        if candidates < 1:
            raise ValueError(f"candidates is {candidates}; expected at least 1")
        self.path, self.metadata, self.dtype = Path(path), dict(metadata or {}), dtype
        self.every = _steps(every, "candidates")
        self.written = False
        #: Seconds that the run took before it was resumed, and when it began or was.
        self.before, self.began = 0.0, time.perf_counter()
        #: Step and weights of the networks that may be exported.
        self.candidates: deque[tuple[int, dict[str, Tensor]]] = deque(maxlen=candidates)

    def on_fit_start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def seconds(self) -> float:
        """How long the run has taken until now, all its parts together."""
        return self.before + time.perf_counter() - self.began

    def on_train_batch_end(self, trainer: pl.Trainer, task: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            self._remember(trainer, task)

    def _remember(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if not self.candidates or self.candidates[-1][0] != trainer.global_step:
            weights = {name: value.cpu().clone() for name, value in trained_network(trainer, task).state_dict().items()}
            self.candidates.append((trainer.global_step, weights))

    def state_dict(self) -> dict[str, Any]:
        return {"candidates": list(self.candidates), "seconds": self.seconds()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.candidates.extend(state.get("candidates", ()))
        self.before = state.get("seconds", 0.0)

    def on_train_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not trainer.global_step or stopped_by(trainer) > Stop.EXPORT:
            return
        self._remember(trainer, task)
        loss: Any = task.loss
        batch = trainer.datamodule.global_batch  # type: ignore[attr-defined]
        network, chosen = self.choose(trainer, task)
        encoder, more = task.exported()  # type: ignore[operator]
        about = {key: value for key, value in self.metadata.items() if key != "styles"}
        entries = self._entries(task, network, chosen.pop("styles", {}))
        shared = {} if entries else {"normalizers": loss.normalizers}  # known once calibrated, or resumed
        metadata = {
            "kind": task.kind,
            "name": self.path.stem,
            **about,
            **more,
            "loss": {**loss.settings, **shared},
            "steps": trainer.global_step,
            "images": trainer.global_step * batch,
            "global_batch": batch,
            "ranks": trainer.world_size,
            "seconds": round(self.seconds()),
            **chosen,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        targets: Any = {} if entries else task.style_targets
        norms_only: Any = task.norms_only
        save_model_file(self.path, network, metadata, targets, self.dtype, encoder, entries, norms_only)
        self.written = True

    def _entries(self, task: Any, network: nn.Module, judged: Mapping[str, Mapping[str, Any]]) -> list[StyleEntry]:
        """What the file holds of each style of several; ``judged`` has held-out terms and scores by name."""
        styles = task.by_style(network) if judged else {}
        entries = []
        for index, (name, one) in enumerate(styles.items()):
            settings = dict(task.loss.settings)
            if task.loss.style_factors is not None:
                settings["style_weight"] *= float(task.loss.style_factors[index])
            known = self.metadata.get("styles", {}).get(name, {})
            about = {**known, **judged[name]}
            about["loss"] = {**settings, "normalizers": normalizers_of(task.loss.normalizers, index)}
            targets = {layer: target[index : index + 1] for layer, target in task.style_targets.items()}
            with evaluating(one):
                entries.append(StyleEntry(name, about, targets, thumbnail(one, task.octaves, task.device)))
        return entries

    def choose(self, trainer: pl.Trainer, task: pl.LightningModule) -> tuple[nn.Module, dict[str, Any]]:
        """The best candidate, and what is recorded of it: ``exported_step``, ``held_out`` and ``diagnostics``."""
        network = copy.deepcopy(trained_network(trainer, task)).eval()
        candidates: list[tuple[tuple[int, float], dict[str, Tensor], dict[str, Any]]] = []
        for step, weights in self.candidates:
            network.load_state_dict(weights)
            about = {"exported_step": step, **evaluation(network, trainer, task)}
            each = about.get("styles", {"": about}).values()
            # Without held-out photographs the last is the best.
            faulty = sum(len(diagnostics.faults(one.get("diagnostics", {}))) for one in each)
            candidates.append(((faulty, about["held_out"].get("total", -step)), weights, about))
        _, weights, about = min(candidates, key=lambda candidate: candidate[0])
        network.load_state_dict(weights)
        images = getattr(trainer.datamodule, "held_out_images", torch.zeros(0))  # type: ignore[attr-defined]
        final = task.finalize(network, images)  # type: ignore[operator]
        if final is not None:
            network, about = final, about | evaluation(final, trainer, task)
        for name, one in about.get("styles", {"": about}).items():
            for fault in diagnostics.faults(one.get("diagnostics", {})):
                log.warning("the exported network%s makes %s", f" for {name}" if name else "", fault)
        return network, about


def evaluation(network: nn.Module, trainer: pl.Trainer, task: Any) -> dict[str, Any]:
    """What a file says of a network: ``held_out`` and ``diagnostics``, or of several styles ``styles`` with those."""
    examiner = next((callback for callback in trainer.callbacks if isinstance(callback, Diagnostics)), None)  # type: ignore[attr-defined]
    terms = held_out_by_style(network, task, trainer.datamodule.val_dataloader())  # type: ignore[attr-defined]
    each: dict[str, dict[str, Any]] = {}
    for name, one in task.by_style(network).items():
        found = examiner.examine(one, task.device, getattr(task, "octaves", 1)) if examiner else {}
        scores = {"diagnostics": {score: round(value, 4) for score, value in found.items()}} if found else {}
        each[name] = {"held_out": terms.get(name, {}), **scores}
    return {"held_out": terms.get("", {})} | each.get("", {"styles": each})


def _steps(every: int, what: str) -> int:
    if every < 1:
        raise ValueError(f"{what} are asked for every {every} steps; expected at least 1")
    return every


@torch.no_grad()
def held_out_by_style(
    network: nn.Module, task: Any, batches: Iterable[Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Every loss term of a network's output, in evaluation mode, as a mean over held-out photographs: of all, under an
    empty name, and of those of each of several styles."""
    sums: dict[str, dict[str, float]] = {}
    counts: dict[str, int] = {}
    with evaluating(network):
        for batch in batches:
            on_device = {
                key: value.to(task.device) if isinstance(value, Tensor) else value for key, value in batch.items()
            }
            for style, part in task.parts(on_device):
                images = len(part["image"])
                terms = task.compute_loss(task.inputs(part), network).scalars()
                for each in {"", style}:
                    summed = sums.setdefault(each, {})
                    for name, value in terms.items():
                        summed[name] = summed.get(name, 0.0) + float(value) * images
                    counts[each] = counts.get(each, 0) + images
    return {
        style: {name: round(value / counts[style], 6) for name, value in summed.items()}
        for style, summed in sums.items()
    }
