"""One photograph in many styles, side by side with their names: to choose by.

from fststyle.inference.sheet import style_sheet

style_sheet("photo.jpg", ["wave", "zoo/udnie"], "sheet.jpg")
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fststyle.checks import check_path
from fststyle.images import check_ending, check_writable, contact_sheet, existing_part, read_picture, save_image
from fststyle.inference.options import PLAIN, StylizeOptions
from fststyle.inference.stylizer import Stylizer
from fststyle.inference.written import check_replaced, remember
from fststyle.resources import printable, working

#: Longer side of each picture, in pixels.
SIZE = 320


def style_sheet(
    photo: str | os.PathLike[str],
    styles: Sequence[str],
    target: str | os.PathLike[str],
    size: int = SIZE,
    options: StylizeOptions = PLAIN,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    overwrite: bool = False,
) -> Path:
    """Write a photograph and its results in rows of about the shape of a page; returns the file.

    Args:
        photo: a picture file.
        styles: bundled names, or model files.
        target: the picture to write.
        size: longer side of each picture, in pixels.
        options, device, backend, precision: as for ``stylize_files``.
        overwrite: replace a picture that no run wrote.

    Raises:
        ValueError, OSError: a photograph or a style that cannot be read, or a target that cannot be written.
    """
    path = check_path(target, "--sheet")
    check_ending(path)
    check_replaced([path], [Path(photo)], overwrite)
    check_writable(existing_part(path.parent))
    stylizers = [Stylizer.from_checkpoint(style, device, backend, precision) for style in styles]
    rgb = read_picture(Path(photo), size).rgb
    cells = [_captioned(rgb, "")]
    with working(f"the sheet of {len(styles)} styles"):
        for stylizer, style in zip(stylizers, styles, strict=True):
            cells.append(_captioned(stylizer.pixels(rgb, options), str(stylizer.metadata.get("name", style))))
    height, width = cells[0].shape[:2]
    columns = max(1, round(math.sqrt(len(cells) * height / width * 1.4)))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(contact_sheet([cells[at : at + columns] for at in range(0, len(cells), columns)]), path)
    remember(path)
    return path


def _captioned(rgb: np.ndarray, text: str) -> np.ndarray:
    """A picture, uint8 (H, W, 3), with a line of text below."""
    height, width = rgb.shape[:2]
    font = ImageFont.load_default(max(10, max(height, width) // 20))
    line = math.ceil(1.5 * font.getbbox("Ag")[3])
    cell = Image.new("RGB", (width, height + line), "white")
    cell.paste(Image.fromarray(rgb))
    ImageDraw.Draw(cell).text((2, height + line // 8), printable(text), fill="black", font=font)
    return np.asarray(cell)
