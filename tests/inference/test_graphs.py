"""Graphs that are made of a model file: PyTorch's pictures, of every network, at every size, by each runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fststyle.images import to_image, to_pixels
from fststyle.inference.graphs import graph_of, to_onnx
from fststyle.inference.openvino import openvino_core
from fststyle.model_file import find_model_file
from fststyle.networks.blocks import ImageNetwork, InstanceNorm
from fststyle.networks.superres import SuperResNet
from fststyle.networks.transform import TransformNet

SHAPES = [(1, 16, 16), (2, 47, 66), (3, 21, 35), (1, 99, 18)]
NETWORKS = [
    lambda: TransformNet(4, 1),
    lambda: TransformNet(6, 2, padding="zeros", upsampling="nearest", output="linear"),
    lambda: TransformNet(4, 1, norm="none", padding="zeros", upsampling="transposed", output="tanh"),
    lambda: TransformNet(4, 5, norm="batch", border=40, output="tanh"),  # wider than small pictures are
    lambda: TransformNet(4, 1, norm="batch", upsampling="transposed", border=8, padding="zeros"),
    lambda: TransformNet(4, 1, styles=3),
    lambda: TransformNet(4, 0, colors=True),
    lambda: TransformNet(4, 0, styles=2, colors=True),
    lambda: TransformNet(4, 0, output="tanh", kuwahara=2.5, smoothed=[0.75]),
    lambda: TransformNet(4, 0, styles=3, kuwahara=1, smoothed=[1, 0, 0.5]),
    lambda: SuperResNet(4, 6, 1),
    lambda: SuperResNet(8, 4, 1, "batch", "zeros", "transposed", "tanh", skip=False),
    lambda: SuperResNet(2, 4, 2, "instance", upsampling="bilinear", skip=False),
]


def varied(network: ImageNetwork) -> ImageNetwork:
    """A network whose norms, biases and moments are not those of a new one."""
    torch.manual_seed(4)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() < 3:
                tensor += 0.2 * torch.rand_like(tensor)
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.out_channels == 3:
                module.weight += 0.02 * torch.randn_like(module.weight)
    return network.eval()


def described(network: ImageNetwork, pixels: bool = True) -> bytes:
    state: dict[str, Any] = {name: value.numpy() for name, value in network.state_dict().items()}
    return to_onnx({"class": type(network).__name__, "arguments": network.config}, state, pixels)


def runner(content: bytes, runtime: str) -> Any:
    if runtime == "openvino":
        pytest.importorskip("openvino")
        model = openvino_core().read_model(content, b"")
        compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda *given: compiled(list(given))[0]
    session = pytest.importorskip("onnxruntime").InferenceSession(content)
    names = [each.name for each in session.get_inputs()]
    return lambda *given: session.run(None, dict(zip(names, given, strict=True)))[0]


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("make", NETWORKS)
def test_a_graph_gives_the_pictures_of_pytorch(make: Any, runtime: str) -> None:
    network = varied(make())
    run = runner(described(network), runtime)
    for batch, height, width in SHAPES:
        chance = np.random.default_rng(height)
        pixels = chance.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
        styles = getattr(network, "styles", 1)
        mixtures = [chance.dirichlet(np.ones(styles), batch).astype(np.float32)] if styles > 1 else []
        with torch.no_grad():
            image = torch.cat([to_image(each) for each in pixels])
            wanted = network(image, *map(torch.from_numpy, mixtures)).clamp(0, 1)
        found = run(pixels, *mixtures)
        assert found.dtype == np.uint8
        for one, image in zip(found, wanted, strict=True):
            assert np.ptp(one) > 5
            assert np.abs(one.astype(int) - to_pixels(image[None]).astype(int)).max() <= 1


@pytest.mark.parametrize("make", [NETWORKS[1], NETWORKS[3], NETWORKS[10]])
def test_between_images_there_is_no_rounding(make: Any) -> None:
    network, image = varied(make()), torch.rand(2, 3, 37, 50)
    with torch.no_grad():
        wanted = network(image).clamp(0, 1)
    found = torch.from_numpy(runner(described(network, pixels=False), "openvino")(image.numpy()))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_a_file_is_sound_and_says_what_it_takes() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(described(TransformNet(4, 1, styles=2)))
    onnx.checker.check_model(model, full_check=True)
    given = {each.name: each.type.tensor_type for each in model.graph.input}
    assert [side.dim_param or side.dim_value for side in given["pixels"].shape.dim] == ["batch", "height", "width", 3]
    assert [side.dim_param or side.dim_value for side in given["mixture"].shape.dim] == ["mixtures", 2]
    assert sum(node.op_type == "InstanceNormalization" for node in model.graph.node) == 7
    assert sum(isinstance(module, InstanceNorm) for module in TransformNet(4, 1).modules()) == 7


def test_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match="it names a network 'InverseNet'; a runtime takes TransformNet or SuperRes"):
        to_onnx({"class": "InverseNet", "arguments": {}}, {})


def test_octaves_share_their_weights() -> None:
    path = find_model_file("wave", "style")
    assert len(graph_of(path, octaves=3)) < len(graph_of(path)) + 50_000
