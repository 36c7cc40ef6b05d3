"""A palette: what turns the colours that a network makes into those of a painting.

Nothing here needs PyTorch: it is what prediction does with and without it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

#: Sides and number of the noise pictures, what is left out at their borders, and pixels of the results that count.
SIDE, COUNT, BORDER, PIXELS = 128, 3, 8, 1536
#: Means of sorted values along each direction of colour, and the most pixels of a painting that they are taken of.
_PARTS, _MOST = 32, 16384
#: Weight of the colour transform's difference from one that changes nothing.
_REST = 3e-4


def noise() -> NDArray[np.uint8]:
    """Pictures (COUNT, SIDE, SIDE, 3) to try a network on: grey noise whose amplitude falls as that of photographs,
    with a little colour."""
    frequency = np.fft.fftfreq(SIDE)
    fall = np.maximum(frequency[:, None] ** 2 + frequency**2, 1 / SIDE**2) ** -0.65
    white = np.random.default_rng(0).standard_normal((COUNT, 3, SIDE, SIDE))
    pink = np.fft.ifft2(np.fft.fft2(white) * fall).real
    pink /= pink.std((2, 3), keepdims=True)
    levels = 255 * np.clip(0.45 + 0.22 * pink[:, :1] + 0.06 * pink, 0, 1)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1).round().astype(np.uint8))


def sorted_means(values: Array, parts: int) -> Array:
    """Of values (…, N), each row's in order, as means of ``parts`` equal shares: (…, parts)."""
    count = values.shape[-1]
    bounds = np.arange(parts + 1) * count // parts
    ordered = np.sort(values, -1)
    return np.add.reduceat(ordered, bounds[:-1], -1, dtype=np.float32) / np.diff(bounds).astype(np.float32)


def fitted(made: Array, painting: Array, steps: int = 200) -> tuple[Array, Array]:
    """The affine map that gives a network's colours a painting's distribution.

    Args:
        made: values (COUNT, 3, SIDE, SIDE) that a network makes of ``noise``, before the sigmoid.
        painting: colours (3, M) in [0, 1].
        steps: of Adam.

    Returns:
        A matrix (3, 3) and a shift (3, 1), for values before the sigmoid. What it minimises is the mean difference of
        sorted values along 13 directions of colour, and a little of the map itself.
    """
    inner = made[..., BORDER:-BORDER, BORDER:-BORDER].swapaxes(0, 1).reshape(3, -1).astype(np.float32)
    inner = inner[:, :: inner.shape[1] // PIXELS][:, :PIXELS]
    painting = painting[:, :: -(-painting.shape[1] // _MOST)].astype(np.float32)
    axes = _axes(painting)
    wanted = sorted_means(axes @ painting, _PARTS)
    values = np.eye(3, 4, dtype=np.float32)  # matrix and shift
    rest, moment, square = values.copy(), np.zeros_like(values), np.zeros_like(values)
    given = np.concatenate([inner, np.ones_like(inner[:1])])
    share = PIXELS // _PARTS
    for step in range(steps):
        colours = 1 / (1 + np.exp(-(values @ given)))
        along = axes @ colours
        order = np.argsort(along, -1)
        means = np.take_along_axis(along, order, -1).reshape(len(axes), _PARTS, share).mean(-1)
        slopes = np.repeat(np.sign(means - wanted) / (means.size * share), share, -1)
        back = np.empty_like(along)
        np.put_along_axis(back, order, slopes.astype(np.float32), -1)
        gradient = (axes.T @ back * colours * (1 - colours)) @ given.T
        gradient[:, :3] += 2 * _REST * (values - rest)[:, :3]
        moment = 0.9 * moment + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        rate = 0.08 * (1 - step / steps) / (1 - 0.9 ** (step + 1))
        values -= rate * moment / (np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-8)
    return values[:, :3], values[:, 3:]


def _axes(colours: Array) -> Array:
    """Directions (13, 3) in which colours (3, N) are to be compared: their principal axes, each in units of the spread
    along it, and mixtures of these. A palette is often nearly flat; what leaves its plane shows as wrong hues."""
    values, vectors = np.linalg.eigh(np.cov(colours.astype(np.float64)))
    axes = (vectors / (np.sqrt(np.maximum(values, 0)) + 0.02)).T
    mixed = [[1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1], [0, 1, -1]]
    mixed += [[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]
    weights = np.array([*np.eye(3).tolist(), *mixed])
    return ((weights / np.linalg.norm(weights, axis=1, keepdims=True)) @ axes).astype(np.float32)
