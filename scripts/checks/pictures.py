"""What is promised of tiled inference and of ``--strength``, measured.

    python scripts/checks/pictures.py equal    [--style NAME …] [--size 2048]
    python scripts/checks/pictures.py large    [--style NAME] [--size 2048 4096 8192 16384] [--precision float32]
    python scripts/checks/pictures.py strength [--style NAME …]

``equal``: every bundled style and network preset, tiled against the whole picture. ``large``: seconds, memory and
scratch space of one process from file to file, and a plot of memory against size. ``strength``: the style term between
0 and 1. Figures go to ``--json FILE``, pictures into ``-o FOLDER``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from skimage import data as photographs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fststyle.config import compose
from fststyle.encoders.pretrained import encoder_of
from fststyle.evaluation.page import curves
from fststyle.images import contact_sheet, large, save_image, to_image
from fststyle.images.arrays import resized_rows
from fststyle.images.large import Scratch, as_picture
from fststyle.inference import Stylizer
from fststyle.inference.options import blend
from fststyle.inference.tiled import evaluate_in_strips
from fststyle.losses import PerceptualLoss
from fststyle.model_file import all_styles, find_model_file, load_model_file
from fststyle.networks.transform import TransformNet
from fststyle.resources import resource
from measuring import ENVIRONMENT, Figures, Folder, Names, Sizes, measure, peak_memory, photograph

#: Up to this side whole pictures are measured beside tiled ones: some 8 GiB.
WHOLE = 4096
STYLES = tuple(all_styles())


def presets() -> Iterator[tuple[str, TransformNet]]:
    """Networks of ``conf/network`` that stylise, untrained; batch norm has the moments of one picture."""
    for file in sorted((resource("conf") / "network").glob("*.yaml")):
        settings = compose(None, [f"+network={file.stem}"]).network
        if str(settings.get("_target_", "")).endswith("TransformNet"):
            torch.manual_seed(0)
            network = instantiate(settings).train()
            with torch.no_grad():
                for _ in range(50):  # the running moments settle
                    network(to_image(photograph(256, 256)))
            yield file.stem, network


def equal(style: Names = STYLES, size: Sizes = (2048,), only_styles: bool = False, output: Folder = None) -> Figures:
    """The largest difference between strips and whole picture, of 255, and the share of values that differ."""
    n = size[0]
    networks = [(name, load_model_file(find_model_file(name, "style")).network) for name in style]
    for name, network in networks if only_styles else [*networks, *presets()]:
        double = network.double().eval()
        image = torch.from_numpy(photograph(600, 512) / 255.0).permute(2, 0, 1)[None]
        with torch.no_grad():
            whole = double(image)
        parts = evaluate_in_strips(double, lambda top, end, image=image: image[:, :, top:end], 600, 512, 128)  # type: ignore[misc]
        row: dict[str, Any] = {"float64": float((torch.cat(list(parts), 2) - whole).abs().max())}
        stylizer = Stylizer(network.float(), device="cpu", precision="float32")
        for height, width in [(n, n), (n // 2 - 1, n + 1), (n * 3000 // 2048, n * 700 // 2048)]:
            rgb = photograph(height, width)
            difference = np.abs(stylizer.pixels(rgb).astype(int) - stylizer.pixels(rgb, memory=0))
            row[f"{height}x{width}"] = {"largest": int(difference.max()), "share": float((difference > 0).mean())}
            if output and difference.any():
                save_image((difference * 255).clip(0, 255).astype(np.uint8), output / f"{name}_{height}.png")
        yield name, row


def large_files(
    style: Names = STYLES, size: Sizes = (2048, 4096, 8192, 16384), precision: str = "float32", output: Folder = None
) -> Figures:
    """Seconds, peak memory and scratch space by size, and of the whole picture up to ``WHOLE`` a side."""
    lines: dict[str, tuple[list[float], list[float]]] = {"tiled": ([], []), "whole picture": ([], [])}
    with tempfile.TemporaryDirectory() as folder:
        for n in size:
            source = Path(folder) / f"{n}.png"
            scratch, quad = Scratch((n, n, 3), np.uint8, folder), photograph(2048, 2048)
            scratch.fill(resized_rows(lambda top, end, quad=quad: quad[top:end], 2048, 2048, n, n))  # type: ignore[misc]
            with source.open("wb") as file:
                large.encode(as_picture(scratch), file, "PNG")
            scratch.close()
            for tiles, kind in [("off", "whole picture"), ("exact", "tiled")][n > WHOLE :]:
                words = ["stylize", str(source), "--style", style[0], "-o", str(source.with_suffix(".out.png"))]
                words += ["--backend", "torch", "--precision", precision, "--tiles", tiles]
                row = watched([sys.executable, "-m", "fststyle", *words, "--memory", "2GiB", "--max-pixels", "1000M"])
                row["seconds per MP"] = row["seconds"] / (n * n / 1e6)
                for values, value in zip(lines[kind], (n * n / 1e6, row["GiB"]), strict=True):
                    values.append(value)
                yield f"{n} {kind}", row
            source.unlink()
    if output:
        (output / "memory.svg").write_text(curves(lines, "megapixels", "peak memory, GiB"), encoding="utf-8")


def watched(words: list[str]) -> dict[str, float]:
    """A process: seconds, peak resident memory, and the most that its scratch files took."""
    began, peak, most = time.perf_counter(), 0.0, 0
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=errors, env=ENVIRONMENT)
        while process.poll() is None:
            try:
                peak = max(peak, peak_memory(process.pid))
                open_files = list(Path(f"/proc/{process.pid}/fd").iterdir())
                most = max(most, sum(f.stat().st_blocks * 512 for f in open_files if ".scratch" in os.readlink(f)))
            except OSError:  # it ended, or a file was closed, meanwhile
                pass
            time.sleep(0.05)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(errors.read())
    return {"seconds": time.perf_counter() - began, "GiB": peak, "scratch GB": most / 1e9}


def strength(style: Names = STYLES, output: Folder = None) -> Figures:
    """Style term, a mean over layers, at strengths between 0 and 1; a plain cross-fade beside it."""
    shares, rows = [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1], []
    photo = np.ascontiguousarray(photographs.astronaut()[:300, 100:500])
    for name in style:
        model = load_model_file(find_model_file(name, "style"), "style")
        loss = PerceptualLoss.from_metadata(encoder_of(model.metadata), model.metadata)
        result = Stylizer.from_checkpoint(name, "cpu").pixels(photo)
        row: dict[str, Any] = {"strength": shares, "blend": [], "cross-fade": []}
        for share in shares:
            faded = np.rint((1 - share) * photo + share * result.astype(float)).astype(np.uint8)
            for kind, picture in (("blend", blend(photo, result, share)), ("cross-fade", faded)):
                with torch.no_grad():
                    image = to_image(picture)
                    terms = loss(image, style=model.style_targets, content=loss.content_targets(image))
                row[kind].append(float(np.mean([float(term) for term in terms.style.values()])))
        rows.append([blend(photo, result, share) for share in (0, 0.25, 0.5, 0.75, 1)])
        yield name, {**row, "falls": bool((np.diff(row["blend"]) < 0).all())}
    if output:
        save_image(contact_sheet(rows), output / "strength.jpg")


if __name__ == "__main__":
    measure(__doc__, {"equal": equal, "large": large_files, "strength": strength})
