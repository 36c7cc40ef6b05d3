"""One loop for every objective: an image's pixels as parameters, lowered by L-BFGS or Adam.

One iteration is one evaluation of objective and gradient, for either optimizer, so that counts can be
compared with each other and with the papers'. The image of the lowest total met is the result.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fststyle.images import write_atomically
from fststyle.losses import LossTerms
from fststyle.resources import working

#: An image (1, 3, H, W) in [0, 1] to what it costs.
Objective = Callable[[Tensor], LossTerms]
OptimizerName = Literal["lbfgs", "adam"]
#: How far L-BFGS moves a value on average in its very first step, when it knows no curvature yet. torch divides
#: that step by the gradient's sum of magnitudes, which leaves next to nothing of it for a picture.
FIRST_STEP = 0.01
#: L-BFGS searches no line, so a bad estimate of the curvature can throw the picture far away. When the
#: objective is ASTRAY times the lowest met, or the step is not finite, the estimate is forgotten, the best picture
#: taken up again, and its first step is CALMER times the one before. Rises of less than that mend themselves.
ASTRAY = 100.0
CALMER = 0.1


class NonFiniteError(RuntimeError):
    """The objective became NaN or infinite; ``optimization`` holds the best image until then."""

    def __init__(self, message: str, optimization: Optimization) -> None:
        super().__init__(message)
        self.optimization = optimization


@dataclass
class Progress:
    """What a callback gets: the image just evaluated, before the step that follows from it.

    ``iteration`` counts from 1; ``image`` (1, 3, H, W) in [0, 1] must be copied to be kept;
    ``terms`` by the names of ``LossTerms.scalars``; ``seconds`` since the start, callbacks left out.
    """

    iteration: int
    image: Tensor
    terms: dict[str, float]
    seconds: float


@dataclass
class Optimization:
    """A run's result, and all that goes on from there (``optimize(…, resume=…)``).

    ``image`` is the best, ``pixels`` the present one; ``trace`` has one row per iteration:
    ``iteration``, ``seconds`` and every term; ``stopped`` says why the run ended: ``done``,
    ``converged``, ``callback`` or ``interrupted``; ``scale`` multiplies the gradient; ``first_step`` is how
    far L-BFGS moves a value on average when it next starts without an estimate of the curvature.
    """

    image: Tensor
    pixels: Tensor
    best: float = math.inf
    iteration: int = 0
    seconds: float = 0.0
    stopped: str = "done"
    scale: float = 0.0
    first_step: float = FIRST_STEP
    optimizer: dict[str, Any] = field(default_factory=dict)
    trace: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a temporary file, then move it into place."""
        write_atomically(path, lambda file: torch.save(vars(self), file))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Optimization:
        """Read a state that ``save`` wrote (tensors and plain values only, nothing is unpickled).

        Raises:
            ValueError: no such file, or not such a state.
        """
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file; expected the state of an interrupted optimisation")
        try:
            return cls(**torch.load(path, "cpu", weights_only=True))
        except Exception as error:  # torch raises many kinds on foreign bytes
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
            raise ValueError(f"{path}: is not the state of an optimisation ({reason}); give another output") from None


