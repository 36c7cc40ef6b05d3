"""Pictures for a model card: what a model makes of a photograph. The painting is not shown."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np

from fststyle.checks import check_name
from fststyle.images import ImageError, load_image, resize_pixels, save_image, to_pixels
from fststyle.inference import Stylizer, Swapper, Upscaler
from fststyle.model_file import read_metadata, style_names
from fststyle.training.generated import dead_leaves
from fststyle.training.thumbnails import photograph

#: The longer side of pictures, pixels; of those of style swap, which compares all patches.
SIDE, SWAP_SIDE = 640, 320


def make_pictures(path: Path, folder: Path, photo: str | os.PathLike[str] | None = None) -> tuple[dict[str, str], str]:
    """Write the pictures of a model file into a folder.

    Args:
        path: of kind style, superres or swap.
        folder: that there is.
        photo: a picture file; None: one that comes with scikit-image, or is made by code.

    Returns:
        The names of the files, by what they show, the photograph first; and a sentence on where that comes from.

    Raises:
        ImageError: a photo that cannot be read, or is too small.
    """
    metadata = read_metadata(path)
    kind, name = metadata["kind"], str(metadata["name"])
    rgb, origin = _photograph(photo, SWAP_SIDE if kind == "swap" else SIDE)
    made = {"photograph": rgb}
    if kind == "superres":
        scale = int(metadata["network"]["arguments"]["scale"])
        height, width = (length // scale for length in rgb.shape[:2])
        if min(height, width) < 16:
            raise ImageError(f"{photo}: is too narrow to be reduced {scale} times; expected a more square photograph")
        small = resize_pixels(rgb[: height * scale, : width * scale], height, width)
        made = {"bicubic": resize_pixels(small, height * scale, width * scale)}
        made[name] = Upscaler.from_checkpoint(path).pixels(small)
        origin += f" It was reduced {scale} times, and enlarged again by interpolation and by the network."
    elif kind == "swap":
        made["painted by code"] = dead_leaves(SWAP_SIDE, np.random.default_rng(0))
        made[name] = Swapper.from_checkpoint(path).pixels(rgb, made["painted by code"])
    else:
        for style in style_names(metadata):
            made[style] = Stylizer.from_checkpoint(path / style if "styles" in metadata else path).pixels(rgb)
    files = {}
    for label, pixels in made.items():
        own = label in style_names(metadata)
        stem = check_name(f"photograph_{label}", "the name of a style", ".jpg") if own else label.replace(" ", "_")
        files[label] = f"{stem}.jpg"
        save_image(pixels, folder / files[label])
    return files, origin.strip()


def _photograph(photo: str | os.PathLike[str] | None, side: int) -> tuple[np.ndarray, str]:
    if photo is not None:
        return to_pixels(load_image(photo, side)), ""
    if importlib.util.find_spec("skimage"):
        return np.asarray(photograph(side)), "The photograph comes with scikit-image."
    return np.asarray(photograph(side)), "The picture that stands for a photograph was made by code."
