"""Several styles in one network: which, what is logged and written, and going on."""

from __future__ import annotations

import copy
import io
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file

from commands import in_folder
from fststyle.cli import main
from fststyle.config import ConfigError, compose
from fststyle.images import ImageError
from fststyle.losses import PerceptualLoss
from fststyle.model_file import load_model_file, read_metadata
from fststyle.networks.octaves import in_octaves
from fststyle.networks.transform import TransformNet
from fststyle.training import thumbnails
from fststyle.training.checkpoints import training_checkpoints
from fststyle.training.styles import resolve_styles
from gardens import NAMES, composed, run

pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:(pytorch_lightning|lightning_fabric)", "ignore:.*LeafSpec.*")


# --- which paintings --------------------------------------------------------------------------------


def test_a_folder_is_a_style_of_each_painting(plot: Path) -> None:
    (plot / "art" / "rose.png").rename(plot / "art" / "wave.png")
    config = copy.deepcopy(composed())
    config.style.image, config.style.size = str(plot / "art"), 48
    found = resolve_styles(config)
    assert list(found) == ["fern", "lily", "wave"]
    assert (found["fern"].size, found["fern"].weight) == (48, 1.0)  # as style says
    assert (found["wave"].size, found["wave"].weight) == (704, 0.5)  # as conf/style/wave.yaml does
    assert config.name == "art"
    assert config.style is None
    assert OmegaConf.to_container(config.styles, resolve=True) == {name: dict(each) for name, each in found.items()}


def test_a_list_has_each_presets_settings_and_finds_paintings_in_a_folder(plot: Path) -> None:
    (plot / "art" / "rose.png").rename(plot / "art" / "wave.png")
    words = ["style=[wave,mosaic]", f"style.image={plot / 'art'}", "styles.mosaic.size=100", "data=generated"]
    config = compose("train", words)
    found = resolve_styles(config)
    assert [(name, each.name) for name, each in found.items()] == [("wave", "wave"), ("mosaic", "mosaic")]
    assert (found["wave"].image, found["wave"].size, found["wave"].weight) == (str(plot / "art" / "wave.png"), 704, 0.5)
    assert (Path(found["mosaic"].image).name, found["mosaic"].size) == ("mosaic.jpg", 100)
    assert (config.name, config.output) == ("zoo", "runs/zoo")
    again = OmegaConf.create(OmegaConf.to_yaml(config, resolve=True))
    assert resolve_styles(again) == found  # as it is saved beside the run


def test_a_list_of_one_and_a_folder_of_one_are_a_single_style(plot: Path) -> None:
    assert compose("train", ["style=[mosaic]", "data=generated"]) == compose(
        "train", ["style=mosaic", "data=generated"]
    )
    for name in NAMES[1:]:
        (plot / "art" / f"{name}.png").unlink()
    made = run(plot)
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
    words: list[str], told: str, plot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plot)
    with pytest.raises(ConfigError) as refusal:
        resolve_styles(compose("train", ["style=[mosaic,wave]", *words]))
    assert told in str(refusal.value)


def test_an_empty_folder_is_refused(plot: Path) -> None:
    for name in NAMES:
        (plot / "art" / f"{name}.png").unlink()
    with pytest.raises(ImageError, match="art: has no pictures in it"):
        run(plot)


@pytest.mark.parametrize("name", ["a,b.png", "a=b.png", " a.png"])
def test_a_name_that_no_mixture_could_have_is_refused(name: str, plot: Path) -> None:
    (plot / "art" / "rose.png").rename(plot / "art" / name)
    with pytest.raises(ConfigError, match="cannot be named in a mixture; rename the file"):
        run(plot)


def test_two_paintings_of_one_name_are_refused(plot: Path) -> None:
    shutil.copy(plot / "art" / "rose.png", plot / "art" / "rose.jpg")
    with pytest.raises(ConfigError, match=r"rose\.jpg and rose\.png: both are called rose"):
        run(plot)


def test_a_broken_painting_is_named(plot: Path) -> None:
    (plot / "art" / "lily.png").write_bytes((plot / "art" / "lily.png").read_bytes()[:100])
    with pytest.raises(ImageError, match=r"lily\.png"):
        run(plot)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("network.norm=batch", "styles is 3, norm 'batch'"),
        ("network={_target_: fststyle.networks.superres.SuperResNet}", "SuperResNet has no norms for several styles"),
    ],
)
def test_a_network_that_takes_one_style_is_refused(word: str, told: str, plot: Path) -> None:
    with pytest.raises((ConfigError, InstantiationException)) as refusal:
        run(plot, word)
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
        made_in = in_octaves(one.network, photographs, one.metadata["octaves"])
        terms = loss(made_in, content, one.style_targets).scalars()
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
    assert metadata["loss"]["style_weight"] == 14.0
    assert [entry["loss"]["style_weight"] for entry in metadata["styles"]] == [7.0, 28.0]
    assert [entry["style"]["weight"] for entry in metadata["styles"]] == [0.5, 2]


def test_a_thumbnail_needs_no_scikit_image(network: TransformNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with Image.open(io.BytesIO(thumbnails.thumbnail(network.eval()))) as picture:
        assert picture.size == (thumbnails.SIDE, thumbnails.SIDE)


@pytest.fixture(scope="session")
def begun(garden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with paintings, photographs, and a run of two steps in ``out``."""
    plot = Path(shutil.copytree(garden, tmp_path_factory.mktemp("begun") / "plot"))
    run(plot, "steps=2", "trainer.val_check_interval=2").fit()
    return plot


# --- going on ---------------------------------------------------------------------------------------


def test_a_run_that_is_resumed_is_the_run_that_was_not_interrupted(trained: Path, begun: Path, tmp_path: Path) -> None:
    plot = Path(shutil.copytree(begun, tmp_path / "plot"))
    exported = run(plot, "steps=4", "resume=last", "trainer.val_check_interval=2").fit()
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
    plot = Path(shutil.copytree(begun, tmp_path / "plot"))
    words = [change] if "=" in change else []
    if change == "rename":
        (plot / "art" / "lily.png").rename(plot / "art" / "iris.png")
    if change == "remove":
        (plot / "art" / "lily.png").unlink()
    with pytest.raises(ConfigError) as refusal:
        run(plot, "resume=last", "steps=4", *words)
    assert told in str(refusal.value)
    assert training_checkpoints(plot / "out")
