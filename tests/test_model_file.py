"""Model files: there and back, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fststyle.model_file import ModelFileError, load_model_file, read_metadata, save_model_file
from fststyle.networks.transform import TransformNet
from fststyle.resources import resource
from fststyle.tensor_files import trunk_hash

PRESETS = sorted(path.stem for path in (resource("conf") / "network").glob("*.yaml"))


RECORD = {"kind": "style", "name": "wave", "style": {"image": "Hokusai: Große Welle.jpg"}, "images": 12}


def gram(channels: int) -> Tensor:
    features = torch.randn(channels, 50, generator=torch.Generator().manual_seed(channels))
    product = features @ features.T / 50  # symmetric but for the order of its sums
    return ((product + product.T) / 2)[None]


@pytest.fixture
def file(tmp_path: Path, network: TransformNet) -> Path:
    """A sound checkpoint."""
    path = tmp_path / "wave.safetensors"
    save_model_file(path, network, RECORD, {"relu1_2": gram(4), "relu2_2": gram(6)})
    return path


def refusal(path: Path, read: Callable[[Path], object] = load_model_file) -> str:
    """The message with which a file is refused: one line that names it."""
    with pytest.raises(ModelFileError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400
    return message


# --- there and back ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_every_network_comes_back_but_for_rounding_to_float16(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    with initialize_config_dir(str(resource("conf")), version_base="1.3"):
        small = {"channels": 3} if name == "inverse" else {"width": 2}
        network = instantiate(compose("train", [f"network={name}"]).network, **small)
    more = [torch.rand(1, network.config["statistics"])] if name == "arbitrary" else []
    network.train()(
        torch.rand(2, 3, 20, 20), *more
    )  # running statistics, where there are any, leave their first values
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.fill_(40_001)  # type: ignore[union-attr]  # float16 would make it 40,000
    save_model_file(tmp_path / "a.safetensors", network, RECORD)
    loaded = load_model_file(tmp_path / "a.safetensors").network

    assert type(loaded) is type(network)
    assert loaded.config == network.config
    assert not loaded.training
    before, after = network.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    for key, value in before.items():
        rounded = value.half().float() if value.is_floating_point() else value
        assert torch.equal(after[key], rounded), key
        assert after[key].dtype == rounded.dtype
    image = torch.rand(1, 3, 24, 17)
    with torch.inference_mode():
        assert torch.allclose(loaded(image, *more), network.eval()(image, *more), atol=2e-3)


def test_float32_comes_back_exactly(tmp_path: Path, network: TransformNet) -> None:
    save_model_file(tmp_path / "a.safetensors", network, RECORD, dtype="float32")
    loaded = load_model_file(tmp_path / "a.safetensors").network
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in network.state_dict().items())


def test_style_targets_come_back_exactly_and_symmetric(file: Path) -> None:
    targets = load_model_file(file).style_targets
    assert set(targets) == {"relu1_2", "relu2_2"}
    for layer, channels in (("relu1_2", 4), ("relu2_2", 6)):
        assert targets[layer].dtype == torch.float32
        assert torch.equal(targets[layer], gram(channels))
        assert torch.equal(targets[layer], targets[layer].mT)


def test_a_style_needs_no_targets(tmp_path: Path, network: TransformNet) -> None:
    save_model_file(tmp_path / "a.safetensors", network, RECORD)
    assert load_model_file(tmp_path / "a.safetensors").style_targets == {}


def test_the_metadata_comes_back_with_format_and_network(file: Path, network: TransformNet) -> None:
    metadata = read_metadata(file)
    assert metadata == {
        "format": 1,
        **RECORD,
        "network": {"class": "TransformNet", "arguments": network.config, "dtype": "float16"},
        "trunk": trunk_hash(network.state_dict()),
    }
    assert load_model_file(file).metadata == metadata


def test_the_file_holds_the_network_and_the_style_targets_and_nothing_else(file: Path, network: TransformNet) -> None:
    with safe_open(file, "pt") as tensors:
        names = set(tensors.keys())
    expected = {f"network.{key}" for key in network.state_dict()}
    assert names == expected | {"style_targets.relu1_2", "style_targets.relu2_2"}


def test_a_style_of_full_width_takes_at_most_4_2_megabytes(tmp_path: Path) -> None:
    targets = {f"relu{i}": torch.zeros(1, c, c) for i, c in enumerate((64, 128, 256, 512))}
    save_model_file(tmp_path / "a.safetensors", TransformNet(), RECORD, targets)
    assert os.path.getsize(tmp_path / "a.safetensors") <= 4.2e6


def test_saving_refuses_what_it_could_not_load(tmp_path: Path, network: TransformNet) -> None:
    with pytest.raises(ModelFileError, match="Linear is not a network"):
        save_model_file(tmp_path / "a.safetensors", nn.Linear(1, 1), RECORD)
    with pytest.raises(ModelFileError, match="int8"):
        save_model_file(tmp_path / "a.safetensors", network, RECORD, dtype="int8")
    assert not list(tmp_path.iterdir())


def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    file: Path, network: TransformNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = file.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        save_model_file(file, network, {**RECORD, "name": "other"})
    assert file.read_bytes() == old
    assert list(file.parent.iterdir()) == [file]


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


# --- what is no model file -----------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_never_executed(tmp_path: Path, protocol: int) -> None:
    sprung, bait = tmp_path / "sprung", tmp_path / "bait.safetensors"
    bait.write_bytes(pickle.dumps({"network": Trap(sprung)}, protocol))
    assert "not a model file" in refusal(bait)
    assert not sprung.exists()
    pickle.loads(bait.read_bytes())  # the trap is one
    assert sprung.exists()


def test_a_file_of_torch_save_is_refused_and_never_executed(tmp_path: Path) -> None:
    sprung, bait = tmp_path / "sprung", tmp_path / "bait.pth"
    for zipped in (True, False):
        torch.save(Trap(sprung), bait, _use_new_zipfile_serialization=zipped)
        assert "not a model file" in refusal(bait)
    assert not sprung.exists()


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wave.safetensors"
    for kind in ("JPEG", "PNG", "GIF"):
        Image.new("RGB", (32, 32)).save(path, kind)
        assert "not a model file" in refusal(path)
    for content in (b"", b"short", b"This is a text, and a long one.", b"\0" * 100, b"\2" + b"\0" * 7 + b"[]"):
        path.write_bytes(content)
        assert "not a model file" in refusal(path)
    assert "no such file" in refusal(tmp_path / "missing.safetensors")
    refusal(tmp_path)  # a folder


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    assert "not a model file of fststyle" in refusal(path, read_metadata)
    save_file({"weight": torch.zeros(3)}, path, {"format": "pt"})
    assert "not a model file of fststyle" in refusal(path)


def test_a_truncated_checkpoint_is_refused_at_every_length(file: Path) -> None:
    whole = file.read_bytes()
    cut = file.with_name("cut.safetensors")
    for length in (*range(0, 24), *range(24, len(whole), len(whole) // 60), len(whole) - 1):
        cut.write_bytes(whole[:length])
        refusal(cut, read_metadata)
        message = refusal(cut)
        assert ("is cut off" in message) == (length >= 8)


def test_a_file_with_more_in_it_than_it_says_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")
    refusal(file)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a safetensors file."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def rewrite_metadata(path: Path, **changes: Any) -> None:
    rewrite(
        path, lambda header: header.update(__metadata__={"fststyle": json.dumps({**read_metadata(path), **changes})})
    )


# --- checkpoints that cannot be used -------------------------------------------------------------


def test_another_kind_is_refused_where_one_is_needed(tmp_path: Path, network: TransformNet) -> None:
    path = tmp_path / "a.safetensors"
    save_model_file(path, network, {"kind": "superres", "name": "x4"})
    assert load_model_file(path).metadata["kind"] == "superres"
    assert load_model_file(path, "superres").metadata["kind"] == "superres"
    assert "kind 'superres'; expected kind 'style'" in refusal(path, lambda p: load_model_file(p, "style"))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None},
        {"name": 5},
        {"network": None},
        {"network": "TransformNet"},
        {"network": {}},
        {"network": {"class": "TransformNet"}},
        {"network": {"class": ["TransformNet"], "arguments": {}}},
        {"network": {"class": "TransformNet", "arguments": [4]}},
    ],
    ids=str,
)
def test_a_metadata_that_lacks_what_every_command_reads_is_refused(file: Path, changes: dict[str, Any]) -> None:
    rewrite_metadata(file, **changes)
    assert "expected a name, and a network's class and arguments" in refusal(file, read_metadata)


def test_a_file_without_a_name_is_called_after_itself(tmp_path: Path, network: TransformNet) -> None:
    save_model_file(tmp_path / "mine.safetensors", network, {"kind": "style"})
    assert read_metadata(tmp_path / "mine.safetensors")["name"] == "mine"


def test_a_newer_format_or_an_unknown_kind_is_refused(file: Path) -> None:
    rewrite_metadata(file, format=2)
    assert "format 2; this version reads format 1" in refusal(file, read_metadata)
    teapot = json.dumps({"format": 1, "kind": "teapot"})
    rewrite(file, lambda header: header.update(__metadata__={"fststyle": teapot}))
    assert "'teapot'" in refusal(file, read_metadata)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"class": "Conv2d", "arguments": {}}, "'Conv2d'; this version knows TransformNet"),
        ({"class": "os.system", "arguments": {"command": "true"}}, "os.system"),
        ({"class": "TransformNet", "arguments": {"wide": 4}}, "wide"),
        ({"class": "TransformNet", "arguments": {"width": -1}}, "width is -1"),
        ({"class": "TransformNet", "arguments": {"width": "4"}}, ""),
        ({"class": "TransformNet", "arguments": {"width": 4, "residual_blocks": 9}}, "transform.1"),
        ({"class": "TransformNet", "arguments": {"width": 3, "residual_blocks": 1}}, "size mismatch"),
    ],
)
def test_a_metadata_that_does_not_fit_its_tensors_is_refused(file: Path, description: object, message: str) -> None:
    rewrite_metadata(file, network=description)
    found = refusal(file)
    assert "does not fit its own description" in found
    assert message in found


def test_tensors_of_wrong_shapes_are_refused(file: Path) -> None:
    def flatten(header: dict[str, Any]) -> None:
        header["network.encode.0.conv.conv.weight"]["shape"] = [4 * 3 * 81]

    rewrite(file, flatten)
    assert "encode.0.conv.conv.weight" in refusal(file)


def test_style_targets_that_are_no_triangle_are_refused(file: Path, network: TransformNet) -> None:
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    texts = {"fststyle": json.dumps(read_metadata(file))}
    for wrong in (torch.zeros(5), torch.zeros(3, 4), torch.zeros(1, 2, 3)):
        save_file({**tensors, "style_targets.relu1_2": wrong}, file, texts)
        refusal(file)
    save_file({**tensors, "style_targets.relu1_2": torch.zeros(6)}, file, texts)
    assert load_model_file(file).style_targets["relu1_2"].shape == (1, 3, 3)


def test_style_targets_come_back(tmp_path: Path, network: TransformNet) -> None:
    """Gram matrices to the bit, quantiles in float16, or float32 where its range is left."""
    gram = torch.rand(1, 4, 4)
    gram = gram + gram.transpose(1, 2)
    gram[0, 0, 1] *= 1 + 1e-7  # a product of matrices need not be symmetric to the bit
    targets = {"gram": gram, "even": torch.rand(1, 8, 8), "far": 1e6 * torch.rand(1, 8, 128)}
    save_model_file(tmp_path / "a.safetensors", network, {"kind": "style", "name": "a"}, targets)
    again = load_model_file(tmp_path / "a.safetensors").style_targets
    torch.testing.assert_close(again["gram"], targets["gram"], rtol=1e-6, atol=0)
    torch.testing.assert_close(again["even"], targets["even"], rtol=1e-3, atol=1e-6)
    assert torch.equal(again["far"], targets["far"])


def test_missing_and_foreign_tensors_are_refused(file: Path, network: TransformNet) -> None:
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    texts = {"fststyle": json.dumps(read_metadata(file))}
    save_file({**tensors, "network.vgg.conv1_1": torch.zeros(1)}, file, texts)
    assert "vgg.conv1_1" in refusal(file)
    del tensors["network.decode.2.conv.bias"]
    save_file(tensors, file, texts)
    assert "decode.2.conv.bias" in refusal(file)


TENSOR = {"dtype": "F16", "shape": [1]}


@pytest.mark.parametrize(
    "header",
    [
        {"__metadata__": None},
        {"__metadata__": 5},
        {"__metadata__": ["fststyle"]},
        {"__metadata__": {"fststyle": 5}},
        {"__metadata__": {"fststyle": "no JSON"}},
        {"__metadata__": {"fststyle": "[1]"}},
        {"__metadata__": {"fststyle": "null"}},
        {"__metadata__": {"fststyle": '{"kind": "style"}'}},
        {"__metadata__": {"fststyle": '{"format": 1, "kind": ["style"]}'}},
        {"__metadata__": {"fststyle": '{"format": 1, "kind": {}}'}},
        {"__metadata__": {"fststyle": "[" * 100_000}},
        {"weight": None},
        {"weight": {**TENSOR}},
        {"weight": {**TENSOR, "data_offsets": [0]}},
        {"weight": {**TENSOR, "data_offsets": [0, "2"]}},
        {"weight": {**TENSOR, "data_offsets": [0, None]}},
        {"weight": {**TENSOR, "data_offsets": [0, 10**30]}},
    ],
    ids=lambda header: json.dumps(header)[:60],
)
def test_a_damaged_header_is_refused(file: Path, header: dict[str, Any]) -> None:
    rewrite(file, lambda whole: whole.update(header))
    refusal(file, read_metadata)
    refusal(file)


def test_a_header_of_endless_brackets_is_refused(file: Path) -> None:
    text = b'{"a":' * 100_000
    file.write_bytes(struct.pack("<Q", len(text)) + text)
    refusal(file, read_metadata)
