"""Strip by strip gives what the whole picture gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fststyle.cli import main
from fststyle.images import read_picture, save_image
from fststyle.inference import StylizeOptions, Stylizer, strips, tiled
from fststyle.inference.backends import TorchBackend
from fststyle.inference.strips import Moments
from fststyle.inference.tiled import cost, evaluate_in_strips, pixels_in_strips
from fststyle.model_file import all_styles
from fststyle.networks.blocks import Conv, ConvBlock, ImageNetwork, Norm, ResidualBlock, UpBlock, make_norm
from fststyle.networks.superres import SuperResNet
from fststyle.networks.transform import TransformNet

VARIANTS: list[dict[str, Any]] = [
    {},
    {"norm": "batch", "padding": "zeros", "upsampling": "transposed", "border": 16, "output": "tanh"},
    {"norm": "none", "upsampling": "transposed", "output": "linear"},
    {"padding": "zeros", "border": 16},
    {"upsampling": "nearest"},
    {"residual_blocks": 0},
    {"border": 16, "kuwahara": 1.5},
]


def made(**options: Any) -> TransformNet:
    torch.manual_seed(0)
    network = TransformNet(**{"width": 4, "residual_blocks": 2, **options})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if trained
            module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    return network.eval()


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize(("height", "width", "rows"), [(150, 131, 16), (97, 64, 32), (64, 80, 256), (41, 38, 4)])
def test_strips_give_the_whole_picture_in_float64(options: dict[str, Any], height: int, width: int, rows: int) -> None:
    network = made(**options).double()
    image = torch.rand(1, 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        whole = network(image)
    strips = list(evaluate_in_strips(network, lambda top, bottom: image[:, :, top:bottom], height, width, rows))
    assert len(strips) > 1 or rows > height
    torch.testing.assert_close(torch.cat(strips, 2), whole, rtol=0, atol=1e-9)


def test_moments_of_strips_are_those_of_the_picture() -> None:
    """Also where the mean is large against the deviation."""
    picture = 1e4 + torch.rand(1, 3, 50, 40)
    moments = Moments()
    for strip in picture.split([1, 20, 3, 26], 2):
        moments.add(strip)
    values = picture[0].double().flatten(1)
    torch.testing.assert_close(moments.mean, values.mean(1))
    torch.testing.assert_close(moments.squares / moments.count, values.var(1, correction=0))


@pytest.mark.slow
@pytest.mark.parametrize("style", all_styles())
def test_a_bundled_style_has_the_same_levels_in_strips(style: str, astronaut: np.ndarray) -> None:
    stylizer = Stylizer.from_checkpoint(style, "cpu", "torch", "float32")
    picture = astronaut[:301, :259]
    away = stylizer.pixels(picture).astype(int) - stylizer.pixels(picture, memory=0)
    assert np.abs(away).max() <= 1
    assert np.mean(away != 0) < 0.001 * stylizer.octaves


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_median_is_that_of_the_whole_picture(precision: str, astronaut: np.ndarray) -> None:
    stylizer = Stylizer(made(), device="cpu", precision=precision)
    picture = astronaut[:150, :131]
    median = StylizeOptions(median=True)
    away = stylizer.pixels(picture, median).astype(int) - stylizer.pixels(picture, median, 0)
    assert np.abs(away).max() <= (1 if precision == "float32" else 12)
    assert np.abs(away).mean() < (0.01 if precision == "float32" else 0.5)


@pytest.mark.parametrize("memory", [0, 2**40])
def test_what_is_stored_leaves_nothing_behind(
    memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: np.ndarray
) -> None:
    """In a scratch file where memory is short, in memory where it is not."""
    folders: list[str | None] = []
    store = strips.Stored

    class Seen(store):  # type: ignore[valid-type, misc]
        def __init__(self, *arguments: Any) -> None:
            folders.append(arguments[-1])
            super().__init__(*arguments)

    monkeypatch.setattr(tiled, "Stored", Seen)
    backend = TorchBackend(made(), "cpu", "bfloat16")
    rows = pixels_in_strips(backend, lambda top, end: astronaut[top:end, :70], 80, 70, memory, str(tmp_path))
    assert np.concatenate(list(rows)).shape == (80, 70, 3)
    assert (str(tmp_path) in folders) == (memory == 0)
    assert not list(tmp_path.iterdir())


SUPERRES: list[dict[str, Any]] = [
    {},
    {"scale": 8, "skip": False},
    {"norm": "instance", "upsampling": "bilinear"},
    {"norm": "batch", "padding": "zeros", "upsampling": "transposed", "output": "tanh", "skip": False},
]


@pytest.mark.parametrize("options", SUPERRES)
@pytest.mark.parametrize(("height", "width", "rows"), [(61, 40, 16), (33, 50, 4), (16, 20, 64)])
def test_strips_give_the_whole_enlarged_picture(options: dict[str, Any], height: int, width: int, rows: int) -> None:
    torch.manual_seed(0)
    network = SuperResNet(**{"scale": 4, "width": 4, "residual_blocks": 2, **options}).double().eval()
    for weight in network.parameters():  # the last convolution begins with zeros
        nn.init.normal_(weight, 0, 0.2)
    image = torch.rand(1, 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        whole = network(image)
    made = list(evaluate_in_strips(network, lambda top, bottom: image[:, :, top:bottom], height, width, rows))
    torch.testing.assert_close(torch.cat(made, 2), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("network", [made(), made(norm="none"), SuperResNet(4, width=4, residual_blocks=1).eval()])
def test_the_work_is_what_was_foretold(network: Any) -> None:
    image, done = torch.rand(1, 3, 80, 64), []
    for _ in evaluate_in_strips(network, lambda top, bottom: image[:, :, top:bottom], 80, 64, 16, None, done.append):
        assert sum(done) <= cost(network, 80, 64).multiplications * 1.01
    assert sum(done) == pytest.approx(cost(network, 80, 64).multiplications, rel=0.05)


class Sketch(ImageNetwork):
    """A network that only this test knows: every block, in an order that no other network has."""

    def __init__(self, norm: Norm, upsampling: str = "bilinear", **options: Any) -> None:
        super().__init__(**options)
        kind: dict[str, Any] = {"norm": norm, "padding": "reflect"}
        self.down = ConvBlock(3, 6, 5, 2, **kind)
        self.middle = nn.Sequential(ResidualBlock(6, **kind), nn.LeakyReLU(0.1), ConvBlock(6, 8, 3, 3, **kind))
        self.inner = nn.Sequential(*[ResidualBlock(8, **kind) for _ in range(2)])
        self.up = UpBlock(8, 5, upsampling=upsampling, norm=norm, padding="zeros")
        self.last = nn.Sequential(nn.Upsample(scale_factor=3.0, mode="bicubic"), Conv(5, 3, 7), make_norm(norm, 3))

    def stages(self) -> list[nn.Module]:
        return [self.down, self.middle, self.inner, self.up, self.last, self.last[2]]


@pytest.mark.parametrize(
    ("norm", "options"),
    [
        ("instance", {"output": "sigmoid", "multiple": 6}),
        ("batch", {"output": "tanh", "multiple": 12, "border": 6, "upsampling": "transposed"}),
        ("none", {"multiple": 6, "skip": True, "upsampling": "nearest"}),
        ("instance", {"multiple": 6, "skip": True}),
    ],
)
def test_a_new_network_of_the_blocks_needs_no_further_code(norm: Norm, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = Sketch(norm, **options).double().eval()
    image = torch.rand(1, 3, 87, 74, dtype=torch.float64)
    with torch.no_grad():
        whole = network(image)
    for rows in (5, 16, 100):
        strips = list(evaluate_in_strips(network, lambda top, end: image[:, :, top:end], 87, 74, rows))
        torch.testing.assert_close(torch.cat(strips, 2), whole, rtol=0, atol=1e-9)
    pixels = Stylizer(network.float(), device="cpu", precision="float32")
    picture = (image[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.abs(pixels.pixels(picture).astype(int) - pixels.pixels(picture, memory=0)).max() <= 1


def test_another_network_is_refused(astronaut: np.ndarray) -> None:
    backend = TorchBackend(nn.Conv2d(3, 3, 1), "cpu")
    with pytest.raises(ValueError, match="found a Conv2d; tiled inference takes an ImageNetwork"):
        next(pixels_in_strips(backend, lambda top, end: astronaut[top:end], 80, 70, 0, ""))


@pytest.mark.parametrize("module", [nn.MaxPool2d(2), nn.Conv2d(3, 3, 3), nn.Upsample(scale_factor=1.5)])
def test_a_module_that_needs_more_than_the_strip_is_refused(module: nn.Module) -> None:
    network = made()
    network.encode.append(module)
    with pytest.raises(ValueError, match=f"cannot evaluate .*{type(module).__name__}"):
        cost(network, 80, 70)


# --- the command --------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: np.ndarray) -> Path:
    from fststyle.model_file import save_model_file

    monkeypatch.chdir(tmp_path)
    save_image(astronaut[:120, :100], "photo.png")
    save_model_file("mine.safetensors", made(), {"kind": "style", "name": "mine", "style": {"image": "a.png"}})
    return tmp_path


WORDS = ("stylize", "photo.png", "--style", "mine.safetensors", "--precision", "float32")


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_the_command_uses_strips_where_it_is_told_to(backend: str, desk: Path) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    for tiles in ("off", "exact"):
        assert main([*WORDS, "--backend", backend, "--tiles", tiles, "-o", f"{tiles}.png"]) == 0
    away = [read_picture(f"{tiles}.png").rgb.astype(int) for tiles in ("off", "exact")]
    assert np.abs(away[0] - away[1]).max() <= 1


@pytest.mark.parametrize(("memory", "in_strips"), [("1MB", True), ("1GiB", False)])
def test_by_itself_it_uses_strips_for_what_would_not_fit(
    memory: str, in_strips: bool, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[int] = []

    def noted(_: Any, read: Any, height: int, width: int, memory: int, *__: Any) -> list[np.ndarray]:
        called.append(memory)
        return [read(0, height)]

    monkeypatch.setattr(tiled, "pixels_in_strips", noted)
    assert main([*WORDS, "--backend", "torch", "--memory", memory]) == 0
    assert called == ([10**6] if in_strips else [])


@pytest.mark.parametrize("memory", ["2", "0GB", "-1GB", "much"])
def test_a_size_that_is_none_is_refused(memory: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*WORDS, f"--memory={memory}"])
    assert ended.value.code == 2
    assert f"found '{memory}'; expected a size such as 2GiB or 500MB" in capsys.readouterr().err
