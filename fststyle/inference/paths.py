"""Which pictures are meant by paths, globs and folders, and where their results go."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fststyle.checks import absent, check_path, is_address
from fststyle.images import ImageError, check_ending, check_writable, existing_part, find_pictures

#: Endings that results keep from their inputs; of others, those that hold photographs become JPEG, the rest PNG.
_KEPT = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".avif"}
_CHANGED = {".heic": ".jpg", ".heif": ".jpg"}


@dataclass(frozen=True)
class Job:
    """A picture and where its results go, by the number of the label."""

    source: Path
    results: tuple[tuple[int, Path], ...]


def label_of(name_or_path: str) -> str:
    """What results are called after a model file: its name, or its file's without folder and ending."""
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
    out, if the ``labels`` of results are given, which stderr says, and so is the folder of results.

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
        elif glob.has_magic(text) and not is_address(text):
            matches = [
                Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if not os.path.isdir(match)
            ]
            if not matches:
                raise ImageError(f"{text}: matches no file")
            yield from (Found(match) for match in _without_made(matches, labels))
        else:
            raise ImageError(absent(text))


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
    out = None if output is None else check_path(output, "output")
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
    left = [Job(job.source, tuple(r for r in job.results if not r[1].exists())) for job in jobs]
    there = sum(len(job.results) for job in jobs) - sum(len(job.results) for job in left)
    return [job for job in left if job.results], there
