"""One style in a part of the picture, and another one, or the photograph, elsewhere: by a mask with soft edges.

    stylize = in_regions(Stylizer.from_checkpoint("wave"), read_mask("mask.png"), Stylizer.from_checkpoint("udnie"))
    save_image(stylize(load_image("photo.jpg")), "regions.png")

Styles that share their convolutions, those of one file, are applied in one pass, whose norms vary over the picture
(``networks.regions``). Others are applied in a pass each, and their results blended, as with the photograph.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fststyle.images import ImageError, feathered, resize_pixels, to_image, to_pixels
from fststyle.images.arrays import Rows
from fststyle.inference.backends import TorchBackend
from fststyle.inference.openvino import OpenVINOBackend
from fststyle.inference.options import PLAIN, StylizeOptions, masked
from fststyle.inference.paths import Files, Job, skip
from fststyle.inference.stylizer import Stylizer
from fststyle.model_file import find_model_file
from fststyle.octaves import MOST
from fststyle.resources import user_path
from fststyle.tensor_files import split_path

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Stands for the photograph itself where a style could be.
PHOTO = "photo"


@dataclass(frozen=True)
class Regions:
    """Where a style is applied, and what is elsewhere, as a user names it.

    Args:
        mask: a picture file of the photographs' size, white where the style is.
        elsewhere: a bundled style or a model file, or ``PHOTO``.
        feather: pixels of the result to each side of an edge over which it is softened; None: 1 % of the longer side.
    """

    mask: str
    elsewhere: str = PHOTO
    feather: float | None = None

    def read(self, files: Files, jobs: Sequence[Job], inputs: Sequence[str]) -> tuple[np.ndarray, list[Job]]:
        """The mask, with soft edges, at the size that pictures have, and what is left to do: not the mask, unless it is
        named among the inputs.

        Raises:
            ImageError, ValueError: a mask that cannot be read, has no content or not the size of every picture.
        """
        if self.mask in ("", "-"):
            raise ImageError(f"found {self.mask!r} for the mask; expected a picture file")
        path = user_path(self.mask)
        header = files.header(path)
        if not any(_same(user_path(text), path) for text in inputs):
            others = [job for job in jobs if not _same(job.source, path)]
            if jobs and not others:
                raise ImageError(f"{self.mask}: is the only picture found, and the mask; name the photograph")
            if len(others) < len(jobs):
                skip(f"{self.mask}: is the mask; name it to have it done")
            jobs = others
        for job in jobs:
            try:
                photo = files.header(job.source)
            except ImageError:  # it is named when its turn comes
                continue
            if (photo.height, photo.width) != (header.height, header.width):
                raise ImageError(
                    f"{self.mask}: is a mask of {header.width}×{header.height} pixels; expected the "
                    f"{photo.width}×{photo.height} of {job.source}; give a mask that was made for it"
                )
        return feathered(files.mask(path), self.feather), list(jobs)

    def backend_for(self, styles: Sequence[str], backend: str) -> str:
        """The backend to load styles for: PyTorch, where one shares its network with that elsewhere."""
        if self.elsewhere == PHOTO:
            return backend
        path, *paths = (find_model_file(each, Stylizer.kind) for each in (self.elsewhere, *styles))
        return "torch" if any(_may_share(path, other) for other in paths) else backend


def in_regions(
    style: Stylizer, mask: np.ndarray, elsewhere: Stylizer | None = None, feather: float | None = None
) -> Stylizer:
    """A stylizer for pictures of one size, that applies a style where a mask is white, and another one elsewhere.

    Args:
        style: what is applied where the mask is white.
        mask: uint8 (H, W), from ``read_mask``; between black and white is a mixture of both.
        elsewhere: what is applied where it is black; None: the photograph is left as it is.
        feather: as for ``Regions``; of the mask's pixels.

    Raises:
        ValueError: as ``images.feathered``.
    """
    return joined(style, feathered(mask, feather), elsewhere)


def joined(style: Stylizer, mask: np.ndarray, elsewhere: Stylizer | None) -> Stylizer:
    """``in_regions`` with a mask that has soft edges already."""
    if elsewhere is not None:
        backends = [elsewhere.backend, style.backend]
        paths = [backend.path for backend in backends if isinstance(backend, OpenVINOBackend)]
        if len(paths) < 2 or _may_share(*paths):
            from fststyle.networks.regions import share_convolutions

            in_torch = [backend.torch_backend for backend in backends]
            if share_convolutions([backend.network for backend in in_torch]):
                return OnePass(RegionBackend(in_torch, mask), style.metadata)
    return Blended(style, mask, elsewhere)


def _may_share(path: Path, other: Path) -> bool:
    """Whether two model files, or styles of files, have the same convolutions' weights; without importing torch."""
    from safetensors import safe_open

    file, other = split_path(path)[0], split_path(other)[0]
    if file == other:
        return True
    try:
        with safe_open(file, framework="numpy") as mine, safe_open(other, framework="numpy") as theirs:
            names = [name for name in mine.keys() if name.endswith("conv.weight")]  # noqa: SIM118, it is no dictionary
            return all(np.array_equal(mine.get_tensor(name), theirs.get_tensor(name)) for name in names)
    except Exception:  # whatever a foreign or damaged file makes safetensors raise; who loads it says more
        return False


