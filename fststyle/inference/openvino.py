"""OpenVINO: runs a model file's network on the CPU, several times as fast as PyTorch, which is not imported.

The graph is made of the model file each time (``inference.graphs``), within milliseconds. What OpenVINO compiles of it
for this machine lies in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import functools
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fststyle.devices import DeviceError
from fststyle.images import ImageError, check_writable, to_levels, top_level
from fststyle.inference.graphs import graph_of
from fststyle.model_file import ModelFileError
from fststyle.resources import cache_folder, free_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fststyle.inference.backends import TorchBackend

#: Compiled networks that the cache keeps; each takes about as much as the network in float32.
KEPT = 64


def openvino_installed() -> bool:
    """Whether OpenVINO can be used."""
    return find_spec("openvino") is not None


def openvino_core() -> Any:
    """OpenVINO's entrance.

    Raises:
        DeviceError: OpenVINO is not installed.
    """
    if not openvino_installed():
        raise DeviceError("openvino is not installed; pip install openvino, or use --backend torch")
    return _core()


@functools.cache
def _core() -> Any:
    """One for the whole process.

    Each gives the thread a signal stack of its own when it loads the CPU plugin, and puts back the one before
    when it is deleted. Of two that overlap the second puts back the first one's, which is gone by then:
    the next signal ends the process.
    """
    import openvino as ov

    return ov.Core()


class OpenVINOBackend:
    """A model file's network on the CPU, for pictures of any size.

    Args:
        path: the checkpoint; or one of several styles with a style or a mixture behind it (``model_file``).
        precision: ``float32``; ``bfloat16``, for CPUs that have it; ``auto``: bfloat16 where the CPU
            multiplies matrices in it.

    Raises:
        DeviceError: not installed; an unknown precision.
        ModelFileError: a file whose tensors do not fit its network.
    """

    name = "openvino"

    def __init__(self, path: Path, precision: str = "auto") -> None:
        if precision not in ("auto", "float32", "bfloat16"):
            raise DeviceError(f"precision is {precision!r}; with openvino expected one of auto, float32, bfloat16")
        if precision == "auto":
            capable = "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            precision = "bfloat16" if capable else "float32"
        self.path, self.precision = path, precision
        self._of_pixels = self._compiled(pixels=True)

    def __call__(self, image: Tensor) -> Tensor:
        """An image (B, 3, H, W) in [0, 1], on any device, to its result in [0, 1], float32, on the CPU."""
        import torch

        return torch.from_numpy(self._of_images(image.detach().float().contiguous().cpu().numpy())[0])

    def pixels(self, rgb: np.ndarray) -> np.ndarray:
        """A decoded picture, uint8 or uint16 (H, W, 3), to its result likewise; PyTorch is not imported."""
        if rgb.dtype == np.uint8:
            return self._of_pixels(np.ascontiguousarray(rgb[None]))[0][0]  # type: ignore[no-any-return]
        top = np.float32(top_level(rgb))
        image = np.multiply(rgb.transpose(2, 0, 1)[None], 1 / top, dtype=np.float32)
        result = self._of_images(np.ascontiguousarray(image))[0][0].transpose(1, 2, 0)
        return np.ascontiguousarray(to_levels(result * top, rgb.dtype))

    @property
    def device(self) -> torch.device:
        import torch

        return torch.device("cpu")

    @property
    def memory(self) -> int:
        """What ``free_memory`` says, in bytes."""
        return free_memory()

    @functools.cached_property
    def torch_backend(self) -> TorchBackend:
        """For tiled inference, and for styles that share a pass."""
        from fststyle.inference.backends import TorchBackend
        from fststyle.model_file import load_model_file

        return TorchBackend(load_model_file(self.path).network, "cpu", "float32")

    @functools.cached_property
    def _of_images(self) -> Any:
        """The graph between images, which few need."""
        return self._compiled(pixels=False)

    def _compiled(self, pixels: bool) -> Any:
        return compiled(graph_of(self.path, pixels), self.path, self.precision)


def compiled(graph: bytes, path: Path, precision: str = "float32") -> Any:
    """A graph, as the content of an ONNX file, ready to be called.

    Raises:
        DeviceError: OpenVINO is not installed.
        ModelFileError: tensors that do not fit, of the model file at ``path``.
    """
    try:
        model = openvino_core().read_model(graph, b"")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelFileError(f"{path}: does not fit its own description ({reason})") from None
    hint = {"bfloat16": "bf16", "float32": "f32"}[precision]
    hints = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": hint}
    return openvino_core().compile_model(model, "CPU", hints | _cache())


def _cache() -> dict[str, str]:
    """The hint where OpenVINO keeps what it compiles, of this version; none where nothing can be written.

    A file of it that is damaged is not used, and made anew.
    """
    folder = cache_folder("openvino") / version("openvino")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder)
    except (OSError, ImageError):
        return {}
    used = {}
    for file in folder.iterdir():
        with contextlib.suppress(OSError):  # gone meanwhile
            used[file] = file.stat().st_atime
    for file in sorted(used, key=used.__getitem__, reverse=True)[KEPT:]:
        with contextlib.suppress(OSError):
            file.unlink()
    return {"CACHE_DIR": str(folder)}
