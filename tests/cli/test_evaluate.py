"""``fststyle evaluate style`` as a user meets it; ``evaluate superres`` is in test_upscale.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fststyle.cli import main
from fststyle.encoders.pretrained import load_encoder, random_weights
from fststyle.evaluation.style import StyleDistance
from fststyle.images import load_image, save_image
from fststyle.inference import Stylizer
from fststyle.model_file import save_model_file
from fststyle.networks.transform import TransformNet


@pytest.fixture(autouse=True)
def here(tmp_path: Path, astronaut: np.ndarray, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user is in: pictures, a model, and an encoder that reaches relu5_1."""
    monkeypatch.chdir(tmp_path)
    save_image(astronaut[:240:2, ::2].copy(), "photo.png")
    save_image(astronaut[::2, ::-2].copy(), "painting.png")
    save_image(astronaut[100:420:2, 100:420:2].copy(), "result.png")
    save_image(astronaut[:40, :].copy(), "narrow.png")
    torch.manual_seed(0)
    save_model_file("mine.safetensors", TransformNet(width=2, residual_blocks=0), {"kind": "style", "name": "mine"})
    weights = random_weights("vgg19", widths=(2, 2, 3, 3, 3))
    save_file({key: value.float() for key, value in weights.items()}, "encoder.safetensors")
    shutil.copytree(photographs, "photographs")
    return tmp_path


PICTURES = ("--painting", "painting.png", "--photo", "photo.png")
ENCODER = ("--encoder", "encoder.safetensors", "--normalize", "photographs")


def test_results_and_models_are_measured_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--result", "photo.png", "result.png", "--style", "mine.safetensors", "--json", "out/figures.json"]
    assert main(["evaluate", "style", *PICTURES, *words, *ENCODER, "--backend", "torch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "photo.png         everywhere 1.000  all of it 1.000"

    encoder = load_encoder("vgg19", "encoder.safetensors", normalize="photographs")
    distance = StyleDistance(load_image("photo.png"), load_image("painting.png"), encoder)
    network = Stylizer.from_checkpoint("mine.safetensors", backend="torch")
    for line, name, image in (
        (lines[1], "result.png", load_image("result.png")),
        (lines[2], "mine.safetensors", (network(load_image("photo.png", 640)) * 255).round() / 255),
    ):
        found = distance(image)
        assert line == f"{name:<16}  everywhere {found.everywhere:.3f}  all of it {found.all_of_it:.3f}"
    written = json.loads(Path("out/figures.json").read_text())
    assert written["results"][2] == {"name": "mine.safetensors", **vars(found)}
    assert (written["encoder"]["name"], written["size"]) == ("encoder+normalized", 640)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing to measure; give pictures with --result, or models with --style"),
        (["--result", "none.png", *ENCODER], "none.png: no such file"),
        (["--result", "narrow.png", *ENCODER], "narrow.png: the result: 640×50 pixels, as it is measured, have no"),
        (["--result", "result.png", "--photo", "narrow.png", *ENCODER], "the photograph: 640×50 pixels"),
        (["--result", "result.png", "--painting", "photo.png", *ENCODER], "cannot be told from the painting"),
        (["--style", "zebra", *ENCODER], "unknown style 'zebra'"),
        (
            ["--style", "encoder.safetensors", *ENCODER],
            "encoder.safetensors: is a safetensors file, but not a model file",
        ),
        (["--result", "result.png", *ENCODER[:2]], "encoder are not scaled to mean activation 1; give a folder"),
        (["--result", "result.png", *ENCODER, "--architecture", "vgg16", "--normalize", "no"], "no: is not a folder"),
        (["--result", "result.png", *ENCODER, "--json", "photographs"], "photographs: is a folder; expected a file"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else None,
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "style", *PICTURES, *words, *([] if "--json" in words else ["--json", "x/y.json"])]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.strip().splitlines()
    assert line.startswith("fststyle: error: ")
    assert told in line
    assert not Path("x").exists()


def test_an_encoder_that_ends_too_early_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    weights = {key: value.float() for key, value in random_weights("vgg16", widths=(2,) * 5).items() if key[4] != "5"}
    save_file(weights, "shallow.safetensors")
    words = ["--encoder", "shallow.safetensors", "--architecture", "vgg16", "--normalize", "photographs"]
    assert main(["evaluate", "style", *PICTURES, "--result", "result.png", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "shallow+normalized ends at pool4 and has no relu5_1; use an encoder that reaches it" in line


def test_a_file_of_others_is_not_replaced_by_figures(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "style", *PICTURES, "--result", "result.png", *ENCODER, "--json"]
    before = Path("result.png").read_bytes()
    Path("mine.json").write_text('{"results": 1}')
    for name in ("result.png", "mine.json"):
        assert main([*words, name]) == 2
        assert f"{name}: would be overwritten, and no such run wrote it" in capsys.readouterr().err
    assert Path("result.png").read_bytes() == before
    for _ in range(2):  # its own is
        assert main([*words, "own.json"]) == 0


@pytest.mark.parametrize("name", ["index.html", "figures.json", "figures.csv", "00_bicubic.png"])
def test_a_report_does_not_replace_files_of_others(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine", name).write_text("mine")
    assert main(["evaluate", "superres", "photographs", "-o", "mine"]) == 2
    assert f"{name}: would be overwritten" in capsys.readouterr().err
    assert [path.read_text() for path in Path("mine").iterdir()] == ["mine"]


# --- stability ------------------------------------------------------------------------------------


def test_stability_writes_clips_and_measures_styles_and_what_was_made_elsewhere(
    tmp_path: Path, astronaut: np.ndarray, network: TransformNet, capsys: pytest.CaptureFixture[str]
) -> None:
    save_image(astronaut, tmp_path / "photo.png")
    save_model_file(tmp_path / "wave.safetensors", network, {"kind": "style", "name": "wave"})
    words = ["evaluate", "stability", str(tmp_path / "photo.png"), "--width", "96", "--frames", "3", "--clip", "pan"]
    assert main([*words, "--write", str(tmp_path / "clips")]) == 0
    assert len(list((tmp_path / "clips" / "photo" / "pan").iterdir())) == 3
    style, json_file = str(tmp_path / "wave.safetensors"), tmp_path / "figures.json"
    capsys.readouterr()
    more = ["--style", style, "--results", str(tmp_path / "clips"), "--json", str(json_file), "--backend", "torch"]
    assert main([*words, *more]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in table[1::2]] == [["input", "1"], ["wave", "1"], ["clips", "1"]]
    figures = json.loads(json_file.read_text())["stability"]
    assert [row["short"] > 0 for row in figures] == [False, True, False]


@pytest.mark.parametrize(("words", "message"), [
    (["lost.png"], "lost.png: no such file"),
    (["photo.png", "--results", "lost"], "lost: no such folder"),
    (["photo.png", "--clip", "walk"], "unknown clip 'walk'; expected one of pan"),
    (["photo.png", "--frames", "1"], "found 1 frames of 320×240 pixels; expected at least 2"),
    (["photo.png", "--write", "."], "is there already, and not empty"),
    (["photo.png", "--json", "photo.png"], "would be overwritten"),
    (["photo.png", "photo.png"], "two of the photographs have one name"),
])  # fmt: skip
def test_stability_refusals(
    words: list[str],
    message: str,
    tmp_path: Path,
    astronaut: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_image(astronaut[:64, :64].copy(), tmp_path / "photo.png")
    assert main(["evaluate", "stability", *words]) == 2
    assert message in capsys.readouterr().err
