"""Paint many pictures, each in a manner of its own: style pictures for a network that takes any painting.

    python scripts/paint_random.py -o FOLDER [--count 1000] [--photographs FOLDER] [--size 384] [--seed 0]

A picture has a motif (a photograph, or shapes drawn by chance), a palette, and a manner: strokes from broad to fine,
dabs, shards, facets, flat areas with outlines, ink, long bands, free shapes, or large planes. All of it is drawn from
the seed and the picture's number, so that a picture is the same wherever and in whatever order it is painted.
"""

from __future__ import annotations

import argparse
import colorsys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from fststyle.images import save_image
from fststyle.training.generated import dead_leaves
from paint_styles import jittered, lit, mixed, waves

#: Drawn larger and reduced, for smooth edges.
SCALE = 1.5
Rng = np.random.Generator


def random_palette(rng: Rng) -> NDArray[np.float64]:
    """3 to 7 colours (K, 3) of 255, from dark to light: of one to three hues, of many, or nearly grey."""
    count, hues = int(rng.integers(3, 8)), rng.uniform(0, 1) + rng.choice([[0, 0.04], [0, 0.5], [0, 0.33], [0, 0.12]])
    kind = rng.random()
    strong = 0.08 if kind < 0.15 else rng.beta(1.6, 1.8)
    if kind > 0.7:
        hues = rng.uniform(0, 1, count)
    darkest, lightest = rng.uniform(0.03, 0.3), rng.uniform(0.65, 1)
    colours = []
    for value in np.linspace(darkest, lightest, count):
        hue = rng.choice(hues) + rng.normal(0, 0.03)
        colours.append(colorsys.hsv_to_rgb(hue % 1, np.clip(strong + rng.normal(0, 0.2), 0, 1), value))
    return 255 * np.array(colours)


def accents(rng: Rng) -> list[NDArray[np.float64]]:
    """None to four strong colours (3) of 255, each at home in a small part of a picture."""
    count = rng.choice([0, 0, 1, 2, 3, 4])
    return [255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.6, 1), rng.uniform(0.4, 1)))
            for _ in range(count)]  # fmt: skip


