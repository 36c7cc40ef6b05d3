"""What is done with a result before it is shown: how strong it is, whose colours it has.

Everything is local: a row of the result depends on at most ``StylizeOptions.halo`` rows around it, so that strips of a
large picture give what the whole picture gives. Pictures are arrays (H, W, 3), uint8 or uint16; no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fststyle.images import MIN_SIDE, to_levels, top_level
from fststyle.images.arrays import YCBCR, Rows
from fststyle.octaves import GROW_FROM, MOST_VARIATION, check_octaves

#: Pixels around one that make up its surroundings, each way, where detail is weighed.
RADIUS = 8
#: What the contrast of a blend is raised by at most.
MOST_GAIN = 1.5
#: Rows that are worked on at once.
BAND = 256
_RGB = np.linalg.inv(YCBCR).astype(np.float32)


@dataclass(frozen=True)
class StylizeOptions:
    """How a style is applied.

    Args:
        median: 3×3 median filter on the network's result, as Johnson's code has it.
        strength: from 0, the photograph itself, to 1, the network's result; see ``blend``.
        preserve_color: the photograph's colours under the result's luminance.
        style_scale: the network sees the picture so many times smaller, and the result is brought back to its size:
            strokes are so many times larger. None: 1 up to ``GROW_FROM`` pixels of the longer side, or what the style's
            model file says (``grow_from``), and from there the square root of how many times longer it is, so that
            strokes are seen when the whole picture is.
        octaves: from coarse to fine, in which the network is applied (``fststyle.octaves``): 1 is a single pass, each
            more lets shapes grow to twice the size. None: as many as the network was trained in.
        variation: of lightness where the photograph is even, so that strokes fill a sky or a wall as well
            (``inference.variation``): a standard deviation, of a range of 1. None: what the style's model file says.

    Raises:
        ValueError: a strength outside [0, 1], a scale that is not positive, octaves that are not 1 to 6, a variation
            outside [0, ``MOST_VARIATION``].
    """

    median: bool = False
    strength: float = 1.0
    preserve_color: bool = False
    style_scale: float | None = None
    octaves: int | None = None
    variation: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength is {self.strength:g}; expected a number from 0 (the photograph) to 1")
        if self.style_scale is not None and not 1 / 8 <= self.style_scale <= 16:
            raise ValueError(f"style scale is {self.style_scale:g}; expected a number from 0.125 to 16")
        if self.octaves is not None:
            check_octaves(self.octaves)
        if self.variation is not None and not 0 <= self.variation <= MOST_VARIATION:
            raise ValueError(f"variation is {self.variation:g}; expected a number from 0 to {MOST_VARIATION}")

    @property
    def changes(self) -> bool:
        """Whether ``finish`` does anything."""
        return self.strength < 1 or self.preserve_color

    @property
    def halo(self) -> int:
        """Rows above and below that a row of the result depends on."""
        return 2 * RADIUS if 0 < self.strength < 1 else 0

    def finish(self, photo: np.ndarray, output: np.ndarray) -> np.ndarray:
        """The picture to show, of a photograph and the network's result, of one size and type."""
        rows = self.finished(lambda top, end: photo[top:end], lambda top, end: output[top:end], len(photo))
        return np.concatenate(list(rows))

    def finished(self, photo: Rows, output: Rows, height: int) -> Iterator[np.ndarray]:
        """The same of pictures that are read row by row, top to bottom."""
        for rows, inner in _bands(height, self.halo):
            below, above = photo(*rows), output(*rows)
            if self.preserve_color:
                above = with_luminance_of(below, above)
            yield blend(below, above, self.strength)[inner]

    def seen(self, height: int, width: int, grow_from: float = GROW_FROM) -> tuple[int, int]:
        """Height and width of the picture that the network sees; no side is brought below the smallest."""
        scale = self.style_scale
        if scale is None:
            scale = max(1.0, max(height, width) / grow_from) ** 0.5
        scale = min(scale, max(1.0, min(height, width) / MIN_SIDE))
        return max(1, round(height / scale)), max(1, round(width / scale))


#: As the command line applies a style unless told otherwise.
PLAIN = StylizeOptions()
#: Of a video's frames: in a single pass, which is steadier than several octaves, and faster; and without variation,
#: which would stand still where a camera moves.
FRAMES = StylizeOptions(octaves=1, variation=0)


