"""How steady a style is over time: warping errors on clips whose motion is known exactly.

e_stab = sqrt(mean over frames of the mean square difference, where it is known, between a frame and an earlier one
warped to it), values in [0, 1] (Lai et al. 2018, "Learning blind video temporal consistency"; Huang et al. 2017).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fststyle.evaluation.clips import Clip, make_clips
from fststyle.evaluation.figures import figures_file, write_json
from fststyle.images import Failure, ImageError, check_folder, read_picture, save_image, to_image
from fststyle.inference import Stylizer
from fststyle.inference.paths import label_of, readable
from fststyle.inference.steady import SteadyInput
from fststyle.resources import user_path

#: Frames from one to the one that it is compared with: the next, and one later.
RANGES = (1, 10)
#: Gets the frames of a clip in their order, uint8 (H, W, 3).
Method = Callable[[np.ndarray], np.ndarray]
#: Makes a method anew for each clip.
Fresh = Callable[[], Method]


@dataclass(frozen=True)
class Stability:
    """Warping errors of a method on a clip, the mean square over photographs beneath the root."""

    method: str
    clip: str
    #: To the next frame.
    short: float
    #: Over ten frames; NaN for clips of fewer.
    long: float


def measure_files(
    photos: Sequence[str],
    styles: Sequence[str] = (),
    results: Sequence[str] = (),
    clips: Sequence[str] = (),
    width: int = 320,
    frames: int = 24,
    steady: float | None = None,
    write: str | None = None,
    json: str | None = None,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
) -> tuple[list[Stability], list[Failure]]:
    """Measure styles, and what was stylised elsewhere, on clips that are made from photographs.

    Args:
        photos: picture files.
        styles: bundled names, or model files.
        results: folders of stylised clips, laid out as those of ``write``.
        clips: names of those that are made; none: all.
        width: of frames, pixels, three quarters high.
        frames: of each clip.
        steady: as for ``SteadyInput``; None: frames are stylised as they are.
        write: a new or empty folder for the clips' frames.
        json: a file for the figures.
        device, backend, precision: as for ``Stylizer.from_checkpoint``.

    Returns:
        What was measured, and the photographs that could not be read, which stderr names.

    Raises:
        ValueError, OSError: refused before work began.
    """
    stylizers = {label_of(name): Stylizer.from_checkpoint(name, device, backend, precision) for name in styles}
    elsewhere = {folder.name: folder for folder in map(user_path, results)}
    names = ["input", *map(label_of, styles), *(Path(folder).name for folder in results)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two of the results are called {twice[0]}; give one of them another name")
    for folder in elsewhere.values():
        if not folder.is_dir():
            raise ImageError(f"{folder}: no such folder; expected stylised clips in PHOTO/CLIP/")
    target = figures_file(json, "clips", "stability")
    written = None if write is None else check_folder(write, "--write")
    if written is not None and written.exists() and any(written.iterdir()):
        raise ImageError(f"{written}: is there already, and not empty; give another folder for --write")
    paths = [user_path(name) for name in photos]
    if len({path.stem for path in paths}) < len(paths):
        raise ValueError("two of the photographs have one name; give one of them another")
    read, failures = readable(paths, lambda path: read_picture(path, 4 * width).rgb)
    pictures = {path.stem: rgb for path, rgb in read.items()}
    known = make_clips((width * 3 // 4, width), frames)
    for name in clips:
        if name not in known:
            raise ValueError(f"unknown clip {name!r}; expected one of {', '.join(known)}")
    made = {name: clip for name, clip in known.items() if name in (clips or known)}
    if written is not None:
        for folder in write_clips(pictures, made, written):
            tqdm.write(str(folder))

    def fresh(stylizer: Stylizer) -> Method:
        if steady is None:
            return stylizer.pixels
        calm = SteadyInput(steady)
        return lambda rgb: stylizer.pixels(calm(rgb))

    methods = {name: functools.partial(fresh, stylizer) for name, stylizer in stylizers.items()}
    work = len(made) * len(pictures) * (len(methods) + len(elsewhere))
    with tqdm(total=work, unit="clip", disable=not sys.stderr.isatty()) as bar:
        rows = list(evaluate(pictures, made, methods, elsewhere, bar.update))
    if target is not None:
        about = {"photos": list(pictures), "clips": list(made), "frames": frames, "width": width}
        write_json(target, {**about, "stability": [vars(row) for row in rows]})
    return rows, failures


def squared_errors(clip: Clip, frames: Sequence[np.ndarray]) -> tuple[list[float], ...]:
    """Mean square differences of each frame to the one ``RANGES`` before it, where that is known."""
    images = [to_image(frame) for frame in frames]
    found: tuple[list[float], ...] = tuple([] for _ in RANGES)
    for errors, back in zip(found, RANGES, strict=True):
        for number in range(back, len(images)):
            expected, known = clip.warped(images[number - back], number, back)
            errors.append(float((images[number] - expected).square().mean((0, 1))[known].mean()))
    return found


def evaluate(
    photos: Mapping[str, np.ndarray],
    clips: Mapping[str, Clip],
    methods: Mapping[str, Fresh],
    results: Mapping[str, Path],
    tick: Callable[[], object] = lambda: None,
) -> Iterator[Stability]:
    """Warping errors of the clips themselves (``input``), of methods, and of frames that were made elsewhere.

    Args:
        photos: by name, uint8 (H, W, 3).
        clips: of ``make_clips``.
        methods: by name.
        results: folders that are laid out as those of ``write_clips``, by name.
        tick: called after each method on each clip of a photograph.

    Raises:
        ImageError: a frame of ``results`` is not there, or of another size.
    """
    for name, clip in clips.items():
        found: dict[str, list[tuple[list[float], ...]]] = {}
        for photo, pixels in photos.items():
            frames = clip.frames(pixels)
            made: dict[str, Sequence[np.ndarray]] = {"input": frames}
            for method, fresh in methods.items():
                apply = fresh()
                made[method] = [apply(frame) for frame in frames]
                tick()
            for method, folder in results.items():
                made[method] = read_frames(folder / photo / name, clip)
                tick()
            for method, shown in made.items():
                found.setdefault(method, []).append(squared_errors(clip, shown))
        for method, errors in found.items():
            means = [[each for one in errors for each in one[which]] for which in range(len(RANGES))]
            yield Stability(method, name, *(float(np.sqrt(np.mean(each))) if each else float("nan") for each in means))


def write_clips(photos: Mapping[str, np.ndarray], clips: Mapping[str, Clip], folder: Path) -> Iterator[Path]:
    """Write frames as ``FOLDER/PHOTO/CLIP/0001.png``; yields each clip's folder."""
    for photo, pixels in photos.items():
        for name, clip in clips.items():
            where = folder / photo / name
            where.mkdir(parents=True, exist_ok=True)
            for number, frame in enumerate(clip.frames(pixels), 1):
                save_image(frame, where / f"{number:04d}.png")
            yield where


