"""The yardstick of scripts/benchmark: fast style transfer as the literature's code does it.

    python scripts/benchmark/reference.py PHOTO OUT --style CHECKPOINT

Plain PyTorch, eager, float32, NCHW, modules from torch.nn, no care taken: ReflectionPad2d before every
convolution, InstanceNorm2d, torchvision's VGG-16 run twice with all taps in each training step. Its
network computes the same as ours and takes our weights.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F


def padded(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Reflection pad, then convolution."""
    return nn.Sequential(nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inputs, outputs, kernel, stride))


def layer(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Convolution, norm, ReLU."""
    return [padded(inputs, outputs, kernel, stride), nn.InstanceNorm2d(outputs, affine=True), nn.ReLU()]


class Residual(nn.Module):
    """Two convolutions beside a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*layer(channels, channels, 3), *layer(channels, channels, 3)[:2])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Reference(nn.Module):
    """Johnson's network with instance norm and bilinear upsampling; sides that are multiples of 4."""

    def __init__(self, width: int = 32, residual_blocks: int = 5) -> None:
        super().__init__()
        w = width
        self.layers = nn.Sequential(
            *(*layer(3, w, 9), *layer(w, 2 * w, 3, 2), *layer(2 * w, 4 * w, 3, 2)),
            *[Residual(4 * w) for _ in range(residual_blocks)],
            *(nn.Upsample(scale_factor=2, mode="bilinear"), *layer(4 * w, 2 * w, 3)),
            *(nn.Upsample(scale_factor=2, mode="bilinear"), *layer(2 * w, w, 3)),
            padded(w, 3, 9),
        )
        self.register_buffer("mean", torch.tensor((123.68, 116.779, 103.939)).view(1, 3, 1, 1) / 255)

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(image - self.mean))

    def take(self, weights: dict[str, Tensor]) -> Reference:
        """Take our network's state dict: the same tensors in the same order."""
        own = [name for name in self.state_dict() if name != "mean"]
        assert len(own) == len(weights)
        self.load_state_dict(dict(zip(own, weights.values(), strict=True)) | {"mean": self.mean})
        return self


class Taps(nn.Module):
    """torchvision's VGG and some taps, always all of them: by default VGG-16's relu1_2, 2_2, 3_3 and 4_3."""

    def __init__(self, architecture: str = "vgg16", indices: tuple[int, ...] = (3, 8, 15, 22)) -> None:
        super().__init__()
        import torchvision

        whole = getattr(torchvision.models, architecture)(weights=None).features
        self.features, self.indices = whole[: indices[-1] + 1].eval().requires_grad_(False), indices
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        x, taps = (image - self.mean) / self.std, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.indices:
                taps.append(x)
        return taps


def gram(features: Tensor) -> Tensor:
    """Gram matrix, divided by C · H · W."""
    batch, channels, height, width = features.shape
    flat = features.view(batch, channels, height * width)
    return flat.bmm(flat.transpose(1, 2)) / (channels * height * width)


class Step:
    """One training step: network, loss network twice, Adam."""

    def __init__(self, network: Reference, painting: Tensor) -> None:
        self.network, self.taps = network, Taps().to(painting.device)
        self.optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        with torch.no_grad():
            self.style = [gram(tap) for tap in self.taps(painting)]

    def __call__(self, photographs: Tensor) -> float:
        self.optimizer.zero_grad()
        output = self.network(photographs)
        seen, wanted = self.taps(output), self.taps(photographs)
        loss = F.mse_loss(seen[1], wanted[1])
        for tap, target in zip(seen, self.style, strict=True):
            loss = loss + 1e5 * F.mse_loss(gram(tap), target.expand(len(tap), -1, -1))
        loss.backward()
        self.optimizer.step()
        return float(loss)


class Slow:
    """One evaluation of Gatys' objective and its gradient: VGG-19, relu4_2 as content, relu1_1 … relu5_1 as style."""

    def __init__(self, content: Tensor, painting: Tensor) -> None:
        self.taps = Taps("vgg19", (1, 6, 11, 20, 22, 29)).to(painting.device)
        with torch.no_grad():
            self.content = self.taps(content)[4]
            self.style = [gram(tap) for tap in self.taps(painting)]

    def __call__(self, image: Tensor) -> float:
        image.grad = None
        taps = self.taps(image)
        loss = (taps[4] - self.content).square().sum() / 2
        for index, (tap, target) in enumerate(zip(taps, self.style, strict=True)):
            if index != 4:
                loss = loss + 1e3 * (gram(tap) - target).square().sum()
        loss.backward()
        return float(loss)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("photo")
    options.add_argument("out")
    options.add_argument("--style", required=True, help="a checkpoint of ours, for its weights")
    chosen = options.parse_args()
    from fststyle.model_file import load_model_file

    weights = load_model_file(chosen.style).network.state_dict()
    network = Reference(weights["encode.0.conv.conv.weight"].shape[0]).take(weights).eval()
    rgb = np.asarray(Image.open(chosen.photo).convert("RGB"))
    image = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        output = network(image)[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(output).save(chosen.out)


if __name__ == "__main__":
    main()
