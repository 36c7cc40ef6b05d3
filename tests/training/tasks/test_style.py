"""A training step of a style: what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fststyle.losses import LossTerms
from fststyle.training.tasks import base
from steps import LOSSES, make, pictures, train

#: Lightning's advice on loaders, loggers and modules in evaluation mode.
pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:pytorch_lightning", "ignore:.*LeafSpec.*")


#: Totals of three steps, and the terms before them, recorded when the first styles were trained.
GOLDEN: dict[str, Any] = {
    "johnson": {
        "terms": {
            "total": 357.656,
            "content/relu2_2": 5.659235,
            "style/relu1_2": 1.988974,
            "style/relu2_2": 43.58181,
            "style/relu3_3": 23.87485,
            "style/relu4_3": 0.948559,
            "tv": 25.79422,
        },
        "totals": [357.656, 403.4397, 25.94667],
    },
    "balanced": {
        "terms": {
            "total": 18.08179,
            "content/relu2_2": 1.107802,
            "content/relu3_3": 1.472133,
            "style/relu1_2": 1.409748,
            "style/relu2_2": 4.655685,
            "style/relu3_3": 3.917012,
            "style/relu4_3": 3.37815,
        },
        "totals": [18.08179, 42.60839, 3.652471],
    },
}


@pytest.mark.parametrize("loss", LOSSES)
def test_three_steps_give_the_recorded_losses(loss: str) -> None:
    """Nothing says that these values are right; but should they change, the arithmetic of training did."""
    task = make(loss, learning_rate=1e-2)
    photographs = pictures(2, 0.0)
    terms = {name: float(value.detach()) for name, value in task.compute_loss(photographs).scalars().items()}
    assert terms == pytest.approx(GOLDEN[loss]["terms"], rel=1e-4)
    assert train(task, photographs, 3) == pytest.approx(GOLDEN[loss]["totals"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not base._has_compiler("cpu"), reason="no C++ compiler")
def test_compiled_steps_give_the_recorded_losses() -> None:
    task = make("balanced", learning_rate=1e-2, compile=True)
    found = train(task, pictures(2, 0.0), 3)
    assert hasattr(task._compiled, "_torchdynamo_orig_callable")
    assert found == pytest.approx(GOLDEN["balanced"]["totals"], rel=1e-3)


def test_steps_in_low_precision_stay_close() -> None:
    kinds = (None, torch.bfloat16)
    full, low = (train(make("balanced", learning_rate=1e-3), pictures(2, 0.0), 3, kind) for kind in kinds)
    assert low != full
    assert low == pytest.approx(full, rel=0.02)


@pytest.mark.parametrize("loss", LOSSES)
def test_twenty_steps_on_one_batch_lower_its_loss(loss: str) -> None:
    totals = train(make(loss, learning_rate=1e-2), pictures(2, 0.0), 20)
    assert totals[-1] < 0.7 * totals[0]


def test_a_batch_costs_the_mean_of_its_photographs() -> None:
    task = make()
    photographs = pictures(4, 0.0)
    alone = [float(task.compute_loss(photograph[None]).total.detach()) for photograph in photographs]
    assert float(task.compute_loss(photographs).total.detach()) == pytest.approx(sum(alone) / 4, rel=1e-5)


def test_gradients_reach_every_weight_of_the_network_and_nothing_else() -> None:
    task = make()
    task.compute_loss(pictures(2, 0.0)).total.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights_of(task.network))
    assert [name for name, _ in task.named_parameters() if not name.startswith("network.")] == []
    assert not any(value.requires_grad for value in task.loss.encoder.weights().values())


def weights_of(network: nn.Module) -> Iterator[Tensor]:
    """But for biases in front of an instance norm, which takes any constant away again."""
    for name, weight in network.named_parameters():
        if not name.endswith("conv.bias") or name == "decode.2.conv.bias":
            yield weight


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_samples": 0}, "style_samples is 0; expected at least 1, or null"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; expected adam or muon"),
    ],
)
def test_what_a_style_task_cannot_use_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_training_samples_positions_and_validation_takes_all() -> None:
    task = make(style_samples=7)
    asked: list[int | None] = []

    def compute_loss(*_: Any, samples: int | None = None, **__: Any) -> LossTerms:
        asked.append(samples)
        return LossTerms(total=torch.zeros(()))

    task.loss.forward = compute_loss  # type: ignore[method-assign]
    task.compute_loss(pictures(2, 1.0), regularized=True)
    task.compute_loss(pictures(2, 1.0))
    assert asked == [7, None]


def test_two_steps_of_three_are_from_coarse_to_fine() -> None:
    task, photographs = make(octaves=2), pictures(2, 0.0)
    sizes: list[int] = []
    task.network.register_forward_hook(lambda _, images, __: sizes.append(images[0].shape[-1]))
    for step, expected in enumerate([[32], [16, 32], [16, 32], [32]]):
        task._trainer = SimpleNamespace(global_step=step)  # type: ignore[assignment]
        sizes.clear()
        task.compute_loss(photographs, regularized=True)
        assert sizes == expected
    task._trainer = None
    sizes.clear()
    task.compute_loss(photographs)  # as held-out photographs are judged
    assert sizes == [16, 32]
    assert task.exported()[1] == {"octaves": 2, "variation": {"amount": 0.1, "width": 10}}
    assert make(octaves=1).exported()[1] == {"octaves": 1}  # a network as the papers train it is applied so


def test_octaves_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="octaves is 0; expected a whole number from 1"):
        make(octaves=0)
