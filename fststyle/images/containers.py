"""Sound pictures in odd files: what is wrong around the pixels is set right in a copy of the file's bytes."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib

from PIL import Image

from fststyle.images.profiles import PNG, png_chunks

_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
#: Bytes of chunks that have just so many; of a colour key (tRNS), by the header's colour type.
_LENGTHS = {b"gAMA": (4,), b"cHRM": (32,), b"sRGB": (1,), b"pHYs": (9,), b"cICP": (4,)}
_KEYS = {0: (2,), 2: (6,), 3: range(1, 257)}
#: The next marker after entropy-coded data, in which 0xFF is followed by 0, or is part of a restart marker or of fill.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_END = b"\xff\xd9"
#: Start of frame: all of 0xC0 … 0xCF but for Huffman tables, JPG and arithmetic conditioning.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})


def mended(data: bytes, most: int) -> tuple[bytes, str] | None:
    """A picture file that could not be read, with its container set right, and what was wrong; None: nothing known is.

    Args:
        data: the file.
        most: pixels that a canvas may have.
    """
    if data.startswith(PNG):
        return _png_without_ancillary(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_with_end(data)
    if data.startswith(b"GIF8"):
        return _gif_without_screen(data, most)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        size = struct.pack("<I", len(data) - 8 & ~1)
        return None if size == data[4:8] else (data[:4] + size + data[8:], "its header gives a wrong file size")
    return None


# --- PNG ----------------------------------------------------------------------------------------------


def _png_without_ancillary(data: bytes) -> tuple[bytes, str] | None:
    """Without text, animation, what stands after the pixels, and damaged chunks that hold no pixels."""
    kept, lost, form, pixels = [PNG], [], -1, False
    for name, at, length in png_chunks(io.BytesIO(data)):
        whole = data[at - 8 : at + length + 4]
        sound = int.from_bytes(whole[-4:], "big") == zlib.crc32(whole[4:-4])
        if name == b"IHDR":
            form = whole[17] if length == 13 else -1
        elif name == b"IDAT":
            pixels = True
        fits = length in _LENGTHS.get(name, (length,)) and (name != b"tRNS" or length in _KEYS.get(form, ()))
        damaged = not fits or (name != b"tRNS" and not sound)  # that its colour key is another one would not be seen
        late = pixels and name not in (b"IDAT", b"IEND")
        if name in _TEXT or late or (name[0] & 32 and damaged) or name in _ANIMATION:
            lost.append("text" if name in _TEXT else f"damaged {name.decode('ascii', 'replace')} chunk")
        else:
            kept.append(whole)
    return (b"".join(kept), f"read without its {', '.join(dict.fromkeys(lost))}") if lost else None


# --- JPEG ---------------------------------------------------------------------------------------------


def _jpeg_with_end(data: bytes) -> tuple[bytes, str] | None:
    """With the end marker that is missing; None where pixels are missing, too.

    A decoder takes bits of whatever is put before the end marker as long as it lacks some of the picture: that none are
    missing shows where different fillings give the same picture.
    """
    if not _jpeg_lacks_end(data):
        return None
    data = data[:-1] if data.endswith(b"\xff") else data
    filled = [data + filling * 64 + _END for filling in (b"\0", b"\xff\0", b"\x55", b"\xaa", b"\x35", b"\xca")]
    found = _digest(filled[0])
    if found is None or any(_digest(other) != found for other in filled[1:]):
        return None
    return filled[0], "has no end marker; its picture is there to the end"


def _digest(data: bytes) -> bytes | None:
    found = hashlib.sha256()
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            for top in range(0, picture.height, 256):
                found.update(picture.crop((0, top, picture.width, min(picture.height, top + 256))).tobytes())
    except Exception:  # whatever decoders raise on damaged bytes
        return None
    return found.digest()


def _jpeg_lacks_end(data: bytes) -> bool:
    """Whether a file ends, with no end marker, in scans that give every coefficient in full and have all restarts."""
    at, interval, progressive, restarts = 2, 0, False, 0
    frame = b""
    missing: dict[int, set[int]] = {}  # coefficients by component
    while at < len(data) - 1:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : at + 2 + length]
        if data[at] != 0xFF or marker == _END[1]:
            return False
        if marker == 0xFF:  # fill
            at += 1
            continue
        at += 2 + length
        if marker in _FRAMES and len(segment) >= 6:
            frame, progressive = segment, marker in _PROGRESSIVE
            missing = {component: set(range(64)) for component in frame[6::3]}
        elif marker == 0xDD:
            interval = int.from_bytes(segment, "big")
        elif marker == 0xDA and segment and frame:  # start of scan
            count = segment[0]
            components = segment[1 : 1 + 2 * count : 2]
            first, last, precision = (segment[1 + 2 * count :] + bytes(3))[:3] if progressive else (0, 63, 0)
            for component in components:
                if not precision & 15:
                    missing.get(component, set()).difference_update(range(first, last + 1))
            found = _MARKER.search(data, at)
            end = found.start() if found else len(data)
            restarts = (_units(frame, components) - 1) // interval if interval else 0
            restarts -= len(_RESTART.findall(data, at, end))
            at = end
    return bool(missing) and not any(missing.values()) and not restarts


def _units(frame: bytes, components: bytes) -> int:
    """Of how many minimum coded units a scan of these components consists."""
    height, width = struct.unpack_from(">HH", frame, 1)
    sampling = {frame[at]: (frame[at + 1] >> 4, frame[at + 1] & 15) for at in range(6, len(frame) - 2, 3)}
    across, down = (max(1, *(factors[way] for factors in sampling.values())) for way in (0, 1))
    if len(components) == 1:  # its blocks alone, as many as have pixels
        own = sampling.get(components[0], (1, 1))
        width, height, across, down = -(-width * own[0] // across), -(-height * own[1] // down), 1, 1
    return -(-width // (8 * across)) * -(-height // (8 * down))


# --- GIF ----------------------------------------------------------------------------------------------


def _gif_without_screen(data: bytes, most: int) -> tuple[bytes, str] | None:
    """With a logical screen of the first frame's size, where its own has no pixels or too many."""
    width, height, flags = struct.unpack_from("<HHB", data.ljust(13, b"\0"), 6)
    if 0 < width * height <= most:
        return None
    at = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    while data[at : at + 1] == b"!":  # an extension
        at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    if data[at : at + 1] != b"," or at + 9 > len(data):
        return None
    frame = data[at + 5 : at + 9]
    patched = data[:6] + frame + data[10 : at + 1] + bytes(4) + data[at + 5 :]
    size = "×".join(map(str, struct.unpack("<HH", frame)))
    return patched, f"has a logical screen of {width}×{height} pixels; read is its first frame of {size}"
