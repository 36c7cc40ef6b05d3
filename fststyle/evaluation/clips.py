"""Clips made from a photograph, whose motion is known exactly: where each pixel was in an earlier frame, and whether.

Motions by whole pixels (pan, noise, layer) are measured without any interpolation; zoom and rotation need it, for the
input as for what is made of it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fststyle.images import resize_pixels, to_image, to_pixels

#: Height and width of frames, in pixels, and how many there are.
SIZE, FRAMES = (240, 320), 24
#: How much larger than a frame, each way, what the camera moves over is.
_ROOM = 1.5
#: Pixels at the border that are not measured: what lies beyond it differs.
_BORDER = 8
#: The shortest side of frames, in pixels.
LEAST = 64
#: Standard deviation of a sensor's noise, in [0, 1].
SENSOR_NOISE = 2 / 255
#: A map of coordinates: 2 × 3, for (x, y, 1) in pixels from the centre of the frame.
Affine = np.ndarray


@dataclass(frozen=True)
class Clip:
    """A clip; its motion needs no photograph.

    Args:
        name: of ``CLIPS``.
        size: height and width of its frames, in pixels.
        count: of its frames.
        camera: from coordinates in a frame, by its number, to those in the scene.
        noise: added to each frame: standard deviation of a Gaussian; ``levels``: one level of 255 up or down, or none.
        layer: how far (pixels right, pixels down) a disc of another scene moves from a frame to the next; None: there
            is none.
    """

    name: str
    size: tuple[int, int]
    count: int
    camera: Callable[[int], Affine]
    noise: float = 0.0
    levels: bool = False
    layer: tuple[int, int] | None = None

    def frames(self, photo: np.ndarray) -> list[np.ndarray]:
        """Its frames of a photograph, uint8 (H, W, 3), each likewise; the same whenever they are made."""
        scene = to_image(_covering(photo, *self.size))
        rng, made = np.random.default_rng(7), []
        for number in range(self.count):
            image = sampled(scene, *self._scene_at(number, scene), mode="bicubic")
            if self.layer is not None:
                disc = self._disc(number)[None, None]
                image = image * (1 - disc) + self._moved(scene, number) * disc
            pixels = to_pixels(image).astype(np.int16)
            if self.levels:
                pixels += rng.integers(-1, 2, pixels.shape, dtype=np.int16)
            if self.noise:
                pixels += np.rint(rng.normal(0, 255 * self.noise, pixels.shape)).astype(np.int16)
            made.append(pixels.clip(0, 255).astype(np.uint8))
        return made

    def warped(self, earlier: Tensor, number: int, back: int) -> tuple[Tensor, Tensor]:
        """An earlier frame as it should be seen now, and where that is known.

        Args:
            earlier: (1, 3, H, W), of frame ``number - back``, or what was made of it.
            number: of the frame that is seen now.

        Returns:
            (1, 3, H, W), and a mask, bool (H, W): not what came into view, or is near the border.
        """
        height, width = self.size
        x, y = grid_of(*self.size)
        known = inside(x, y, height, width)
        then = np.linalg.inv(_square(self.camera(number - back))) @ _square(self.camera(number))
        was_x, was_y = _mapped(then, x, y)
        if self.layer is not None:
            now, before = self._disc(number), self._disc(number - back)
            on_top = now > 0.5
            shift_x, shift_y = (back * step for step in self.layer)
            was_x, was_y = torch.where(on_top, x - shift_x, was_x), torch.where(on_top, y - shift_y, was_y)
            known &= (now == 0) & (before == 0) | (now == 1)
        known &= inside(was_x, was_y, height, width)
        rows, columns = was_y + (height - 1) / 2, was_x + (width - 1) / 2
        if bool(((rows - rows.round()).abs() < 1e-6).all() and ((columns - columns.round()).abs() < 1e-6).all()):
            there = earlier[:, :, rows.round().long().clamp(0, height - 1), columns.round().long().clamp(0, width - 1)]
            return there, known
        return sampled(earlier, was_x, was_y, mode="bicubic").clamp(0, 1), known

    def _scene_at(self, number: int, scene: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates in the scene of a frame's pixels; halves of a pixel are those of the scene's centre."""
        x, y = _mapped(_square(self.camera(number)), *grid_of(*self.size))
        half = [(a - b) % 2 / 2 for a, b in zip(scene.shape[2:], self.size, strict=True)]
        return x + half[1], y + half[0]

    def _disc(self, number: int) -> Tensor:
        """Where the moving disc is, from 0 to 1, (H, W): a ramp of two pixels at its edge."""
        assert self.layer is not None
        x, y = grid_of(*self.size)
        middle = (self.count - 1) // 2
        from_x, from_y = ((number - middle) * step for step in self.layer)
        away = torch.hypot(x - from_x, y - from_y)
        return ((min(self.size) / 4 - away) / 2 + 0.5).clamp(0, 1)

    def _moved(self, scene: Tensor, number: int) -> Tensor:
        """The scene in the disc: the other one upside down, moving by whole pixels."""
        assert self.layer is not None
        height, width = self.size
        middle = (self.count - 1) // 2
        right, down = ((number - middle) * step for step in self.layer)
        top, left = (scene.shape[2] - height) // 2, (scene.shape[3] - width) // 2
        part = scene.flip(2)[:, :, top : top + height, left : left + width]
        return torch.roll(part, (down, right), (2, 3))


