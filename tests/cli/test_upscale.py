"""``fststyle upscale`` and ``evaluate`` as a user meets them: files, lines and exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fststyle import model_file
from fststyle.cli import main
from fststyle.images import read_picture, save_image, to_image, to_pixels
from fststyle.model_file import bundled_files, save_model_file
from fststyle.networks.superres import SuperResNet

RECORD = {"kind": "superres", "name": "mine"}
SLIM = bundled_files("encoder")["vgg19_slim"]


@pytest.fixture
def network() -> SuperResNet:
    torch.manual_seed(0)
    made = SuperResNet(4, width=4, residual_blocks=1)
    torch.nn.init.normal_(made.decode[-1].conv.weight, std=0.02)  # type: ignore[union-attr, arg-type]
    return made.eval()


@pytest.fixture
def here(tmp_path: Path, astronaut: np.ndarray, network: SuperResNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user is in: two pictures, a folder of large ones, networks that enlarge by 4 and by 8."""
    folder = tmp_path / "here"
    (folder / "large").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for index, name in enumerate(("a.png", "b.jpg")):
        save_image(astronaut[20 * index : 20 * index + 24, 100:133].copy(), folder / name)
    for name in ("c.png", "d.png"):
        save_image(astronaut[:130, 100:230].copy(), folder / "large" / name)
    save_model_file(folder / "mine.safetensors", network, RECORD, dtype="float32")
    save_model_file(folder / "eight.safetensors", SuperResNet(8, width=4), {**RECORD, "name": "eight"})
    return folder


@pytest.fixture
def bundled(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "installation" / "checkpoints" / "superres"
    folder.mkdir(parents=True)
    shutil.copy(here / "mine.safetensors", folder / "x4_pixel.safetensors")
    shutil.copy(here / "eight.safetensors", folder / "x8_pixel.safetensors")
    monkeypatch.setattr(model_file, "resource", lambda name: tmp_path / "installation" / name)


TORCH = ("--backend", "torch")


def test_a_picture_becomes_four_times_as_large(here: Path, network: SuperResNet) -> None:
    assert main(["upscale", "a.png", "--model", "mine.safetensors", *TORCH]) == 0
    result = read_picture(here / "a_x4.png").rgb
    with torch.inference_mode():
        assert np.array_equal(result, to_pixels(network(to_image(read_picture(here / "a.png").rgb))))
    assert result.shape == (96, 132, 3)


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize(("words", "scale"), [([], 4), (["--scale", "4"], 4), (["--scale", "8"], 8)])
def test_the_scale_chooses_the_model(here: Path, words: list[str], scale: int) -> None:
    assert main(["upscale", "a.png", "b.jpg", *words, *TORCH, "-o", "out/"]) == 0
    assert [path.name for path in sorted((here / "out").iterdir())] == [f"a_x{scale}.png", f"b_x{scale}.jpg"]
    assert read_picture(here / "out" / f"a_x{scale}.png").rgb.shape == (24 * scale, 33 * scale, 3)


def test_openvino_gives_the_same(here: Path) -> None:
    assert main(["upscale", "a.png", "--model", "mine.safetensors", *TORCH, "-o", "one.png"]) == 0
    words = ["--backend", "openvino", "--precision", "float32", "-o", "two.png"]
    assert main(["upscale", "a.png", "--model", "mine.safetensors", *words]) == 0
    one, two = (read_picture(here / name).rgb.astype(int) for name in ("one.png", "two.png"))
    assert np.abs(one - two).max() <= 1


def test_transparency_becomes_as_large_as_the_picture(here: Path, astronaut: np.ndarray) -> None:
    alpha = np.full((24, 33), 40, np.uint8)
    save_image(astronaut[:24, :33].copy(), here / "clear.png", alpha)
    assert main(["upscale", "clear.png", "--model", "mine.safetensors", *TORCH]) == 0
    assert np.array_equal(read_picture(here / "clear_x4.png").alpha, np.full((96, 132), 40))


def test_the_histogram_may_be_matched_to_the_inputs(here: Path) -> None:
    assert main(["upscale", "a.png", "--model", "mine.safetensors", *TORCH, "--match-histogram"]) == 0
    found, given = read_picture(here / "a_x4.png").rgb, read_picture(here / "a.png").rgb
    for channel in range(3):
        shares = (0.1, 0.5, 0.9)
        assert np.quantile(found[..., channel], shares) == pytest.approx(
            np.quantile(given[..., channel], shares), abs=2
        )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "mine.safetensors", "--scale", "8"], "enlarges by 4; found --scale 8"),
        (["--model", "nobody"], "unknown superres 'nobody'"),
        (["--model", "a.png"], "is not a model file"),
        (["--scale", "3"], "invalid choice"),
    ],
)
def test_what_cannot_be_is_refused(here: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["upscale", "a.png", *words])
    except SystemExit as stop:  # argparse's
        code = int(stop.code or 0)
    assert code == 2
    assert told in capsys.readouterr().err
    assert not list(here.glob("a_x*"))


