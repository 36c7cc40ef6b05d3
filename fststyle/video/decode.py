"""Videos in: what a file holds, its frames with their timestamps, and what of it cannot be read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from fststyle.checks import absent
from fststyle.video.color import color_of, to_rgb
from fststyle.video.formats import NUMBER, VideoError

#: Frames a second, where a file does not say.
RATE = Fraction(25)
#: Seconds by which the last frame may end before the time that a file names, without being missed.
_TOLERANCE = 0.5


class Timed(NamedTuple):
    """What is shown from a time on, for a duration; both in units of a time base."""

    shown: Any
    time: int
    duration: int


@dataclass
class Damage:
    """What of a video could not be read; ``str`` says it, empty for nothing."""

    #: Packets that no frame could be made of.
    packets: int = 0
    #: Frames that are there, but not as they were.
    corrupt: int = 0
    #: Frames, or seconds, that the file says it has and has not.
    missing: str = ""
    #: Where reading ended early, why.
    ended: str = ""
    #: The first thing that a decoder complained of.
    said: str = ""

    def __str__(self) -> str:
        found = [self.missing] if self.missing else []
        if self.packets:
            found.append(f"{self.packets} packets cannot be decoded")
        if self.corrupt:
            found.append(f"{self.corrupt} frames are not as they were")
        if self.ended:
            found.append(f"reading ended early ({self.ended})")
        return ", ".join(found or ([f"a part of it ({self.said})"] if self.said else []))


def opened(path: Path) -> av.container.InputContainer:
    """A file, or pictures numbered as ``%06d`` says, opened for reading.

    Raises:
        VideoError: none, or none that can be read.
    """
    if not path.exists() and not NUMBER.search(path.name):
        raise VideoError(absent(path, "a video"))
    try:
        return av.open(os.fspath(path.absolute()), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path}: is no video that can be read ({_reason(error)})") from None


class VideoSource:
    """A video file: its first frame is decoded when it is opened, the others by ``frames``.

    Args:
        path: the file, or the name of numbered pictures, such as ``frames/%06d.png``.

    Raises:
        VideoError: it cannot be read, or not one frame of it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.damage = path, Damage()
        with opened(path) as container:
            stream = _video_stream(container, path)
            first = next(self._decoded(container, stream), None)
            if first is None:
                raise VideoError(f"{path}: not one frame can be decoded; {self.damage or 'it is damaged'}")
            self.color = color_of(first)
            self.interlaced = bool(first.interlaced_frame)
            #: Quarter turns, counter-clockwise, that bring frames upright.
            self.turns = round(first.rotation / 90) % 4
            sides = (first.height, first.width)
            self.height, self.width = sides if self.turns % 2 == 0 else sides[::-1]
            shape = stream.sample_aspect_ratio or Fraction(1)
            self.pixel_shape = Fraction(1) if shape <= 0 else shape if self.turns % 2 == 0 else 1 / shape
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or RATE)
            self.time_base = Fraction(stream.time_base or 1 / self.rate)
            #: How many frames there should be; 0: not known.
            self.count = stream.frames
            self._slack = 2 if container.format.name == "avi" else 0  # which counts delays of the encoder, too
            whole = None if container.duration is None else container.duration / av.time_base
            self.seconds = float(stream.duration * self.time_base) if stream.duration else whole
            self._sure = bool(stream.duration)

    def frames(self, start: float = 0.0) -> Iterator[Timed]:
        """Every frame from ``start`` (seconds) on, or some before it, as PyAV has it, by its timestamp.

        What cannot be decoded is left out and counted in ``damage``.
        """
        if start > 0:
            frames = self._frames(start)
            first = next(frames, None)
            if first is not None and first.time * self.time_base <= start:
                yield first
                yield from frames
                return  # else the index leads too far, and everything is read
        self.damage = Damage()
        yield from self._frames(0.0)

    def _frames(self, start: float) -> Iterator[Timed]:
        step, last, count = max(1, round(1 / self.rate / self.time_base)), None, 0
        with opened(self.path) as container:
            stream = _video_stream(container, self.path)
            # Not by frames: threads that outlive a call report errors, and wait for Python, which waits for them.
            stream.thread_type = "SLICE"
            if start > 0:
                with contextlib.suppress(av.FFmpegError):
                    container.seek(int(start / self.time_base), stream=stream)
            for frame in self._decoded(container, stream):
                time = frame.pts
                if last is not None and (time is None or time <= last):
                    time = last + (step if time is None else 1)
                last = time if time is not None else 0
                duration = frame.duration if (frame.duration or 0) > 0 else step
                count += 1
                yield Timed(frame, last, duration)
        if start <= 0 and not self.damage.missing:
            end = 0.0 if last is None else float((last + step) * self.time_base)
            if self.count and count < self.count - self._slack:
                self.damage.missing = f"{self.count - count} of {self.count} frames are missing"
            elif not self.count and self._sure and self.seconds and end < self.seconds - _TOLERANCE:
                self.damage.missing = f"the last {self.seconds - end:.1f} of {self.seconds:.1f} seconds are missing"

    def _decoded(self, container: Any, stream: Any) -> Iterator[av.VideoFrame]:
        """All frames that can be had, as long as there is one more."""
        names = (stream.codec_context.name, container.format.name)
        with av.logging.Capture(local=False) as said:
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets)
                except StopIteration:
                    break
                except (av.FFmpegError, OSError) as error:
                    self.damage.ended = _reason(error)
                    packet = None
                try:
                    frames = stream.decode(packet) if packet is None else packet.decode()
                except (av.FFmpegError, OSError) as error:
                    self.damage.packets += not isinstance(error, av.EOFError)
                    frames = []
                for frame in frames:
                    self.damage.corrupt += bool(frame.is_corrupt)
                    yield frame
                self._hear(said, names)
                if packet is None:
                    break

    def _hear(self, said: list[tuple[int, str, str]], names: Iterable[str]) -> None:
        """Remember the first error of the demuxer or the decoder, and forget all."""
        for level, name, message in said:
            if level <= av.logging.ERROR and name in names and not self.damage.said:
                self.damage.said = " ".join(message.split())
        said.clear()

    def pixels(self, frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
        """A frame upright, as a decoded picture (height, width, 3)."""
        sides = (height, width) if self.turns % 2 == 0 else (width, height)
        rgb = to_rgb(frame, self.color, *sides)
        return np.ascontiguousarray(np.rot90(rgb, self.turns)) if self.turns else rgb


def selected(
    frames: Iterator[Timed],
    time_base: Fraction,
    start: float = 0.0,
    end: float | None = None,
    fps: Fraction | None = None,
) -> Iterator[Timed]:
    """The frames that are shown from ``start`` to before ``end`` (seconds), with times from ``start`` on.

    With ``fps`` there is one for each of that many parts of a second, in units of 1 / fps: the frame that is shown
    then; where it is the one before, ``shown`` is None.
    """
    base, tick = _exactly(start), 0
    stop = None if end is None else _exactly(end)
    first = round(base / time_base)
    chosen: Timed | None = None
    fresh = False

    def ticks(until: Fraction) -> Iterator[Timed]:
        nonlocal tick, fresh
        assert fps is not None
        assert chosen is not None
        while base + tick / fps < until:
            yield Timed(chosen.shown if fresh else None, tick, 1)
            tick, fresh = tick + 1, False

    for frame in _from(frames, first) if start else frames:
        if stop is not None and frame.time * time_base >= stop:
            break
        if fps is None:
            yield frame._replace(time=frame.time - first) if start else frame
            continue
        if chosen is None:
            tick = 0 if start else round(frame.time * time_base * fps)
        else:
            yield from ticks(frame.time * time_base)
        chosen, fresh = frame, True
    if fps is not None and chosen is not None:
        until = (chosen.time + chosen.duration) * time_base
        yield from ticks(until if stop is None else min(until, stop))


def _exactly(seconds: float) -> Fraction:
    """As it was typed."""
    return Fraction(seconds).limit_denominator(10**6)


def _from(frames: Iterator[Timed], first: int) -> Iterator[Timed]:
    """The frame that is shown at a time, from that time on, and those after it."""
    shown: Timed | None = None
    for frame in frames:
        if frame.time <= first:
            shown = frame
            continue
        if shown is not None:
            yield Timed(shown.shown, first, frame.time - first)
            shown = None
        yield frame
    if shown is not None and shown.time + shown.duration > first:
        yield Timed(shown.shown, first, shown.time + shown.duration - first)


def _video_stream(container: Any, path: Path) -> Any:
    """The video, and no cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None:
            return stream
    raise VideoError(f"{path}: holds no video; expected a file with moving pictures")


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
