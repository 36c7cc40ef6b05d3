"""Measuring super-resolution."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import structural_similarity

from fststyle.color import luminance
from fststyle.evaluation import superres
from fststyle.images import ImageError, save_image, to_image


def y(pixels: np.ndarray) -> np.ndarray:
    return 16 + pixels.astype(float) @ np.array([65.481, 128.553, 24.966]) / 255


@pytest.mark.slow
def test_bicubic_on_bsd100_is_the_published_figure(data: Path) -> None:
    """25.96 dB at ×4 (Johnson 2016, Table 3, and many others)."""
    files = sorted((data / "bsd100").glob("*.jpg"))
    assert len(files) == 100
    rows = list(superres.evaluate(files, {}, 4))
    assert superres.means(rows)["bicubic"]["psnr"] == pytest.approx(25.96, abs=0.02)


def test_figures_are_those_of_luminance_inside_the_border(astronaut: np.ndarray) -> None:
    original = astronaut[:64, 100:180]
    noise = np.random.default_rng(0).integers(-20, 21, original.shape)
    result = np.clip(original.astype(int) + noise, 0, 255).astype(np.uint8)
    result[:4] = 0  # of the border, which does not count
    found = superres.measure(result, original, 4)
    a, b = (y(pixels)[4:-4, 4:-4] for pixels in (result, original))
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / np.mean((a - b) ** 2)), abs=1e-4)
    expected = structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert found["ssim"] == pytest.approx(expected, abs=1e-5)


def test_an_equal_picture_is_perfect(astronaut: np.ndarray) -> None:
    assert superres.measure(astronaut[:64, :64], astronaut[:64, :64], 4) == {"psnr": math.inf, "ssim": pytest.approx(1)}


def test_a_method_gets_the_reduced_picture_and_is_measured_beside_bicubic(
    tmp_path: Path, astronaut: np.ndarray
) -> None:
    whole = astronaut[:70, 60:171]  # cut to 68 × 108
    save_image(whole.copy(), tmp_path / "a.png")
    seen = []

    def nearest(small: np.ndarray) -> np.ndarray:
        seen.append(small)
        return small.repeat(4, 0).repeat(4, 1)

    (row,) = superres.evaluate([tmp_path / "a.png"], {"nearest": nearest}, 4, keep=1)
    assert seen[0].shape == (17, 27, 3)
    assert np.array_equal(row.pictures["original"], whole[:68, :108])
    assert row.figures["nearest"] == superres.measure(row.pictures["nearest"], whole[:68, :108], 4)
    assert row.figures["bicubic"]["psnr"] > row.figures["nearest"]["psnr"]


def test_means_count_each_picture_the_same() -> None:
    rows = [
        superres.Measured(name, {"bicubic": {"psnr": psnr, "ssim": psnr / 100}})
        for name, psnr in (("a", 20.0), ("b", 30.0))
    ]
    assert superres.means(rows) == {"bicubic": {"psnr": 25.0, "ssim": 0.25}}


def test_table_and_page_hold_the_figures(tmp_path: Path, astronaut: np.ndarray) -> None:
    for name in ("a.png", "b.png"):
        save_image(astronaut[:64, :80].copy(), tmp_path / name)
    rows = list(superres.evaluate([tmp_path / "a.png", tmp_path / "b.png"], {}, 4, keep=1))
    out = tmp_path / "out"
    out.mkdir()
    superres.write(rows, out, "Two pictures", {"scale": 4})
    with open(out / "figures.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(line["picture"], line["method"]) for line in table] == [("a.png", "bicubic"), ("b.png", "bicubic")]
    assert float(table[0]["psnr"]) == rows[0].figures["bicubic"]["psnr"]
    summary = json.loads((out / "figures.json").read_text())
    assert (summary["scale"], summary["pictures"]) == (4, 2)
    assert summary["mean"]["bicubic"]["psnr"] == pytest.approx(float(table[0]["psnr"]))
    page = (out / "index.html").read_text()
    assert "Two pictures" in page
    assert page.count("<img") == 3  # of the one that was kept
    assert np.asarray(Image.open(out / "a_bicubic.png")).shape == (64, 80, 3)


def test_a_picture_that_is_too_small_is_named(tmp_path: Path, astronaut: np.ndarray) -> None:
    save_image(astronaut[:40, :80].copy(), tmp_path / "small.png")
    with pytest.raises(ImageError, match=r"small\.png: is 80×40 pixels; ×4 takes 64"):
        list(superres.evaluate([tmp_path / "small.png"], {}, 4))


def test_matched_results_have_the_inputs_colours(astronaut: np.ndarray) -> None:
    small = astronaut[::16, ::16].copy()
    matched = superres.to_matched(lambda pixels: superres.bicubic(4)(pixels) // 2)(small)
    assert abs(float(luminance(to_image(matched)).mean() - luminance(to_image(small)).mean())) < 0.01
