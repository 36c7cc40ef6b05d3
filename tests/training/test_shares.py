"""Who is painted in which style, and what is judged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from fststyle.encoders.vgg import VGGEncoder
from fststyle.losses import PerceptualLoss, measure_normalizers
from fststyle.networks.transform import TransformNet
from fststyle.training.data import Photographs
from fststyle.training.sources import Generated, folder
from fststyle.training.tasks import StyleTask

pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:(pytorch_lightning|lightning_fabric)", "ignore:.*LeafSpec.*")


def which(data: Photographs, batches: int, rank: int = 0, ranks: int = 1, step: int = 0) -> list[int]:
    trainer = {"global_step": step, "accumulate_grad_batches": 1, "global_rank": rank, "world_size": ranks}
    data.trainer = type("T", (), trainer)  # type: ignore[assignment]
    loader = iter(data.train_dataloader())
    return [number for _ in range(batches) for number in next(loader)["which"].tolist()]


def photos(source: Any, workers: int = 0, batch_size: int = 4, **options: Any) -> Photographs:
    return Photographs(source, size=32, batch_size=batch_size, workers=workers, held_out=2, style_count=3, **options)


# --- who is painted in which ------------------------------------------------------------------------


@pytest.mark.slow
def test_all_styles_get_equally_many_and_the_seed_decides() -> None:
    data = photos(Generated(48))
    drawn = which(data, 15)
    assert Counter(drawn) == dict.fromkeys(range(3), 20)
    assert all(set(drawn[at : at + 3]) == {0, 1, 2} for at in range(0, 60, 3))
    assert drawn[:3] != drawn[3:6] or drawn[3:6] != drawn[6:9]
    assert which(photos(Generated(48)), 15) == drawn
    assert which(photos(Generated(48), seed=1), 15) != drawn


def test_workers_ranks_and_a_resumed_position_change_nothing(garden: Path) -> None:
    expected = which(photos(folder(garden / "photos")), 6)
    assert which(photos(folder(garden / "photos"), workers=2), 6) == expected
    assert which(photos(folder(garden / "photos")), 2, step=4) == expected[16:]
    halves = [np.array(which(photos(folder(garden / "photos"), batch_size=2), 6, rank, 2)) for rank in range(2)]
    assert np.concatenate([half.reshape(6, 2) for half in halves], 1).flatten().tolist() == expected


def test_streamed_photographs_have_the_same_styles(garden: Path) -> None:
    stream = folder(garden / "photos").to_iterable_dataset()
    assert isinstance(stream, datasets.IterableDataset)
    assert which(photos(stream), 3) == which(photos(folder(garden / "photos")), 3)


@pytest.mark.parametrize(("photographs", "styles", "each"), [(5, 3, 4), (12, 3, 4), (8, 2, 4), (20, 2, 10), (1, 4, 1)])
def test_every_style_is_judged_by_as_many_held_out_photographs(photographs: int, styles: int, each: int) -> None:
    from fststyle.training.shares import HeldOut

    held = HeldOut([torch.full((3, 4, 4), float(index)) for index in range(photographs)], styles)
    met = [[int(one["image"][0, 0, 0]) for one in held if one["which"] == style] for style in range(styles)]
    assert [len(own) for own in met] == [len(set(own)) for own in met] == [each] * styles
    assert {index for own in met for index in own} == set(range(min(photographs, each * styles)))


def test_one_style_needs_no_numbers(garden: Path) -> None:
    data = Photographs(folder(garden / "photos"), size=32, workers=0, held_out=2)
    assert set(next(iter(data.train_dataloader()))) == {"image", "unreadable"}


# --- what is judged ---------------------------------------------------------------------------------


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize(("form", "color"), [("mean", 2.0), ("sliced", 0.0)])
def test_a_batch_of_several_styles_costs_what_its_images_cost_alone(
    form: Any, color: float, balanced: bool, encoder: VGGEncoder
) -> None:
    options: dict[str, Any] = {"style_form": form, "color_weight": color, "tv_weight": 0.3, "balanced": balanced}
    layers = ("pixels", "relu1_2", "relu2_1/2")
    loss, factors = PerceptualLoss(encoder, style_layers=layers, **options), torch.tensor([0.5, 1.0, 2.0])
    pictures, outputs, known = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32), torch.rand(6, 3, 32, 32)
    each = [loss.style_targets(torch.rand(1, 3, 40, 30) * (index + 1) / 3) for index in range(3)]
    loss.normalizers, loss.style_factors = measure_normalizers(loss, [known], each), factors
    numbers = torch.tensor([2, 0, 2, 1])
    targets = {layer: torch.cat([one[layer] for one in each])[numbers] for layer in each[0]}
    found = loss(outputs, loss.content_targets(pictures, targets), targets, which=numbers)
    alone = []
    for index, number in enumerate(numbers.tolist()):
        one = PerceptualLoss(encoder, style_layers=layers, **options, style_weight=5.0 * float(factors[number]))
        one.normalizers = measure_normalizers(one, [known], each[number])
        picture, output = pictures[index : index + 1], outputs[index : index + 1]
        alone.append(one(output, one.content_targets(picture, each[number]), each[number]).scalars())
    for name, value in found.scalars().items():
        assert torch.allclose(value, torch.stack([terms[name] for terms in alone]).mean(), rtol=1e-4), name
    means = [torch.stack([v for k, v in terms.items() if k.startswith("style/")]).mean() for terms in alone]
    assert found.by_image is not None
    assert torch.allclose(found.by_image, torch.stack(means), rtol=1e-4)


def test_normalizers_without_photographs_are_those_of_each_style() -> None:
    from fststyle.encoders.pretrained import load_encoder

    loss = PerceptualLoss(
        load_encoder("vgg19", "slim"), ("relu3_3",), ("relu1_1", "pixels"), style_form="mean", balanced=True,
        tv_reduction="mean", color_weight=1.0,
    )  # fmt: skip
    each = [loss.style_targets(torch.rand(1, 3, 32, 32) * share) for share in (0.4, 1.0)]
    together = measure_normalizers(loss, None, each)
    for index, targets in enumerate(each):
        for name, value in measure_normalizers(loss, None, targets).items():
            found = together[name]
            assert float(found[index] if isinstance(found, torch.Tensor) else found) == pytest.approx(value)


def test_several_normalizers_ask_which_style_an_image_has(encoder: VGGEncoder) -> None:
    loss = PerceptualLoss(encoder, balanced=True)
    each = [loss.style_targets(torch.rand(1, 3, 32, 32)) for _ in range(2)]
    loss.normalizers = measure_normalizers(loss, [torch.rand(2, 3, 32, 32)], each)
    with pytest.raises(ValueError, match="normalizers for 2 styles; say which"):
        loss(torch.rand(1, 3, 32, 32), style=each[0])


@pytest.mark.parametrize(
    ("styles", "names", "rows"), [(2, (), 1), (1, ("a", "b"), 2), (2, ("a", "b"), 1), (3, ("a",), 3)]
)
def test_a_task_takes_as_many_norms_names_and_targets(
    styles: int, names: tuple[str, ...], rows: int, encoder: VGGEncoder
) -> None:
    network, loss = TransformNet(width=4, residual_blocks=1, styles=styles), PerceptualLoss(encoder)
    with pytest.raises(ValueError, match="expected the same number of norms, names and style targets"):
        StyleTask(network, loss, loss.style_targets(torch.rand(rows, 3, 32, 32)), names=names)
