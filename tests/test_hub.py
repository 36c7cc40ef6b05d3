"""Model files of the Hugging Face Hub: names that begin with ``hf:``, on a Hub of the tests' own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from commands import SMALL, in_folder
from fake_hub import FakeHub
from fststyle import Stylizer
from fststyle.cli import main
from fststyle.images import save_image
from fststyle.model_file import ModelFileError, StyleEntry, find_model_file, read_metadata, save_model_file
from fststyle.networks.superres import SuperResNet
from fststyle.networks.transform import TransformNet


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small models: one style, two in a file, super-resolution, and a safetensors file that is none of ours."""
    folder = tmp_path_factory.mktemp("models")
    one = TransformNet(width=4, residual_blocks=1)
    save_model_file(folder / "one.safetensors", one, {"kind": "style", "name": "one"})
    styles = [StyleEntry("wave"), StyleEntry("udnie")]
    two = TransformNet(width=4, residual_blocks=1, styles=2)
    save_model_file(folder / "zoo.safetensors", two, {"kind": "style", "name": "zoo"}, styles=styles)
    save_model_file(folder / "x4.safetensors", SuperResNet(4, width=4), {"kind": "superres", "name": "x4"})
    foreign = {"foreign.safetensors": save({"weight": np.zeros(3, np.float32)})}
    return {path.name: path.read_bytes() for path in folder.iterdir()} | foreign


@pytest.fixture
def stocked(hub: FakeHub, files: dict[str, bytes]) -> FakeHub:
    """Repositories of one model file, of several, of none, of a foreign one, a gated and a private one."""
    hub.add("user/one", {"README.md": b"", "one.safetensors": files["one.safetensors"]})
    hub.add("user/zoo", {"zoo.safetensors": files["zoo.safetensors"]})
    several = {name: files[name] for name in ("one.safetensors", "zoo.safetensors")}
    hub.add("user/several", several | {"more/x4.safetensors": files["x4.safetensors"]})
    hub.add("user/none", {"model.bin": b"pickled"})
    hub.add("user/foreign", {"foreign.safetensors": files["foreign.safetensors"]})
    hub.add("other/gated", {"one.safetensors": files["one.safetensors"]}).gated = True
    hub.add("other/private", {"one.safetensors": files["one.safetensors"]}, private=True)
    return hub


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("hf:user/one", "one"),
        ("hf://user/one", "one"),
        ("hf:user/one/one.safetensors", "one"),
        ("hf:user/one/one", "one"),
        ("hf:user/zoo", "zoo"),
        ("hf:user/zoo/udnie", "udnie"),
        ("hf:user/zoo/zoo/udnie", "udnie"),
        ("hf:user/zoo/wave=0.25,udnie=0.75", "wave=0.25,udnie=0.75"),
        ("hf:user/several/zoo", "zoo"),
        ("hf:user/several@main/zoo.safetensors/wave", "wave"),
        ("hf:user/several/more/x4", "x4"),
        ("hf:other/private", "one"),
    ],
)
def test_a_name_says_repository_file_and_style(stocked: FakeHub, name: str, found: str) -> None:
    assert read_metadata(find_model_file(name, "style"))["name"] == found


def test_a_revision_is_a_branch_a_tag_or_a_commit(stocked: FakeHub, files: dict[str, bytes]) -> None:
    repository = stocked.repositories["user/one"]
    first = repository.refs["main"]
    repository.refs |= {"v1": first, "a/branch": first, "refs/pr/1": first}
    repository.commit({"one.safetensors": files["x4.safetensors"]}, "another model")
    assert read_metadata(find_model_file("hf:user/one", "style"))["kind"] == "superres"
    for revision in ("v1", "a%2Fbranch", "refs/pr/1", first):
        assert read_metadata(find_model_file(f"hf:user/one@{revision}", "style"))["kind"] == "style"


REFUSED = [
    ("hf:one", "found 'hf:one'; expected hf:USER/REPO"),
    ("hf:user/one@", "expected hf:USER/REPO"),
    ("hf:user/../one", "expected hf:USER/REPO"),
    ("hf:user/absent", "user/absent: no such repository on http://127.0.0.1"),
    ("hf:user/one@v9", "user/one: has no branch, tag or commit 'v9'"),
    ("hf:other/gated", "other/gated: is given to those who ask for it; do so on http://127.0.0.1"),
    ("hf:user/none", "holds no model file (.safetensors)"),
    ("hf:user/several", "name one, as hf:user/several/more/x4"),
    ("hf:user/several/wave", "there is no file wave; the repository holds more/x4.safetensors, one.safetensors, zoo"),
    ("hf:user/one/two.safetensors", "there is no file two.safetensors; the repository holds one.safetensors"),
    ("hf:user/zoo/mosaic", "unknown style 'mosaic'; expected one of wave, udnie"),
    ("hf:user/zoo/wave=1,wave=2", "wave is named twice"),
    ("hf:user/foreign", "not a model file of fststyle"),
]


