"""Pictures in, pictures out, named after them: what every command that makes pictures of pictures shares."""

from __future__ import annotations

import contextlib
import gc
import glob
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fststyle.images import (
    ImageError,
    Picture,
    check_ending,
    check_writable,
    existing_part,
    find_pictures,
    read_picture,
    resize_pixels,
    save_image,
)
from fststyle.resources import out_of_memory

#: Endings that results keep from their inputs; of others, those that hold photographs become JPEG, the rest PNG.
_KEPT = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".avif"}
_CHANGED = {".heic": ".jpg", ".heif": ".jpg"}
#: Pictures that are read ahead, and results that are being written, at once.
AHEAD = 2
#: Bad files that the last line names; every one is named when it is met.
NAMED = 50


@dataclass(frozen=True)
class Job:
    """A picture and where its results go, by the number of the label."""

    source: Path
    results: tuple[tuple[int, Path], ...]


#: One result: what was read, and the number of the label, to what is written, of any size.
Work = Callable[[Picture, int], np.ndarray]


@dataclass(frozen=True)
class Stream:
    """What makes results from file to file.

    ``wants`` tells of a source and the number of a label whether it is done so; ``apply`` does it, of a source, to a
    target, by that number.
    """

    wants: Callable[[Path, int], bool]
    apply: Callable[[Path, Path, int], None]


NO_STREAM = Stream(lambda *_: False, lambda *_: None)


@dataclass(frozen=True)
class _Read:
    """An input that has been looked at: which of its results are made from file to file, and what the others need."""

    streamed: frozenset[int]
    picture: Picture | None


def process(
    jobs: Sequence[Job],
    work: Work,
    read: Callable[[Path], Picture] = read_picture,
    stream: Stream = NO_STREAM,
    skipped: int = 0,
    strip: bool = False,
) -> int:
    """Let ``work`` make pictures of every input; the exit code.

    While one picture is worked on, the next are read and the last ones written, by threads. A picture that cannot be
    read or written is named and skipped. Transparency is kept, and what EXIF tells.

    Args:
        jobs: from ``plan``.
        work: called with one picture at a time.
        read: an input.
        stream: what it wants is not read here.
        skipped: results that were there already, for the summary.
        strip: leave EXIF out of results.

    Raises:
        ImageError: not one of them could be done.
    """
    for folder in {target.parent for job in jobs for _, target in job.results}:
        if folder.exists():  # else it is made when the first picture is done, so that a refusal leaves nothing behind
            check_writable(folder)

    def reading(job: Job) -> _Read:
        streamed = frozenset(number for number, _ in job.results if stream.wants(job.source, number))
        return _Read(streamed, None if len(streamed) == len(job.results) else read(job.source))

    count = sum(len(job.results) for job in jobs)
    run = _Process(work, stream, strip, several=count > 1)
    with (
        tqdm(total=count, unit="picture", disable=count == 1 or not sys.stderr.isatty()) as run.bar,
        ThreadPoolExecutor(AHEAD) as readers,
        ThreadPoolExecutor(AHEAD) as run.writers,
    ):
        try:
            with _terminable():
                for job, future in _ahead(jobs, reading, readers):
                    run.do(job, future)
                run.finish()
        except BaseException:
            readers.shutdown(wait=False, cancel_futures=True)
            run.writers.shutdown(wait=False, cancel_futures=True)
            raise
    if not run.failures and not skipped:
        return 0
    if count and not skipped and len(run.failures) == count:  # nothing was done at all: refused
        raise ImageError(run.failures[0][1] if count == 1 else f"none of the {count} pictures could be done")
    told = [f"{count - len(run.failures)} done"]
    if run.failures:
        names = list(dict.fromkeys(str(source) for source, _ in run.failures))
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        told.append(f"{len(run.failures)} skipped ({', '.join(names[:NAMED])}{more})")
    told += [f"{skipped} there already"] if skipped else []
    print(f"fststyle: {', '.join(told)}", file=sys.stderr)
    return 1 if run.failures else 0


