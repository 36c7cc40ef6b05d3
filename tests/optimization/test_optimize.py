"""The one loop: what an iteration is, what is kept, how it ends, and that it goes on as if nothing had happened."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fststyle.encoders.vgg import VGGEncoder
from fststyle.losses import LossTerms, PerceptualLoss
from fststyle.optimization import NonFiniteError, Optimization, Progress, optimize
from fststyle.optimization.recipes import transfer


def picture(seed: int = 0, size: int = 12) -> Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


#: A convex objective whose minimum lies inside the bounds, badly scaled on purpose.
WEIGHTS = torch.logspace(-1, 2, 3 * 12 * 12).view(1, 3, 12, 12)


def bowl(image: Tensor, target: Tensor | None = None) -> LossTerms:
    distance = (WEIGHTS * (image - (picture(9) if target is None else target)).square()).sum()
    return LossTerms(total=distance, tv=distance.detach() * 2)


@pytest.mark.parametrize(("optimizer", "share"), [("lbfgs", 1e-4), ("adam", 0.2)])
def test_it_lowers_the_objective(optimizer: Any, share: float) -> None:
    result = optimize(picture(), bowl, 100, optimizer)
    assert result.best < share * result.trace[0]["total"]
    assert result.stopped == "done"
    assert result.best == pytest.approx(float(bowl(result.image).total), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_an_iteration_is_one_evaluation(optimizer: Any) -> None:
    evaluated = []

    def objective(image: Tensor) -> LossTerms:
        evaluated.append(image.detach().clone())
        return bowl(image)

    told: list[Progress] = []
    start = picture()
    result = optimize(start, objective, 7, optimizer, callback=told.append)
    assert len(evaluated) == result.iteration == len(result.trace) == len(told) == 7
    assert [progress.iteration for progress in told] == list(range(1, 8))
    assert torch.equal(evaluated[0], start)
    assert torch.equal(start, picture()), "the start was changed"
    assert result.trace[0]["total"] == pytest.approx(float(bowl(start).total))
    assert result.trace[0]["tv"] == pytest.approx(2 * result.trace[0]["total"])
    seconds = [row["seconds"] for row in result.trace]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_pixels_stay_within_their_bounds(optimizer: Any) -> None:
    outside = torch.full((1, 3, 12, 12), 2.0)
    seen = []
    result = optimize(
        picture(), lambda x: bowl(x, outside), 90, optimizer, callback=lambda p: seen.append(p.image.max())
    )
    assert max(seen) <= 1
    torch.testing.assert_close(result.image, torch.ones(1, 3, 12, 12), atol=0.02, rtol=0)
    low, high = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1), torch.tensor([0.4, 0.6, 0.8]).view(1, 3, 1, 1)
    bounded = optimize(picture(), lambda x: bowl(x, outside), 90, optimizer, bounds=(low, high)).image
    torch.testing.assert_close(bounded, high.expand_as(bounded), atol=0.02, rtol=0)


def test_the_scale_of_the_objective_does_not_matter() -> None:
    """L-BFGS as torch has it stops on absolute thresholds; losses here run from 1e-9 to 1e12."""
    results = []
    for scale in (1e-12, 1.0, 1e12):

        def objective(image: Tensor, scale: float = scale) -> LossTerms:
            return LossTerms(total=bowl(image).total * scale)

        results.append(optimize(picture(), objective, 60).image)
    torch.testing.assert_close(results[0], results[1], atol=0.02, rtol=0)
    torch.testing.assert_close(results[2], results[1], atol=0.02, rtol=0)


def test_a_picture_in_any_memory_layout_will_do() -> None:
    assert optimize(picture().permute(0, 1, 3, 2), bowl, 3).iteration == 3
    assert optimize(picture().contiguous(memory_format=torch.channels_last), bowl, 3).iteration == 3


# --- how it ends ----------------------------------------------------------------------------------


def test_a_callback_ends_it() -> None:
    result = optimize(picture(), bowl, 50, callback=lambda progress: progress.iteration < 5)
    assert (result.iteration, result.stopped) == (5, "callback")


def test_it_stops_when_nothing_moves_any_more() -> None:
    flat = LossTerms(total=torch.zeros(()))
    result = optimize(picture(), lambda x: LossTerms(total=flat.total + 1 + 0 * x.sum()), 500, tolerance=1e-3)
    assert result.stopped == "converged"
    assert result.iteration < 100
    assert optimize(picture(), bowl, 45, tolerance=1e-3).iteration == 45, "stopped although it was moving"


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_term_that_is_not_finite_ends_it_with_the_last_sound_picture(optimizer: Any) -> None:
    def objective(image: Tensor) -> LossTerms:
        objective.calls += 1  # type: ignore[attr-defined]
        terms = bowl(image)
        if objective.calls == 6:  # type: ignore[attr-defined]
            terms.style["relu1_2"] = torch.tensor(math.nan)
            terms.total = terms.total + math.nan
        return terms

    objective.calls = 0  # type: ignore[attr-defined]
    with pytest.raises(NonFiniteError, match=r"stopped at iteration 6: the term style/relu1_2 is nan") as caught:
        optimize(picture(), objective, 50, optimizer)
    kept = caught.value.optimization
    assert len(kept.trace) == 5
    assert torch.isfinite(kept.image).all()
    assert kept.best == min(row["total"] for row in kept.trace)


def test_a_gradient_that_is_not_finite_ends_it() -> None:
    with pytest.raises(NonFiniteError, match="its gradient is not finite"):
        optimize(torch.zeros(1, 3, 12, 12), lambda x: LossTerms(total=x.sum().sqrt()), 5)


def test_lbfgs_that_goes_astray_takes_up_the_best_picture_again() -> None:
    """One gradient that hardly differs from the one before makes the curvature look flat: a huge step."""
    evaluated: list[Tensor] = []
    gradients: list[Tensor] = []

    def objective(image: Tensor) -> LossTerms:
        evaluated.append(image.detach().clone())
        watched = image * 1.0
        watched.register_hook(lambda g: gradients.append(g) or (gradients[-2] * 0.999 if len(evaluated) == 30 else g))
        return bowl(watched)

    result = optimize(picture(), objective, 60)
    totals = [row["total"] for row in result.trace]
    astray = [n for n in range(30, 60) if totals[n] > 100 * min(totals[:n])]
    assert astray, "the lie led nowhere: the test tests nothing"
    best = min(range(astray[0]), key=totals.__getitem__)
    assert torch.equal(evaluated[astray[0] + 1], evaluated[best])
    assert result.best < totals[best]


def test_a_step_that_is_not_finite_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    step, steps = torch.optim.LBFGS.step, []

    def broken(self: torch.optim.LBFGS, closure: Any) -> Any:
        result = step(self, closure)
        steps.append(result)
        if len(steps) == 30:
            with torch.no_grad():
                self.param_groups[0]["params"][0][..., 0] = math.nan
        return result

    monkeypatch.setattr(torch.optim.LBFGS, "step", broken)
    result = optimize(picture(), bowl, 60)
    assert result.iteration == 60
    assert result.best < min(row["total"] for row in result.trace[:30])


def test_ctrl_c_ends_it_after_the_iteration() -> None:
    def interrupt(progress: Progress) -> None:
        if progress.iteration == 4:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    result = optimize(picture(), bowl, 50, callback=interrupt)
    assert (result.iteration, result.stopped) == (4, "interrupted")
    assert torch.isfinite(result.image).all()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; expected lbfgs or adam"),
        ({"iterations": 0}, "iterations is 0; expected at least 1"),
        ({"start": torch.rand(3, 12, 12)}, r"shape \(3, 12, 12\); expected \(1, 3, H, W\)"),
        ({"resume": Optimization(picture(), picture(1, 8))}, r"saved image is \(1, 3, 8, 8\)"),
    ],
    ids=["optimizer", "iterations", "shape", "resume"],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimize(**{"start": picture(), "objective": bowl, **settings})


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("cut", [1, 2, 9, 24])
def test_an_interrupted_run_goes_on_as_without_the_break(
    optimizer: Any, cut: int, encoder: VGGEncoder, tmp_path: Path
) -> None:
    """A real objective, cut at several points: the same pictures and the same trace, to the last bit."""
    torch.set_num_threads(1)
    loss = PerceptualLoss(encoder, style_weight=100.0, tv_weight=1e-4)
    objective = transfer(loss, picture(1, 32), picture(2, 32))
    whole = optimize(picture(3, 32), objective, 30, optimizer, history=5)
    part = optimize(picture(3, 32), objective, 30, optimizer, history=5, callback=lambda p: p.iteration < cut)
    assert part.iteration == cut
    part.save(tmp_path / "a.state")
    rest = optimize(picture(3, 32), objective, 30, optimizer, history=5, resume=Optimization.load(tmp_path / "a.state"))
    assert [row["total"] for row in rest.trace] == [row["total"] for row in whole.trace]
    assert torch.equal(rest.image, whole.image)
    assert torch.equal(rest.pixels, whole.pixels)
    assert rest.seconds >= part.seconds


def test_the_state_is_written_now_and_then(tmp_path: Path) -> None:
    state = tmp_path / "a.state"
    optimize(picture(), bowl, 25, save=(state, 10))
    assert Optimization.load(state).iteration == 20


def test_a_file_that_is_no_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        Optimization.load(tmp_path / "missing.state")
    (tmp_path / "a.state").write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not the state of an optimisation"):
        Optimization.load(tmp_path / "a.state")
