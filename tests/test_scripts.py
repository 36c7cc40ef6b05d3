"""The scripts beside the package: the benchmark's yardstick is a fair one, and what measures runs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fststyle.images import read_picture, save_image
from fststyle.inference import Stylizer
from fststyle.networks.checkpoint import save_checkpoint
from fststyle.networks.transform import TransformNet

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_computes_what_our_network_does() -> None:
    torch.manual_seed(0)
    ours = TransformNet(width=8, residual_blocks=2).double()
    theirs = script("reference").Reference(8, 2).double().take(ours.state_dict())
    image = torch.rand(2, 3, 40, 64, dtype=torch.float64)
    torch.testing.assert_close(theirs(image), ours(image), rtol=1e-6, atol=1e-6)


def test_the_reference_stylises_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = TransformNet(8)
    save_checkpoint(tmp_path / "a.safetensors", network, {"kind": "style", "name": "a"}, dtype="float32")
    rgb = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    save_image(rgb, tmp_path / "in.png")
    words = [str(tmp_path / name) for name in ("in.png", "out.png")]
    monkeypatch.setattr(sys, "argv", ["reference.py", *words, "--style", str(tmp_path / "a.safetensors")])
    script("reference").main()
    ours = Stylizer(network, device="cpu").pixels(rgb).astype(int)
    assert np.abs(read_picture(tmp_path / "out.png").rgb.astype(int) - ours).max() <= 1


def test_the_reference_trains() -> None:
    reference = script("reference")
    torch.manual_seed(0)
    step = reference.Step(reference.Reference(4, 1), torch.rand(1, 3, 32, 32))
    photographs = torch.rand(2, 3, 32, 32)
    losses = [step(photographs) for _ in range(4)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("words", "title", "rows"),
    [
        (("step", "--eager", "--batch", "1", "--encoder", "slim"), "training step, batch 1, 256 px", 3),
        (("inference", "--size", "64"), "one pass, 64 px", 5),
    ],
)
def test_the_benchmark_measures_in_turn(tmp_path: Path, words: tuple[str, ...], title: str, rows: int) -> None:
    """In a process of its own, as it is used: it loads every backend beside training."""
    pytest.importorskip("openvino")
    more = ["--repeats", "1", "--device", "cpu", "-o", str(tmp_path)]
    subprocess.run([sys.executable, str(SCRIPTS / "benchmark.py"), *words, *more], check=True, capture_output=True)
    table = json.loads((tmp_path / "benchmark.json").read_text())["tables"][title]
    assert len(table) == rows
    assert table[0]["what"] == "reference"
    assert table[0]["times"] == 1.0
    assert all(row["seconds"] > 0 and row["of peak"] > 0 for row in table)
    assert "Benchmark" in (tmp_path / "benchmark.html").read_text()
