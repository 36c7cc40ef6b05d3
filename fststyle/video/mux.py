"""The finished file: the parts of a video put together with the audio, subtitles and metadata of its source."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from fststyle.images.arrays import to_8_bits
from fststyle.video.decode import opened
from fststyle.video.encode import Part, packets_of
from fststyle.video.formats import Container

#: Of the source's file, not of what is in it.
_OF_THE_FILE = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})
_TEXT = frozenset({"subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text"})
#: Bits a second of converted audio, per channel.
_BIT_RATE = 96_000

#: A packet, or several, by the seconds at which they are to be written.
Pieces = Iterator[tuple[float, int, list[Any]]]


@dataclass
class Cut:
    """The part of the source that is kept, in seconds; times count from ``start``."""

    start: float = 0.0
    end: float | None = None


@dataclass
class Report:
    """What became of a video, or of its audio and subtitles alone."""

    #: What was converted, left out or changed.
    notes: list[str] = field(default_factory=list)
    #: What could not be read.
    damage: list[str] = field(default_factory=list)
    frames: int = 0


def assemble(
    parts: list[Part], time_base: Fraction, source: Path, target: Path, container: Container, cut: Cut
) -> Report:
    """Write a video file.

    Args:
        parts: at least one, by times in units of ``time_base``.
        source: what audio, subtitles and metadata are of.
        target: the file, which is written over.
        container: its kind.
        cut: the part of the source that ``parts`` show.
    """
    report = Report()
    if container.muxer == "gif":
        _write_gif(parts, time_base, target)
        with opened(source) as read:
            report.notes += [
                f"{kind} left out: GIF has none" for kind in ("audio", "subtitles") if _streams(read, kind)
            ]
        return report
    scale = -(-10_000 // time_base.denominator)  # a file's own unit of time is at least that fine
    unit = Fraction(1, time_base.denominator * scale)
    options = dict(container.options)
    if container.muxer in ("mp4", "mov"):
        options["movie_timescale"] = str(unit.denominator)  # or the first frame's time is rounded to milliseconds
    with (
        opened(source) as read,
        av.open(os.fspath(parts[0].file)) as template,
        av.open(os.fspath(target), "w", format=container.muxer, options=options) as out,
    ):
        video = out.add_stream_from_template(template.streams.video[0], opaque=True)
        video.time_base = unit
        if container.muxer == "mp4" and video.codec_context.name == "hevc":
            video.codec_context.codec_tag = "hvc1"  # or Apple's players refuse it
        copies = _Copies(read, out, container, cut, report)
        metadata = {name: text for name, text in read.metadata.items() if name.lower() not in _OF_THE_FILE}
        out.metadata.update(metadata)
        if not cut.start and cut.end is None and (chapters := read.chapters()):
            out.set_chapters(chapters)
        last: dict[int, int] = {}
        for _, index, packets in heapq.merge(_video(parts, time_base, unit, video), copies.pieces()):
            for packet in packets:
                if index != video.index and packet.dts is not None:
                    packet.dts = max(packet.dts, last.get(index, packet.dts - 1) + 1)
                    packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)
                    last[index] = packet.dts
                out.mux(packet)
    return report


def _video(parts: list[Part], time_base: Fraction, unit: Fraction, stream: Any) -> Pieces:
    """The parts' packets; the time of decoding of each is that at which an earlier frame is shown."""
    ticks = int(time_base / unit)
    depth = _reordering(parts)
    order = sorted(time for part in parts for time in part.times)
    for number, (packet, shown, duration) in enumerate(packets_of(parts)):
        packet.stream, packet.time_base = stream, unit
        packet.pts, packet.duration = shown * ticks, duration * ticks
        packet.dts = order[number - depth] * ticks if number >= depth else order[0] * ticks - depth + number
        yield float(packet.dts * unit), stream.index, [packet]


def _reordering(parts: list[Part]) -> int:
    """By how many frames those that others refer to come earlier than they are shown."""
    depth, number = 0, 0
    for part in parts:
        ranks = {time: number + rank for rank, time in enumerate(part.times)}
        for place, (_, time, _) in enumerate(packets_of([part])):
            depth = max(depth, number + place - ranks[time])
        number += len(part.times)
    return depth


