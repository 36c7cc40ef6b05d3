"""What ships is what the manifest says, and does what a style is for."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fststyle import PerceptualLoss, Stylizer, load_encoder
from fststyle.images import to_image
from fststyle.networks.checkpoint import load_checkpoint, shipped
from fststyle.resources import resource
from fststyle.training.data import centre_crop

MANIFEST = json.loads((resource("checkpoints") / "manifest.json").read_text(encoding="utf-8"))
STYLES = sorted(shipped("style"))


def test_the_manifest_names_exactly_what_ships() -> None:
    there = {f"{file.parent.name}/{file.name}" for file in resource("checkpoints").rglob("*.safetensors")}
    assert there == set(MANIFEST)
    assert {"starry_night", "wave"} <= set(STYLES)


@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_a_shipped_file_has_the_manifests_hash_and_size_and_is_small(name: str) -> None:
    data = (resource("checkpoints") / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == MANIFEST[name]["sha256"]
    assert len(data) == MANIFEST[name]["bytes"] <= 4.2e6
    assert MANIFEST[name]["command"].startswith("fststyle train ")


@pytest.mark.parametrize("style", STYLES)
def test_a_shipped_style_changes_a_photograph_without_drowning_it(style: str, astronaut: np.ndarray) -> None:
    photograph = to_image(astronaut[:256, 96:352])
    output = Stylizer.from_checkpoint(style, "cpu")(photograph)
    assert (output - photograph).abs().mean() > 0.05
    # What is light and what is dark stays: the outlines of the photograph are still there.
    grey = [image.mean((0, 1)).flatten() for image in (photograph, output)]
    assert torch.corrcoef(torch.stack(grey))[0, 1] > 0.6
    # Nothing saturated over large parts, no colour washed out.
    assert ((output < 0.002) | (output > 0.998)).float().mean() < 0.2
    assert (output.amax(1) - output.amin(1)).mean() > 0.05


@pytest.mark.parametrize("style", STYLES)
def test_a_shipped_style_measures_in_its_own_loss_what_the_manifest_promises(
    style: str, data: Path, tmp_path: Path
) -> None:
    """The record rebuilds the loss, but for the encoder's file: no painting is needed."""
    checkpoint = load_checkpoint(shipped("style")[style])
    record = checkpoint.record
    weights = tmp_path / "vgg19_slim.safetensors"  # a copy: means are cached beside it
    shutil.copyfile(data / "weights" / weights.name, weights)
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == record["encoder"]["sha256"]
    encoder = load_encoder(record["encoder"]["architecture"], weights, normalize=data / "photos" / "train")
    settings = {key: value for key, value in record["loss"].items() if key != "normalizers"}
    loss = PerceptualLoss(encoder, **settings)
    loss.normalizers = record["loss"]["normalizers"]
    style_terms, content_terms = [], []
    with torch.inference_mode():
        for file in sorted((data / "photos" / "preview").glob("*.jpg"))[:6]:
            with Image.open(file) as picture:
                photograph = to_image(np.asarray(centre_crop(picture.convert("RGB"), 256)))
            content = loss.content_targets(photograph)
            terms = loss(checkpoint.network(photograph), content=content, style=checkpoint.style_targets)
            style_terms.append(torch.stack(list(terms.style.values())).mean())
            content_terms.append(torch.stack(list(terms.content.values())).mean())
    assert torch.stack(style_terms).median() < 0.15
    assert torch.stack(content_terms).mean() < 0.5
