"""Several styles in one network: which paintings they are, who is painted in which, what is judged, what is written."""

from __future__ import annotations

import copy
import io
import shutil
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from safetensors.torch import load_file

from commands import in_folder
from fststyle.cli import main
from fststyle.config import ConfigError, compose
from fststyle.encoders.vgg import VGGEncoder
from fststyle.images import ImageError, save_image
from fststyle.losses import PerceptualLoss, measure_normalizers
from fststyle.model_file import load_model_file, read_metadata
from fststyle.networks.transform import TransformNet
from fststyle.tensor_files import is_style_parameter
from fststyle.training import thumbnails
from fststyle.training.checkpoints import training_checkpoints
from fststyle.training.data import Photographs
from fststyle.training.run import Run, build
from fststyle.training.sources import Generated, folder
from fststyle.training.styles import resolve_styles
from fststyle.training.tasks import StyleTask

pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:(pytorch_lightning|lightning_fabric)", "ignore:.*LeafSpec.*")

NAMES = ["fern", "lily", "rose"]


@pytest.fixture(scope="session")
def garden(tmp_path_factory: pytest.TempPathFactory, photographs: Path, astronaut: np.ndarray) -> Path:
    """Photographs, and paintings in ``art``."""
    desk = tmp_path_factory.mktemp("garden")
    shutil.copytree(photographs, desk / "photos")
    (desk / "art").mkdir()
    for index, name in enumerate(NAMES):
        save_image(astronaut[100 * index : 100 * index + 96, :96].copy(), desk / "art" / f"{name}.png")
    (desk / "art" / "notes.txt").write_text("no painting")
    return desk


@pytest.fixture
def desk(garden: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(garden, tmp_path / "desk"))


