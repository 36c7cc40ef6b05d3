"""Beside the steps: averaged weights, previews, examinations, the exported file, and when to stop."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from fststyle.encoders.pretrained import random_weights
from fststyle.encoders.vgg import VGGEncoder
from fststyle.images import to_pixels
from fststyle.losses import PerceptualLoss
from fststyle.model_file import load_model_file
from fststyle.networks.octaves import in_octaves
from fststyle.networks.transform import TransformNet
from fststyle.training.callbacks import (
    AverageWeights,
    CountUnreadable,
    Diagnostics,
    Export,
    Previews,
    held_out_by_style,
    trained_network,
)
from fststyle.training.sources import DataError
from fststyle.training.tasks import StyleTask
from runs import At, fit, make_task, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:pytorch_lightning", "ignore:.*LeafSpec.*")


class Weights(Callback):
    """The network's weights after each step, and within each validation."""

    def __init__(self) -> None:
        self.after: list[Tensor] = []
        self.judged: list[Tensor] = []

    def on_train_batch_end(self, _: pl.Trainer, task: Any, *__: Any) -> None:
        self.after.append(weights(task.network))

    def on_validation_batch_start(self, _: pl.Trainer, task: Any, *__: Any) -> None:
        self.judged.append(weights(task.network))


@pytest.mark.parametrize("every", [0, -1])
def test_less_than_one_step_between_two_previews_is_refused(every: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"every {every} steps; expected at least 1"):
        Previews(tmp_path, every=every)


# --- the moving average -----------------------------------------------------------------------------


def test_the_average_is_the_moving_average_of_the_weights_after_each_step(photographs: Path) -> None:
    average, metadata = AverageWeights(0.3), Weights()
    fit(photographs, [average, metadata], 5)
    assert average.average is not None
    # It begins with the first weights; then the share of the old is (1 + n) / (10 + n), at most 0.3.
    expected = metadata.after[0].double()
    for share, now in zip([3 / 12, 0.3, 0.3, 0.3], metadata.after[1:], strict=True):
        expected = share * expected + (1 - share) * now.double()
    torch.testing.assert_close(weights(average.average.module).double(), expected, rtol=1e-5, atol=1e-7)


def test_validation_judges_the_average_and_training_goes_on_with_the_weights(
    photographs: Path, straight: tuple[Tensor, Tensor]
) -> None:
    average, metadata = AverageWeights(0.3), Weights()
    averages: list[Tensor] = []

    def look(_: pl.Trainer) -> None:
        assert average.average is not None
        averages.append(weights(average.average.module))

    task, _ = fit(photographs, [average, metadata, At(2, look), At(4, look)], 6, val_check_interval=2)
    assert len(metadata.judged) >= 2
    torch.testing.assert_close(torch.stack(metadata.judged[:2]), torch.stack(averages), rtol=0, atol=0)
    assert not torch.equal(metadata.judged[0], metadata.after[1])
    torch.testing.assert_close(weights(task.network), straight[0], rtol=0, atol=0)


@pytest.mark.parametrize("decay", [-0.1, 0.0, 1.0, 2.0])
def test_a_decay_outside_of_0_to_1_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=rf"is {decay}; expected between 0 and 1"):
        AverageWeights(decay)


def test_the_averaged_network_is_the_one_to_show_where_there_is_one(photographs: Path) -> None:
    average = AverageWeights(0.3)
    task, trainer = fit(photographs, [average], 2)
    assert trained_network(trainer, task) is average.average.module  # type: ignore[union-attr]
    task, trainer = fit(photographs, [], 1)
    assert trained_network(trainer, task) is task.network


# --- unreadable pictures ----------------------------------------------------------------------------


def meet(counter: CountUnreadable, sound: int, *unreadable: str) -> None:
    batch = {"image": torch.zeros(sound, 1), "unreadable": list(unreadable)}
    counter.on_train_batch_start(SimpleNamespace(world_size=1), None, batch, 0)  # type: ignore[arg-type]


def test_a_share_of_unreadable_pictures_up_to_the_bound_is_met_without_stopping() -> None:
    counter = CountUnreadable(0.05)
    meet(counter, 190)
    for _ in range(10):
        meet(counter, 0, "a.jpg: is damaged")  # 10 of 200 in the end
    with pytest.raises(DataError) as caught:
        meet(counter, 0, "b.jpg: is damaged")
    assert str(caught.value) == (
        "11 of the first 201 pictures cannot be read, more than data.max_unreadable=0.05 allows; "
        "the last: b.jpg: is damaged"
    )


def test_the_share_is_not_judged_before_ten_were_met() -> None:
    counter = CountUnreadable(0.05)
    meet(counter, 0, *["a.jpg: is damaged"] * 9)
    with pytest.raises(DataError, match="10 of the first 10 pictures cannot be read"):
        meet(counter, 0, "a.jpg: is damaged")


