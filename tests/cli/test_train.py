"""fststyle train: one run, and the same again."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from commands import train
from fststyle.cli import main
from fststyle.model_file import load_model_file, read_metadata
from fststyle.training.checkpoints import newest_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning:(pytorch_lightning|lightning_fabric)", "ignore:.*LeafSpec.*")


#: With something to see in four steps.
WATCHED = ("steps=4", "trainer.log_every_n_steps=1", "trainer.val_check_interval=2", "callbacks.previews.every=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, words: tuple[str, ...]) -> Path:
    """The folder of a run of four steps."""
    folder = tmp_path_factory.mktemp("work")
    assert train(folder, *words, *WATCHED) == 0
    assert [path.name for path in folder.iterdir()] == ["runs"]
    return folder / "runs" / "flowers"


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
    tmp_path: Path, words: tuple[str, ...], limit: str, bounded: bool, capsys: pytest.CaptureFixture[str]
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
    style = {"name": "flowers", "image": str(painting), "size": 96, "blur": 0.0, "region": [0, 0, 1, 1], "weight": 1.0}
    assert config["style"] == {**style, "smoothed": 1.0}
    assert config["trainer"]["max_steps"] == config["task"]["steps"] == config["steps"] == 4
    assert config["network"]["width"] == 4


def test_every_loss_term_is_in_the_csv_for_training_and_held_out_photographs(run: Path) -> None:
    terms = [
        "total",
        "content/relu4_2",
        "content/relu5_1",
        *(f"style/relu{layer}" for layer in ("1_2", "2_2", "3_3", "4_3")),
    ]
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
