"""Pictures: the one image contract (``arrays``), files in (``folders``, ``reading``) and out (``writing``), by Pillow
(``pillow``) or, where they are never whole in memory or have 16 bits, by libvips (``large``).
"""

from fststyle.images.arrays import (
    MIN_SIDE,
    check_size,
    contact_sheet,
    resize_longer_side,
    resize_pixels,
    resize_shorter_side,
    to_image,
    to_levels,
    to_pixels,
    top_level,
)
from fststyle.images.folders import SUFFIXES, Failure, find_pictures, no_pictures, search
from fststyle.images.masks import feathered, read_mask
from fststyle.images.pillow import (
    MAX_PIXELS,
    Header,
    ImageError,
    Picture,
    TooManyPixelsError,
    check_file,
    open_picture,
    read_header,
)
from fststyle.images.reading import LARGE, check_sides, check_style_sides, load_image, load_visible, read_picture
from fststyle.images.transparency import open_visible
from fststyle.images.writing import (
    check_ending,
    check_folder,
    check_writable,
    existing_part,
    save_image,
    write_atomically,
)

__all__ = [
    "LARGE",
    "MAX_PIXELS",
    "MIN_SIDE",
    "SUFFIXES",
    "Failure",
    "Header",
    "ImageError",
    "Picture",
    "TooManyPixelsError",
    "check_ending",
    "check_file",
    "check_folder",
    "check_sides",
    "check_size",
    "check_style_sides",
    "check_writable",
    "contact_sheet",
    "existing_part",
    "feathered",
    "find_pictures",
    "load_image",
    "load_visible",
    "no_pictures",
    "open_picture",
    "open_visible",
    "read_header",
    "read_mask",
    "read_picture",
    "resize_longer_side",
    "resize_pixels",
    "resize_shorter_side",
    "save_image",
    "search",
    "to_image",
    "to_levels",
    "to_pixels",
    "top_level",
    "write_atomically",
]