def test_a_style_does_not_enlarge(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fststyle.networks.transform import TransformNet

    save_model_file(here / "wave.safetensors", TransformNet(width=2, residual_blocks=0), {"kind": "style", "name": "w"})
    assert main(["upscale", "a.png", "--model", "wave.safetensors"]) == 2
    assert "of kind 'style'; expected kind 'superres'" in capsys.readouterr().err


# --- evaluate ---------------------------------------------------------------------------------------


def test_a_folder_is_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "superres", "large", "--model", "mine.safetensors", "--pictures", "1", *TORCH]) == 0
    out = capsys.readouterr().out
    assert "bicubic" in out
    assert "mine" in out
    found = json.loads((here / "evaluate" / "figures.json").read_text())
    assert (found["scale"], found["pictures"], set(found["mean"])) == (4, 2, {"bicubic", "mine"})
    assert np.asarray(Image.open(here / "evaluate" / "c_mine.png")).shape == (128, 128, 3)
    assert not (here / "evaluate" / "d_mine.png").exists()


@pytest.mark.usefixtures("bundled")
def test_the_models_bundled_for_the_scale_are_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "superres", "large", "--scale", "8", "-o", "out", *TORCH]) == 0
    assert set(json.loads((here / "out" / "figures.json").read_text())["mean"]) == {"bicubic", "x8_pixel"}


def test_blur_makes_it_harder(here: Path) -> None:
    for blur in ("0", "1.5"):
        words = ["--model", "mine.safetensors", "--blur", blur, "-o", blur, "--pictures", "0", *TORCH]
        assert main(["evaluate", "superres", "large", *words]) == 0
    sharp, blurred = (json.loads((here / b / "figures.json").read_text())["mean"]["bicubic"] for b in ("0", "1.5"))
    assert blurred["psnr"] < sharp["psnr"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "nowhere: is not a folder"),
        (["large", "--model", "mine.safetensors", "--model", "eight.safetensors"], "enlarges by 8"),
        (
            ["large", "--model", "mine.safetensors", "--model", "./mine.safetensors"],
            "two of the models are called mine",
        ),
        (["large", "--model", "mine.safetensors", "--blur", "-1"], "--blur is -1.0"),
        (["."], "a.png: is 33×24 pixels; ×4 takes 64"),
        (["large", "--model", str(SLIM)], "is a model file of kind 'encoder'; expected kind 'superres'"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    here: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "superres", *words]) == 2
    assert told in capsys.readouterr().err
    assert not (here / "evaluate").exists()


@pytest.mark.parametrize("words", [(), ("--tiles", "exact"), ("--match-histogram",), ("--size", "50")], ids=" ".join)
def test_what_is_hidden_changes_no_enlarged_picture(words: tuple[str, ...], here: Path, astronaut: np.ndarray) -> None:
    alpha, results = np.zeros((40, 48), np.uint8), []
    alpha[8:30, 10:40] = 255
    for colour in (0, 255):
        rgb = np.where(alpha[..., None] > 0, astronaut[:40, 100:148], colour).astype(np.uint8)
        save_image(rgb, "clear.png", alpha)
        assert main(["upscale", "clear.png", "-o", "out.png", "--model", "mine.safetensors", *words]) == 0
        results.append(np.asarray(Image.open("out.png")))
    assert results[0].shape[2] == 4
    assert np.array_equal(*results)


def test_a_wholly_transparent_picture_is_not_enlarged(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_image(read_picture("a.png").rgb, "nothing.png", np.zeros((24, 33), np.uint8))
    for words in ((), ("--tiles", "exact")):
        assert main(["upscale", "nothing.png", "--model", "mine.safetensors", *words]) == 2
        assert "nothing.png: is wholly transparent" in capsys.readouterr().err
    assert not (here / "nothing_x4.png").exists()
