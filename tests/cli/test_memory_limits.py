"""Limits of memory: of a container, of ``ulimit -v``, and those that the user gives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fststyle import resources
from fststyle.cli import main
from fststyle.images import read_picture, save_image
from fststyle.inference import tiled
from fststyle.model_file import save_model_file
from fststyle.networks.transform import TransformNet
from marks import rest_slow


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, network: TransformNet, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_image(astronaut, "photo.png")
    save_model_file("mine.safetensors", network, {"kind": "style", "name": "mine"})
    return tmp_path


WORDS = ("stylize", "photo.png", "--style", "mine.safetensors", "--backend", "torch", "--device", "cpu", "-o", "a.png")


@pytest.mark.parametrize("more", rest_slow([["--size", "400"], [], ["--tiles", "exact"]]))
def test_memory_that_is_too_little_is_refused_with_the_least_that_works(
    more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, *more, "--memory", "10KB"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    found = re.search(r"photo\.png: takes at least (\d+MB) of memory at .* pixels; found --memory 0\.01MB", line)
    assert found
    assert not Path("a.png").exists()
    assert main([*WORDS, *more, "--memory", found[1]]) == 0


def test_enough_for_the_whole_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--memory", "500MB"]) == 0
    assert main([*WORDS, "--memory", "10KB", "--tiles", "off"]) == 0
    assert capsys.readouterr().err == ""


def test_one_that_takes_too_much_among_several_is_skipped(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_image(np.full((16, 16, 3), 99, np.uint8), "small.png")
    assert main(["stylize", "small.png", *WORDS[1:-1], "out", "--memory", "300KB"]) == 1
    assert "fststyle: skipped: photo.png: takes at least 1MB" in capsys.readouterr().err
    assert [path.name for path in (desk / "out").iterdir()] == ["small_mine.png"]


@pytest.mark.parametrize("version", [1, 2])
def test_a_picture_that_a_container_is_too_small_for_is_done_in_strips(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system of control groups is the test's own. Half of 24 MiB is less than the whole picture takes."""
    assert main(list(WORDS)) == 0
    whole = read_picture("a.png").rgb
    files = {
        1: ("4:cpu:/\n3:memory:/docker/1\n", "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes"),
        2: ("0::/docker/1\n", "sys/fs/cgroup/docker/memory.max"),
    }
    groups, place = files[version]
    for name, text in (("proc/self/cgroup", groups), (place, str(24 * 2**20))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for function in (resources.memory_limit, resources.free_memory):
        monkeypatch.setattr(function, "__defaults__", (tmp_path,))
    monkeypatch.setattr(resources, "_ALWAYS", 12 * 2**20)
    real, called = tiled.pixels_in_strips, []

    def noted(*arguments: object) -> object:
        called.append(arguments[4])
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tiled, "pixels_in_strips", noted)
    assert main(list(WORDS)) == 0
    assert called == [12 * 2**20]
    assert np.abs(read_picture("a.png").rgb.astype(int) - whole).max() <= 1


def run(limit: int, *words: str) -> subprocess.CompletedProcess[str]:
    command = f'ulimit -v {limit}; exec "$@"'
    words = (sys.executable, "-m", "fststyle", *words)
    return subprocess.run(["bash", "-c", command, "bash", *words], capture_output=True, text=True, timeout=100)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ulimit -v holds on Linux")
@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (100_000, WORDS),
        (200_000, ("train", "style=wave")),
        (300_000, ("styles",)),
        (400_000, ("optimize", "content=photo.png")),
        (800_000, WORDS),  # too little for PyTorch
        (800_000, ("swap", "photo.png", "--style-image", "photo.png")),
        (800_000, ("preview", "photo.png", "style.image=photo.png")),
    ],
)
def test_an_address_space_that_imports_do_not_fit_into_is_refused_in_one_line(
    limit: int, words: tuple[str, ...], desk: Path
) -> None:
    before = sorted(desk.iterdir())
    done = run(limit, *words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"fststyle: error: ulimit -v allows {limit / 1024:.0f} MiB of address space, which is too little"
    )
    assert sorted(desk.iterdir()) == before


def test_what_needs_nothing_is_not_refused() -> None:
    done = run(200_000, "--version")
    assert (done.returncode, done.stderr) == (0, "")