class Motif:
    """What is painted: light (S, S) in [0, 1], colours (S, S, 3) of 255, direction of strokes (S, S) in radians."""

    def __init__(self, picture: Image.Image, size: int, rng: Rng) -> None:
        soft = picture.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
        soft = soft.filter(ImageFilter.GaussianBlur(size / rng.uniform(60, 200)))
        own = np.asarray(soft, float)
        light = own @ [0.3, 0.59, 0.11]
        low, high = np.percentile(light, [2, 98])
        self.size, self.light = size, np.clip((light - low) / max(high - low, 1), 0, 1)
        self.palette = random_palette(rng)
        share = rng.choice([0.0, 0.0, 0.3, 0.6, 0.9])
        hue = (self.light + rng.uniform(0, 0.5) * (waves(size, rng, 0.8) - 0.5)).clip(0, 1)
        self.colours = share * own + (1 - share) * mixed(list(map(tuple, self.palette)), hue)
        self.accents = accents(rng)
        for accent in self.accents:
            place = waves(size, rng, rng.uniform(0.4, 1.5), 6)
            cover = np.clip((place - np.quantile(place, rng.uniform(0.85, 0.97))) * 20, 0, 1)[..., None]
            self.colours = (1 - cover) * self.colours + cover * accent * (0.6 + 0.7 * self.light[..., None])
        self.colours = np.clip(self.colours, 0, 255)
        broad = np.asarray(soft.convert("L").filter(ImageFilter.GaussianBlur(size / 40)), float)
        down, right = np.gradient(broad)
        along = np.arctan2(down, right) + np.pi / 2  # along edges
        flow = waves(size, rng, rng.uniform(0.5, 2), 6) * rng.uniform(1, 5) * np.pi
        fixed = np.full((size, size), rng.uniform(0, np.pi))
        certain = np.clip(np.hypot(down, right) / 1.5, 0, 1) * rng.choice([0.0, 1.0, 1.0])
        other = fixed if rng.random() < 0.25 else flow
        self.angle = 0.5 * np.angle(certain * np.exp(2j * along) + (1 - certain) * np.exp(2j * other))

    def at(self, points: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        columns, rows = np.clip(points, 0, self.size - 1).astype(int).T
        return rows, columns


def strokes(motif: Motif, rng: Rng) -> Image.Image:
    """Long or short strokes along the motif's directions, each of one colour, in bristles."""
    size = motif.size
    image = Image.new("RGB", (size, size), jittered(motif.palette[rng.integers(len(motif.palette))], rng, 5))
    draw = ImageDraw.Draw(image)
    width, jitter = size * rng.uniform(0.008, 0.035), rng.uniform(4, 24)
    steps, bristles = int(rng.integers(2, 14)), int(rng.integers(1, 5))
    complement = rng.choice([0, 0, 0.08])
    for each in (width * 1.6, width, width * 0.6):
        count = int(1.1 * size * size / (each * each * (steps + 1)))
        points = rng.uniform(0, size, (min(count, 6000), 2))
        colours = motif.colours[motif.at(points)] + rng.normal(0, jitter / 2, (len(points), 1))
        paths = [points]
        for _ in range(steps):
            angle = motif.angle[motif.at(paths[-1])]
            heading = np.stack([np.cos(angle), np.sin(angle)], 1)
            if len(paths) > 1:  # go on, not back
                heading *= np.sign(((paths[-1] - paths[-2]) * heading).sum(1, keepdims=True) + 1e-9)
            paths.append(paths[-1] + each * heading)
        lines = np.stack(paths, 1)
        normals = np.stack([-np.sin(motif.angle[motif.at(points)]), np.cos(motif.angle[motif.at(points)])], 1)
        for line, colour, normal in zip(lines, colours, normals, strict=True):
            if rng.random() < complement:
                colour = 255 - colour
            for bristle in range(bristles):
                off = normal * each * ((bristle + 0.5) / bristles - 0.5)
                moved = (line + off).ravel().tolist()
                draw.line(moved, jittered(colour, rng, jitter / 3), max(1, round(each / bristles + 1)), joint="curve")
    return lit(image, rng.choice([0, 0.4, 0.8]))


def dabs(motif: Motif, rng: Rng) -> Image.Image:
    """Dots and short dabs on a ground."""
    size = motif.size
    image = Image.new("RGB", (size, size), jittered(motif.palette[-1 if rng.random() < 0.6 else 0], rng, 5))
    draw = ImageDraw.Draw(image)
    radius, long, jitter = size * rng.uniform(0.004, 0.016), rng.uniform(1, 3), rng.uniform(5, 35)
    around = np.linspace(0, 2 * np.pi, 9)[:-1]
    for each in (1.4 * radius, radius):
        points = rng.uniform(0, size, (min(int(0.5 * size * size / (each * each * 3 * long)), 14000), 2))
        angles, colours = motif.angle[motif.at(points)], motif.colours[motif.at(points)]
        for point, angle, colour in zip(points, angles, colours, strict=True):
            along = each * np.array([np.cos(angle), np.sin(angle)])
            edge = long * np.cos(around)[:, None] * along + np.sin(around)[:, None] * along[::-1] * (-1, 1)
            draw.polygon((point + edge).ravel().tolist(), jittered(colour, rng, jitter))
    return image


def shards(motif: Motif, rng: Rng) -> Image.Image:
    """Cells around random points, flat or shaded, with or without joints."""
    size, cells = motif.size, int(rng.integers(10, 40))
    grid = np.stack(np.meshgrid(np.arange(-1, cells + 1), np.arange(-1, cells + 1)), -1).reshape(-1, 2)
    seeds = (grid + 0.5 + rng.uniform(-0.45, 0.45, grid.shape)) * size / cells
    colours = motif.colours[motif.at(seeds)] + rng.normal(0, rng.uniform(3, 25), (len(seeds), 1))
    joint, joints = rng.choice([0, 0.05, 0.1]), motif.palette[0] * rng.uniform(0, 1)
    stretch = np.array([1, rng.uniform(0.5, 1)])
    slope = rng.normal(0, rng.choice([0, 25]), (len(seeds), 2)) * cells / size
    x, picture = np.arange(size), np.empty((size, size, 3))
    for y in range(size):
        near = np.flatnonzero(np.abs(seeds[:, 1] - y) < 2.5 * size / cells / stretch[1])
        squares = ((seeds[near, 0] - x[:, None]) * stretch[0]) ** 2 + ((seeds[near, 1] - y) * stretch[1]) ** 2
        two = np.argpartition(squares, 1, axis=1)[:, :2]
        distances = np.sqrt(np.take_along_axis(squares, two, 1))
        order = np.argsort(distances, 1)
        two, distances = np.take_along_axis(two, order, 1), np.take_along_axis(distances, order, 1)
        cell = near[two[:, 0]]
        tilt = (slope[cell] * np.stack([x - seeds[cell, 0], y - seeds[cell, 1]], 1)).sum(1)
        glaze = np.clip(((distances[:, 1] - distances[:, 0]) / (size / cells) - joint) / 0.05, 0, 1) if joint else 1.0
        glaze = np.broadcast_to(glaze, (size,))[:, None]
        picture[y] = (1 - glaze) * joints + glaze * (colours[cell] + tilt[:, None])
    return lit(Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)), rng.choice([0, 0.3]))


