"""Every YAML of ``conf/`` composes, and builds what it names."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import hydra
import pytest
import torch
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from fststyle.config import register_resolvers
from fststyle.encoders.pretrained import random_weights
from fststyle.encoders.published import DEFAULT_WEIGHTS
from fststyle.encoders.vgg import VGGEncoder
from fststyle.losses import PerceptualLoss, measure_normalizers
from fststyle.model_file import bundled_files, load_model_file
from fststyle.networks.superres import SuperResNet
from fststyle.networks.transform import TransformNet
from fststyle.resources import resource
from fststyle.training.data import Photographs
from fststyle.training.tasks import InverseTask, StyleTask, SuperResTask, Task

register_resolvers()
CONF = resource("conf")
#: Every option but the bases, whose names begin with an underscore.
OPTIONS = sorted(str(path.relative_to(CONF).with_suffix("")) for path in CONF.glob("*/[!_]*.yaml"))
GROUPS = sorted({option.split("/")[0] for option in OPTIONS})
#: What an option needs to be told.
GIVEN = {
    "style": ("style.image=some/where/rain.png",),
    "experiment/inverse": ("data.styles.path=paintings",),
    "experiment/arbitrary": ("data.styles.path=paintings",),
    "data/folder": ("data.source.path=photographs",),
    "data/parquet": ("data.source.files=photographs/*.parquet",),
    "data/webdataset": ("data.source.files=[a.tar,b.tar]",),
}
#: What has nothing to do with a style.
STYLELESS = ("experiment/superres", "experiment/inverse", "experiment/arbitrary")
#: Keys that are Hydra's, not the constructor's.
HYDRAS = ("_target_", "_convert_", "_partial_", "_recursive_")


@cache
def compose(option: str) -> DictConfig:
    """The whole configuration with one option chosen, as a run would see it."""
    group, name = option.split("/")
    command = "train" if group in defaults("train") else "optimize"
    words = [f"{group}={name}", *(GIVEN["style"] if option not in STYLELESS else ()), *GIVEN.get(option, ())]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(command, words)


@cache
def defaults(command: str) -> dict[str, str | list[str] | None]:
    """Group to the option, or options, that it has when nothing is said."""
    entries: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{command}.yaml").defaults)
    found = {str(k): v for entry in entries if isinstance(entry, dict) for k, v in entry.items()}
    return {group: option for group, option in found.items() if not group.startswith("override ")}


def named(group: str) -> list[str]:
    return [option for option in OPTIONS if option.startswith(f"{group}/")]


def targets(node: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Every node of a configuration that names a constructor."""
    if OmegaConf.is_dict(node):
        if "_target_" in node:
            yield path, node
        for key in node:
            if not OmegaConf.is_missing(node, key):
                yield from targets(node[key], f"{path}.{key}".strip("."))


def parameters(target: str) -> dict[str, inspect.Parameter]:
    """Of a constructor, and of its bases' where it passes on what it does not name."""
    found: dict[str, inspect.Parameter] = {}
    made = get_method(target)
    for one in made.__mro__ if inspect.isclass(made) else (made,):
        own = inspect.signature(one).parameters
        found = {**own, **found}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values()):
            break
    return found


# --- all of them ------------------------------------------------------------------------------------


def test_every_group_has_a_default_that_exists() -> None:
    assert {*defaults("train"), *defaults("optimize")} == set(GROUPS)
    for command in ("train", "optimize", "preview"):
        for group, option in defaults(command).items():
            chosen = option if isinstance(option, list) else [option]
            assert all(one is None or f"{group}/{one}" in OPTIONS for one in chosen)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_key_is_a_parameter_of_what_its_config_builds(option: str) -> None:
    config = compose(option)
    optimizes = option.startswith(("mode/", "preset/"))
    assert set(OmegaConf.missing_keys(config)) <= ({"content"} if optimizes else set())
    OmegaConf.to_container(config, resolve=True, throw_on_missing=not optimizes)
    found = dict(targets(config))
    assert set(found) >= {"encoder", "loss", "data", "data.source"}
    assert optimizes or set(found) >= {"network", "task", "trainer"}
    for path, node in found.items():
        known = parameters(node._target_)
        for key in node:
            assert key in HYDRAS or key in known, f"{path}.{key}"