def read_frames(folder: Path, clip: Clip) -> list[np.ndarray]:
    """The frames of a clip that were stylised elsewhere: as many pictures of its size, in the order of their names.

    Raises:
        ImageError: others.
    """
    pictures = sorted(path for path in folder.glob("*.*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if len(pictures) != clip.count:
        raise ImageError(f"{folder}: has {len(pictures)} pictures; expected the {clip.count} frames of the clip")
    frames = [read_picture(path).rgb for path in pictures]
    for path, frame in zip(pictures, frames, strict=True):
        if frame.shape[:2] != clip.size:
            sides = f"{frame.shape[1]}×{frame.shape[0]}"
            raise ImageError(f"{path}: is {sides} pixels; expected {clip.size[1]}×{clip.size[0]}, as the clip")
    return frames


def lines(rows: Iterable[Stability]) -> list[str]:
    """A table: a line for each method and range, a column for each clip, and the mean over the clips."""
    by_method: dict[str, dict[str, Stability]] = {}
    for row in rows:
        by_method.setdefault(row.method, {})[row.clip] = row
    clips = list(next(iter(by_method.values())))
    width = max(map(len, by_method))
    table = [" ".join([f"{'e_stab':<{width}}", "frames", *(f"{clip:>8}" for clip in clips), f"{'mean':>8}"])]
    for method, found in by_method.items():
        for back, which in zip(RANGES, ("short", "long"), strict=True):
            values = [getattr(found[clip], which) for clip in clips]
            cells = [f"{value:8.4f}" for value in [*values, float(np.mean(values))]]
            table.append(" ".join([f"{method:<{width}}", f"{back:>6}", *cells]))
    return table
