"""VGGEncoder: taps by name, frozen, and as torchvision computes them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fststyle.encoders.files import preprocessing
from fststyle.encoders.pretrained import load_encoder, random_weights
from fststyle.encoders.vgg import VGGEncoder
from fststyle.images import to_image

WIDTHS = (4, 6, 8, 10, 12)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


Pool = Callable[[Tensor], Tensor]


def step_by_step(
    features: nn.Sequential, image: Tensor, pool: Pool = lambda x: F.max_pool2d(x, 2, 2), padding: str = "constant"
) -> dict[str, Tensor]:
    """Run torchvision's ``features`` one module after another and call what comes out as the papers do."""
    taps: dict[str, Tensor] = {}
    block, index = 1, 0
    x = torchvision.transforms.functional.normalize(image, *IMAGENET)
    for module in features:
        if isinstance(module, nn.Conv2d):
            index += 1
            x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode=padding), module.weight, module.bias)
            taps[f"conv{block}_{index}"] = x
        elif isinstance(module, nn.ReLU):
            x = taps[f"relu{block}_{index}"] = x.clamp_min(0)
        else:
            x = taps[f"pool{block}"] = pool(x)
            block, index = block + 1, 0
    return taps


def assert_taps_equal(encoder: VGGEncoder, expected: dict[str, Tensor], image: Tensor, tolerance: float) -> None:
    found = encoder(image, expected)
    assert list(found) == list(expected) == list(encoder.layers)
    for layer, value in expected.items():
        assert found[layer].shape == value.shape
        assert value.abs().max() > 0
        error = (found[layer] - value).abs().max() / value.abs().max()
        assert error <= tolerance, f"{layer}: {error:.1e}"


def narrow(architecture: str) -> tuple[VGGEncoder, nn.Sequential]:
    """A narrow encoder and torchvision's layers with the same weights, biases included, in float64."""
    weights = random_weights(architecture, seed=3, widths=WIDTHS)
    generator = torch.Generator().manual_seed(4)
    plan: list[int | str] = []
    for key in weights:
        if key.endswith(".bias") and key != "preprocess.bias":
            weights[key] = 0.3 * torch.randn(weights[key].shape, generator=generator)
            block = int(key[4]) - 1
            plan += ["M"] * (block - plan.count("M")) + [WIDTHS[block]]
    features = torchvision.models.vgg.make_layers([*plan, "M"])  # type: ignore[list-item]
    convolutions = [module for module in features if isinstance(module, nn.Conv2d)]
    names = [key.removesuffix(".bias") for key in weights if key.startswith("conv") and key.endswith(".bias")]
    for name, module in zip(names, convolutions, strict=True):
        module.load_state_dict({"weight": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]})
    return VGGEncoder(weights, architecture).double(), features.double()


@pytest.fixture
def image(astronaut: np.ndarray) -> Tensor:
    """(1, 3, 45, 52): neither side is divided evenly by every pooling."""
    return to_image(np.ascontiguousarray(astronaut[0:180:4, 120:328:4]))


