"""Any painting as a style: trained, predicted, applied, joined and refused by the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fststyle.cli import main
from fststyle.config import compose
from fststyle.images import load_image, save_image
from fststyle.inference import StylizeOptions, Stylizer
from fststyle.inference.options import median_of
from fststyle.inference.predictor import StylePredictor, predicted_style
from fststyle.model_file import load_model_file, read_metadata, save_model_file
from fststyle.networks.arbitrary import encoder_of_paintings, predicted_network, style_statistics
from fststyle.training.run import build
from tests.commands import in_folder, train

TINY = (
    *("experiment=arbitrary", "data=folder", "init_from=null", "network.width=4", "network.residual_blocks=1"),
    *("network.hidden=6", "network.components=3", "task.component_pictures=6", "data.size=48", "data.batch_size=2"),
    *("data.workers=0", "data.held_out=2", "calibration_photographs=4", "task.compile=false", "threads=1"),
)


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("paintings")
    save_image(astronaut[:96, 100:228].copy(), folder / "flowers.png")
    save_image(255 - astronaut[200:300, 100:228], folder / "night.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, photographs: Path, paintings: Path) -> Path:
    """A network for any painting, of three steps."""
    folder = tmp_path_factory.mktemp("trained")
    where = (f"data.source.path={photographs}", f"data.styles.path={paintings}")
    assert train(folder, *TINY, *where, "steps=3", "task.stability_weight=1") == 0
    return folder / "runs" / "any" / "any.safetensors"


@pytest.fixture
def bundled(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny network in the place of the bundled one."""
    from fststyle import model_file

    known = model_file.bundled_files
    monkeypatch.setattr(
        model_file, "bundled_files", lambda kind: {"any": model} if kind == "arbitrary" else known(kind)
    )


