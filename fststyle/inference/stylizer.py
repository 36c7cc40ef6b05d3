"""Stylizer: a style, loaded once, applied to any picture in one forward pass."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fststyle.devices import DeviceError, choose_device
from fststyle.images import ImageError, check_size, resize_pixels
from fststyle.images.arrays import YCBCR, Rows
from fststyle.inference.backends import Backend, TorchBackend
from fststyle.inference.openvino import OpenVINOBackend, openvino_installed
from fststyle.inference.options import PLAIN, StylizeOptions, median_of
from fststyle.inference.variation import added_light, varied
from fststyle.model_file import check_kind, find_model_file, load_model_file, one_style
from fststyle.octaves import Variation, grow_from, guided, halved, room_for, trained_octaves
from fststyle.resources import NOT_LITE, without_torch

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BACKENDS = ("auto", "torch", "openvino")


class Stylizer:
    """``stylizer(image) -> image``, of the same size; ``stylizer.pixels(rgb) -> rgb`` without tensors.

    Args:
        network: image in, image out; put into evaluation mode and run by PyTorch. Or a backend that runs one; then
            device and precision are its own.
        metadata: the model file's, for those who ask.
        device: ``auto`` (a CUDA GPU where there is one), ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        DeviceError: ``cuda`` on a machine without.
    """

    #: Of the checkpoints that it applies.
    kind = "style"
    backend: Backend
    #: Height and width of the pictures that it takes; None: any.
    size: tuple[int, int] | None = None
    #: Whose results ``blended`` makes the picture to show of; none where the network's result is it.
    passes: Sequence[Stylizer] = ()

    def __init__(
        self,
        network: nn.Module | Backend,
        metadata: dict[str, Any] | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        given: Any = network
        self.backend = given if hasattr(given, "pixels") else TorchBackend(given, device, precision)
        self.metadata = metadata or {}
        #: Octaves that the network was trained in, and is applied in unless options say otherwise.
        self.octaves = trained_octaves(self.metadata)
        #: Longer side from which strokes grow with the picture, pixels.
        self.grow_from = grow_from(self.metadata)
        #: Of what is even in a photograph.
        self.variation = Variation.from_metadata(self.metadata)

    @classmethod
    def from_checkpoint(
        cls, name_or_path: str | os.PathLike[str], device: str = "auto", backend: str = "auto", precision: str = "auto"
    ) -> Self:
        """Load a bundled style by name, or a model file.

        Args:
            name_or_path: ``fststyle styles`` lists the names; ``zoo/wave`` is a style of a file of several,
                ``zoo/wave=0.6,udnie=0.4`` a mixture.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            backend: ``torch``, ``openvino`` (on the CPU; PyTorch is not even imported), or ``auto``:
                OpenVINO where it is installed and there is no GPU to use.
            precision: ``auto``, ``float32``, ``bfloat16`` or ``float16``; see the backends.

        Raises:
            ModelFileError: unknown name (the message lists the known ones), no or no sound checkpoint.
            DeviceError: what this machine or installation does not have.
        """
        if backend not in BACKENDS:
            raise DeviceError(f"backend is {backend!r}; expected one of {', '.join(BACKENDS)}")
        if backend == "openvino" and device in ("cuda", "mps"):
            raise DeviceError(f"openvino runs on the CPU; use --backend torch with --device {device}")
        if device not in ("auto", "cpu"):
            choose_device(device)  # before any file is read
        path = one_style(find_model_file(name_or_path, cls.kind))
        metadata = check_kind(path, cls.kind)
        if backend == "openvino" or (backend == "auto" and _openvino_is_better(device, precision)):
            return cls(OpenVINOBackend(path, precision), metadata)
        return cls(load_model_file(path, cls.kind).network, metadata, device, precision)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.backend.device

    def __call__(self, image: Tensor, median: bool = False) -> Tensor:
        """Stylise.

        Args:
            image: float (B, 3, H, W), RGB in [0, 1], H and W ≥ 16, on any device.
            median: filter the result by ``median_filter``.

        Returns:
            float32 (B, 3, H, W) in [0, 1], on the image's device.

        Raises:
            ValueError: another shape, a smaller picture, or not floating point.
        """
        check_size(image)
        self.check(*image.shape[2:])
        if not image.is_floating_point():
            raise ValueError(f"found an image of {image.dtype}; expected floating point in [0, 1], as load_image gives")
        return self.apply(image, median).to(image.device)

    def apply(self, image: Tensor, median: bool) -> Tensor:
        """What ``__call__`` gives, on the backend's device."""
        from fststyle.networks.octaves import in_octaves

        seen = _varied_image(image, self.variation) if self.variation.amount else image
        output = in_octaves(self.backend, seen.to(self.device), self.octaves)
        return median_filter(output) if median else output

    def check(self, height: int, width: int) -> None:
        """Raise ``ValueError`` for a picture of another size than those that it takes."""
        if self.size not in (None, (height, width)):
            known = f"{self.size[1]}×{self.size[0]}"
            raise ValueError(f"the picture is {width}×{height} pixels, the mask {known}; expected the same size")

    def pixels(
        self,
        rgb: np.ndarray,
        options: StylizeOptions = PLAIN,
        memory: int | None = None,
        always: bool = False,
        folder: str | None = None,
    ) -> np.ndarray:
        """Stylise a decoded picture, uint8 or uint16 (H, W, 3), and round the result likewise.

        Args:
            rgb: at least 16 pixels each way.
            options: how the style is applied; those but ``median`` are for results of the picture's size.
            memory: bytes; a picture whose pass would take more is done strip by strip, by PyTorch, within them. The
                result is the whole picture's, but for rounding. None: never.
            always: do it strip by strip, within ``memory``, whatever its size.
            folder: of the scratch file that this may need; None: the system's for temporary files.

        Raises:
            ValueError: a smaller picture.
        """
        height, width = rgb.shape[:2]
        check_size(rgb.transpose(2, 0, 1)[None])
        self.check(height, width)
        if options.strength == 0:
            return rgb
        lines, columns = self.seen(height, width, options)

        def painted(picture: np.ndarray, octaves: int, median: bool) -> np.ndarray:
            lines, columns = picture.shape[:2]
            if octaves > 1:
                coarse = painted(resize_pixels(picture, *halved(lines, columns)), octaves - 1, median=False)
                picture = guided(picture, resize_pixels(coarse, lines, columns))
            if memory is not None and (always or self.is_too_large(lines, columns, memory)):
                strips = self.pixels_in_strips(
                    lambda top, bottom: picture[top:bottom], lines, columns, memory, median, folder
                )
                return np.concatenate(list(strips))
            output = self.backend.pixels(picture)
            return median_of(output) if median else output

        picture = varied(resize_pixels(rgb, lines, columns), self.variation_of(options))
        output = painted(picture, self.octaves_at(lines, columns, options), options.median)
        if (lines, columns) != (height, width):
            output = resize_pixels(output, height, width)
        return options.finish(rgb, output) if options.changes else output

    def seen(self, height: int, width: int, options: StylizeOptions) -> tuple[int, int]:
        """Height and width of what the network sees of a picture."""
        return options.seen(height, width, self.grow_from) if self.scale == 1 else (height, width)

    def variation_of(self, options: StylizeOptions) -> Variation:
        """How lightness varies in even areas of what the network sees."""
        if options.variation is None:
            return self.variation
        return dataclasses.replace(self.variation, amount=options.variation)

    def octaves_at(self, height: int, width: int, options: StylizeOptions) -> int:
        """In how many octaves a picture of that size, as the network sees it, is done."""
        return min(options.octaves or self.octaves, room_for(height, width))

    def pixels_in_strips(
        self,
        read: Callable[[int, int], np.ndarray],
        height: int,
        width: int,
        memory: int,
        median: bool = False,
        folder: str | None = None,
        tick: Callable[[int], None] = lambda _: None,
    ) -> Iterator[np.ndarray]:
        """Rows of the result, made strip by strip whatever the picture's size; see ``inference.tiled``."""
        from fststyle.inference.tiled import pixels_in_strips

        by, folder = median_filter if median else None, folder or tempfile.gettempdir()
        return pixels_in_strips(self.in_torch(height, width), read, height, width, memory, folder, by, tick)

    def in_torch(self, height: int, width: int) -> TorchBackend:
        """What runs pictures of that size strip by strip."""
        return self.backend.torch_backend

    def blended(self, results: Sequence[Rows], photo: Rows) -> Iterator[np.ndarray]:
        """Rows of the picture to show, of those that the ``passes`` give and those of the photograph."""
        raise NotImplementedError

    def is_too_large(self, height: int, width: int, memory: int) -> bool:
        """Whether a pass over the whole picture would take more than so many bytes."""
        if height * width * 1024 * self.scale**2 <= memory:
            return False  # without importing torch
        if without_torch():
            found = f"a picture of {width}×{height} pixels takes strips, and those PyTorch; {NOT_LITE}"
            raise ImageError(f"{found}, or give a smaller --size, or --tiles off")
        from fststyle.inference.tiled import whole_picture_bytes

        return whole_picture_bytes(self.backend.torch_backend, height, width) > memory

    def least_memory(self, height: int, width: int) -> int:
        """Bytes that strips of a picture take at least, roughly."""
        from fststyle.inference.tiled import least_bytes

        return least_bytes(self.backend.torch_backend, height, width)

    @property
    def memory(self) -> int:
        """Bytes that a pass may take: half of what the device, or the container that this runs in, has, at most."""
        return self.backend.memory

    @property
    def scale(self) -> int:
        """How many times larger the result is, each way."""
        return int(self.metadata.get("network", {}).get("arguments", {}).get("scale", 1))


