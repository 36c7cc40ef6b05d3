"""EXIF for TIFF files that libvips has written, which writes none."""

from __future__ import annotations

import os
import struct
from typing import IO

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

#: Directories of their own, which an entry of the first one points to.
_PARTS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_LONG, _LONG8 = 4, 16


def add_exif(file: IO[bytes], block: bytes) -> None:
    """Give a TIFF or BigTIFF file an EXIF block.

    The file's first directory is written anew behind its pixels, with the block's entries among its own, and the
    header points there. (TIFF 6.0, section 2; EXIF 2.3, 4.6.)

    Args:
        file: open for reading and writing.
        block: as ``Picture`` has it; its entries take the place of those that the file has.

    Raises:
        OSError: no space is left.
    """
    file.seek(0)
    start = file.read(16)
    order, big = "<" if start[:2] == b"II" else ">", 43 in start[2:4]
    # BigTIFF counts and points with 8 bytes: the header's pointer, a directory's count, an entry.
    pointer, count, width, at = ("Q", "Q", 20, 8) if big else ("L", "H", 12, 4)

    def entries(directory: bytes) -> dict[int, bytes]:
        (number,) = struct.unpack_from(order + count, directory)
        first = struct.calcsize(count)
        rows = (directory[first + n * width : first + (n + 1) * width] for n in range(number))
        return {struct.unpack_from(order + "H", row)[0]: row for row in rows}

    def append(data: bytes) -> int:
        place = _end(file)
        file.write(data)
        return place

    def serialised(values: dict[int, object], group: int | None = None) -> bytes:
        directory = ImageFileDirectory_v2(start if big else start[:8], group=group)
        for tag, value in values.items():
            directory[tag] = value
        return directory.tobytes(_end(file))

    exif = Image.Exif()
    exif.load(block)
    main = serialised({tag: value for tag, value in exif.items() if tag not in _PARTS})
    append(main)
    (first,) = struct.unpack_from(order + pointer, start, at)
    file.seek(first)
    head = file.read(struct.calcsize(count))
    merged = entries(head + file.read(struct.unpack(order + count, head)[0] * width)) | entries(main)
    for part in _PARTS:
        if exif.get_ifd(part):
            place = append(serialised(exif.get_ifd(part), part))
            kind = _LONG8 if big else _LONG
            merged[part] = struct.pack(order + "HH" + 2 * pointer, part, kind, 1, place)
    directory = struct.pack(order + count, len(merged)) + b"".join(merged[tag] for tag in sorted(merged))
    place = append(directory + bytes(struct.calcsize(pointer)))  # no directory follows
    file.seek(at)
    file.write(struct.pack(order + pointer, place))


def _end(file: IO[bytes]) -> int:
    """Where a directory may begin behind all that is there: at an even place."""
    if file.seek(0, os.SEEK_END) % 2:
        file.write(b"\0")
    return file.tell()