def _pan(number: int) -> Affine:
    return np.array([[1, 0, 3 * number - 36], [0, 1, number - 12]], float)


def _still(number: int) -> Affine:
    return np.array([[1, 0, 0], [0, 1, 0]], float)


def _zoom(number: int) -> Affine:
    scale = 0.99**number
    return np.array([[scale, 0, 0], [0, scale, 0]])


def _rotation(number: int) -> Affine:
    angle = math.radians(0.5 * (number - 12))
    return np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])


def make_clips(size: tuple[int, int] = SIZE, count: int = FRAMES) -> dict[str, Clip]:
    """All clips by name, of frames of that height and width.

    Raises:
        ValueError: frames smaller than ``LEAST``, or fewer than 2.
    """
    if min(size) < LEAST or count < 2:
        raise ValueError(f"found {count} frames of {size[1]}×{size[0]} pixels; expected at least 2 of {LEAST}×{LEAST}")
    made = functools.partial(Clip, size=size, count=count)
    clips: Sequence[Clip] = (
        made("pan", camera=_pan),
        made("zoom", camera=_zoom),
        made("rotation", camera=_rotation),
        made("layer", camera=_still, layer=(3, 1)),
        made("noise", camera=_pan, noise=SENSOR_NOISE),
        made("still", camera=_still, levels=True),
    )
    return {clip.name: clip for clip in clips}


def _covering(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """A photograph's middle, at the size of the scene for frames of that size."""
    height, width = round(height * _ROOM), round(width * _ROOM)
    scale = max(height / photo.shape[0], width / photo.shape[1])
    sides = [max(round(scale * side), least) for side, least in zip(photo.shape, (height, width), strict=False)]
    large = resize_pixels(photo, *sides)
    top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
    return np.ascontiguousarray(large[top : top + height, left : left + width])


def _square(affine: Affine) -> np.ndarray:
    return np.vstack([affine, [0, 0, 1]])


def _mapped(matrix: np.ndarray, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2], matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]


def grid_of(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Coordinates (x, y) of a frame's pixels from its centre, float64 (H, W) each."""
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    return x.double(), y.double()


def inside(x: Tensor, y: Tensor, height: int, width: int) -> Tensor:
    """Where coordinates are in a frame, and not near its border."""
    return (x.abs() <= (width - 1) / 2 - _BORDER) & (y.abs() <= (height - 1) / 2 - _BORDER)


def sampled(image: Tensor, x: Tensor, y: Tensor, mode: str) -> Tensor:
    """Values of an image (1, C, H, W) at coordinates from its centre, in pixels, (h, w) each."""
    height, width = image.shape[2:]
    grid = torch.stack([x * 2 / (width - 1), y * 2 / (height - 1)], -1)[None].to(image.dtype)
    return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=True)
