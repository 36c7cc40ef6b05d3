"""What comes out: containers by the ending of a name, and the codecs that each takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fststyle.images import ImageError, check_ending

#: A number in the name of pictures, as FFmpeg writes it: ``%d``, ``%06d``.
NUMBER = re.compile(r"%0?(\d*)d")


class VideoError(ValueError):
    """A video that cannot be read or written as asked; the message says why."""


@dataclass(frozen=True)
class Codec:
    """A video codec and how it is used.

    Args:
        encoder: FFmpeg's name.
        pixels: FFmpeg's pixel format.
        crf: constant rate factor, the default and the largest; None where there is none.
        even: both sides have to be even.
        options: for the encoder.
        rgb: what is stored is RGB, not luma and chroma.
    """

    encoder: str
    pixels: str = "yuv420p"
    crf: tuple[int, int] | None = None
    even: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    rgb: bool = False


#: By the names that ``--codec`` takes.
CODECS = {
    "h264": Codec("libx264", crf=(20, 51), even=True, options={"preset": "veryfast"}),
    "h265": Codec("libx265", crf=(24, 51), even=True, options={"preset": "fast", "x265-params": "log-level=error"}),
    "vp9": Codec("libvpx-vp9", crf=(31, 63), options={"b": "0", "cpu-used": "4", "row-mt": "1"}),
    "av1": Codec("libsvtav1", crf=(30, 63), options={"preset": "8"}),
    "prores": Codec("prores_ks", "yuv422p10le", options={"profile": "hq", "vendor": "apl0"}),
    "ffv1": Codec("ffv1", "bgr0", rgb=True),
    "gif": Codec("ffv1", "bgr0", rgb=True),  # until all frames are there
}
_ALL = ("h264", "h265", "vp9", "av1", "prores", "ffv1")


@dataclass(frozen=True)
class Container:
    """A kind of file.

    Args:
        muxer: FFmpeg's name; empty for numbered pictures.
        codecs: by ``CODECS``, the default first.
        audio: codecs that are copied into it; None: whatever the muxer takes.
        encoder: for audio that is not; empty: it holds none.
        subtitles: codec that text is converted to; empty: none.
        options: for the muxer.
    """

    muxer: str
    codecs: tuple[str, ...] = ()
    audio: frozenset[str] | None = frozenset()
    encoder: str = ""
    subtitles: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


_MP4_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
_PCM = frozenset({"pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_f32le", "pcm_s32le"})
_MP4 = Container("mp4", ("h264", "h265", "vp9", "av1"), _MP4_AUDIO, "aac", "mov_text", {"movflags": "+faststart"})
CONTAINERS = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container("mov", ("prores", "h264", "h265"), _MP4_AUDIO - {"opus", "flac"} | _PCM, "pcm_s16le", "mov_text"),
    ".mkv": Container("matroska", _ALL, None, "aac", "subrip"),
    ".webm": Container("webm", ("vp9", "av1"), frozenset({"opus", "vorbis"}), "libopus"),
    ".gif": Container("gif", ("gif",)),
}


@dataclass(frozen=True)
class Output:
    """How a video is written; see ``output_of``."""

    container: Container
    codec: Codec
    crf: int | None = None

    @property
    def pictures(self) -> bool:
        """Whether it is numbered pictures."""
        return not self.container.muxer


def output_of(path: Path, codec: str | None = None, crf: int | None = None) -> Output:
    """How a video of that name is written.

    Args:
        path: its ending chooses the container; a name with ``%d`` or ``%06d`` stands for numbered pictures.
        codec: one of ``CODECS``; None: the container's first.
        crf: constant rate factor, lower is better; None: the codec's default.

    Raises:
        VideoError: an unknown ending, a codec that the container does not hold, a rate factor that the codec has not.
    """
    if NUMBER.search(path.name):
        if codec is not None or crf is not None:
            raise VideoError(f"{path}: stands for numbered pictures, which take neither --codec nor --crf")
        try:
            check_ending(path)
        except ImageError as error:
            raise VideoError(str(error)) from None
        return Output(Container(""), Codec("", rgb=True))
    container = CONTAINERS.get(path.suffix.lower())
    if container is None:
        known = f"{', '.join(CONTAINERS)}, or numbered pictures, as frames/%06d.png"
        raise VideoError(f"{path}: no kind of video that is written ends in {path.suffix or 'nothing'!r}; use {known}")
    name = codec or container.codecs[0]
    if name not in container.codecs:
        fitting = " or ".join(ending for ending, each in CONTAINERS.items() if name in each.codecs)
        raise VideoError(
            f"{path}: {path.suffix} holds no {name}; expected {', '.join(container.codecs)}, or a file in {fitting}"
        )
    chosen = CODECS[name]
    if crf is not None and (chosen.crf is None or not 0 <= crf <= chosen.crf[1]):
        expected = f"expected 0 to {chosen.crf[1]}" if chosen.crf else f"{name} has none; leave it out"
        raise VideoError(f"found --crf {crf}: {expected}")
    return Output(container, chosen, crf)
