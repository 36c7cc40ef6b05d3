"""Cases of the benchmark that apply a style: one pass by size, backend and precision, its memory, the command line."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reference import Reference

from fststyle import TransformNet, save_image
from fststyle.images import find_pictures, read_picture, to_image, to_pixels
from fststyle.inference import Stylizer
from fststyle.model_file import all_styles, load_model_file, save_model_file
from measuring import DEVICE, Figures, Names, Sizes, in_own_process, in_turn, operations, peak_memory, rows, timed

PRECISIONS = ("float32", "bfloat16")
SIZES = (512, 1024, 2048)


def variants(precision: Names) -> list[tuple[str, str]]:
    """Backends and precisions of one pass."""
    if DEVICE == "cuda":
        return [("torch", "float32"), ("torch", "float16")]
    return [(backend, each) for backend in ("torch", "openvino") for each in precision]


def inference(size: Sizes = SIZES, precision: Names = PRECISIONS, repeats: int = 7) -> Figures:
    """One pass of the network of full width."""
    with tempfile.TemporaryDirectory() as folder:
        path, network = _model_file(Path(folder))
        reference = Reference().take(network.state_dict()).eval().to(DEVICE)
        stylizers = {f"{b} {p}": Stylizer.from_checkpoint(path, DEVICE, b, p) for b, p in variants(precision)}
        for side in size:
            image = torch.rand(1, 3, side, side, device=DEVICE)
            plain = torch.inference_mode()(lambda image=image: reference(image))
            runs: dict[str, Callable[[], object]] = {"reference": plain}
            runs |= {name: lambda s=s, image=image: s(image) for name, s in stylizers.items()}  # type: ignore[misc]
            for run in runs.values():
                for _ in range(4 if DEVICE == "cuda" else 1):
                    run()
            medians, work = in_turn(runs, repeats), {"reference": operations(plain)}
            yield f"one pass, {side} px", rows(medians, work)


def difference(photographs: Path, precision: Names = PRECISIONS) -> Figures:
    """How far the bundled styles' pictures lie from PyTorch's in float32, in levels of 255, on photographs."""
    photos = [read_picture(file, 512).rgb for file in find_pictures(photographs)[:12]]
    found = []
    for style in all_styles():
        exact = Stylizer.from_checkpoint(style, "cpu", "torch", "float32")
        wanted = [exact.pixels(photo).astype(int) for photo in photos]
        for backend, kind in variants(precision)[1:]:
            stylizer = Stylizer.from_checkpoint(style, DEVICE, backend, kind)
            off = [np.abs(stylizer.pixels(photo) - own).ravel() for photo, own in zip(photos, wanted, strict=True)]
            levels = np.concatenate(off)
            row = {"what": f"{style}, {backend} {kind}", "mean": round(float(levels.mean()), 3)}
            found.append({**row, "99.9 %": int(np.quantile(levels, 0.999)), "largest": int(levels.max())})
    yield "difference to torch float32, of 255", found


def growth(repeats: int = 7) -> Figures:
    """How one pass grows with pixels, batch and width, on the backend that is chosen by itself."""
    cases = [(1, size, 32) for size in (256, 512, 1024, 2048)]
    cases += [(batch, 256, 32) for batch in (2, 4, 8)] + [(1, 512, width) for width in (8, 16, 64)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        stylizers = {w: Stylizer.from_checkpoint(_model_file(Path(folder), w)[0]) for w in {w for *_, w in cases}}
        for batch, size, width in cases:
            image = torch.rand(batch, 3, size, size)
            seconds = in_turn({"": lambda image=image, s=stylizers[width]: s(image)}, repeats)[""]  # type: ignore[misc]
            row = {"batch": batch, "size": size, "width": width, "seconds": round(seconds, 4)}
            found.append({**row, "ns per pixel": round(seconds * 1e9 / batch / size**2)})
    yield f"growth of one pass, {stylizers[32].backend.name} {stylizers[32].backend.precision}", found


def memory(size: Sizes = SIZES, precision: Names = PRECISIONS) -> Figures:
    """Peak memory of one process per backend, at the largest size (on Linux)."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path, _ = _model_file(Path(folder))
        for backend, kind in [("reference", "float32"), *variants(precision)]:
            peak = in_own_process(_peak_of_one_pass, path, backend, kind, max(size))
            found.append({"what": f"{backend} {kind}", "GiB": round(peak, 3)})
            found[-1]["share of reference"] = round(found[-1]["GiB"] / found[0]["GiB"], 3)
    yield f"peak memory, {max(size)} px", found


def _peak_of_one_pass(path: Path, backend: str, precision: str, size: int) -> float:
    """One pass in this process, and the most memory that it took."""
    rgb = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    if backend == "reference":
        network = Reference().take(load_model_file(path).network.state_dict()).eval()
        with torch.inference_mode():
            to_pixels(network(to_image(rgb)))
    else:
        Stylizer.from_checkpoint(path, "cpu", backend, precision).pixels(rgb)
    return peak_memory()


def cli(precision: Names = PRECISIONS, repeats: int = 7) -> Figures:
    """The command line, cold: from the start of the process to the written file, at 512 px."""
    with tempfile.TemporaryDirectory() as folder:
        path, _ = _model_file(Path(folder))
        photo, out = str(Path(folder) / "photo.png"), str(Path(folder) / "out.png")
        save_image(np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8), photo)

        def command(*words: str) -> Callable[[], object]:
            return lambda: subprocess.run(
                [sys.executable, *words, "--style", str(path)], check=True, capture_output=True
            )

        plain = str(Path(__file__).with_name("reference.py"))
        runs = {"reference": command(plain, photo, out)}
        for backend in dict(variants(precision)):
            words = ("stylize", photo, "-o", out, "--overwrite", "--backend", backend)  # the reference wrote one
            runs[f"fststyle, {backend}"] = command("-m", "fststyle", *words)
        first = {name: timed(run) for name, run in runs.items()}
        medians = in_turn(runs, repeats)
    found = []
    for name, seconds in medians.items():
        row = {"what": name, "seconds": round(seconds, 3), "times": round(medians["reference"] / seconds, 2)}
        found.append({**row, "first": round(first[name], 2)})
    yield "command line, 512 px, cold", found


def _model_file(folder: Path, width: int = 32) -> tuple[Path, TransformNet]:
    torch.manual_seed(0)
    network, path = TransformNet(width), folder / f"{width}.safetensors"
    save_model_file(path, network, {"kind": "style", "name": "full", "style": {"image": "none"}}, dtype="float32")
    return path, network
