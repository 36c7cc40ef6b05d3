"""Parts of report pages."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from fststyle.evaluation.page import _ticks, curves, picture_grid, thumbnail


@pytest.mark.parametrize("top", [1e-5, 0.37, 1.0, 1.5, 1.7, 7.89, 9.99, 268.435456, 50000.0])
def test_ticks_are_round_few_and_reach_nearly_to_the_top(top: float) -> None:
    ticks = _ticks(top)
    assert ticks[0] == 0
    assert 4 <= len(ticks) <= 9
    assert ticks[-1] <= top * (1 + 1e-9)
    assert top - ticks[-1] < ticks[1]
    assert {f"{tick:e}".rstrip("0")[0] for tick in ticks[1:2]} <= set("125")


def test_a_line_lies_where_its_values_are() -> None:
    picture = curves({"a": ([0, 10], [4, 0])}, "x", "y", width=800)
    (points,) = re.findall(r'<polyline points="([^"]+)"', picture)
    (left, top), (right, bottom) = (tuple(map(float, point.split(","))) for point in points.split())
    assert left < right
    assert top < bottom  # y grows downward in SVG
    for label, place in (("0", left), ("10", right)):
        assert f'<text x="{place:.1f}" y="273" text-anchor="middle">{label}</text>' in picture


def test_a_grid_of_pictures_heads_rows_and_columns_and_opens_the_files() -> None:
    wide = np.zeros((100, 1000, 3), np.uint8)
    cell = thumbnail(wide, 'a "quoted" name', "a b.png", width=200)
    (link, data, size, alt) = re.fullmatch(
        r'<a href="(.+?)"><img src="data:image/jpeg;base64,(.+?)" (width=.+?) alt="(.+)"></a>', cell
    ).groups()  # type: ignore[union-attr]
    assert (link, size, alt) == ("a%20b.png", 'width="200" height="20"', "a &quot;quoted&quot; name")
    with Image.open(io.BytesIO(base64.b64decode(data))) as kept:
        assert kept.size == (400, 40)  # twice the width shown, for dense screens
    small = thumbnail(wide[:, :50], "small", "a.png", width=200)
    assert 'width="200" height="400"' in small
    with Image.open(io.BytesIO(base64.b64decode(small.split("base64,")[1].split('"')[0]))) as kept:
        assert kept.size == (50, 100)  # nothing is made up

    table = ElementTree.fromstring(picture_grid("<all>", ["corner", "b"], [["first", "c"], ["second", "d"]]))
    assert table.get("aria-label") == "<all>"
    assert table.get("tabindex") == "0"  # what scrolls is reached by keyboard
    heads = [(head.get("scope"), head.text) for head in table.iter("th")]
    assert heads == [("col", "corner"), ("col", "b"), ("row", "first"), ("row", "second")]
    assert [cell.text for cell in table.iter("td")] == ["c", "d"]
