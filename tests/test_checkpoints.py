"""What is bundled is what the manifest says, and does what a style is for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fststyle import PerceptualLoss, Stylizer, Swapper, Upscaler
from fststyle.color import match_color
from fststyle.config import compose
from fststyle.encoders.pretrained import encoder_of
from fststyle.evaluation import superres
from fststyle.images import read_picture, to_image, to_pixels
from fststyle.model_file import all_styles, bundled_files, load_model_file
from fststyle.networks.superres import reduce
from fststyle.networks.transform import TransformNet
from fststyle.resources import resource
from fststyle.training.crops import centre_crop

MANIFEST = json.loads((resource("checkpoints") / "manifest.json").read_text(encoding="utf-8"))
STYLES = sorted(all_styles())


def test_the_manifest_names_exactly_what_is_bundled() -> None:
    there = {f"{file.parent.name}/{file.name}" for file in resource("checkpoints").rglob("*.safetensors")}
    assert there == set(MANIFEST)
    assert {"starry_night", "wave"} <= set(STYLES)
    assert len(STYLES) >= 9


def test_the_zoo_has_twelve_styles_and_the_files_of_one_style_win() -> None:
    file = load_model_file(bundled_files("style")["zoo"])
    assert len(file.styles) >= 12
    assert {entry.name for entry in file.styles} >= {name for name in STYLES if "/" not in name}
    assert all(entry.thumbnail and entry.style_targets for entry in file.styles)
    assert [name for name in STYLES if "/" in name] == [f"zoo/{n}_large" for n in ("brushwork", "hatching", "mosaic")]


@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_a_bundled_file_has_the_manifests_hash_and_size_and_is_small(name: str) -> None:
    data = (resource("checkpoints") / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == MANIFEST[name]["sha256"]
    assert len(data) == MANIFEST[name]["bytes"] <= (7e6 if name.startswith("arbitrary/") else 4.2e6)
    made_by = {"encoders": "python scripts/distill_encoder.py "}
    trained = ("fststyle train ", "python scripts/train_together.py ", "python scripts/distill_styles.py ")
    assert MANIFEST[name]["command"].startswith(made_by.get(name.split("/")[0], trained))


@pytest.mark.parametrize("style", STYLES)
def test_a_bundled_style_changes_a_photograph_without_drowning_it(style: str, astronaut: np.ndarray) -> None:
    photograph = to_image(astronaut[:256, 96:352])
    output = Stylizer.from_checkpoint(style, "cpu", "torch")(photograph)
    assert (output - photograph).abs().mean() > 0.05
    # What is light, dark, warm or cool is where it was, at the size of strokes: the photograph's subject is there.
    recolored = match_color(photograph, output)
    blocks = [F.avg_pool2d(image - image.mean((2, 3), True), 8).flatten() for image in (recolored, output)]
    least = {"mosaic": 0.54, "zoo/mosaic_large": 0.58}.get(style, 0.68)  # stones have colours of their own
    assert torch.corrcoef(torch.stack(blocks))[0, 1] > least
    # What is light and what is dark alone; styles that keep hues vary it, and octaves more.
    grey = [F.avg_pool2d(image.mean(1, keepdim=True), 8).flatten() for image in (photograph, output)]
    freed = {
        "mosaic": 0.35,
        "zoo/mosaic_large": 0.44,
        "the_scream": 0.71,
        "starry_night": 0.72,
        "composition_vii": 0.75,
        "the_shipwreck": 0.78,
        "udnie": 0.78,
        "zoo/hatching_large": 0.73,
    }
    assert torch.corrcoef(torch.stack(grey))[0, 1] > freed.get(style, 0.8)
    # Nothing saturated over large parts, no colour washed out.
    assert ((output < 0.002) | (output > 0.998)).float().mean() < 0.2
    assert (output.amax(1) - output.amin(1)).mean() > (0.02 if "hatching" in style else 0.05)  # black on white


def test_one_default_weight_serves_every_bundled_style_within_a_factor_of_two() -> None:
    presets = (resource("conf") / "style").glob("*.yaml")
    weights = {file.stem: compose(None, [f"+style={file.stem}"]).style.weight for file in presets}
    assert len(weights) > 9
    assert all(0.5 <= weight <= 2 for weight in weights.values())


@pytest.mark.parametrize("style", [STYLES[0], *(pytest.param(each, marks=pytest.mark.slow) for each in STYLES[1:])])
def test_a_bundled_style_measures_in_its_own_loss_what_the_manifest_promises(style: str, data: Path) -> None:
    """The checkpoint rebuilds the loss: neither the painting nor a download is needed.

    What the loss judged in training is the network without its filter, which is for the eye and costs style terms.
    """
    checkpoint = load_model_file(all_styles()[style])
    assert isinstance(checkpoint.network, TransformNet)
    trained = checkpoint.network.with_kuwahara(0)
    loss = PerceptualLoss.from_metadata(encoder_of(checkpoint.metadata), checkpoint.metadata)
    style_terms, content_terms = [], []
    with torch.inference_mode():
        for file in sorted((data / "photos" / "preview").glob("*.jpg"))[:6]:
            with Image.open(file) as picture:
                photograph = to_image(np.asarray(centre_crop(picture.convert("RGB"), 256)))
            content = loss.content_targets(photograph)
            terms = loss(trained(photograph), content=content, style=checkpoint.style_targets)
            style_terms.append(torch.stack(list(terms.style.values())).mean())
            terms = loss(checkpoint.network(photograph), content=content, style=checkpoint.style_targets)
            content_terms.append(torch.stack(list(terms.content.values())).mean())
    assert torch.stack(style_terms).median() < 0.15
    # Joints and hatches where the photograph has no lines cost more than another photograph would.
    assert torch.stack(content_terms).mean() < (1.35 if "hatching" in style or "mosaic" in style else 0.85)


# --- super-resolution and style swap ----------------------------------------------------------------


def sharpness(pixels: np.ndarray) -> float:
    """Mean absolute step of luminance from pixel to pixel."""
    grey = pixels.astype(float).mean(2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def test_super_resolution_is_bundled() -> None:
    assert {"x4_pixel", "x4_feature", "x8_pixel"} <= set(bundled_files("superres"))
    assert "slim" in bundled_files("swap")


@pytest.mark.parametrize("name", sorted(bundled_files("superres")))
def test_a_bundled_enlarger_beats_bicubic_at_what_it_was_trained_for(name: str, astronaut: np.ndarray) -> None:
    upscaler = Upscaler.from_checkpoint(name, "cpu", "torch")
    original = astronaut[:192, 128:320]
    small = to_pixels(reduce(to_image(original), upscaler.scale))
    plain, made = superres.bicubic(upscaler.scale)(small), upscaler.pixels(small)
    ours, theirs = (superres.measure(result, original, upscaler.scale) for result in (made, plain))
    assert sharpness(made) > sharpness(plain)
    if name.endswith("pixel"):
        assert ours["psnr"] > theirs["psnr"] + 0.3
        assert ours["ssim"] > theirs["ssim"]
    else:
        assert ours["psnr"] > theirs["psnr"] - 2
        assert sharpness(made) > 1.2 * sharpness(plain)


@pytest.mark.parametrize("name", sorted(bundled_files("swap")))
def test_a_bundled_swapper_paints_with_the_style_and_keeps_the_photograph(name: str, astronaut: np.ndarray) -> None:
    swapper = Swapper.from_checkpoint(name, "cpu")
    photograph = astronaut[:192, 96:288]
    itself = swapper.pixels(photograph, photograph)
    grey = [pixels.astype(float).mean(2).ravel() for pixels in (photograph, itself)]
    assert np.corrcoef(grey)[0, 1] > 0.85  # a photograph swapped with itself is only decoded
    painting = read_picture(resource("checkpoints") / "paintings" / "brushwork.jpg", 256).rgb
    painted = swapper.pixels(photograph, painting)
    mean = [pixels.reshape(-1, 3).mean(0) for pixels in (itself, painted, painting)]
    assert np.abs(mean[1] - mean[2]).sum() < np.abs(mean[0] - mean[2]).sum()  # its colours move to the style's
