"""Which pictures are meant by paths, globs and folders, and where their results go."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from fststyle.checks import absent, check_path, is_address
from fststyle.images import (
    Failure,
    Header,
    ImageError,
    Picture,
    TooManyPixelsError,
    check_ending,
    check_file,
    check_sides,
    check_writable,
    existing_part,
    no_pictures,
    read_header,
    read_mask,
    read_picture,
    search,
)
from fststyle.inference.written import check_replaced
from fststyle.resources import one_line, user_path

#: Endings that results keep from their inputs; of others, those that hold photographs become JPEG, the rest PNG.
_KEPT = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".avif"}
_CHANGED = {".heic": ".jpg", ".heif": ".jpg"}
_Name = TypeVar("_Name", str, Path)
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Job:
    """A picture and where its results go, by the number of the label."""

    source: Path
    results: tuple[tuple[int, Path], ...]


def label_of(name_or_path: str) -> str:
    """What results are called after a model file: its name, or its file's without folder and ending; or after the
    style or the mixture that is named behind it."""
    name = name_or_path.rstrip(os.sep).rpartition(os.sep)[2]
    if name.endswith(".safetensors") or user_path(name_or_path).is_file():
        return Path(name).stem
    return name.replace("=", "").replace(",", "_")


@dataclass(frozen=True)
class Found:
    """A picture file, and the folder below the one that was named in which it lies."""

    path: Path
    below: Path = Path()


def expand(
    inputs: Sequence[str], labels: Sequence[str] = (), *, recursive: bool = False, output: str | None = None
) -> tuple[list[Found], list[Failure]]:
    """Paths, globs and folders to picture files, each once, and what of them cannot be used, and why.

    In a folder, and among what a pattern matches, what an earlier run made of a picture that lies there too is left
    out, if the ``labels`` of results are given, which stderr says, and so is the folder of results.

    Args:
        inputs: as a user types them.
        labels: of results.
        recursive: look into sub-folders, too.
        output: where results go.

    Raises:
        ImageError: not one picture was found.
    """
    found: dict[str, Found] = {}
    failures: list[Failure] = []
    for text in inputs:
        try:
            pictures, bad = _expanded(text, labels, recursive, output)
        except ImageError as error:
            pictures, bad = [], [(Path(text), str(error))]
        for each in pictures:
            found.setdefault(os.path.abspath(each.path), each)
        failures += bad
    if failures and not found:
        raise nothing_done(failures, report=True)
    return list(found.values()), failures


def _expanded(
    text: str, labels: Sequence[str], recursive: bool, output: str | None
) -> tuple[list[Found], list[Failure]]:
    """What one of the inputs stands for."""
    if not text:
        raise ImageError("found an empty name; expected a picture, a pattern or a folder")
    path = user_path(text)
    if os.path.isdir(path):
        pictures, failures = search(path, recursive=recursive)
        results = user_path(output).resolve() if output else None
        inside = results is not None and results != path.resolve()
        own = [picture for picture in pictures if not (inside and results in picture.resolve().parents)]
        if not pictures and not failures:
            raise no_pictures(text)
        return [Found(picture, picture.parent.relative_to(path)) for picture in _without_made(own, labels)], failures
    if os.path.lexists(path):
        if not os.path.isfile(path):
            check_file(path)  # says what it is, before anything is said of where its result would go
        return [Found(path)], []
    if not glob.has_magic(text) or is_address(text):
        raise ImageError(absent(text))
    # The folders that there are have those names, whatever is in them; the rest is a pattern.
    base = next((parent for parent in path.parents if os.path.isdir(parent)), Path())
    pattern = os.path.join(glob.escape(str(base)), path.relative_to(base))
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True)) if not os.path.isdir(match)]
    if not matches:
        raise ImageError(f"{text}: matches no file")
    return [Found(match) for match in _without_made(matches, labels)], []


def skip(reason: str) -> None:
    """Name what is left out, and why."""
    tqdm.write(f"fststyle: skipped: {one_line(reason)}", file=sys.stderr)


def readable(
    names: Iterable[_Name], read: Callable[[_Name], _Read], failures: Sequence[Failure] = (), least: int = 1
) -> tuple[dict[_Name, _Read], list[Failure]]:
    """What ``read`` makes of pictures, by name, and those that cannot be read, which stderr names.

    Args:
        names: as typed, or paths.
        read: raises ``ImageError``.
        failures: those that are known already.
        least: pictures that are needed, 0 or 1.

    Raises:
        ImageError: there are failures, and nothing else.
    """
    found, failed = {}, list(failures)
    for name in names:
        try:
            found[name] = read(name)
        except ImageError as error:
            failed.append((Path(name), str(error)))
    if failed and len(found) < least:
        raise nothing_done(failed, report=True)
    for _, reason in failed:
        skip(reason)
    return found, failed


def nothing_done(failures: Sequence[Failure], report: bool = False) -> ImageError:
    """That not one of several pictures could be used, or why the only one could not; ``report`` names them all."""
    if len(failures) == 1:
        return ImageError(failures[0][1])
    for _, reason in failures if report else ():
        skip(reason)
    return ImageError(f"none of the {len(failures)} pictures could be done")


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


def plan(inputs: Sequence[Found], output: str | None, labels: Sequence[str], failed: int = 0) -> list[Job]:
    """Where each result goes: beside its input, into the folder ``output``, or to the file ``output``.

    In a folder, results lie as their inputs lay below the folder that was named.

    Args:
        inputs: of ``expand``.
        output: as a user types it.
        labels: of results.
        failed: how many more were asked for, which cannot be used.

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
    out = None if output is None else check_path(output, "output")
    if out is not None:
        as_file = bool(out.suffix) and not out.is_dir() and not str(output).endswith(os.sep)
        results = (len(inputs) + failed) * len(labels)
        if as_file and results > 1:
            raise ImageError(f"{output}: is one file for {results} pictures; give a folder")
        if out.is_file() and not as_file:
            raise ImageError(
                f"{output}: is a file whose name does not end as a picture's; expected a folder or a picture"
            )
        check_writable(existing_part(out.parent if as_file else out))
        if as_file:
            check_ending(out)
            if any(os.path.exists(found.path) and os.path.exists(out) and out.samefile(found.path) for found in inputs):
                raise ImageError(f"{output}: is the picture itself; give another name for the result")
            return [Job(found.path, ((0, out),)) for found in inputs]

    def folder(found: Found) -> Path:
        return found.path.parent if out is None else out / found.below

    counts = Counter(folder(found) / named(found, labels[0]) for found in inputs)
    jobs = []
    for found in inputs:
        # a.gif and a.bmp would both be a_label.png: then what is converted is told apart by its ending
        shared = counts[folder(found) / named(found, labels[0])] > 1
        whole = shared and found.path.suffix.lower() not in _KEPT
        jobs.append(Job(found.path, tuple(enumerate(folder(found) / named(found, label, whole) for label in labels))))
    for target, count in Counter(target for job in jobs for _, target in job.results).items():
        check_path(target, "result")
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
    left = [Job(job.source, tuple(r for r in job.results if not os.path.exists(r[1]))) for job in jobs]
    there = sum(len(job.results) for job in jobs) - sum(len(job.results) for job in left)
    return [job for job in left if job.results], there


