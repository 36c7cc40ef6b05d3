"""The page's palette fit, run by Node.js, beside Python's."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fststyle import palette
from fststyle.inference.prediction import colour_statistics
from fststyle.web.site import PAGE

SCRIPT = """
import { readFileSync } from "node:fs";
import { colourStatistics, fitted } from "./palette.mjs";
const read = (name) => new Float32Array(new Uint8Array(readFileSync(name)).buffer);
const painting = read("painting.bin");
const count = painting.length / 3;
const planes = [0, 1, 2].map((row) => painting.subarray(row * count, (row + 1) * count));
const { matrix, shift } = fitted(read("made.bin"), planes);
console.log(JSON.stringify({ told: [...colourStatistics(planes)], matrix, shift }));
"""


@pytest.mark.parametrize(("flat", "most"), [(0.0, 0.5), (0.8, 0.5), (1.0, 4)])
def test_the_page_fits_a_palette_as_python_does(
    flat: float, most: float, tmp_path: Path, astronaut: np.ndarray
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    painting = astronaut[:230, 130:310].transpose(2, 0, 1).reshape(3, -1).astype(np.float32) / 255
    painting = np.ascontiguousarray(
        (1 - flat) * painting + flat * painting.mean(0)
    )  # grey in the end: two axes are any
    noise = palette.noise().transpose(0, 3, 1, 2).astype(np.float32) / 255
    made = np.ascontiguousarray(3 * noise[:, ::-1] - np.array([1.0, 0.5, 2.5], np.float32)[:, None, None])
    painting.tofile(tmp_path / "painting.bin")
    made.tofile(tmp_path / "made.bin")
    shutil.copyfile(PAGE / "palette.js", tmp_path / "palette.mjs")
    (tmp_path / "script.mjs").write_text(SCRIPT)
    done = subprocess.run([node, "script.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert np.allclose(found["told"], colour_statistics(painting)[0], atol=1e-4)
    wanted = colours(made, *palette.fitted(made, painting))
    given = colours(made, np.reshape(found["matrix"], (3, 3)), np.reshape(found["shift"], (3, 1)))
    assert 255 * np.abs(given - wanted).max() < most
    assert 255 * np.abs(given - colours(made, np.eye(3), np.zeros((3, 1)))).mean() > 10


def colours(made: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(matrix @ made.swapaxes(0, 1).reshape(3, -1) + shift)))