def _ahead(
    jobs: Sequence[Job], read: Callable[[Job], _Read], readers: ThreadPoolExecutor
) -> Iterator[tuple[Job, Future[_Read]]]:
    """Every job, with what will be its picture; the next ones are being read by then."""
    waiting: deque[tuple[Job, Future[_Read]]] = deque()
    for job in jobs:
        waiting.append((job, readers.submit(read, job)))
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does, with nothing half-written."""

    def end(*_: Any) -> None:
        raise KeyboardInterrupt("terminated")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Process:
    """A run over pictures: its failures, and what is being written."""

    bar: tqdm
    writers: ThreadPoolExecutor

    def __init__(self, work: Work, stream: Stream, strip: bool, several: bool) -> None:
        self.work, self.stream, self.strip, self.several = work, stream, strip, several
        self.failures: list[tuple[Path, str]] = []
        self.writing: deque[tuple[Job, Path, Future[None]]] = deque()

    def do(self, job: Job, future: Future[_Read]) -> None:
        """All results of one picture."""
        read: _Read | None = None
        for number, target in job.results:
            with self.told(job, target):
                read = read or future.result()
                if number in read.streamed:
                    self.stream.apply(job.source, target, number)
                    self.done(target)
                    continue
                assert read.picture is not None
                output = self.work(read.picture, number)
                while len(self.writing) >= AHEAD:
                    self.written()
                target.parent.mkdir(parents=True, exist_ok=True)
                alpha = read.picture.alpha
                alpha = None if alpha is None else resize_pixels(alpha, *output.shape[:2])
                exif = None if self.strip else read.picture.exif
                self.writing.append((job, target, self.writers.submit(save_image, output, target, alpha, exif)))
            if read is None:  # then not for the other results either
                self.failures += self.failures[-1:] * (len(job.results) - 1)
                break

    def written(self) -> None:
        """Wait for the result that has been written for the longest time."""
        job, target, future = self.writing.popleft()
        with self.told(job, target):
            future.result()
            self.done(target)

    def finish(self) -> None:
        """Wait for all."""
        while self.writing:
            self.written()

    def done(self, target: Path) -> None:
        # Where nobody listens any more, the result is there all the same.
        with contextlib.suppress(OSError, AttributeError, ValueError):
            tqdm.write(str(target))
        self.bar.update()

    @contextlib.contextmanager
    def told(self, job: Job, target: Path) -> Iterator[None]:
        """What goes wrong with one picture is told of, and counted."""
        count = len(self.failures)
        try:
            yield
        except (ImageError, OSError) as error:
            unwritten = f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})"
            self.skip(job, str(error) if isinstance(error, ImageError) else unwritten)
        except (MemoryError, RuntimeError) as error:
            if not self.several or not out_of_memory(error):
                raise
            self.skip(job, f"{job.source}: needs more memory than there is; bring it to fewer pixels with --size")
        if len(self.failures) > count:
            gc.collect()  # an error that went through a thread holds itself, and with it scratch files

    def skip(self, job: Job, reason: str) -> None:
        """Count a picture as failed and, among several, name it."""
        self.failures.append((job.source, reason))
        if self.several:
            tqdm.write(f"fststyle: skipped: {reason}", file=sys.stderr)
        self.bar.update()


# --- names ---------------------------------------------------------------------------------------


def label_of(name_or_path: str) -> str:
    """What results are called after a checkpoint: its name, or its file's without folder and ending."""
    is_file = os.sep in name_or_path or name_or_path.endswith(".safetensors")
    return Path(name_or_path).stem if is_file else name_or_path


@dataclass(frozen=True)
class Found:
    """A picture file, and the folder below the one that was named in which it lies."""

    path: Path
    below: Path = Path()


def expand(
    inputs: list[str], labels: Sequence[str] = (), *, recursive: bool = False, output: str | None = None
) -> Iterator[Found]:
    """Paths, globs and folders to picture files.

    In a folder, and among what a pattern matches, what an earlier run made of a picture that lies there too is left
    out, if the ``labels`` of results are given, which is told on stderr, and so is the folder of results.

    Args:
        inputs: as a user types them.
        labels: of results.
        recursive: look into sub-folders, too.
        output: where results go.

    Raises:
        ImageError: a path or pattern that matches nothing, a folder without pictures.
    """
    for text in inputs:
        if not text:
            raise ImageError("found an empty name; expected a picture, a pattern or a folder")
        path = Path(text).expanduser()
        if path.is_dir():
            found = find_pictures(path, recursive=recursive)
            results = Path(output).expanduser().resolve() if output else None
            inside = results is not None and results != path.resolve()
            own = [picture for picture in found if not (inside and results in picture.resolve().parents)]
            yield from (Found(picture, picture.parent.relative_to(path)) for picture in _without_made(own, labels))
        elif path.exists():
            yield Found(path)
        elif glob.has_magic(text):
            matches = [
                Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if not os.path.isdir(match)
            ]
            if not matches:
                raise ImageError(f"{text}: matches no file")
            yield from (Found(match) for match in _without_made(matches, labels))
        else:
            raise ImageError(f"{text}: no such file")


