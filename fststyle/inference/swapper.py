"""Swapper: any picture painted with patches of any other, in one pass."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from fststyle.devices import DeviceError, choose_device
from fststyle.inference.backends import TorchBackend
from fststyle.model_file import ModelFileError, bundled_files, find_model_file, load_model_file

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fststyle.networks.styleswap import StyleSwap

#: The network that is used when none is named.
DEFAULT = "slim"


class Swapper:
    """``swapper(content, style) -> image``, of the content's size; ``swapper.pixels(rgb, style_rgb)`` without tensors.

    By PyTorch alone: what is matched depends on both pictures, so there is no fixed network to convert.

    Args:
        model: put into evaluation mode.
        metadata: the model file's, for those who ask.
        device: ``auto`` (a CUDA GPU where there is one), ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``float16``, of encoder and network. Patches are
            compared in float32 or better.

    Raises:
        DeviceError: ``cuda`` on a machine without; an unknown precision.
    """

    def __init__(
        self,
        model: StyleSwap,
        metadata: dict[str, Any] | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.backend = TorchBackend(model, _with_float64(device), precision)
        self.metadata = metadata or {}

    @classmethod
    def from_checkpoint(
        cls,
        name_or_path: str | os.PathLike[str] = DEFAULT,
        device: str = "auto",
        precision: str = "auto",
    ) -> Swapper:
        """Load a bundled network by name, or a model file of kind ``swap``.

        Raises:
            ModelFileError: unknown name, no or no sound checkpoint, or one of another kind.
            DeviceError: what this machine does not have.
        """
        if device not in ("auto", "cpu"):
            choose_device(_with_float64(device))  # before any file is read
        if name_or_path == DEFAULT and DEFAULT not in bundled_files("swap") and not os.path.exists(DEFAULT):
            raise ModelFileError(
                f"the network {DEFAULT!r} for style swap did not come with this installation; "
                "give a model file of kind swap: --model FILE"
            )
        path = find_model_file(name_or_path, "swap")
        checkpoint = load_model_file(path, "swap")
        from fststyle.networks.styleswap import StyleSwap

        return cls(StyleSwap.from_checkpoint(checkpoint), checkpoint.metadata, device, precision)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.backend.device

    def __call__(
        self, content: Tensor, style: Tensor, patch: int = 3, stride: int = 1, visible: Tensor | None = None
    ) -> Tensor:
        """Paint the content with patches of the style.

        Args:
            content: float (B, 3, H, W), RGB in [0, 1], H and W ≥ 16, on any device.
            style: float (B or 1, 3, H', W'), likewise.
            patch: side of a patch in feature positions, each of 4 pixels.
            stride: positions from one patch to the next, at most ``patch``.
            visible: bool (H', W'), the pixels of the style that can be seen; None: all.

        Returns:
            float32 (B, 3, H, W) in [0, 1], on the content's device.

        Raises:
            ValueError: another shape, not floating point, or pictures too small for the patch.
        """
        for name, image in (("content", content), ("style", style)):
            if not image.is_floating_point():
                raise ValueError(f"found a {name} of {image.dtype}; expected floating point in [0, 1]")
        network = self.backend.network
        output = self.backend.apply(lambda *images: network(*images, patch, stride, visible), content, style)
        return output.to(content.device)

    def pixels(
        self,
        rgb: np.ndarray,
        style: np.ndarray,
        patch: int = 3,
        stride: int = 1,
        alpha: np.ndarray | None = None,
    ) -> np.ndarray:
        """The same with decoded pictures, uint8 (H, W, 3), and the alpha (H', W') of the style.

        Raises:
            ValueError: pictures that are too small.
        """
        import torch

        from fststyle.images import to_image, to_pixels

        visible = None if alpha is None else torch.from_numpy(alpha > 0)
        return to_pixels(self(to_image(rgb), to_image(style), patch, stride, visible))


def _with_float64(device: str) -> str:
    if device == "mps":
        raise DeviceError("style swap computes in float64, which mps lacks; use --device cpu or auto")
    return device
