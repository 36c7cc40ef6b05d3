"""Training without the command line: from ``conf/``, from plain objects, and what every override does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from fststyle.config import ConfigError, compose
from fststyle.images import save_image
from fststyle.model_file import load_model_file, read_metadata
from fststyle.networks.octaves import in_octaves
from fststyle.training.checkpoints import training_checkpoints
from fststyle.training.colors import spread
from fststyle.training.run import Run, build
from fststyle.training.signals import Stop
from marks import rest_slow

pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:pytorch_lightning", "ignore:.*LeafSpec.*")


@pytest.fixture
def words(photographs: Path, astronaut: Any, tmp_path: Path) -> list[str]:
    """The overrides of a small run."""
    save_image(astronaut[:96, :96].copy(), tmp_path / "painting.png")
    return [
        *(
            f"style.image={tmp_path / 'painting.png'}",
            "style.size=64",
            "data=folder",
            f"data.source.path={photographs}",
        ),
        *("encoder=random", "encoder.widths=[4,4,4,4,4]", "network.width=4", "network.residual_blocks=1"),
        *("data.size=32", "data.workers=0", "data.held_out=2", "data.batch_size=2", "steps=2"),
        *("calibration_photographs=4", "trainer.accelerator=cpu", f"output={tmp_path / 'out'}"),
        "trainer.enable_progress_bar=false",
    ]


def run(words: list[str], *more: str, **options: Any) -> Run:
    return build(compose("train", [*words, *more]), **options)


def test_a_notebook_trains_from_the_configuration_in_five_lines(
    words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = compose("train", words)
    made = build(config)
    exported = made.fit()
    assert exported == made.folder / "painting.safetensors"
    metadata = read_metadata(exported)
    assert (metadata["steps"], metadata["name"], metadata["style"]["image"]) == (2, "painting", "painting.png")
    assert made.stopped is Stop.NONE
    lines = (made.folder / "train.log").read_text().splitlines()
    assert lines[0].endswith(f"INFO training painting in {made.folder}")
    assert lines[-1].endswith(f"INFO exported {exported}")
    assert len(training_checkpoints(made.folder)) == 1


def test_a_notebook_trains_from_plain_objects_in_five_lines(
    photographs: Path, astronaut: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where Lightning saves checkpoints by default
    from fststyle import PerceptualLoss, TransformNet
    from fststyle.encoders.pretrained import random_weights
    from fststyle.encoders.vgg import VGGEncoder
    from fststyle.images import to_image
    from fststyle.training.callbacks import Export
    from fststyle.training.data import Photographs
    from fststyle.training.sources import folder
    from fststyle.training.tasks import StyleTask

    encoder, painting = (
        VGGEncoder(random_weights("vgg16", widths=(4, 4, 4, 4, 4)), "vgg16"),
        to_image(astronaut[:64, :64]),
    )
    target = tmp_path / "mine.safetensors"

    data = Photographs(folder(photographs), size=32, batch_size=2, workers=0, held_out=2)
    loss = PerceptualLoss(encoder, style_weight=5)
    task = StyleTask(TransformNet(width=4, residual_blocks=1), loss, loss.style_targets(painting))
    trainer = pl.Trainer(max_steps=2, accelerator="cpu", callbacks=[Export(target)], logger=False)
    trainer.fit(task, data)

    checkpoint = load_model_file(target, "style")
    assert (checkpoint.metadata["name"], checkpoint.metadata["steps"]) == ("mine", 2)
    assert checkpoint.network(to_image(astronaut[:32, :48])).shape == (1, 3, 32, 48)


#: Another value for every key of ``conf/trainer/default.yaml``, and what tells that it came to the trainer.
TRAINER: dict[str, tuple[str, Any]] = {
    "default_root_dir": ("elsewhere", lambda trainer: Path(trainer.default_root_dir).name == "elsewhere"),
    "max_steps": ("7", lambda trainer: trainer.max_steps == 7),
    "max_time": ("{minutes: 3}", lambda trainer: trainer.callbacks and timer(trainer) == 180),
    "accelerator": ("cpu", lambda trainer: type(trainer.accelerator).__name__ == "CPUAccelerator"),
    "devices": ("2", lambda trainer: trainer.num_devices == 2),
    "precision": ("bf16-mixed", lambda trainer: trainer.precision == "bf16-mixed"),
    "gradient_clip_val": ("0.5", lambda trainer: trainer.gradient_clip_val == 0.5),
    "accumulate_grad_batches": ("3", lambda trainer: trainer.accumulate_grad_batches == 3),
    "log_every_n_steps": ("9", lambda trainer: trainer.log_every_n_steps == 9),
    "val_check_interval": ("11", lambda trainer: trainer.val_check_interval == 11),
    "check_val_every_n_epoch": ("4", lambda trainer: trainer.check_val_every_n_epoch == 4),
    "num_sanity_val_steps": ("1", lambda trainer: trainer.num_sanity_val_steps == 1),
    "limit_val_batches": ("2", lambda trainer: trainer.limit_val_batches == 2),
    "enable_progress_bar": ("true", lambda trainer: trainer.progress_bar_callback is not None),
    "enable_model_summary": ("true", lambda trainer: any("ModelSummary" in name for name in names(trainer))),
    "use_distributed_sampler": ("true", lambda trainer: trainer._accelerator_connector.use_distributed_sampler),
    "limit_train_batches": ("5", lambda trainer: trainer.limit_train_batches == 5),  # of those not in the file
}


def timer(trainer: pl.Trainer) -> float:
    (found,) = (callback for callback in trainer.callbacks if type(callback).__name__ == "Timer")
    return timedelta(seconds=found.time_remaining()).total_seconds()


def names(trainer: pl.Trainer) -> list[str]:
    return [type(callback).__name__ for callback in trainer.callbacks]


def test_every_key_of_the_trainer_has_a_case() -> None:
    keys = set(compose("train", ["style.image=a.png"]).trainer) - {"_target_", "_convert_"}
    assert keys == set(TRAINER) - {"limit_train_batches"}


@pytest.mark.parametrize("key", TRAINER)
def test_every_override_of_the_trainer_takes_effect(key: str, words: list[str]) -> None:
    value, arrived = TRAINER[key]
    made = run(words, f"++trainer.{key}={value}")
    assert arrived(made.trainer)


def test_every_override_of_the_callbacks_takes_effect(words: list[str]) -> None:
    """Numbers become others; the attribute of the parameter's name tells."""
    config: DictConfig = compose("train", words).callbacks
    changed = {"dtype": "float32", "path": "else/where.safetensors", "folder": "elsewhere"}
    for name, entry in config.items():
        for key, old in entry.items():
            if key == "_target_":
                continue
            new = changed.get(str(key)) or (old / 2 if isinstance(old, float) else old + 1)
            (made,) = (
                callback
                for callback in run(words, f"callbacks.{name}.{key}={new}").trainer.callbacks
                if f"{type(callback).__module__}.{type(callback).__name__}" == entry._target_
            )
            found = made.candidates.maxlen if key == "candidates" else getattr(made, key)
            assert str(found) == str(new), f"callbacks.{name}.{key}"


