"""The report: what is measured, kept and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fststyle.encoders.vgg import VGGEncoder
from fststyle.evaluation import compare as module
from fststyle.evaluation.compare import Style, compare, crossing, equality_table, speed_table
from fststyle.images import load_image, read_picture, save_image
from fststyle.losses import PerceptualLoss
from fststyle.model_file import ModelFile
from fststyle.networks.transform import TransformNet
from fststyle.optimization import optimize
from fststyle.optimization.recipes import starting_image, transfer


@pytest.fixture
def photos(tmp_path: Path, astronaut: np.ndarray) -> list[Path]:
    files = [tmp_path / "one.png", tmp_path / "two.jpg"]
    save_image(astronaut[::8, ::8].copy(), files[0])
    save_image(astronaut[100:300:4, ::8].copy(), files[1])
    return files


@pytest.fixture
def style(encoder: VGGEncoder, network: TransformNet, astronaut: np.ndarray) -> Style:
    loss = PerceptualLoss(encoder, style_weight=10.0, tv_weight=1e-5)
    painting = astronaut[200:264, :64].copy()
    from fststyle.images import to_image

    checkpoint = ModelFile(network.eval(), {"name": "test"}, loss.style_targets(to_image(painting)))
    return Style(checkpoint, loss, painting)


def test_crossing_is_the_first_iteration_as_good_as_the_one_pass() -> None:
    assert crossing([5, 4, 3, 3.5, 2], 3) == 3
    assert crossing([5, 4], 3) is None
    assert crossing([1], 3) == 1


def case(equals: int | None, seconds: float = 0.5, iterations: int = 500, **other: Any) -> dict[str, Any]:
    slow = {"elapsed": [2.0 * (i + 1) for i in range(iterations)]}
    fast = {"seconds": seconds}
    return {
        **{"style": "a", "size": 256, "encoder": "vgg16", "equals_iterations": equals, "iterations": iterations},
        **{"slow": slow, "fast": fast, **other},
    }


def test_the_table_of_iterations_gives_each_and_the_median() -> None:
    head, rows = equality_table([case(60), case(80), case(None), case(10, size=512)])
    assert head == ["style", "size", "per photograph", "median"]
    assert rows == [["a", "256 px", "60, 80, > 500", "80"], ["a", "512 px", "10", "10"]]


def test_a_median_beyond_what_was_run_is_a_bound() -> None:
    assert equality_table([case(None), case(None), case(30)])[1][0][3] == "> 501"


def test_the_table_of_seconds_holds_iterations_against_one_pass() -> None:
    _, rows = speed_table([case(1), case(1, seconds=0.25), case(1, seconds=1.0)])
    assert rows == [["a", "vgg16", "256 px", "200", "600", "1e+03", "0.5", "2000× (500)"]]
    _, rows = speed_table([case(1, iterations=120)])
    assert rows == [["a", "vgg16", "256 px", "200", "", "", "0.5", "400× (100)"]]


def test_a_report_is_made_of_measurements(photos: list[Path], style: Style, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cases = compare(photos, [style], [48], out, iterations=60)
    assert [c["photo"] for c in cases] == ["one.png", "two.jpg"]
    first = cases[0]
    content = load_image(photos[0], 48)
    objective = transfer(style.loss, content, style.checkpoint.style_targets)
    with torch.no_grad():
        fast = objective(style.checkpoint.network(content).clamp(0, 1)).total.item()
    assert first["fast"]["total"] == pytest.approx(fast, rel=1e-4)
    slow = optimize(starting_image("noise", (48, 48)), objective, 60)
    assert first["slow"]["total"] == pytest.approx([row["total"] for row in slow.trace], rel=1e-3)
    assert first["equals_iterations"] == crossing(first["slow"]["total"], first["fast"]["total"])
    assert first["iterations"] == 60
    assert json.loads((out / "report.json").read_text())["cases"] == json.loads(json.dumps(cases))
    for name in ("photo", "fast", "slow", "slow_50"):
        assert read_picture(out / f"one_test_48_{name}.png").rgb.shape == (48, 48, 3)
    page = (out / "index.html").read_text()
    assert page.count("<img") == 2 * 4  # photograph, one pass, slow after 50, painting
    assert "http" not in page.replace("http://www.w3.org", "")
    assert not list(out.glob("*.state"))


def test_what_is_done_is_not_done_again(
    photos: list[Path], style: Style, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compare(photos[:1], [style], [32], tmp_path / "out", iterations=3)
    measured: list[Path] = []
    real = module.measure

    def watched(photo: Path, *rest: Any, **options: Any) -> Any:
        measured.append(photo)
        return real(photo, *rest, **options)

    monkeypatch.setattr(module, "measure", watched)
    both = compare(photos, [style], [32], tmp_path / "out", iterations=3)
    assert measured == photos[1:]
    assert both[0] == first[0]
    compare(photos[:1], [style], [32], tmp_path / "out", iterations=4)
    assert measured == [photos[1], photos[0]], "other settings, but the old figures"


def test_a_broken_off_case_goes_on(
    photos: list[Path], style: Style, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare(photos[:1], [style], [32], tmp_path / "whole", iterations=8)[0]
    real = module.optimize

    def broken(*arguments: Any, **options: Any) -> Any:
        run = real(*arguments, **{**options, "callback": lambda progress: progress.iteration < 3})
        run.stopped = "interrupted"
        return run

    monkeypatch.setattr(module, "optimize", broken)
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        compare(photos[:1], [style], [32], tmp_path / "out", iterations=8)
    monkeypatch.setattr(module, "optimize", real)
    rest = compare(photos[:1], [style], [32], tmp_path / "out", iterations=8)[0]
    assert rest["slow"]["total"] == whole["slow"]["total"]


def test_it_stops_where_the_slow_side_is_as_good(photos: list[Path], style: Style, tmp_path: Path) -> None:
    measured = compare(photos[:1], [style], [32], tmp_path / "out", iterations=200, until_crossed=True)[0]
    assert measured["equals_iterations"] == measured["iterations"] < 200
