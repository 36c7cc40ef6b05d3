"""``fststyle swap`` as a user meets it: files, lines and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fststyle import model_file
from fststyle.cli import main
from fststyle.encoders.truncated import truncated_encoder
from fststyle.encoders.vgg import VGGEncoder
from fststyle.images import read_picture, save_image
from fststyle.inference import Swapper
from fststyle.model_file import read_metadata, save_model_file
from fststyle.networks import styleswap
from fststyle.networks.styleswap import InverseNet
from fststyle.networks.transform import TransformNet


@pytest.fixture(autouse=True)
def here(tmp_path: Path, astronaut: np.ndarray, encoder: VGGEncoder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation that came with one network, and the folder that the user is in."""
    folder = tmp_path / "here"
    (folder / "more").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for index, name in enumerate(("a.png", "b.jpg", "more/c.webp")):
        save_image(astronaut[20 * index : 20 * index + 26, 100:133].copy(), name)
    save_image(astronaut[200:260:2, 100:150:2].copy(), "rain.jpg")
    torch.manual_seed(0)
    weights, told = truncated_encoder(encoder, "relu3_1")
    bundled = tmp_path / "checkpoints" / "swap"
    bundled.mkdir(parents=True)
    metadata = {"kind": "swap", "name": "slim", "encoder": told}
    save_model_file(bundled / "slim.safetensors", InverseNet(8), metadata, encoder=weights)
    save_model_file("mine.safetensors", InverseNet(8, "instance"), {**metadata, "name": "mine"}, encoder=weights)
    monkeypatch.setattr(model_file, "resource", lambda name: tmp_path / name)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def swap(*words: str, style: str = "rain.jpg") -> int:
    return main(["swap", *words, "--style-image", style, "--device", "cpu"])


