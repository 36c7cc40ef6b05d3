"""Frames out: encoded into parts that each are complete, so that a run can end anywhere and go on from there.

The parts of a video lie in a folder of their own until it is whole. In a part, frames are numbered in milliseconds;
when each is shown, and how long, is in the file of numbers beside it, which is written last: without it, there is no
part.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from fststyle.images import save_image, write_atomically
from fststyle.video.color import Color, to_frame
from fststyle.video.formats import NUMBER, Codec, Output, VideoError

#: Frames of a part, which begins with a key frame.
PART = 250
#: Seconds after which a part ends with fewer frames, if it has at least so many.
PART_SECONDS, LEAST = 60.0, 12
#: Milliseconds, in a part, before the first frame: room for what precedes it in the order of decoding.
_BEFORE = 64


@dataclass(frozen=True)
class Part:
    """Frames that are done, in the order in which they are shown; times and durations are in units of the time base."""

    file: Path
    times: list[int]
    durations: list[int]


@dataclass
class Parts:
    """The folder of the parts of a video.

    Args:
        folder: made when the first part is written.
        settings: that all parts are made by.
    """

    folder: Path
    settings: dict[str, Any]

    @classmethod
    def beside(cls, target: Path, settings: dict[str, Any]) -> Parts:
        """Those of the video ``target``."""
        name = NUMBER.sub("0", target.name)
        return cls(target.with_name(f".{name}.parts"), settings)

    @property
    def begun(self) -> bool:
        """Whether an earlier run left something."""
        return (self.folder / "settings.json").is_file()

    def check(self) -> None:
        """Raise ``VideoError`` unless an earlier run's parts were made by the same settings."""
        try:
            found = json.loads((self.folder / "settings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise VideoError(f"{self.folder}: its settings cannot be read; remove the folder and begin anew") from None
        changed = [name for name in self.settings if found.get(name) != self.settings[name]]
        if changed:
            there = ", ".join(f"{name} ({found.get(name)}, now {self.settings[name]})" for name in changed)
            raise VideoError(
                f"{self.folder}: was begun with another {there}; give the same, or remove the folder and begin anew"
            )

    def begin(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_json(self.folder / "settings.json", self.settings)

    def done(self) -> list[Part]:
        """Parts without a gap between them, from the first frame on."""
        found: list[Part] = []
        count = 0
        while (numbers := self.folder / f"{count:09d}.json").is_file():
            read = json.loads(numbers.read_text(encoding="utf-8"))
            found.append(Part(numbers.with_suffix(".mkv"), read["times"], read["durations"]))
            count += len(read["times"])
        return found

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


class PartWriter:
    """Encodes frames into parts.

    Args:
        parts: where to; those that are there are gone on from.
        output: the codec.
        color: of the frames.
        rate: frames a second, for the encoder.
        pixel_shape: width of a pixel over its height.
    """

    def __init__(self, parts: Parts, output: Output, color: Color, rate: Fraction, pixel_shape: Fraction) -> None:
        self.parts, self.output, self.color, self.rate, self.shape = parts, output, color, rate, pixel_shape
        self.count = sum(len(part.times) for part in parts.done())
        self._container: Any = None
        self._times: list[int] = []
        self._durations: list[int] = []
        self._last: np.ndarray | None = None

    def write(self, rgb: np.ndarray | None, time_: int, duration: int) -> None:
        """One more frame; None: the one before again."""
        self._last = rgb = self._last if rgb is None else rgb
        assert rgb is not None
        if self._container is None:
            self._open(*rgb.shape[:2])
        codec = self.output.codec
        frame = to_frame(_padded(rgb) if codec.even else rgb, self.color, codec.pixels)
        frame.pts, frame.time_base = len(self._times), 1 / self.rate
        self._times.append(time_)
        self._durations.append(duration)
        self._mux(self._stream.encode(frame))
        full = time.monotonic() - self._began > PART_SECONDS and len(self._times) >= LEAST
        if full or len(self._times) >= PART:
            self.close()

    def close(self) -> None:
        """End the part: its frames are safe then."""
        if self._container is None:
            return
        self._mux(self._stream.encode())
        self._container.close()
        self._container = None
        with contextlib.suppress(OSError), open(self._file, "rb") as file:
            os.fsync(file.fileno())
        _write_json(self._file.with_suffix(".json"), {"times": self._times, "durations": self._durations})
        self.count += len(self._times)
        self._times, self._durations = [], []

    def _open(self, height: int, width: int) -> None:
        codec = self.output.codec
        self._file, self._began = self.parts.folder / f"{self.count:09d}.mkv", time.monotonic()
        self._container = av.open(os.fspath(self._file), "w", format="matroska")
        self._stream = stream = self._container.add_stream(codec.encoder, rate=self.rate, options=_options(self.output))
        stream.width, stream.height = width + (codec.even and width % 2), height + (codec.even and height % 2)
        stream.pix_fmt = codec.pixels
        context = stream.codec_context
        context.time_base, stream.time_base = 1 / self.rate, Fraction(1, 1000)
        context.sample_aspect_ratio = self.shape
        tag_colors(context, codec, self.color)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.pts += _BEFORE
            packet.dts = min(packet.pts, packet.dts + _BEFORE)
            packet.duration, packet.time_base = 1, Fraction(1, 1000)
            self._container.mux(packet)


class PictureWriter:
    """Frames as numbered pictures, each whole or not there.

    Args:
        target: a name with ``%d`` or ``%06d``.
        skip: how many are there already.
    """

    def __init__(self, target: Path, skip: int = 0) -> None:
        self.target, self.count = target, skip
        self._last: np.ndarray | None = None

    def write(self, rgb: np.ndarray | None, time_: int, duration: int) -> None:
        """One more picture."""
        self._last = rgb = self._last if rgb is None else rgb
        assert rgb is not None
        save_image(rgb, numbered(self.target, self.count + 1))
        self.count += 1

    def close(self) -> None:
        """Nothing is left to do."""


def numbered(pattern: Path, number: int) -> Path:
    """The name of a picture, of a name with ``%d`` or ``%06d``."""
    return pattern.with_name(NUMBER.sub(lambda found: str(number).zfill(int(found[1] or 0)), pattern.name, count=1))


def numbered_pictures(pattern: Path) -> int:
    """How many pictures are there, from number 1 on."""
    count = 0
    while numbered(pattern, count + 1).is_file():
        count += 1
    return count


def packets_of(parts: list[Part]) -> Iterator[tuple[Any, int, int]]:
    """The packets of all parts in the order of decoding, each with its frame's time and duration."""
    for part in parts:
        with av.open(os.fspath(part.file)) as container:
            packets: list[Any] = [packet for packet in container.demux(video=0) if packet.size]
            base = min(packet.pts for packet in packets)
            if len(packets) != len(part.times):
                raise VideoError(f"{part.file}: has {len(packets)} frames of {len(part.times)}; remove it and resume")
            for packet in packets:
                yield packet, part.times[packet.pts - base], part.durations[packet.pts - base]


def tag_colors(context: Any, codec: Codec, color: Color) -> None:
    """Write into a stream how its values are meant."""
    context.colorspace = 0 if codec.rgb else color.matrix
    context.color_range = 2 if codec.rgb or color.full else 1
    context.color_primaries, context.color_trc = color.primaries, color.transfer


def _options(output: Output) -> dict[str, str]:
    codec = output.codec
    chosen = {} if codec.crf is None else {"crf": str(codec.crf[0] if output.crf is None else output.crf)}
    return {**codec.options, **chosen}


def _padded(rgb: np.ndarray) -> np.ndarray:
    """With the last row and column repeated where a side is odd."""
    height, width = rgb.shape[:2]
    return np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else rgb


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, lambda file: file.write(json.dumps(content).encode()))
