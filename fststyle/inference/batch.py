"""Many pictures, or pictures of any size: read ahead, stylised, written behind, file to file where memory is short.

from fststyle.inference.batch import stylize_files

summary = stylize_files(["photographs/"], ["wave", "mosaic"], output="stylised/")
"""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from fststyle.images import Failure, ImageError, Picture, check_writable, read_picture, resize_pixels, save_image
from fststyle.inference.files import FileToFile
from fststyle.inference.options import PLAIN, StylizeOptions
from fststyle.inference.paths import Files, Job, Todo, label_of, nothing_done, skip
from fststyle.inference.written import remember
from fststyle.resources import out_of_memory, user_path

if TYPE_CHECKING:
    from fststyle.inference.regions import Regions

#: Pictures that are read ahead, and results that are being written, at once.
AHEAD = 2
#: Bad files that the last line names; every one is named when it is met.
NAMED = 50
#: For ``process``: every input is read whole.
NONE_TO_FILE = FileToFile()
#: One result: what was read, and the number of the label, to what is written, of any size.
Work = Callable[[Picture, int], np.ndarray]


@dataclass(frozen=True)
class Summary:
    """What became of the results that were asked for; ``str`` says it in a line."""

    done: int
    #: Inputs that could not be read, or results that could not be written, and why.
    failures: tuple[Failure, ...] = ()
    #: Results that were there already.
    there: int = 0

    def __str__(self) -> str:
        said = [f"{self.done} done"]
        if self.failures:
            names = list(dict.fromkeys(str(source) for source, _ in self.failures))
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            said.append(f"{len(self.failures)} skipped ({', '.join(names[:NAMED])}{more})")
        return ", ".join(said + ([f"{self.there} there already"] if self.there else []))


@dataclass(frozen=True)
class _Read:
    """An input that has been looked at: which of its results are made from file to file, and what the others need."""

    tiled: frozenset[int]
    picture: Picture | None


def process(
    todo: Todo,
    work: Work,
    read: Callable[[Path], Picture] = read_picture,
    file_to_file: FileToFile = NONE_TO_FILE,
    strip: bool = False,
) -> Summary:
    """Let ``work`` make pictures of every input.

    While one picture is worked on, the next are read and the last ones written, by threads. A picture that cannot be
    read or written is named and skipped. Transparency and EXIF are kept.

    Args:
        todo: from ``Files.jobs``; what cannot be done is named first.
        work: called with one picture at a time.
        read: an input.
        file_to_file: what it wants is not read here.
        strip: leave EXIF out of results.

    Raises:
        ImageError: not one of them could be done.
    """
    jobs = todo.jobs
    for folder in {target.parent for job in jobs for _, target in job.results}:
        if folder.exists():  # else it is made when the first picture is done, so that a refusal leaves nothing behind
            check_writable(folder)

    def reading(job: Job) -> _Read:
        tiled = frozenset(number for number, _ in job.results if file_to_file.wants(job.source, number))
        return _Read(tiled, None if len(tiled) == len(job.results) else read(job.source))

    count = sum(len(job.results) for job in jobs)
    asked = count + len(todo.failures)
    run = _Process(work, file_to_file, strip, todo.failures, several=asked > 1)
    with (
        tqdm(total=count, unit="picture", disable=count == 1 or not sys.stderr.isatty()) as run.bar,
        ThreadPoolExecutor(AHEAD) as readers,
        ThreadPoolExecutor(AHEAD) as run.writers,
    ):
        try:
            with terminable():
                for job, future in _ahead(jobs, reading, readers):
                    run.do(job, future)
                run.finish()
        except BaseException:
            readers.shutdown(wait=False, cancel_futures=True)
            run.writers.shutdown(wait=False, cancel_futures=True)
            raise
    if asked and not todo.there and len(run.failures) == asked:  # nothing was done at all: refused
        raise nothing_done(run.failures)
    return Summary(asked - len(run.failures), tuple(run.failures), todo.there)


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
def terminable() -> Iterator[None]:
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


def _write(output: np.ndarray, target: Path, alpha: np.ndarray | None, exif: bytes | None) -> None:
    save_image(output, target, alpha, exif)
    remember(target)


