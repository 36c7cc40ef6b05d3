"""What befalls a long run: it ends in one clear line with a good state behind, or goes on."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from commands import SMALL, in_folder, train
from fststyle.cli import main
from fststyle.images import find_pictures, save_image
from fststyle.model_file import read_metadata
from fststyle.training.checkpoints import newest_checkpoint, step_of

#: No case takes a tenth of it.
PATIENCE = 300


@pytest.fixture
def desk(tmp_path: Path, astronaut: np.ndarray) -> Path:
    save_image(astronaut[:96, 100:228].copy(), tmp_path / "painting.png")
    return tmp_path


@pytest.fixture
def words(photographs: Path) -> tuple[str, ...]:
    source = ("data=folder", f"data.source.path={photographs}")
    return ("style.image=painting.png", "style.size=96", *SMALL, *source, "output=out", "callbacks.checkpoints.every=5")


@contextmanager
def running(desk: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process of its own, once it has saved a state."""
    command = [sys.executable, "-m", "fststyle", "train", *words]
    with open(desk / "said.txt", "w") as said:
        process = subprocess.Popen(command, cwd=desk, stdout=said, stderr=said, start_new_session=True)
        try:
            wait(lambda: any((desk / "out" / "checkpoints").glob("*.ckpt")) or process.poll() is not None)
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def lines(desk: Path) -> list[str]:
    """What it said, without the progress bar."""
    return [line for line in (desk / "said.txt").read_text().splitlines() if line.startswith("fststyle: ")]


@pytest.mark.parametrize(
    ("number", "compiling"),
    [(signal.SIGTERM, "false"), pytest.param(signal.SIGUSR1, "auto", marks=pytest.mark.slow)],
)
def test_a_run_that_is_told_to_stop_saves_ends_with_75_and_goes_on(
    number: int, compiling: str, desk: Path, words: tuple[str, ...]
) -> None:
    words = (*words, f"task.compile={compiling}")
    with running(desk, *words, "steps=1000000", "data.workers=2") as process:
        os.killpg(process.pid, number)  # its workers hear it, too
        assert process.wait(PATIENCE) == 75, (desk / "said.txt").read_text()
    state = newest_checkpoint(desk / "out")
    assert state is not None
    step = step_of(state)
    assert lines(desk) == [
        f"fststyle: painting was stopped by a signal at step {step} of 1000000; "
        f"the last training checkpoint is {state.relative_to(desk)}, resume=last goes on"
    ]
    assert "Traceback" not in (desk / "said.txt").read_text()
    assert not (desk / "out" / "painting.safetensors").exists()
    assert train(desk, *words, f"steps={step + 2}", "resume=auto") == 0
    assert read_metadata(desk / "out" / "painting.safetensors")["steps"] == step + 2


@pytest.mark.slow
def test_a_decoding_process_that_is_killed_ends_the_run_in_one_line(desk: Path, words: tuple[str, ...]) -> None:
    with running(desk, *words, "steps=1000000", "data.workers=2") as process:
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        assert process.wait(PATIENCE) == 1
    (line,) = lines(desk)
    assert "a process that decodes photographs was killed, perhaps for want of memory" in line
    assert "the last training checkpoint is out/checkpoints/step_" in line
    assert newest_checkpoint(desk / "out") is not None


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_others_in_one_line(desk: Path, words: tuple[str, ...]) -> None:
    with running(desk, *words, "steps=1000000", "trainer=ddp", "trainer.devices=2") as process:
        other = next(child for child in children(process.pid) if b"LOCAL_RANK=1" in environment(child))
        os.kill(other, signal.SIGKILL)
        assert process.wait(PATIENCE) == 1
    (line,) = lines(desk)
    assert "another rank ended or no longer answers" in line
    assert newest_checkpoint(desk / "out") is not None


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def test_a_shard_that_cannot_be_read_ends_the_run_in_one_line(
    desk: Path, words: tuple[str, ...], photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shard in range(2):
        with tarfile.open(desk / f"{shard}.tar", "w") as tar:
            for picture in find_pictures(photographs):
                tar.add(picture, picture.name)
    content = (desk / "1.tar").read_bytes()
    (desk / "1.tar").write_bytes(content[: len(content) // 2])
    streamed = ("data=webdataset", "data.source.files=[0.tar,1.tar]", "data.held_out=2", "data.buffer=2")
    other = [word for word in words if not word.startswith(("data=", "data.source"))]
    assert train(desk, *other, *streamed, "data.batch_size=2", "steps=200", "callbacks.checkpoints.every=2") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fststyle: ")]
    assert "the stream broke off" in line
    assert "resume=last goes on" in line
    assert newest_checkpoint(desk / "out") is not None


@pytest.mark.slow
def test_a_requeued_job_goes_on_without_being_told(
    desk: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(desk, *words, "steps=2") == 0
    assert train(desk, *words, "steps=4") == 2
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert train(desk, *words, "steps=4") == 0
    assert read_metadata(desk / "out" / "painting.safetensors")["steps"] == 4


@pytest.mark.slow
def test_a_run_killed_between_its_last_step_and_its_export_exports(desk: Path, words: tuple[str, ...]) -> None:
    assert train(desk, *words, "steps=3") == 0
    exported = desk / "out" / "painting.safetensors"
    before = read_metadata(exported)
    exported.unlink()
    assert train(desk, *words, "steps=3", "resume=auto") == 0
    after = read_metadata(exported)
    assert (after["steps"], after["held_out"]) == (before["steps"], before["held_out"])


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        ("fststyle.optimization.optimize", "Progress", ["optimize", "content=painting.png", "size=48", "iterations=1"]),
        ("fststyle.optimization.optimize", "Progress", ["preview", "painting.png", "size=48", "iterations=1"]),
        ("fststyle.optimization.optimize", "Progress", ["compare", "painting.png", "--style", "wave", "--size", "48"]),
        ("fststyle.inference.export", "export", ["export", "wave", "--format", "pt2"]),
    ],
)
def test_an_error_of_the_work_itself_is_a_failure_and_no_refusal(
    module: str,
    name: str,
    words: list[str],
    desk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("expected a number")

    monkeypatch.setattr(importlib.import_module(module), name, broken)
    hydra = ["style.image=painting.png", "encoder=random", "calibration_photographs=4", "data=generated"]
    with in_folder(desk):
        assert main([*words, *(hydra if words[0] in ("optimize", "preview") else [])]) == 1
    assert "failed: expected a number" in capsys.readouterr().err
