"""The page's variation of even areas, run by Node.js, beside Python's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fststyle.inference.variation import varied
from fststyle.octaves import Variation
from fststyle.web.site import PAGE

SCRIPT = """
import { readFileSync, writeFileSync } from "node:fs";
import { varied } from "./variation.js";
const [width, height, amount, across] = process.argv.slice(2).map(Number);
const { rgb } = varied({ rgb: new Uint8Array(readFileSync("picture.bin")), width, height }, { amount, width: across });
writeFileSync("varied.bin", rgb);
"""


@pytest.mark.parametrize("by", [Variation(), Variation(0.07, 20), Variation(0.0)])
def test_the_page_varies_even_areas_as_python_does(by: Variation, tmp_path: Path, astronaut: np.ndarray) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    photo = np.ascontiguousarray(astronaut[:203, 251:])
    (tmp_path / "picture.bin").write_bytes(photo.tobytes())
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for name in ("variation.js", "finish.js"):
        shutil.copy(PAGE / name, tmp_path)
    (tmp_path / "run.mjs").write_text(SCRIPT)
    sides = map(str, (photo.shape[1], photo.shape[0], by.amount, by.width))
    subprocess.run([node, "run.mjs", *sides], cwd=tmp_path, check=True, timeout=60)
    found = np.frombuffer((tmp_path / "varied.bin").read_bytes(), np.uint8).reshape(photo.shape)
    expected = varied(photo, by)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (expected == photo).all() == (not by.amount)
