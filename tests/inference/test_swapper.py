"""Swapper: a checkpoint that brings its encoder along, applied to any two pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fststyle import Swapper, model_file
from fststyle.encoders.truncated import truncated_encoder
from fststyle.encoders.vgg import VGGEncoder
from fststyle.images import to_image, to_pixels
from fststyle.inference import DeviceError
from fststyle.model_file import ModelFileError, load_model_file, read_metadata, save_model_file
from fststyle.networks.styleswap import InverseNet, StyleSwap


def save(path: Path, source: VGGEncoder, network: InverseNet, **changes: Any) -> None:
    weights, told = truncated_encoder(source, "relu3_1")
    metadata = {"kind": "swap", "name": path.stem, "encoder": told, **changes.pop("metadata", {})}
    save_model_file(path, network, metadata, **{"encoder": weights, **changes})


@pytest.fixture
def network() -> InverseNet:
    torch.manual_seed(0)
    return InverseNet(8)


@pytest.fixture
def file(tmp_path: Path, encoder: VGGEncoder, network: InverseNet) -> Path:
    path = tmp_path / "any.safetensors"
    save(path, encoder, network)
    return path


@pytest.fixture
def pictures(astronaut: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return astronaut[:66:2, :90:2].copy(), astronaut[200:248, 100:140].copy()


# --- the file -------------------------------------------------------------------------------------


def test_a_checkpoint_holds_network_and_encoder_and_nothing_deeper(
    file: Path, encoder: VGGEncoder, network: InverseNet
) -> None:
    loaded = load_model_file(file, "swap")
    assert loaded.network.config == network.config
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], value.half().float())
    assert {key.split(".")[0] for key in loaded.encoder} == {
        *("preprocess", "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"),
    }
    for key, value in loaded.encoder.items():
        original = encoder.weights()[key]
        assert value.dtype == torch.float32
        assert torch.equal(value, original if key.startswith("preprocess") else original.half().float()), key
    told = read_metadata(file)["encoder"]
    assert (told["name"], told["architecture"], told["layer"]) == ("custom", "vgg16", "relu3_1")
    assert (told["pooling"], told["padding"]) == ("max", "zeros")


def test_in_float32_nothing_is_lost(
    tmp_path: Path, encoder: VGGEncoder, network: InverseNet, pictures: tuple[np.ndarray, np.ndarray]
) -> None:
    save(tmp_path / "exact.safetensors", encoder, network, dtype="float32")
    content, style = (to_image(rgb) for rgb in pictures)
    with torch.inference_mode():
        expected = StyleSwap(encoder, network).eval()(content, style)
    found = Swapper.from_checkpoint(tmp_path / "exact.safetensors", "cpu")(content, style)
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)


def test_pooling_and_padding_come_back(tmp_path: Path, encoder: VGGEncoder, network: InverseNet) -> None:
    other = VGGEncoder(encoder.weights(), "vgg16", "average", "reflect", "mine")
    save(tmp_path / "other.safetensors", other, network)
    found = Swapper.from_checkpoint(tmp_path / "other.safetensors", "cpu").backend.network.encoder
    assert (found.pooling, found.padding, found.name) == ("average", "reflect", "mine")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": {}}, "lack conv1_1.weight"),
        ({"metadata": {"encoder": {"architecture": "vgg16"}}}, "pooling"),
        ({"metadata": {"encoder": None}}, "subscriptable"),
        ({"network": InverseNet(16)}, "has 8 channels at 1/4 of the size; the inverse network takes 16"),
    ],
)
def test_a_file_that_does_not_fit_itself_is_refused_in_one_line(
    tmp_path: Path, encoder: VGGEncoder, network: InverseNet, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "odd.safetensors"
    save(path, encoder, changes.pop("network", network), **changes)
    with pytest.raises(ModelFileError, match="odd: does not hold what its kind, swap, needs") as caught:
        Swapper.from_checkpoint(path, "cpu")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_layer_of_another_size_is_refused(tmp_path: Path, encoder: VGGEncoder, network: InverseNet) -> None:
    weights, told = truncated_encoder(encoder, "relu4_1")
    save(tmp_path / "deep.safetensors", encoder, network, encoder=weights, metadata={"encoder": told})
    with pytest.raises(ModelFileError, match="relu4_1 of custom has 10 channels at 1/8"):
        Swapper.from_checkpoint(tmp_path / "deep.safetensors", "cpu")


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path, network: InverseNet) -> None:
    save_model_file(tmp_path / "wave.safetensors", network, {"kind": "style", "name": "wave"})
    with pytest.raises(ModelFileError, match="kind 'style'; expected kind 'swap'"):
        Swapper.from_checkpoint(tmp_path / "wave.safetensors")


def test_a_name_is_a_bundled_networks(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "resource", lambda name: tmp_path / name)
    with pytest.raises(ModelFileError, match="'slim' for style swap did not come with this installation; give a model"):
        Swapper.from_checkpoint()
    (tmp_path / "checkpoints" / "swap").mkdir(parents=True)
    file.rename(tmp_path / "checkpoints" / "swap" / "slim.safetensors")
    assert Swapper.from_checkpoint(device="cpu").metadata["kind"] == "swap"
    with pytest.raises(ModelFileError, match="unknown swap 'fat'; expected a model file or one of slim"):
        Swapper.from_checkpoint("fat")


# --- the pass -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 3, 17, 31), (1, 3, 40, 21)])
def test_a_picture_comes_back_at_its_size_in_range(file: Path, shape: tuple[int, ...]) -> None:
    output = Swapper.from_checkpoint(file, "cpu")(torch.rand(shape), torch.rand(1, 3, 19, 24))
    assert output.shape == shape
    assert output.dtype == torch.float32
    assert output.min() >= 0
    assert output.max() <= 1


def test_pictures_of_a_batch_are_swapped_as_if_alone(file: Path) -> None:
    swapper = Swapper.from_checkpoint(file, "cpu")
    content, style = torch.rand(3, 3, 20, 24), torch.rand(3, 3, 18, 30)
    each = torch.cat([swapper(content[i : i + 1], style[i : i + 1]) for i in range(3)])
    assert torch.allclose(swapper(content, style), each, atol=1e-5)


def test_decoded_pictures_give_what_tensors_give(file: Path, pictures: tuple[np.ndarray, np.ndarray]) -> None:
    swapper = Swapper.from_checkpoint(file, "cpu")
    found = swapper.pixels(*pictures, patch=2, stride=2)
    assert found.dtype == np.uint8
    assert np.array_equal(found, to_pixels(swapper(*(to_image(rgb) for rgb in pictures), 2, 2)))


def test_patch_and_stride_reach_the_swap(file: Path, pictures: tuple[np.ndarray, np.ndarray]) -> None:
    swapper = Swapper.from_checkpoint(file, "cpu")
    content, style = (to_image(rgb) for rgb in pictures)
    results = [swapper(content, style, *words) for words in ((3, 1), (1, 1), (3, 3), (5, 2))]
    for i, one in enumerate(results):
        assert all(not torch.equal(one, other) for other in results[i + 1 :])


def test_the_encoder_may_run_in_bfloat16(file: Path, pictures: tuple[np.ndarray, np.ndarray]) -> None:
    content, style = (to_image(rgb) for rgb in pictures)
    exact, low = (Swapper.from_checkpoint(file, "cpu", p)(content, style) for p in ("float32", "bfloat16"))
    assert low.dtype == torch.float32
    assert not torch.equal(low, exact)
    assert (low - exact).abs().mean() < 0.02


def test_what_cannot_be_done_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swapper = Swapper.from_checkpoint(file, "cpu")
    image = torch.rand(1, 3, 20, 20)
    for content, style, words, message in (
        (image[:, :, :15], image, (), "20×15 pixels; expected at least 16×16"),
        (image, image[:, :1], (), r"expected \(B, 3, H, W\)"),
        (image, image.mul(255).byte(), (), "found a style of torch.uint8; expected floating point"),
        (image, image, (6, 1), "features are 5×5; expected at least 6×6 for patch=6"),
        (image, image, (3, 4), "stride is 4 and patch 3"),
    ):
        with pytest.raises(ValueError, match=message):
            swapper(content, style, *words)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no CUDA device"):
        Swapper.from_checkpoint(file, "cuda")
    with pytest.raises(DeviceError, match="precision is 'int8'"):
        Swapper.from_checkpoint(file, "cpu", "int8")
