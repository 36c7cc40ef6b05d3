"""Colours of videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from clips import make_clip
from fststyle.inference import StylizeOptions, Stylizer
from fststyle.networks.transform import TransformNet
from fststyle.video import VideoOptions, VideoSource, encode, stylize_video
from fststyle.video.color import HLG, PQ, Color, color_of, to_frame, to_sdr

#: The photograph itself, so that no network is run.
NONE = StylizeOptions(strength=0)


@pytest.fixture
def stylizer(network: TransformNet) -> Stylizer:
    return Stylizer(network, {"name": "wave"}, "cpu")


@pytest.fixture(autouse=True)
def _heard() -> None:
    av.logging.set_level(av.logging.ERROR)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114), (6, 0.299, 0.114)])
def test_matrix_and_range_are_read_written_and_tagged(
    matrix: int, red: float, blue: float, full: bool, tmp_path: Path, stylizer: Stylizer
) -> None:
    rgb = np.zeros((32, 64, 3), np.uint8)
    rgb[:, 16:32], rgb[:, 32:48], rgb[:, 48:] = (200, 30, 60), (20, 180, 90), (255, 255, 255)
    color = Color(matrix, full, 1, 1)
    y, *_ = to_frame(rgb, color, "yuv444p").to_ndarray().astype(float)
    luma = (red * rgb[..., 0] + (1 - red - blue) * rgb[..., 1] + blue * rgb[..., 2]) / 255
    assert np.abs(y - (luma * 255 if full else luma * 219 + 16)).max() < 1
    source = tmp_path / "clip.mkv"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv444p"
        encode.tag_colors(stream.codec_context, encode.Codec("ffv1"), color)
        for number in range(2):
            frame = to_frame(rgb, color, "yuv444p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    read = VideoSource(source)
    assert (read.color.matrix, read.color.full) == (matrix, full)
    target = tmp_path / "out.mp4"
    stylize_video(source, target, stylizer, NONE, VideoOptions(crf=1))
    made = VideoSource(target)
    assert made.color == color
    shown = made.pixels(next(made.frames()).shown, 32, 64).astype(int)
    assert np.abs(shown - rgb)[:, 6::16].max() < 8  # chroma is at half the size


def test_untagged_frames_are_taken_as_players_take_them() -> None:
    assert color_of(av.VideoFrame(720, 576, "yuv420p"))[:2] == (6, False)
    assert color_of(av.VideoFrame(1280, 720, "yuv420p"))[:2] == (1, False)
    assert color_of(av.VideoFrame(640, 480, "yuvj420p"))[:2] == (6, True)


def test_hdr_keeps_white_grey_and_hue() -> None:
    white = 10 ** (np.log10(203 / 10000) * 2610 / 16384)
    level = ((0.8359375 + 18.8515625 * white) / (1 + 18.6875 * white)) ** 78.84375
    black, grey = to_sdr(np.array([[[0] * 3, [round(level * 65535 * 0.75)] * 3]], np.uint16), Color(9, False, 9, PQ))[0]
    assert black.tolist() == [0, 0, 0]
    assert len({*grey.tolist()}) == 1
    peak = to_sdr(np.full((1, 1, 3), 65535, np.uint16), Color(9, False, 9, HLG))
    assert np.abs(peak.astype(int) - 255).max() <= 1
    reference = to_sdr(np.full((1, 1, 3), round(0.75 * 65535), np.uint16), Color(9, False, 9, HLG))
    assert 200 < reference.min() < 240  # 75 % of HLG is white, with room for highlights above


def test_an_hdr_video_is_converted_and_said(tmp_path: Path, stylizer: Stylizer) -> None:
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": HLG, "color_range": 1}
    source = make_clip(tmp_path / "clip.mkv", codec="ffv1", pixels="yuv420p10le", tags=tags, times=(0, 20))
    report = stylize_video(source, tmp_path / "out.mp4", stylizer, NONE)
    assert report.notes == ["HDR converted to SDR (BT.709)"]
    assert VideoSource(tmp_path / "out.mp4").color == Color(1, False, 1, 1)
