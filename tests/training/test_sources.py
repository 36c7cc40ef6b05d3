"""Sources of photographs: what they find, in which order, and what they say when they find nothing."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from fststyle.training.sources import DataError, Generated, fingerprint, folder, hub, parquet, webdataset


def encoded(level: int, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), (level, level, level)).save(file, format)
    return file.getvalue()


def levels(source: Any) -> list[int]:
    """The grey levels of a source's pictures, in its order."""
    found = []
    for row in source:
        assert set(row) == {"image"}
        assert set(row["image"]) == {"bytes", "path"}  # encoded: what is damaged is ours to skip
        data = row["image"]["bytes"]
        found.append(Image.open(row["image"]["path"] if data is None else io.BytesIO(data)).getpixel((0, 0))[0])  # type: ignore[index]
    return found


@pytest.fixture(autouse=True)
def _no_shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


# --- folders ----------------------------------------------------------------------------------------


def test_a_folder_gives_the_pictures_below_it_by_name(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, level in [("c.png", 3), ("b/2.PNG", 2), ("b/1.png", 1), ("a.png", 0)]:
        (tmp_path / name).write_bytes(encoded(level))
    (tmp_path / "notes.txt").write_text("not a picture")
    assert levels(folder(tmp_path)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("name", "found"), [("none", "is not a folder"), ("", "has no pictures in it")])
def test_a_missing_folder_and_one_without_pictures_are_empty_data_sets(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(DataError, match=rf"the data set is empty: .*{found}"):
        folder(tmp_path / name)


# --- parquet ----------------------------------------------------------------------------------------


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Three parquet files of two pictures each, under the column ``photo``, beside their labels."""
    path = tmp_path / "tables"
    (path / "more").mkdir(parents=True)
    features = datasets.Features({"photo": datasets.Image(decode=False), "label": datasets.Value("int64")})
    for first, name in [(0, "a"), (20, "b"), (40, "more/c")]:
        rows = [{"path": f"{level}.png", "bytes": encoded(level)} for level in (first, first + 10)]
        table = datasets.Dataset.from_dict({"photo": rows, "label": [1, 2]}, features=features)
        table.to_parquet(str(path / f"{name}.parquet"))
    return path


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_files_are_read_from_a_folder_a_glob_or_a_list(tables: Path, streaming: bool) -> None:
    def read(files: Any) -> list[int]:
        return levels(parquet(files, column="photo", streaming=streaming))

    assert read(str(tables)) == [0, 10, 20, 30, 40, 50]
    assert read(f"{tables}/*.parquet") == [0, 10, 20, 30]
    assert read([f"{tables}/b.parquet", f"{tables}/a.parquet"]) == [20, 30, 0, 10]
    assert (
        isinstance(parquet(f"{tables}/a.parquet", column="photo", streaming=streaming), datasets.Dataset) != streaming
    )


def test_a_glob_may_be_relative(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tables.parent)
    assert levels(parquet("tables/*.parquet", column="photo", streaming=True)) == [0, 10, 20, 30]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_missing_column_is_answered_with_those_there_are(tables: Path, streaming: bool) -> None:
    with pytest.raises(DataError, match="the data set has no column 'image'; its columns are photo, label"):
        parquet(str(tables), streaming=streaming)


@pytest.mark.parametrize("files", ["none/*.parquet", "none.parquet", ["none.parquet"], "."])
def test_files_that_are_not_there_are_an_empty_data_set(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"the data set is empty: no \.parquet file matches (.*none|'\.')"):
        parquet(files)
    with pytest.raises(DataError, match=r"the data set is empty: no \.tar file matches"):
        webdataset(files)


def test_a_file_that_is_no_parquet_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("text")
    with pytest.raises(DataError, match=r"the data set 'parquet' .*cannot be loaded: ") as caught:
        parquet(str(tmp_path))
    assert "\n" not in str(caught.value)


# --- webdataset -------------------------------------------------------------------------------------


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two tar shards of three samples each, a picture and a caption."""
    path = tmp_path / "tars"
    path.mkdir()
    for shard in range(2):
        with tarfile.open(path / f"{shard}.tar", "w") as tar:
            for index in range(3):
                for ending, data in (("jpg", encoded(10 * (3 * shard + index), "JPEG")), ("txt", b"a caption")):
                    member = tarfile.TarInfo(f"{shard}{index}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("streaming", [False, True])
def test_webdataset_shards_are_read_in_order(tars: Path, streaming: bool) -> None:
    source = webdataset(f"{tars}/*.tar", streaming=streaming)
    np.testing.assert_allclose(levels(source), [0, 10, 20, 30, 40, 50], atol=2)
    assert isinstance(source, datasets.Dataset) != streaming


def test_webdataset_is_streamed_unless_told_otherwise(tars: Path) -> None:
    assert isinstance(webdataset(str(tars)), datasets.IterableDataset)


def test_a_missing_ending_is_answered_with_those_there_are(tars: Path) -> None:
    with pytest.raises(DataError, match=r"has no column 'png'; its columns are .*jpg"):
        webdataset(str(tars), column="png")


# --- the hub ----------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the hub is asked for; it has one picture for everyone."""
    requests = []
    row = {"path": "a.png", "bytes": encoded(7)}
    features = datasets.Features({"picture": datasets.Image(), "objects": datasets.Value("int64")})

    def load_dataset(name: str, **options: Any) -> Any:
        requests.append((name, options))
        table = datasets.Dataset.from_dict({"picture": [row], "objects": [1]}, features=features)
        return table.to_iterable_dataset() if options["streaming"] else table

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return requests


@pytest.mark.parametrize("streaming", [False, True])
def test_the_hub_is_asked_for_repository_and_split_and_the_column_is_taken(
    asked: list[tuple[str, dict[str, Any]]], streaming: bool
) -> None:
    source = hub("someone/pictures", split="val", column="picture", streaming=streaming)
    assert asked == [("someone/pictures", {"split": "val", "streaming": streaming})]
    assert levels(source) == [7]


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("streaming", [False, True])
def test_a_column_that_the_hub_does_not_have_is_answered_with_those_there_are(streaming: bool) -> None:
    with pytest.raises(DataError, match="no column 'image'; its columns are picture, objects"):
        hub("someone/pictures", streaming=streaming)


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, **_: Any) -> Any:
        raise ConnectionError("Couldn't reach the Hub\nhttps://… (many more lines)")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError) as caught:
        hub("someone/pictures", split="val")
    assert str(caught.value) == (
        "the data set 'someone/pictures' (split=val, streaming=False) cannot be loaded: Couldn't reach the Hub"
    )


# --- generated --------------------------------------------------------------------------------------


def test_a_generated_picture_belongs_to_its_seed_and_position() -> None:
    source = Generated(32)
    first = np.asarray(source.picture(1, 5))
    np.testing.assert_array_equal(np.asarray(Generated(32).picture(1, 5)), first)
    assert first.shape == (32, 32, 3)
    for seed, position in [(1, 6), (2, 5), (5, 1)]:
        assert not np.array_equal(np.asarray(source.picture(seed, position)), first)


def test_a_source_is_known_by_its_files_wherever_they_lie(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        for name in ("1.tar", "2.tar"):
            (tmp_path / place / name).write_bytes(name.encode() * 100)

    def of(place: str, **more: Any) -> str:
        found = fingerprint({"_target_": "x.webdataset", "files": f"{tmp_path}/{place}/*.tar", "column": "jpg", **more})
        return str(found).rpartition(" ")[2]

    assert of("a") == of("b") != of("a", column="png")
    (tmp_path / "b" / "2.tar").write_bytes(b"2.tap" * 100)
    assert of("a") != of("b")