def test_each_unreadable_picture_is_named_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    counter = CountUnreadable(0.5)
    meet(counter, 20, "a.jpg: is damaged")
    meet(counter, 20, "b.jpg: is empty", "a.jpg: is damaged")
    assert [entry.getMessage() for entry in caplog.records] == [
        "skipped, cannot be read (1 so far): a.jpg: is damaged",
        "skipped, cannot be read (2 so far): b.jpg: is empty",
    ]


def test_a_run_over_a_damaged_folder_stops_and_says_why(photographs: Path, tmp_path: Path) -> None:
    for file in sorted(photographs.iterdir()):
        (tmp_path / file.name).write_bytes(file.read_bytes() if file.stem < "08" else b"")
    with pytest.raises(DataError, match=r"10 of the first \d+ pictures cannot be read.*the last: .*: is empty"):
        fit(tmp_path, [CountUnreadable(0.05)], 100)


# --- previews ---------------------------------------------------------------------------------------


def test_previews_show_photographs_above_what_the_network_makes_of_them(photographs: Path, tmp_path: Path) -> None:
    images = torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(2))
    task = make_task()
    fit(photographs, [Previews(tmp_path / "previews", every=2, images=images)], 5, task)
    assert sorted(file.name for file in (tmp_path / "previews").iterdir()) == [
        f"step_{step:08d}.png" for step in (1, 2, 4, 5)
    ]
    sheet = np.asarray(Image.open(tmp_path / "previews" / "step_00000005.png"))
    assert sheet.shape == (2 * 32 + 4, 3 * 48 + 2 * 4, 3)
    assert task.network.training  # as it was
    task.network.eval()
    for column, image in enumerate(images):
        left = column * (48 + 4)
        np.testing.assert_array_equal(sheet[:32, left : left + 48], to_pixels(image))
        with torch.no_grad():
            output = to_pixels(in_octaves(task.network, image[None], task.octaves))
        assert np.abs(sheet[36:, left : left + 48].astype(int) - output).max() <= 1


def test_without_photographs_held_out_there_are_no_previews(photographs: Path, tmp_path: Path) -> None:
    fit(photographs, [Previews(tmp_path / "previews", images=torch.zeros(0, 3, 32, 32))], 1)
    assert not (tmp_path / "previews").exists()


# --- the exported file ------------------------------------------------------------------------------


def export(path: Path, task: StyleTask, images: Tensor, step: int = 7, rank: int = 0, **options: Any) -> None:
    """Export as a trainer would that has made ``step`` steps of 2 ranks, 3 batches of 4 each."""
    data = SimpleNamespace(global_batch=24, val_dataloader=lambda: [{"image": images[:2]}, {"image": images[2:]}])
    trainer = SimpleNamespace(
        is_global_zero=rank == 0,
        global_step=step,
        accumulate_grad_batches=3,
        world_size=2,
        datamodule=data,
        callbacks=[],
    )
    metadata = {"kind": "style", "name": "wave", "encoder": {"name": "vgg16-random-0"}}
    Export(path, metadata, **options).on_train_end(trainer, task)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def held_out() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def test_the_exported_file_tells_how_it_came_to_be(tmp_path: Path, held_out: Tensor) -> None:
    task = make_task(kuwahara=0)
    export(tmp_path / "a.safetensors", task, held_out)
    checkpoint = load_model_file(tmp_path / "a.safetensors", "style")
    metadata = checkpoint.metadata
    assert metadata["kind"] == "style"
    assert metadata["name"] == "wave"
    assert metadata["octaves"] == 2
    assert metadata["encoder"] == {"name": "vgg16-random-0"}
    assert metadata["steps"] == 7
    assert metadata["images"] == 7 * 4 * 3 * 2
    assert 0 <= metadata["seconds"] < 60
    assert metadata["loss"]["normalizers"] == pytest.approx(task.loss.normalizers)
    assert metadata["loss"]["style_weight"] == 5
    assert metadata["loss"]["balanced"] is True
    assert metadata["network"] == {"class": "TransformNet", "arguments": task.network.config, "dtype": "float16"}
    with torch.no_grad():
        outputs = in_octaves(task.network.eval(), held_out, task.octaves)
        terms = task.loss(outputs, content=task.loss.content_targets(held_out), style=task.style_targets).scalars()
    assert metadata["held_out"] == pytest.approx({name: float(value) for name, value in terms.items()}, rel=1e-4)


