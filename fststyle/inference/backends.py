"""Where a network runs: PyTorch, on any device, or OpenVINO on the CPU.

OpenVINO is several times faster there and starts without importing PyTorch. A model file is converted
for it once, by PyTorch; what comes of it lies in the user's cache folder under the model file's hash,
and so does what OpenVINO compiles of that for this machine.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fststyle.devices import DeviceError, choose_device
from fststyle.images import ImageError, check_writable, to_image, to_levels, to_pixels, top_level
from fststyle.inference.openvino import openvino_core, openvino_installed, smallest_side, with_mixture
from fststyle.mixtures import split_path
from fststyle.model_file import mixture_weights, read_metadata
from fststyle.resources import cache_folder, free_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

log = logging.getLogger(__name__)

#: A size that was met so many times is worth a compilation, on a GPU.
WORTH_COMPILING = 4
#: To be raised when networks are converted in another way: what is cached is then converted anew.
REVISION = 1
#: Conversions that the cache keeps. One takes as much as the checkpoint in float32, and what is compiled of it again.
KEPT = 64


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


class OpenVINOBackend:
    """A model file's network on the CPU, for pictures of any size.

    Args:
        path: the checkpoint; or one of several styles with a style or a mixture behind it (``model_file``).
        precision: ``float32``; ``bfloat16``, for CPUs that have it; ``auto``: bfloat16 where the CPU
            multiplies matrices in it.

    Raises:
        DeviceError: not installed; an unknown precision; a network that it cannot run.
    """

    name = "openvino"

    def __init__(self, path: Path, precision: str = "auto") -> None:
        if not openvino_installed():
            raise DeviceError("openvino is not installed; pip install 'fststyle[openvino]', or use --backend torch")
        if precision not in ("auto", "float32", "bfloat16"):
            raise DeviceError(f"precision is {precision!r}; with openvino expected one of auto, float32, bfloat16")
        self.path = path
        self.smallest = smallest_side(read_metadata(path)["network"]["arguments"].get("border", 0))
        file, mixture = split_path(path)
        weights = mixture_weights(file, mixture) if mixture else None
        folder, core = _converted(file), openvino_core()
        hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
        if precision == "auto":
            capable = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            precision = "bfloat16" if capable else "float32"
        hints["INFERENCE_PRECISION_HINT"] = {"bfloat16": "bf16", "float32": "f32"}[precision]
        if os.access(folder, os.W_OK):
            hints["CACHE_DIR"] = str(folder / "compiled")
        self.precision = precision

        def compiled(folder: Path, **hints: Any) -> Any:
            graph = str(folder / "network.xml")
            return core.compile_model(graph if weights is None else with_mixture(graph, weights), "CPU", hints)

        try:
            self._run = compiled(folder, **hints)
        except RuntimeError as error:
            hints.pop("CACHE_DIR", None)
            run = functools.partial(compiled, **hints)
            self._run = _repaired(file, folder, run, str(error).strip().splitlines()[-1])

    def __call__(self, image: Tensor) -> Tensor:
        """An image (B, 3, H, W) in [0, 1], on any device, to its result in [0, 1], float32, on the CPU."""
        import torch

        return torch.from_numpy(self._apply(image.detach().float().cpu().numpy()))

    def pixels(self, rgb: np.ndarray) -> np.ndarray:
        """A decoded picture, uint8 or uint16 (H, W, 3), to its result likewise; PyTorch is not imported."""
        top = np.float32(top_level(rgb))
        image = np.multiply(rgb.transpose(2, 0, 1)[None], 1 / top, dtype=np.float32)
        return np.ascontiguousarray(to_levels(self._apply(image)[0].transpose(1, 2, 0) * top, rgb.dtype))

    @property
    def device(self) -> torch.device:
        import torch

        return torch.device("cpu")

    @property
    def memory(self) -> int:
        """What ``free_memory`` says, in bytes."""
        return free_memory()

    def _apply(self, images: np.ndarray) -> np.ndarray:
        if min(images.shape[-2:]) < self.smallest:
            import torch

            return self.torch_backend(torch.from_numpy(images)).numpy()
        return self._run(np.ascontiguousarray(images, dtype=np.float32))[0]

    @functools.cached_property
    def torch_backend(self) -> TorchBackend:
        """For pictures that are too small for the graph, and for tiled inference."""
        from fststyle.model_file import load_model_file

        return TorchBackend(load_model_file(self.path).network, "cpu", "float32")


def _converted(path: Path) -> Path:
    """The folder that holds a model file as ``network.xml`` and ``network.bin``; made, if it is not there yet."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:24]
    folder = cache_folder("openvino") / f"{digest}-{version('openvino')}-{REVISION}"
    if (folder / "network.xml").is_file():
        with contextlib.suppress(OSError):
            os.utime(folder)  # used now
        return folder
    log.info("converting %s for OpenVINO, once", path.name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_writable(folder.parent)
    except (OSError, ImageError):  # no cache on this machine: for this process alone
        folder = _convert(path, None)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder
    part = _convert(path, folder.parent)
    try:
        part.rename(folder)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        if not (folder / "network.xml").is_file():  # else another process was first
            raise
    _forget_the_oldest(folder.parent)
    return folder


def _repaired(path: Path, folder: Path, compiled: Callable[[Path], Any], reason: str) -> Any:
    """Compiled from a new conversion, which takes the cached one's place if it is better than that."""
    fresh = _convert(path, folder.parent if os.access(folder.parent, os.W_OK) else None)
    try:
        run = compiled(fresh)
    except BaseException:  # then the cached one is not to blame
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    log.warning("%s cannot be read, so it was made anew (%s)", folder, reason)
    damaged = fresh.with_name(f"{fresh.name}-old")
    with contextlib.suppress(OSError):  # or another process does the same
        folder.rename(damaged)  # whoever has it open keeps it
        fresh.rename(folder)
    for rest in (damaged, fresh):
        shutil.rmtree(rest, ignore_errors=True)
    return run


def _convert(path: Path, beside: Path | None) -> Path:
    """A model file's conversion in a new folder, within ``beside`` or, for None, where temporary files are."""
    part = Path(tempfile.mkdtemp(prefix=".part-" if beside else "fststyle-", dir=beside))
    try:
        if "torch" in sys.modules or not _written_apart(path, part):
            _write(path, part)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return part


def _write(path: Path, folder: Path) -> None:
    """``network.xml`` and ``network.bin`` of a model file."""
    import openvino as ov

    from fststyle.inference.graphs import to_openvino
    from fststyle.model_file import load_model_file

    ov.save_model(to_openvino(load_model_file(path).network), folder / "network.xml", compress_to_fp16=False)


def _written_apart(path: Path, folder: Path) -> bool:
    """``_write`` in a process of its own, with which the memory goes that PyTorch takes for it, some 0.7 GB; whether it
    could be done so.
    """
    code = f"import sys, pathlib, {__name__} as here; here._write(*map(pathlib.Path, sys.argv[1:]))"
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with contextlib.suppress(OSError, ValueError):
        words = [sys.executable, "-c", code, str(path.absolute()), str(folder.absolute())]
        return subprocess.run(words, env=found, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0
    return False


def _forget_the_oldest(cache: Path) -> None:
    """Leave the ``KEPT`` conversions that were used last; whoever has another one open keeps it."""
    used = {}
    for folder in cache.iterdir():
        with contextlib.suppress(OSError):  # gone meanwhile
            used[folder] = folder.stat().st_mtime
    for folder in sorted(used, key=used.__getitem__, reverse=True)[KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)