@pytest.mark.parametrize("name", ["unreadable", "average", "previews", "diagnostics", "checkpoints"])
def test_a_callback_is_left_out_and_the_run_still_exports(name: str, words: list[str]) -> None:
    target = compose("train", words).callbacks[name]._target_.rpartition(".")[2]
    made = run(words, f"callbacks.{name}=null")
    assert target not in names(made.trainer)
    assert made.fit() is not None


def test_callbacks_and_loggers_of_others_are_added(words: list[str], tmp_path: Path) -> None:
    added = "+callbacks.devices._target_=pytorch_lightning.callbacks.LearningRateMonitor"
    seen: list[int] = []

    class See(pl.Callback):
        def on_train_end(self, trainer: pl.Trainer, _: Any) -> None:
            seen.append(trainer.global_step)

    made = run(words, added, "logger=csv", callbacks=[See()])
    assert "LearningRateMonitor" in names(made.trainer)
    assert [type(logger).__name__ for logger in made.trainer.loggers] == ["CSVLogger"]
    made.fit()
    assert seen == [2]
    assert not (made.folder / "tensorboard").exists()
    hparams: Any = OmegaConf.load(made.folder / "csv/hparams.yaml")
    assert hparams.loss.style_weight == 14


@pytest.mark.parametrize(("logger", "package"), [("wandb", "wandb"), ("mlflow", "mlflow")])
def test_loggers_of_other_packages_are_named_where_they_are_missing(
    logger: str, package: str, words: list[str]
) -> None:
    try:
        __import__(package)
    except ImportError:
        with pytest.raises(ConfigError, match=f"logger.{logger}: .*{package}"):
            run(words, f"logger={logger}")
    else:
        pytest.skip(f"{package} is installed")


