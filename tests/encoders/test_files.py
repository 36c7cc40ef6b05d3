"""Encoder weights from local files."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from encoder_weights import WIDTHS, first_layer, sha256, torchvision_state
from fststyle.encoders.pretrained import load_encoder, random_weights
from fststyle.encoders.published import PUBLISHED, WeightsError


def test_a_local_copy_of_a_published_file_is_known_by_its_hash(
    weights_file: Path, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    caffe = ((0.48235, 0.45882, 0.40784), (1 / 255,) * 3)
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def loads_as(statistics: tuple[tuple[float, ...], tuple[float, ...]], **options: Any) -> None:
        expected = first_layer(torchvision_state(), image, *statistics)
        found = load_encoder("vgg16", weights_file, **options)(image, ["conv1_1"])["conv1_1"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))

    loads_as(imagenet)  # nobody knows it
    loads_as(caffe, preprocess="caffe")
    known = replace(PUBLISHED["vgg16", "features"], sha256=sha256(weights_file)[:8])
    monkeypatch.setitem(PUBLISHED, ("vgg16", "features"), known)
    loads_as(caffe)
    loads_as(imagenet, preprocess="imagenet")


def test_what_a_local_file_says_of_itself_goes_into_the_metadata(weights_file: Path) -> None:
    encoder = load_encoder("vgg16", weights_file)
    assert (encoder.name, encoder.digest, encoder.architecture) == ("weights", sha256(weights_file), "vgg16")
    assert (encoder.pooling, encoder.padding) == ("max", "zeros")
    other = load_encoder("vgg16", str(weights_file), pooling="average", padding="reflect")
    assert (other.pooling, other.padding) == ("average", "reflect")


def test_torchvisions_layout_as_safetensors_is_the_same(weights_file: Path, tmp_path: Path, image: Tensor) -> None:
    save_file(torchvision_state(), tmp_path / "weights.safetensors")
    pth, tensors = (load_encoder("vgg16", tmp_path / f"weights{s}") for s in (".pth", ".safetensors"))
    assert pth.layers == tensors.layers
    assert torch.equal(pth(image, ["relu5_3"])["relu5_3"], tensors(image, ["relu5_3"])["relu5_3"])


def test_layers_by_name_bring_their_own_normalisation_and_padding(tmp_path: Path, image: Tensor) -> None:
    weights = random_weights("vgg16", widths=WIDTHS)
    weights["preprocess.weight"] = torch.tensor([[0.0, 0, 255], [0, 255, 0], [255, 0, 0]])  # to BGR
    weights["preprocess.bias"] = torch.tensor([-104.0, -117, -124])
    plain = {**weights, "preprocess.weight": weights["preprocess.weight"].view(3, 3, 1, 1)}
    save_file(plain, tmp_path / "plain.safetensors")
    save_file({**weights, "to_vgg19.relu1_1.weight": torch.ones(64, 4, 1, 1)}, tmp_path / "distilled.safetensors")
    encoder = load_encoder("vgg16", tmp_path / "plain.safetensors")
    bgr = 255 * image.flip(1) - torch.tensor([104.0, 117, 124]).view(3, 1, 1)
    expected = F.conv2d(bgr, weights["conv1_1.weight"], padding=1)
    torch.testing.assert_close(encoder(image, ["conv1_1"])["conv1_1"], expected, rtol=1e-4, atol=1e-2)
    assert encoder.padding == "zeros"
    assert load_encoder("vgg16", tmp_path / "distilled.safetensors").padding == "reflect"
    assert load_encoder("vgg16", tmp_path / "distilled.safetensors", padding="zeros").padding == "zeros"


class Marker:
    """An object whose unpickling makes a folder: what a hostile file could do with anything else."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    marker, path = tmp_path / "ran", tmp_path / "hostile.pth"
    content = {**torchvision_state(), "features.99.weight": Marker(marker)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(WeightsError, match=r"hostile\.pth: is no \.pth file of tensors only, and was not unpickled$"):
        load_encoder("vgg16", path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert marker.exists()  # it would have


def without(*keys: str) -> dict[str, Tensor]:
    return {key: value for key, value in torchvision_state().items() if key not in keys}


def by_name(**changed: Tensor) -> dict[str, Tensor]:
    return {**random_weights("vgg16", widths=WIDTHS), **{k.replace("__", "."): v for k, v in changed.items()}}


BAD_STATES: dict[str, tuple[Any, str]] = {
    "another network": ({"layer1.0.weight": torch.ones(1)}, "has tensors layer1.0.weight, …; expected torchvision's"),
    "empty": ({}, "has tensors none, …; expected torchvision's names"),
    "a list": ([torch.ones(1)], "holds list; expected a state dict of tensors"),
    "numbers": ({"features.0.weight": 3}, "holds dict; expected a state dict of tensors"),
    "no bias": (without("features.5.bias"), "lacks conv2_1.bias of vgg16; is it the file of another network?"),
    "a gap": (without("features.5.weight"), "lacks conv2_1.weight of vgg16; is it the file of another network?"),
    "vgg19's": (torchvision_state("vgg19"), "lacks conv4_1.weight of vgg16; is it the file of another network?"),
    "grey input": (
        torchvision_state() | {"features.0.weight": torch.ones(4, 1, 3, 3)},
        "conv1_1.weight is (4, 1, 3, 3) for vgg16; expected (4, 3, 3, 3)",
    ),
    "5×5": (
        torchvision_state() | {"features.2.weight": torch.ones(4, 4, 5, 5)},
        "conv1_2.weight is (4, 4, 5, 5) for vgg16; expected (4, 4, 3, 3)",
    ),
    "channels": (
        torchvision_state() | {"features.5.weight": torch.ones(6, 5, 3, 3)},
        "conv2_1.weight is (6, 5, 3, 3) for vgg16; expected (6, 4, 3, 3)",
    ),
    "scalar": (
        torchvision_state() | {"features.0.weight": torch.tensor(1.0)},
        "conv1_1.weight is () for vgg16; expected (0, 3, 3, 3)",
    ),
    "bias": (torchvision_state() | {"features.0.bias": torch.ones(5)}, "conv1_1.bias is (5,) for vgg16; expected (4,)"),
    "preprocess": (
        by_name(preprocess__weight=torch.ones(4, 3)),
        "preprocess.weight is (4, 3) for vgg16; expected (3, 3)",
    ),
    "preprocess bias": (by_name(preprocess__bias=torch.ones(1)), "preprocess.bias is (1,) for vgg16; expected (3,)"),
}


@pytest.mark.parametrize("kind", BAD_STATES)
def test_weights_of_another_make_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    state, message = BAD_STATES[kind]
    path = tmp_path / "bad.pth"
    torch.save(state, path)
    assert_refused(path, message)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"some text\n", b"\x89PNG\r\n\x1a\n" + bytes(64), b"PK\x03\x04 no zip"], ids=repr
)
def test_a_file_that_is_no_weights_is_refused_in_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    assert_refused(path, "")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    torch.save(torchvision_state(), path) if suffix == ".pth" else save_file(torchvision_state(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert_refused(path, "cannot be read as encoder weights (")


def test_a_missing_file_or_a_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    assert_refused(tmp_path / "missing.pth", "no such file; expected encoder weights (.pth or .safetensors)")
    (tmp_path / "folder.pth").mkdir()
    assert_refused(tmp_path / "folder.pth", "")


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_encoder("vgg16", path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vgg16", "caffe"), "vgg16 has no weights 'caffe'; expected features, imagenet, slim, random, or a file"),
        (("vgg19", "features"), "vgg19 has no weights 'features'; expected imagenet, slim, random, or a file"),
        (("vgg11",), "architecture is 'vgg11'; expected one of vgg16, vgg19"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_encoder(*arguments)
    assert str(caught.value) == message


def test_an_unknown_way_to_preprocess_is_refused(weights_file: Path) -> None:
    with pytest.raises(WeightsError, match=r"^preprocess is 'bgr'; expected imagenet or caffe$"):
        load_encoder("vgg16", weights_file, preprocess="bgr")
