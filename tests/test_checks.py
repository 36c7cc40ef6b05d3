"""Names, paths, addresses and seeds as users give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fststyle.checks import absent, check_free, check_name, check_path, check_seed, has_keys, is_address
from fststyle.cli import main
from fststyle.config import without_folders
from fststyle.images import save_image
from fststyle.model_file import save_model_file
from fststyle.networks.transform import TransformNet


@pytest.mark.parametrize("name", ["wave", "a b", "ä画", "~x", "a.b", "x" * 243, 7, "a\\b"])
def test_a_name_of_a_file_is_taken_as_it_is(name: object) -> None:
    assert check_name(name, "name", ".safetensors") == str(name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "name is '', which is empty"),
        (None, "name is None, which is empty"),
        ("..", "name is '..', which leads to another folder"),
        ("a/b", "which leads to another folder"),
        (".a", "which makes a hidden file"),
        ("a\0", "which has a zero byte"),
        ("x" * 244, "which is of 256 bytes, where the file system takes 255"),
        ("ä" * 122, "which is of 256 bytes, where the file system takes 255"),
        ("\ud800", "which is of characters that no file's name has"),
    ],
)
def test_any_other_is_refused_by_its_reason(name: object, told: str) -> None:
    with pytest.raises(ValueError, match="expected the name of a file, such as name=mine") as refusal:
        check_name(name, "name", ".safetensors")
    assert told in str(refusal.value)


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, told in (
        ("", "an empty output"),
        (tmp_path / ("x" * 256) / "y", "of 256 bytes"),
        (tmp_path / "link" / "a.png", "is a link to .*nowhere, which is not there"),
        ("https://x.org/a.png", "https://x.org/a.png is an address"),
        ("a\0b", "zero byte"),
    ):
        with pytest.raises(ValueError, match=told):
            check_path(path, "output")
    assert check_path("~", "output") == Path.home()
    assert check_path("~no such user/x", "output") == Path("~no such user/x")


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("https://x.org/a.jpg", True),
        (Path("http://x.org/a.jpg"), True),
        ("file:///a.jpg", True),
        ("s3://bucket/a", True),
        ("data:image/png;base64,AAAA", True),
        ("a.jpg", False),
        ("a:b", False),
        ("C:/a.jpg", False),
        ("12:30/a.jpg", False),
    ],
)
def test_addresses_are_told_from_paths(text: object, known: bool) -> None:
    assert is_address(text) == known
    assert ("is an address, which is not read; download the file" in absent(text)) == known
    assert "http:/x" not in absent(text)


def test_a_path_that_looks_like_an_address_is_one_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("https:/x.org").mkdir(parents=True)
    assert not is_address("https://x.org")


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, None, True, "1"])
def test_seeds_that_no_generator_takes_are_refused(seed: object) -> None:
    with pytest.raises(ValueError, match=r"encoder\.seed is .*; expected a whole number from 0 to 4294967295"):
        check_seed(seed, "encoder.seed")
    assert check_seed(2**32 - 1) == 2**32 - 1


def test_files_that_are_there_are_named(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abcde"]
    check_free(files, "-o FOLDER")
    for file in files[:4]:
        file.write_text("[1]")
    with pytest.raises(ValueError, match=r"a, .*b, .*c and 1 more: would be overwritten.*; choose another -o FOLDER"):
        check_free(files, "-o FOLDER")
    assert not has_keys(files[0], "a")
    files[0].write_text('{"a": 1}')
    assert has_keys(files[0], "a")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("style.image=paintings/a.jpg", "style.image=paintings/a.jpg"),
        ("data.source.path=.", "data.source.path=."),
        ("output=runs/a", "output=runs/a"),
        ("style.region=[0, 0.1, 1, 1]", "style.region=[0, 0.1, 1, 1]"),
        ("loss.style_layers={relu3_1/2: 0.5}", "loss.style_layers={relu3_1/2: 0.5}"),
        ("style.image=/home/a/b.jpg", "style.image=b.jpg"),
        ("style.image='/home/a/b c.jpg'", "style.image='b c.jpg'"),
        ("style.image=~/b.jpg", "style.image=b.jpg"),
        ("style.image=../a/b.jpg", "style.image=b.jpg"),
        ("style.image=/a/x.jpg,/b/y.jpg", "style.image=x.jpg,y.jpg"),
        ("files=[/a/x.tar, /b/y.tar]", "files=[x.tar, y.tar]"),
    ],
)
def test_a_word_is_kept_as_given_but_for_folders_of_the_machine(
    given: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paintings").mkdir()
    (tmp_path / "paintings" / "a.jpg").write_text("")
    (tmp_path / "runs" / "a").mkdir(parents=True)
    assert without_folders(given) == told


# --- in every command -------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_image(astronaut[:64, :64].copy(), "photo.png")
    for name, (height, width) in {"one": (1, 1), "thin": (300, 2), "small": (15, 15)}.items():
        save_image(astronaut[:height, :width].copy(), f"{name}.png")
    return tmp_path


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    capsys.readouterr()
    try:
        code = main(words)
    except SystemExit as end:  # of argparse
        code = int(end.code or 0)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2, error
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    return error


URL = "https://x.org/a.jpg"
WITH_URL = [
    ["stylize", URL, "--style", "wave"],
    ["stylize", "https://x.org/?.jpg", "--style", "wave"],
    ["stylize", "photo.png", "--style", URL],
    ["stylize", "photo.png", "--style", "wave", "-o", URL],
    ["upscale", URL],
    ["upscale", "photo.png", "--model", URL],
    ["swap", URL, "--style-image", "photo.png"],
    ["swap", "photo.png", "--style-image", URL],
    ["compare", URL, "--style", "wave"],
    ["compare", "photo.png", "--style", "wave", "-o", URL],
    ["evaluate", "superres", URL],
    ["evaluate", "style", "--painting", URL, "--photo", "photo.png", "--result", "photo.png"],
    ["export", URL, "--format", "pt2"],
    ["export", "wave", "--format", "pt2", "-o", URL],
    ["info", URL],
    ["optimize", f"content={URL}", "style.image=photo.png"],
    ["optimize", "content=photo.png", f"style.image={URL}"],
    ["optimize", "content=photo.png", "style.image=photo.png", f"start={URL}"],
    ["optimize", "content=photo.png", "style.image=photo.png", f"output={URL}"],
    ["preview", URL, "style.image=photo.png"],
    ["preview", "photo.png", "style.image=photo.png", f"output={URL}"],
    ["train", f"style.image={URL}"],
    ["train", "style.image=photo.png", "data=folder", f"data.source.path={URL}"],
    ["train", "style.image=photo.png", "data=webdataset", f"data.source.files={URL}"],
    ["train", "style.image=photo.png", "data=generated", f"encoder.weights={URL}"],
    ["train", "style.image=photo.png", f"init_from={URL}"],
    ["train", "style.image=photo.png", f"resume={URL}"],
]


@pytest.mark.parametrize("words", WITH_URL, ids=" ".join)
def test_an_address_is_told_to_be_one(words: list[str], desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is an address" in (told := refused(words, capsys))
    assert "https://x.org/" in told


@pytest.mark.parametrize("picture", ["one.png", "thin.png", "small.png"])
@pytest.mark.parametrize(
    "words",
    [
        ["train", "style.image=PICTURE", "data=generated"],
        ["optimize", "content=photo.png", "style.image=PICTURE"],
        ["optimize", "mode=texture", "style.image=PICTURE"],
        ["preview", "photo.png", "style.image=PICTURE"],
        ["swap", "photo.png", "--style-image", "PICTURE", "--style-size", "256"],
        ["compare", "photo.png", "--style", "wave", "--style-image", "PICTURE"],
        ["evaluate", "style", "--painting", "PICTURE", "--photo", "photo.png", "--result", "photo.png"],
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, list) else words,
)
def test_a_style_image_that_only_enlarging_makes_large_enough_is_refused(
    words: list[str], picture: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused([word.replace("PICTURE", picture) for word in words], capsys)
    assert f"{picture}: is " in told
    assert "; expected at least 16×16" in told


@pytest.mark.parametrize(
    "words",
    [
        ["optimize", "content=photo.png", "style.image=photo.png", "seed=-1"],
        ["preview", "photo.png", "style.image=photo.png", "seed=-1"],
        ["train", "style.image=photo.png", "seed=-1"],
        ["train", "style.image=photo.png", "data=generated", "data.seed=-1"],
        ["train", "style.image=photo.png", "data=generated", "encoder=random", "encoder.seed=-1"],
        ["compare", "photo.png", "--style", "wave", "--seed", "-1"],
        ["compare", "photo.png", "--style", "wave", "--seed", "4294967296"],
    ],
    ids=" ".join,
)
def test_a_seed_below_0_is_refused(words: list[str], desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(words, capsys)
    assert "seed" in told
    assert "expected a whole number from 0 to 4294967295" in told


@pytest.mark.parametrize(
    "words",
    [
        ["info", "FOLDER"],
        ["stylize", "photo.png", "--style", "FOLDER"],
        ["compare", "photo.png", "--style", "FOLDER"],
        ["export", "FOLDER", "--format", "pt2"],
        ["upscale", "photo.png", "--model", "FOLDER"],
        ["swap", "photo.png", "--style-image", "photo.png", "--model", "FOLDER"],
        ["train", "style.image=photo.png", "init_from=FOLDER"],
    ],
    ids=lambda words: words[0],
)
def test_a_folder_in_place_of_a_model_file_is_told_to_be_one(
    words: list[str], desk: Path, network: TransformNet, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "run").mkdir()
    for hint in ("", ", such as run/mine.safetensors in it"):
        told = refused([word.replace("FOLDER", "run") for word in words], capsys)
        assert told.endswith(f"run: is a folder; expected a model file (.safetensors){hint}")
        save_model_file("run/mine.safetensors", network, {"kind": "style", "name": "mine"})


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 300])
def test_a_model_files_name_does_not_lead_elsewhere(
    name: str, desk: Path, network: TransformNet, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model_file("mine.safetensors", network, {"kind": "style", "name": name})
    told = refused(["export", "mine.safetensors", "--format", "pt2"], capsys)
    assert "the name in mine.safetensors is " in told
