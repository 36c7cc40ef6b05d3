"""``fststyle preview``: the sheet, the commands under its pictures, and what is refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import hydra
import numpy as np
import pytest
from PIL import Image

from fststyle.cli import main
from fststyle.images import save_image
from fststyle.resources import resource


@pytest.fixture
def photo(tmp_path: Path, astronaut: np.ndarray) -> Path:
    save_image(astronaut[:120, 100:260], tmp_path / "my photo.png")
    return tmp_path / "my photo.png"


@pytest.fixture
def painting(tmp_path: Path, astronaut: np.ndarray) -> Path:
    save_image(astronaut[200:400, 200:400, ::-1], tmp_path / "rain.png")
    return tmp_path / "rain.png"


SMALL = ("size=48", "iterations=10", "factors=[0.5,2]", "style_sizes=[40,64]")


def test_a_sheet_of_cells_each_with_the_command_that_trains_it(
    photo: Path, painting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sheet"
    words = [str(photo), f"style.image={painting}", "style.weight=0.8", "loss.style_weight=2.5", f"output={folder}"]
    assert main(["preview", *words, *SMALL]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "index.html")
    cells = json.loads((folder / "preview.json").read_text())
    assert [(c["factor"], c["style_size"], c["preserve_color"]) for c in cells] == [
        (factor, size, own) for own in (False, True) for factor in (0.5, 2) for size in (40, 64)
    ]
    page = (folder / "index.html").read_text()
    for cell in cells:
        assert Image.open(folder / cell["picture"]).size == (48, 36)
        assert 0 < cell["style"] < 1
        assert 0 < cell["content"] < 2
        command = shlex.split(cell["command"])
        assert command[:2] == ["fststyle", "train"]
        with hydra.initialize_config_dir(str(resource("conf")), version_base="1.3"):
            config = hydra.compose("train", command[2:])
        assert config.style.size == cell["style_size"]
        assert config.style.weight == pytest.approx(0.8 * cell["factor"])
        assert config.style.image == str(painting)
        assert config.loss.style_weight == 2.5
        assert config.encoder.weights == "slim"
        assert "content" not in config
        assert cell["command"].replace("'", "&#x27;") in page
    assert Image.open(folder / "sheet.png").size == (2 * 48 + 4, 4 * 36 + 3 * 4)
    weak, strong = (next(c for c in cells if c["factor"] == factor) for factor in (0.5, 2))
    assert strong["style"] < weak["style"]


def test_keeping_colours_keeps_those_of_the_photograph(photo: Path, painting: Path, tmp_path: Path) -> None:
    words = [f"style.image={painting}", "size=48", "iterations=8", "factors=[2]", "style_sizes=[48]"]
    assert main(["preview", f"content={photo}", *words, f"output={tmp_path / 'p'}"]) == 0
    original = Image.open(photo).convert("RGB").resize((48, 36), Image.Resampling.LANCZOS)

    def colours(picture: Image.Image) -> np.ndarray:
        return np.asarray(picture.convert("YCbCr"), float)[..., 1:]

    cells = json.loads((tmp_path / "p" / "preview.json").read_text())
    away = [np.abs(colours(Image.open(tmp_path / "p" / cell["picture"])) - colours(original)).mean() for cell in cells]
    assert away[1] < 4 < away[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["PAINTING"], "the photograph is missing: fststyle preview PHOTO style.image=PAINTING"),
        (["PHOTO"], "style.image is missing; give it as style.image=…"),
        (["PHOTO", "PAINTING", "factors=[1,1]"], "factors is [1, 1]; expected each number once"),
        (["PHOTO", "PAINTING", "factors=[-1]"], "factors is [-1]; expected a list of numbers ≥ 0"),
        (["PHOTO", "PAINTING", "style_sizes=[8]"], "style_sizes is [8]; expected a list of numbers ≥ 16"),
        (["PHOTO", "PAINTING", "size=8"], "size is 8; expected a whole number of at least 16 pixels"),
        (["nowhere.png", "PAINTING"], "nowhere.png: no such file"),
        (["PHOTO", "PAINTING", "weights=[1]"], "unknown key 'weights'"),
        (["PHOTO", "PAINTING", "loss=pixel"], "this loss judges pixels alone, for super-resolution"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    words: list[str], message: str, photo: Path, painting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"PHOTO": str(photo), "PAINTING": f"style.image={painting}"}
    folder = tmp_path / "sheet"
    assert main(["preview", *(given.get(word, word) for word in words), f"output={folder}"]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not folder.exists()


def test_a_preview_is_not_overwritten_unasked(
    photo: Path, painting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sheet"
    words = ["preview", str(photo), f"style.image={painting}", f"output={folder}", "size=48", "iterations=1"]
    words += ["factors=[1]", "style_sizes=[48]"]
    assert main(words) == 0
    first = (folder / "preview.json").read_text()
    assert main([*words, "seed=1"]) == 2
    assert "holds a preview already; replace it with overwrite=true" in capsys.readouterr().err
    assert (folder / "preview.json").read_text() == first
    assert main([*words, "seed=1", "overwrite=true"]) == 0
    assert (folder / "preview.json").read_text() != first


@pytest.mark.parametrize(
    "name", ["index.html", "sheet.png", "preview.json", "weight_1_size_48.png", "weight_1_size_48_own_colors.png"]
)
@pytest.mark.parametrize("more", [[], ["overwrite=true"]], ids=["", "overwrite"])
def test_files_of_others_are_left_alone(
    name: str, more: list[str], photo: Path, painting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text("mine")
    words = [
        f"style.image={painting}",
        f"output={folder}",
        "size=48",
        "iterations=1",
        "factors=[1]",
        "style_sizes=[48]",
    ]
    assert main(["preview", str(photo), *words, *more]) == 2
    assert f"{name}: would be overwritten" in capsys.readouterr().err
    assert [path.read_text() for path in folder.iterdir()] == ["mine"]


@pytest.mark.parametrize("word", ["style.name=../x", "style.name=a/b", f"style.name={'x' * 300}", "output=''"])
def test_a_name_that_cannot_be_is_refused(
    word: str, photo: Path, painting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(["preview", str(photo), f"style.image={painting}", word]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
