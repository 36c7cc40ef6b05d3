"""fststyle train: Ctrl-C, refusals, other tasks than a style."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from commands import SMALL, in_folder, train
from fststyle.cli import main
from fststyle.encoders.pretrained import random_weights
from fststyle.model_file import load_model_file, read_metadata
from fststyle.training.checkpoints import newest_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:(pytorch_lightning|lightning_fabric)", "ignore:.*LeafSpec.*")


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- Ctrl-C -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_keeps_the_last_state_and_exports(tmp_path: Path, words: tuple[str, ...]) -> None:
    """As a terminal does it: to the command and its workers alike."""
    command = [sys.executable, "-m", "fststyle", "train", *words, "steps=1000000", "data.workers=1", "output=out"]
    preview, deadline = tmp_path / "out" / "previews" / "step_00000001.png", time.monotonic() + 300
    with open(tmp_path / "said.txt", "w") as said:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=said, stderr=said, start_new_session=True)
        try:
            while not preview.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
            code = process.wait(timeout=300)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    text = (tmp_path / "said.txt").read_text()
    assert code == 1, text  # what was asked for was not done
    assert text.count("interrupted: finishing this step") == 1
    assert "Traceback" not in text
    steps = read_metadata(tmp_path / "out" / "flowers.safetensors")["steps"]
    assert 1 <= steps < 1000000
    assert f"fststyle: interrupted at step {steps} of 1000000; exported out/flowers.safetensors" in text
    assert torch.load(newest_checkpoint(tmp_path / "out"), weights_only=True)["global_step"] == steps


BAD_WORDS = [
    ("stpes=3", "unknown key 'stpes'; did you mean 'steps'?"),
    ("network.widht=3", "unknown key 'network.widht'; did you mean 'network.width'?"),
    ("network=resnett", "network has no option 'resnett'; did you mean 'resnet'?; known: arbitrary, inverse, "),
    ("+network.norms=batch", "norms"),
    ("style.image=none.png", "none.png: no such file"),
    ("style.image=text.jpg", "text.jpg: is not a picture"),
    ("data.source.path=none", "the data set is empty: none: is not a folder"),
    ("data.source.path=empty", "the data set is empty: empty: has no pictures in it"),
    ("encoder.weights=vgg", "vgg16 has no weights 'vgg'; expected features, imagenet, slim, random, or a file"),
    ("network.width=wide", "network"),
    ("init_from=nothing", "unknown style 'nothing'"),
    ("resume=last", "holds no undamaged training checkpoint; resume=last needs a run"),
    ("resume=text.jpg", "text.jpg"),
    ("steps=0", "steps is 0"),
    ("callbacks.average.decay=2", "moving average is 2"),
    ("callbacks.checkpoints.every=0", "every 0 steps"),
    ("threads=0.5", "threads"),
    ("output=text.jpg/run", "text.jpg"),
    ("'", "'"),
]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder to work in, with some things that are no use."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("not a picture, not weights, not a state")
    return tmp_path


def refused(desk: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    """What a refusal says: one line, exit code 2, and nothing is written."""
    before = files_in(desk)
    capsys.readouterr()
    assert train(desk, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("fststyle: error: ")
    assert error.count("\n") == 1
    assert files_in(desk) == before
    return error


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "message"), BAD_WORDS, ids=[word for word, _ in BAD_WORDS])
def test_words_that_cannot_be_used_are_refused_in_one_line(
    word: str, message: str, desk: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(desk, (*words, word), capsys)


def test_an_encoder_that_ends_too_early_is_told_its_layers(
    desk: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {
        key: value.float() for key, value in random_weights("vgg16", widths=(2,) * 5).items() if key[4] not in "45"
    }
    save_file(weights, desk / "shallow.safetensors")
    others = tuple(word for word in words if not word.startswith("encoder"))
    error = refused(desk, (*others, f"encoder.weights={desk}/shallow.safetensors"), capsys)
    assert "shallow has no layer 'relu4_2'; expected one of conv1_1, relu1_1, " in error


@pytest.mark.parametrize("key", ["style.image", "data.source.path"])
def test_what_must_be_given_is_asked_for(
    key: str, desk: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    others = tuple(word for word in words if not word.startswith(key))
    assert f"{key} is missing; give it as {key}=" in refused(desk, others, capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(
    desk: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "trainer" in refused(desk, (*words, "trainer.accelerator=cuda"), capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_refused(
    desk: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "empty").chmod(0o500)
    assert "empty" in refused(desk, (*words, "output=empty/run"), capsys)


def test_a_folder_of_damaged_pictures_is_refused_by_name_though_a_worker_met_them(
    desk: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(4):
        (desk / "empty" / f"{index}.jpg").write_bytes(b"")
    error = refused(desk, (*words, "data.source.path=empty", "data.workers=1"), capsys)
    assert "50 pictures in a row cannot be read, the last: empty/" in error


def test_too_many_damaged_pictures_end_a_run_that_has_begun_with_code_1(
    desk: Path, words: tuple[str, ...], photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in sorted(photographs.iterdir()):
        (desk / "empty" / file.name).write_bytes(file.read_bytes() if file.stem < "08" else b"")
    capsys.readouterr()
    assert train(desk, *words, "data.source.path=empty", "steps=100") == 1
    error = capsys.readouterr().err
    assert error.startswith("fststyle: failed: the training of flowers stopped: ")
    assert "pictures cannot be read, more than data.max_unreadable=0.05 allows; the last: empty/" in error
    assert error.count("\n") == 1


def test_one_refused_run_does_not_spoil_the_next_in_the_same_process(
    desk: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    small = tuple(word for word in words if not word.startswith("network.width"))
    assert train(desk, "-m", *small, "network.width=0,-1", "steps=1") == 2
    assert train(desk, *words, "steps=1", "output=out") == 0


# --- other tasks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["pixel", "feature"])
def test_super_resolution_is_trained_by_the_same_command(desk: Path, photographs: Path, loss: str) -> None:
    words = [*SMALL, f"data.source.path={photographs}", "data=folder", "steps=2", "trainer.log_every_n_steps=1"]
    assert train(desk, "experiment=superres", f"loss={loss}", *words, "data.size=64", "name=x4") == 0
    made = load_model_file(desk / "runs" / "x4" / "x4.safetensors", "superres")
    assert made.network(torch.rand(1, 3, 16, 20)).shape == (1, 3, 64, 80)
    assert made.metadata["loss"]["pixel_weight"] == (1 if loss == "pixel" else 0)
    assert ("encoder" in made.metadata) == (loss == "feature")
    assert "style" not in made.metadata
    assert {"total"} <= set(made.metadata["held_out"])
    assert list((desk / "runs" / "x4" / "previews").glob("step_*.png"))


def test_style_swap_is_trained_by_the_same_command(desk: Path, photographs: Path, painting: Path) -> None:
    words = [word for word in SMALL if not word.startswith("network.")]
    said = [*words, f"data.source.path={photographs}", "data=folder", "network.channels=8", "steps=2"]
    assert train(desk, "experiment=inverse", *said, f"data.styles.path={painting.parent}", "name=mine") == 0
    made = load_model_file(desk / "runs" / "mine" / "mine.safetensors", "swap")
    assert made.encoder["conv3_1.weight"].shape == (8, 6, 3, 3)
    assert made.metadata["encoder"]["layer"] == "relu3_1"
    assert made.metadata["data"]["styles"]["path"] == painting.parent.name
    words = ["--model", "runs/mine/mine.safetensors", "--style-image", str(painting), "-o", "swapped.png"]
    with in_folder(desk):
        assert main(["swap", str(painting), *words]) == 0
        assert (desk / "swapped.png").is_file()


@pytest.mark.parametrize(
    ("task", "size", "told"),
    [
        ("superres", 66, "multiple of 4 of at least 64"),
        ("superres", 60, "multiple of 4"),
        ("inverse", 34, "multiple of 4"),
    ],
)
def test_crops_that_a_task_cannot_use_are_refused(
    task: str, size: int, told: str, desk: Path, photographs: Path, painting: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "data=folder",
        f"data.source.path={photographs}",
        f"data.size={size}",
        "calibration_photographs=2",
        "data.workers=0",
    )
    more = (f"data.styles.path={painting.parent}",) if task == "inverse" else ("loss=pixel",)
    assert f"data.size is {size}; expected a {told}" in refused(desk, (f"experiment={task}", *words, *more), capsys)


def test_style_swap_asks_for_paintings(desk: Path, photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("experiment=inverse", "data=folder", f"data.source.path={photographs}")
    assert "data.styles.path is missing" in refused(desk, words, capsys)


def test_a_network_that_enlarges_is_no_style(
    desk: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "keeps the size" in refused(desk, (*words, "network=superres_x4"), capsys)


def test_a_style_is_not_trained_by_pixels_alone(
    desk: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "experiment=superres loss=pixel" in refused(desk, (*words, "loss=pixel"), capsys)
