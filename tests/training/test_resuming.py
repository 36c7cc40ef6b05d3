"""Going on with a run: which settings may differ, which are named, and whose folder and files are left alone."""

from __future__ import annotations

import copy
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from fststyle.config import ConfigError, compose
from fststyle.images import save_image
from fststyle.model_file import read_metadata
from fststyle.training.checkpoints import training_checkpoints
from fststyle.training.resuming import differences
from fststyle.training.run import Run, build

pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:(pytorch_lightning|lightning_fabric)", "ignore:.*LeafSpec.*")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, photographs: Path, astronaut: np.ndarray) -> Path:
    """A folder with a painting, photographs, and a run of one step in ``out``."""
    desk = tmp_path_factory.mktemp("begun")
    save_image(astronaut[:96, :96].copy(), desk / "painting.png")
    save_image(astronaut[96:192, :96].copy(), desk / "other.png")
    shutil.copytree(photographs, desk / "photos")
    run(desk).fit()
    return desk


@pytest.fixture
def desk(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path / "desk"))


@cache
def composed(data: str = "folder") -> DictConfig:
    """Of a small run, but for its paths; composing takes longer than building."""
    words = ["style.image=x", f"data={data}", *(["data.source.path=x"] if data == "folder" else []), "style.size=64"]
    words += ["encoder=random", "encoder.widths=[4,4,4,4,4]", "network.width=4", "network.residual_blocks=1"]
    words += ["data.size=32", "data.workers=0", "data.held_out=2", "data.batch_size=2", "steps=1", "logger=csv"]
    words += ["calibration_photographs=4", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
    return compose("train", [*words, "callbacks.previews=null", "callbacks.diagnostics=null", "task.compile=false"])


def run(desk: Path, *more: str, name: object = None, data: str = "folder") -> Run:
    """A run from a folder; ``more`` are keys with values in YAML."""
    config = copy.deepcopy(composed(data))
    config.style.image, config.output = str(desk / "painting.png"), str(desk / "out")
    if data == "folder":
        config.data.source.path = str(desk / "photos")
    for word in more:
        key, _, value = word.partition("=")
        OmegaConf.update(config, key, yaml.safe_load(value), merge=False)
    if name is not None:
        config.name = name
    return build(config)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- settings ---------------------------------------------------------------------------------------

CHANGES = [
    ("loss.style_weight=20", "loss.style_weight: found 20, the checkpoint has 14.0"),
    ("loss.content_weight=2", "loss.content_weight: found 2, the checkpoint has 1.0"),
    ("loss.tv_weight=0", "loss.tv_weight: found 0, the checkpoint has 0.3"),
    ("loss.content_layers.relu4_2=0.5", "loss.content_layers.relu4_2: found 0.5, the checkpoint has 0.8"),
    ("style.weight=2", "style.weight: found 2, the checkpoint has 1.0"),
    ("style.size=48", "style.size: found 48, the checkpoint has 64"),
    ("style.blur=1", "style.blur: found 1, the checkpoint has 0.0"),
    ("style.region=[0,0,1,0.5]", "style.region: found [0, 0, 1, 0.5], the checkpoint has [0, 0, 1, 1]"),
    ("data.batch_size=3", "global batch: found 3, the checkpoint has 2"),
    ("trainer.accumulate_grad_batches=2", "global batch: found 4, the checkpoint has 2"),
    ("data.size=48", "data.size: found 48, the checkpoint has 32"),
    ("data.scale=[0.5,1.0]", "data.scale: found [0.5, 1.0], the checkpoint has [0.3, 1.0]"),
    ("data.held_out=1", "data.held_out: found 1, the checkpoint has 2"),
    ("seed=7", "seed: found 7, the checkpoint has 0"),
    ("network.padding=zeros", "network.padding: found zeros, the checkpoint has reflect"),
    ("network.width=6", "network.width: found 6, the checkpoint has 4"),
    ("encoder.seed=1", "encoder.weights: found vgg16-random-1, the checkpoint has vgg16-random-0"),
    ("encoder.widths=[4,4,4,4,5]", "encoder.widths: found [4, 4, 4, 4, 5], the checkpoint has [4, 4, 4, 4, 4]"),
    ("encoder.pooling=average", "encoder.pooling: found average, the checkpoint has max"),
    ("task.checkerboard_weight=0", "task.checkerboard_weight: found 0, the checkpoint has 1000.0"),
    ("task.stability_weight=0", "task.stability_weight: found 0, the checkpoint has 1"),
    ("task.octaves=1", "task.octaves: found 1, the checkpoint has 2"),
    ("task.style_samples=100", "task.style_samples: found 100, the checkpoint has 8192"),
    ("task.style_samples=null", "task.style_samples: found none, the checkpoint has 8192"),
    ("loss.color_weight=1", "loss.color_weight: found 1, the checkpoint has 0.08"),
    ("loss.hue_weight=1", "loss.hue_weight: found 1, the checkpoint has 8"),
    ("loss.hue_block=4", "loss.hue_block: found 4, the checkpoint has 8"),
    ("loss.pixel_weight=1", "loss.pixel_weight: found 1, the checkpoint has 0.0"),
    ("loss.balanced=false", "loss.balanced: found false, the checkpoint has true"),
    ("loss.style_layers.relu1_2=2", "loss.style_layers.relu1_2: found 2, the checkpoint has 0.7"),
    ("network.output=tanh", "network.output: found tanh, the checkpoint has sigmoid"),
    ("network.upsampling=nearest", "network.upsampling: found nearest, the checkpoint has bilinear"),
    ("network.norm=batch", "network.norm: found batch, the checkpoint has instance"),
    ("network.residual_blocks=2", "network.residual_blocks: found 2, the checkpoint has 1"),
    ("encoder.preprocess=caffe", "encoder.preprocess: found caffe, the checkpoint has none"),
    ("encoder.padding=reflect", "encoder.padding: found reflect, the checkpoint has zeros"),
    ("data.scale=null", "data.scale: found none, the checkpoint has [0.3, 1.0]"),
    ("data.seed=5", "seed: found 5, the checkpoint has 0"),
    ("data.batch_size=4", "global batch: found 4, the checkpoint has 2"),
    ("style.region=[0,0,1,0.9999]", "style.region: found [0, 0, 1, 0.9999], the checkpoint has [0, 0, 1, 1]"),
]


@pytest.mark.parametrize(("word", "message"), CHANGES, ids=[word for word, _ in CHANGES])
def test_a_setting_that_changes_objective_or_order_is_named_and_refused(word: str, message: str, desk: Path) -> None:
    before = contents(desk / "out")
    with pytest.raises(ConfigError) as refusal:
        run(desk, word, "steps=2", "resume=last")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert contents(desk / "out") == before


@pytest.mark.parametrize("resume", ["auto", "CHECKPOINT"])
def test_however_a_run_is_resumed(resume: str, desk: Path) -> None:
    resume = resume.replace("CHECKPOINT", str(training_checkpoints(desk / "out")[0]))
    with pytest.raises(ConfigError, match="was begun with other settings: seed: found 7"):
        run(desk, "seed=7", f"resume={resume}")


def test_all_differences_are_in_one_message_and_the_option_is_named(desk: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        run(desk, "resume=last", "loss.style_weight=20", "seed=7", "data.batch_size=1", "style.blur=1")
    for part in ("loss.style_weight", "seed: found 7", "global batch: found 1", "style.blur", "resume_changed=true"):
        assert part in str(refusal.value)


@pytest.mark.parametrize(
    "words",
    [
        ["steps=3"],
        ["data.workers=1"],
        ["output=OUT"],
        ["logger={}"],
        ["trainer.precision=bf16-mixed"],
        ["data.batch_size=1", "trainer.accumulate_grad_batches=2"],
        ["data.batch_size=1", "trainer.devices=2"],
        ["callbacks.checkpoints.every=7"],
        ["+callbacks.previews.count=1"],
        ["task.learning_rate=0.0001"],
        ["calibration_photographs=3"],
        ["threads=1"],
        ["name=other"],
    ],
    ids=lambda words: words[0] if isinstance(words, list) else None,
)
def test_what_changes_neither_is_free(words: list[str], desk: Path) -> None:
    (state,) = training_checkpoints(desk / "out")
    words = [word.replace("OUT", str(desk / "elsewhere")) for word in words if not word.startswith("+")]
    assert run(desk, f"resume={state}", *words).steps_done == 1


def test_another_or_a_changed_painting_is_named_and_a_renamed_one_is_the_same(desk: Path) -> None:
    with pytest.raises(ConfigError, match=r"style\.image: found other\.png \(\w+\), the checkpoint has painting\.png"):
        run(desk, "resume=last", f"style.image={desk / 'other.png'}", "name=painting")
    shutil.copy(desk / "painting.png", desk / "renamed.png")
    assert run(desk, "resume=last", f"style.image={desk / 'renamed.png'}", "name=painting").steps_done == 1
    Image.open(desk / "painting.png").rotate(90).save(desk / "painting.png")
    with pytest.raises(ConfigError, match=r"style\.image: found painting\.png .* the checkpoint has painting\.png"):
        run(desk, "resume=last")


@pytest.mark.parametrize("change", ["removed", "added", "renamed", "changed", "another folder"])
def test_other_photographs_are_named_and_a_moved_folder_is_the_same(change: str, desk: Path) -> None:
    moved = desk / "moved"
    (desk / "photos").rename(moved)
    assert run(desk, "resume=last", f"data.source.path={moved}").steps_done == 1
    first = moved / "00.jpg"
    if change == "removed":
        first.unlink()
    elif change == "added":
        shutil.copy(first, moved / "zz.jpg")
    elif change == "renamed":
        first.rename(moved / "zz.jpg")
    elif change == "changed":  # of the same size
        content = bytearray(first.read_bytes())
        content[-40] ^= 1
        first.write_bytes(content)
    else:
        for number in range(12):
            save_image(np.full((40, 40, 3), 20 * number, np.uint8), moved / f"{number:02d}.jpg")
    with pytest.raises(
        ConfigError, match=r"data\.source: found folder moved, 1\d files \(.*the checkpoint has folder photos"
    ):
        run(desk, "resume=last", f"data.source.path={moved}")


def test_generated_pictures_instead_of_photographs_are_named(desk: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.source: found Generated size=320, the checkpoint has folder photos"):
        run(desk, "resume=last", data="generated")


def test_confirmed_changes_take_effect(desk: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    (saved,) = training_checkpoints(desk / "out")
    before = torch.load(saved, weights_only=True)
    words = [f"style.image={desk / 'other.png'}", "name=painting", "loss.style_weight=20", "steps=2", "resume=last"]
    made = run(desk, *words, "resume_changed=true")
    exported = made.fit()
    assert "another setting than before: loss.style_weight: found 20, the checkpoint has 14.0" in caplog.text
    after = torch.load(training_checkpoints(desk / "out")[0], weights_only=True)
    assert after["global_step"] == 2
    assert not torch.equal(after["style_targets"]["relu1_2"], before["style_targets"]["relu1_2"])
    assert after["normalizers"] != before["normalizers"]
    assert read_metadata(exported or "")["loss"]["style_weight"] == 20
    assert run(desk, *words, "steps=3").steps_done == 2  # from now on these are its settings


def test_another_style_term_can_be_confirmed_and_another_network_cannot(desk: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"another style term, .*loss\.style_form: found sliced, the checkpoint has mean"
    ):
        run(desk, "resume=last", "loss.style_form=sliced")
    assert run(desk, "resume=last", "loss.style_form=sliced", "resume_changed=true").steps_done == 1
    with pytest.raises(ConfigError, match=r"another network .*network\.width: found 6"):
        run(desk, "resume=last", "network.width=6", "resume_changed=true")


def test_a_checkpoint_of_an_earlier_version_resumes_without_the_comparison(desk: Path) -> None:
    (path,) = training_checkpoints(desk / "out")
    content = torch.load(path, weights_only=True)
    del content["settings"]
    torch.save(content, desk / "before.ckpt")
    shutil.rmtree(desk / "out")
    made = run(desk, f"resume={desk / 'before.ckpt'}", "loss.style_weight=20", "seed=3", "steps=2")
    assert made.fit() is not None
    assert made.trainer.global_step == 2


def test_another_learning_rate_takes_effect(desk: Path) -> None:
    made = run(desk, "resume=last", "task.learning_rate=0.00001", "task.warmup=0", "task.schedule=none", "steps=2")
    made.fit()
    after = torch.load(training_checkpoints(desk / "out")[0], weights_only=True)
    assert {group["lr"] for state in after["optimizer_states"] for group in state["param_groups"]} == {1e-5}


#: Keys that change neither the objective nor the order of samples, by their beginnings.
FREE: tuple[str, ...] = ("steps", "name", "output", "overwrite", "resume", "ckpt_path", "init_from", "threads")
FREE += ("calibration_photographs",)
FREE += ("trainer.", "callbacks.", "logger.", "hydra.", "task.optimizer", "task.learning_rate", "task.schedule")
FREE += ("task.warmup", "task.steps", "task.compile", "data.workers", "data.max_unreadable", "style.name", "styles")
FREE += ("task.kuwahara", "task.match_colors", "style.smoothed")


def test_every_key_is_compared_or_known_to_be_free(desk: Path) -> None:
    """A new setting is one or the other."""
    (state,) = training_checkpoints(desk / "out")
    compared = {*torch.load(state, weights_only=True)["settings"], "data.batch_size"}
    compared |= {"encoder.seed", "data.seed", "data.source.path"}

    def keys(node: Any, prefix: str = "") -> list[str]:
        found = []
        for key, value in node.items():
            name = f"{prefix}{key}"
            found += keys(value, f"{name}.") if isinstance(value, dict) and value else [name]
        return found

    settings = OmegaConf.to_container(composed(), resolve=False)
    told = {name for name in keys(settings) if not name.endswith("_target_") and not name.startswith(FREE)}
    assert sorted(told - compared) == []


def test_settings_of_either_side_alone_are_told() -> None:
    assert list(differences({"a": 1, "b": None}, {"a": 1, "c": True}).values()) == [
        "c: found none, the checkpoint has true"
    ]
    assert differences({"a": 1}, None) == {}
    before_these_settings = {"loss.hue_weight": 0.25, "loss.hue_block": 32, "task.octaves": 1}
    assert differences(before_these_settings, {"a": None}) == {}
    assert differences({"a": 1}, {"a": 1, "task.match_colors": True}) == {}  # of what is exported


# --- folders and files ------------------------------------------------------------------------------


NAMES = ["", ".", "..", "../x", "a/b", "/x", ".hidden", "a\0b", 244 * "x", 130 * "ä", 90 * "画", "\ud800", ["a"]]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("more", [[], ["output=ELSEWHERE"], ["overwrite=true"], ["resume=last"]], ids=range(4))
def test_a_name_that_is_no_files_is_refused_before_anything_is_written(
    name: object, more: list[str], desk: Path
) -> None:
    before = contents(desk.parent)
    with pytest.raises(ValueError, match=r"^name is .*; expected the name of a file, such as name=mine$"):
        run(desk, *[word.replace("ELSEWHERE", str(desk / "elsewhere")) for word in more], name=name)
    assert contents(desk.parent) == before


GOOD_NAMES = ["a b", "a.b", "ä画", "~x", 243 * "x", 7, "-x", "a\nb", "$HOME", "'\"#=,[]{}"]


@pytest.mark.parametrize("name", GOOD_NAMES, ids=range(len(GOOD_NAMES)))
def test_any_other_name_is_that_of_the_file(name: object, desk: Path) -> None:
    exported = run(desk, f"output={desk / 'new'}", name=name).fit()
    assert exported == desk / "new" / f"{name}.safetensors"
    assert exported.is_file()


OUTPUTS = ["''", 300 * "x", "null", f"a/{300 * 'x'}/b", "https://x.org/a", "/".join(900 * ["abcd"])]


@pytest.mark.parametrize("output", OUTPUTS, ids=range(len(OUTPUTS)))
def test_a_folder_that_cannot_be_is_refused(output: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    before = contents(desk)
    with pytest.raises(ValueError, match="output"):
        run(desk, f"output={output}")
    assert contents(desk) == before


@pytest.mark.parametrize(
    "resume", [[], ["overwrite=true"], ["resume=CHECKPOINT"], ["resume=CHECKPOINT", "overwrite=true"]]
)
@pytest.mark.parametrize("name", ["config.yaml", "train.log", "failed.txt", "command.txt", "painting.safetensors"])
def test_a_folder_of_others_is_left_alone_however_the_run_begins(resume: list[str], name: str, desk: Path) -> None:
    (state,) = training_checkpoints(desk / "out")
    mine = desk / "mine"
    mine.mkdir()
    (mine / name).write_text("_target_: fststyle.losses.PerceptualLoss\n")
    words = [word.replace("CHECKPOINT", str(state)) for word in resume]
    with pytest.raises(ConfigError, match="holds files that no training run wrote"):
        run(desk, f"output={mine}", *words)
    assert contents(mine) == {mine / name: b"_target_: fststyle.losses.PerceptualLoss\n"}


@pytest.mark.parametrize("more", [["overwrite=true"], ["resume=last"]])
def test_an_exported_file_is_replaced_where_the_run_wrote_it_and_no_other_is(more: list[str], desk: Path) -> None:
    own = desk / "out" / "painting.safetensors"
    shutil.copy(own, desk / "out" / "other.safetensors")
    (desk / "out" / "text.safetensors").write_text("mine")
    before = contents(desk / "out")
    for name in ("other", "text"):
        with pytest.raises(ConfigError, match=rf"{name}\.safetensors: the run in .* did not write it"):
            run(desk, f"name={name}", *more)
    (desk / "photo.jpg").write_text("mine")
    with pytest.raises(ConfigError, match=r"photo\.jpg: the run in .* did not write it"):
        run(desk, f"callbacks.export.path={desk / 'photo.jpg'}", *more)
    with pytest.raises(ConfigError, match="is a folder, where the exported file is to be"):
        run(desk, f"callbacks.export.path={desk}", *more)
    assert contents(desk / "out") == before
    assert run(desk, *more, "steps=2").fit() == own
    assert (desk / "out" / "text.safetensors").read_text() == "mine"


def test_a_run_that_begins_anew_removes_only_what_a_run_writes(desk: Path) -> None:
    mine = [
        "checkpoints/step_best.ckpt",
        "checkpoints/step_00000001.ckpt.bak",
        "previews/step_1_notes.png",
        "csv/step.csv",
    ]
    for name in mine:
        (desk / "out" / name).parent.mkdir(exist_ok=True)
        (desk / "out" / name).write_text("mine")
    run(desk, "overwrite=true").fit()
    assert [(desk / "out" / name).read_text() for name in mine] == 4 * ["mine"]
    assert len(training_checkpoints(desk / "out")) == 1


def test_a_checkpoint_of_another_run_does_not_push_out_this_ones(desk: Path) -> None:
    run(desk, f"output={desk / 'second'}", "seed=5").fit()
    (state,) = training_checkpoints(desk / "out")
    before = contents(desk / "second")
    with pytest.raises(ConfigError, match="holds a run already"):
        run(desk, f"output={desk / 'second'}", f"resume={state}")
    assert contents(desk / "second") == before
    shutil.copy(state, desk / state.name)  # of the run itself, kept elsewhere
    assert run(desk, f"resume={desk / state.name}").steps_done == 1


@pytest.mark.parametrize("seed", ["-1", "4294967296", "1.5", "null", "true", "one"])
def test_a_seed_that_no_generator_takes_is_refused(seed: str, desk: Path) -> None:
    with pytest.raises(ValueError, match=r"seed is .*; expected a whole number from 0 to 4294967295"):
        run(desk, f"seed={seed}", f"output={desk / 'new'}")
    assert not (desk / "new").exists()


@pytest.mark.parametrize(("batch", "warned"), [(10, False), (11, True)])
def test_fewer_photographs_than_a_batch_are_told_of(
    batch: int, warned: bool, desk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(desk, f"data.batch_size={batch}", f"output={desk / 'new'}").fit()
    assert ("a step takes 11 photographs and there are 10: every batch repeats some" in caplog.text) == warned
