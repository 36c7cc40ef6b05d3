"""Steadier videos: noise of the camera is averaged away where nothing moves, before the style is applied."""

from __future__ import annotations

import numpy as np

from fststyle.images import to_levels, top_level

#: Levels of 255 by which a pixel's surroundings, 3 × 3, differ from the frames before where it is taken as it is.
MOVING = 4.0
#: Of a new frame, where hardly anything differs.
_LEAST = 0.1


class SteadyInput:
    """Frames of a video, in their order, to frames with less noise.

    What differs by ``level`` or more is passed on unchanged, so nothing that moves is blurred or lags; what differs
    less is taken for noise and averaged over some ten frames.

    Args:
        level: of 255; above 0.

    Raises:
        ValueError: another level.
    """

    def __init__(self, level: float = MOVING) -> None:
        if not 0 < level <= 64:
            raise ValueError(f"steady is {level:g} levels; expected a number above 0, up to 64")
        self.level = level
        self._mean: np.ndarray | None = None

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """The next frame, uint8 or uint16 (H, W, 3)."""
        new = rgb.astype(np.float32)
        if self._mean is None or self._mean.shape != new.shape:
            self._mean = new
            return rgb
        change = new - self._mean
        differs = np.abs(change).mean(2)
        width = differs.shape[1]
        padded = np.pad(differs, 1, mode="edge")
        rows = padded[:-2] + padded[1:-1] + padded[2:]
        around = (rows[:, :width] + rows[:, 1 : width + 1] + rows[:, 2:]) / 9
        share = np.square(around * (255 / top_level(rgb) / self.level)).clip(_LEAST, 1)
        self._mean = self._mean + change * share[..., None]
        return to_levels(self._mean.copy(), rgb.dtype)