class RegionBackend:
    """Two styles of one network in a pass, by PyTorch.

    Args:
        backends: that of the style where the mask is black, and of that where it is white.
        mask: uint8 (H, W); brought to the size of what the network sees.
    """

    name = "torch"

    def __init__(self, backends: Sequence[TorchBackend], mask: np.ndarray) -> None:
        self.networks: list[Any] = [backend.network for backend in backends]
        self.mask, self.torch_backend = mask, backends[-1]
        self.precision = self.torch_backend.precision
        self._made: dict[tuple[int, int], TorchBackend] = {}

    def at(self, height: int, width: int) -> TorchBackend:
        """The network for pictures of that size."""
        import torch

        from fststyle.networks.regions import with_regions

        if (height, width) not in self._made:
            if len(self._made) == MOST:  # of a picture from coarse to fine, all sizes are kept
                self._made.clear()
            levels = torch.from_numpy(np.array(resize_pixels(self.mask, height, width)))
            network = with_regions(self.networks, levels[None, None])
            self._made[height, width] = TorchBackend(network, self.device.type, self.precision)
        return self._made[height, width]

    def __call__(self, image: Tensor) -> Tensor:
        return self.at(*image.shape[-2:])(image)

    def pixels(self, rgb: np.ndarray) -> np.ndarray:
        return self.at(*rgb.shape[:2]).pixels(rgb)

    @property
    def device(self) -> torch.device:
        return self.torch_backend.device

    @property
    def memory(self) -> int:
        return self.torch_backend.memory


class OnePass(Stylizer):
    """Two styles that share their convolutions."""

    backend: RegionBackend

    def __init__(self, backend: RegionBackend, metadata: dict[str, Any]) -> None:
        super().__init__(backend, metadata)
        self.size = backend.mask.shape

    def in_torch(self, height: int, width: int) -> TorchBackend:
        return self.backend.at(height, width)


class Blended(Stylizer):
    """Two styles of different networks, or one and the photograph: their results, blended by ``options.masked``."""

    def __init__(self, style: Stylizer, mask: np.ndarray, elsewhere: Stylizer | None) -> None:
        super().__init__(style.backend, style.metadata)
        self.mask, self.size = mask, mask.shape
        self.passes = (style,) if elsewhere is None else (style, elsewhere)

    def apply(self, image: Tensor, median: bool) -> Tensor:
        import torch

        options = StylizeOptions(median=median)
        return torch.cat([to_image(self.pixels(to_pixels(each, np.uint16), options)) for each in image])

    def pixels(
        self,
        rgb: np.ndarray,
        options: StylizeOptions = PLAIN,
        memory: int | None = None,
        always: bool = False,
        folder: str | None = None,
    ) -> np.ndarray:
        self.check(*rgb.shape[:2])
        results = [each.pixels(rgb, options, memory, always, folder) for each in self.passes]
        return np.concatenate(list(self.blended([_rows(result) for result in results], _rows(rgb))))

    def blended(self, results: Sequence[Rows], photo: Rows) -> Iterator[np.ndarray]:
        """The picture to show, of what the ``passes`` give."""
        within, elsewhere = (*results, photo)[:2]
        return masked(elsewhere, within, self.mask)

    def is_too_large(self, height: int, width: int, memory: int) -> bool:
        return any(each.is_too_large(height, width, memory) for each in self.passes)

    def least_memory(self, height: int, width: int) -> int:
        return max(each.least_memory(height, width) for each in self.passes)


def _rows(picture: np.ndarray) -> Rows:
    return lambda top, bottom: picture[top:bottom]


def _same(path: Path, other: Path) -> bool:
    return os.path.exists(path) and path.samefile(other)
