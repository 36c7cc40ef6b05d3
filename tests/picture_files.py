"""Picture files made by code."""

from __future__ import annotations

import io
import struct
from typing import Any

from PIL import Image, ImageCms

RED, BLUE = (255, 0, 0), (0, 0, 255)


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def exif_block(*entries: tuple[int, int, bytes]) -> bytes:
    """An EXIF block of (tag, type, value) entries."""
    body = b"".join(struct.pack("<HHI", tag, kind, 1) + value.ljust(4, b"\0") for tag, kind, value in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + b"\0\0\0\0"


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