def test_ckpt_path_is_resume_by_lightnings_name(words: list[str]) -> None:
    first = run(words)
    first.fit()
    (state,) = training_checkpoints(first.folder)
    again = run(words, f"ckpt_path={state}", "steps=3")
    assert (again.checkpoint, again.steps_done) == (str(state), 2)
    again.fit()
    assert again.trainer.global_step == 3
    with pytest.raises(ConfigError, match=r"resume is last and ckpt_path .*; give one of them"):
        run(words, f"ckpt_path={state}", "resume=last")


@pytest.mark.parametrize("more", rest_slow([["resume=auto"], [], ["resume=last"]]))
def test_a_run_of_an_earlier_version_is_refused_and_stays_as_it_was(more: list[str], words: list[str]) -> None:
    """Its checkpoints lie in ``states/``, where nothing would look for them."""
    folder = Path(run(words).fit() or "").parent
    (folder / "checkpoints").rename(folder / "states")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"states: holds checkpoints of an earlier version"):
        run(words, *more)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_trains_outside_of_the_main_thread(words: list[str]) -> None:
    """As under a notebook's widgets, or a service."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: run(words).fit()).result(120) is not None


def test_lightnings_own_checkpoints_come_beside_ours_where_they_are_asked_for(words: list[str], tmp_path: Path) -> None:
    made = run(words)
    made.fit()
    assert not list(made.folder.rglob("epoch*.ckpt"))
    added = f"_target_: pytorch_lightning.callbacks.ModelCheckpoint, every_n_train_steps: 1, dirpath: {tmp_path}"
    run(words, f"+callbacks.lightnings={{{added}}}", "overwrite=true").fit()
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["epoch=0-step=2.ckpt"]
    assert len(training_checkpoints(made.folder)) == 1


def test_the_trainers_own_callbacks_and_logger_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.logger is given; use logger="):
        run(words, "+trainer.logger=false")


@pytest.mark.parametrize("task", ["superres", "inverse"])
def test_a_task_alone_says_which_experiment_brings_the_rest(task: str) -> None:
    with pytest.raises(ConfigError, match=r"Task takes no style; use experiment=superres or experiment=inverse"):
        run([f"task={task}"])


def test_building_writes_nothing(words: list[str], tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    torch.manual_seed(1)
    run(words)
    assert set(tmp_path.rglob("*")) == before


def test_what_is_exported_has_the_paintings_colors(words: list[str], caplog: pytest.LogCaptureFixture) -> None:
    plain_words = [word for word in words if not word.startswith("data.source")]

    def colors(*more: str) -> torch.Tensor:
        made = run(plain_words, "data=generated", "data.held_out=8", *more)
        network = load_model_file(made.fit()).network
        return spread(in_octaves(network, made.data.held_out_images, 2)) - made.task.paintings[0]

    caplog.set_level("INFO")
    plain = colors("task.match_colors=false")
    assert "saturation ×" not in caplog.text
    matched = colors("resume=last", "resume_changed=true")  # of the same network, which is not trained further
    assert "colours of style 1: contrast ×" in caplog.text
    assert matched[:3].abs().sum() < 0.1 * plain[:3].abs().sum()  # the mean
    assert (matched[3:].abs() <= plain[3:].abs()).all()  # as far as it may be stretched


def test_what_is_exported_ends_with_the_filter_of_its_style(words: list[str], tmp_path: Path) -> None:
    first = run(words, "task.kuwahara=1.5").fit()
    assert load_model_file(first).network.config["kuwahara"] == 1.5
    start = first.rename(tmp_path / "start.safetensors")
    again = run(words, "overwrite=true", f"init_from={start}", "style.smoothed=0")
    assert "network.kuwahara" not in again.task.settings  # a filter is no part of training
    assert "kuwahara" not in load_model_file(again.fit()).network.config
    with pytest.raises(
        InstantiationException, match=r"the filter's radius is 9; expected more than 0, at most 7 pixels"
    ):
        run(words, "overwrite=true", "task.kuwahara=9")


def test_each_style_of_a_network_for_several_is_exported_in_its_paintings_colors(
    words: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "paintings"
    folder.mkdir()
    for name, color in (("red", (200, 40, 30)), ("blue", (20, 60, 190))):
        stripes = np.full((64, 64, 3), color, np.uint8)
        stripes[::4] //= 2
        save_image(stripes, folder / f"{name}.png")
    single = [word for word in words if not word.startswith(("style.image", "data.source"))]
    made = run(single, f"style.image={folder}", "data=generated", "data.held_out=8", "name=both")
    network = load_model_file(made.fit()).network
    assert network.config["colors"]
    for name, mixture in zip(made.task.names, torch.eye(2), strict=True):
        means = spread(network.of_mixture(mixture)(made.data.held_out_images))[:3]
        assert means.argmax() == {"red": 0, "blue": 2}[name]
