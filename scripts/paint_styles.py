"""Paint the project's own style pictures: checkpoints/paintings/{mosaic,brushwork,hatching}.jpg.

    python scripts/paint_styles.py [NAME …] [-o FOLDER] [--size 512]

Everything is drawn from sums of waves and random numbers of a fixed seed, so the same pictures come
out on every machine, and nobody's rights are in them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from fststyle.images import save_image

PAINTINGS = Path(__file__).resolve().parent.parent / "checkpoints" / "paintings"
#: Drawn larger and reduced, for smooth edges.
SCALE = 2
Field = NDArray[np.float64]


def waves(size: int, rng: np.random.Generator, longest: float = 1.5, count: int = 9) -> Field:
    """A smooth random field (S, S) in [0, 1]: plane waves of falling length."""
    y, x = np.mgrid[0:size, 0:size] / size
    total = np.zeros((size, size))
    for number in range(count):
        frequency = 2 ** (number / 3) / longest
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        along = np.cos(angle) * x + np.sin(angle) * y
        total += np.sin(2 * np.pi * frequency * along + phase) / frequency
    return (total - total.min()) / np.ptp(total)


def mixed(palette: list[tuple[int, int, int]], share: Field | float) -> Field:
    """Colours (…, 3) along a palette, by a share in [0, 1]."""
    position = np.clip(share, 0, 1) * (len(palette) - 1)
    return np.stack([np.interp(position, range(len(palette)), channel) for channel in np.array(palette).T], -1)


def jittered(colour: Field, rng: np.random.Generator, amount: float) -> tuple[int, ...]:
    """A colour (3) a little off, as ImageDraw wants it."""
    return tuple(int(v) for v in np.clip(colour + rng.normal(0, amount) + rng.normal(0, amount / 2, 3), 0, 255))


def mosaic(size: int, rng: np.random.Generator) -> Image.Image:
    """Shards of glazed tile in dark mortar (trencadís): a sun over hills, each shard of one colour."""
    full = size * SCALE
    cells = 22  # shards from one side to the other
    grid = np.stack(np.meshgrid(np.arange(-1, cells + 1), np.arange(-1, cells + 1)), -1).reshape(-1, 2)
    seeds = (grid + 0.5 + rng.uniform(-0.42, 0.42, grid.shape)) * full / cells
    hills = waves(full, rng, 1.2)
    sky = [(12, 62, 128), (22, 122, 178), (92, 190, 196), (244, 226, 170)]
    land = [(24, 96, 84), (88, 148, 60), (226, 178, 50), (220, 96, 44), (160, 32, 52)]
    colours = []
    for x, y in seeds / full:
        distance = np.hypot(x - 0.66, y - 0.3)
        tone = hills[tuple(np.clip(np.array([y, x]) * full, 0, full - 1).astype(int))]
        if distance < 0.15:
            colour = mixed([(255, 236, 130), (246, 150, 40)], np.array(distance / 0.15))
        elif y > 0.56 + 0.16 * np.sin(6.5 * x) + 0.1 * tone:
            colour = mixed(land, np.array(tone))
        else:
            colour = mixed(sky, np.array(0.5 + 0.5 * np.cos(17 * distance)) * 0.7 + 0.3 * y)
        colours.append(jittered(colour, rng, 16))
    x = np.arange(full)
    picture = np.empty((full, full, 3))
    for y in range(full):  # of each pixel the nearest shard, and how far the edge to the next one is
        near = np.flatnonzero(np.abs(seeds[:, 1] - y) < 2.5 * full / cells)
        squares = (seeds[near, 0] - x[:, None]) ** 2 + (seeds[near, 1] - y) ** 2
        first, second = np.argpartition(squares, 1, axis=1)[:, :2].T
        swap = squares[x, first] > squares[x, second]
        first, second = np.where(swap, second, first), np.where(swap, first, second)
        between = np.hypot(*(seeds[near[first]] - seeds[near[second]]).T)
        edge = (squares[x, second] - squares[x, first]) / (2 * between)
        glaze = np.clip((edge / (full / cells) - 0.07) / 0.02, 0, 1)[:, None]
        picture[y] = (1 - glaze) * (30, 27, 34) + glaze * np.array(colours)[near[first]]
    picture += 10 * (waves(full, rng, 0.15)[..., None] - 0.5)
    return lit(Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)), 0.3)


def brushwork(size: int, rng: np.random.Generator) -> Image.Image:
    """Long strokes that follow a swirling field, from broad to fine, with the relief of thick paint."""
    full = size * SCALE
    image = Image.new("RGB", (full, full), (176, 112, 74))
    draw = ImageDraw.Draw(image)
    flow, tone = waves(full, rng, 1.6, 7) * 4 * np.pi, waves(full, rng, 1.3)
    palette = [(34, 38, 84), (62, 74, 138), (148, 84, 124), (222, 104, 84), (244, 166, 88), (250, 222, 150)]
    for width, count, length in ((30, 1500, 12), (16, 4200, 11), (8, 7000, 10)):
        width, step = width * full / 1280, full / 1280 * 9
        for _ in range(count):
            point = rng.uniform(0, full, 2)
            x, y = np.clip(point, 0, full - 1).astype(int)
            share = tone[y, x] + rng.normal(0, 0.05)
            colour = mixed(palette, np.array(share))
            path = [tuple(point)]
            for _ in range(length):
                x, y = np.clip(point, 0, full - 1).astype(int)
                point = point + step * np.array([np.cos(flow[y, x]), np.sin(flow[y, x])])
                path.append(tuple(point))
            bristles = 5
            for bristle in range(bristles):  # side by side, each of its own shade
                off = (bristle / (bristles - 1) - 0.5) * width
                x, y = np.clip(np.array(path[0]), 0, full - 1).astype(int)
                normal = np.array([-np.sin(flow[y, x]), np.cos(flow[y, x])]) * off
                shade = jittered(colour, rng, 11)
                moved = [tuple(np.array(place) + normal) for place in path]
                draw.line(moved, shade, round(width / bristles + 2), joint="curve")
    return lit(image, 0.5)


def hatching(size: int, rng: np.random.Generator) -> Image.Image:
    """Ink on paper: hills and a moon by layers of hatching, each in its direction, denser where it is dark."""
    full = size * SCALE
    y, x = np.mgrid[0:full, 0:full] / full
    light = 0.75 + 0.25 * waves(full, rng, 1.0)
    for depth, (base, height, speed) in enumerate(((0.45, 0.12, 5.0), (0.62, 0.1, 8.0), (0.8, 0.07, 11.0))):
        crest = base - height * np.sin(speed * x[0] + 1.7 * depth) - 0.05 * np.sin(2.7 * speed * x[0])
        below = y - crest
        light = np.where(below > 0, np.clip(0.15 + 2.0 * below, 0, 0.95), light)
    moon = np.hypot(x - 0.3, y - 0.22) / 0.13
    light = np.where(moon < 1, np.where(np.hypot(x - 0.34, y - 0.2) < 0.12, 0.98, 0.35), light)
    grain = rng.normal(0, 3, (full, full, 1)) + 8 * (waves(full, rng, 0.4)[..., None] - 0.5)
    paper = Image.fromarray(np.clip(np.array([242, 232, 208]) + grain, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(paper)
    gap = full / 72
    for layer, (angle, threshold) in enumerate(((0.75, 0.96), (2.35, 0.62), (0.1, 0.36))):
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        for offset in np.arange(-full, full, gap):
            position, pen = -full * 1.0, []
            wobble = rng.normal(0, gap * 0.2)
            while position < full * 1.0:
                bend = gap * 2.5 * np.sin(position / full * 9 + offset / full * 5 + layer)
                point = np.array([full / 2, full / 2]) + along * position + across * (offset + wobble + bend)
                inside = (point >= 0).all() and (point < full).all()
                column, row = np.clip(point, 0, full - 1).astype(int)
                if inside and light[row, column] + rng.normal(0, 0.02) < threshold:
                    pen.append(tuple(point))
                else:
                    stroke(draw, pen, gap * (0.28 + 0.3 * (threshold - light[row, column])), rng)
                    pen = []
                if len(pen) > 28 + rng.integers(30):
                    stroke(draw, pen, gap * 0.36, rng)
                    pen = []
                position += gap * 0.7
            stroke(draw, pen, gap * 0.3, rng)
    return paper


def dabs(size: int, rng: np.random.Generator) -> Image.Image:
    """Short dabs of pure colour, one in ten of the complement: an evening sky over hills and water."""
    full = size * SCALE
    x = np.arange(full) / full
    hills, shore = 0.52 - 0.1 * np.sin(6 * x + 0.6) - 0.04 * np.sin(17 * x), 0.7 + 0.03 * np.sin(9 * x)
    tone = waves(full, rng, 0.8)
    sky = [(250, 206, 120), (244, 150, 110), (196, 120, 170), (96, 110, 190)]
    land = [(20, 60, 60), (34, 110, 70), (120, 160, 50), (226, 190, 60)]
    water = [(30, 60, 130), (60, 120, 170), (150, 190, 200), (250, 190, 120)]
    image = Image.new("RGB", (full, full), (228, 214, 190))
    draw = ImageDraw.Draw(image)
    around = np.linspace(0, 2 * np.pi, 14)
    for radius, count in ((11, 9000), (8, 16000), (5, 14000)):
        radius *= full / 1024
        for _ in range(count):
            centre = rng.uniform(0, full, 2)
            column, row = centre.astype(int)
            share, height = tone[row, column], row / full
            if height < hills[column]:
                colour = mixed(sky, 1 - height / 0.6 + 0.35 * (share - 0.5) + rng.normal(0, 0.06))
                angle, long = rng.normal(0.1, 0.3), 1.5
            elif height < shore[column]:
                colour = mixed(land, share * 1.1 - 0.05 + rng.normal(0, 0.12))
                angle, long = rng.normal(1.4, 0.4), 1.2
            else:
                colour = mixed(water, share + rng.normal(0, 0.12))
                angle, long = rng.normal(0, 0.12), 2.6
            if rng.random() < 0.1:
                colour = 255 - 0.8 * colour
            along = np.array([np.cos(angle), np.sin(angle)]) * radius
            edge = long * np.cos(around)[:, None] * along + 0.75 * np.sin(around)[:, None] * along[::-1] * (-1, 1)
            draw.polygon([tuple(point) for point in centre + edge], fill=jittered(colour, rng, 12))
    return image


def stroke(draw: ImageDraw.ImageDraw, points: list[tuple[float, ...]], width: float, rng: np.random.Generator) -> None:
    """One line of ink, if there are points enough for one."""
    if len(points) > 2:
        tone = int(rng.uniform(14, 40))
        draw.line(points, (tone, tone, tone + 14), max(1, round(width * rng.uniform(0.8, 1.25))), joint="curve")


def lit(image: Image.Image, strength: float) -> Image.Image:
    """Relief: light from the upper left on the picture's own brightness taken as height."""
    height = image.convert("L").filter(ImageFilter.GaussianBlur(SCALE))
    slope = ImageChops.subtract(height, ImageChops.offset(height, SCALE, SCALE), scale=1, offset=128)
    relief = (np.asarray(slope, float)[..., None] - 128) * strength
    return Image.fromarray(np.clip(np.asarray(image, float) + relief, 0, 255).astype(np.uint8))


STYLES = {painter.__name__: painter for painter in (mosaic, brushwork, hatching, dabs)}
#: Those of bundled styles; the others are for trials.
BUNDLED = ("mosaic", "brushwork", "hatching")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(STYLES)}; default: the bundled ones")
    options.add_argument("-o", "--output", type=Path, default=PAINTINGS)
    options.add_argument("--size", type=int, default=512, help="pixels each way")
    chosen = options.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    for name in chosen.names or BUNDLED:
        if name not in STYLES:
            options.error(f"there is no painting {name!r}; expected one of {', '.join(STYLES)}")
        picture = STYLES[name](chosen.size, np.random.default_rng(list(STYLES).index(name)))
        target = chosen.output / f"{name}.jpg"
        save_image(np.asarray(picture.resize((chosen.size, chosen.size), Image.Resampling.LANCZOS)), target)
        print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
