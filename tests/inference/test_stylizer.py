"""Stylizer: one forward pass, clamped, wherever the picture and the network are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn

from fststyle import model_file
from fststyle.devices import choose_device
from fststyle.inference import DeviceError, Stylizer, Swapper
from fststyle.inference.stylizer import median_filter
from fststyle.model_file import ModelFileError, save_model_file
from fststyle.networks.transform import TransformNet

RECORD = {"kind": "style", "name": "wave"}


class Beyond(nn.Module):
    """Doubles contrast around grey, so that values leave [0, 1]."""

    def forward(self, image: Tensor) -> Tensor:
        return 2 * image - 0.5


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 3, 17, 31), (3, 3, 40, 21)])
def test_a_picture_comes_back_at_its_size_in_range(network: TransformNet, shape: tuple[int, ...]) -> None:
    output = Stylizer(network, device="cpu")(torch.rand(shape))
    assert output.shape == shape
    assert output.dtype == torch.float32
    assert output.min() >= 0
    assert output.max() <= 1


def test_the_result_is_the_networks_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    network = TransformNet(4, 1, norm="batch")
    stylizer = Stylizer(network.train(), device="cpu")
    image = torch.rand(2, 3, 20, 24)
    output = stylizer(image)
    with torch.no_grad():
        expected = network.eval()(image)
    assert torch.allclose(output, expected, atol=1e-6)
    assert network.state_dict()["encode.0.norm.num_batches_tracked"] == 0


def test_what_leaves_the_unit_interval_is_clamped() -> None:
    image = torch.tensor([0.0, 0.1, 0.5, 0.6, 1.0]).view(1, 1, 1, 5).expand(1, 3, 16, 5).repeat(1, 1, 1, 4)
    output = Stylizer(Beyond(), device="cpu")(image)
    assert output[0, 0, 0, :5].tolist() == pytest.approx([0, 0, 0.5, 0.7, 1])


def test_pictures_of_a_batch_are_stylised_as_if_alone(network: TransformNet) -> None:
    stylizer = Stylizer(network, device="cpu")
    batch = torch.rand(3, 3, 18, 22)
    for median in (False, True):
        alone = torch.cat([stylizer(batch[i : i + 1], median=median) for i in range(3)])
        assert torch.allclose(stylizer(batch, median=median), alone, atol=1e-5)


def test_the_median_is_the_filter_of_the_result(network: TransformNet) -> None:
    stylizer = Stylizer(network, device="cpu")
    image = torch.rand(1, 3, 20, 20)
    plain = stylizer(image)
    assert torch.equal(stylizer(image, median=True), median_filter(plain))
    assert not torch.equal(stylizer(image, median=True), plain)


def test_the_picture_given_is_left_alone_and_may_be_of_another_type(network: TransformNet) -> None:
    image = torch.rand(1, 3, 20, 20).double()
    before = image.clone()
    output = Stylizer(network, device="cpu")(image)
    assert torch.equal(image, before)
    assert output.dtype == torch.float32
    assert not output.requires_grad


@pytest.mark.parametrize("shape", [(3, 20, 20), (1, 1, 20, 20), (1, 3, 15, 20), (1, 3, 20, 15)])
def test_what_is_no_image_or_too_small_is_refused(network: TransformNet, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Stylizer(network, device="cpu")(torch.zeros(shape))


# --- the median ----------------------------------------------------------------------------------


def test_the_median_takes_a_lone_pixel_away_and_keeps_an_edge() -> None:
    image = torch.zeros(1, 1, 7, 6)
    image[:, :, :, 3:] = 1
    expected = image.clone()
    image[0, 0, 2, 1] = 1
    image[0, 0, 4, 4] = 0
    assert torch.equal(median_filter(image), expected)


def test_the_median_reflects_at_borders_without_repeating_them() -> None:
    # The corner sees 0 once, 1 and 2 twice each, 9 four times: sorted 0 1 1 2 [2] 9 9 9 9.
    image = torch.tensor([[0.0, 1.0, 9.0], [2.0, 9.0, 9.0], [9.0, 9.0, 9.0]])[None, None]
    assert median_filter(image)[0, 0, 0, 0] == 2


def test_the_median_equals_pillows_and_scipys(astronaut: np.ndarray) -> None:
    from scipy.ndimage import median_filter as reference

    pixels = astronaut[100:141, 200:233]
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    found = median_filter(image)[0].permute(1, 2, 0).numpy()
    pillows = np.asarray(Image.fromarray(pixels).filter(ImageFilter.MedianFilter(3)))
    assert np.array_equal(found[1:-1, 1:-1], pillows[1:-1, 1:-1])
    assert np.array_equal(found, reference(pixels, (3, 3, 1), mode="mirror"))


# --- devices -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(network: TransformNet) -> None:
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match="no CUDA device"):
        Stylizer(network, device="cuda")


def test_with_a_gpu_auto_is_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cpu").type == "cpu"


def test_apples_gpu_is_taken_where_it_is_asked_for_and_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"no Apple GPU \(mps\)"):
        choose_device("mps")
    with pytest.raises(DeviceError, match="openvino runs on the CPU; use --backend torch with --device mps"):
        Stylizer.from_checkpoint("starry_night", device="mps", backend="openvino")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps").type == "mps"
    with pytest.raises(DeviceError, match="style swap computes in float64, which mps lacks"):
        Swapper.from_checkpoint(device="mps")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(DeviceError, match="'tpu'; expected one of auto, cpu, cuda"):
        choose_device("tpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_what_the_cpu_gives(network: TransformNet) -> None:
    image = torch.rand(1, 3, 33, 47)
    expected = Stylizer(network, device="cpu")(image)
    output = Stylizer(network, device="cuda")(image)
    assert output.device == image.device
    assert torch.allclose(output, expected, atol=1e-2)


# --- from files ----------------------------------------------------------------------------------


def test_a_stylizer_comes_from_a_file(tmp_path: Path, network: TransformNet) -> None:
    path = tmp_path / "wave.safetensors"
    save_model_file(path, network, RECORD, dtype="float32")
    image = torch.rand(1, 3, 20, 20)
    for name in (path, str(path)):
        stylizer = Stylizer.from_checkpoint(name, "cpu", "torch")
        assert stylizer.metadata["name"] == "wave"
        assert torch.allclose(stylizer(image), Stylizer(network, device="cpu")(image), atol=1e-6)


def test_a_stylizer_comes_from_a_bundled_name(
    tmp_path: Path, network: TransformNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints" / "styles").mkdir(parents=True)
    save_model_file(tmp_path / "checkpoints" / "styles" / "wave.safetensors", network, RECORD)
    monkeypatch.setattr(model_file, "resource", lambda name: tmp_path / name)
    assert Stylizer.from_checkpoint("wave", "cpu").metadata["name"] == "wave"
    with pytest.raises(ModelFileError, match=r"unknown style 'waves'.* wave"):
        Stylizer.from_checkpoint("waves", "cpu")


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path, network: TransformNet) -> None:
    path = tmp_path / "x4.safetensors"
    save_model_file(path, network, {"kind": "superres", "name": "x4"})
    with pytest.raises(ModelFileError, match="kind 'superres'; expected kind 'style'"):
        Stylizer.from_checkpoint(path, "cpu")


@pytest.mark.usefixtures("no_gpu")
def test_a_missing_device_is_told_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(DeviceError):
        Stylizer.from_checkpoint(tmp_path / "missing.safetensors", "cuda")
