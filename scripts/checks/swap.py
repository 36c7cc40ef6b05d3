"""What style swap promises, measured.

    python scripts/checks/swap.py iterations --photo P … --painting P … [--model FILE] [-o FOLDER]
    python scripts/checks/swap.py seconds    --photo P --painting P [--model FILE] [--size 512]
    python scripts/checks/swap.py memory     [--model FILE] [--size 1024] [--style-size 1024 2048]

``iterations``: the feature loss of the inverse network's picture, and after how many steps of Adam from the
photograph (preset=chen) the slow mode has as little. ``seconds``: one swap against 500 iterations of Gatys
et al. with a full VGG-19 (random weights; the time is the same). ``memory``: peak of one process that swaps.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fststyle.config import preset_loss
from fststyle.encoders.pretrained import load_encoder
from fststyle.images import load_image, save_image
from fststyle.inference import Swapper
from fststyle.losses import PerceptualLoss, content_loss
from fststyle.model_file import find_model_file, load_model_file
from fststyle.networks.styleswap import StyleSwap, swap
from fststyle.optimization import optimize, recipes
from measuring import Figures, Files, Folder, Sizes, in_own_process, in_turn, measure, peak_memory, timed


def model_of(name: str) -> StyleSwap:
    """The network that is measured, by its bundled name or file."""
    return StyleSwap.from_checkpoint(load_model_file(find_model_file(name, "swap"), "swap")).eval()


def iterations(
    photo: Files,
    painting: Files,
    model: str = "slim",
    size: int = 256,
    steps: int = 150,
    output: Folder = None,
) -> Figures:
    """Steps of the slow mode, at most ``steps``, that one pass equals, for every photograph and painting."""
    network = model_of(model)
    loss = preset_loss(load_encoder("vgg16", "slim"), "swap", content_layers={network.layer: 1.0})
    counts = []
    for painting_file in painting:
        style = load_image(painting_file, size)
        for photo_file in photo:
            content = load_image(photo_file, size)
            content = content[..., : content.shape[-2] // 4 * 4, : content.shape[-1] // 4 * 4]
            with torch.no_grad():
                features = swap(network.encode(content), network.encode(style))
                image = network.inverse(features)
                fast = float(content_loss(network.encode(image.clamp(0, 1)), features))
                start = float(content_loss(network.encode(content), features))
            counts.append(slow_steps(loss, content, style, network.layer, fast, steps))
            name = f"{photo_file.stem} {painting_file.stem}"
            yield name, {"feature loss": fast, "share of the photograph's": fast / start, "steps": counts[-1]}
            if output:
                save_image(image, output / f"{name.replace(' ', '_')}.png")
    yield from {"median": statistics.median(counts), "least": min(counts)}.items()


def slow_steps(loss: PerceptualLoss, content: Tensor, style: Tensor, layer: str, enough: float, most: int) -> int:
    """Steps of Adam until the feature loss is at most ``enough``; ``most`` if it never is."""

    def watch(progress: Any) -> bool:
        return bool(progress.terms[f"content/{layer}"] > enough)

    objective = recipes.swap(loss, content, style)
    return optimize(content, objective, most, optimizer="adam", learning_rate=0.05, callback=watch).iteration


def seconds(photo: Files, painting: Files, model: str = "slim", size: int = 512, repeats: int = 5) -> Figures:
    """One swap and one iteration of Gatys et al., in turn; medians."""
    swapper = Swapper(model_of(model), device="cpu", precision="float32")
    content, style = (load_image(file, size) for file in (photo[0], painting[0]))
    objective = recipes.transfer(preset_loss(load_encoder("vgg19", "random"), "gatys"), content, style)
    runs = {"swap": lambda: swapper(content, style), "10 iterations": lambda: optimize(content, objective, 10)}
    median = in_turn(runs, repeats)
    slow = 50 * median["10 iterations"]
    yield "x".join(map(str, content.shape[-2:])), {**median, "500 iterations": slow, "ratio": slow / median["swap"]}


def memory(model: str = "slim", size: int = 1024, style_size: Sizes = (1024,)) -> Figures:
    """Peak memory and time of one process per size of the style."""
    for side in style_size:
        yield f"{size} px in a style of {side} px", in_own_process(one_swap, model, size, side)


def one_swap(model: str, size: int, style_size: int) -> dict[str, float]:
    """Swap photographs in this process: the most memory that it took, and seconds."""
    swapper = Swapper(model_of(model), device="cpu", precision="float32")
    content, style = (
        np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))
        for pixels, side in ((data.astronaut(), size), (data.coffee(), style_size))
    )
    took = timed(lambda: swapper.pixels(content, style))
    return {"GiB": peak_memory(), "seconds": took}


if __name__ == "__main__":
    measure(__doc__, {"iterations": iterations, "seconds": seconds, "memory": memory})
