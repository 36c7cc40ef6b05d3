"""Swapper: any picture painted with patches of any other, in one pass."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from fststyle.devices import DeviceError, choose_device
from fststyle.images import ImageError, Picture, TooManyPixelsError, check_style_sides, read_picture
from fststyle.inference.backends import TorchBackend
from fststyle.inference.batch import Summary, process
from fststyle.inference.options import with_luminance_of
from fststyle.inference.paths import Files
from fststyle.model_file import ModelFileError, bundled_files, find_model_file, load_model_file
from fststyle.resources import user_path

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fststyle.networks.styleswap import StyleSwap

#: The network that is used when none is named.
DEFAULT = "slim"
#: Longer side to which a style picture is brought that is too large to be read, where no size is given for it.
STYLE_SIZE = 1024
#: Pairs of patches that take minutes on a CPU: more than two pictures of 1250 pixels have.
MANY_PAIRS = 10**10


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


def swap_files(
    inputs: Sequence[str],
    style_image: str,
    model: str = DEFAULT,
    files: Files | None = None,
    style_size: int | None = None,
    patch: int = 3,
    stride: int = 1,
    preserve_color: bool = False,
    device: str = "auto",
    precision: str = "auto",
) -> Summary:
    """Paint pictures, globs and folders with patches of a picture; each result is ``PICTURE_STYLE``, unless ``files``
    names a file.

    Args:
        inputs: paths, patterns and folders.
        style_image: the style's picture.
        model: a bundled name, or a model file.
        files: where results go, and at what size pictures are read.
        style_size: bring the longer side of the style's picture to so many pixels first.
        patch, stride: as for ``Swapper``.
        preserve_color: keep the photograph's colours, and take the result's luminance.
        device, precision: as for ``Swapper.from_checkpoint``.

    Raises:
        ValueError, OSError: refused before work began, or not one picture could be done.
    """
    if not style_image:
        raise ImageError("found an empty name for --style-image; expected a picture")
    files, painting = files or Files(), user_path(style_image)
    todo = files.jobs(inputs, [painting.stem], [painting])
    from fststyle.networks.styleswap import check_patch

    check_patch(patch, stride)
    check_style_sides(painting)
    style = _style(painting, style_size, patch)
    swapper = Swapper.from_checkpoint(model, device, precision)

    def read(path: Path) -> Picture:
        picture = _read(path, files.size, patch)
        content, painted = (math.prod(rgb.shape[:2]) // (4 * stride) ** 2 for rgb in (picture.rgb, style.rgb))
        if content * painted > MANY_PAIRS:
            tqdm.write(
                f"fststyle: {path}: {content:,} patches against {painted:,} take minutes and more; "
                "a smaller --size or --style-size, or a larger --stride, is faster",
                file=sys.stderr,
            )
        return picture

    def swapped(picture: Picture, _: int) -> np.ndarray:
        output = swapper.pixels(picture.rgb, style.rgb, patch, stride, style.alpha)
        return with_luminance_of(picture.rgb, output) if preserve_color else output

    return process(todo, swapped, read)


def _style(path: Path, size: int | None, patch: int) -> Picture:
    """The style picture; one that is too large at a size that makes sense."""
    try:
        return _read(path, size, patch, trim=True)
    except TooManyPixelsError as error:
        if size is not None:
            raise
        picture = _read(path, STYLE_SIZE, patch, trim=True)
        print(f"fststyle: {error}; it is brought to {STYLE_SIZE} (--style-size)", file=sys.stderr)
        return picture


def _read(path: Path, size: int | None, patch: int, trim: bool = False) -> Picture:
    """A picture that has at least one patch, each of whose positions covers 4 pixels."""
    picture = read_picture(path, size, trim=trim)
    height, width = picture.rgb.shape[:2]
    least = 4 * (patch - 1) + 1
    if min(height, width) < least:
        raise ImageError(
            f"{path}: is {width}×{height} pixels; patches of {patch}×{patch} need at least {least}×{least}"
        )
    return picture