@dataclass(frozen=True)
class Todo:
    """What is to be done, what cannot be, and how many results are there already."""

    jobs: list[Job]
    failures: tuple[Failure, ...] = ()
    there: int = 0


@dataclass(frozen=True)
class Files:
    """How picture files are found, read and written; for every command that makes pictures of pictures.

    Args:
        output: a file, or a folder; None: beside each input.
        size: bring the longer side to so many pixels first.
        recursive: look into the sub-folders of folders.
        skip_existing: leave results alone that are there already.
        overwrite: replace pictures where results go, also those that no run wrote.
        strip: leave EXIF out of results.
        max_pixels: of larger pictures none is read; None: no more than 179 megapixels once they have their size.
        tiles: strip by strip, with the same result: ``auto`` where the whole would not fit, ``exact`` always, ``off``.
        memory: bytes that a pass may take; None: half of the device's, or what is left of its memory.
    """

    output: str | None = None
    size: int | None = None
    recursive: bool = False
    skip_existing: bool = False
    overwrite: bool = False
    strip: bool = False
    max_pixels: int | None = None
    tiles: str = "auto"
    memory: int | None = None

    def jobs(self, inputs: Sequence[str], labels: Sequence[str], read: Sequence[Path] = ()) -> Todo:
        """What is to be done with what a user names.

        Args:
            inputs, labels: as for ``expand`` and ``plan``.
            read: what else the command reads.

        Raises:
            ImageError: no input is there, or a result cannot be written where it should.
        """
        found, failures = expand(inputs, labels, recursive=self.recursive, output=self.output)
        jobs = plan(found, self.output, labels, len(failures))
        left, there = without_existing(jobs) if self.skip_existing else (jobs, 0)
        targets = [target for job in left for _, target in job.results]
        check_replaced(targets, [*(each.path for each in found), *read], self.overwrite)
        return Todo(left, tuple(failures), there)

    def header(self, source: Path) -> Header:
        """What the header of an input says.

        Raises:
            ImageError: none can be read, or it says of too many pixels.
        """
        with _option_named():
            header = read_header(source, self.max_pixels, reduced=self.size is not None)
            check_sides(source, *header.resized(self.size), self.size is not None, self.max_pixels)
            return header

    def read(self, source: Path, keep_16bit: bool) -> Picture:
        """An input.

        Raises:
            ImageError: as ``read_picture``.
        """
        with _option_named():
            return read_picture(source, self.size, keep_16bit=keep_16bit, max_pixels=self.max_pixels)

    def mask(self, path: Path) -> np.ndarray:
        """A mask for inputs of its size: as ``read_mask``."""
        with _option_named():
            return read_mask(path, self.size, self.max_pixels)


@contextlib.contextmanager
def _option_named() -> Iterator[None]:
    """Whoever reads ``Files`` has the option that allows more pixels."""
    try:
        yield
    except TooManyPixelsError as error:
        raise ImageError(f"{error} (--max-pixels)") from None
