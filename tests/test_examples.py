"""Every example runs, on small pictures and for a few steps; the papers' figures show what they say."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from fststyle.encoders.vgg import VGGEncoder
from fststyle.images import read_picture, save_image
from fststyle.losses import PerceptualLoss
from fststyle.model_file import read_metadata, save_model_file
from fststyle.networks.transform import TransformNet
from fststyle.training import Generated

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


def documented(name: str) -> list[str]:
    """The words of the command in an example's docstring."""
    command = re.search(rf"^    python examples/{name}\.py (.+)$", (EXAMPLES / f"{name}.py").read_text(), re.MULTILINE)
    assert command, f"{name}.py does not say how it is started"
    return shlex.split(command[1])


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the generated pictures and the model files that the examples' commands name."""
    monkeypatch.chdir(tmp_path)
    pictures = [np.asarray(Generated(64).picture(0, index)) for index in range(8)]
    for index, pixels in enumerate(pictures):
        for folder in ("photographs", "holiday/beach"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            save_image(pixels, f"{folder}/{index}.png")
    save_image(pictures[0], "photo.jpg")
    save_image(pictures[1], "painting.jpg")
    return tmp_path


# --- the short programs -----------------------------------------------------------------------------


def test_a_style_is_trained_from_plain_objects() -> None:
    painting, photographs, output = documented("train_objects")
    example("train_objects").main(painting, photographs, output, steps=1, size=32, width=4)
    assert read_metadata(output)["steps"] == 1
    assert not {"checkpoints", "lightning_logs"} & {path.name for path in Path().iterdir()}


def test_a_style_is_trained_from_the_configuration() -> None:
    painting, photographs, *_ = documented("train_config")
    small = ["steps=1", "data.size=32", "data.workers=0", "data.held_out=2", "network.width=4", "style.size=64"]
    small += ["network.residual_blocks=1", "calibration_photographs=4", "callbacks.previews.count=1"]
    example("train_config").main(painting, photographs, *small, "trainer.accelerator=cpu")
    assert read_metadata("runs/painting/painting.safetensors")["steps"] == 1
    assert max(read_picture("runs/painting/first_look.png").rgb.shape) == 64


def test_a_folder_is_stylised_and_done_only_once(network: TransformNet, capsys: pytest.CaptureFixture[str]) -> None:
    save_model_file("mine.safetensors", network, {"kind": "style", "name": "mine", "style": {"image": "a.jpg"}})
    pictures, output, *_ = documented("stylize_folder")
    for told in ("8 done", "0 done, 8 there already"):
        example("stylize_folder").main(pictures, output, "mine.safetensors")
        assert capsys.readouterr().out.splitlines()[-1] == told
    assert read_picture("stylised/beach/0_mine.png").rgb.shape == (64, 64, 3)


def test_a_photograph_is_optimised() -> None:
    example("optimize_photo").main(*documented("optimize_photo"), size=48, iterations=2)
    assert max(read_picture("optimised.png").rgb.shape) == 48


@pytest.mark.parametrize("name", NAMES)
def test_the_command_of_an_example_is_understood(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = documented(name)
    if name == "figures":
        words += ["--size", "48", "--iterations", "1"]
        example(name).main(words)
        assert Path("figures/starts.html").is_file()
    else:
        inspect.signature(example(name).main).bind(*words)


def test_documents_name_examples_that_are_there() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        assert set(re.findall(r"examples/([a-z_]+)\.py", document.read_text(encoding="utf-8"))) <= set(NAMES), document
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python examples/(\w+)\.py (.+)$", readme, re.MULTILINE)
    assert {name: shlex.split(words) for name, words in commands} == {name: documented(name) for name in NAMES}


# --- the papers' figures ----------------------------------------------------------------------------


SMALL = ["photo.jpg", "painting.jpg", "--encoder", "slim", "--size", "48", "--iterations", "2", "-o", "out"]


@pytest.fixture
def figures() -> ModuleType:
    return example("figures")


@pytest.fixture
def setting(figures: ModuleType, encoder: VGGEncoder) -> Any:
    def loss(**changes: Any) -> PerceptualLoss:
        return PerceptualLoss(encoder, **changes)

    generator = torch.Generator().manual_seed(0)
    photo, painting = torch.rand(1, 3, 48, 48, generator=generator), torch.rand(1, 3, 40, 40, generator=generator)
    return figures.Setting(photo, painting, encoder, loss, iterations=2)


@pytest.mark.parametrize(
    ("name", "captions"),
    [
        ("reconstructions", [["photograph", "relu1_2"], ["painting", "relu1_1 … relu1_1", "relu1_1 … relu2_1"]]),
        ("ratios", [["α/β = 0.03", "α/β = 0.1", "α/β = 0.3", "α/β = 1", "α/β = 3"]]),
        ("content-layers", [["photograph", "content at relu2_2", "content at relu4_2"]]),
        ("starts", [["from content", "from style", "from gray"], ["from noise 0"]]),
        ("features", [["relu1_1, channel 0", "relu1_1, channel 3"]]),
    ],
)
def test_figures(name: str, captions: list[list[str]], figures: ModuleType, setting: Any) -> None:
    rows = list(figures.FIGURES[name](setting, **({"channels": (0, 3)} if name == "features" else {})))
    for row, expected in zip(rows, captions, strict=False):
        for (caption, pixels), beginning in zip(row, expected, strict=False):
            assert caption.startswith(beginning)
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
    if name == "reconstructions":
        assert [len(row) for row in rows] == [6, 6]


def test_chosen_feature_maps_and_their_page(figures: ModuleType) -> None:
    figures.main(["features", *SMALL, "--layers", "relu2_1", "relu4_1", "--channels", "0", "5"])
    assert sorted(path.name for path in Path("out").glob("*.png")) == [
        f"features_{row}_{column}.png" for row in (0, 1) for column in (0, 1)
    ]
    assert Path("out/features.html").read_text().count("<img") == 4


def test_a_figure_is_balanced_on_a_folder_of_photographs(figures: ModuleType, encoder: VGGEncoder) -> None:
    painting = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    loss = figures.balanced(encoder, painting, "photographs")(style_layers=["relu1_1"])
    assert all(value > 0 for value in loss.normalizers.values())
    with pytest.raises(ValueError, match=r"knows no photographs to balance the loss on; use --encoder slim"):
        figures.balanced(encoder, painting)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["features", *SMALL, "--channels", "99"], "relu1_1 has 16 channels; found 99 among the chosen ones"),
        (["starts", "none.png", *SMALL[1:]], "none.png: no such file"),
        (["starts", *SMALL, "--iterations", "0"], "iterations is 0; expected at least 1"),
    ],
)
def test_a_figure_that_cannot_be_made_is_refused(
    words: list[str], message: str, figures: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        figures.main(words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()