@cache
def composed() -> DictConfig:
    """Of a small run, but for its paths; composing takes longer than building."""
    words = ["style.image=x", "data=folder", "data.source.path=x", "style.size=64"]
    words += ["encoder=random", "encoder.widths=[4,4,4,4,4]", "network.width=4", "network.residual_blocks=1"]
    words += ["data.size=32", "data.workers=0", "data.held_out=2", "data.batch_size=2", "steps=2", "logger=csv"]
    words += ["calibration_photographs=4", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
    words += ["task.warmup=0", "task.schedule=none", "callbacks.previews=null", "callbacks.diagnostics=null"]
    return compose("train", [*words, "task.compile=false", "trainer.log_every_n_steps=1"])


def run(desk: Path, *more: str, styles: dict[str, Any] | None = None) -> Run:
    """A run over the folder of paintings; ``more`` are keys with values in YAML."""
    config = copy.deepcopy(composed())
    config.style.image, config.data.source.path = str(desk / "art"), str(desk / "photos")
    config.output = str(desk / "out")
    for word in more:
        key, _, value = word.partition("=")
        OmegaConf.update(config, key, yaml.safe_load(value), merge=False, force_add=True)
    if styles is not None:
        config.styles = styles
    return build(config)


@pytest.fixture(scope="session")
def trained(garden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps, with everything that is logged and shown."""
    out = tmp_path_factory.mktemp("trained") / "out"
    shown = {"_target_": "fststyle.training.callbacks.Previews", "folder": str(out / "previews"), "every": 4}
    examined = {"_target_": "fststyle.training.callbacks.Diagnostics", "every": 4}
    words = [f"callbacks.previews={shown}", f"callbacks.diagnostics={examined}", "trainer.val_check_interval=2"]
    assert run(garden, f"output={out}", "steps=4", *words).fit() == out / "art.safetensors"
    return out


# --- which paintings --------------------------------------------------------------------------------


def test_a_folder_is_a_style_of_each_painting(desk: Path) -> None:
    (desk / "art" / "rose.png").rename(desk / "art" / "wave.png")
    config = copy.deepcopy(composed())
    config.style.image, config.style.size = str(desk / "art"), 48
    found = resolve_styles(config)
    assert list(found) == ["fern", "lily", "wave"]
    assert (found["fern"].size, found["fern"].weight) == (48, 1.0)  # as style says
    assert (found["wave"].size, found["wave"].weight) == (512, 1.5)  # as conf/style/wave.yaml does
    assert config.name == "art"
    assert config.style is None
    assert OmegaConf.to_container(config.styles, resolve=True) == {name: dict(each) for name, each in found.items()}


def test_a_list_has_each_presets_settings_and_finds_paintings_in_a_folder(desk: Path) -> None:
    (desk / "art" / "rose.png").rename(desk / "art" / "wave.png")
    words = ["style=[wave,mosaic]", f"style.image={desk / 'art'}", "styles.mosaic.size=100", "data=generated"]
    config = compose("train", words)
    found = resolve_styles(config)
    assert [(name, each.name) for name, each in found.items()] == [("wave", "wave"), ("mosaic", "mosaic")]
    assert (found["wave"].image, found["wave"].size, found["wave"].weight) == (str(desk / "art" / "wave.png"), 512, 1.5)
    assert (Path(found["mosaic"].image).name, found["mosaic"].size) == ("mosaic.jpg", 100)
    assert (config.name, config.output) == ("zoo", "runs/zoo")
    again = OmegaConf.create(OmegaConf.to_yaml(config, resolve=True))
    assert resolve_styles(again) == found  # as it is saved beside the run


def test_a_list_of_one_and_a_folder_of_one_are_a_single_style(desk: Path) -> None:
    assert compose("train", ["style=[mosaic]", "data=generated"]) == compose(
        "train", ["style=mosaic", "data=generated"]
    )
    for name in NAMES[1:]:
        (desk / "art" / f"{name}.png").unlink()
    made = run(desk)
    assert (made.config.styles, made.config.style.name, made.task.network.styles) == ({}, "fern", 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["style=[wave,wave]"], "style names 'wave' twice"),
        (["style=[]"], "takes a list of styles, such as style=[wave,udnie]"),
        (["style=[wave,a/b]"], "style has 'a/b'; expected names of letters"),
        (["style=[mosaic,hatching],[wave]"], "takes a list of styles"),
    ],
)
def test_lists_that_cannot_be_are_refused(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        compose("train", words)
    assert told in str(refusal.value)


def test_one_style_alone_is_optimised() -> None:
    with pytest.raises(ConfigError, match="fststyle optimize takes one style"):
        compose("optimize", ["style=[wave,mosaic]"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "style wave comes without its painting; give the folder of it: style.image=FOLDER, or styles.wave.image"),
        (["style.image=art"], "art has none called wave.jpg or alike"),
        (["style.image=art/rose.png"], "art/rose.png, which is no folder"),
        (["style.image=elsewhere"], "elsewhere, which is no folder"),
    ],
)
def test_a_painting_that_is_missing_is_named(
    words: list[str], told: str, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    with pytest.raises(ConfigError) as refusal:
        resolve_styles(compose("train", ["style=[mosaic,wave]", *words]))
    assert told in str(refusal.value)


def test_an_empty_folder_is_refused(desk: Path) -> None:
    for name in NAMES:
        (desk / "art" / f"{name}.png").unlink()
    with pytest.raises(ImageError, match="art: has no pictures in it"):
        run(desk)


@pytest.mark.parametrize("name", ["a,b.png", "a=b.png", " a.png"])
def test_a_name_that_no_mixture_could_have_is_refused(name: str, desk: Path) -> None:
    (desk / "art" / "rose.png").rename(desk / "art" / name)
    with pytest.raises(ConfigError, match="cannot be named in a mixture; rename the file"):
        run(desk)


def test_two_paintings_of_one_name_are_refused(desk: Path) -> None:
    shutil.copy(desk / "art" / "rose.png", desk / "art" / "rose.jpg")
    with pytest.raises(ConfigError, match=r"rose\.jpg and rose\.png: both are called rose"):
        run(desk)


def test_a_broken_painting_is_named(desk: Path) -> None:
    (desk / "art" / "lily.png").write_bytes((desk / "art" / "lily.png").read_bytes()[:100])
    with pytest.raises(ImageError, match=r"lily\.png"):
        run(desk)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("network.norm=batch", "styles is 3, norm 'batch'"),
        ("network={_target_: fststyle.networks.superres.SuperResNet}", "SuperResNet has no norms for several styles"),
    ],
)
def test_a_network_that_takes_one_style_is_refused(word: str, told: str, desk: Path) -> None:
    with pytest.raises((ConfigError, InstantiationException)) as refusal:
        run(desk, word)
    assert told in str(refusal.value.__cause__ or refusal.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["style=[mosaic,wave]"], "style wave comes without its painting"),
        (["style=[mosaic,mosaic]"], "style names 'mosaic' twice"),
        (["style=[mosaic,sea]"], "style has no option 'sea'"),
        (["style.image=empty"], "empty: has no pictures in it"),
        (["style=[mosaic,hatching]", "experiment=superres"], "SuperResTask takes no style"),
    ],
)
def test_the_command_refuses_in_one_line(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    with in_folder(tmp_path):
        assert main(["train", *words, "data=generated", "encoder=random"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


# --- who is painted in which ------------------------------------------------------------------------


def which(data: Photographs, batches: int, rank: int = 0, ranks: int = 1, step: int = 0) -> list[int]:
    trainer = {"global_step": step, "accumulate_grad_batches": 1, "global_rank": rank, "world_size": ranks}
    data.trainer = type("T", (), trainer)  # type: ignore[assignment]
    loader = iter(data.train_dataloader())
    return [number for _ in range(batches) for number in next(loader)["which"].tolist()]


def photos(source: Any, workers: int = 0, batch_size: int = 4, **options: Any) -> Photographs:
    return Photographs(source, size=32, batch_size=batch_size, workers=workers, held_out=2, style_count=3, **options)


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


# --- what is logged and written ---------------------------------------------------------------------


def test_every_style_is_logged_and_shown(trained: Path) -> None:
    import csv

    with open(trained / "csv" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    for name in NAMES:
        for key, least in ((f"train/styles/{name}", 2), (f"val/styles/{name}", 2), (f"diagnostics/{name}/blobs", 1)):
            assert sum(bool(row[key]) for row in rows) >= least, key
    with Image.open(trained / "previews" / "step_00000004.png") as sheet:
        assert sheet.height > 3 * 32  # photographs, and a row for each style


def test_one_file_holds_all_styles(trained: Path) -> None:
    whole = load_model_file(trained / "art.safetensors", "style")
    assert [entry.name for entry in whole.styles] == NAMES
    assert "normalizers" not in whole.metadata["loss"]
    for entry in whole.styles:
        assert {"style", "loss", "held_out", "diagnostics"} <= entry.metadata.keys()
        assert entry.metadata["style"]["image"] == f"{entry.name}.png"
        assert len(entry.thumbnail) <= thumbnails.MOST
        with Image.open(io.BytesIO(entry.thumbnail)) as picture:
            assert max(picture.size) == thumbnails.SIDE
    one = load_model_file(trained / "art.safetensors" / "lily")
    assert (one.metadata["name"], one.metadata["steps"]) == ("lily", 4)
    assert set(one.metadata["loss"]["normalizers"]) == set(one.metadata["held_out"]) - {"total"}
    image = torch.rand(1, 3, 32, 32)
    assert torch.allclose(one.network(image), whole.network(image, torch.eye(3)[1:2]), atol=1e-6)
    mean = [entry.metadata["held_out"]["total"] for entry in whole.styles]
    assert whole.metadata["held_out"]["total"] == pytest.approx(sum(mean) / 3, abs=1e-4)


def test_a_style_of_the_file_is_judged_as_the_run_judged_it(trained: Path, garden: Path) -> None:
    """From the file alone."""
    made = run(garden, f"output={trained.parent / 'other'}")
    one = load_model_file(trained / "art.safetensors" / "rose")
    assert made.task.loss.encoder is not None
    loss = PerceptualLoss.from_metadata(made.task.loss.encoder, one.metadata)
    photographs = made.data.held_out_images
    content = loss.content_targets(photographs, one.style_targets)
    with torch.no_grad():
        terms = loss(one.network(photographs), content, one.style_targets).scalars()
    for name, value in one.metadata["held_out"].items():
        assert float(terms[name]) == pytest.approx(value, rel=0.02), name


def test_a_styles_weight_is_that_of_its_loss(garden: Path, tmp_path: Path) -> None:
    styles = {
        name: {"name": name, "image": str(garden / "art" / f"{name}.png"), "size": 64, "blur": 0, "weight": weight}
        | {"region": [0, 0, 1, 1]}
        for name, weight in (("fern", 0.5), ("rose", 2))
    }
    made = run(garden, f"output={tmp_path / 'out'}", "steps=1", "name=two", "style=null", styles=styles)
    exported = made.fit()
    assert exported is not None
    metadata = read_metadata(exported)
    assert metadata["loss"]["style_weight"] == 12.0
    assert [entry["loss"]["style_weight"] for entry in metadata["styles"]] == [6.0, 24.0]
    assert [entry["style"]["weight"] for entry in metadata["styles"]] == [0.5, 2]


def test_a_thumbnail_needs_no_scikit_image(network: TransformNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with Image.open(io.BytesIO(thumbnails.thumbnail(network.eval()))) as picture:
        assert picture.size == (thumbnails.SIDE, thumbnails.SIDE)


# --- going on ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def begun(garden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with paintings, photographs, and a run of two steps in ``out``."""
    desk = Path(shutil.copytree(garden, tmp_path_factory.mktemp("begun") / "desk"))
    run(desk, "steps=2", "trainer.val_check_interval=2").fit()
    return desk


def test_a_run_that_is_resumed_is_the_run_that_was_not_interrupted(trained: Path, begun: Path, tmp_path: Path) -> None:
    desk = Path(shutil.copytree(begun, tmp_path / "desk"))
    exported = run(desk, "steps=4", "resume=last", "trainer.val_check_interval=2").fit()
    assert exported is not None
    found, expected = load_file(exported), load_file(trained / "art.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("rename", "styles: found ['fern', 'iris', 'rose'], the checkpoint has ['fern', 'lily', 'rose']"),
        ("remove", "was begun with another network"),
        ("style.size=48", "styles.fern.size: found 48, the checkpoint has 64"),
    ],
)
def test_other_paintings_are_named_when_a_run_is_resumed(change: str, told: str, begun: Path, tmp_path: Path) -> None:
    desk = Path(shutil.copytree(begun, tmp_path / "desk"))
    words = [change] if "=" in change else []
    if change == "rename":
        (desk / "art" / "lily.png").rename(desk / "art" / "iris.png")
    if change == "remove":
        (desk / "art" / "lily.png").unlink()
    with pytest.raises(ConfigError) as refusal:
        run(desk, "resume=last", "steps=4", *words)
    assert told in str(refusal.value)
    assert training_checkpoints(desk / "out")


# --- on the convolutions of another file ------------------------------------------------------------


def convolutions(file: Path) -> dict[str, torch.Tensor]:
    return {key: value for key, value in load_model_file(file).network.state_dict().items() if ".norm." not in key}


@pytest.fixture
def painting(desk: Path) -> Path:
    """One that the network does not know, much like one that it does."""
    with Image.open(desk / "art" / "lily.png") as lily:
        lily.point(lambda level: level * 0.97).save(desk / "peony.png")
    return desk / "peony.png"


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_norms_alone_are_trained_and_written(optimizer: str, trained: Path, desk: Path, painting: Path) -> None:
    words = (f"style.image={painting}", f"init_from={trained / 'art.safetensors'}", "task.train=norms")
    made = run(desk, *words, f"task.optimizer={optimizer}")
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


def test_a_new_painting_begins_with_the_norms_of_the_nearest(trained: Path, desk: Path, painting: Path) -> None:
    made = run(desk, f"style.image={painting}", f"init_from={trained / 'art.safetensors'}")
    near = load_model_file(trained / "art.safetensors" / "lily").network.state_dict()
    assert all(torch.equal(value, near[name]) for name, value in made.task.network.state_dict().items())


def test_a_style_of_the_same_name_goes_on_and_others_join(trained: Path, desk: Path, painting: Path) -> None:
    shutil.copy(painting, desk / "art")
    (desk / "art" / "fern.png").unlink()
    made = run(desk, f"init_from={trained / 'art.safetensors'}")
    known = load_model_file(trained / "art.safetensors").network.style_parameters()
    for name, value in made.task.network.style_parameters().items():
        assert torch.equal(value, known[name][[1, 1, 2]]), name  # lily, peony, rose


def test_the_same_styles_go_on_with_all_weights(trained: Path, desk: Path) -> None:
    made = run(desk, f"init_from={trained / 'art.safetensors'}")
    known = load_model_file(trained / "art.safetensors").network.state_dict()
    assert all(torch.equal(value, known[name]) for name, value in made.task.network.state_dict().items())


def test_what_cannot_be_compared_begins_with_the_mean(trained: Path, desk: Path, painting: Path) -> None:
    words = (f"style.image={painting}", f"init_from={trained / 'art.safetensors'}", "encoder.widths=[5,5,5,5,5]")
    made = run(desk, *words, "loss.style_layers={relu1_1: 1.0}", "loss.color_weight=0")
    known = load_model_file(trained / "art.safetensors").network.style_parameters()
    for name, value in made.task.network.style_parameters().items():
        assert torch.allclose(value, known[name].mean(0), atol=1e-6)


def test_norms_alone_ask_for_convolutions(desk: Path, painting: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"task\.train=norms trains scales, shifts and colours alone.*give init_from="
    ):
        run(desk, f"style.image={painting}", "task.train=norms")


@pytest.mark.parametrize(
    ("options", "told"), [({"norm": "batch"}, "no instance norms that could be trained alone"), ({}, "all or norms")]
)
def test_a_task_refuses_what_it_cannot_train(options: dict[str, Any], told: str, encoder: VGGEncoder) -> None:
    network, loss = TransformNet(width=4, residual_blocks=1, **options), PerceptualLoss(encoder)
    with pytest.raises(ValueError, match=told):
        StyleTask(network, loss, loss.style_targets(torch.rand(1, 3, 32, 32)), train="norms" if options else "some")


def test_a_run_of_norms_alone_is_resumed_to_the_same_bits(trained: Path, desk: Path, painting: Path) -> None:
    words = (f"style.image={painting}", f"init_from={trained / 'art.safetensors'}", "task.train=norms")
    exported = [run(desk, *words, f"output={desk / 'straight'}", "steps=3").fit()]
    run(desk, *words, "steps=1").fit()
    with pytest.raises(ConfigError, match=r"task\.train: found all|begun with another optimizer"):
        run(desk, *words, "task.train=all", "steps=3", "resume=last")
    exported.append(run(desk, *words, "steps=3", "resume=last").fit())
    straight, resumed = (load_file(file) for file in exported if file is not None)
    assert all(torch.equal(resumed[name], value) for name, value in straight.items())
