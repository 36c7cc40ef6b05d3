"""Make the README's gallery: photographs that come with scikit-image, in every shipped style.

    python scripts/make_gallery.py

Writes docs/gallery/PHOTO.jpg and docs/gallery/PHOTO_STYLE.jpg, longer side 512 pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data as pictures

from fststyle import Stylizer, save_image
from fststyle.images import resize_longer_side, to_image
from fststyle.networks.checkpoint import shipped

GALLERY = Path(__file__).resolve().parent.parent / "docs" / "gallery"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")


def main() -> None:
    GALLERY.mkdir(parents=True, exist_ok=True)
    stylizers = {name: Stylizer.from_checkpoint(path) for name, path in shipped("style").items()}
    for photo in PHOTOGRAPHS:
        pixels = np.asarray(resize_longer_side(Image.fromarray(getattr(pictures, photo)()), 512))
        save_image(pixels, GALLERY / f"{photo}.jpg")
        for name, stylizer in stylizers.items():
            save_image(stylizer(to_image(pixels)), GALLERY / f"{photo}_{name}.jpg")
            print(GALLERY / f"{photo}_{name}.jpg")


if __name__ == "__main__":
    main()
