"""What ``fststyle video`` takes beside the network: time from file to file, and memory over a long clip.

    python scripts/checks/video.py speed memory --json FILE

``speed`` measures a clip of 640×360 pixels file to file against the network alone on the same frames, in turn, in
seconds of the clock and of all cores. ``memory`` stylises 720p frames for some minutes and samples the process' memory.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from skimage import data as pictures

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fststyle.images import resize_pixels
from fststyle.inference import StylizeOptions, Stylizer
from fststyle.networks.transform import TransformNet
from fststyle.resources import own_memory
from fststyle.video import VideoSource, stylize_video
from measuring import Figures, measure


def make_clip(path: Path, frames: int, height: int, width: int) -> None:
    """A pan over a photograph, 25 frames a second, with a second of silence for each second of it."""
    scene = resize_pixels(np.asarray(pictures.astronaut()), 2 * height, 2 * width)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        sound = out.add_stream("aac", rate=48000)
        for number in range(frames):
            left, top = 2 * number % width, number % height
            shown = np.ascontiguousarray(scene[top : top + height, left : left + width])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1920), np.int16), format="s16", layout="stereo")
            silence.sample_rate, silence.pts, silence.time_base = 48000, 1920 * number, Fraction(1, 48000)
            out.mux(sound.encode(silence))
        out.mux(stream.encode())
        out.mux(sound.encode())


def speed(style: str = "wave", frames: int = 40, rounds: int = 3) -> Figures:
    """Seconds a frame, file to file and of the network alone; medians over rounds."""
    stylizer = Stylizer.from_checkpoint(style, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        make_clip(clip, frames, 360, 640)
        source = VideoSource(clip)
        shown = [source.pixels(frame.shown, 360, 640) for frame in source.frames()]

        def network() -> None:
            for rgb in shown:
                stylizer.pixels(rgb)

        def file_to_file() -> None:
            stylize_video(clip, Path(folder, "out.mp4"), stylizer)

        found: dict[str, list[tuple[float, float]]] = {"network": [], "file to file": []}
        stylizer.pixels(shown[0])
        for _ in range(rounds):
            for name, run in (("network", network), ("file to file", file_to_file)):
                clock, cores = time.perf_counter(), time.process_time()
                run()
                found[name].append(((time.perf_counter() - clock) / frames, (time.process_time() - cores) / frames))
                yield f"{name}, round {len(found[name])}", [round(value, 4) for value in found[name][-1]]
        for which, unit in enumerate(("clock", "cores")):
            alone, whole = (statistics.median(each[which] for each in found[name]) for name in found)
            yield f"speed of the network alone, by {unit}", round(alone / whole, 3)


def memory(minutes: float = 5.0, width: int = 1, frames: int = 15_000) -> Figures:
    """Megabytes of the process while frames of 1280×720 pixels are stylised by a narrow network; width 0: by none."""
    stylizer = Stylizer(TransformNet(width=max(1, width), residual_blocks=0), device="cpu")
    options = StylizeOptions(strength=float(width > 0))
    apply, count, seen = stylizer.pixels, 0, []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        make_clip(clip, frames, 720, 1280)

        def counted(*arguments: object, **named: object) -> np.ndarray:
            nonlocal count
            if count % 100 == 0:
                seen.append((count, round(own_memory()[1] / 2**20)))
            count += 1
            if time.monotonic() - began > 60 * minutes:
                raise KeyboardInterrupt
            return apply(*arguments, **named)  # type: ignore[arg-type]

        stylizer.pixels = counted  # type: ignore[method-assign]
        with contextlib.suppress(KeyboardInterrupt):
            stylize_video(clip, Path(folder, "out.mp4"), stylizer, options)
    yield "frames and megabytes", seen
    yield "frames", count
    settled = [size for number, size in seen if number >= 100]
    yield "least and most megabytes from frame 100 on", [min(settled, default=0), max(settled, default=0)]


if __name__ == "__main__":
    measure(__doc__, {"speed": speed, "memory": memory})
