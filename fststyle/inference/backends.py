"""Where a network runs: PyTorch, on any device. ``inference.openvino`` has the other one, for CPUs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fststyle.devices import DeviceError, choose_device
from fststyle.images import to_image, to_pixels
from fststyle.resources import free_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

log = logging.getLogger(__name__)

#: A size that was met so many times is worth a compilation, on a GPU.
WORTH_COMPILING = 4


class Backend(Protocol):
    """What a ``Stylizer`` asks of whatever runs its network."""

    #: As options name it.
    name: str
    precision: str

    def __call__(self, image: Tensor) -> Tensor:
        """An image (B, 3, H, W) in [0, 1], on any device, to its result in [0, 1], float32."""

    def pixels(self, rgb: np.ndarray) -> np.ndarray:
        """A decoded picture, uint8 or uint16 (H, W, 3), to its result likewise."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    def memory(self) -> int:
        """Bytes that a pass may take: half of what the device has, or what ``free_memory`` says."""

    @property
    def torch_backend(self) -> TorchBackend:
        """The same network in PyTorch, which runs pictures strip by strip."""


class TorchBackend:
    """A network, on a device, in a precision.

    Args:
        network: image in, image out; put into evaluation mode.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; see ``choose_device``.
        precision: ``float32``; ``bfloat16`` or ``float16``, by autocast, so that norms keep float32
            moments; ``auto``: float16 with CUDA, float32 elsewhere.

    Raises:
        DeviceError: a device that the machine lacks; an unknown precision.
    """

    name = "torch"

    def __init__(self, network: nn.Module, device: str = "auto", precision: str = "auto") -> None:
        import torch

        self.device = choose_device(device)
        if precision == "auto":
            precision = "float16" if self.device.type == "cuda" else "float32"
        if precision not in ("float32", "bfloat16", "float16"):
            raise DeviceError(f"precision is {precision!r}; expected one of auto, float32, bfloat16, float16")
        self.precision = precision
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compiles = self.device.type == "cuda"
        self._compiled: nn.Module | None = None
        self._met: Counter[torch.Size] = Counter()

    def __call__(self, image: Tensor) -> Tensor:
        """An image, on any device, to its result in [0, 1], float32, on this backend's device."""
        return self.apply(self._run, image)

    def pixels(self, rgb: np.ndarray) -> np.ndarray:
        """A decoded picture, uint8 or uint16 (H, W, 3), to its result likewise."""
        return to_pixels(self(to_image(rgb)), rgb.dtype)

    @property
    def memory(self) -> int:
        """Half of what the device has, or what ``free_memory`` says, in bytes."""
        if self.device.type == "cuda":
            import torch

            return int(torch.cuda.get_device_properties(self.device).total_memory) // 2
        return free_memory()

    @property
    def torch_backend(self) -> TorchBackend:
        return self

    def apply(self, run: Callable[..., Tensor], *images: Tensor) -> Tensor:
        """What ``run`` makes of images in this backend's precision, on its device; in [0, 1], float32."""
        import torch

        inputs = [image.to(self.device, torch.float32, memory_format=torch.channels_last) for image in images]
        with torch.inference_mode(), self.autocast():
            output = run(*inputs)
        return output.float().clamp(0, 1)

    def autocast(self) -> torch.autocast:
        """The context that computes in this backend's precision."""
        import torch

        low = self.precision != "float32"
        return torch.autocast(self.device.type, getattr(torch, self.precision) if low else None, enabled=low)

    def _run(self, inputs: Tensor) -> Tensor:
        """Through the compiled network for a size that came often, on a GPU; else through the network."""
        import torch

        self._met[inputs.shape] += 1
        if self._compiles and self._met[inputs.shape] >= WORTH_COMPILING:
            if self._compiled is None:
                self._compiled = torch.compile(self.network, dynamic=False)  # type: ignore[assignment]
            assert self._compiled is not None
            try:
                return self._compiled(inputs)  # type: ignore[no-any-return]
            except torch._dynamo.exc.TorchDynamoException as error:  # no compiler, most likely
                log.warning("torch.compile failed, so pictures take longer: %s", str(error).splitlines()[0])
                self._compiles = False
        return self.network(inputs)  # type: ignore[no-any-return]