class _Copies:
    """Audio and subtitles of a source, copied or converted into a file."""

    def __init__(self, read: Any, out: Any, container: Container, cut: Cut, report: Report) -> None:
        self.read, self.out, self.container, self.cut, self.report = read, out, container, cut, report
        #: By the index of the source's stream.
        self.takers: dict[int, Callable[[Any], list[Any]]] = {}
        self.indices: dict[int, int] = {}
        known = out.supported_codecs
        for kind in ("audio", "subtitles"):
            for stream in _streams(read, kind):
                name = stream.codec_context.codec.canonical_name if stream.codec_context else "of an unknown codec"
                kept = name in known and (container.audio is None or kind == "subtitles" or name in container.audio)
                self._add(stream, kind, name, kept)
        rest = [stream for stream in read.streams if stream.type not in ("video", "audio", "subtitle")]
        if rest:
            report.notes.append(f"{', '.join(sorted({stream.type for stream in rest}))} left out")

    def _add(self, stream: Any, kind: str, name: str, kept: bool) -> None:
        what = f"{kind} ({name})"
        if kept:
            try:
                made = self.out.add_stream_from_template(stream)
                self._taken(stream, made, lambda packet: self._copied(packet, made))
                return
            except (ValueError, av.FFmpegError):
                pass
        if kind == "audio" and self.container.encoder and stream.codec_context is not None:
            made = _audio_stream(self.out, stream, self.container.encoder)
            self._taken(stream, made, lambda packet: self._converted(packet, made))
            self.report.notes.append(f"{what} converted to {self.container.encoder.removeprefix('lib')}")
        elif kind == "subtitles" and self.container.subtitles and name in _TEXT:
            made = self.out.add_stream(self.container.subtitles)
            made.codec_context.subtitle_header = stream.codec_context.subtitle_header or _ASS
            self._taken(stream, made, lambda packet: self._text(packet, made))
            self.report.notes.append(f"{what} converted to {self.container.subtitles}")
        else:
            self.report.notes.append(f"{what} left out: {self.container.muxer} takes none such")

    def _taken(self, stream: Any, made: Any, taker: Callable[[Any], list[Any]]) -> None:
        self.takers[stream.index], self.indices[stream.index] = taker, made.index
        if stream.language:
            made.metadata["language"] = stream.language
        for name in ("title", "handler_name"):
            if name in stream.metadata:
                made.metadata[name] = stream.metadata[name]
        made.disposition = stream.disposition

    def pieces(self) -> Pieces:
        """What of the source falls into the cut, in its order."""
        if not self.takers:
            return
        packets = self.read.demux([self.read.streams[index] for index in self.takers])
        now = 0.0
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError) as error:
                self.report.damage.append(f"audio ends early ({error.strerror or error})")
                return
            index = packet.stream.index
            if packet.dts is None and packet.pts is None:
                made = self.takers[index](None) if not packet.size else []
            else:
                time = float((packet.pts if packet.pts is not None else packet.dts) * packet.time_base)
                now = max(now, time - self.cut.start)
                outside = time < self.cut.start if self.cut.start else False
                if outside or (self.cut.end is not None and time >= self.cut.end):
                    continue
                made = self.takers[index](packet)
            if made:
                yield now, self.indices[index], made

    def _shift(self, packet: Any) -> None:
        """Count times from the start of the cut."""
        if self.cut.start:
            start = round(self.cut.start / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - start
            packet.dts = None if packet.dts is None else packet.dts - start

    def _copied(self, packet: Any, made: Any) -> list[Any]:
        if packet is None or not packet.size:
            return []
        self._shift(packet)
        packet.stream = made
        return [packet]

    def _converted(self, packet: Any, made: Any) -> list[Any]:
        if packet is None:
            return list(made.encode(None))
        try:
            frames = packet.decode()
        except (av.FFmpegError, OSError):
            self._damaged("audio")
            return []
        found = []
        for frame in frames:
            if frame.pts is not None and self.cut.start:
                frame.pts -= round(self.cut.start / frame.time_base)
            found += made.encode(frame)
        return found

    def _text(self, packet: Any, made: Any) -> list[Any]:
        if packet is None or not packet.size:
            return []
        try:
            read = packet.stream.codec_context.decode2(packet)
            if read is None:
                return []
            text = made.codec_context.encode_subtitle(read)
        except (av.FFmpegError, OSError, ValueError):
            self._damaged("subtitles")
            return []
        text.stream, text.time_base = made, packet.time_base
        text.pts = text.dts = packet.pts
        text.duration = packet.duration
        self._shift(text)
        return [text]

    def _damaged(self, kind: str) -> None:
        said = f"some {kind} could not be decoded"
        if said not in self.report.damage:
            self.report.damage.append(said)


def _streams(read: Any, kind: str) -> list[Any]:
    return list(getattr(read.streams, kind))


def _audio_stream(out: Any, stream: Any, encoder: str) -> Any:
    rate = 48_000 if encoder == "libopus" else stream.codec_context.sample_rate
    made = out.add_stream(encoder, rate=rate)
    made.codec_context.layout = stream.codec_context.layout
    if not encoder.startswith("pcm"):
        made.codec_context.bit_rate = _BIT_RATE * max(1, stream.codec_context.layout.nb_channels)
    return made


#: A header for text that brings none, as its encoder wants.
_ASS = b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[Events]\r\nFormat: Layer, Start, End, Style, Text\r\n"


def _write_gif(parts: list[Part], time_base: Fraction, target: Path) -> None:
    """Frames in 256 colours each, their times rounded to the hundredths of a second that GIF knows."""
    hundredth = Fraction(1, 100)
    with av.open(os.fspath(target), "w", format="gif") as out:
        stream: Any = None
        for part in parts:
            with av.open(os.fspath(part.file)) as container:
                for frame, time in zip(container.decode(video=0), part.times, strict=True):
                    rgb = to_8_bits(frame.to_ndarray(format="rgb24"))
                    if stream is None:
                        stream = out.add_stream("gif", rate=100)
                        stream.height, stream.width = rgb.shape[:2]
                        stream.pix_fmt, stream.codec_context.time_base = "pal8", hundredth
                    picture = Image.fromarray(rgb).quantize(256, Image.Quantize.MEDIANCUT)
                    palette = np.zeros((256, 4), np.uint8)
                    colors = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
                    palette[: len(colors)] = np.pad(colors, ((0, 0), (1, 0)), constant_values=255)
                    paletted = av.VideoFrame.from_ndarray((np.asarray(picture), palette), format="pal8")  # type: ignore[arg-type]
                    paletted.pts, paletted.time_base = round(time * time_base / hundredth), hundredth
                    out.mux(stream.encode(paletted))
        out.mux(stream.encode())