def _without_made(pictures: Sequence[Path], labels: Sequence[str]) -> list[Path]:
    """What is not called, but for the ending, like a result of another picture that lies beside it."""
    made = {picture.with_name(f"{picture.stem}_{label}") for picture in pictures for label in labels}
    out = [picture for picture in pictures if picture.with_suffix("") in made]
    if out:
        some = f"{out[0]} …" if len(out) > 1 else f"{out[0]}"
        print(
            f"fststyle: left out what is called like a result: {some} ({len(out)}); name it to have it done",
            file=sys.stderr,
        )
    return [picture for picture in pictures if picture.with_suffix("") not in made]


def plan(inputs: Sequence[Found], output: str | None, labels: Sequence[str]) -> list[Job]:
    """Where each result goes: beside its input, into the folder ``output``, or to the file ``output``.

    In a folder, results lie as their inputs lay below the folder that was named.

    Raises:
        ImageError: one file for several results, two inputs with one result, or a result that is an input.
    """

    def named(found: Found, label: str, whole: bool = False) -> str:
        ending = found.path.suffix.lower()
        kept = found.path.suffix if ending in _KEPT else _CHANGED.get(ending, ".png")
        stem = f"{found.path.stem}_{ending[1:]}" if whole else found.path.stem
        return f"{stem}_{label}{kept}"

    if output == "":
        raise ImageError("found an empty name for the output; expected a file or a folder")
    out = None if output is None else Path(output).expanduser()
    if out is not None:
        as_file = bool(out.suffix) and not out.is_dir() and not str(output).endswith(os.sep)
        if as_file and len(inputs) * len(labels) > 1:
            raise ImageError(f"{output}: is one file for {len(inputs) * len(labels)} pictures; give a folder")
        if out.is_file() and not as_file:
            raise ImageError(
                f"{output}: is a file whose name does not end as a picture's; expected a folder or a picture"
            )
        check_writable(existing_part(out.parent if as_file else out))
        if as_file:
            check_ending(out)
            if out.exists() and out.samefile(inputs[0].path):
                raise ImageError(f"{output}: is the picture itself; give another name for the result")
            return [Job(inputs[0].path, ((0, out),))]

    def folder(found: Found) -> Path:
        return found.path.parent if out is None else out / found.below

    counts = Counter(folder(found) / named(found, labels[0]) for found in inputs)
    jobs = []
    for found in inputs:
        # a.gif and a.bmp would both be a_label.png: then what is converted is told apart by its ending
        shared = counts[folder(found) / named(found, labels[0])] > 1
        whole = shared and found.path.suffix.lower() not in _KEPT
        results = [folder(found) / named(found, label, whole) for label in labels]
        jobs.append(Job(found.path, tuple(enumerate(results))))
    for target, count in Counter(target for job in jobs for _, target in job.results).items():
        if count > 1:
            raise ImageError(f"{target}: {count} inputs would be written there; do them separately")
    sources = {os.path.realpath(job.source): job.source for job in jobs}
    for job in jobs:
        for _, target in job.results:
            if os.path.realpath(target) in sources:
                raise ImageError(f"{target}: is one of the pictures, and {job.source}'s result; give -o FOLDER")
    return jobs


def without_existing(jobs: Sequence[Job]) -> tuple[list[Job], int]:
    """What is left to do where results that are there already are kept, and how many those are."""
    left = [Job(job.source, tuple(r for r in job.results if not r[1].exists())) for job in jobs]
    there = sum(len(job.results) for job in jobs) - sum(len(job.results) for job in left)
    return [job for job in left if job.results], there
