"""What ``conf/`` is turned into: overrides as in the command line, and the painting of a style."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from fststyle.cli import main
from fststyle.config import ConfigError, compose, load_style, preset_style
from fststyle.images import load_image, save_image
from fststyle.networks.blocks import gaussian_blur


@pytest.fixture
def style(tmp_path: Path, astronaut: np.ndarray) -> DictConfig:
    save_image(astronaut[:256].copy(), tmp_path / "painting.png")
    return preset_style("wave", str(tmp_path / "painting.png"))


def test_a_painting_is_smoothed_at_its_size(style: DictConfig) -> None:
    style.region = [0.2, 0, 0.8, 1]
    plain = load_image(style.image, style.size, style.region)
    style.blur = 1
    torch.testing.assert_close(load_style(style), gaussian_blur(plain, 1))
    style.blur = 0
    torch.testing.assert_close(load_style(style), plain)
    left, _, right, _ = style.region
    assert load_style(style, 100).shape[-1] == round((right - left) * 100)


def test_grain_goes_and_strokes_stay(tmp_path: Path) -> None:
    """What a network would make a weave of: differences from pixel to pixel; what it should imitate: eight pixels."""
    generator = np.random.default_rng(0)
    grain = generator.integers(0, 256, (128, 128, 1), np.uint8).repeat(3, 2)
    stripes = (np.arange(128)[:, None, None] // 8 % 2 * 255).astype(np.uint8).repeat(128, 1).repeat(3, 2)
    left = {}
    for name, pixels in (("grain", grain), ("stripes", stripes)):
        save_image(pixels, tmp_path / f"{name}.png")
        style = preset_style("custom", str(tmp_path / f"{name}.png"))
        style.blur = 0.8
        left[name] = float(load_style(style, 128).std()) / float(load_image(style.image).std())
    assert left["grain"] < 0.4
    assert left["stripes"] > 0.85


@pytest.mark.parametrize("blur", [-1, 21, "much"])
def test_a_blur_that_cannot_be_is_refused(style: DictConfig, blur: object) -> None:
    style.blur = blur
    with pytest.raises(ConfigError, match=f"style.blur is {blur}; expected pixels from 0 to 20"):
        load_style(style)


def test_networks_are_trained_without_grain_pixels_and_papers_keep_it() -> None:
    words = ["style=the_shipwreck", "style.image=a.png"]
    assert compose("train", words).style.blur == compose("preview", words).style.blur == 0.8
    paper = compose("train", [*words, "experiment=johnson"]).style
    assert (paper.blur, paper.size) == (0, 512)
    assert compose("optimize", words).style.blur == 0


@pytest.mark.parametrize(("size", "blur"), [(256, 0), (400, 0), (552, 0.4), (704, 0.8), (1024, 0.8)])
def test_a_painting_is_smoothed_by_its_size_unless_told(size: int, blur: float) -> None:
    words = ["style.image=a.png", f"style.size={size}"]
    assert compose("train", words).style.blur == blur
    assert compose("train", [*words, "style.blur=2"]).style.blur == 2
    several = compose("train", ["style=[starry_night,the_scream]", f"styles.starry_night.size={size}", "style.image=a"])
    assert (several.styles.starry_night.blur, several.styles.the_scream.blur) == (blur, 0)


def test_what_a_painting_hides_is_no_style(tmp_path: Path, astronaut: np.ndarray) -> None:
    """Of every command that takes a painting: train, optimize, preview."""
    alpha, targets = np.zeros((120, 140), np.uint8), []
    alpha[20:100, 30:120], alpha[50:60, 50:60] = 255, 0
    for colour in ((255, 0, 255), (0, 255, 0)):
        rgb = np.where(alpha[..., None] > 0, astronaut[:120, :140], colour).astype(np.uint8)
        save_image(rgb, tmp_path / "painting.png", alpha)
        config = OmegaConf.create(
            {"image": str(tmp_path / "painting.png"), "size": 64, "region": [0, 0, 1, 0.8], "blur": 0.8}
        )
        targets.append(load_style(config))
    assert torch.equal(*targets)
    assert targets[0].shape[-1] == 64  # of what can be seen


@pytest.mark.parametrize("command", ["train", "optimize", "preview"])
def test_a_wholly_transparent_painting_is_refused(
    command: str,
    tmp_path: Path,
    astronaut: np.ndarray,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_image(astronaut[:64, :64], "photo.png")
    save_image(astronaut[:64, :64], "nothing.png", np.zeros((64, 64), np.uint8))
    words = {
        "train": ["data=generated"],
        "optimize": ["content=photo.png", "device=cpu"],
        "preview": ["photo.png", "device=cpu"],
    }[command]
    assert main([command, "style.image=nothing.png", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "nothing.png: is wholly transparent" in error[0]