Part = tuple[slice, slice]


def _inside(points: NDArray[np.float64], size: int) -> tuple[Part, NDArray[np.float64], Image.Image] | None:
    """The part of a picture around a polygon (N, 2), the polygon's points there, and a mask of it; None outside."""
    left, top = np.clip(points.min(0), 0, size - 1).astype(int)
    right, bottom = np.clip(points.max(0) + 1, 1, size).astype(int)
    if right <= left or bottom <= top:
        return None
    mask = Image.new("L", (int(right - left), int(bottom - top)))
    moved = points - (left, top)
    ImageDraw.Draw(mask).polygon(moved.ravel().tolist(), 255)
    return (slice(top, bottom), slice(left, right)), moved, mask


def facets(motif: Motif, rng: Rng) -> Image.Image:
    """Overlapping planes, each shaded from one edge, with dark or light edges."""
    size = motif.size
    picture = motif.colours * 0.7 + 40
    side = size * rng.uniform(0.05, 0.16)
    edges = rng.choice([0, 1])
    y, x = np.mgrid[0:size, 0:size]
    for _ in range(int(2.5 * (size / side) ** 2)):
        centre, angle = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
        turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 6))))
        outline = centre + side * rng.uniform(0.5, 1.4) * np.stack(
            [np.cos(turns), np.sin(turns) * rng.uniform(0.4, 1)], 1
        )
        found = _inside(outline, size)
        if found is None:
            continue
        part, moved, mask = found
        across = (np.cos(angle) * (x[part] - centre[0]) + np.sin(angle) * (y[part] - centre[1])) / side
        rows, columns = motif.at(centre[None])
        colour = motif.colours[rows[0], columns[0]] + rng.normal(0, 18)
        cover = (np.asarray(mask, float) / 255 * np.clip(0.75 + 0.6 * across, 0.1, 1))[..., None]
        picture[part] = (1 - cover) * picture[part] + cover * (colour + 30 * across[..., None])
        if edges:
            line = Image.new("L", mask.size)
            points = moved.ravel().tolist()
            ImageDraw.Draw(line).line([*points, *points[:2]], 200, max(1, round(size / 250)))
            ink = (np.asarray(line, float) / 255)[..., None]
            picture[part] = (1 - ink) * picture[part] + ink * motif.palette[0]
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def flat(motif: Motif, rng: Rng) -> Image.Image:
    """Areas of one colour, as in prints, with outlines and perhaps a grain."""
    size, levels = motif.size, int(rng.integers(3, 7))
    light = np.asarray(Image.fromarray((255 * motif.light).astype(np.uint8)).filter(ImageFilter.MedianFilter(9)), float)
    tone = np.floor(np.clip(light / 255, 0, 0.999) * levels) / (levels - 1)
    tone = np.asarray(Image.fromarray((255 * tone).astype(np.uint8)).filter(ImageFilter.ModeFilter(9)), float) / 255
    picture = mixed(list(map(tuple, motif.palette)), tone)
    down, right = np.gradient(
        np.asarray(Image.fromarray((255 * tone).astype(np.uint8)).filter(ImageFilter.GaussianBlur(size / 300)), float)
    )
    line = np.clip(np.hypot(down, right) / rng.uniform(4, 12), 0, 1)[..., None] * rng.choice([0, 0.9, 1])
    picture = (1 - line) * picture + line * motif.palette[0] * 0.6
    stripes = np.sin(2 * np.pi * waves(size, rng, 1, 5) * rng.uniform(10, 60))[..., None]
    picture += rng.choice([0, 0, 12]) * stripes + rng.normal(0, rng.choice([0, 6]), (size, size, 1))
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def ink(motif: Motif, rng: Rng) -> Image.Image:
    """Hatching on a ground, denser where it is dark, over a wash or none."""
    size = motif.size
    paper, pen = motif.palette[-1], motif.palette[0]
    if rng.random() < 0.15:
        paper, pen = pen, paper
    wash = rng.choice([0, 0, 0.5])
    ground = (1 - wash) * paper + wash * motif.colours + rng.normal(0, 3, (size, size, 1))
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    gap = size * rng.uniform(0.01, 0.03)
    follows, first = rng.random() < 0.4, rng.uniform(0, np.pi)
    for layer, threshold in enumerate((0.85, 0.6, 0.35)):
        count = int((size / gap) ** 2 / 2)
        points = rng.uniform(0, size, (count, 2))
        points = points[motif.light[motif.at(points)] < threshold]
        angle = motif.angle[motif.at(points)] if follows else np.full(len(points), first)
        half = gap * rng.uniform(1, 2.5) * np.stack([np.cos(angle + layer), np.sin(angle + layer)], 1)
        for start, end in zip(points - half, points + half, strict=True):
            draw.line([*start, *end], jittered(pen, rng, 12), max(1, round(gap * rng.uniform(0.1, 0.3))))
    return image


