"""Parts of report pages."""

from __future__ import annotations

import re

import pytest

from fststyle.report.page import _ticks, curves


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
