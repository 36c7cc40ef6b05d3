"""Videos, whose motion is not known but estimated: what ``clips.Clip`` is for motion that is known.

Backward optical flow between a video's own frames by the iterative Lucas-Kanade method (Le Besnerais and Champagnat
2005, ``skimage.registration.optical_flow_ilk``), from each frame to the one before, and followed from frame to frame
over more. What forward and backward flow disagree on is taken for hidden (Sundaram, Brox and Keutzer 2010, "Dense point
trajectories by GPU-accelerated large displacement optical flow").
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fststyle.evaluation.clips import LEAST, grid_of, inside, sampled
from fststyle.images import SUFFIXES, Failure, ImageError, to_image, to_pixels

#: What videos need: the module, its library, and the extra that installs it.
_NEEDED = (("av", "PyAV", "video"), ("skimage", "scikit-image", "demo"))


class Video:
    """The first frames of a video; their motion is estimated when it is first asked for.

    Args:
        name: what it is called in results.
        shown: its frames, uint8 (H, W, 3), two or more.
    """

    def __init__(self, name: str, shown: Sequence[np.ndarray]) -> None:
        self.name, self._shown = name, list(shown)
        self.count = len(self._shown)
        self.size: tuple[int, int] = self._shown[0].shape[:2]

    def frames(self) -> list[np.ndarray]:
        """Its frames, uint8 (H, W, 3) each."""
        return self._shown

    def warped(self, earlier: Tensor, number: int, back: int) -> tuple[Tensor, Tensor]:
        """As ``Clip.warped``, as far as the flow is right; what came into view is what it is not consistent on."""
        x, y = grid_of(*self.size)
        known = inside(x, y, *self.size)
        for later in range(number, number - back, -1):
            to_earlier, to_later = self._flows[later - 1]
            step = sampled(to_earlier, x, y, mode="bilinear")[0]
            x, y = x + step[0], y + step[1]
            known &= inside(x, y, *self.size) & _agree(step, sampled(to_later, x, y, mode="bilinear")[0])
        return sampled(earlier, x, y, mode="bicubic").clamp(0, 1), known

    @functools.cached_property
    def _flows(self) -> list[tuple[Tensor, Tensor]]:
        """From each frame but the first to the one before, and from that to it: float32 (1, 2, H, W), x and y."""
        grey = [to_image(frame)[0].mean(0).numpy() for frame in self._shown]
        return [(_flow(now, before), _flow(before, now)) for before, now in itertools.pairwise(grey)]


def _flow(reference: np.ndarray, moving: np.ndarray) -> Tensor:
    """How far (right, down) what is at a pixel of one frame is from there in another, in pixels: (1, 2, H, W)."""
    from skimage.registration import optical_flow_ilk

    down, right = optical_flow_ilk(reference, moving, dtype=np.float32)
    return torch.from_numpy(np.stack([right, down]))[None]


def _agree(there: Tensor, back: Tensor) -> Tensor:
    """Where flow (2, H, W), and that back from where it leads, cancel, but for errors that grow with them: (H, W)."""
    lengths = there.square().sum(0) + back.square().sum(0)
    return (there + back).square().sum(0) < 0.01 * lengths + 0.5


def is_video(path: Path) -> bool:
    """Whether a name stands for a video: numbered pictures, an animated GIF, or any other file that is no picture."""
    if not path.is_file():
        return "%" in path.name
    ending = path.suffix.lower()
    if ending in SUFFIXES - {".gif"}:
        return False
    try:
        with Image.open(path) as picture:
            return picture.format == "MPEG" or (picture.format == "GIF" and getattr(picture, "is_animated", False))
    except Exception:  # whatever decoders raise; a damaged GIF is a picture that cannot be read
        return ending != ".gif"


def video_name(path: Path) -> str:
    """What a video is called: its file's stem; of numbered pictures what stands before the number, or their folder."""
    if path.is_file():
        return path.stem
    return path.name.partition("%")[0].strip("_-") or path.absolute().parent.name


def check_libraries(path: Path) -> None:
    """Raise ``ValueError`` if what reads a video, or estimates its motion, is not installed."""
    missing = [(library, extra) for module, library, extra in _NEEDED if find_spec(module) is None]
    if missing:
        libraries, extras = (" and ".join(names) for names in zip(*missing, strict=True))
        raise ValueError(
            f"{path}: is a video, and to measure it takes {libraries}, not installed here; "
            f"pip install 'fststyle[{extras.replace(' and ', ',')}]'"
        )


def read_video(path: Path, width: int, most: int) -> tuple[Video, list[Failure]]:
    """The first frames of a video, each brought to a width, and its damage.

    Args:
        path: any file that PyAV reads, or the name of numbered pictures, such as ``frames/%06d.png``.
        width: of frames, in pixels; their height goes with it.
        most: frames.

    Raises:
        ImageError: it cannot be read, has fewer than 2 frames, or such that are not ``clips.LEAST`` pixels high.
    """
    from fststyle.video import VideoError, VideoSource

    try:
        source = VideoSource(path)
        height = max(1, round(width * source.height / source.width))
        if min(height, width) < LEAST:
            raise ImageError(f"{path}: frames would be {width}×{height} pixels; expected at least {LEAST}×{LEAST}")
        found = [source.pixels(each.shown, height, width) for each in itertools.islice(source.frames(), most)]
    except VideoError as error:
        raise ImageError(str(error)) from None
    if len(found) < 2:
        raise ImageError(f"{path}: has {len(found)} frame; expected a video of at least 2")
    damage = [(path, f"{path}: damaged: {source.damage}")] if str(source.damage) else []
    frames = [rgb if rgb.dtype == np.uint8 else to_pixels(to_image(rgb)) for rgb in found]
    return Video(video_name(path), frames), damage
