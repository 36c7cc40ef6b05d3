"""What style swap promises, measured.

    python scripts/check_swap.py iterations --model FILE --photo P … --painting P … [-o FOLDER]
    python scripts/check_swap.py seconds    --model FILE --photo P --painting P [--size 512]
    python scripts/check_swap.py memory     --model FILE [--size 1024] [--style-size 1024 2048]

``iterations``: the feature loss of the inverse network's picture, and after how many steps of Adam from the
photograph (preset=chen) the slow mode has as little. ``seconds``: one swap against 500 iterations of Gatys
et al. with a full VGG-19 (random weights; the time is the same). ``memory``: peak of one process that swaps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fststyle.config import preset_loss
from fststyle.encoders.pretrained import load_encoder
from fststyle.images import load_image, save_image
from fststyle.inference import Swapper
from fststyle.losses import content_loss
from fststyle.model_file import find_model_file, load_model_file
from fststyle.networks.styleswap import StyleSwap, swap
from fststyle.optimization import optimize
from fststyle.optimization.recipes import swap as swapped_features
from fststyle.optimization.recipes import transfer


def model_of(chosen: argparse.Namespace) -> StyleSwap:
    """The network that is measured."""
    return StyleSwap.from_checkpoint(load_model_file(find_model_file(chosen.model, "swap"), "swap")).eval()


def iterations(chosen: argparse.Namespace) -> dict[str, Any]:
    """Steps of the slow mode that one pass equals, for every photograph and painting."""
    model = model_of(chosen)
    loss = preset_loss(load_encoder("vgg16", "slim"), "swap", content_layers={model.layer: 1.0})
    found: dict[str, Any] = {}
    for painting in chosen.painting:
        style = load_image(painting, chosen.size)
        for photo in chosen.photo:
            content = load_image(photo, chosen.size)
            content = content[..., : content.shape[-2] // 4 * 4, : content.shape[-1] // 4 * 4]
            with torch.no_grad():
                features = swap(model.encode(content), model.encode(style))
                image = model.inverse(features)
                fast = float(content_loss(model.encode(image.clamp(0, 1)), features))
                start = float(content_loss(model.encode(content), features))
            steps = slow_steps(loss, content, style, model.layer, fast, chosen.iterations)
            name = f"{Path(photo).stem} {Path(painting).stem}"
            found[name] = {"fast": fast / start, "steps": steps}
            print(f"{name}: feature loss {fast:.4f}, {fast / start:.3f} of the photograph's; {steps} steps", flush=True)
            if chosen.output:
                chosen.output.mkdir(parents=True, exist_ok=True)
                save_image(image, chosen.output / f"{name.replace(' ', '_')}.png")
    counts = [one["steps"] for one in found.values()]
    return {"pairs": found, "median": statistics.median(counts), "least": min(counts)}


def slow_steps(loss: Any, content: Tensor, style: Tensor, layer: str, enough: float, most: int) -> int:
    """Steps of Adam until the feature loss is at most ``enough``; ``most`` if it never is."""

    def watch(progress: Any) -> bool:
        return bool(progress.terms[f"content/{layer}"] > enough)

    objective = swapped_features(loss, content, style)
    run = optimize(content, objective, most, optimizer="adam", learning_rate=0.05, callback=watch)
    return run.iteration


def seconds(chosen: argparse.Namespace) -> dict[str, Any]:
    """One swap and one iteration of Gatys et al., in turn; medians."""
    model = Swapper(model_of(chosen), device="cpu", precision="float32")
    content, style = (load_image(path, chosen.size) for path in (chosen.photo[0], chosen.painting[0]))
    loss = preset_loss(load_encoder("vgg19", "random"), "gatys")
    objective = transfer(loss, content, style)
    runs: dict[str, Callable[[], object]] = {
        "swap": lambda: model(content, style),
        "10 iterations": lambda: optimize(content, objective, 10),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(chosen.repeats + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    median = {name: statistics.median(found[1:]) for name, found in times.items()}
    ratio = 50 * median["10 iterations"] / median["swap"]
    print(f"one swap {median['swap']:.2f} s, 500 iterations {50 * median['10 iterations']:.0f} s: {ratio:.0f}x")
    return {"size": list(content.shape[-2:]), **median, "ratio": ratio}


def memory(chosen: argparse.Namespace) -> dict[str, Any]:
    """Peak memory and time of one process per size of the style."""
    found = {}
    for side in chosen.style_size:
        command = [sys.executable, __file__, "one", "--model", chosen.model, "--size", str(chosen.size)]
        command += ["--style-size", str(side)]
        peak, took = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
        found[f"{chosen.size} px in a style of {side} px"] = {"GiB": int(peak) / 2**20, "seconds": float(took)}
        print(f"{chosen.size} px in a style of {side} px: {int(peak) / 2**20:.2f} GiB, {float(took):.1f} s", flush=True)
    return found


def one(chosen: argparse.Namespace) -> dict[str, Any]:
    """One swap of photographs, the most memory that this process took, in KiB, and seconds: for ``memory``."""
    from PIL import Image
    from skimage import data

    model = Swapper(model_of(chosen), device="cpu", precision="float32")

    def enlarged(pixels: np.ndarray, side: int) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))

    content, style = enlarged(data.astronaut(), chosen.size), enlarged(data.coffee(), chosen.style_size[0])
    began = time.perf_counter()
    model.pixels(content, style)
    took = time.perf_counter() - began
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(line.split()[1] for line in status if "VmHWM" in line), took)
    return {}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = options.add_subparsers(required=True, dest="command")
    defaults = {"iterations": 256, "seconds": 512, "memory": 1024, "one": 1024}
    for name, size in defaults.items():
        command = commands.add_parser(name)
        command.add_argument("--model", default="slim")
        command.add_argument("--size", type=int, default=size, help="longer side of photograph and painting")
        command.add_argument("--style-size", type=int, nargs="+", default=[1024], help="of memory")
        command.add_argument("--photo", action="append", default=[])
        command.add_argument("--painting", action="append", default=[])
        command.add_argument("--iterations", type=int, default=150, help="of the slow mode, at most")
        command.add_argument("--repeats", type=int, default=5)
        command.add_argument("--json", type=Path, help="write the figures there")
        command.add_argument("-o", "--output", type=Path, help="write the pictures there")
    chosen = options.parse_args()
    found = {"iterations": iterations, "seconds": seconds, "memory": memory, "one": one}[chosen.command](chosen)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
