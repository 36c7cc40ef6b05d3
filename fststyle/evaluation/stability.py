"""How steady a style is over time: warping errors on clips whose motion is known exactly, and on videos.

e_stab = sqrt(mean over frames of the mean square difference, where it is known, between a frame and an earlier one
warped to it), values in [0, 1] (Lai et al. 2018, "Learning blind video temporal consistency"; Huang et al. 2017).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fststyle.evaluation.clips import Clip, make_clips
from fststyle.evaluation.figures import figures_file, write_json
from fststyle.evaluation.videos import Video, check_libraries, is_video, read_video, video_name
from fststyle.images import Failure, ImageError, check_folder, read_picture, save_image, to_image
from fststyle.inference import Stylizer
from fststyle.inference.options import FRAMES
from fststyle.inference.paths import label_of, readable
from fststyle.inference.steady import SteadyInput
from fststyle.resources import one_line, user_path

#: Frames from one to the one that it is compared with: the next, and one later.
RANGES = (1, 10)
#: What part of a frame has to be known at least for it to be measured.
_KNOWN = 0.1
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


@dataclass(frozen=True)
class Shot:
    """A clip of a photograph, or a video.

    Args:
        name: the clip's, or the video's.
        folder: where its frames lie below those of ``write_clips``.
        motion: where its pixels were.
        frames: makes or gives them, uint8 (H, W, 3) each.
    """

    name: str
    folder: Path
    motion: Clip | Video
    frames: Callable[[], list[np.ndarray]]


def shots_of(photos: Mapping[str, np.ndarray], clips: Mapping[str, Clip], videos: Iterable[Video] = ()) -> list[Shot]:
    """All clips of all photographs (by name, uint8 (H, W, 3)), clip by clip, then videos."""
    made = [
        Shot(name, Path(photo, name), clip, functools.partial(clip.frames, pixels))
        for name, clip in clips.items()
        for photo, pixels in photos.items()
    ]
    return [*made, *(Shot(video.name, Path(video.name), video, video.frames) for video in videos)]


def measure_files(
    inputs: Sequence[str],
    styles: Sequence[str] = (),
    results: Sequence[str] = (),
    clips: Sequence[str] = (),
    width: int = 320,
    frames: int = 24,
    steady: float | None = None,
    octaves: int = 1,
    write: str | None = None,
    json: str | None = None,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
) -> tuple[list[Stability], list[Failure]]:
    """Measure styles, and what was stylised elsewhere, on clips that are made from photographs, and on videos.

    Args:
        inputs: picture files; videos, or names of numbered pictures as ``frames/%06d.png``.
        styles: bundled names, or model files.
        results: folders of stylised clips, laid out as those of ``write``.
        clips: names of those that are made; none: all.
        width: of frames, pixels; clips are three quarters high, videos as high as they are.
        frames: of each clip; of a video, its first ones.
        steady: as for ``SteadyInput``; None: frames are stylised as they are.
        octaves: in which styles are applied; a video's frames are in one.
        write: a new or empty folder for the clips' frames.
        json: a file for the figures.
        device, backend, precision: as for ``Stylizer.from_checkpoint``.

    Returns:
        What was measured, and the inputs that could not be read, or not all of it, which stderr names.

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
            raise ImageError(f"{folder}: no such folder; expected stylised clips in PHOTO/CLIP/, videos in VIDEO/")
    target = figures_file(json, "clips", "stability")
    written = None if write is None else check_folder(write, "--write")
    if written is not None and written.exists() and any(written.iterdir()):
        raise ImageError(f"{written}: is there already, and not empty; give another folder for --write")
    known = make_clips((width * 3 // 4, width), frames)
    for name in clips:
        if name not in known:
            raise ValueError(f"unknown clip {name!r}; expected one of {', '.join(known)}")
    made = {name: clip for name, clip in known.items() if name in (clips or known)}
    videos, photos = _told_apart([user_path(name) for name in inputs], made)
    damage: list[Failure] = []

    def read(path: Path) -> np.ndarray | Video:
        if path not in videos:
            return read_picture(path, 4 * width).rgb
        video, damaged = read_video(path, width, frames)
        damage.extend(damaged)
        return video

    found, failures = readable([*photos, *videos], read)
    for _, reason in damage:
        tqdm.write(f"fststyle: {one_line(reason)}; the rest is measured", file=sys.stderr)
    pictures = {path.stem: each for path, each in found.items() if not isinstance(each, Video)}
    shown = [each for each in found.values() if isinstance(each, Video)]
    shots = shots_of(pictures, made, shown)
    if written is not None:
        for folder in write_clips(shots, written):
            tqdm.write(str(folder))

    options = dataclasses.replace(FRAMES, octaves=octaves)

    def fresh(stylizer: Stylizer) -> Method:
        calm = (lambda rgb: rgb) if steady is None else SteadyInput(steady)
        return lambda rgb: stylizer.pixels(calm(rgb), options)

    methods = {name: functools.partial(fresh, stylizer) for name, stylizer in stylizers.items()}
    with tqdm(total=len(shots) * (len(methods) + len(elsewhere)), unit="clip", disable=not sys.stderr.isatty()) as bar:
        rows = list(evaluate(shots, methods, elsewhere, bar.update))
    if target is not None:
        about = {"photos": list(pictures), "clips": list(made), "videos": [video.name for video in shown]}
        figures = {"frames": frames, "width": width, "stability": [vars(row) for row in rows]}
        write_json(target, {**about, **figures})
    return rows, [*failures, *damage]


def _told_apart(paths: Sequence[Path], clips: Iterable[str]) -> tuple[list[Path], list[Path]]:
    """Videos and photographs.

    Raises:
        ValueError: two with one name, a video that is called as a clip is, or what videos need is not installed.
    """
    videos = [path for path in paths if is_video(path)]
    photos = [path for path in paths if path not in videos]
    names = [*(path.stem for path in photos), *map(video_name, videos)]
    if len(set(names)) < len(names):
        kinds = "photographs and videos" if videos else "photographs"
        raise ValueError(f"two of the {kinds} have one name; give one of them another")
    for video in videos:
        check_libraries(video)
        if photos and video_name(video) in clips:
            raise ValueError(f"{video}: is called as one of the clips; give it another name")
    return videos, photos


def squared_errors(clip: Clip | Video, frames: Sequence[np.ndarray]) -> tuple[list[float], ...]:
    """Mean square differences of each frame to the one ``RANGES`` before it, where that is known."""
    images = [to_image(frame) for frame in frames]
    found: tuple[list[float], ...] = tuple([] for _ in RANGES)
    for errors, back in zip(found, RANGES, strict=True):
        for number in range(back, len(images)):
            expected, known = clip.warped(images[number - back], number, back)
            if known.float().mean() >= _KNOWN:  # else the video was cut between them
                errors.append(float((images[number] - expected).square().mean((0, 1))[known].mean()))
    return found


def evaluate(
    shots: Sequence[Shot],
    methods: Mapping[str, Fresh],
    results: Mapping[str, Path],
    tick: Callable[[], object] = lambda: None,
) -> Iterator[Stability]:
    """Warping errors of the clips themselves (``input``), of methods, and of frames that were made elsewhere.

    Args:
        shots: of ``shots_of``.
        methods: by name.
        results: folders that are laid out as those of ``write_clips``, by name.
        tick: called after each method on each shot.

    Raises:
        ImageError: a frame of ``results`` is not there, or of another size.
    """
    for name, group in itertools.groupby(shots, lambda shot: shot.name):
        found: dict[str, list[tuple[list[float], ...]]] = {}
        for shot in group:
            frames = shot.frames()
            made: dict[str, Sequence[np.ndarray]] = {"input": frames}
            for method, fresh in methods.items():
                apply = fresh()
                made[method] = [apply(frame) for frame in frames]
                tick()
            for method, folder in results.items():
                made[method] = read_frames(folder / shot.folder, shot.motion)
                tick()
            for method, shown in made.items():
                found.setdefault(method, []).append(squared_errors(shot.motion, shown))
        for method, errors in found.items():
            means = [[each for one in errors for each in one[which]] for which in range(len(RANGES))]
            yield Stability(method, name, *(float(np.sqrt(np.mean(each))) if each else float("nan") for each in means))


def write_clips(shots: Iterable[Shot], folder: Path) -> Iterator[Path]:
    """Write frames as ``FOLDER/PHOTO/CLIP/0001.png``, ``FOLDER/VIDEO/0001.png``; yields each folder of frames."""
    for shot in shots:
        where = folder / shot.folder
        where.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(shot.frames(), 1):
            save_image(frame, where / f"{number:04d}.png")
        yield where


def read_frames(folder: Path, clip: Clip | Video) -> list[np.ndarray]:
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
    cells = [["e_stab", "frames", *clips, "mean"]]
    for method, found in by_method.items():
        for back, which in zip(RANGES, ("short", "long"), strict=True):
            values = [getattr(found[clip], which) for clip in clips]
            cells.append([method, str(back), *(f"{value:.4f}" for value in [*values, float(np.mean(values))])])
    first, *wide = (max(map(len, column)) for column in zip(*cells, strict=True))
    return [" ".join([f"{row[0]:<{first}}", *map(str.rjust, row[1:], wide)]) for row in cells]
