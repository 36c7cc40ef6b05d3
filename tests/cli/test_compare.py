"""``fststyle compare`` as a user meets it; what it measures is tested in tests/evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fststyle.cli import main
from fststyle.images import save_image


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: np.ndarray) -> Path:
    monkeypatch.chdir(tmp_path)
    save_image(astronaut[::8, ::8].copy(), "photo.png")
    save_image(astronaut[::8, ::8].copy(), "photo.jpg")
    save_image(astronaut[200:320:2, :120:2].copy(), "painting.png")
    return tmp_path


SMALL = ("--size", "48", "--iterations", "2")


def test_the_report_shows_the_painting_where_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "photo.png", "--style", "wave", "--style-image", "painting.png", *SMALL, "-o", "a/b"]) == 0
    told = capsys.readouterr().out
    assert told.endswith("a/b/index.html\n")
    assert "wave\t48 px" in told
    assert (Path("a/b/index.html").read_text()).count("<img") == 3  # photograph, one pass, painting


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photo.png"], "--style is missing; give a bundled style or a model file"),
        (["none.png", "--style", "wave"], "none.png: no such file"),
        (["photo.png", "--style", "zebra"], "unknown style 'zebra'; expected a model file or one of "),
        (["photo.png", "photo.jpg", "--style", "wave"], "two photographs have one name; compare them separately"),
        (["photo.png", "--style", "wave", "--iterations", "0"], "iterations is 0; expected at least 1"),
        (
            ["photo.png", "--style", "wave", "--style-image", "painting.png", "--style-image", "photo.jpg"],
            "found 2 --style-image for 1 --style; expected one for each",
        ),
        (
            ["photo.png", "--style", "wave", "--encoder", "missing.safetensors"],
            "missing.safetensors: no such file; expected encoder weights",
        ),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_refused_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *words]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("fststyle: error: ")
    assert message in told
    assert not Path("compare").exists()


@pytest.mark.parametrize("name", ["index.html", "report.json", "photo_wave_48_fast.png", "photo_wave_48.state"])
def test_files_of_others_are_left_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine", name).write_text("mine")
    assert main(["compare", "photo.png", "--style", "wave", *SMALL, "-o", "mine"]) == 2
    assert f"{name}: would be overwritten" in capsys.readouterr().err
    assert [path.read_text() for path in Path("mine").iterdir()] == ["mine"]


def test_a_report_is_gone_on_with_beside_files_of_others() -> None:
    Path("mine").mkdir()
    Path("mine", "notes.txt").write_text("mine")
    for _ in range(2):
        assert main(["compare", "photo.png", "--style", "wave", *SMALL, "-o", "mine"]) == 0
    assert Path("mine", "notes.txt").read_text() == "mine"
