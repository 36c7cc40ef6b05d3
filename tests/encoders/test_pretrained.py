"""Encoders by name: random, bundled, normalised, and those of model files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from encoder_weights import WIDTHS, sha256, write
from fststyle.encoders import pretrained
from fststyle.encoders.files import save_encoder
from fststyle.encoders.pretrained import SAME_WEIGHTS, encoder_of, load_encoder, photographs_for_normalizing
from fststyle.encoders.published import WeightsError
from fststyle.encoders.vgg import VGGEncoder, mean_activations
from fststyle.losses import measure_photographs
from fststyle.model_file import bundled_files, read_metadata
from fststyle.resources import file_sha256

# --- random weights -------------------------------------------------------------------------------


def test_random_weights_warn_that_the_pictures_will_not_be_real(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="fststyle"):
        encoder = load_encoder("vgg16", "random", widths=WIDTHS)
    assert [entry.levelname for entry in caplog.records] == ["WARNING"]
    assert "random weights: the pictures will not look like the style" in caplog.text
    assert encoder.digest == ""


def test_files_do_not_warn(weights_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_encoder("vgg16", weights_file)
    assert not caplog.records


def test_random_weights_are_a_function_of_the_seed_alone(image: Tensor) -> None:
    def features(seed: int) -> Tensor:
        torch.manual_seed(torch.randint(1000, ()).item())  # whatever the state of the global generator
        return load_encoder("vgg16", "random", seed=seed, widths=WIDTHS)(image, ["relu5_1"])["relu5_1"]

    torch.manual_seed(1)
    first = features(7)
    torch.manual_seed(2)
    assert torch.equal(features(7), first)
    assert not torch.equal(features(8), first)


def test_random_weights_neither_use_nor_move_the_global_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load_encoder("vgg19", "random", widths=WIDTHS)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_weights_keep_the_signals_size() -> None:
    encoder = load_encoder("vgg19", "random", widths=(32,) * 5)
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    taps = encoder(noise, ["conv1_2", "conv5_1"])
    assert 0.1 < taps["conv5_1"].std() / taps["conv1_2"].std() < 10


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the means go; the folder is not there yet."""
    monkeypatch.setenv("FSTSTYLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "normalize"


def mean_of(encoder: VGGEncoder, image: Tensor, layer: str = "relu1_2") -> Tensor:
    return encoder(image, [layer])[layer].mean((0, 2, 3))


# --- normalisation on photographs, and its cache --------------------------------------------------


def test_normalising_on_images_brings_their_mean_activations_to_one(weights_file: Path, image: Tensor) -> None:
    encoder = load_encoder("vgg16", weights_file, normalize=[image])
    torch.testing.assert_close(mean_of(encoder, image), torch.ones(4), rtol=1e-4, atol=0)
    assert encoder.name == "weights+normalized"
    assert encoder.digest == sha256(weights_file)


def test_images_may_come_as_one_batch_or_several(weights_file: Path, image: Tensor, tmp_path: Path) -> None:
    batch = torch.cat([image, image.flip(2)])
    as_one, as_two = (load_encoder("vgg16", weights_file, normalize=n) for n in (batch, [image, image.flip(2)]))
    torch.testing.assert_close(mean_of(as_one, batch), torch.ones(4), rtol=1e-4, atol=0)
    torch.testing.assert_close(mean_of(as_two, image), mean_of(as_one, image))


def test_the_means_are_cached_in_the_users_folder_and_used_the_second_time(
    weights_file: Path, photographs: Path, image: Tensor, cache: Path
) -> None:
    first = mean_of(load_encoder("vgg16", weights_file, normalize=photographs), image)
    (kept,) = cache.iterdir()
    assert {path.name for path in weights_file.parent.iterdir()} == {weights_file.name, "cache"}
    again = mean_of(load_encoder("vgg16", weights_file, normalize=str(photographs)), image)
    assert torch.equal(again, first)
    save_file({key: 2 * value for key, value in load_file(kept).items()}, kept)
    tampered = mean_of(load_encoder("vgg16", weights_file, normalize=photographs), image)
    torch.testing.assert_close(tampered, first / 2)


def test_the_cache_belongs_to_these_pictures_these_weights_and_these_options(
    weights_file: Path, image: Tensor, cache: Path
) -> None:
    options: list[dict[str, Any]] = [
        {"normalize": [image]},
        {"normalize": [image.flip(3)]},
        {"normalize": [image, image]},
        {"normalize": [image], "pooling": "average"},
        {"normalize": [image], "padding": "reflect"},
        {"normalize": [image], "preprocess": "caffe"},
    ]
    for count, option in enumerate(options, 1):
        load_encoder("vgg16", weights_file, **option)
        assert len(list(cache.iterdir())) == count, option
    write(weights_file, seed=5)  # another file of the same name
    encoder = load_encoder("vgg16", weights_file, normalize=[image])
    torch.testing.assert_close(mean_of(encoder, image), torch.ones(4), rtol=1e-4, atol=0)
    assert len(list(cache.iterdir())) == len(options) + 1


def test_a_copy_of_the_weights_shares_the_cache(weights_file: Path, image: Tensor, cache: Path) -> None:
    for path in (weights_file, weights_file.with_name("copy.pth")):
        path.write_bytes(weights_file.read_bytes())
        load_encoder("vgg16", path, normalize=[image])
    assert len(list(cache.iterdir())) == 1


def test_means_of_random_weights_are_not_cached(
    tmp_path: Path, image: Tensor, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = load_encoder("vgg16", "random", widths=WIDTHS, normalize=[image])
    torch.testing.assert_close(mean_of(encoder, image), torch.ones(4), rtol=1e-4, atol=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["a file is in the way", "the disk is full"])
def test_a_cache_that_cannot_be_written_is_done_without(
    fault: str, weights_file: Path, image: Tensor, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "a file is in the way":  # who runs as root may write into every folder
        cache.parent.write_text("in the way")
    else:

        def full(*_: Any) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(pretrained, "write_atomically", full)
    encoder = load_encoder("vgg16", weights_file, normalize=[image])
    torch.testing.assert_close(mean_of(encoder, image), torch.ones(4), rtol=1e-4, atol=0)
    assert {path.name for path in weights_file.parent.iterdir()} == {weights_file.name, "cache"}
    assert not cache.is_dir() or not list(cache.iterdir())


@pytest.mark.parametrize("left", [0, 4, 100])
def test_a_damaged_cache_is_made_anew(left: int, weights_file: Path, image: Tensor, cache: Path) -> None:
    load_encoder("vgg16", weights_file, normalize=[image])
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:left])
    encoder = load_encoder("vgg16", weights_file, normalize=[image])
    torch.testing.assert_close(mean_of(encoder, image), torch.ones(4), rtol=1e-4, atol=0)
    assert kept.read_bytes() == whole


def test_photographs_to_normalise_on_are_spread_over_the_folder(tmp_path: Path) -> None:
    """Grey pictures of level 10, 20, …, 70: of seven, five reach from the first to the last but one at least."""
    from PIL import Image

    for level in range(10, 80, 10):
        Image.new("L", (40, 32), level).save(tmp_path / f"{level}.png")
    chosen = list(photographs_for_normalizing(tmp_path, count=5, size=16))
    assert all(picture.shape == (1, 3, 16, 20) for picture in chosen)
    levels = [round(255 * picture.mean().item()) for picture in chosen]
    assert len(set(levels)) == 5
    assert levels[0] == 10
    assert levels[-1] >= 60
    everything = [round(255 * p.mean().item()) for p in photographs_for_normalizing(tmp_path, size=16)]
    assert everything == list(range(10, 80, 10))


def test_a_folder_without_pictures_is_refused_by_name(weights_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: has no pictures in it"):
        load_encoder("vgg16", weights_file, normalize=tmp_path / "empty")


@pytest.fixture
def slim() -> VGGEncoder:
    return load_encoder("vgg19", "slim")


# --- the small bundled encoders -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "padding", "taps"),
    [
        (
            "vgg19",
            "reflect",
            {"relu1_1": 16, "relu2_1": 32, "relu3_1": 64, "relu3_3": 64, "relu4_1": 128, "relu5_1": 128},
        ),
        ("vgg16", "zeros", {"relu1_2": 16, "relu2_2": 32, "relu3_1": 64, "relu3_3": 64, "relu4_3": 128}),
    ],
)
def test_a_slim_encoder_is_small_and_reaches_what_losses_tap(
    architecture: str, padding: str, taps: dict[str, int]
) -> None:
    encoder = load_encoder(architecture, "slim")
    path = bundled_files("encoder")[f"{architecture}_slim"]
    assert path.stat().st_size <= 4_200_000
    assert encoder.name == f"{architecture}-slim"
    assert encoder.digest == file_sha256(path)
    widths = {layer: value.shape[1] for layer, value in encoder(torch.rand(1, 3, 32, 32), encoder.layers).items()}
    assert taps.items() <= widths.items()
    assert encoder.padding == padding


@pytest.mark.parametrize("name", ["vgg19_slim", "vgg16_slim"])
def test_a_slim_encoder_tells_where_it_comes_from(name: str) -> None:
    metadata = read_metadata(bundled_files("encoder")[name])
    assert metadata["kind"] == "encoder"
    assert "Copyright (c) 2020 Huan Wang" in metadata["teacher"]["notice"]
    assert "shall be included in all" in metadata["teacher"]["notice"]
    assert len(metadata["teacher"]["sha256"]) == 64
    assert "distill_encoder.py" in metadata["command"]


@pytest.mark.slow
def test_the_slim_encoder_knows_photographs(slim: VGGEncoder, data: Path) -> None:
    """Activations of mean 1, but for filters that hardly ever fire; and what it knows is what photographs measure."""
    images = [image[..., :256, :256] for image in photographs_for_normalizing(data / "photos/preview", 12, 256)]
    means = mean_activations(slim, images)
    for conv in ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"):
        firing = means[conv][means[conv] > 0.5]
        assert len(firing) >= len(means[conv]) / 4, conv
        assert firing.mean().item() == pytest.approx(1, abs=0.25), conv
    known = slim.photographs
    assert known is not None
    measured = measure_photographs(slim, [torch.cat(images)])
    for layer in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"):
        assert measured.content[layer] == pytest.approx(known.content[layer], rel=0.5)
        assert measured.gram_energies[layer] == pytest.approx(known.gram_energies[layer], rel=0.8)


def test_a_change_of_pooling_or_padding_forgets_the_photographs() -> None:
    assert load_encoder("vgg16", "slim").photographs is not None
    assert load_encoder("vgg16", "slim", pooling="average").photographs is None
    assert load_encoder("vgg16", "slim", padding="reflect").photographs is None
    assert load_encoder("vgg19", "slim", padding="zeros").photographs is None


def test_an_encoder_is_saved_and_loaded(tmp_path: Path, encoder: VGGEncoder) -> None:
    known = measure_photographs(encoder, [torch.rand(3, 3, 32, 32)])
    save_encoder(tmp_path / "small.safetensors", encoder, {"kind": "encoder", "name": "small"}, known)
    again = load_encoder("vgg16", tmp_path / "small.safetensors")
    assert again.name == "small"
    for key, value in encoder.weights().items():
        torch.testing.assert_close(again.weights()[key], value, rtol=1e-3, atol=1e-6)
    assert again.photographs is not None
    assert again.photographs.content == known.content
    torch.testing.assert_close(again.photographs.grams["relu3_3"], known.grams["relu3_3"])
    assert again.photographs.quantile_energies == known.quantile_energies
    assert {"relu1_1", "relu3_1/2"} <= again.photographs.quantiles.keys()
    for name, quantiles in known.quantiles.items():
        torch.testing.assert_close(again.photographs.quantiles[name], quantiles, rtol=1e-3, atol=1e-6)
    assert (again.photographs.count, again.photographs.size) == (3, 32)


def test_unknown_weights_name_the_slim_ones_too() -> None:
    with pytest.raises(WeightsError, match="vgg16 has no weights 'caffe'; expected features, imagenet, slim, random"):
        load_encoder("vgg16", "caffe")
    with pytest.raises(WeightsError, match="vgg19 has no weights 'caffe'; expected imagenet, slim, random, or a file"):
        load_encoder("vgg19", "caffe")


def told(encoder: VGGEncoder, **changes: Any) -> dict[str, Any]:
    metadata = {key: getattr(encoder, key) for key in ("name", "architecture", "pooling", "padding")}
    return {"name": "rain", "encoder": {**metadata, "sha256": encoder.digest, **changes}}


# --- the encoder of a checkpoint ------------------------------------------------------------------


def test_a_checkpoints_encoder_is_found_by_its_name(slim: VGGEncoder) -> None:
    found = encoder_of(told(slim))
    assert (found.name, found.digest) == (slim.name, slim.digest)


def test_a_checkpoints_encoder_of_another_file_is_refused(slim: VGGEncoder) -> None:
    with pytest.raises(WeightsError, match="rain was trained with 0000"):
        encoder_of(told(slim, sha256="0" * 64))


def test_the_bundled_encoder_before_it_knew_quantiles_is_the_same() -> None:
    slim = load_encoder("vgg19", "slim")
    before = next(iter(SAME_WEIGHTS))
    assert SAME_WEIGHTS[before] == slim.digest
    assert encoder_of(told(slim, sha256=before)).digest == slim.digest


def test_a_local_or_scaled_encoder_must_be_given(slim: VGGEncoder) -> None:
    with pytest.raises(WeightsError, match="rain was trained with mine, which does not come with fststyle"):
        encoder_of(told(slim, name="mine"))
    with pytest.raises(WeightsError, match="filters scaled on photographs; give their folder: --normalize FOLDER"):
        encoder_of(told(slim, name="vgg19-slim+normalized"))
    beside = bundled_files("encoder")["vgg19_slim"].parent
    there = set(beside.iterdir())
    scaled = encoder_of(told(slim, name="vgg19-slim+normalized"), normalize=torch.rand(2, 3, 64, 64))
    assert scaled.name == "vgg19-slim+normalized"
    assert set(beside.iterdir()) == there, "a cache was left among what is bundled"