class Convolutions(TorchDispatchMode):
    """Counts the convolutions that run inside."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


# --- against torchvision --------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["vgg16", "vgg19"])
def test_every_tap_equals_torchvisions_network_of_full_width(architecture: str, image: Tensor, tmp_path: Path) -> None:
    with torch.device("meta"):  # the classifier, 9 parts in 10 of the network, is never filled
        model = getattr(torchvision.models, architecture)(weights=None, init_weights=False)
    features = model.features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for module in features:
        if isinstance(module, nn.Conv2d):
            scale = (2 / module.weight[0].numel()) ** 0.5
            module.weight.data = scale * torch.randn(module.weight.shape, generator=generator)
            module.bias.data = 0.1 * torch.randn(module.bias.shape, generator=generator)
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    state |= {key: torch.full((2, 2), float("nan")) for key in model.state_dict() if key.startswith("classifier.")}
    assert state.keys() == model.state_dict().keys()
    path = tmp_path / f"{architecture}.pth"
    torch.save(state, path)
    encoder = load_encoder(architecture, path)
    with torch.no_grad():
        expected = step_by_step(features, image)
        assert len(expected) == {"vgg16": 13 + 13 + 5, "vgg19": 16 + 16 + 5}[architecture]
        assert_taps_equal(encoder, expected, image, tolerance=5e-6)  # the rounding of 16 layers in float32
        image = image.double()
        assert_taps_equal(encoder.double(), step_by_step(features.double(), image), image, tolerance=1e-6)


@pytest.mark.parametrize("architecture", ["vgg16", "vgg19"])
def test_average_pooling_halves_by_means(architecture: str, image: Tensor) -> None:
    encoder, features = narrow(architecture)
    encoder.pooling = "average"
    expected = step_by_step(features, image.double(), pool=nn.AvgPool2d(2, 2))
    assert_taps_equal(encoder, expected, image.double(), tolerance=1e-6)


@pytest.mark.parametrize("architecture", ["vgg16", "vgg19"])
def test_reflection_padding_surrounds_every_convolution_but_the_first(architecture: str) -> None:
    encoder, features = narrow(architecture)
    encoder.padding = "reflect"
    image = torch.rand(2, 3, 40, 33, dtype=torch.float64)  # 2 pixels are left beyond pool4, the least to reflect
    expected = step_by_step(features, image, padding="reflect")
    assert_taps_equal(encoder, expected, image, tolerance=1e-6)


def test_a_map_of_one_pixel_is_padded_with_itself() -> None:
    encoder = VGGEncoder(random_weights("vgg16", widths=WIDTHS), "vgg16", padding="reflect")
    taps = encoder(torch.rand(1, 3, 16, 16), ["pool4", "conv5_1"])
    assert taps["pool4"].shape[-2:] == (1, 1)
    expected = F.conv2d(taps["pool4"].expand(-1, -1, 3, 3), encoder.weights()["conv5_1.weight"])
    torch.testing.assert_close(taps["conv5_1"], expected)


# --- depth, names, sizes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "convolutions"),
    [(["conv1_1"], 1), (["pool1"], 2), (["relu2_2", "relu1_1"], 4), (["conv3_1"], 5), (["relu5_3"], 13)],
)
def test_nothing_beyond_the_deepest_layer_is_computed(
    encoder: VGGEncoder, image: Tensor, layers: list[str], convolutions: int
) -> None:
    with Convolutions() as ran:
        found = encoder(image, layers)
    assert set(found) == set(layers)
    assert ran.count == 1 + convolutions  # and the normalisation of the input


def test_weights_that_cannot_work_do_no_harm_beyond_the_deepest_layer(image: Tensor) -> None:
    weights = random_weights("vgg16", widths=WIDTHS)
    weights["conv3_1.weight"] = torch.zeros(8, 99, 3, 3)
    encoder = VGGEncoder(weights)
    assert encoder(image, ["pool2"])["pool2"].shape == (1, 6, 11, 13)
    with pytest.raises(RuntimeError):
        encoder(image, ["conv3_1"])


def test_no_layers_are_no_work(encoder: VGGEncoder, image: Tensor) -> None:
    with Convolutions() as ran:
        assert encoder(image, []) == {}
    assert ran.count == 0


def test_an_unknown_layer_is_refused_with_the_known_ones(encoder: VGGEncoder, image: Tensor) -> None:
    with pytest.raises(ValueError, match="custom has no layer 'conv4_4'; expected one of conv1_1, ") as caught:
        encoder(image, ["relu1_1", "conv4_4"])  # VGG-19 has it
    known = str(caught.value).split("expected one of ")[1].split(", ")
    assert known == list(encoder.layers)
    assert known[:5] == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1"]
    assert known[-3:] == ["conv5_3", "relu5_3", "pool5"]


def test_pixels_are_a_layer_of_every_encoder(encoder: VGGEncoder, image: Tensor) -> None:
    with Convolutions() as ran:
        assert torch.equal(encoder(image, ["pixels"])["pixels"], image)
    assert ran.count == 0
    assert encoder(image, ["relu1_1", "pixels"]).keys() == {"relu1_1", "pixels"}
    assert encoder.stride("pixels") == encoder.stride("relu1_1") == 1


def test_weights_that_end_early_have_the_layers_up_to_there() -> None:
    weights = {k: v for k, v in random_weights("vgg19", widths=WIDTHS).items() if k[:5] not in ("conv4", "conv5")}
    encoder = VGGEncoder(weights, "vgg19")
    assert encoder.layers[-3:] == ("conv3_4", "relu3_4", "pool3")
    with pytest.raises(ValueError, match=r"no layer 'relu4_1'; expected one of .*conv3_4, relu3_4, pool3$"):
        encoder.check_layers(["relu4_1"])


def test_a_picture_too_small_for_the_layer_is_refused(encoder: VGGEncoder) -> None:
    assert encoder(torch.rand(1, 3, 16, 31), ["relu5_3"])["relu5_3"].shape == (1, 12, 1, 1)
    with pytest.raises(ValueError, match=r"a picture of 31×16 pixels has nothing left beyond pool5 .*larger picture"):
        encoder(torch.rand(1, 3, 16, 31), ["pool5"])
    with pytest.raises(ValueError, match="a picture of 20×1 pixels has nothing left beyond pool1"):
        encoder(torch.rand(1, 3, 1, 20), ["conv2_1"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "vgg11"}, "architecture is 'vgg11'; expected one of vgg16, vgg19"),
        ({"pooling": "mean"}, "pooling is 'mean'; expected max or average"),
        ({"padding": "same"}, "padding is 'same'; expected zeros or reflect"),
        ({"weights": {}}, "the weights lack conv1_1.weight or preprocess.weight"),
    ],
)
def test_an_encoder_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    arguments = {"weights": random_weights("vgg16", widths=WIDTHS), **change}
    with pytest.raises(ValueError, match=message):
        VGGEncoder(**arguments)


class Holder(nn.Module):
    """A network that carries an encoder inside, as a loss does."""

    def __init__(self, encoder: VGGEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.own = nn.Linear(2, 2)


# --- frozen ---------------------------------------------------------------------------------------


def test_no_optimizer_and_no_checkpoint_sees_the_encoder(encoder: VGGEncoder) -> None:
    module = Holder(encoder)
    assert [name for name, _ in module.named_parameters()] == ["own.weight", "own.bias"]
    assert list(module.state_dict()) == ["own.weight", "own.bias"]


def test_the_encoder_stays_in_evaluation_mode(encoder: VGGEncoder) -> None:
    module = Holder(encoder).train()
    assert module.training
    assert not encoder.training
    assert not encoder.train().training


def test_the_gradient_reaches_the_image_and_no_weight(encoder: VGGEncoder, image: Tensor) -> None:
    image.requires_grad_()
    encoder(image, ["relu3_3"])["relu3_3"].sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    assert all(value.grad is None and not value.requires_grad for value in encoder.weights().values())


def test_the_weights_are_a_copy_of_what_was_given(image: Tensor) -> None:
    weights = random_weights("vgg16", widths=WIDTHS)
    encoder = VGGEncoder(weights)
    before = encoder(image, ["relu1_2"])["relu1_2"]
    for value in weights.values():
        value.zero_()
    assert torch.equal(encoder(image, ["relu1_2"])["relu1_2"], before)


def test_a_deep_copy_stands_on_its_own(encoder: VGGEncoder, image: Tensor) -> None:
    copy = deepcopy(encoder)
    before = copy(image, ["relu4_1"])["relu4_1"]
    for value in encoder.weights().values():
        value.zero_()
    assert torch.equal(copy(image, ["relu4_1"])["relu4_1"], before)
    assert copy.layers == encoder.layers


def test_float64_computes_in_float64(encoder: VGGEncoder, image: Tensor) -> None:
    single = encoder(image, ["relu4_1"])["relu4_1"]
    double = deepcopy(encoder).to(torch.float64)(image.double(), ["relu4_1"])["relu4_1"]
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)
    assert not torch.equal(single.double(), double)


def test_the_taps_and_the_image_are_never_written_to(encoder: VGGEncoder, image: Tensor) -> None:
    before = image.clone()
    together = encoder(image, encoder.layers[:-1])
    assert torch.equal(image, before)
    assert together["conv1_1"].min() < 0 <= together["relu1_1"].min()
    for layer in ("conv1_1", "relu1_1", "conv2_2", "pool2", "conv5_3"):
        assert torch.equal(encoder(image, [layer])[layer], together[layer])


def test_the_input_is_normalised_in_full_precision_under_autocast() -> None:
    """Half a level in 255 is all that bfloat16 can tell apart near the mean colour, where the signal is as small."""
    mean = (0.48235, 0.45882, 0.40784)
    weights = random_weights("vgg16", widths=WIDTHS) | preprocessing(mean, (1 / 255,) * 3)
    encoder = VGGEncoder(weights)
    levels = torch.linspace(-2, 2, 33).view(33, 1, 1, 1) / 255
    image = (levels + torch.tensor(mean).view(3, 1, 1)).expand(-1, -1, 8, 8)
    full = encoder(image, ["conv1_1"])["conv1_1"]
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(image, ["conv1_1"])["conv1_1"]
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().max() < 0.01 * full.abs().max()


# --- the slim network -----------------------------------------------------------------------------


def test_the_slim_network_runs_as_it_was_trained(data: Path, image: Tensor, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path = tmp_path / "slim.safetensors"
    path.write_bytes((data / "weights" / "vgg19_slim.safetensors").read_bytes())
    encoder = load_encoder("vgg19", path)
    assert encoder.padding == "reflect"
    assert encoder.layers[-2:] == ("conv5_1", "relu5_1")
    tensors = {key: value.double() for key, value in load_file(path).items()}
    # The README beside it: RGB in [0, 1] to almost exactly BGR · 255 - mean.
    x = F.conv2d(image.double(), tensors["preprocess.weight"], tensors["preprocess.bias"])
    caffe = 255 * image.double().flip(1) - torch.tensor([103.94, 116.78, 123.68]).view(3, 1, 1)
    assert (x - caffe).abs().max() < 2
    expected: dict[str, Tensor] = {}
    for block, count in enumerate((2, 2, 4, 4, 1), 1):
        if block > 1:
            x = F.max_pool2d(x, 2)
        for index in range(1, count + 1):
            weight, bias = tensors[f"conv{block}_{index}.weight"], tensors[f"conv{block}_{index}.bias"]
            x = F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, bias))
            expected[f"relu{block}_{index}"] = x
    found = encoder(image, expected)
    for layer, value in expected.items():
        error = (found[layer] - value).abs().max() / value.abs().max()
        assert error < 1e-5, f"{layer}: {error:.1e}"