@pytest.mark.parametrize(
    ("words", "results"),
    [
        (["a.png"], {"a_rain.png"}),
        (["a.png", "b.jpg", "more"], {"a_rain.png", "b_rain.jpg", "more/c_rain.webp"}),
        (["*.png", "-o", "out"], {"out/a_rain.png"}),
        (["b.jpg", "-o", "new.png"], {"new.png"}),
        (["b.jpg", "--model", "mine.safetensors"], {"b_rain.jpg"}),
    ],
)
def test_results_are_named_after_picture_and_style(
    here: Path, words: list[str], results: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(here)
    assert swap(*words) == 0
    after = contents(here)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == results == set(capsys.readouterr().out.split())
    assert all(read_picture(name).rgb.shape == (26, 33, 3) for name in results)


def test_it_is_the_swapper_with_these_options() -> None:
    assert swap("a.png", "-o", "out.png", "--patch", "2", "--stride", "2", "--style-size", "40", "--size", "48") == 0
    content, style = read_picture("a.png", 48).rgb, read_picture("rain.jpg", 40).rgb
    expected = Swapper.from_checkpoint("slim", "cpu").pixels(content, style, 2, 2)
    assert np.array_equal(read_picture("out.png").rgb, expected)
    assert max(expected.shape) == 48


def test_colours_can_be_kept_and_so_is_transparency() -> None:
    alpha = np.tile(np.linspace(0, 255, 33).astype(np.uint8), (26, 1))
    save_image(read_picture("a.png").rgb, "clear.png", alpha)
    assert swap("clear.png", "-o", "plain.png") == 0
    assert swap("clear.png", "-o", "kept.png", "--preserve-color") == 0
    photo, plain, kept = (read_picture(name) for name in ("a.png", "plain.png", "kept.png"))
    assert kept.alpha is not None
    assert np.array_equal(kept.alpha, alpha)
    far, near = (np.abs(np.diff(x.rgb - photo.rgb.astype(float), axis=-1)).mean() for x in (plain, kept))
    assert near < 0.5 * far


def test_a_folder_gets_its_results_once(here: Path) -> None:
    assert swap("more") == 0
    first = contents(here)
    assert swap("more") == 0
    assert contents(here) == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("none.png",), "none.png: no such file"),
        (("a.png", "--patch", "0"), "patch is 0; expected a whole number of at least 1"),
        (("a.png", "--stride", "4"), "stride is 4 and patch 3; expected a stride of at most the patch"),
        (("a.png", "--patch", "8"), "rain.jpg: is 25×30 pixels; patches of 8×8 need at least 29×29"),
        (("a.png", "--style-size", "60", "--patch", "8"), "a.png: is 33×26 pixels; patches of 8×8 need at least 29"),
        (("a.png", "--model", "thin"), "unknown swap 'thin'; expected a model file or one of slim"),
        (("a.png", "--model", "style.safetensors"), "is a model file of kind 'style'; expected kind 'swap'"),
        (("a.png", "-o", "out.xyz"), "no picture format ends in '.xyz'"),
        (("a.png", "b.jpg", "-o", "out.png"), "is one file for 2 pictures"),
        (("a.png", "--style-image", "none.jpg"), "none.jpg: no such file"),
        (("a.png", "--style-image", "mine.safetensors"), "mine.safetensors: is not a picture"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_done_is_refused_in_one_line(
    here: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model_file("style.safetensors", TransformNet(4, 1), {"kind": "style", "name": "style"})
    before = contents(here)
    style = [] if "--style-image" in words else ["--style-image", "rain.jpg"]
    assert main(["swap", *words, *style, "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fststyle: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert contents(here) == before


def test_an_installation_without_a_network_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints" / "swap" / "slim.safetensors").unlink()
    assert swap("a.png") == 2
    assert "'slim' for style swap did not come with this installation" in capsys.readouterr().err
    assert swap("a.png", "--model", "mine.safetensors") == 0


def test_a_bad_picture_among_good_ones_is_named_and_the_good_ones_done(capsys: pytest.CaptureFixture[str]) -> None:
    Path("more/bad.jpg").write_text("This is no picture.")
    save_image(np.zeros((16, 16, 3), np.uint8), "more/dot.png")
    assert swap("more", "--patch", "5") == 1
    out, err = capsys.readouterr()
    assert out.split() == ["more/c_rain.webp"]
    assert "bad.jpg: is not a picture" in err
    assert "dot.png: is 16×16 pixels; patches of 5×5 need at least 17×17" in err
    assert err.splitlines()[-1] == "fststyle: 1 done, 2 skipped (more/bad.jpg, more/dot.png)"


def test_what_takes_long_is_told_beforehand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert swap("a.png") == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("fststyle.inference.swapper.MANY_PAIRS", 53 * 46 - 1)
    assert swap("a.png") == 0
    assert "a.png: 53 patches against 46 take minutes and more; a smaller --size" in capsys.readouterr().err
    assert swap("a.png", "--stride", "2") == 0
    assert capsys.readouterr().err == ""


def test_info_tells_what_such_a_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("slim", "mine.safetensors"):
        assert main(["info", name]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        for expected in (["kind", "swap"], ["layer", "relu3_1"], ["class", "InverseNet"], ["architecture", "vgg16"]):
            assert expected in lines
    assert main(["info", "--json", "mine.safetensors"]) == 0
    assert json.loads(capsys.readouterr().out) == read_metadata("mine.safetensors")


def test_a_style_is_no_network_for_style_swap(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stylize", "a.png", "--style", "mine.safetensors"]) == 2
    assert "kind 'swap'; expected kind 'style'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("--style-size", "40"), ("--size", "48", "--patch", "2", "--stride", "2")])
def test_what_is_hidden_is_neither_style_nor_content(words: tuple[str, ...], astronaut: np.ndarray) -> None:
    rgb, alpha, results = astronaut[200:260, 100:170].copy(), np.zeros((60, 70), np.uint8), []
    alpha[10:50, 12:60], alpha[20:30, 30:40] = 255, 0
    for colour in ((255, 0, 255), (0, 255, 0), (255, 255, 255)):
        save_image(np.where(alpha[..., None] > 0, rgb, colour).astype(np.uint8), "clear.png", alpha)
        assert swap("a.png", "-o", "styled.png", *words, style="clear.png") == 0
        assert swap("clear.png", "-o", "content.png", *words) == 0
        results.append((read_picture("styled.png").rgb, read_picture("content.png").rgb))
    for styled, content in results[1:]:
        assert np.array_equal(styled, results[0][0])
        assert np.array_equal(content, results[0][1])


def test_a_hole_in_the_style_is_no_style(astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its filling is made of visible pixels, but its patches are none of the picture's."""
    rgb, alpha = astronaut[200:260, 100:170].copy(), np.full((60, 70), 255, np.uint8)
    alpha[12:52, 12:60] = 0
    save_image(rgb, "clear.png", alpha)
    counts = []
    patches = styleswap._Patches

    class Counted(patches):  # type: ignore[misc,valid-type]
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            counts.append(len(self))

    monkeypatch.setattr(styleswap, "_Patches", Counted)
    assert swap("a.png", "-o", "hole.png", style="clear.png") == 0
    save_image(rgb, "whole.png")
    assert swap("a.png", "-o", "plain.png", style="whole.png") == 0
    assert counts[::2] == [counts[2] - 10 * 12, counts[2]]
    shown = Swapper.from_checkpoint("slim", "cpu").pixels(
        read_picture("a.png").rgb, read_picture("clear.png").rgb, alpha=alpha
    )
    assert np.array_equal(read_picture("hole.png").rgb, shown)


def test_margins_of_the_style_are_no_style(astronaut: np.ndarray) -> None:
    rgb, alpha = astronaut[200:260, 100:170].copy(), np.zeros((60, 70), np.uint8)
    alpha[10:50, 12:60] = 255
    save_image(rgb, "clear.png", alpha)
    save_image(rgb[10:50, 12:60].copy(), "cut.png")
    assert (
        swap("a.png", "-o", "first.png", style="clear.png") == swap("a.png", "-o", "second.png", style="cut.png") == 0
    )
    assert np.array_equal(read_picture("first.png").rgb, read_picture("second.png").rgb)


@pytest.mark.parametrize("words", [("nothing.png",), ("a.png", "--style-image", "nothing.png")])
def test_wholly_transparent_pictures_are_refused(
    here: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    save_image(read_picture("a.png").rgb, "nothing.png", np.zeros((26, 33), np.uint8))
    before = contents(here)
    assert main(["swap", "--style-image", "rain.jpg", *words, "--device", "cpu"]) == 2
    assert "nothing.png: is wholly transparent" in capsys.readouterr().err
    assert contents(here) == before
