"""Small videos made by code, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

#: 30 frames a second, in a unit of time that holds other rates, too.
UNIT = Fraction(1, 600)
STEADY = tuple(range(0, 400, 20))
VARYING = (0, 20, 30, 90, 100, 101, 250, 260, 300, 310, 320, 400, 420, 421, 430, 500)


def picture(number: int, height: int, width: int) -> np.ndarray:
    """A frame: grey that rises, a white line that moves, red at the top left."""
    rgb = np.full((height, width, 3), 7 * number % 200, np.uint8)
    rgb[:, 3 * number % width] = 255
    rgb[: height // 3, : width // 3] = (255, 0, 0)
    return rgb


def make_clip(
    path: Path,
    times: Sequence[int] = STEADY,
    unit: Fraction = UNIT,
    size: tuple[int, int] = (48, 64),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    audio: str = "",
    turn: int = 0,
    rate: int = 48000,
    metadata: dict[str, str] | None = None,
    tags: dict[str, int] | None = None,
    options: dict[str, str] | None = None,
    encoder: dict[str, str] | None = None,
) -> Path:
    """A clip of frames shown at ``times``, in ``unit``, with a tone as long as they are if ``audio`` names a codec."""
    height, width = size
    with av.open(str(path), "w", options=options or {}) as out:
        out.metadata.update(metadata or {})
        stream = out.add_stream(codec, rate=Fraction(30), options=encoder or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = stream.time_base = unit
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if turn:
            stream.set_display_rotation(turn)
        sound = None
        if audio:
            sound = out.add_stream(audio, rate=rate)
            sound.codec_context.layout = "stereo"
        packets: list[Any] = []
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, height, width), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = time, unit
            packets += stream.encode(frame)
        packets += stream.encode()
        if sound is not None:
            packets += tone(sound, rate, float((times[-1] + 20) * unit))
        for packet in sorted(packets, key=lambda packet: float((packet.dts or 0) * packet.time_base)):
            out.mux(packet)
    return path


def tone(stream: Any, rate: int, seconds: float) -> list[Any]:
    """Packets of a tone."""
    packets, count = [], int(rate * seconds)
    wave = (np.sin(np.arange(count) * (2 * np.pi * 440 / rate)) * 8000).astype(np.int16)
    for start in range(0, count, 1000):
        samples = np.repeat(wave[start : start + 1000], 2)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        packets += stream.encode(frame)
    return packets + list(stream.encode())


def times_of(path: Path) -> list[Fraction]:
    """Seconds at which each frame is shown."""
    found = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                found += [frame.pts * frame.time_base for frame in packet.decode()]
            except av.FFmpegError:
                continue
    return found


def samples_of(path: Path) -> int:
    """Samples of audio, in each channel."""
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(audio=0)) if container.streams.audio else 0


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
