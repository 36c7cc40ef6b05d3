"""A training step of style swap."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fststyle.encoders.pretrained import random_weights
from fststyle.encoders.vgg import VGGEncoder
from fststyle.losses import PerceptualLoss, stability_loss
from fststyle.networks.styleswap import InverseNet, swap
from fststyle.networks.transform import TransformNet
from fststyle.training.tasks import InverseTask
from steps import make, pictures, train

#: Lightning's advice on loaders, loggers and modules in evaluation mode.
pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:pytorch_lightning", "ignore:.*LeafSpec.*")


def inverting(**options: Any) -> InverseTask:
    torch.manual_seed(0)
    encoder = VGGEncoder(random_weights("vgg16", widths=(4, 6, 8, 10, 12)), "vgg16", name="small")
    compute_loss = PerceptualLoss(encoder, ["relu3_1"], [], style_weight=0)
    return InverseTask(InverseNet(8), compute_loss, **{"compile": False, "pixel_weight": 0.0, **options})


def both(count: int) -> dict[str, Tensor]:
    return {"image": pictures(count, 0.0), "style": pictures(count, 2.0)}


def test_style_swap_decodes_photographs_styles_and_every_swap_of_them() -> None:
    task = inverting()
    found, known = task.inputs(both(2))
    assert torch.equal(known, torch.cat([*both(2).values()]))
    assert task.loss.encoder is not None
    content, style = (task.loss.encoder(x, ["relu3_1"])["relu3_1"] for x in both(2).values())
    assert found.shape == (8, 8, 8, 8)
    assert torch.equal(found[:4], torch.cat([content, style]))
    for place, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        assert torch.equal(found[4 + place], swap(content[i : i + 1], style[j : j + 1])[0])


def test_style_swap_judges_a_picture_by_the_features_it_was_made_of() -> None:
    task = inverting()
    features, known = task.inputs(both(1))
    with torch.no_grad():
        picture = task.network(features)
        assert task.loss.encoder is not None
        expected = (task.loss.encoder(picture, ["relu3_1"])["relu3_1"] - features).square().mean()
        torch.testing.assert_close(task.compute_loss((features, known)).total, expected)
    assert not features.requires_grad


def test_style_swap_is_learned() -> None:
    task = inverting(learning_rate=3e-3)
    totals = train(task, task.inputs(both(2)), 30)
    assert totals[-1] < 0.8 * totals[0]


def test_style_swap_learns_colours_of_pictures_that_are_known() -> None:
    task = inverting(pixel_weight=3.0)
    features, known = task.inputs(both(1))
    with torch.no_grad():
        expected = task.compute_loss((features, known)).total + 3 * (task.network(features)[:2] - known).square().mean()
        torch.testing.assert_close(task.objective((features, known)).total, expected)


def test_the_encoder_goes_along_as_deep_as_it_is_needed() -> None:
    weights, told = inverting().exported()
    assert weights is not None
    assert {key.split(".")[0] for key in weights} == {
        *("preprocess", "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
    }
    assert (told["encoder"]["name"], told["encoder"]["layer"]) == ("small", "relu3_1")


def test_a_preview_of_style_swap_is_in_the_style_of_the_last_batch() -> None:
    task = inverting()
    photograph = pictures(1, 1.0)
    plain = task.show(photograph, task.network)
    task.inputs(both(1))
    assert plain.shape == photograph.shape
    assert not torch.equal(task.show(photograph, task.network), plain)


def test_what_does_not_fit_style_swap_is_refused() -> None:
    encoder = VGGEncoder(random_weights("vgg16", widths=(4, 6, 8, 10, 12)), "vgg16")
    one = PerceptualLoss(encoder, ["relu3_1"], [], style_weight=0)
    with pytest.raises(ValueError, match="has 8 channels"):
        InverseTask(InverseNet(64), one)
    with pytest.raises(ValueError, match="one content layer"):
        InverseTask(InverseNet(8), PerceptualLoss(encoder, ["relu3_1", "relu2_2"], [], style_weight=0))
    with pytest.raises(ValueError, match="network=inverse"):
        InverseTask(TransformNet(width=2, residual_blocks=0), one)
    with pytest.raises(ValueError, match="stride is 4"):
        InverseTask(InverseNet(8), one, stride=4)


def test_a_stability_weight_adds_the_stability_loss_of_the_steps_warp() -> None:
    task = make(stability_weight=3.0)
    photographs = task.inputs({"image": pictures(6, 0.0)})
    assert float(task.warp.abs().max()) > 0
    assert float(task.noise.std()) == pytest.approx(2 / 255, rel=0.1)
    with torch.no_grad():
        more = task.compute_loss(photographs, regularized=True).total - task.compute_loss(photographs).total
        fourth = photographs[::4]
        expected = 3 * stability_loss(task.network, fourth, task.network(fourth), task.warp, task.gain, task.noise)
    assert float(more) == pytest.approx(float(expected), rel=1e-3)


def test_every_fourth_photograph_of_all_ranks_is_steadied(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make(stability_weight=1.0)
    for ranks, count in ((1, 4), (2, 2), (2, 3), (3, 5)):
        shares = []
        chosen = set()
        for rank in range(ranks):
            monkeypatch.setattr(task, "_trainer", SimpleNamespace(global_rank=rank, world_size=ranks))
            which, share = task.steadied(count)
            own = range(count)[which]
            chosen |= {rank * count + index for index in own}
            shares.append(share / ranks / len(own) if own else 0.0)
        assert chosen == set(range(0, ranks * count, 4))
        assert [share for share in shares if share] == pytest.approx([1 / len(chosen)] * sum(map(bool, shares)))