@pytest.mark.parametrize(("name", "said"), REFUSED)
def test_what_cannot_be_had_is_refused_in_a_line(
    stocked: FakeHub, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", name]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


def test_private_and_unknown_repositories_look_alike_without_a_token(
    stocked: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    for name in ("hf:other/private", "hf:user/absent"):
        with pytest.raises(ModelFileError, match="or a private one; check the name, or log in with hf auth login"):
            find_model_file(name, "style")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ModelFileError, match="the token was not accepted; log in"):
        find_model_file("hf:user/one", "style")


@pytest.mark.parametrize("how", ["no connection", "offline", "out of order"])
def test_what_is_cached_serves_without_the_hub(stocked: FakeHub, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    first = find_model_file("hf:user/one", "style")
    style = find_model_file("hf:user/zoo@main/wave", "style")
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif how == "out of order":
        stocked.broken = 503
    else:
        stocked.close()
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert find_model_file("hf:user/one", "style") == first
    assert find_model_file("hf:user/zoo/wave", "style") == style
    with pytest.raises(ModelFileError, match=r"no file two\.safetensors; the repository holds one"):
        find_model_file("hf:user/one/two.safetensors", "style")
    with pytest.raises(ModelFileError, match=r"(cannot be reached|answers 503); without it there is only"):
        find_model_file("hf:user/several/zoo", "style")


def test_a_file_is_fetched_once(stocked: FakeHub) -> None:
    for _ in range(2):
        find_model_file("hf:user/one", "style")
    assert len([each for each in stocked.requests if each.startswith("GET /lfs/")]) == 1


def test_what_is_no_model_of_ours_by_its_size_is_not_fetched(stocked: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fststyle.hub.LARGEST", 1000)
    with pytest.raises(ModelFileError, match="more than any model file"):
        find_model_file("hf:user/one", "style")
    assert not [each for each in stocked.requests if each.startswith(("GET /lfs/", "HEAD"))]


def test_a_file_of_that_name_wins(stocked: FakeHub, files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "hf:user").mkdir()
    (tmp_path / "hf:user/one").write_bytes(files["x4.safetensors"])
    with in_folder(tmp_path):
        assert find_model_file("hf:user/one", "superres") == Path("hf:user/one")


def test_without_huggingface_hub_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelFileError, match="takes the package huggingface_hub; pip install huggingface_hub"):
        find_model_file("hf:user/one", "style")


def test_nothing_of_it_is_loaded_until_such_a_name_is_used() -> None:
    program = "import sys; from fststyle.cli import main; main(['info', 'wave', '--json']); import fststyle.hub"
    code = f"{program}; print(*(each for each in sys.modules if each.startswith(('huggingface', 'httpx', 'requests'))))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == ""


def test_endpoint_cache_and_token_are_those_of_the_environment(stocked: FakeHub) -> None:
    words = [sys.executable, "-m", "fststyle", "info", "hf:other/private"]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    path = Path(run.stdout.split("  (")[0])
    assert path.is_relative_to(Path(os.environ["HF_HOME"]) / "hub")
    assert "HTTP" not in run.stderr


@pytest.fixture
def workplace(stocked: FakeHub, tmp_path: Path, astronaut: np.ndarray) -> Path:
    (tmp_path / "photographs").mkdir()
    for index in range(10):
        save_image(astronaut[100 + index : 140 + index, 100:140].copy(), tmp_path / f"photographs/{index}.png")
    save_image(astronaut[100:140, 100:140].copy(), tmp_path / "photo.png")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "made"),
    [
        ("stylize photo.png --style hf:user/one", "photo_one.png"),
        (
            "stylize photo.png --style hf:user/zoo/wave --style hf:user/several/zoo/udnie -o both",
            "both/photo_udnie.png",
        ),
        ("stylize photo.png --style hf:user/zoo --mix wave=0.5 udnie=0.5", "photo_wave0.5_udnie0.5.png"),
        ("upscale photo.png --model hf:user/several/more/x4", "photo_x4.png"),
        ("merge hf:user/zoo/wave hf:user/zoo/udnie -o merged.safetensors", "merged.safetensors"),
        ("export hf:user/zoo/wave --format onnx", "wave.onnx"),
        pytest.param(
            "train init_from=hf:user/zoo/wave style.image=photo.png style.size=40 data=folder "
            "data.source.path=photographs data.held_out=2 steps=1 name=mine output=run",
            "run/mine.safetensors",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_commands_take_such_names(workplace: Path, words: str, made: str) -> None:
    with in_folder(workplace):
        command, *others = words.split()
        assert main([command, *(SMALL if command == "train" else ()), *others]) == 0
        assert Path(made).is_file()


def test_so_does_python(workplace: Path, astronaut: np.ndarray) -> None:
    photo = astronaut[:32, :32]
    assert Stylizer.from_checkpoint("hf:user/one", backend="torch").pixels(photo).shape == photo.shape


def test_metadata_names_what_was_begun_from(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "hf:user/zoo/wave", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "wave"
