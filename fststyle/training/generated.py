"""Generated pictures that stand in for photographs when none are at hand: dead leaves.

Shapes of all sizes that hide one another, like fallen leaves, share with photographs what a network
learns first: edges and occlusions at every scale, smooth areas beside textured ones, and a spectrum
near 1/f² (Lee, Mumford, Huang, "Occlusion models for natural images", 2001). Networks trained on such
pictures transfer to photographs (Baradad et al., "Learning to see by looking at noise", 2021).

The constants without a source were set so that mean, contrast, saturation, gradients and spectrum
come out as those of photographs, and by eye.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from fststyle.images import MIN_SIDE

CORNERS = 48  # points of an outline: a disk of 150 pixels' radius is off by a third of a pixel
TEXTURES = 9  # drawn anew for each picture and shared by its leaves
LEVELS = 256  # grey levels of a texture, and colours of a leaf
DEVIATION = 40  # of a texture's levels, about their middle


def dead_leaves(size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a picture: a backdrop, leaves from back to front, then light and the sensor's noise.

    A leaf is an outline, filled with a texture whose levels are given the leaf's own colours. The
    picture is a function of ``size`` and the generator's state alone.

    Args:
        size: sides of the square picture in pixels, ≥ 16. Shapes scale with it.
        generator: source of all randomness; it is advanced.

    Returns:
        uint8 (size, size, 3), RGB.

    Raises:
        ValueError: ``size`` is below 16.
    """
    if size < MIN_SIDE:
        raise ValueError(f"size is {size}; expected at least {MIN_SIDE} pixels")
    leaves = int(2 ** generator.uniform(4.5, 8.5))  # from a few large things to clutter
    textures = _textures(size, generator)
    backdrop, *colours = _colours(leaves + 1, generator)
    outlines = _outlines(leaves, size, generator)
    boxes = np.concatenate([np.floor(outlines.min(axis=1)), np.ceil(outlines.max(axis=1))], axis=1)
    boxes = boxes.clip(0, size).astype(int)
    polygons = (2 * (outlines - boxes[:, None, :2])).reshape(leaves, -1).tolist()  # within the box, twice as large
    texture = generator.integers(TEXTURES, size=leaves)
    cut = generator.integers(size, size=(leaves, 2))
    far = int(leaves * generator.uniform(0.2, 0.8))  # leaves behind this one are out of focus
    defocus = 0.015 * size * generator.random() ** 3

    picture = Image.fromarray(backdrop[textures[0, :size, :size]])
    for leaf, (left, top, right, bottom) in enumerate(boxes.tolist()):
        if leaf == far:
            picture = picture.filter(ImageFilter.GaussianBlur(defocus))
        if leaf % 24 == 20:  # what lies here so far, made smaller, is a texture too: detail upon detail
            textures[1 + leaf // 24 % 2] = _shrunken(picture, int(generator.integers(2, 4)))
        width, height = right - left, bottom - top
        if width == 0 or height == 0:
            continue  # beside the picture
        mask = Image.new("L", (2 * width, 2 * height))  # drawn twice as large for smooth edges
        ImageDraw.Draw(mask).polygon(polygons[leaf], fill=255)
        x, y = cut[leaf]
        surface = colours[leaf][textures[texture[leaf], y : y + height, x : x + width]]
        picture.paste(Image.fromarray(surface), (left, top), mask.reduce(2))
    return _expose(picture, generator)


def _textures(size: int, generator: np.random.Generator) -> np.ndarray:
    """Noise from smooth to rough with amplitudes 1/f^2 to 1/f^0.6, then a shading, then stripes.

    Returns:
        uint8 (TEXTURES, 2·size, 2·size), periodic in ``size``: any square of that size can be cut out.
    """
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)).astype(np.float32)
    frequency[0, 0] = np.inf  # no constant part
    white = np.fft.rfft2(generator.standard_normal((size, size), dtype=np.float32))
    exponents = np.linspace(2, 0.6, TEXTURES - 2) + generator.uniform(-0.2, 0.2, TEXTURES - 2)
    textures = np.empty((TEXTURES, size, size), np.float32)
    for texture, exponent in zip(textures[:-2], exponents.tolist(), strict=True):
        texture[:] = np.fft.irfft2(white * frequency**-exponent, s=(size, size))
        texture *= DEVIATION / texture.std()
    place = np.arange(size, dtype=np.float32) * (2 * np.pi / size)
    bend = textures[0] / DEVIATION
    for texture, most in ((textures[-2], 3), (textures[-1], size // 6)):  # most periods across the picture
        across, down = generator.integers(-most, most + 1, size=2).tolist()
        texture[:] = 2**0.5 * DEVIATION * np.sin(across * place + (down * place)[:, None] + bend)
    return np.tile((LEVELS / 2 + textures).clip(0, LEVELS - 1).astype(np.uint8), (1, 2, 2))


def _shrunken(picture: Image.Image, factor: int) -> np.ndarray:
    """The picture in grey with all levels used, smaller by ``factor``, mirrored to a texture's size."""
    small = ImageOps.equalize(picture.convert("L").reduce(factor))
    return np.pad(np.asarray(small), (0, 2 * picture.width - small.width), mode="symmetric")


def _colours(leaves: int, generator: np.random.Generator) -> np.ndarray:
    """For each leaf the colours of its texture's levels; leaves share the picture's key and mood.

    Colours are mixed as logits, where every sum is a colour. As in photographs, light varies more
    than tint, and tint more from blue to orange than from magenta to green.

    Returns:
        uint8 (leaves, LEVELS, 3), RGB.
    """
    light = generator.normal(-0.4, 0.4) + generator.uniform(0.5, 1.4) * generator.standard_normal(leaves)
    contrast = generator.exponential(generator.uniform(0.3, 1.3), leaves)
    hardness = generator.uniform(0.3, 2.7, leaves)  # from soft shades to spots of two colours
    level = np.linspace(-0.5, 0.5, LEVELS) * LEVELS / DEVIATION
    shade = light[:, None] + contrast[:, None] * np.tanh(hardness[:, None] * level)
    mood = generator.normal((0.25, 0.0), 0.25)  # a little warm
    tint = mood + generator.laplace(0, generator.uniform(0.1, 0.45), (leaves, 2))  # muted, a few saturated
    tint = tint @ np.array([[1, 0, -1], [-0.25, 0.5, -0.25]])
    colours: np.ndarray = 255 / (1 + np.exp(-shade[:, :, None] - tint[:, None, :]))
    return colours.astype(np.uint8)


def _outlines(leaves: int, size: int, generator: np.random.Generator) -> np.ndarray:
    """Ellipses, rectangles, polygons and blobs: corners about a centre, wobbled, stretched, turned.

    Returns:
        float64 (leaves, CORNERS, 2), x and y in pixels; a polygon of fewer corners repeats them.
    """
    column = (leaves, 1)
    corners = generator.choice([3, 4, 4, 5, 6, CORNERS, CORNERS, CORNERS], column)
    angle = 2 * np.pi * (np.floor(np.arange(CORNERS) * corners / CORNERS) / corners + 1 / 8)
    harmonic = np.array([2, 3, 5])[:, None, None]
    wobble = generator.normal(0, 0.15, (3, *column)) * generator.integers(2, size=column)  # of every other leaf
    reach = 1 + (wobble * np.cos(harmonic * angle + generator.uniform(0, 2 * np.pi, (3, *column)))).sum(axis=0)
    stretch = np.exp(generator.laplace(0, 0.5, column))  # up to trunks, twigs and wires
    shape = reach * (np.cos(angle) * stretch + 1j * np.sin(angle) / stretch)  # x + iy: to turn is to multiply
    # A density of radius^-3 looks the same at every scale; with it, radius^-2 is uniform.
    smallest, largest = 0.3 * size / leaves**0.5, 0.7 * size
    radius = generator.uniform(largest**-2, smallest**-2, column) ** -0.5
    horizon = generator.uniform(0, 0.5) * generator.integers(2)  # in half of the pictures, open sky above
    centre = generator.uniform(0, size, column) + 1j * generator.uniform(horizon * size, size, column)
    points = centre + radius * np.exp(1j * generator.uniform(0, 2 * np.pi, column)) * shape
    return np.stack([points.real, points.imag], axis=-1)


def _expose(picture: Image.Image, generator: np.random.Generator) -> np.ndarray:
    """Light that falls off to one side, and a sensor with a little noise: uint8 (size, size, 3)."""
    place = np.linspace(-1, 1, picture.width, dtype=np.float32)
    across, down = generator.normal(0, 0.25, 2).tolist()
    light = np.exp(across * place + (down * place)[:, None])
    noise = generator.uniform(0.5, 3) * generator.standard_normal(light.shape, dtype=np.float32)
    exposed: np.ndarray = np.asarray(picture) * light[..., None] + noise[..., None]
    return exposed.clip(0, 255).astype(np.uint8)