def optimize(
    start: Tensor,
    objective: Objective,
    iterations: int = 500,
    optimizer: OptimizerName = "lbfgs",
    learning_rate: float | None = None,
    bounds: tuple[float | Tensor, float | Tensor] = (0.0, 1.0),
    history: int = 20,
    tolerance: float = 0.0,
    callback: Callable[[Progress], object] | None = None,
    save: tuple[str | os.PathLike[str], int] | None = None,
    resume: Optimization | None = None,
) -> Optimization:
    """Lower an objective by changing the pixels of an image.

    Args:
        start: (1, 3, H, W) in [0, 1]; it is not changed.
        objective: image to ``LossTerms``; its ``total`` is lowered.
        iterations: evaluations of objective and gradient in all, those of ``resume`` included.
        optimizer: ``lbfgs`` (torch's, Gatys et al.) or ``adam``.
        learning_rate: by default 1 for L-BFGS and 0.02 for Adam.
        bounds: pixels are clamped between these at each evaluation; numbers, or one value per channel (1, 3, 1, 1).
        history: corrections that L-BFGS keeps; each takes twice the image's memory.
        tolerance: stop when 20 iterations together have lowered the best total by less than this share; 0: never.
        callback: called at every iteration; returning False stops the run.
        save: a file for the state, and every how many iterations it is written.
        resume: the state to go on from, in place of ``start``.

    Returns:
        The best image and everything that goes on from here. Ctrl-C ends the run after the iteration,
        with ``stopped`` = ``interrupted``.

    Raises:
        ValueError: unknown optimizer, no iterations, a start of another shape.
        RuntimeError: an error after the first iteration.
        NonFiniteError: the total is NaN or infinite; the message names the term.
    """
    if optimizer not in ("lbfgs", "adam"):
        raise ValueError(f"optimizer is {optimizer!r}; expected lbfgs or adam")
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; expected at least 1")
    if start.dim() != 4 or start.shape[:2] != (1, 3):
        raise ValueError(f"the start has the shape {tuple(start.shape)}; expected (1, 3, H, W)")
    if resume is not None and resume.pixels.shape != start.shape:
        raise ValueError(f"the saved image is {tuple(resume.pixels.shape)}; expected {tuple(start.shape)} as the start")
    run = resume or Optimization(image=start.detach().clone(), pixels=start.detach().clone())
    pixels = run.pixels.to(start.device).clone(memory_format=torch.contiguous_format).requires_grad_()
    rate = learning_rate if learning_rate is not None else {"lbfgs": 1.0, "adam": 0.02}[optimizer]
    stepper = _stepper(optimizer, pixels, rate, history)
    if run.optimizer:
        stepper.load_state_dict(run.optimizer)
    run.stopped = "done"
    clock = time.perf_counter()

    def evaluate() -> Tensor:
        nonlocal clock
        with torch.no_grad():
            pixels.clamp_(*bounds)  # type: ignore[arg-type]
        pixels.grad = None
        terms = objective(pixels)
        terms.total.backward()  # type: ignore[no-untyped-call]
        gradient = pixels.grad
        assert gradient is not None
        row = dict(zip(terms.scalars(), torch.stack([*terms.scalars().values()]).tolist(), strict=True))
        run.iteration += 1
        run.seconds += time.perf_counter() - clock
        if not math.isfinite(row["total"]) or not bool(torch.isfinite(gradient).all()):
            raise NonFiniteError(_which(row, run.iteration), run)
        run.trace.append({"iteration": run.iteration, "seconds": run.seconds, **row})
        # L-BFGS has absolute thresholds: the first gradient sets a scale in which its mean magnitude is 1.
        run.scale = run.scale or 1 / max(float(gradient.abs().mean()), 1e-30)
        gradient.mul_(run.scale)
        if row["total"] < run.best:
            run.best, run.image = row["total"], pixels.detach().clone()
        if callback and callback(Progress(run.iteration, pixels.detach(), row, run.seconds)) is False:
            run.stopped = "callback"
        clock = time.perf_counter()
        return terms.total.detach()

    with working("the optimisation", lambda: run.trace), _interruptible() as interrupted:
        while run.iteration < iterations and run.stopped == "done":
            if optimizer == "lbfgs":
                stepper.param_groups[0]["lr"] = rate if stepper.state else run.first_step * pixels.numel()
            stepper.step(evaluate)  # type: ignore[arg-type]
            if optimizer == "lbfgs" and (run.trace[-1]["total"] > ASTRAY * run.best or not pixels.isfinite().all()):
                stepper = _stepper(optimizer, pixels, rate, history)
                run.first_step *= CALMER
                with torch.no_grad():
                    pixels.copy_(run.image)
            if tolerance and _stalled(run.trace, tolerance):
                run.stopped = "converged"
            if interrupted() and run.iteration < iterations:
                run.stopped = "interrupted"
            run.pixels, run.optimizer = pixels.detach(), stepper.state_dict()
            if save and run.iteration % save[1] == 0:
                run.save(save[0])
    run.pixels = run.pixels.clone()
    return run


def _stepper(name: OptimizerName, pixels: Tensor, rate: float, history: int) -> torch.optim.Optimizer:
    if name == "adam":
        return torch.optim.Adam([pixels], lr=rate)
    # One iteration a call and no line search: exactly one evaluation; the curvature is kept between calls.
    return torch.optim.LBFGS([pixels], lr=rate, max_iter=1, history_size=history, tolerance_grad=0, tolerance_change=0)


def _which(row: Mapping[str, float], iteration: int) -> str:
    guilty = [name for name, value in row.items() if name != "total" and not math.isfinite(value)]
    what = f"the term {guilty[0]} is {row[guilty[0]]}" if guilty else "the objective or its gradient is not finite"
    return f"stopped at iteration {iteration}: {what}; the best picture until then is kept"


def _stalled(trace: list[dict[str, float]], tolerance: float, window: int = 20) -> bool:
    if len(trace) <= 2 * window:
        return False
    before = min(row["total"] for row in trace[:-window])
    return min(row["total"] for row in trace) > before * (1 - tolerance)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into an answer; the second interrupts as usual."""
    caught: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def remember(*_: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(True)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(caught)
    finally:
        signal.signal(signal.SIGINT, before)