def _bands(height: int, halo: int) -> Iterator[tuple[tuple[int, int], slice]]:
    """Bands of a picture, top to bottom: the rows with the halo, from one to before another, and those without it."""
    for top in range(0, height, BAND):
        bottom = min(height, top + BAND)
        first = max(0, top - halo)
        yield (first, min(height, bottom + halo)), slice(top - first, bottom - first)


def masked(elsewhere: Rows, within: Rows, mask: np.ndarray) -> Iterator[np.ndarray]:
    """Two pictures of one size and type that are read row by row, blended by a mask: uint8 (H, W), 255 for ``within``.

    Where the mask is 0 or 255, either is there exactly.
    """
    for rows, inner in _bands(len(mask), 2 * RADIUS):
        strength = mask[slice(*rows), :, None] / np.float32(255)
        yield blend(elsewhere(*rows), within(*rows), strength)[inner]


def blend(photo: np.ndarray, output: np.ndarray, strength: float | np.ndarray) -> np.ndarray:
    """Between a photograph, at 0, and its stylised picture, at 1; exactly either there.

    A plain cross-fade of two pictures whose details differ has less contrast than both and looks like fog. So coarse
    and fine are told apart: the coarse part, a mean over the surroundings, is faded; the fine part is faded too, then
    raised to the contrast that lies between that of both. By the triangle inequality the faded part never has more,
    so the gain is 1 or greater; it is cut off at ``MOST_GAIN``.

    Args:
        photo, output: pictures of one size and type.
        strength: one for all, or each pixel's, float32 (H, W, 1).
    """
    if np.all(strength == 0):
        return photo
    if np.all(strength == 1):
        return output
    (coarse, fine), (coarse_output, fine_output) = (_parts(picture) for picture in (photo, output))
    power, power_output = _product(fine, fine).clip(0), _product(fine_output, fine_output).clip(0)
    rest = 1 - strength
    wanted = rest * np.sqrt(power) + strength * np.sqrt(power_output)
    # Of the faded part, as if the strength were the same all around.
    faded_power = rest**2 * power + strength**2 * power_output + 2 * rest * strength * _product(fine, fine_output)
    floor = top_level(photo) / 255  # a contrast of one level of 255: below is nothing to raise
    gain = np.clip((wanted + floor) / (np.sqrt(faded_power.clip(0)) + floor), 1, MOST_GAIN)
    faded = rest * fine + strength * fine_output
    faded *= gain
    faded += rest * coarse + strength * coarse_output
    return to_levels(faded, photo.dtype)


def median_of(picture: np.ndarray) -> np.ndarray:
    """3×3 median of each channel of a decoded picture, borders reflected, as ``stylizer.median_filter``."""
    height, width = picture.shape[:2]
    around = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    shifted = [around[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.partition(shifted, 4, axis=0)[4]


def _parts(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture's coarse and fine part, float32, in levels."""
    levels = picture.astype(np.float32)
    coarse = surroundings(levels)
    return coarse, levels - coarse


def _product(fine: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mean product of two fine parts over the surroundings and the channels: (H, W, 1)."""
    return surroundings((fine * other).mean(axis=2, keepdims=True))


def surroundings(values: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """The mean over (2 · radius + 1)² pixels, borders repeated: float32 (H, W, C)."""
    for axis in (0, 1):
        pads = [(0, 0)] * 3
        pads[axis] = (radius + 1, radius)
        total = np.cumsum(np.pad(values, pads, mode="edge"), axis=axis, dtype=np.float64)
        size = values.shape[axis]
        window = 2 * radius + 1
        upper, lower = (np.take(total, range(start, start + size), axis=axis) for start in (window, 0))
        values = ((upper - lower) / window).astype(np.float32)
    return values


def with_luminance_of(photo: np.ndarray, luminance: np.ndarray) -> np.ndarray:
    """``color.with_luminance`` for decoded pictures of one size and type, without torch."""
    mixed = photo.astype(np.float32) @ YCBCR.T
    mixed[..., 0] = luminance.astype(np.float32) @ YCBCR[0]
    return to_levels(mixed @ _RGB.T, photo.dtype)