class _Process:
    """A run over pictures: its failures, and what is being written."""

    bar: tqdm
    writers: ThreadPoolExecutor

    def __init__(
        self, work: Work, file_to_file: FileToFile, strip: bool, failures: Sequence[Failure], several: bool
    ) -> None:
        self.work, self.file_to_file, self.strip, self.several = work, file_to_file, strip, several
        self.failures = list(failures)
        for _, reason in failures:
            skip(reason)
        self.writing: deque[tuple[Job, Path, Future[None]]] = deque()

    def do(self, job: Job, future: Future[_Read]) -> None:
        """All results of one picture."""
        read: _Read | None = None
        for number, target in job.results:
            with self.reporting(job, target):
                read = read or future.result()
                if number in read.tiled:
                    self.file_to_file.apply(job.source, target, number)
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
                self.writing.append((job, target, self.writers.submit(_write, output, target, alpha, exif)))
            if read is None:  # then not for the other results either
                self.failures += self.failures[-1:] * (len(job.results) - 1)
                break

    def written(self) -> None:
        """Wait for the result that has been written for the longest time."""
        job, target, future = self.writing.popleft()
        with self.reporting(job, target):
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
    def reporting(self, job: Job, target: Path) -> Iterator[None]:
        """Report and count what goes wrong with one picture."""
        count = len(self.failures)
        try:
            yield
        except (ImageError, OSError) as error:
            unwritten = f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})"
            self.skip(job, str(error) if isinstance(error, ImageError) else unwritten)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            reason = f"{job.source}: needs more memory than there is; bring it to fewer pixels with --size"
            if not self.several:
                raise RuntimeError(reason) from error
            self.skip(job, reason)
        if len(self.failures) > count:
            gc.collect()  # an error that went through a thread holds itself, and with it scratch files

    def skip(self, job: Job, reason: str) -> None:
        """Count a picture as failed and, among several, name it."""
        self.failures.append((job.source, reason))
        if self.several:
            skip(reason)
        self.bar.update()


def stylize_files(
    inputs: Sequence[str],
    styles: Sequence[str],
    files: Files | None = None,
    options: StylizeOptions = PLAIN,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    regions: Regions | None = None,
) -> Summary:
    """Apply styles to pictures, globs and folders; each result is ``PICTURE_STYLE``, unless ``files`` names a file.

    Args:
        inputs: paths, patterns and folders.
        styles: bundled names, or model files.
        files: where results go, and how files of any size are read.
        options: how the styles are applied.
        device, backend, precision: as for ``Stylizer.from_checkpoint``.
        regions: where the styles are applied, and what is elsewhere; None: everywhere.

    Raises:
        ValueError, OSError: refused before work began, or not one picture could be done.
    """
    files = files or Files()
    labels = [label_of(style) for style in styles]
    if len(set(labels)) < len(labels):
        raise ValueError(f"found --style {', '.join(styles)}; expected styles of different names")
    todo = files.jobs(inputs, labels, [] if regions is None else [user_path(regions.mask)])

    from fststyle.inference.regions import PHOTO, joined
    from fststyle.inference.stylizer import Stylizer

    def load(style: str) -> Stylizer:
        return Stylizer.from_checkpoint(style, device, backend, precision)

    if regions is None:
        stylizers = [load(style) for style in styles]
    else:
        mask, jobs = regions.read(files, todo.jobs, inputs)
        todo, backend = replace(todo, jobs=jobs), regions.backend_for(styles, backend)
        elsewhere = None if regions.elsewhere == PHOTO else load(regions.elsewhere)
        stylizers = [joined(load(style), mask, elsewhere) for style in styles]

    def stylised(picture: Picture, number: int) -> np.ndarray:
        stylizer = stylizers[number]
        memory = None if files.tiles == "off" else files.memory or stylizer.memory
        return stylizer.pixels(picture.rgb, options, memory, files.tiles == "exact")

    def read(path: Path) -> Picture:
        return files.read(path, keep_16bit=True)

    return process(todo, stylised, read, FileToFile(files, stylizers, options), files.strip)


def upscale_files(
    inputs: Sequence[str],
    model: str = "x4_pixel",
    files: Files | None = None,
    match_histogram: bool = False,
    scale: int | None = None,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
) -> Summary:
    """Enlarge pictures, globs and folders; each result is ``PICTURE_x4`` or ``_x8``, unless ``files`` names a file.

    Args:
        model: a bundled name, or a model file.
        match_histogram: give results the inputs' colours, exactly.
        scale: what the model is expected to enlarge by.
        inputs, files, device, backend, precision: as for ``stylize_files``.

    Raises:
        ValueError, OSError: refused before work began, or not one picture could be done.
    """
    from fststyle.inference.stylizer import Upscaler

    files = files or Files()
    upscaler = Upscaler.from_checkpoint(model, device, backend, precision)
    if scale not in (None, upscaler.scale):
        raise ValueError(f"{model} enlarges by {upscaler.scale}; found --scale {scale}")
    todo = files.jobs(inputs, [f"x{upscaler.scale}"])

    def enlarged(picture: Picture, _: int) -> np.ndarray:
        memory = None if files.tiles == "off" else files.memory or upscaler.memory
        output = upscaler.pixels(picture.rgb, memory=memory, always=files.tiles == "exact")
        if match_histogram:
            from fststyle.color import with_histogram_of

            output = with_histogram_of(output, picture.rgb)
        return output

    def read(path: Path) -> Picture:
        return files.read(path, keep_16bit=not match_histogram)

    tiled = FileToFile(files, [upscaler], held=match_histogram)  # histograms are of a whole picture
    return process(todo, enlarged, read, tiled, files.strip)
