"""A training step of super-resolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fststyle.encoders.pretrained import random_weights
from fststyle.encoders.vgg import VGGEncoder
from fststyle.losses import PerceptualLoss, checkerboard_loss
from fststyle.networks.superres import SuperResNet, reduce
from fststyle.networks.transform import TransformNet
from fststyle.training.tasks import StyleTask, SuperResTask, random_rotation_map, rotated
from steps import pictures, train

#: Lightning's advice on loaders, loggers and modules in evaluation mode.
pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:pytorch_lightning", "ignore:.*LeafSpec.*")


def enlarging(loss: str, **options: Any) -> SuperResTask:
    torch.manual_seed(0)
    network = SuperResNet(4, width=6, residual_blocks=1)
    if loss == "pixel":
        compute_loss = PerceptualLoss(None, [], [], content_weight=0, style_weight=0, pixel_weight=1)
    else:
        encoder = VGGEncoder(random_weights("vgg16", widths=(4, 6, 8, 10, 12)), "vgg16")
        compute_loss = PerceptualLoss(encoder, ["relu2_2"], [], style_weight=0)
    return SuperResTask(network, compute_loss, **{"compile": False, "checkerboard_weight": 0.0, **options})


@pytest.mark.parametrize("loss", ["pixel", "feature"])
def test_super_resolution_judges_the_enlarged_against_the_photograph(loss: str) -> None:
    task, photographs = enlarging(loss, blur=0.5), pictures(2, 0.0).repeat(1, 1, 2, 2)
    with torch.no_grad():
        output = task.network(reduce(photographs, 4, 0.5))
        if loss == "pixel":
            expected = (output - photographs).square().mean()
        else:
            assert task.loss.encoder is not None
            found, wanted = (task.loss.encoder(x, ["relu2_2"])["relu2_2"] for x in (output, photographs))
            expected = (found - wanted).square().mean()
        torch.testing.assert_close(task.compute_loss(task.inputs({"image": photographs})).total, expected)


@pytest.mark.parametrize("loss", ["pixel", "feature"])
def test_super_resolution_is_learned(loss: str) -> None:
    task = enlarging(loss, learning_rate=3e-3)
    totals = train(task, task.inputs({"image": pictures(4, 0.3).repeat(1, 1, 2, 2)}), 40)
    assert totals[-1] < 0.7 * totals[0]


def test_super_resolution_is_kept_from_weaving_by_what_repeats_in_its_errors() -> None:
    task, photographs = enlarging("pixel", checkerboard_weight=7.0), pictures(2, 0.0).repeat(1, 1, 2, 2)
    with torch.no_grad():
        error = task.network(reduce(photographs, 4, 1.0)) - photographs
        expected = error.square().mean() + 7 * checkerboard_loss(error)
        torch.testing.assert_close(task.objective(task.inputs({"image": photographs})).total, expected)
        torch.testing.assert_close(task.compute_loss(task.inputs({"image": photographs})).total, error.square().mean())


def test_super_resolution_may_be_judged_turned() -> None:
    task, photographs = enlarging("pixel", random_rotation=True), pictures(2, 0.0).repeat(1, 1, 2, 2)
    with torch.no_grad():
        inputs = task.inputs({"image": photographs})
        error = task.network(reduce(photographs, 4, 1.0)) - photographs
        torch.testing.assert_close(task.compute_loss(inputs).total, error.square().mean())
        torch.testing.assert_close(task.objective(inputs).total, rotated(error, inputs[1]).square().mean())
    assert torch.equal(inputs[1], random_rotation_map(0))
    assert not torch.equal(inputs[1], random_rotation_map(1))


def test_a_turn_stays_within_the_picture_and_keeps_angles() -> None:
    corners = torch.tensor([[-1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    for step in range(50):
        turn = random_rotation_map(step)
        assert (corners @ turn.T).abs().max() <= 1 + 1e-6
        square = turn[:, :2] @ turn[:, :2].T
        torch.testing.assert_close(square, square[0, 0] * torch.eye(2))
        assert square[0, 0] > 1 / 3.4
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    image = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(rotated(image, quarter), image.rot90(1, (2, 3)), rtol=0, atol=1e-6)


def test_a_preview_of_super_resolution_is_of_the_photographs_size() -> None:
    task = enlarging("pixel")
    assert task.show(torch.rand(1, 3, 64, 64), task.network).shape == (1, 3, 64, 64)


def test_networks_that_do_not_fit_the_task_are_refused() -> None:
    compute_loss = PerceptualLoss(None, [], [], content_weight=0, style_weight=0, pixel_weight=1)
    with pytest.raises(ValueError, match="superres_x4"):
        SuperResTask(TransformNet(width=2, residual_blocks=0), compute_loss)
    with pytest.raises(ValueError, match="keeps the size"):
        StyleTask(SuperResNet(4, width=2), compute_loss, {})
    with pytest.raises(ValueError, match="blur is -1"):
        SuperResTask(SuperResNet(4, width=2), compute_loss, blur=-1)