@pytest.mark.parametrize(("dtype", "code"), [("float16", "F16"), ("float32", "F32")])
def test_the_exported_file_holds_network_and_targets_but_no_encoder(
    tmp_path: Path, held_out: Tensor, dtype: str, code: str
) -> None:
    task = make_task(kuwahara=0)
    export(tmp_path / "a.safetensors", task, held_out, dtype=dtype)
    data = (tmp_path / "a.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    tensors = {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    network = {f"network.{name}": code for name in task.network.state_dict()}
    assert tensors == network | {f"style_targets.{layer}": "F32" for layer in task.style_targets}
    checkpoint = load_model_file(tmp_path / "a.safetensors")
    with torch.no_grad():
        output = checkpoint.network(held_out)
        torch.testing.assert_close(output, task.network.eval()(held_out), rtol=0, atol=2e-3)
    for layer, gram in task.style_targets.items():
        torch.testing.assert_close(checkpoint.style_targets[layer], gram)


def test_the_default_network_with_the_grams_of_the_published_encoder_fits_in_4_2_megabytes(
    tmp_path: Path, held_out: Tensor
) -> None:
    loss = PerceptualLoss(VGGEncoder(random_weights("vgg16"), "vgg16"))
    task = StyleTask(TransformNet(), loss, loss.style_targets(held_out[:1]))
    assert [gram.shape[-1] for gram in task.style_targets.values()] == [64, 128, 256, 512]
    export(tmp_path / "a.safetensors", task, held_out)
    assert (tmp_path / "a.safetensors").stat().st_size < 4.2e6
    assert sum(weight.numel() for weight in load_model_file(tmp_path / "a.safetensors").network.parameters()) == 1679235


@pytest.mark.parametrize("options", [{"step": 0}, {"rank": 1}])
def test_nothing_is_exported_before_the_first_step_nor_by_other_ranks(
    tmp_path: Path, held_out: Tensor, options: dict[str, int]
) -> None:
    export(tmp_path / "a.safetensors", make_task(), held_out, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_dtype_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dtype is 'int8'; expected float16 or float32"):
        Export(tmp_path / "a.safetensors", {}, "int8")


def choose(task: StyleTask, held_out: Tensor, changes: list[float], *others: Any) -> tuple[int, dict[str, Any]]:
    """Step and metadata of the candidate chosen of networks whose last layer's bias was changed, one for each."""
    export = Export("a.safetensors", {}, candidates=len(changes), every=10)
    trainer = SimpleNamespace(callbacks=list(others), global_step=0, datamodule=None)
    trainer.datamodule = SimpleNamespace(val_dataloader=lambda: [{"image": held_out}] if len(held_out) else [])
    bias = task.network.decode[-1].conv.bias
    before = bias.detach().clone()
    with torch.no_grad():
        for change in changes:
            trainer.global_step += 10
            bias.copy_(before + change)
            export.on_train_batch_end(trainer, task)  # type: ignore[arg-type]
        bias.copy_(before)
    _, about = export.choose(trainer, task)  # type: ignore[arg-type]
    return about["exported_step"], about


def test_the_best_of_the_last_networks_is_exported_not_the_last(held_out: Tensor) -> None:
    task = make_task()
    totals = [choose(task, held_out, [change])[1]["held_out"]["total"] for change in (3.0, 0.0, -3.0)]
    best = 10 * (1 + totals.index(min(totals)))
    assert best != 30, "the last is the best: the test tests nothing"
    assert choose(task, held_out, [3.0, 0.0, -3.0])[0] == best
    assert choose(task, held_out[:0], [3.0, 0.0, -3.0])[0] == 30, "nothing held out: the last"


def test_a_sound_network_is_exported_rather_than_a_broken_one(held_out: Tensor) -> None:
    task = make_task()
    step, about = choose(task, held_out, [0.0, math.nan], Diagnostics(10, held_out[0]))
    assert step == 10
    assert about["diagnostics"]["non_finite"] == 0


def test_candidates_travel_with_the_saved_state(held_out: Tensor) -> None:
    task = make_task()
    first, second = (Export("a.safetensors", {}, candidates=3, every=5) for _ in range(2))
    for step in (5, 7, 10, 15, 20):
        first.on_train_batch_end(SimpleNamespace(callbacks=[], global_step=step), task)  # type: ignore[arg-type]
    assert [step for step, _ in first.candidates] == [10, 15, 20]
    first.before = 1000.0
    second.load_state_dict(first.state_dict())
    assert 1000 <= second.seconds() < 1100
    assert [step for step, _ in second.candidates] == [10, 15, 20]


def test_faults_are_told_when_they_are_new(held_out: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    task, told = make_task(), []
    task.log_dict = lambda scores, **_: told.append(scores)  # type: ignore[method-assign]
    watch = Diagnostics(every=2, photograph=held_out[0])
    with torch.no_grad():
        task.network.decode[-1].conv.bias.fill_(math.nan)
    for step in (1, 2, 3, 4):
        watch.on_train_batch_end(SimpleNamespace(callbacks=[], global_step=step, is_global_zero=True), task)  # type: ignore[arg-type]
    assert len(told) == 2
    assert told[0]["diagnostics/non_finite"] == 1
    assert caplog.text.count("values that are not finite") == 1
    assert "at step 2 the network makes" in caplog.text


def test_held_out_terms_are_means_over_photographs_not_over_batches(held_out: Tensor) -> None:
    task = make_task()
    uneven, one = ([{"image": part} for part in held_out.split(size)] for size in (2, 3))
    first = held_out_by_style(task.network, task, uneven)[""]
    assert first == pytest.approx(held_out_by_style(task.network, task, one)[""], rel=1e-4)
    assert task.network.training
    assert held_out_by_style(task.network, task, []) == {}
