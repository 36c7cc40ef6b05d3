"""``fststyle video`` as a user meets it: files, lines and exit codes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from clips import frames_of, make_clip, samples_of, times_of
from fststyle import model_file
from fststyle.cli import main, video
from fststyle.model_file import save_model_file
from fststyle.networks.transform import TransformNet


@pytest.fixture
def here(tmp_path: Path, network: TransformNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user is in: a clip with sound, a style, a text."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    make_clip(folder / "clip.mp4", times=range(0, 240, 20), audio="aac")
    (folder / "notes.txt").write_text("Some notes.")
    save_model_file(folder / "wave.safetensors", network, {"kind": "style", "name": "wave"})
    return folder


def stylize(*words: str) -> int:
    return main(["video", *words, "--style", "wave.safetensors", "--backend", "torch"])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"notes.txt", "wave.safetensors"}


def test_a_video_is_stylised_beside_itself(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stylize("clip.mp4") == 0
    assert names(here) == {"clip.mp4", "clip_wave.mp4"}
    assert capsys.readouterr() == ("clip_wave.mp4\n", "")
    assert times_of(here / "clip_wave.mp4") == times_of(here / "clip.mp4")
    assert samples_of(here / "clip_wave.mp4") == samples_of(here / "clip.mp4")


def test_options_and_several_inputs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_clip(here / "more.mkv", times=range(0, 100, 20))
    words = ["--size", "32", "--fps", "15", "--end", "0:0.2", "--crf", "30", "--strength", "0.5", "--preserve-color"]
    assert stylize("*.m[pk]*", "lost.mp4", "-o", "out", *words) == 1
    out, err = capsys.readouterr()
    assert out.split() == ["out/clip_wave.mp4", "out/more_wave.mp4"]
    assert "fststyle: skipped: lost.mp4: no such file; expected a video\n" in err
    assert "fststyle: 2 done, 1 skipped (lost.mp4)" in err
    assert [frame.shape for frame in frames_of(here / "out" / "clip_wave.mp4")] == [(24, 32, 3)] * 3


def test_an_earlier_result_is_replaced_and_no_other_video(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stylize("clip.mp4", "--strength", "0") == 0
    assert stylize("clip.mp4", "--strength", "0") == 0
    own = make_clip(here / "mine.mp4", times=(0, 20)).read_bytes()
    assert stylize("clip.mp4", "-o", "mine.mp4") == 2
    assert "mine.mp4: is a video that no run wrote, or that was changed since" in capsys.readouterr().err
    assert (here / "mine.mp4").read_bytes() == own
    assert stylize("clip.mp4", "-o", "mine.mp4", "--strength", "0", "--overwrite") == 0
    assert len(times_of(here / "mine.mp4")) == 12


def test_damage_is_reported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_clip(here / "cut.mkv", times=range(0, 800, 20), encoder={"g": "5"})
    content = (here / "cut.mkv").read_bytes()
    (here / "cut.mkv").write_bytes(content[: len(content) // 2])
    assert stylize("cut.mkv") == 1
    assert "fststyle: cut.mkv: damaged: " in capsys.readouterr().err
    assert len(times_of(here / "cut_wave.mp4")) == len(times_of(here / "cut.mkv")) > 5


@pytest.mark.parametrize(("words", "message"), [
    (["lost.mp4"], "lost.mp4: no such file; expected a video"),
    (["notes.txt"], "notes.txt: is no video that can be read (invalid data found when processing input)"),
    (["."], ".: is a folder; expected videos, such as *.mp4"),
    (["clip.mp4", "-o", "clip.mp4"], "clip.mp4: is read itself; give another name"),
    (["clip.mp4", "-o", "notes.txt"], "notes.txt: no kind of video that is written ends in '.txt'"),
    (["clip.mp4", "clip.mp4", "clip.mp*", "lost.mp4", "-o", "a.mp4"], "a.mp4: is one video for 2; give a folder"),
    (["clip.mp4", "-o", "a.webm", "--codec", "h264"], "a.webm: .webm holds no h264"),
    (["clip.mp4", "--end", "0"], "found a cut from 0 to 0.0 seconds; expected 0 ≤ start < end"),
    (["clip.mp4", "--style", "all"], "styles; expected one"),
    (["https://example.org/a.mp4"], "is an address, which is not read"),
])  # fmt: skip
def test_refusals(words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    assert stylize(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fststyle: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


@pytest.mark.parametrize("text", ["1:2:3:4", "-1", "soon", "inf", "nan"])
def test_times_that_are_none(text: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        stylize("clip.mp4", f"--start={text}")
    assert "expected seconds, or H:MM:SS" in capsys.readouterr().err


def test_times() -> None:
    assert [video.seconds(text) for text in ("1.5", "2:03", "1:00:00.25")] == [1.5, 123, 3600.25]


def test_without_pyav_the_command_says_what_to_install(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    assert stylize("clip.mp4") == 2
    assert "pip install 'fststyle[video]'" in capsys.readouterr().err


def _started(here: Path, *words: str) -> subprocess.Popen[bytes]:
    root = str(Path(model_file.__file__).resolve().parents[1])
    command = [sys.executable, "-m", "fststyle", "video", "long.mp4", "--style", "wave.safetensors", *words]
    environment = {**os.environ, "PYTHONPATH": root}
    return subprocess.Popen(
        [*command, "--backend", "torch"], cwd=here, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def test_openvino_needs_no_torch(here: Path) -> None:
    pytest.importorskip("openvino")
    assert main(["video", "clip.mp4", "--style", "wave.safetensors", "--backend", "openvino"]) == 0  # converted now
    words = ["video", "clip.mp4", "--style", "wave.safetensors", "--backend", "openvino", "--end", "0.1", "-o", "a.mp4"]
    code = f"import sys; from fststyle.cli import main; assert main({words}) == 0; assert 'torch' not in sys.modules"
    root = str(Path(model_file.__file__).resolve().parents[1])
    subprocess.run([sys.executable, "-c", code], cwd=here, env={**os.environ, "PYTHONPATH": root}, check=True)


@pytest.mark.slow
def test_runs_that_are_killed_at_random_leave_no_half_of_a_file_and_go_on(here: Path) -> None:
    """Ten kills, of SIGKILL, SIGTERM and Ctrl-C, then to the end."""
    chance = random.Random(0)
    make_clip(here / "long.mp4", times=range(0, 30000, 20), size=(128, 160), audio="aac")
    target, kills = here / "long_wave.mp4", 0
    while True:
        run = _started(here, "--resume")
        if kills == 10:
            assert run.wait() == 0
            break
        try:
            run.wait(chance.uniform(1, 3))
        except subprocess.TimeoutExpired:
            run.send_signal(chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
            run.wait()
            kills += 1
            assert not target.exists()
        else:
            assert run.returncode == 0
            break
    assert kills >= 3
    assert times_of(target) == times_of(here / "long.mp4")
    assert samples_of(target) == samples_of(here / "long.mp4")
    assert names(here) == {"clip.mp4", "long.mp4", "long_wave.mp4"}


@pytest.mark.slow
def test_ctrl_c_leaves_a_file_that_plays(here: Path) -> None:
    make_clip(here / "long.mp4", times=range(0, 60000, 20), size=(192, 256), audio="aac")
    run = _started(here)
    while not list(here.glob(".long_wave.mp4.parts/*.mkv")):
        time.sleep(0.1)
        assert run.poll() is None
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    said: Any = run.communicate()[1].decode()
    assert run.returncode == 1
    assert "frames are done and in long_wave.partial.mp4, the same command with --resume goes on" in said
    done = times_of(here / "long_wave.partial.mp4")
    assert 0 < len(done) < 3000
    assert done == times_of(here / "long.mp4")[: len(done)]
