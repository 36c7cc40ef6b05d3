"""A style on every frame of a video: decoded, stylised, encoded at once; interrupted, it goes on where it stopped.

from fststyle.video import stylize_videos

summary = stylize_videos(["clip.mp4"], "wave")
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from tqdm import tqdm

from fststyle.images import MIN_SIDE
from fststyle.inference.batch import AHEAD, terminable
from fststyle.inference.options import FRAMES, StylizeOptions
from fststyle.inference.steady import SteadyInput
from fststyle.resources import working
from fststyle.video.decode import Timed, VideoSource, selected
from fststyle.video.encode import Parts, PartWriter, PictureWriter, numbered_pictures
from fststyle.video.formats import Output, VideoError, output_of
from fststyle.video.mux import Cut, Report, assemble

if TYPE_CHECKING:
    from fststyle.inference.stylizer import Stylizer
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class VideoOptions:
    """What of a video is stylised, and how it is written.

    Args:
        start, end: seconds; None for ``end``: all.
        fps: frames a second, by leaving out and repeating; None: every frame with its own time.
        size: bring the longer side to so many pixels first.
        steady: levels of 255 below which differences between frames are taken for noise; see ``inference.steady``.
            None: every frame by itself.
        codec: one of ``video.formats.CODECS``; None: that of the file's ending.
        crf: constant rate factor; None: the codec's default.

    Raises:
        VideoError: an end before the start, a rate that is not positive.
    """

    start: float = 0.0
    end: float | None = None
    fps: Fraction | None = None
    size: int | None = None
    codec: str | None = None
    crf: int | None = None
    steady: float | None = None

    def __post_init__(self) -> None:
        if not self.start >= 0 or (self.end is not None and not self.end > self.start):
            raise VideoError(f"found a cut from {self.start:g} to {self.end} seconds; expected 0 ≤ start < end")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise VideoError(f"found {self.fps} frames a second; expected a number above 0, up to 1000")
        if self.steady is not None:
            SteadyInput(self.steady)


ALL = VideoOptions()


class InterruptedVideo(KeyboardInterrupt):
    """Ctrl-C, or SIGTERM, once some of a video was done; the message says where that is."""


def stylize_video(
    source: Path,
    target: Path,
    stylizer: Stylizer,
    options: StylizeOptions = FRAMES,
    video: VideoOptions = ALL,
    resume: bool = False,
    keep_partial: bool = True,
) -> Report:
    """Stylise a video file.

    Args:
        source: the file, or a name of numbered pictures, as ``frames/%06d.png``.
        target: the file to write, or such a name.
        stylizer: the style.
        options: how it is applied; without ``octaves`` in a single pass, which is steadier, and without ``variation``
            unless it is given.
        video: what is stylised, how it is written.
        resume: go on with what an interrupted run left; without such, begin.
        keep_partial: when interrupted, write what is done to ``NAME.partial.ENDING`` and keep what resuming needs.

    Raises:
        VideoError: it cannot be read or written as asked, or an interrupted run is there and ``resume`` is not given.
        RuntimeError: it failed on the way, of a full disk for example; what is done stays for ``resume``.
        InterruptedVideo: by Ctrl-C or SIGTERM.
    """
    unless_told = {name: getattr(FRAMES, name) for name in ("octaves", "variation") if getattr(options, name) is None}
    options = dataclasses.replace(options, **unless_told)
    output, read = output_of(target, video.codec, video.crf), VideoSource(source)
    height, width = _sides(read, video.size, output)
    parts = Parts.beside(target, _settings(source, stylizer, options, video))
    if parts.begun and not resume:
        raise VideoError(
            f"{target}: an interrupted run left {sum(len(part.times) for part in parts.done())} frames in "
            f"{parts.folder}; give --resume to go on, or remove that folder"
        )
    if parts.begun:
        parts.check()
    elif partial_name(target).exists():
        raise VideoError(f"{partial_name(target)}: is there already, and what Ctrl-C leaves would be written over it")
    if output.pictures:
        done = numbered_pictures(target)
        if done and not parts.begun:
            raise VideoError(f"{target}: {done} such pictures are there already; choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    parts.begin()
    rate, time_base = video.fps or read.rate, Fraction(1) / video.fps if video.fps else read.time_base
    writer: PartWriter | PictureWriter
    if output.pictures:
        writer = PictureWriter(target, numbered_pictures(target))
    else:
        writer = PartWriter(parts, output, read.color.written, rate, read.pixel_shape)
    memory = stylizer.memory
    calm = (lambda rgb: rgb) if video.steady is None else SteadyInput(video.steady)

    def stylised(item: tuple[Timed, np.ndarray | None]) -> tuple[Timed, np.ndarray | None]:
        timed, rgb = item
        return timed, None if rgb is None else stylizer.pixels(calm(rgb), options, memory)

    def written(item: tuple[Timed, np.ndarray | None]) -> None:
        timed, rgb = item
        writer.write(rgb, timed.time, timed.duration)
        progress.update()

    frames = selected(read.frames(video.start), read.time_base, video.start, video.end, video.fps)
    shown = sys.stderr.isatty()
    progress = tqdm(total=_expected(read, video), initial=writer.count, unit="frame", disable=not shown)
    with working(str(target)), terminable(), progress:
        try:
            _overlap(_decoded(frames, read, height, width, writer.count), stylised, written)
            writer.close()
        except KeyboardInterrupt:
            writer.close()
            if not keep_partial and not output.pictures:
                parts.remove()
                raise
            raise _interrupted(parts, writer.count, time_base, source, target, output, video) from None
        finally:
            if not writer.count:
                parts.remove()
    if not writer.count:
        raise VideoError(f"{source}: has no frame from {video.start:g} to {video.end or read.seconds} seconds")
    notes, damage = _notes(read, output, height, width), [str(read.damage)] if str(read.damage) else []
    if output.pictures:
        parts.remove()
        return Report(notes, damage, writer.count)
    cut = Cut(video.start, video.end)
    whole = parts.folder / f"whole{target.suffix}"
    with working(str(target)):
        streams = assemble(parts.done(), time_base, source, whole, output.container, cut)
        os.replace(whole, target)
    parts.remove()
    partial_name(target).unlink(missing_ok=True)
    return Report(notes + streams.notes, damage + streams.damage, writer.count)


def _overlap(items: Iterator[_Item], work: Callable[[_Item], _Result], write: Callable[[_Result], None]) -> None:
    """Work on every item, in order, and write the results; a thread draws items meanwhile, another one writes.

    However it ends, what was worked on is written, and nothing is being read or written any more.

    Args:
        items: drawn by a thread.
        work: called here.
        write: called by a thread, in the order of the items.
    """
    end = object()
    coming: deque[Future[object]] = deque()
    going: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        try:
            for _ in range(AHEAD):
                coming.append(reader.submit(next, items, end))
            while (item := coming.popleft().result()) is not end:
                coming.append(reader.submit(next, items, end))
                result = work(item)  # type: ignore[arg-type]
                if len(going) >= AHEAD:
                    going.popleft().result()
                going.append(writer.submit(write, result))
        finally:
            reader.shutdown(cancel_futures=True)
            while going:
                going.popleft().result()


def partial_name(target: Path) -> Path:
    """Where an interrupted run leaves what is done."""
    return target.with_name(f"{target.stem}.partial{target.suffix}")


def _interrupted(
    parts: Parts, count: int, time_base: Fraction, source: Path, target: Path, output: Output, video: VideoOptions
) -> InterruptedVideo:
    """What is done as a file that plays, and a message that says so."""
    if not count:
        return InterruptedVideo("interrupted; no frame was done")
    if output.pictures:
        return InterruptedVideo(f"interrupted; {count} pictures are done, the same command with --resume goes on")
    done = parts.done()
    end = float((done[-1].times[-1] + done[-1].durations[-1]) * time_base)
    whole, partial = parts.folder / f"whole{target.suffix}", partial_name(target)
    assemble(done, time_base, source, whole, output.container, Cut(video.start, video.start + end))
    os.replace(whole, partial)
    return InterruptedVideo(
        f"interrupted; {count} frames are done and in {partial}, the same command with --resume goes on"
    )


def _decoded(
    frames: Iterator[Timed], read: VideoSource, height: int, width: int, skip: int
) -> Iterator[tuple[Timed, np.ndarray | None]]:
    """Frames as pictures, without the first so many; None for one that is as the one before."""
    shown: Any = None
    for number, timed in enumerate(frames):
        shown = timed.shown or shown
        if number < skip:
            continue
        again = timed.shown is None and number > skip
        yield timed._replace(shown=None), None if again else read.pixels(shown, height, width)


def _sides(read: VideoSource, size: int | None, output: Output) -> tuple[int, int]:
    """Height and width of the frames that the network sees."""
    sides = (read.height, read.width)
    if size is not None:
        multiple = 2 if output.codec.even else 1
        most = max(sides)
        height, width = (max(1, math.ceil(side * size / most / multiple - 0.5)) * multiple for side in sides)
        sides = height, width
    if min(sides) < MIN_SIDE:
        raise VideoError(
            f"{read.path}: frames are {sides[1]}×{sides[0]} pixels; expected at least {MIN_SIDE}×{MIN_SIDE}"
        )
    return sides


def _expected(read: VideoSource, video: VideoOptions) -> int | None:
    """How many frames there will be, roughly; None: not known."""
    whole = video.start == 0 and video.end is None and video.fps is None
    if whole and read.count:
        return read.count
    end = min(each for each in (read.seconds, video.end, 1e9) if each is not None)
    return round((end - video.start) * (video.fps or read.rate)) if end < 1e9 else None


def _notes(read: VideoSource, output: Output, height: int, width: int) -> list[str]:
    notes = []
    if read.color.hdr:
        notes.append("HDR converted to SDR (BT.709)")
    if read.interlaced:
        notes.append("interlaced frames were stylised as whole frames")
    if output.codec.even and (height % 2 or width % 2):
        notes.append(f"padded from {width}×{height} to {width + width % 2}×{height + height % 2}: sides must be even")
    return notes


def _settings(source: Path, stylizer: Stylizer, options: StylizeOptions, video: VideoOptions) -> dict[str, Any]:
    """All that a frame depends on."""
    status = source.stat() if source.exists() else None
    return {
        "source": [source.name, *((status.st_size, status.st_mtime_ns) if status else ())],
        "style": hashlib.sha256(json.dumps(stylizer.metadata, sort_keys=True).encode()).hexdigest(),
        "backend": [stylizer.backend.name, stylizer.backend.precision],
        **dataclasses.asdict(options),
        **{name: str(value) for name, value in dataclasses.asdict(video).items()},
    }