def bands(motif: Motif, rng: Rng) -> Image.Image:
    """Long bands that flow around the motif."""
    size = motif.size
    field = motif.light * rng.uniform(0.2, 1.0) + waves(size, rng, rng.uniform(0.8, 2.5), 7) * rng.uniform(0.3, 1.0)
    field = (
        np.asarray(
            Image.fromarray((field / field.max() * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(size / 60)),
            float,
        )
        / 255
    )
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * field * rng.uniform(8, 30))
    tone = np.clip(motif.light * rng.uniform(0.3, 0.7) + wave * rng.uniform(0.3, 0.7), 0, 1)
    picture = mixed(list(map(tuple, motif.palette)), tone) + rng.normal(0, rng.choice([0, 8]), (size, size, 1))
    return lit(Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)), rng.choice([0, 0.4]))


def free(motif: Motif, rng: Rng) -> Image.Image:
    """Blots, lines and arcs over washes of colour."""
    size = motif.size
    soft = Image.fromarray(motif.colours.astype(np.uint8)).filter(ImageFilter.GaussianBlur(size / 25))
    image = Image.blend(soft, Image.new("RGB", soft.size, tuple(motif.palette[-1].astype(int))), rng.uniform(0, 0.7))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(150, 500))):
        colour = jittered(motif.palette[rng.integers(len(motif.palette))], rng, 20)
        x, y = rng.uniform(0, size, 2)
        w, h = size * rng.uniform(0.01, 0.12, 2)
        kind = rng.integers(4)
        if kind == 0:
            draw.ellipse([x - w, y - h, x + w, y + h], colour)
        elif kind == 1:
            draw.arc(
                [x - 2 * w, y - 2 * h, x + 2 * w, y + 2 * h], *rng.uniform(0, 360, 2), colour, int(rng.integers(2, 9))
            )
        elif kind == 2:
            turns = np.sort(rng.uniform(0, 2 * np.pi, 5))
            draw.polygon(
                np.stack([x + 1.5 * w * np.cos(turns), y + 1.5 * h * np.sin(turns)], 1).ravel().tolist(), colour
            )
        else:
            draw.line([x, y, x + rng.normal(0, 3 * w), y + rng.normal(0, 3 * h)], colour, int(rng.integers(2, 9)))
        if rng.random() < 0.004:
            image = image.filter(ImageFilter.GaussianBlur(size / 150))
            draw = ImageDraw.Draw(image)
    return image