@pytest.mark.parametrize(
    "option",
    [
        "encoder/vgg16",
        "network/resnet",
        "network/superres_x4",
        "task/style",
        "task/superres",
        "task/inverse",
        "loss/_perceptual",
        "callbacks/default",
        *named("data"),
    ],
)
def test_a_default_that_stands_twice_is_the_same_in_both_places(option: str) -> None:
    """In what others build upon; they exist to differ."""
    group = option.split("/")[0]
    node = OmegaConf.load(CONF / f"{option}.yaml") if option == "loss/_perceptual" else compose(option)[group]
    compared = 0
    for path, part in targets(node):
        for name, parameter in parameters(part._target_).items():
            if name not in part or parameter.default is parameter.empty or OmegaConf.is_interpolation(part, name):
                continue
            if (path, name, group) == ("", "weights", "encoder"):
                continue  # None there, and DEFAULT_WEIGHTS
            value = tuple(part[name]) if OmegaConf.is_list(part[name]) else part[name]
            assert value == parameter.default, f"{path}.{name}"
            compared += 1
    assert compared >= 4


def test_the_steps_of_a_run_are_those_of_its_task() -> None:
    assert compose("style/custom").steps == inspect.signature(Task).parameters["steps"].default


# --- group by group ---------------------------------------------------------------------------------


@pytest.mark.parametrize("option", named("style"))
def test_a_style_is_a_picture_a_size_a_region_and_a_weight(option: str) -> None:
    style = compose(option).style
    assert set(style) == {"name", "image", "size", "blur", "region", "weight", "smoothed"}
    assert style.image == "some/where/rain.png"
    assert style.name == ("rain" if option == "style/custom" else option.removeprefix("style/"))
    assert 256 <= style.size <= 1024
    left, top, right, bottom = style.region
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    assert compose(option).output == f"runs/{style.name}"


def test_a_style_without_a_painting_of_its_own_says_which_to_provide() -> None:
    for option in named("style"):
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            painting = hydra.compose("train", [option.replace("/", "=")]).style
        if OmegaConf.is_missing(painting, "image"):
            assert "style.image=" in (CONF / f"{option}.yaml").read_text().splitlines()[0]
        else:
            assert Path(painting.image).is_file()


@pytest.mark.parametrize("option", named("encoder"))
def test_encoders_are_built(option: str) -> None:
    config = compose(option).encoder
    if option not in ("encoder/random", "encoder/slim", "encoder/slim_vgg16"):
        assert config.weights == DEFAULT_WEIGHTS[config.architecture]
    encoder = instantiate(config, weights="random", widths=[2, 2, 2, 2, 2], normalize=None)
    assert isinstance(encoder, VGGEncoder)
    assert encoder.architecture == (
        "vgg19" if option.startswith(("encoder/vgg19", "encoder/slim")) and "16" not in option else "vgg16"
    )
    assert encoder.pooling == ("average" if option == "encoder/vgg19_gatys" else "max")
    assert config.normalize == ("data" if option == "encoder/vgg19_gatys" else None)


@pytest.mark.parametrize("architecture", ["vgg16", "vgg19"])
@pytest.mark.parametrize("option", named("loss"))
def test_losses_are_built_and_judge(option: str, architecture: str) -> None:
    """With either encoder: a layer that one of them lacks would be a trap."""
    encoder = VGGEncoder(random_weights(architecture, widths=(2, 2, 2, 2, 2)), architecture)  # type: ignore[arg-type]
    config = compose(option).loss
    loss = instantiate(config, encoder=encoder)
    assert isinstance(loss, PerceptualLoss)
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    style = loss.style_targets(image[:1].flip(-1))
    loss.normalizers = measure_normalizers(loss, [image], style)
    total = loss(image, content=loss.content_targets(image.flip(0)), style=style, pixels=image.flip(0)).total
    assert torch.isfinite(total)
    assert total > 0
    assert set(loss.content_layers) == set(config.content_layers)
    assert set(loss.style_layers) == set(config.style_layers)


