"""Videos: their motion is estimated nearly as it is, and what they need and refuse is said in a line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from clips import make_clip
from fststyle.cli import main
from fststyle.evaluation import stability, videos
from fststyle.evaluation.clips import Clip, make_clips
from fststyle.evaluation.videos import Video
from fststyle.images import save_image, to_image
from fststyle.model_file import save_model_file
from fststyle.networks.transform import TransformNet

SIZE, COUNT = (72, 96), 11
CLIPS = make_clips(SIZE, COUNT)


def errors(motion: Clip | Video, frames: list[np.ndarray]) -> np.ndarray:
    return np.array([np.sqrt(np.mean(each)) for each in stability.squared_errors(motion, frames)])


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    """Without loss."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "bgr0"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", ["zoom", "noise"])
def test_estimated_motion_measures_about_what_exact_motion_does(name: str, astronaut: np.ndarray) -> None:
    frames = CLIPS[name].frames(astronaut)
    video = Video("video", frames)
    flicker = [frame // 2 + 60 * (number % 2) for number, frame in enumerate(frames)]
    exact, estimated = errors(CLIPS[name], frames), errors(video, frames)
    assert (abs(estimated - exact) < (0.005, 0.05)).all()
    assert errors(video, flicker)[0] == pytest.approx(errors(CLIPS[name], flicker)[0], rel=0.02)
    assert errors(video, flicker)[0] > 10 * estimated[0]


@pytest.mark.parametrize("back", [1, 10])
def test_flow_is_followed_and_what_came_into_view_is_left_out(back: int, astronaut: np.ndarray) -> None:
    """With the disc's own flow, which no estimate is needed for."""
    clip = CLIPS["layer"]
    assert clip.layer is not None
    frames, step = clip.frames(astronaut), torch.tensor(clip.layer).float()[None, :, None, None]
    discs = [(clip._disc(number) > 0.5).float() for number in range(COUNT)]
    video = Video("video", frames)
    video.__dict__["_flows"] = [(-step * now, step * before) for before, now in itertools.pairwise(discs)]
    expected, exactly = clip.warped(to_image(frames[10 - back]), 10, back)
    found, known = video.warped(to_image(frames[10 - back]), 10, back)
    assert float((found - expected)[..., exactly & known].abs().max()) < 1e-4
    assert not known[(discs[10 - back] > discs[10])].any()
    assert float(known[exactly].float().mean()) > 0.95


def test_frames_on_both_sides_of_a_cut_are_not_compared(astronaut: np.ndarray) -> None:
    frames = CLIPS["pan"].frames(astronaut)[:2]
    cut = [*frames, *(255 - frame[::-1] for frame in frames)]
    short, long = stability.squared_errors(Video("video", cut), cut)
    assert (len(short), long) == (2, [])
    assert max(short) < 0.001


# --- as a user meets it ---------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, astronaut: np.ndarray, network: TransformNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user is in: a video, numbered pictures, a photograph, a style, a text."""
    monkeypatch.chdir(tmp_path)
    frames = CLIPS["pan"].frames(astronaut)
    write_video(Path("video.mkv"), frames)
    write_video(Path("short.mkv"), frames[:1])
    write_video(Path("flat.mkv"), [frame[:30] for frame in frames])
    write_video(Path("pan.mkv"), frames[:2])
    Path("walk").mkdir()
    for number, frame in enumerate(frames):
        save_image(frame, f"walk/{number:02d}.png")
    save_image(astronaut, "photo.png")
    save_image(astronaut[::8, ::8].copy(), "video.png")
    Path("notes.txt").write_text("Some notes.")
    save_model_file("wave.safetensors", network, {"kind": "style", "name": "wave"})
    return tmp_path


MEASURE = ["evaluate", "stability", "--width", "96", "--frames", "3", "--backend", "torch"]


def test_videos_are_measured_beside_photographs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = ["video.mkv", "photo.png", "walk/%02d.png", "--clip", "pan"]
    assert main([*MEASURE, *inputs, "--write", "clips"]) == 0
    folders = [Path(line) for line in capsys.readouterr().out.splitlines()[:3]]
    assert folders == [Path("clips/photo/pan"), Path("clips/video"), Path("clips/walk")]
    assert [len(list(folder.iterdir())) for folder in folders] == [3, 3, 3]
    words = ["--style", "wave.safetensors", "--steady", "--results", "clips", "--json", "figures.json"]
    assert main([*MEASURE, *inputs, *words]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table[0] == ["e_stab", "frames", "pan", "video", "walk", "mean"]
    assert [line[:2] for line in table[1::2]] == [["input", "1"], ["wave", "1"], ["clips", "1"]]
    assert table[1][2:] == table[5][2:]
    assert table[1][3] == table[1][4]
    figures = json.loads(Path("figures.json").read_text())
    assert (figures["photos"], figures["clips"], figures["videos"]) == (["photo"], ["pan"], ["video", "walk"])
    assert main([*MEASURE, "video.mkv", "--width", "128", "--write", "larger"]) == 0
    assert main([*MEASURE, "video.mkv", "--results", "larger"]) == 2
    assert "0001.png: is 128×96 pixels; expected 96×72, as the clip" in capsys.readouterr().err


def test_videos_that_cannot_be_read_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*MEASURE, "video.mkv", "notes.txt"]) == 1
    out, err = capsys.readouterr()
    assert out.split()[2] == "video"
    assert err.startswith("fststyle: skipped: notes.txt: is no video that can be read (")


def test_damage_is_named_and_the_rest_is_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = make_clip(Path("whole.mp4"), size=(72, 96), options={"movflags": "faststart"}).read_bytes()
    Path("part.mp4").write_bytes(whole[: len(whole) * 7 // 10])
    assert main([*MEASURE, "part.mp4", "--frames", "20"]) == 1
    out, err = capsys.readouterr()
    assert out.split()[2] == "part"
    assert err.startswith("fststyle: part.mp4: damaged: ")
    assert err.endswith("; the rest is measured\n")


@pytest.mark.parametrize(("words", "told"), [
    (["notes.txt"], "notes.txt: is no video that can be read"),
    (["lost/%d.png"], "lost/%d.png: is no video that can be read"),
    (["short.mkv"], "short.mkv: has 1 frame; expected a video of at least 2"),
    (["flat.mkv"], "flat.mkv: frames would be 96×30 pixels; expected at least 64×64"),
    (["video.mkv", "video.png"], "two of the photographs and videos have one name; give one of them another"),
    (["photo.png", "pan.mkv"], "pan.mkv: is called as one of the clips; give it another name"),
])  # fmt: skip
def test_refusals(words: list[str], told: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*MEASURE, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fststyle: error: ")
    assert told in line


@pytest.mark.parametrize(("missing", "told"), [
    (["av"], "PyAV, not installed here; pip install 'fststyle[video]'"),
    (["skimage"], "scikit-image, not installed here; pip install 'fststyle[demo]'"),
    (["av", "skimage"], "PyAV and scikit-image, not installed here; pip install 'fststyle[video,demo]'"),
])  # fmt: skip
def test_without_a_library_a_line_says_what_to_install(
    missing: list[str],
    told: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(videos, "find_spec", lambda name: None if name in missing else name)
    assert main([*MEASURE, "photo.png", "video.mkv"]) == 2
    assert capsys.readouterr().err == f"fststyle: error: video.mkv: is a video, and to measure it takes {told}\n"
    assert main([*MEASURE, "photo.png", "--clip", "pan"]) == 0
