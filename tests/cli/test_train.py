"""``fststyle train`` from its words to the exported style, and what it says to words it cannot use."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from commands import SMALL, in_folder, train
from fststyle.cli import main
from fststyle.encoders.pretrained import random_weights
from fststyle.images import save_image
from fststyle.model_file import load_model_file, read_metadata
from fststyle.training.checkpoints import newest_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:(pytorch_lightning|lightning_fabric)", "ignore:.*LeafSpec.*")

#: With something to see in four steps.
WATCHED = ("steps=4", "trainer.log_every_n_steps=1", "trainer.val_check_interval=2", "callbacks.previews.every=2")


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("paintings") / "flowers.png"
    save_image(astronaut[:96, 100:228].copy(), path)
    return path


@pytest.fixture(scope="module")
def words(painting: Path, photographs: Path) -> tuple[str, ...]:
    """Those of a small run."""
    return (f"style.image={painting}", "style.size=96", "data=folder", f"data.source.path={photographs}", *SMALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, words: tuple[str, ...]) -> Path:
    """The folder of a run of four steps."""
    folder = tmp_path_factory.mktemp("work")
    assert train(folder, *words, *WATCHED) == 0
    assert [path.name for path in folder.iterdir()] == ["runs"]
    return folder / "runs" / "flowers"


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "csv" / "metrics.csv") as file:
        return list(csv.DictReader(file))


def same_weights(a: Path, b: Path) -> None:
    """Bit for bit, style targets included."""
    first, second = load_file(a), load_file(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize(("limit", "bounded"), [("{minutes: 9}", False), ("null", True)])
def test_a_run_that_time_ends_shows_no_estimate_for_all_steps(
    tmp_path: Path,
    words: tuple[str, ...],
    limit: str,
    bounded: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(tmp_path, *words, "steps=2", f"trainer.max_time={limit}") == 0
    told = "".join(capsys.readouterr())
    assert ("2/2" in told, "2/?" in told) == (bounded, not bounded)


# --- one run ----------------------------------------------------------------------------------------


def test_a_run_leaves_config_logs_previews_state_and_the_style(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "csv", "tensorboard", "previews", "checkpoints", "flowers.safetensors"} <= names
    assert sorted(path.name for path in (run / "previews").iterdir()) == [f"step_{step:08d}.png" for step in (1, 2, 4)]
    assert not list(run.rglob("*.part"))


def test_the_config_beside_the_run_is_resolved(run: Path, painting: Path) -> None:
    text = (run / "config.yaml").read_text()
    assert "${" not in text
    config = yaml.safe_load(text)
    style = {"name": "flowers", "image": str(painting), "size": 96, "blur": 0, "region": [0, 0, 1, 1], "weight": 1.0}
    assert config["style"] == style
    assert config["trainer"]["max_steps"] == config["task"]["steps"] == config["steps"] == 4
    assert config["network"]["width"] == 4


def test_every_loss_term_is_in_the_csv_for_training_and_held_out_photographs(run: Path) -> None:
    terms = ["total", "content/relu3_3", *(f"style/relu{layer}" for layer in ("1_2", "2_2", "3_3", "4_3"))]
    found = rows(run)
    for stage, steps in (("train", [0, 1, 2, 3]), ("val", [1, 3])):
        for term in terms:
            values = {int(row["step"]): float(row[f"{stage}/{term}"]) for row in found if row[f"{stage}/{term}"]}
            assert sorted(values) == steps
            assert min(values.values()) > 0
    rates = [float(row["train/learning_rate"]) for row in found if row["train/learning_rate"]]
    assert rates == pytest.approx([3e-3 * step / 50 for step in (1, 2, 3, 4)])  # it warms up
    assert any(row["train/images_per_second"] for row in found)


def test_tensorboard_shows_terms_and_previews(run: Path) -> None:
    (events,) = (run / "tensorboard").glob("events.*")
    data = events.read_bytes()
    for tag in (b"train/style/relu3_3", b"val/total", b"train/learning_rate", b"preview"):
        assert tag in data


def test_the_exported_file_tells_its_history_but_no_folder_of_the_machine(
    run: Path, painting: Path, photographs: Path
) -> None:
    metadata = read_metadata(run / "flowers.safetensors")
    assert (metadata["kind"], metadata["name"], metadata["steps"], metadata["images"]) == ("style", "flowers", 4, 16)
    assert metadata["style"]["image"] == "flowers.png"
    assert len(metadata["style"]["sha256"]) == 64
    assert metadata["encoder"]["name"] == "vgg16-random-0"
    assert metadata["data"]["size"] == 32
    assert metadata["seed"] == 0
    assert set(metadata["loss"]["normalizers"]) == set(metadata["held_out"]) - {"total"}
    assert metadata["network"]["arguments"]["width"] == 4
    assert metadata["command"].startswith("fststyle train style.image=flowers.png ")
    assert set(metadata["versions"]) >= {"fststyle", "torch", "python"}
    text = json.dumps(metadata)
    assert str(painting.parent) not in text
    assert str(photographs.parent) not in text


def test_folders_in_a_list_of_files_stay_private_too(
    tmp_path: Path, words: tuple[str, ...], photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    table = datasets.Dataset.from_dict(
        {"image": [{"path": f.name, "bytes": f.read_bytes()} for f in sorted(photographs.iterdir())]},
        features=datasets.Features({"image": datasets.Image(decode=False)}),
    )
    table.to_parquet(str(tmp_path / "a.parquet"))
    source = ("data=parquet", f"data.source.files=[{tmp_path}/a.parquet]", "data.source.streaming=true")
    other = [word for word in words if not word.startswith("data=") and "source" not in word]
    assert train(tmp_path, *other, *source, "data.held_out=2", "+data.buffer=4", "steps=1", "output=out") == 0
    metadata = read_metadata(tmp_path / "out" / "flowers.safetensors")
    assert metadata["data"]["source"]["files"] == ["a.parquet"]
    assert str(tmp_path) not in json.dumps(metadata)


def test_stylize_and_info_take_the_exported_file(
    run: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    style = str(run / "flowers.safetensors")
    assert main(["stylize", str(photographs / "00.jpg"), "--style", style, "-o", str(tmp_path / "out.png")]) == 0
    assert Image.open(tmp_path / "out.png").size == Image.open(photographs / "00.jpg").size
    assert main(["info", style]) == 0
    assert "vgg16-random-0" in capsys.readouterr().out


# --- the same again, and more -----------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(
    run: Path, tmp_path: Path, words: tuple[str, ...], workers: int
) -> None:
    """The run before had no workers, but validation and previews, which change nothing either."""
    assert (
        train(tmp_path, *words, "steps=4", "callbacks.previews.count=0", f"data.workers={workers}", "output=out") == 0
    )
    same_weights(tmp_path / "out" / "flowers.safetensors", run / "flowers.safetensors")


def test_another_seed_gives_other_weights(run: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert train(tmp_path, *words, "steps=1", "seed=1", "output=out", "encoder.seed=0") == 0
    first, other = (load_file(path) for path in (run / "flowers.safetensors", tmp_path / "out" / "flowers.safetensors"))
    assert (first["network.encode.0.conv.conv.weight"] - other["network.encode.0.conv.conv.weight"]).abs().mean() > 0.01


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, words: tuple[str, ...]) -> Path:
    """The working folder of a run that ended after two of the four steps."""
    folder = tmp_path_factory.mktemp("half")
    assert train(folder, *words, *WATCHED, "steps=2") == 0
    return folder


@pytest.fixture
def stopped(half: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(half, tmp_path / "stopped"))


@pytest.fixture(scope="module")
def resumed(half: Path, tmp_path_factory: pytest.TempPathFactory, words: tuple[str, ...]) -> Path:
    """The folder of that run, gone on with to the end."""
    folder = Path(shutil.copytree(half, tmp_path_factory.mktemp("resumed") / "work"))
    assert train(folder, *words, *WATCHED, "resume=last") == 0
    return folder / "runs" / "flowers"


def test_resume_goes_on_to_the_weights_of_one_run(run: Path, resumed: Path) -> None:
    same_weights(resumed / "flowers.safetensors", run / "flowers.safetensors")
    first, second = (read_metadata(path / "flowers.safetensors") for path in (run, resumed))
    for key in ("steps", "images", "held_out", "loss"):
        assert second[key] == first[key], key


def test_resume_keeps_the_loss_curve_up_to_there(run: Path, resumed: Path) -> None:
    def curve(path: Path) -> dict[str, float]:
        return {row["step"]: float(row["train/total"]) for row in rows(path) if row["train/total"]}

    assert curve(resumed) == pytest.approx(curve(run))


def test_a_run_is_not_overwritten_unless_asked_for(
    stopped: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    assert train(stopped, *words, "steps=1") == 2
    assert "holds a run already; go on with resume=last, start anew with overwrite=true" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before
    own = [stopped / "runs" / "flowers" / name for name in ("notes.txt", "csv/mine.csv", "previews/mine.png")]
    for file in own:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    assert train(stopped, *words, "steps=1", "overwrite=true") == 0
    assert read_metadata(stopped / "runs" / "flowers" / "flowers.safetensors")["steps"] == 1
    assert all(file.read_text() == "mine" for file in own)
    assert not (stopped / "runs" / "flowers" / "csv" / "metrics.csv").exists()  # one step logs none


@pytest.mark.parametrize("name", ["config.yaml", "train.log", "csv/table.csv", "previews/holiday.png"])
def test_a_folder_of_other_files_is_refused(
    name: str, tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs" / "flowers" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    for more in ((), ("overwrite=true",)):
        assert train(tmp_path, *words, "steps=1", *more) == 2
        assert "holds files that no training run wrote; expected an empty folder" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


@pytest.mark.parametrize("change", ["data.source.path=none", "overwrite=true data.source.path=none", "resume=last"])
def test_a_refused_run_leaves_the_one_before_as_it_was(
    change: str, stopped: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    mismatch = ("network.width=6",) if change == "resume=last" else ()
    assert train(stopped, *words, *change.split(), *mismatch) == 2
    assert capsys.readouterr().err.startswith("fststyle: error: ")
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("task.optimizer=adam", "was begun with another optimizer; give task.optimizer=adam or muon as it was begun"),
        ("loss.style_form=sliced", "was begun with another style term, at pixels, "),
        ("loss.color_weight=0", "was begun with the colour term; add loss.color_weight=2"),
    ],
)
def test_a_state_of_another_optimizer_or_style_term_is_refused(
    change: str, message: str, stopped: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(stopped, *words, "resume=last", change) == 2
    assert message in capsys.readouterr().err


def test_a_style_may_start_from_another(run: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    start = run / "flowers.safetensors"
    # So small a step that what comes out is what went in.
    options = (f"init_from={start}", "task.learning_rate=1e-9", "steps=1", "output=out", "seed=5")
    assert train(tmp_path, *words, *options) == 0
    before, after = load_file(start), load_file(tmp_path / "out" / "flowers.safetensors")
    for name in before:
        if name.startswith("network."):
            torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-4)
    history = read_metadata(tmp_path / "out" / "flowers.safetensors")["init_from"]
    assert (history["name"], history["steps"]) == ("flowers", 4)


def test_a_multirun_makes_a_run_of_each_value(tmp_path: Path, words: tuple[str, ...]) -> None:
    small = [word for word in words if not word.startswith("network.width")]
    assert train(tmp_path, "-m", *small, "network.width=4,6", "steps=1") == 0
    styles = sorted(tmp_path.rglob("*.safetensors"))
    assert sorted(read_metadata(style)["network"]["arguments"]["width"] for style in styles) == [4, 6]
    for style in styles:
        config = yaml.safe_load((style.parent / "config.yaml").read_text())
        assert config["network"]["width"] == read_metadata(style)["network"]["arguments"]["width"]


def test_a_style_of_ones_own_is_found_in_a_config_folder(
    tmp_path: Path, words: tuple[str, ...], painting: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine" / "style").mkdir(parents=True)
    (tmp_path / "mine" / "style" / "rose.yaml").write_text(
        f"defaults:\n  - custom\n\nname: rose\nimage: {painting}\nsize: 64\n"
    )
    other = [word for word in words if not word.startswith("style.")]
    assert train(tmp_path, "--config-dir", "mine", "style=rose", *other, "steps=1") == 0
    metadata = read_metadata(tmp_path / "runs" / "rose" / "rose.safetensors")
    assert (metadata["name"], metadata["style"]["size"]) == ("rose", 64)
    capsys.readouterr()
    assert train(tmp_path, "--config-dir", "mine", "style=ros", *other) == 2
    error = capsys.readouterr().err
    assert error.startswith("fststyle: error: style has no option 'ros'; did you mean 'rose'?; known: ")
    assert "starry_night" in error


def test_the_whole_network_can_be_exported_in_float32(tmp_path: Path, words: tuple[str, ...]) -> None:
    options = ("callbacks.export.dtype=float32", "callbacks.average=null", "steps=2", "output=out")
    assert train(tmp_path, *words, *options) == 0
    state = torch.load(newest_checkpoint(tmp_path / "out"), weights_only=True)
    exported = load_model_file(tmp_path / "out" / "flowers.safetensors").network.state_dict()
    assert exported.keys() == {name.removeprefix("network.") for name in state["state_dict"]}
    for name, value in exported.items():  # no average: what was trained last
        assert torch.equal(value, state["state_dict"][f"network.{name}"])


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


# --- refusals ---------------------------------------------------------------------------------------

BAD_WORDS = [
    ("stpes=3", "unknown key 'stpes'; did you mean 'steps'?"),
    ("network.widht=3", "unknown key 'network.widht'; did you mean 'network.width'?"),
    ("network=resnett", "network has no option 'resnett'; did you mean 'resnet'?; known: inverse, johnson, "),
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
    assert "shallow has no layer 'relu4_3'; expected one of conv1_1, relu1_1, " in error


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
