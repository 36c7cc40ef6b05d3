"""Parts of a self-contained HTML page: pictures, curves, tables. Nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from fststyle.images import write_atomically
from fststyle.resources import printable

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2 { line-height: 1.2; font-weight: 600; } h2 { margin-top: 2.5rem; }
.row { display: flex; flex-wrap: wrap; gap: 12px; margin: 12px 0; }
figure { margin: 0; flex: 1 1 300px; } figure img { width: 100%; height: auto; border-radius: 4px; }
figcaption, .note { color: #555; font-size: 14px; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; } td, th { padding: 2px 12px 2px 0; text-align: left; font-size: 14px; }
.grid { overflow-x: auto; width: max-content; max-width: calc(100vw - 2rem); }
.grid { position: relative; left: 50%; transform: translateX(-50%); }
.grid td, .grid th { padding: 4px; vertical-align: top; font-weight: 600; } .grid thead th { vertical-align: bottom; }
.grid img { display: block; border-radius: 3px; }
.grid small { display: block; max-width: 240px; color: #555; font-weight: 400; }
@media (min-width: 700px) { .grid th:first-child { position: sticky; left: 0; background: #fff; } }
code { background: #f3f3f3; padding: 1px 4px; border-radius: 3px; font-size: 14px; overflow-wrap: anywhere; }
"""
_COLOURS = ("#1f6fb4", "#d9662b", "#3a923a", "#8f56b0", "#7a7a7a")


def write_page(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a whole page out of parts that are HTML already: to a temporary file, then moved into place."""
    body = "\n".join(parts)
    text = printable(
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )
    write_atomically(path, lambda file: file.write(text.encode()))


def heading(text: str) -> str:
    """A section's heading."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, *, note: bool = False) -> str:
    """A paragraph of plain text; words between backquotes are set as code."""
    pieces = escape(text).split("`")
    html = "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))
    return f'<p class="note">{html}</p>' if note else f"<p>{html}</p>"


def _embedded(image: Image.Image) -> str:
    """A picture as a data URL."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def picture(pixels: np.ndarray, caption: str) -> str:
    """A picture, uint8 (H, W, 3), inside the page."""
    size = f'width="{pixels.shape[1]}" height="{pixels.shape[0]}"'
    return (
        f'<figure><img src="{_embedded(Image.fromarray(pixels))}" {size} alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def thumbnail(pixels: np.ndarray, alt: str, link: str, width: int = 240) -> str:
    """A picture made small, inside the page, that opens a file when it is clicked.

    Args:
        pixels: uint8 (H, W, 3).
        alt: what it shows, for those who do not see it.
        link: the full-size file, relative to the page.
        width: at which it is shown, in CSS pixels; up to twice as many are kept, for dense screens.
    """
    image = Image.fromarray(pixels)
    height = max(1, round(image.height * width / image.width))
    if image.width > 2 * width:
        image = image.resize((2 * width, 2 * height), Image.Resampling.LANCZOS)
    size = f'width="{width}" height="{height}"'
    return f'<a href="{quote(os.fsencode(link))}"><img src="{_embedded(image)}" {size} alt="{escape(alt)}"></a>'


def picture_grid(label: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of pictures, as wide as the window allows; what is wider scrolls.

    Args:
        label: what it shows, for those who do not see it.
        head: of the columns, HTML already; the first stands above the rows' heads.
        rows: cells, HTML already; the first of a row is its head.
    """
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
        for first, *cells in rows
    )
    table = f"<table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f'<div class="grid" role="region" aria-label="{escape(label)}" tabindex="0">{table}</div>'


def row(figures: Sequence[str]) -> str:
    """Pictures side by side."""
    return f'<div class="row">{"".join(figures)}</div>'


def table(rows: Mapping[str, object]) -> str:
    """Names and values."""
    cells = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(str(v))}</td></tr>' for k, v in rows.items())
    return f"<table>{cells}</table>"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a head."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _ticks(top: float) -> list[float]:
    """Round values from 0 to at most ``top``: four to nine."""
    power = 10.0 ** math.floor(math.log10(top))
    step = next(part * power for part in (0.2, 0.5, 1, 2) if top / (part * power) <= 8)
    return [round(count * step, 12) for count in range(int(top / step + 1e-9) + 1)]


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str, width: int = 800
) -> str:
    """Lines over a common axis, as SVG; y begins at zero. (Not by matplotlib, 30 MB for whoever installs fststyle.)

    Args:
        series: name to (x values, y values); names go into the legend.
        x_label, y_label: with units.
    """
    height, left, bottom, top, right = width * 3 // 8, 60, 45, 15, 25
    top_x = max((max(xs) for xs, _ in series.values() if len(xs)), default=1.0) or 1.0
    top_y = max((max(ys) for _, ys in series.values() if len(ys)), default=1.0) or 1.0

    def place(x: float, y: float) -> str:
        along = left + x / top_x * (width - left - right)
        up = height - bottom - y / top_y * (height - top - bottom)
        return f"{along:.1f},{up:.1f}"

    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-size="13" fill="#444">']
    for value in _ticks(top_y):
        y = place(0, value).split(",")[1]
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y}" y2="{y}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{left - 6}" y="{y}" text-anchor="end" dy="4">{value:g}</text>')
    for value in _ticks(top_x):
        x = place(value, 0).split(",")[0]
        parts.append(f'<text x="{x}" y="{height - bottom + 18}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{width / 2}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text transform="translate(14 {height / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    for index, (name, (xs, ys)) in enumerate(series.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        points = " ".join(place(x, y) for x, y in zip(xs, ys, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{width - right - 6}" y="{top + 16 + 18 * index}" text-anchor="end" fill="{colour}">'
            f"{escape(name)}</text>"
        )
    return "".join([*parts, "</svg>"])
