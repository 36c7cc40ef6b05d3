"""Between the frames of a video and decoded pictures: matrix and range of luma and chroma, and HDR as SDR.

Numbers of matrices, primaries and transfers are those of ITU-T H.273, which FFmpeg and all containers share.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from fststyle.images import to_levels
from fststyle.video.formats import VideoError

BT709, UNSPECIFIED, BT470BG, SMPTE170M, BT2020 = 1, 2, 5, 6, 9
PQ, HLG = 16, 18
#: Matrices that FFmpeg's scaler knows, by number.
_MATRICES = {
    BT709: Colorspace.ITU709,
    4: Colorspace.FCC,
    BT470BG: Colorspace.ITU624,
    SMPTE170M: Colorspace.SMPTE170M,
    7: Colorspace.SMPTE240M,
    BT2020: Colorspace.BT2020,
}
_RGB_MATRIX = 0
_FLAGS = (
    Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
#: nits of a display's white in SDR, and of the brightest highlights that are told apart (ITU-R BT.2408).
_WHITE, _PEAK = 203.0, 1000.0
#: Linear light above which highlights are compressed.
_KNEE = 0.6
#: Linear RGB of BT.2020 to that of BT.709 (ITU-R BT.2087).
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)


class Color(NamedTuple):
    """How the values of a video are meant."""

    matrix: int
    full: bool
    primaries: int
    transfer: int

    @property
    def hdr(self) -> bool:
        """Whether it is brighter than white: PQ or HLG."""
        return self.transfer in (PQ, HLG)

    @property
    def written(self) -> Color:
        """That of the result: the same, but for HDR and for matrices that few players know."""
        if self.hdr:
            return Color(BT709, False, BT709, BT709)
        known = self.matrix in (BT709, BT470BG, SMPTE170M)
        return self._replace(matrix=self.matrix if known else BT709, full=self.full and self.matrix != _RGB_MATRIX)


def color_of(frame: av.VideoFrame) -> Color:
    """What a frame says of itself; the matrix is guessed, as players do, where it says nothing: BT.601 for small ones.

    Raises:
        VideoError: a matrix that is not converted.
    """
    matrix, kind = int(frame.colorspace), frame.format
    if kind.is_rgb or kind.name.startswith(("pal8", "gray", "mono")):
        return Color(_RGB_MATRIX, True, int(frame.color_primaries), int(frame.color_trc))
    if matrix in (UNSPECIFIED, _RGB_MATRIX):
        matrix = BT709 if frame.width >= 1280 or frame.height > 576 else SMPTE170M
    if matrix not in _MATRICES:
        raise VideoError(f"its colours have matrix {matrix} of ITU-T H.273, which is not converted; convert it first")
    full = int(frame.color_range) == ColorRange.JPEG or kind.name.startswith("yuvj")
    return Color(matrix, full, int(frame.color_primaries), int(frame.color_trc))


def to_rgb(frame: av.VideoFrame, color: Color, height: int, width: int) -> np.ndarray:
    """A frame as a decoded picture (H, W, 3) of that size: uint8, or uint16 if it has more than 8 bits; HDR as SDR."""
    more_bits = max(part.bits for part in frame.format.components) > 8
    if frame.format.name.startswith("yuvj"):  # the range is said already
        frame.color_range = ColorRange.JPEG
    rgb = frame.reformat(
        width=width,
        height=height,
        format="rgb48le" if more_bits or color.hdr else "rgb24",
        src_colorspace=_MATRICES.get(color.matrix),
        src_color_range=ColorRange.JPEG if color.full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_FLAGS,
        threads=1,
    ).to_ndarray()
    return to_sdr(rgb, color) if color.hdr else rgb


def to_frame(rgb: np.ndarray, color: Color, pixels: str) -> av.VideoFrame:
    """A decoded picture, uint8 or uint16 (H, W, 3), as a frame of a pixel format."""
    frame = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(rgb), format="rgb24" if rgb.dtype == np.uint8 else "rgb48le"
    )
    if frame.format.name == pixels:
        return frame
    if pixels in ("bgr0", "rgb24"):
        return frame.reformat(format=pixels, threads=1)
    return frame.reformat(
        format=pixels,
        dst_colorspace=_MATRICES[color.matrix],
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.JPEG if color.full else ColorRange.MPEG,
        interpolation=_FLAGS,
        threads=1,
    )


def to_sdr(rgb: np.ndarray, color: Color) -> np.ndarray:
    """HDR as SDR: white stays white (203 nits), what is brighter is compressed, hues are kept.

    Args:
        rgb: uint16 (H, W, 3), PQ or HLG.
        color: whose primaries are taken for BT.2020's unless they are BT.709's.

    Returns:
        uint8 (H, W, 3), BT.709.
    """
    light = _lights(color.transfer)[rgb]
    if color.transfer == HLG:  # the system's gamma for a display of 1000 nits (ITU-R BT.2100)
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        light *= (_PEAK / _WHITE) * np.power(luminance, 0.2, dtype=np.float32)[..., None]
    if color.primaries != BT709:
        light = (light @ _TO_BT709.T).clip(0)
    most = light.max(2, keepdims=True)
    over = np.maximum(most - _KNEE, 0) / (1 - _KNEE)
    reach = (_PEAK / _WHITE - _KNEE) / (1 - _KNEE)
    compressed = np.minimum(most, _KNEE) + (1 - _KNEE) * over * (1 + over / reach**2) / (1 + over)
    light *= compressed / np.maximum(most, 1e-6)
    return to_levels(np.power(light.clip(0, 1), 1 / 2.4) * 255, np.dtype(np.uint8))


@functools.cache
def _lights(transfer: int) -> np.ndarray:
    """Light of each of 65536 levels, float32: in whites for PQ, of the scene in [0, 1] for HLG (ITU-R BT.2100)."""
    level = np.arange(65536) / 65535
    if transfer == PQ:
        power = level ** (32 / 2523)
        found = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (8192 / 1305)
        return (found * 10000 / _WHITE).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(level <= 0.5, level**2 / 3, (np.exp((level - c) / a) + b) / 12).astype(np.float32)
