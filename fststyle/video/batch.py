"""Several videos: which are meant, where their results go, and what became of them."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from fststyle.checks import absent, check_path
from fststyle.images import Failure, ImageError, check_writable, existing_part
from fststyle.inference.batch import Summary
from fststyle.inference.options import FRAMES, StylizeOptions
from fststyle.inference.paths import label_of, skip
from fststyle.inference.stylizer import Stylizer
from fststyle.inference.written import check_replaced, remember
from fststyle.resources import one_line, user_path
from fststyle.video.decode import VideoSource
from fststyle.video.formats import CONTAINERS, NUMBER, VideoError, output_of
from fststyle.video.stylize import ALL, VideoOptions, stylize_video


def stylize_videos(
    inputs: Sequence[str],
    style: str,
    output: str | None = None,
    options: StylizeOptions = FRAMES,
    video: VideoOptions = ALL,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    resume: bool = False,
    keep_partial: bool = True,
    overwrite: bool = False,
) -> Summary:
    """Stylise videos; each result is ``VIDEO_STYLE.mp4`` beside its input, unless ``output`` says otherwise.

    What cannot be read is named and left out; ``Summary.failures`` has it, and damage within videos that are done.

    Args:
        inputs: files and patterns of them; or names of numbered pictures, as ``frames/%06d.png``.
        style: a bundled name, a model file, or a style or a mixture within one.
        output: a file, whose ending chooses the container; numbered pictures, as ``frames/%06d.png``; or a folder.
        options, video, resume, keep_partial: as for ``stylize_video``.
        device, backend, precision: as for ``Stylizer.from_checkpoint``.
        overwrite: videos may be replaced that no run wrote.

    Raises:
        ValueError, OSError: refused before work began, or the only video could not be done.
    """
    sources, failures = _expanded(inputs)
    jobs = _planned(sources, output, label_of(style), video, len(sources) + len(failures))
    targets = [target for _, target in jobs if not NUMBER.search(target.name)]
    check_replaced(targets, sources, overwrite, _is_video, "video")
    stylizer = Stylizer.from_checkpoint(style, device, backend, precision)
    several = len(sources) + len(failures) > 1
    for _, reason in failures:
        skip(reason)
    done = 0
    for source, target in jobs:
        try:
            report = stylize_video(source, target, stylizer, options, video, resume, keep_partial)
        except (VideoError, ImageError, RuntimeError) as error:
            if not several:
                raise
            failures.append((source, str(error)))
            skip(str(error))
            continue
        done += 1
        if target.is_file():
            remember(target)
        tqdm.write(str(target))
        for note in report.notes:
            tqdm.write(f"fststyle: {one_line(f'{source}: {note}')}", file=sys.stderr)
        for damage in report.damage:
            tqdm.write(f"fststyle: {one_line(f'{source}: damaged: {damage}')}; the rest is done", file=sys.stderr)
            failures.append((source, damage))
    if not done:
        raise VideoError(f"none of the {len(failures)} videos could be done")
    return Summary(done, tuple(failures))


def _expanded(inputs: Sequence[str]) -> tuple[list[Path], list[Failure]]:
    """Files and patterns to files, and what of them is not there."""
    found: list[Path] = []
    failures: list[Failure] = []
    for text in inputs:
        path = user_path(text)
        matches = [path] if path.exists() or NUMBER.search(path.name) else sorted(map(Path, glob.glob(str(path))))
        if path.is_dir():
            failures.append((path, f"{path}: is a folder; expected videos, such as {path / '*.mp4'}"))
        elif matches:
            found += matches
        else:
            failures.append((path, absent(text, "a video")))
    if not found:
        raise VideoError(failures[0][1])
    return list(dict.fromkeys(found)), failures


def _planned(
    sources: Sequence[Path], output: str | None, label: str, video: VideoOptions, asked: int
) -> list[tuple[Path, Path]]:
    """Each input with its result's path."""
    out = None if output is None else check_path(output, "output")
    if out is not None and out.suffix and not out.is_dir() and not str(output).endswith(os.sep):
        if asked > 1:
            raise VideoError(f"{output}: is one video for {asked}; give a folder")
        targets = [out]
    else:
        endings = (ending for ending, each in CONTAINERS.items() if video.codec in (None, *each.codecs))
        ending = next(endings, ".mp4")
        names = [f"{NUMBER.sub('', source.stem).strip('_-') or 'video'}_{label}{ending}" for source in sources]
        targets = [(source.parent if out is None else out) / name for source, name in zip(sources, names, strict=True)]
    for target, count in Counter(targets).items():
        if count > 1:
            raise VideoError(f"{target}: {count} inputs would be written there; do them separately, or with -o")
        check_path(target, "result")
        output_of(target, video.codec, video.crf)
        check_writable(existing_part(target.parent))
    return list(zip(sources, targets, strict=True))


def _is_video(path: Path) -> bool:
    try:
        return VideoSource(path).height > 0
    except VideoError:
        return False