def test_the_file_holds_network_encoder_and_how_it_came_to_be(model: Path) -> None:
    loaded = load_model_file(model, "arbitrary")
    assert loaded.network.centre.any()
    assert loaded.network.components.any()
    assert "conv4_3.weight" in loaded.encoder
    assert "conv4_4.weight" not in loaded.encoder
    assert loaded.metadata["steps"] == 3
    assert all(isinstance(value, float) for value in loaded.metadata["loss"]["normalizers"].values())
    assert main(["info", str(model)]) == 0


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_painting_is_a_style(
    backend: str, paintings: Path, tmp_path: Path, astronaut: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    save_image(astronaut[:60, :72].copy(), tmp_path / "photo.png")
    how = ["--backend", backend, "--precision", "float32", "--style-size", "64"]
    with in_folder(tmp_path):
        for painting in ("flowers", "night"):
            assert main(["stylize", "photo.png", "--style", str(paintings / f"{painting}.png"), *how]) == 0
    made = {name: np.asarray(Image.open(tmp_path / f"photo_{name}.png")).astype(int) for name in ("flowers", "night")}
    assert np.abs(made["flowers"] - made["night"]).max() > 0
    network = StylePredictor.from_checkpoint()
    network.save(paintings / "night.png", tmp_path / "night.safetensors", 64)
    alone = Stylizer.from_checkpoint(tmp_path / "night.safetensors", "cpu", "torch", "float32")
    wanted = alone.pixels(astronaut[:60, :72].copy(), StylizeOptions()).astype(int)
    assert np.abs(made["night"] - wanted).max() <= 1


@pytest.mark.usefixtures("bundled")
def test_a_prediction_is_kept_until_the_painting_changes(paintings: Path, tmp_path: Path) -> None:
    painting = tmp_path / "mine.png"
    painting.write_bytes((paintings / "night.png").read_bytes())
    first = predicted_style(painting, size=64)
    stamp = first.stat().st_mtime_ns
    assert predicted_style(painting, size=64) == first
    assert first.stat().st_mtime_ns == stamp
    assert first.stat().st_size < 20_000
    assert predicted_style(painting, size=96) != first
    painting.write_bytes((paintings / "flowers.png").read_bytes())
    assert predicted_style(painting, size=64) != first


def test_a_style_that_a_model_of_ones_own_predicts_can_be_applied(
    model: Path, paintings: Path, astronaut: np.ndarray
) -> None:
    path = predicted_style(paintings / "night.png", str(model), size=64)
    stylizer = Stylizer.from_checkpoint(path, "cpu", "torch", "float32")
    assert stylizer.octaves == 2  # as the model was trained
    assert stylizer.pixels(astronaut[:60, :72].copy()).shape == (60, 72, 3)


def test_grain_is_no_part_of_a_style(model: Path, tmp_path: Path, astronaut: np.ndarray) -> None:
    grained = astronaut[:64, :64].copy()
    grained[::4, ::4] = 255
    save_image(grained, tmp_path / "grained.png")
    predictor = StylePredictor(model)
    predictor.save(tmp_path / "grained.png", tmp_path / "a.safetensors", None)
    smooth = median_of(grained).transpose(2, 0, 1)[None].astype(np.float32) / 255
    found = load_model_file(tmp_path / "a.safetensors", "style", [model]).network.state_dict()
    for name, value in predictor.parameters(smooth).items():
        np.testing.assert_allclose(found[name], value, atol=2e-3, rtol=2e-3)


@pytest.mark.usefixtures("bundled")
def test_several_paintings_are_one_file_whose_styles_mix(
    model: Path, paintings: Path, tmp_path: Path, astronaut: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    save_image(astronaut[:60, :72].copy(), tmp_path / "photo.png")
    words = [str(paintings / "flowers.png"), str(paintings / "night.png"), "--model", str(model), "--size", "64"]
    with in_folder(tmp_path):
        assert main(["predict", *words, "-o", "mine.safetensors"]) == 0
        assert capsys.readouterr().out == "mine.safetensors: flowers, night\n"
        assert main(["stylize", "photo.png", "--style", "mine.safetensors", "--mix", "flowers=0.5", "night=0.5"]) == 0
        assert main(["predict", *words, "-o", "mine.safetensors"]) == 2
        assert "mine.safetensors: is there already" in capsys.readouterr().err
    assert [entry["name"] for entry in read_metadata(tmp_path / "mine.safetensors")["styles"]] == ["flowers", "night"]


@pytest.mark.parametrize(("pooling", "padding"), [("max", "reflect"), ("average", "zeros")])
def test_what_runs_without_torch_predicts_as_torch_does(
    pooling: str, padding: str, model: Path, paintings: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    found = load_model_file(model, "arbitrary")
    told = {**found.metadata, "encoder": {**found.metadata["encoder"], "pooling": pooling, "padding": padding}}
    save_model_file(tmp_path / "any.safetensors", found.network, told, encoder=found.encoder)
    found = load_model_file(tmp_path / "any.safetensors")
    painting = load_image(paintings / "night.png")
    wanted = predicted_network(found.network, encoder_of_paintings(found), painting).style_parameters()
    own = StylePredictor(tmp_path / "any.safetensors").parameters(painting.numpy())
    assert list(own) == list(wanted)
    for name, value in wanted.items():
        colour = name.startswith("colors.")
        np.testing.assert_allclose(own[name], value.detach().numpy(), atol=0.05 if colour else 1e-4)


@pytest.mark.parametrize("count", [1, 2])
def test_training_goes_on_from_what_is_predicted(
    count: int, model: Path, paintings: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fststyle.networks.arbitrary.fit_palette", lambda *_: None)
    words = [f"style.image={paintings / 'night.png'}"] if count == 1 else [f"style.image={paintings}"]
    words += [
        "style.size=64",
        "experiment=norms",
        f"init_from={model}",
        "data=folder",
        f"data.source.path={photographs}",
    ]
    words += ["data.size=48", "data.batch_size=2", "data.workers=0", "data.held_out=2", "calibration_photographs=4"]
    run = build(compose("train", [*words, "threads=1", f"output={tmp_path / 'run'}"]))
    loaded = load_model_file(model, "arbitrary")
    found = run.task.network.style_parameters()
    for k, name in enumerate(["flowers", "night"][-count:]):
        painting = load_image(paintings / f"{name}.png", 64)
        wanted = loaded.network.of_painting(style_statistics(encoder_of_paintings(loaded), painting))
        for key, value in wanted.style_parameters().items():
            torch.testing.assert_close(found[key].reshape(count, -1)[k], value)
    trained = {name for name, value in run.task.network.named_parameters() if value.requires_grad}
    assert trained == set(found)


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"not a picture", "is not a picture"), (None, "no such")],
    ids=["damaged", "absent"],
)
def test_what_is_no_picture_is_refused(
    content: bytes | None, message: str, tmp_path: Path, astronaut: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    save_image(astronaut[:60, :72].copy(), tmp_path / "photo.png")
    if content is not None:
        (tmp_path / "painting.png").write_bytes(content)
    with in_folder(tmp_path):
        assert main(["stylize", "photo.png", "--style", "painting.png"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fststyle: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["photo.png", *(["painting.png"] if content is not None else [])]
    )


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("network.statistics=7", "set network.statistics=1529"),
        ("network=resnet_half", "any painting takes network=arbitrary"),
        ("loss.balanced=false", "any painting is trained with a balanced loss"),
        ("task.train=some", "train is 'some'; expected all or norms"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    word: str, message: str, photographs: Path, paintings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [each for each in TINY if not (word.startswith("network=") and each.startswith("network."))]
    where = (f"data.source.path={photographs}", f"data.styles.path={paintings}")
    assert train(tmp_path, *words, *where, word) == 2
    assert message in capsys.readouterr().err
