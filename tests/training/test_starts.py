"""Styles on the convolutions of another file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fststyle.config import ConfigError, compose
from fststyle.encoders.vgg import VGGEncoder
from fststyle.losses import PerceptualLoss
from fststyle.model_file import load_model_file
from fststyle.networks.transform import TransformNet
from fststyle.tensor_files import is_style_parameter
from fststyle.training.tasks import StyleTask
from gardens import run

pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:(pytorch_lightning|lightning_fabric)", "ignore:.*LeafSpec.*")


def convolutions(file: Path) -> dict[str, torch.Tensor]:
    return {key: value for key, value in load_model_file(file).network.state_dict().items() if ".norm." not in key}


@pytest.fixture
def painting(plot: Path) -> Path:
    """One that the network does not know, much like one that it does."""
    with Image.open(plot / "art" / "lily.png") as lily:
        lily.point(lambda level: level * 0.97).save(plot / "peony.png")
    return plot / "peony.png"


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_norms_alone_are_trained_and_written(optimizer: str, trained: Path, plot: Path, painting: Path) -> None:
    words = (f"style.image={painting}", f"init_from={trained / 'art.safetensors'}", "task.train=norms")
    made = run(plot, *words, f"task.optimizer={optimizer}")
    before = {name: value.clone() for name, value in made.task.network.state_dict().items()}
    exported = made.fit()
    assert exported is not None
    for name, weight in made.task.network.named_parameters():
        assert weight.requires_grad == is_style_parameter(name)
        assert (weight.grad is None) == (not weight.requires_grad)
        if not weight.requires_grad:
            assert torch.equal(weight, before[name])
    assert any(not torch.equal(made.task.network.state_dict()[name], value) for name, value in before.items())
    groups = made.trainer.optimizers[0].param_groups
    norms = made.task.network.style_parameters()
    assert sum(len(group["params"]) for group in groups) == len(norms)
    assert {name for name in norms if name.startswith("colors.")} == {"colors.weight", "colors.bias"}
    assert {key for key in load_file(exported) if not key.startswith("style_targets.")} == {
        f"network.{k}" for k in norms
    }
    shutil.copy(exported, trained)
    try:
        mine, theirs = convolutions(trained / exported.name), convolutions(trained / "art.safetensors")
    finally:
        (trained / exported.name).unlink()
    assert all(torch.equal(mine[key], value) for key, value in theirs.items())


def test_norms_alone_learn_faster_than_all_weights_do() -> None:
    words = ["style.image=x", "data=generated"]
    assert compose("train", words).task.learning_rate == 3e-3
    assert compose("train", [*words, "task.train=norms"]).task.learning_rate == 5e-2
    assert compose("train", [*words, "task.train=norms", "task.learning_rate=0.5"]).task.learning_rate == 0.5


def test_a_new_painting_begins_with_the_norms_of_the_nearest(trained: Path, plot: Path, painting: Path) -> None:
    made = run(plot, f"style.image={painting}", f"init_from={trained / 'art.safetensors'}")
    near = load_model_file(trained / "art.safetensors" / "lily").network.state_dict()
    assert all(torch.equal(value, near[name]) for name, value in made.task.network.state_dict().items())


def test_a_style_of_the_same_name_goes_on_and_others_join(trained: Path, plot: Path, painting: Path) -> None:
    shutil.copy(painting, plot / "art")
    (plot / "art" / "fern.png").unlink()
    made = run(plot, f"init_from={trained / 'art.safetensors'}")
    known = load_model_file(trained / "art.safetensors").network.style_parameters()
    for name, value in made.task.network.style_parameters().items():
        assert torch.equal(value, known[name][[1, 1, 2]]), name  # lily, peony, rose


def test_the_same_styles_go_on_with_all_weights(trained: Path, plot: Path) -> None:
    made = run(plot, f"init_from={trained / 'art.safetensors'}")
    known = load_model_file(trained / "art.safetensors").network.state_dict()
    assert all(torch.equal(value, known[name]) for name, value in made.task.network.state_dict().items())


def test_what_cannot_be_compared_begins_with_the_mean(trained: Path, plot: Path, painting: Path) -> None:
    words = (f"style.image={painting}", f"init_from={trained / 'art.safetensors'}", "encoder.widths=[5,5,5,5,5]")
    made = run(plot, *words, "loss.style_layers={relu1_1: 1.0}", "loss.color_weight=0")
    known = load_model_file(trained / "art.safetensors").network.style_parameters()
    for name, value in made.task.network.style_parameters().items():
        assert torch.allclose(value, known[name].mean(0), atol=1e-6)


def test_norms_alone_ask_for_convolutions(plot: Path, painting: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"task\.train=norms trains scales, shifts and colours alone.*give init_from="
    ):
        run(plot, f"style.image={painting}", "task.train=norms")


@pytest.mark.parametrize(
    ("options", "told"), [({"norm": "batch"}, "no instance norms that could be trained alone"), ({}, "all or norms")]
)
def test_a_task_refuses_what_it_cannot_train(options: dict[str, Any], told: str, encoder: VGGEncoder) -> None:
    network, loss = TransformNet(width=4, residual_blocks=1, **options), PerceptualLoss(encoder)
    with pytest.raises(ValueError, match=told):
        StyleTask(network, loss, loss.style_targets(torch.rand(1, 3, 32, 32)), train="norms" if options else "some")


def test_a_run_of_norms_alone_is_resumed_to_the_same_bits(trained: Path, plot: Path, painting: Path) -> None:
    words = (f"style.image={painting}", f"init_from={trained / 'art.safetensors'}", "task.train=norms")
    exported = [run(plot, *words, f"output={plot / 'straight'}", "steps=3").fit()]
    run(plot, *words, "steps=1").fit()
    with pytest.raises(ConfigError, match=r"task\.train: found all|begun with another optimizer"):
        run(plot, *words, "task.train=all", "steps=3", "resume=last")
    exported.append(run(plot, *words, "steps=3", "resume=last").fit())
    straight, resumed = (load_file(file) for file in exported if file is not None)
    assert all(torch.equal(resumed[name], value) for name, value in straight.items())
