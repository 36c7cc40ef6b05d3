"""Pictures: the one image contract (``arrays``), files in (``reading``) and out (``writing``), by Pillow (``pillow``)
or, where they are never whole in memory or have 16 bits, by libvips (``large``).
"""

from fststyle.images.arrays import MIN_SIDE, check_size, contact_sheet, to_image, to_levels, to_pixels, top_level
from fststyle.images.pillow import (
    MAX_PIXELS,
    Header,
    ImageError,
    Picture,
    TooManyPixelsError,
    open_picture,
    read_header,
)
from fststyle.images.reading import LARGE, SUFFIXES, check_sides, find_pictures, load_image, read_picture
from fststyle.images.sizes import resize_longer_side, resize_pixels, resize_shorter_side
from fststyle.images.writing import check_ending, check_writable, existing_part, save_image, write_atomically

__all__ = [
    "LARGE",
    "MAX_PIXELS",
    "MIN_SIDE",
    "SUFFIXES",
    "Header",
    "ImageError",
    "Picture",
    "TooManyPixelsError",
    "check_ending",
    "check_sides",
    "check_size",
    "check_writable",
    "contact_sheet",
    "existing_part",
    "find_pictures",
    "load_image",
    "open_picture",
    "read_header",
    "read_picture",
    "resize_longer_side",
    "resize_pixels",
    "resize_shorter_side",
    "save_image",
    "to_image",
    "to_levels",
    "to_pixels",
    "top_level",
    "write_atomically",
]