class Upscaler(Stylizer):
    """As ``Stylizer``, for super-resolution: images ``scale`` times as large."""

    kind = "superres"


def _openvino_is_better(device: str, precision: str) -> bool:
    """Whether ``auto`` means OpenVINO: it is installed, and PyTorch has no GPU, or none is wanted. Imports no torch."""
    wanted = device == "cpu" or (device == "auto" and (not has_gpu() or without_torch()))
    return wanted and openvino_installed() and precision != "float16"


def has_gpu() -> bool:
    """Whether this machine looks as if PyTorch would find a GPU."""
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def _varied_image(image: Tensor, by: Variation) -> Tensor:
    """As ``variation.varied``, of images (B, 3, H, W)."""
    import torch

    light = np.tensordot(image.detach().float().cpu().numpy(), YCBCR[0], (1, 0))
    added = torch.from_numpy(np.stack([added_light(each, by) for each in light]))
    return (image.float() + added[:, None].to(image.device)).clamp(0, 1)


def median_filter(image: Tensor) -> Tensor:
    """3×3 median of each channel, borders reflected: what Johnson's code applies to its results.

    Args:
        image: (B, C, H, W).
    """
    import torch

    from fststyle.padding import reflection_pad

    height, width = image.shape[-2:]
    padded = reflection_pad(image, 1, 1, 1, 1)
    shifted = [padded[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return torch.stack(shifted).median(dim=0).values