def planes(motif: Motif, rng: Rng) -> Image.Image:
    """Large planes with sharp edges, shaded from one side to the other, straight or round; few are of an accent's
    colour; perhaps thick dark curves."""
    size = motif.size
    picture = np.empty((size, size, 3))
    picture[:] = motif.palette[rng.integers(len(motif.palette))]
    largest, smallest = rng.uniform(0.3, 0.6), rng.uniform(0.03, 0.1)
    y, x = np.mgrid[0:size, 0:size]
    for side in size * np.geomspace(largest, smallest, int(rng.integers(30, 140))):
        centre, angle = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
        turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 6))))
        if rng.random() < 0.35:  # a part of an ellipse
            turns = np.linspace(0, rng.uniform(np.pi / 2, 2 * np.pi), 24)
        shape = np.stack([np.cos(turns), rng.uniform(0.3, 1) * np.sin(turns)], 1)
        turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        found = _inside(centre + side * shape @ turned, size)
        if found is None:
            continue
        part, _, mask = found
        rows, columns = motif.at(centre[None])
        colour = motif.colours[rows[0], columns[0]]
        if motif.accents and rng.random() < 0.12:
            colour = motif.accents[rng.integers(len(motif.accents))]
        light = rng.uniform(0, 2 * np.pi)
        across = (np.cos(light) * (x[part] - centre[0]) + np.sin(light) * (y[part] - centre[1])) / side
        cover = np.asarray(mask, float)[..., None] / 255
        shaded = colour + rng.choice([0, 30, 70]) * np.clip(across, -1, 1)[..., None]
        picture[part] = (1 - cover) * picture[part] + cover * shaded
    picture += rng.normal(0, rng.choice([0, 5]), (size, size, 1))
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.choice([0, 0, 6, 20]))):
        left, top, wide, high = size * rng.uniform([-0.1, -0.1, 0.1, 0.1], [0.9, 0.9, 0.5, 0.5])
        box = [left, top, left + wide, top + high]
        draw.arc(
            box, *rng.uniform(0, 360, 2), jittered(motif.palette[0], rng, 8), round(size * rng.uniform(0.004, 0.02))
        )
    return image


MANNERS: dict[Callable[[Motif, Rng], Image.Image], float] = {
    strokes: 0.31, dabs: 0.1, shards: 0.06, facets: 0.1, flat: 0.12, ink: 0.05, bands: 0.06, free: 0.08, planes: 0.12,
}  # fmt: skip


def painted(number: int, seed: int, size: int, photographs: list[Path]) -> Image.Image:
    """The picture of a number, ``size`` pixels each way."""
    rng = np.random.default_rng((seed, number))
    full = round(size * SCALE)
    if photographs and rng.random() < 0.8:
        picture = Image.open(photographs[rng.integers(len(photographs))])
        side = min(picture.size)
        left, top = (int(rng.integers(length - side + 1)) for length in picture.size)
        picture = picture.crop((left, top, left + side, top + side))
    else:
        picture = Image.fromarray(dead_leaves(320, rng))
    motif = Motif(picture, full, rng)
    manner = list(MANNERS)[rng.choice(len(MANNERS), p=list(MANNERS.values()))]
    return manner(motif, rng).resize((size, size), Image.Resampling.LANCZOS)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("-o", "--output", type=Path, required=True)
    options.add_argument("--count", type=int, default=1000)
    options.add_argument("--first", type=int, default=0, help="number of the first picture")
    options.add_argument("--photographs", type=Path, help="folder of motifs; default: shapes alone")
    options.add_argument("--size", type=int, default=384, help="pixels each way")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    photographs = sorted(chosen.photographs.glob("*.jpg")) if chosen.photographs else []
    chosen.output.mkdir(parents=True, exist_ok=True)
    for number in range(chosen.first, chosen.first + chosen.count):
        picture = painted(number, chosen.seed, chosen.size, photographs)
        save_image(np.asarray(picture), chosen.output / f"{number:05}.jpg")


if __name__ == "__main__":
    main()
