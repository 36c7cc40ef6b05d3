"""Norms alone and the convolutions that they go with: kept apart, found again, joined."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fststyle import model_file
from fststyle.cli import main
from fststyle.merging import merge_files
from fststyle.model_file import (
    ModelFileError,
    StyleEntry,
    load_model_file,
    read_metadata,
    save_model_file,
    style_names,
)
from fststyle.networks.superres import SuperResNet
from fststyle.networks.transform import TransformNet
from fststyle.tensor_files import trunk_hash


def network(styles: int = 1, seed: int = 0, **options: object) -> TransformNet:
    """Convolutions decided by the seed, and norms of no two networks alike."""
    torch.manual_seed(seed)
    made = TransformNet(**{"width": 4, "residual_blocks": 1, "styles": styles, **options})  # type: ignore[arg-type]
    torch.seed()
    for value in made.style_parameters().values():
        torch.nn.init.normal_(value)
    return made.eval()


def about(name: str, weight: float = 5.0) -> dict[str, object]:
    return {"kind": "style", "name": name, "loss": {"style_weight": weight}, "licence": "Apache-2.0", "steps": 7}


def targets() -> dict[str, torch.Tensor]:
    return {"pixels": torch.rand(1, 6, 5).half().float()}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two styles in one file, a third of norms alone, a fourth in a file of its own; one of other convolutions."""
    entries = [StyleEntry(n, {"normalizers": {"tv": 2.0}, "held_out": {"total": 3}}, targets(), b"!") for n in "ab"]
    save_model_file(tmp_path / "zoo.safetensors", network(2), about("zoo"), styles=entries)
    alone = about("c", 9.0) | {"init_from": {"name": "zoo"}}
    save_model_file(tmp_path / "c.safetensors", network(colors=True), alone, targets(), norms_only=True)
    save_model_file(tmp_path / "d.safetensors", network(), about("d"), targets())
    save_model_file(tmp_path / "other.safetensors", network(seed=1), about("other"), targets())
    monkeypatch.setattr(model_file, "resource", lambda name: tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of_old_version(path: Path) -> None:
    """A file that does not say the hash of its convolutions."""
    metadata = read_metadata(path)
    del metadata["trunk"]
    save_file(load_file(path), path, {"fststyle": json.dumps(metadata)})


# --- norms alone ------------------------------------------------------------------------------------


def test_norms_alone_are_small_and_work_beside_their_convolutions(desk: Path) -> None:
    full, alone = desk / "d.safetensors", desk / "c.safetensors"
    own = (".norm.", "network.colors.", "style_targets.")
    assert all(any(word in key for word in own) for key in load_file(alone))
    assert alone.stat().st_size < full.stat().st_size
    loaded, zoo = load_model_file(alone, "style"), load_model_file(desk / "zoo.safetensors")
    for key, value in zoo.network.state_dict().items():
        assert ".norm." in key or torch.equal(loaded.network.state_dict()[key], value)
    assert set(loaded.style_targets) == {"pixels"}
    assert loaded.network(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)


def test_files_say_the_hash_of_their_convolutions_as_they_are_stored(desk: Path) -> None:
    stored = {read_metadata(desk / f"{name}.safetensors")["trunk"] for name in ("zoo", "c", "d")}
    assert stored == {trunk_hash(load_model_file(desk / "zoo.safetensors").network.state_dict())}
    assert read_metadata(desk / "other.safetensors")["trunk"] not in stored


@pytest.mark.parametrize("old", [False, True])
def test_the_convolutions_may_be_a_bundled_styles(old: bool, desk: Path) -> None:
    (desk / "bundled" / "styles").mkdir(parents=True)
    shutil.move(desk / "zoo.safetensors", desk / "bundled" / "styles")
    (desk / "d.safetensors").unlink()
    if old:
        of_old_version(desk / "bundled" / "styles" / "zoo.safetensors")
    load_model_file(desk / "c.safetensors")


@pytest.mark.parametrize("left", ["nothing", "norms alone", "another", "a damaged file", "text"])
def test_convolutions_that_are_missing_are_named_in_one_line(left: str, desk: Path) -> None:
    for name in ("zoo", "d", *(["other"] if left == "nothing" else [])):
        (desk / f"{name}.safetensors").unlink()
    if left == "norms alone":
        shutil.copy(desk / "c.safetensors", desk / "copy.safetensors")
    if left == "a damaged file":
        (desk / "e.safetensors").write_bytes((desk / "other.safetensors").read_bytes()[:500])
    if left == "text":
        (desk / "e.safetensors").write_text("no tensors")
    with pytest.raises(ModelFileError) as refusal:
        load_model_file(desk / "c.safetensors")
    assert "holds norms alone" in str(refusal.value)
    assert "put zoo into its folder" in str(refusal.value)
    assert "\n" not in str(refusal.value)


# --- merging ----------------------------------------------------------------------------------------


def test_every_style_does_what_it_did(desk: Path) -> None:
    words = [f"{name}.safetensors" for name in ("zoo", "c", "d")]
    assert main(["merge", *words, "-o", "all.safetensors"]) == 0
    merged = load_model_file(desk / "all.safetensors", "style")
    assert style_names(merged.metadata) == ["a", "b", "c", "d"]
    image = torch.rand(1, 3, 32, 32)
    sources = ["zoo.safetensors/a", "zoo.safetensors/b", "c.safetensors", "d.safetensors"]
    for index, source in enumerate(sources):
        before, after = load_model_file(desk / source), load_model_file(desk / "all.safetensors" / "abcd"[index])
        for key, value in before.network.state_dict().items():
            assert torch.equal(after.network.state_dict()[key], value), key
        assert torch.equal(after.network(image), before.network(image))
        assert torch.equal(after.style_targets["pixels"], before.style_targets["pixels"])
        for key in ("name", "kind", "loss", "held_out", "steps", "init_from", "licence", "trunk"):
            assert after.metadata.get(key) == before.metadata.get(key), key
    assert merged.metadata["licence"] == "Apache-2.0"  # what all have in common is the file's
    assert merged.styles[0].thumbnail == b"!"
    assert merged.styles[2].thumbnail.startswith(b"\xff\xd8")  # made, where there was none


def test_norms_alone_become_a_whole_file(desk: Path) -> None:
    merge_files(["c.safetensors"], "whole.safetensors")
    (desk / "zoo.safetensors").rename(desk / "gone")
    whole = load_model_file(desk / "whole.safetensors")
    assert (whole.metadata["name"], whole.styles) == ("c", [])
    assert "norms_only" not in whole.metadata["network"]


def test_norms_alone_find_their_convolutions_in_another_folder_among_the_files(desk: Path, tmp_path: Path) -> None:
    (desk / "run").mkdir()
    shutil.move(desk / "c.safetensors", desk / "run")
    assert merge_files(["run/c.safetensors", "zoo.safetensors/a"], "two.safetensors") == ["c", "a"]


def test_a_file_of_an_earlier_version_is_merged_too(desk: Path) -> None:
    of_old_version(desk / "d.safetensors")
    assert merge_files(["zoo.safetensors", "d.safetensors"], "all.safetensors") == ["a", "b", "d"]


def test_a_filter_stays_with_its_style_and_only_one_radius_is_merged(desk: Path) -> None:
    save_model_file(desk / "f.safetensors", network(kuwahara=2.5), about("f"), targets())
    save_model_file(desk / "g.safetensors", network(kuwahara=1), about("g"), targets())
    merge_files(["zoo.safetensors", "f.safetensors"], "filtered.safetensors")
    made, image = load_model_file(desk / "filtered.safetensors").network, torch.rand(1, 3, 40, 40)
    assert made.smoothed == [0.0, 0.0, 1.0]
    with torch.no_grad():
        wanted = load_model_file(desk / "f.safetensors").network(image)
        torch.testing.assert_close(made(image, torch.tensor([[0.0, 0, 1]])), wanted, rtol=0, atol=1e-3)
    with pytest.raises(
        ModelFileError, match=r"^f.safetensors, g.safetensors: found Kuwahara filters of radius 1.0 and"
    ):
        merge_files(["f.safetensors", "g.safetensors"], "both.safetensors")
    assert not (desk / "both.safetensors").exists()


def test_float32_stays(desk: Path) -> None:
    save_model_file(desk / "e.safetensors", network(), about("e"), targets(), dtype="float32")
    merge_files(["zoo.safetensors", "e.safetensors"], "all.safetensors")
    assert read_metadata(desk / "all.safetensors")["network"]["dtype"] == "float32"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["zoo.safetensors", "other.safetensors"], "other.safetensors: its convolutions are not those of zoo"),
        (["zoo.safetensors", "zoo.safetensors/a"], "its style a has the name of another one"),
        (["c.safetensors", "c.safetensors"], "its style c has the name of another one"),
        (["zoo.safetensors", "zoo.safetensors/a=0.5,b=0.5"], "is a mixture"),
        (["zoo.safetensors", "x4.safetensors"], "is a model file of kind 'superres'; expected kind 'style'"),
        (["zoo.safetensors", "batch.safetensors"], "its network has no norms of a style's own"),
        (["zoo.safetensors", "tanh.safetensors"], "its convolutions are not those of zoo"),
        (["zoo.safetensors", "missing.safetensors"], "missing.safetensors: no such file"),
        (["zoo.safetensors", "notes.safetensors"], "is not a model file"),
    ],
)
def test_what_cannot_be_merged_is_refused_in_one_line(
    words: list[str], told: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model_file(desk / "x4.safetensors", SuperResNet(width=4), {"kind": "superres", "name": "x4"})
    save_model_file(desk / "batch.safetensors", network(norm="batch"), about("batch"))
    save_model_file(desk / "tanh.safetensors", network(output="tanh"), about("tanh"))
    (desk / "notes.safetensors").write_text("notes")
    assert main(["merge", *words, "-o", "all.safetensors"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (desk / "all.safetensors").exists()


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("d.safetensors", "is there already; choose another name, or replace it with --overwrite"),
        ("all.txt", "expected a name that ends in .safetensors"),
        ("nowhere/all.safetensors", "no such folder"),
        ("", "found an empty output"),
    ],
)
def test_an_output_that_cannot_be_is_refused(
    output: str, told: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (desk / "d.safetensors").read_bytes()
    assert main(["merge", "zoo.safetensors", "c.safetensors", "-o", output]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert (desk / "d.safetensors").read_bytes() == before


def test_what_is_there_is_replaced_where_that_is_said(desk: Path) -> None:
    """Also one of the files themselves."""
    assert main(["merge", "zoo.safetensors", "c.safetensors", "-o", "zoo.safetensors", "--overwrite"]) == 0
    assert style_names(read_metadata(desk / "zoo.safetensors")) == ["a", "b", "c"]
