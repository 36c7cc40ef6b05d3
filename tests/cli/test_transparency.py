"""Transparent pictures, stylised: what is hidden plays no part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fststyle import model_file
from fststyle.images import read_picture, save_image
from fststyle.model_file import read_metadata
from marks import rest_slow
from stylizing import contents, stylize


def hide(rgb: np.ndarray, name: str, colour: tuple[int, int, int] | np.ndarray) -> np.ndarray:
    """Write a picture of which a round part is opaque, some of it faint, and the rest hides a colour: its alpha."""
    y, x = np.mgrid[-1 : 1 : rgb.shape[0] * 1j, -1 : 1 : rgb.shape[1] * 1j]
    alpha = np.where(x**2 + y**2 < 0.6, 255, 0).astype(np.uint8)
    alpha[len(alpha) // 2 :, : rgb.shape[1] // 3] //= 2
    Image.fromarray(np.dstack([np.where(alpha[..., None] > 0, rgb, colour), alpha]).astype(np.uint8)).save(name)
    return alpha


WAYS = [
    (),
    ("--tiles", "exact"),
    ("--memory", "1M", "--tiles", "exact"),
    ("--size", "60"),
    ("--size", "60", "--tiles", "exact"),
    ("--preserve-color",),
    ("--strength", "0.5"),
    ("--strength", "0"),
    ("--style-scale", "2"),
    ("--style-scale", "1.5", "--tiles", "exact", "--strength", "0.7", "--preserve-color"),
    ("--median",),
    ("--backend", "torch"),
    ("--backend", "openvino"),
]


@pytest.mark.parametrize("words", WAYS, ids=" ".join)
def test_what_is_hidden_changes_no_result(words: tuple[str, ...], here: Path, astronaut: np.ndarray) -> None:
    rgb, results = astronaut[:72, 100:196].copy(), []
    for name, colour in (("black", (0, 0, 0)), ("white", (255, 255, 255)), ("other", rgb[::-1])):
        hide(rgb, f"{name}.png", colour)
        assert stylize(f"{name}.png", "-o", "out.png", *words) == 0
        results.append(np.asarray(Image.open("out.png")))
    assert results[0].shape[2] == 4
    for result in results[1:]:
        assert np.array_equal(result, results[0])


def test_tiled_results_of_transparent_pictures_are_those_of_the_whole(here: Path, astronaut: np.ndarray) -> None:
    hide(astronaut[:200, 100:196].copy(), "clear.png", (255, 0, 255))
    for size in ((), ("--size", "150")):
        assert stylize("clear.png", "-o", "whole.png", "--backend", "torch", *size) == 0
        assert stylize("clear.png", "-o", "tiled.png", "--backend", "torch", "--tiles", "exact", *size) == 0
        whole, tiled = (np.asarray(Image.open(f"{name}.png")).astype(int) for name in ("whole", "tiled"))
        assert np.abs(whole - tiled).max() <= 1


@pytest.mark.parametrize("words", rest_slow([[], ["--tiles", "exact"], ["--strength", "0"]]))
def test_wholly_transparent_pictures_are_refused(
    words: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_image(read_picture("a.png").rgb, "nothing.png", np.zeros((24, 33), np.uint8))
    before = contents(here)
    assert stylize("nothing.png", *words) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "nothing.png: is wholly transparent" in error[0]
    assert contents(here) == before
    assert stylize("nothing.png", "a.png", *words) == 1  # among others it is skipped
    assert "nothing.png: is wholly transparent" in capsys.readouterr().err
    assert (here / "a_wave.png").exists()


def differences(style: str, rgb: np.ndarray, backend: str) -> dict[str, int]:
    """The greatest difference of visible pixels over hidden white to those over hidden black: whole, tiled."""
    found = {}
    for way in ("off", "exact"):
        results = []
        for colour in ((0, 0, 0), (255, 255, 255)):
            alpha = hide(rgb, "clear.png", colour)
            words = ("--tiles", way, "--memory", "64M") if way == "exact" else ("--tiles", way)
            assert stylize("clear.png", "-o", "out.png", "--backend", backend, *words, style=style) == 0
            results.append(np.asarray(Image.open("out.png")).astype(int)[alpha > 0])
        found[way] = int(np.abs(results[0] - results[1]).max())
    return found


@pytest.mark.slow
def test_hidden_black_and_white_give_one_result_of_a_bundled_style(
    tmp_path: Path, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert max(differences("wave", astronaut[:96, 100:228].copy(), "torch").values()) <= 1


#: Those with files of their own, and all of those in files of several.
EVERY_STYLE = sorted(
    f"{name}/{style}" if style != name else name
    for name, path in model_file.bundled_files("style").items()
    for style in model_file.style_names(read_metadata(path))
)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("style", EVERY_STYLE)
def test_hidden_black_and_white_give_one_result_of_every_bundled_style(
    style: str, backend: str, tmp_path: Path, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert max(differences(style, astronaut[:256, :256].copy(), backend).values()) <= 1
