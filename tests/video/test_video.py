"""Videos in a style: what is chosen, damage and interruptions."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from clips import STEADY, UNIT, VARYING, frames_of, make_clip, picture, samples_of, times_of
from fststyle.images import read_picture
from fststyle.inference import StylizeOptions, Stylizer
from fststyle.networks.transform import TransformNet
from fststyle.video import InterruptedVideo, VideoError, VideoOptions, VideoSource, encode, stylize_video
from fststyle.video.color import Color, to_frame, to_rgb
from fststyle.video.decode import Timed, selected

#: The photograph itself, so that no network is run.
NONE = StylizeOptions(strength=0)


#: Of its sides, in FFmpeg's logs, no clip says more than errors.
SOUND: dict[str, dict[str, Any]] = {
    "steady.mp4": {"audio": "aac"},
    "varying.mp4": {"times": VARYING, "audio": "aac"},
    "varying.mkv": {"times": VARYING, "audio": "flac"},
    "coarse.mp4": {"times": (0, 1, 3, 4, 5, 10, 11), "unit": Fraction(1, 30), "audio": "aac"},
    "silent.mp4": {},
    "turned.mp4": {"turn": 90},
    "turned.mov": {"turn": -90, "audio": "aac"},
    "upside_down.mp4": {"turn": 180, "times": VARYING},
    "odd.webm": {"size": (35, 49), "codec": "libvpx-vp9", "audio": "libopus"},
    "odd.mkv": {"size": (33, 41), "codec": "ffv1", "pixels": "bgr0"},
    "old.avi": {"unit": Fraction(1, 30), "times": range(20), "codec": "mpeg4", "audio": "libmp3lame"},
    "ntsc.mp4": {"unit": Fraction(1001, 30000), "times": range(20), "audio": "aac"},
    "broadcast.ts": {"unit": Fraction(1, 25), "times": range(20), "codec": "mpeg2video", "size": (64, 64)},
    "ten_bits.mkv": {"codec": "ffv1", "pixels": "yuv420p10le"},
    "late.mkv": {"times": [time + 300 for time in STEADY], "audio": "flac"},
    "small.gif": {"codec": "gif", "pixels": "rgb8", "unit": Fraction(1, 100), "times": (0, 4, 8, 20, 24)},
}


#: Where it is not the default, so that sound is copied.
RESULTS = {"odd.webm": ".webm", "odd.mkv": ".webm"}


@pytest.fixture
def stylizer(network: TransformNet) -> Stylizer:
    return Stylizer(network, {"name": "wave"}, "cpu")


@pytest.fixture(autouse=True)
def _heard() -> None:
    av.logging.set_level(av.logging.ERROR)


@pytest.mark.parametrize("name", SOUND)
def test_frames_times_and_samples_are_the_sources(name: str, tmp_path: Path, stylizer: Stylizer) -> None:
    source = make_clip(tmp_path / name, **SOUND[name])
    target = tmp_path / "out" / f"clip{RESULTS.get(name, '.mp4')}"
    how = StylizeOptions() if name == "steady.mp4" else NONE
    report = stylize_video(source, target, stylizer, how)
    assert report.frames == len(times_of(source)) == len(SOUND[name].get("times", STEADY))
    assert times_of(target) == times_of(source)
    assert samples_of(target) == samples_of(source)
    assert report.damage == []
    assert [note for note in report.notes if "audio" in note] == []
    read = VideoSource(source)
    made = VideoSource(target)
    assert (made.height, made.width, made.turns) == (read.height, read.width, 0)
    assert [path.name for path in target.parent.iterdir()] == [target.name]  # nothing else is left behind


def test_frames_are_the_networks(tmp_path: Path, stylizer: Stylizer) -> None:
    source = make_clip(tmp_path / "clip.mkv", codec="ffv1", pixels="bgr0", times=(0, 20, 40))
    stylize_video(source, tmp_path / "out.mkv", stylizer, video=VideoOptions(codec="ffv1"))
    for number, found in enumerate(frames_of(tmp_path / "out.mkv")):
        assert np.array_equal(found, stylizer.pixels(picture(number, 48, 64)))


def test_frames_are_in_a_single_pass_unless_asked(tmp_path: Path, network: TransformNet) -> None:
    stylizer, codec = Stylizer(network, {"name": "wave", "octaves": 2}, "cpu"), VideoOptions(codec="ffv1")
    source = make_clip(tmp_path / "clip.mkv", codec="ffv1", pixels="bgr0", times=(0, 20))
    rgb = picture(0, 48, 64)
    for name, octaves in ((None, 1), (2, 2)):
        stylize_video(source, tmp_path / "out.mkv", stylizer, StylizeOptions(octaves=name), codec)
        wanted = stylizer.pixels(rgb, StylizeOptions(octaves=octaves))
        assert np.array_equal(frames_of(tmp_path / "out.mkv")[0], wanted)
    assert not np.array_equal(wanted, stylizer.pixels(rgb, StylizeOptions(octaves=1)))


def test_a_turned_video_comes_out_upright(tmp_path: Path, stylizer: Stylizer) -> None:
    source = make_clip(tmp_path / "clip.mp4", turn=90, times=(0, 20))
    stylize_video(source, tmp_path / "out.mkv", stylizer, NONE, VideoOptions(codec="ffv1"))
    first = frames_of(tmp_path / "out.mkv")[0].astype(int)
    assert first.shape == (64, 48, 3)
    corners = first[4, 4], first[4, -4], first[-4, 4], first[-4, -4]
    assert [bool(corner[0] > 200 > 60 > corner[1]) for corner in corners] == [False, False, True, False]


def test_odd_sides_are_padded_where_they_must_be(tmp_path: Path, stylizer: Stylizer) -> None:
    source = make_clip(tmp_path / "clip.mkv", codec="ffv1", pixels="bgr0", size=(33, 41), times=(0, 20))
    report = stylize_video(source, tmp_path / "out.mp4", stylizer, NONE)
    assert report.notes == ["padded from 41×33 to 42×34: sides must be even"]
    assert frames_of(tmp_path / "out.mp4")[0].shape == (34, 42, 3)
    stylize_video(source, tmp_path / "small.mp4", stylizer, NONE, VideoOptions(size=31))
    assert frames_of(tmp_path / "small.mp4")[0].shape == (24, 30, 3)


@pytest.mark.parametrize(("name", "audio", "note"), [
    ("out.mp4", "pcm_s16le", "audio (pcm_s16le) converted to aac"),
    ("out.webm", "pcm_s16le", "audio (pcm_s16le) converted to opus"),
    ("out.gif", "pcm_s16le", "audio left out: GIF has none"),
    ("out.mov", "pcm_s16le", None),
])  # fmt: skip
def test_audio_is_converted_where_it_cannot_be_copied(
    name: str, audio: str, note: str | None, tmp_path: Path, stylizer: Stylizer
) -> None:
    source = make_clip(tmp_path / "clip.mov", audio=audio, times=(0, 20, 40, 60))
    target = tmp_path / name
    report = stylize_video(source, target, stylizer, NONE)
    assert report.notes == ([] if note is None else [note])
    expected = times_of(source)
    found = times_of(target)
    assert len(found) == len(expected)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= Fraction(1, 100)
    if name != "out.gif":
        assert samples_of(source) <= samples_of(target) <= samples_of(source) + 2048


def test_metadata_subtitles_and_chapters_are_kept(tmp_path: Path, stylizer: Stylizer) -> None:
    source = tmp_path / "clip.mkv"
    with av.open(str(source), "w") as out:
        out.metadata["title"] = "Waves"
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "bgr0"
        text = out.add_stream("subrip")
        text.metadata["language"] = "fra"
        text.codec_context.subtitle_header = b"[Script Info]\r\n"
        out.set_chapters([{"id": 1, "start": 0, "end": 80, "time_base": Fraction(1, 1000), "metadata": {"title": "A"}}])
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(picture(number, 32, 48), format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        line = av.Packet(b"Hello")
        line.stream, line.pts, line.dts, line.duration, line.time_base = text, 40, 40, 80, Fraction(1, 1000)
        out.mux(line)
        out.mux(stream.encode())
    for name in ("out.mkv", "out.mp4"):
        report = stylize_video(source, tmp_path / name, stylizer, NONE)
        with av.open(str(tmp_path / name)) as made:
            assert made.metadata["title"] == "Waves"
            assert [chapter["metadata"]["title"] for chapter in made.chapters()] == ["A"]
            subtitles = made.streams.subtitles[0]
            assert subtitles.language == "fra"
            assert b"Hello" in b"".join(bytes(packet) for packet in made.demux(subtitles))
        converted = ["subtitles (subrip) converted to mov_text"] if name == "out.mp4" else []
        assert report.notes == converted


# --- what is chosen -----------------------------------------------------------------------------


def test_a_cut_starts_at_zero_with_its_sound(tmp_path: Path, stylizer: Stylizer) -> None:
    times = tuple(range(0, 1200, 20))
    source = make_clip(tmp_path / "clip.mp4", times, audio="aac", encoder={"g": "12"})
    target = tmp_path / "out.mp4"
    stylize_video(source, target, stylizer, NONE, VideoOptions(start=0.5, end=1.5))
    assert times_of(target) == [Fraction(time, 600) for time in range(0, 600, 20)]
    assert samples_of(target) == pytest.approx(48000, abs=2 * 1024)
    shown = [frame[40, 50].mean() for frame in frames_of(target)]
    expected = [picture(number, 48, 64)[40, 50].mean() for number in range(15, 45)]
    assert np.abs(np.subtract(shown, expected)).mean() < 4


def test_frames_a_second_repeat_and_leave_out() -> None:
    frames = [Timed("abcd"[n], time, 1) for n, time in enumerate((0, 1, 2, 9))]
    found = list(selected(iter(frames), Fraction(1, 10), fps=Fraction(5)))
    assert [(each.shown, each.time) for each in found] == [("a", 0), ("c", 1), (None, 2), (None, 3), (None, 4)]
    late = list(selected(iter(frames[3:]), Fraction(1, 10), fps=Fraction(10)))
    assert [(each.shown, each.time) for each in late] == [("d", 9)]
    cut = list(selected(iter(frames), Fraction(1, 10), start=0.2, end=0.9))
    assert [(each.shown, each.time) for each in cut] == [("c", 0)]
    between = list(selected(iter(frames), Fraction(1, 10), start=0.5))  # c is shown then, whatever its duration says
    assert [(each.shown, each.time) for each in between] == [("c", 0), ("d", 4)]
    assert list(selected(iter(frames), Fraction(1, 10), start=2)) == []


def test_repeated_frames_are_not_stylised_again(tmp_path: Path, stylizer: Stylizer) -> None:
    source, asked = make_clip(tmp_path / "clip.mp4", times=(0, 100, 200)), []
    apply = stylizer.pixels
    stylizer.pixels = lambda rgb, *rest: (asked.append(1), apply(rgb, *rest))[1]  # type: ignore[method-assign]
    report = stylize_video(source, tmp_path / "out.mp4", stylizer, video=VideoOptions(fps=Fraction(30)))
    assert (report.frames, len(asked)) == (11, 3)
    assert len(times_of(tmp_path / "out.mp4")) == 11


def test_pictures_out_and_in(tmp_path: Path, stylizer: Stylizer) -> None:
    source = make_clip(tmp_path / "clip.mkv", codec="ffv1", pixels="bgr0", times=(0, 20, 40))
    target = tmp_path / "frames" / "%04d.png"
    stylize_video(source, target, stylizer)
    assert sorted(path.name for path in target.parent.iterdir()) == ["0001.png", "0002.png", "0003.png"]
    assert np.array_equal(read_picture(target.parent / "0002.png").rgb, stylizer.pixels(picture(1, 48, 64)))
    with pytest.raises(VideoError, match="3 such pictures are there already"):
        stylize_video(source, target, stylizer)
    assert stylize_video(target, tmp_path / "again.mp4", stylizer, NONE).frames == 3


@pytest.mark.parametrize(("name", "options", "message"), [
    ("out.xyz", {}, r"no kind of video that is written ends in '.xyz'"),
    ("out.webm", {"codec": "h264"}, "holds no h264; expected vp9, av1, or a file in .mp4"),
    ("out.mov", {"crf": 3}, "prores has none"),
    ("out.mp4", {"crf": 99}, "expected 0 to 51"),
    ("out.mp4", {"start": 3.0, "end": 2.0}, "expected 0 ≤ start < end"),
    ("out.mp4", {"size": 17}, "frames are 16×12 pixels"),
    ("out.mp4", {"start": 60.0}, "has no frame from 60"),
    ("%d.txt", {}, "no picture format"),
])  # fmt: skip
def test_what_cannot_be_written_is_refused(
    name: str, options: dict[str, Any], message: str, tmp_path: Path, stylizer: Stylizer
) -> None:
    source = make_clip(tmp_path / "clip.mp4", times=(0, 20))
    with pytest.raises(VideoError, match=message):
        stylize_video(source, tmp_path / name, stylizer, NONE, VideoOptions(**options))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


LONG = tuple(range(0, 1200, 20))


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "cut.mp4": ({"options": {"movflags": "+faststart"}, "audio": "aac"}, "of 60 frames are missing"),
    "cut.mkv": ({"audio": "aac"}, "a part of it"),
    "cut.avi": ({"codec": "mpeg4", "unit": Fraction(1, 30), "times": range(60)}, "frames are missing"),
    "zeros.mp4": ({"audio": "aac"}, "of 60 frames are missing"),
    "noise.mkv": ({"audio": "aac"}, r"cannot be decoded|not as they were|a part of it"),
}


# --- damage and interruptions -------------------------------------------------------------------


@pytest.mark.parametrize("name", DAMAGED)
def test_of_a_damaged_video_all_that_can_be_read_is_done(name: str, tmp_path: Path, stylizer: Stylizer) -> None:
    arguments, said = DAMAGED[name]
    source = make_clip(tmp_path / name, **{"times": LONG, "encoder": {"g": "10"}, **arguments})
    content = bytearray(source.read_bytes())
    if name.startswith("cut"):
        del content[len(content) * 6 // 10 :]
    elif name.startswith("zeros"):
        content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    else:
        rng = np.random.default_rng(0)
        content[len(content) // 3 : len(content) * 2 // 3 : 101] = rng.bytes(
            len(range(len(content) // 3, len(content) * 2 // 3, 101))
        )
    source.write_bytes(content)
    target = tmp_path / "out.mp4"
    report = stylize_video(source, target, stylizer, NONE)
    assert 10 < report.frames <= 60
    assert report.frames == len(times_of(source)) == len(times_of(target))
    assert any(np.char.find(report.damage[0], part) >= 0 for part in said.split("|"))


@pytest.mark.parametrize("content", [b"", b"no video at all" * 50])
def test_what_is_no_video_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(VideoError, match="is no video that can be read"):
        VideoSource(tmp_path / "clip.mp4")


class _Stopped(Stylizer):
    """Interrupted after so many frames."""

    left = 10**9

    def pixels(self, *arguments: Any, **named: Any) -> np.ndarray:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().pixels(*arguments, **named)


def test_an_interrupted_run_leaves_what_plays_and_goes_on(
    tmp_path: Path, network: TransformNet, stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "PART", 6)
    source = make_clip(tmp_path / "clip.mp4", VARYING, audio="aac")
    target, partial = tmp_path / "out.mp4", tmp_path / "out.partial.mp4"
    stopped = _Stopped(network, {"name": "wave"}, "cpu")
    for done in (4, 9):
        stopped.left = 4 if done == 4 else 5
        with pytest.raises(InterruptedVideo, match=f"{done} frames are done and in"):
            stylize_video(source, target, stopped, resume=done > 4)
        assert times_of(partial) == times_of(source)[:done]
        assert 0 < samples_of(partial) < samples_of(source)
        assert not target.exists()
    with pytest.raises(VideoError, match=r"left 9 frames in .*; give --resume to go on"):
        stylize_video(source, target, stylizer)
    with pytest.raises(VideoError, match=r"was begun with another strength \(1.0, now 0.5\)"):
        stylize_video(source, target, stylizer, StylizeOptions(strength=0.5), resume=True)
    report = stylize_video(source, target, stylizer, resume=True)
    assert report.frames == len(VARYING)
    assert times_of(target) == times_of(source)
    assert samples_of(target) == samples_of(source)
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "out.mp4"}


def test_a_disk_that_is_full_fails_and_what_is_done_stays(
    tmp_path: Path, stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "PART", 6)
    source, target = make_clip(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    write, left = encode.PartWriter.write, iter(range(9))

    def full(self: encode.PartWriter, *arguments: Any) -> None:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(encode.PartWriter, "write", full)
        with pytest.raises(RuntimeError, match=r"out.mp4 failed: .*No space left"):
            stylize_video(source, target, stylizer, NONE)
    assert not target.exists()
    assert stylize_video(source, target, stylizer, NONE, resume=True).frames == len(STEADY)
    assert times_of(target) == times_of(source)


def test_a_file_of_the_users_is_not_replaced_by_a_partial_one(tmp_path: Path, stylizer: Stylizer) -> None:
    source = make_clip(tmp_path / "clip.mp4", times=(0, 20))
    (tmp_path / "out.partial.mp4").write_text("mine")
    with pytest.raises(VideoError, match=r"out.partial.mp4: is there already"):
        stylize_video(source, tmp_path / "out.mp4", stylizer, NONE)


def test_an_interrupted_run_may_leave_nothing(tmp_path: Path, network: TransformNet) -> None:
    source = make_clip(tmp_path / "clip.mp4")
    stopped = _Stopped(network, {}, "cpu")
    stopped.left = 3
    with pytest.raises(KeyboardInterrupt):
        stylize_video(source, tmp_path / "out.mp4", stopped, keep_partial=False)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_pictures_go_on_too(tmp_path: Path, network: TransformNet, stylizer: Stylizer) -> None:
    source = make_clip(tmp_path / "clip.mkv", codec="ffv1", pixels="bgr0")
    target = tmp_path / "frames" / "%d.png"
    stopped = _Stopped(network, {}, "cpu")
    stopped.left = 3
    with pytest.raises(InterruptedVideo, match="3 pictures are done"):
        stylize_video(source, target, stopped)
    stopped.left = 100
    stylize_video(source, target, stopped, resume=True)
    assert {path.name for path in target.parent.iterdir()} == {f"{number}.png" for number in range(1, 21)}
    whole = itertools.count(1)
    assert all(
        np.array_equal(read_picture(target.parent / f"{next(whole)}.png").rgb, stylizer.pixels(frame))
        for frame in frames_of(source)[:5]
    )


def test_ten_bits_stay_ten_bits() -> None:
    ramp = np.repeat((np.arange(64) * 257 * 3 + 300).astype(np.uint16)[None, :, None], 16, 0).repeat(3, 2)
    color = Color(1, False, 1, 1)
    frame = to_frame(ramp, color, "yuv422p10le")
    back = to_rgb(frame, color, 16, 64)
    assert back.dtype == np.uint16
    assert len(np.unique(back[8, :, 1])) > 60
    assert np.abs(back.astype(int) - ramp).max() < 400


def test_times_that_are_missing_or_run_back_are_mended(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mkv", codec="ffv1", pixels="bgr0", times=(0, 20, 40), unit=UNIT)
    read = VideoSource(source)
    frames = [frame.shown for frame in read.frames()]
    for frame, time in zip(frames, (5, None, 3), strict=True):
        frame.pts = time
    read._decoded = lambda *_: iter(frames)  # type: ignore[method-assign]
    assert [frame.time for frame in read.frames()] == [5, 38, 39]