@pytest.mark.parametrize("option", sorted({*named("network")} - {"network/inverse", "network/arbitrary"}))
def test_networks_are_built_and_make_pictures_of_the_right_size(option: str) -> None:
    config = compose(option).network
    network = instantiate(config, width=2)
    assert type(network) is (SuperResNet if "superres" in option else TransformNet)
    assert network.config == {key: value for key, value in config.items() if key != "_target_"} | {"width": 2}
    scale = config.get("scale", 1)
    assert scale == {"network/superres_x4": 4, "network/superres_x8": 8, "network/superres_johnson": 4}.get(option, 1)
    assert network.eval()(torch.rand(1, 3, 18, 21)).shape == (1, 3, 18 * scale, 21 * scale)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of photographs, and a loader of data sets that has ten pictures for every name."""
    (tmp_path / "photographs").mkdir()
    for level in range(10):
        Image.new("RGB", (64, 64), (level, level, level)).save(tmp_path / "photographs" / f"{level}.png")
    for name in ("photographs/0.parquet", "a.tar", "b.tar"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    files = [{"path": str(path), "bytes": None} for path in sorted((tmp_path / "photographs").glob("*.png"))]
    features = dict.fromkeys(("image", "jpg"), datasets.Image(decode=False))

    def load_dataset(name: str, **options: Any) -> Any:
        assert name in ("detection-datasets/coco", "parquet", "webdataset")
        table = datasets.Dataset.from_dict({"image": files, "jpg": files}, features=datasets.Features(features))
        return table.to_iterable_dataset() if options["streaming"] else table

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("option", named("data"))
def test_data_modules_are_built_and_give_batches(option: str) -> None:
    data = instantiate(compose(option).data, size=32, workers=0, held_out=2)
    assert isinstance(data, Photographs)
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 32, 32)
    assert len(data.held_out_images) == 2


def test_the_task_of_styles_is_built(network: TransformNet, encoder: VGGEncoder) -> None:
    config = compose("task/style")
    task = instantiate(config.task, network=network, loss=PerceptualLoss(encoder), style_targets={})
    assert isinstance(task, StyleTask)
    assert task.steps == config.steps
    assert config.name == config.style.name


def test_the_task_of_super_resolution_brings_what_it_needs() -> None:
    config = compose("experiment/superres")
    assert "style" not in config
    assert (config.name, config.data.size, config.data.scale, config.task.blur) == ("superres_x4", 288, None, 1.0)
    loss = PerceptualLoss(None, [], [], content_weight=0, style_weight=0, pixel_weight=1)
    task = instantiate(config.task, network=instantiate(config.network, width=2), loss=loss)
    assert isinstance(task, SuperResTask)
    assert (task.scale, task.steps, task.kind) == (4, config.steps, "superres")


def test_the_task_of_style_swap_brings_what_it_needs() -> None:
    config = compose("experiment/inverse")
    assert "style" not in config
    assert (config.name, config.data.batch_size, config.encoder.weights) == ("swap", 2, "slim")
    network, loss = instantiate(config.network), instantiate(config.loss, encoder=instantiate(config.encoder))
    assert network.config == {key: value for key, value in config.network.items() if key != "_target_"}
    task = instantiate(config.task, network=network, loss=loss)
    assert isinstance(task, InverseTask)
    assert (task.layer, task.patch, task.stride, task.kind) == ("relu3_1", 3, 1, "swap")


@pytest.mark.parametrize(("loss", "content", "pixel"), [("feature", {"relu2_2": 1.0}, 0), ("pixel", {}, 1)])
def test_what_is_said_of_super_resolution_wins(loss: str, content: dict[str, float], pixel: float) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", ["experiment=superres", f"loss={loss}", "network=superres_x8", "name=mine"])
    assert (config.network.scale, config.name, config.output) == (8, "mine", "runs/mine")
    assert dict(config.loss.content_layers) == content
    assert (config.loss.pixel_weight, config.loss.style_weight) == (pixel, 0)


@pytest.mark.parametrize("option", named("trainer"))
def test_trainers_are_built(option: str, tmp_path: Path) -> None:
    config = compose(option)
    trainer = instantiate(
        config.trainer, accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=str(tmp_path)
    )
    assert trainer.max_steps == config.steps


def test_the_time_of_a_run_may_be_bounded(tmp_path: Path) -> None:
    config = OmegaConf.merge(compose("trainer/default").trainer, {"max_time": {"minutes": 30}})
    trainer = instantiate(
        config, max_steps=9, accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=str(tmp_path)
    )
    (timer,) = (callback for callback in trainer.callbacks if type(callback).__name__ == "Timer")
    assert timer.time_remaining() == 30 * 60


def test_the_experiment_of_johnson_is_the_papers_run() -> None:
    """§ 4.1: MS-COCO at 256 × 256, batch 4, 40k iterations, Adam 1e-3, no decay; relu2_2, relu1_2 … relu4_3."""
    config = compose("experiment/johnson")
    assert config.steps == config.trainer.max_steps == config.task.steps == 40_000
    assert (config.data.size, config.data.batch_size, config.trainer.accumulate_grad_batches) == (256, 4, 1)
    assert config.data.source.repository == "detection-datasets/coco"
    assert (config.task.learning_rate, config.task.schedule, config.task.warmup) == (1e-3, "none", 0)
    assert config.task.optimizer == "adam"
    assert (config.encoder.architecture, config.encoder.weights) == ("vgg16", "features")
    assert list(config.loss.content_layers) == ["relu2_2"]
    assert list(config.loss.style_layers) == ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
    assert (config.loss.content_form, config.loss.gram_divisor, config.loss.style_form, config.loss.balanced) == (
        "mean",
        "chw",
        "sum",
        False,
    )
    assert 1e-6 <= config.loss.tv_weight <= 1e-4  # the paper's range
    network = config.network
    assert (network.norm, network.padding, network.upsampling, network.border, network.output) == (
        *("batch", "zeros", "transposed", 40, "tanh"),
    )
    assert config.callbacks.average is None


def test_the_quick_experiment_needs_no_encoder_from_elsewhere_and_starts_from_a_bundled_style() -> None:
    config = compose("experiment/quick")
    assert (config.encoder.architecture, config.encoder.weights) == ("vgg19", "slim")
    start = load_model_file(bundled_files("style")[config.init_from]).network
    assert {**start.config, "width": config.network.width} == start.config
    assert config.loss == compose("loss/balanced").loss


def test_the_norms_experiment_trains_norms_alone_from_what_is_predicted() -> None:
    config = compose("experiment/norms")
    assert (config.encoder.architecture, config.encoder.weights, config.task.train) == ("vgg19", "slim", "norms")
    start = load_model_file(bundled_files("arbitrary")[config.init_from]).network
    assert start.config == {**dict(start.config), "width": config.network.width}


# --- the slow mode ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "ratio", "start"),
    [
        ("gatys", 1e-3, "noise"),
        ("gatys_3c", 8e-4, "noise"),
        ("gatys_3d", 5e-3, "noise"),
        ("gatys_3e", 5e-4, "noise"),
        ("photorealistic", 1e-2, "content"),
    ],
)
def test_the_presets_of_gatys_have_the_papers_ratios(preset: str, ratio: float, start: str) -> None:
    config = compose(f"preset/{preset}")
    assert config.loss.content_weight / config.loss.style_weight == pytest.approx(ratio)
    assert list(config.loss.content_layers.items()) == [("relu4_2", 1.0)]
    assert dict(config.loss.style_layers) == {f"relu{block}_1": 0.2 for block in range(1, 6)}
    assert (config.loss.content_form, config.loss.gram_divisor, config.loss.style_form) == ("half_sum", "hw", "quarter")
    assert (config.encoder.architecture, config.encoder.pooling, config.encoder.normalize) == (
        *("vgg19", "average", "data"),
    )
    assert (config.start, config.optimizer, config.iterations, config.style.size) == (start, "lbfgs", 500, None)


def test_the_preset_of_gatys_later_code() -> None:
    config = compose("preset/gatys-code")
    assert (list(config.sizes), list(config.iterations), config.start) == ([512, 800], [500, 200], "content")
    assert (config.encoder.architecture, config.encoder.pooling, config.encoder.normalize) == ("vgg19", "max", None)
    assert config.loss.style_weight * config.loss.style_layers.relu1_1 == pytest.approx(1e3 / 64**2)


def test_the_preset_of_chen_is_the_papers() -> None:
    config = compose("preset/chen")
    assert (config.mode, config.start, config.iterations) == ("swap", "content", 100)
    assert (config.optimizer, config.learning_rate, config.bounds) == ("adam", 0.05, "unit")
    assert (config.patch, config.stride, list(config.loss.content_layers)) == (3, 1, ["relu3_1"])
    assert (config.encoder.architecture, config.encoder.pooling) == ("vgg19", "max")
    assert config.loss.style_weight == 0
    assert config.loss.tv_weight == 1e-6


def test_the_texture_mode_is_the_papers() -> None:
    config = compose("mode/texture")
    assert (config.start, config.noise, config.bounds, config.iterations, config.size) == (
        *("noise", pytest.approx(1 / 255), "source", 2000, 256),
    )
    assert list(config.loss.style_layers) == ["relu1_1", "pool1", "pool2", "pool3", "pool4"]
