"""Several runs of one command: one that fails does not stop the others, and a table tells of all."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from commands import SMALL, train
from fststyle.images import save_image
from fststyle.model_file import read_metadata
from marks import rest_slow


@pytest.fixture
def desk(tmp_path: Path, photographs: Path, astronaut: np.ndarray) -> Path:
    """A folder of styles of one's own, of which the painting of one is damaged."""
    styles = tmp_path / "mine" / "style"
    styles.mkdir(parents=True)
    for index, name in enumerate(("rose", "broken", "lily")):
        painting = tmp_path / f"{name}.png"
        save_image(astronaut[100 * index : 100 * index + 96, :96].copy(), painting)
        styles.joinpath(f"{name}.yaml").write_text(
            f"defaults:\n  - custom\n\nname: {name}\nimage: {painting}\nsize: 64\n"
        )
    (tmp_path / "broken.png").write_bytes((tmp_path / "broken.png").read_bytes()[:100])
    return tmp_path


@pytest.fixture
def sweep(desk: Path, photographs: Path) -> Callable[..., int]:
    data = ("--config-dir", "mine", "data=folder", f"data.source.path={photographs}")
    return lambda *words: train(desk, *data, *SMALL, "steps=2", *words)


@pytest.mark.parametrize("launcher", [(), pytest.param(("hydra/launcher=local",), marks=pytest.mark.slow)])
def test_a_run_that_fails_does_not_stop_the_others_and_the_table_tells(
    launcher: tuple[str, ...], desk: Path, sweep: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep("-m", "style=rose,broken,lily", *launcher) == 1
    said = capfd.readouterr().out
    head, rose, broken, lily, reason, again = said[said.index("run ") :].splitlines()[:6]
    assert head.split() == ["run", "steps", "content", "style", "total", "images/s", "diagnostics", "file"]
    assert (rose.split()[:2], lily.split()[:2]) == (["rose", "2"], ["lily", "2"])
    for row in (rose, lily):
        assert read_metadata(desk / row.split()[-1])["steps"] == 2
    assert broken.split()[0] == "broken"
    assert broken.split()[-2] == "refused"
    assert reason.startswith("broken: refused: ")
    assert "broken.png" in reason
    # It can be run alone, once the picture is there.
    (desk / "broken.png").write_bytes((desk / "rose.png").read_bytes())
    words = shlex.split(again.removeprefix("  again: "))
    assert words[:2] == ["fststyle", "train"]
    assert sweep(*[word for word in words[2:] if word not in SMALL]) == 0
    folder = next(word.removeprefix("output=") for word in words if word.startswith("output="))
    assert read_metadata(desk / folder / "broken.safetensors")["steps"] == 2
    assert not (desk / folder / "failed.txt").exists()


def test_a_sweep_of_refusals_is_refused(sweep: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    assert sweep("-m", "style=broken", "data.batch_size=1,2") == 2
    assert capfd.readouterr().out.count("refused") == 4


def test_a_sweep_that_names_what_is_not_there_is_refused_before_it_begins(
    desk: Path, sweep: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep("-m", "style=rose,ros") == 2
    assert "style has no option 'ros'; did you mean 'rose'?" in capfd.readouterr().err
    assert not (desk / "runs").exists()


def test_a_run_of_a_sweep_does_not_start_ranks_itself(
    sweep: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    """They would run the whole sweep."""
    assert sweep("-m", "style=rose,lily", "trainer=ddp", "trainer.devices=2") == 2
    assert "a run of a multirun cannot start 2 ranks itself" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["notes.txt", "multirun.yaml", "0_rose"])
def test_a_folder_of_others_is_not_a_multiruns(
    name: str, desk: Path, sweep: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    (desk / "mine2").mkdir()
    (desk / "mine2" / name).write_text("mine")
    assert sweep("-m", "style=rose,lily", "hydra.sweep.dir=mine2") == 2
    assert "holds files that no multirun wrote" in capfd.readouterr().err
    assert [path.read_text() for path in (desk / "mine2").iterdir()] == ["mine"]


def test_an_empty_folder_of_ones_own_is_not_removed(desk: Path, sweep: Callable[..., int]) -> None:
    (desk / "a" / "b").mkdir(parents=True)
    assert sweep("-m", "style=rose,ros", "hydra.sweep.dir=a/b") == 2
    assert (desk / "a" / "b").is_dir()


@pytest.mark.parametrize("name", rest_slow(["a/b", "../x", "x" * 300]))
def test_names_that_cannot_be_are_refused_within_the_multiruns_folder(
    name: str, desk: Path, sweep: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep("-m", "style=rose,lily", f"name={name}", "hydra.sweep.dir=s") == 2
    assert "expected the name of a file, such as name=mine" in capfd.readouterr().out
    assert sorted(path.name for path in (desk / "s").iterdir()) == ["0_refused", "1_refused", "multirun.yaml"]


@pytest.mark.slow
def test_a_sweep_over_networks_of_several_styles(
    desk: Path, sweep: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    (desk / "broken.png").write_bytes((desk / "rose.png").read_bytes())
    assert sweep("-m", "style=[rose,lily]", "data.batch_size=1,2", "styles.lily.size=48", "hydra.sweep.dir=s") == 0
    table = capfd.readouterr().out
    assert [line.split()[:2] for line in table.splitlines() if line.startswith("zoo")] == [["zoo", "2"], ["zoo", "2"]]
    for index in range(2):
        metadata = read_metadata(desk / "s" / f"{index}_zoo" / "zoo.safetensors")
        assert [(style["name"], style["style"]["size"]) for style in metadata["styles"]] == [("rose", 64), ("lily", 48)]
        assert metadata["global_batch"] == index + 1
    command = shlex.split((desk / "s" / "1_zoo" / "command.txt").read_text())  # the run alone goes on from it
    assert sweep(*[word for word in command[2:] if word not in SMALL and not word.startswith("steps=")], "steps=3") == 0
    assert read_metadata(desk / "s" / "1_zoo" / "zoo.safetensors")["steps"] == 3


def test_a_sweep_over_lists_of_styles_is_refused(
    desk: Path, sweep: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep("-m", "style=[rose,lily],[rose]") == 2
    assert "fststyle train takes a list of styles, such as style=[wave,udnie]" in capfd.readouterr().err
    assert not (desk / "runs").exists()
