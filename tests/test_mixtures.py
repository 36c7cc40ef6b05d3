"""Several styles in one file: a style of it, and a mixture, wherever a model file is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fststyle import model_file
from fststyle.cli import main
from fststyle.images import read_picture, save_image, to_image, to_pixels
from fststyle.inference.export import NEEDS
from fststyle.mixtures import MixtureError, mixture_metadata, mixture_text, parse_mixture
from fststyle.model_file import (
    ModelFileError,
    StyleEntry,
    all_styles,
    find_model_file,
    load_model_file,
    one_style,
    read_metadata,
    save_model_file,
    style_names,
)
from fststyle.networks.transform import TransformNet
from fststyle.tensor_files import restored, split_path, stored
from marks import rest_slow

NAMES = ("wave", "udnie", "a=b,c")


def several(styles: int = 3) -> TransformNet:
    network = TransformNet(width=4, residual_blocks=1, styles=styles)
    for value in network.style_parameters().values():
        torch.nn.init.normal_(value)
    return network.eval()


def entry(name: str) -> StyleEntry:
    targets = {"pixels": torch.rand(1, 6, 5).half().float()}
    return StyleEntry(name, {"style": {"image": f"{name}.jpg"}, "normalizers": {"tv": 2.0}}, targets, name.encode())


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of three styles, which is bundled."""
    path = tmp_path / "checkpoints" / "styles" / "zoo.safetensors"
    path.parent.mkdir(parents=True)
    metadata = {"kind": "style", "name": "zoo", "loss": {"tv_weight": 1.0}, "steps": 7}
    save_model_file(path, several(), metadata, dtype="float32", styles=[entry(name) for name in NAMES])
    alone = TransformNet(width=4, residual_blocks=1)
    save_model_file(path.with_name("mosaic.safetensors"), alone, {"kind": "style", "name": "mosaic"})
    monkeypatch.setattr(model_file, "resource", lambda name: tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return path


def test_a_file_of_several_styles_comes_back(zoo: Path) -> None:
    loaded = load_model_file(zoo, "style")
    assert style_names(loaded.metadata) == [each.name for each in loaded.styles] == list(NAMES)
    assert loaded.styles[1].thumbnail == b"udnie"
    assert loaded.styles[1].metadata == {"style": {"image": "udnie.jpg"}, "normalizers": {"tv": 2.0}}
    assert loaded.styles[1].style_targets["pixels"].shape == (1, 6, 5)
    assert loaded.network.styles == 3


@pytest.mark.parametrize("number", range(3))
def test_a_style_of_it_is_a_model_file_of_one_style(zoo: Path, number: int) -> None:
    whole, one, image = load_model_file(zoo), load_model_file(zoo / NAMES[number], "style"), torch.rand(1, 3, 20, 24)
    assert torch.allclose(one.network(image), whole.network(image, torch.eye(3)[number : number + 1]), atol=1e-6)
    assert one.metadata == read_metadata(zoo / NAMES[number])
    assert one.metadata["name"] == NAMES[number]
    assert one.metadata["style"] == {"image": f"{NAMES[number]}.jpg"}
    assert one.metadata["loss"] == {"tv_weight": 1.0, "normalizers": {"tv": 2.0}}
    assert one.metadata["network"]["arguments"] == one.network.config
    assert "styles" not in one.metadata
    assert torch.equal(one.style_targets["pixels"], whole.styles[number].style_targets["pixels"])


def test_a_mixture_has_its_weights_and_no_targets(zoo: Path) -> None:
    mixed = load_model_file(zoo / "udnie=3,wave=1")
    whole = load_model_file(zoo)
    assert mixed.metadata["mixture"] == {"wave": 0.25, "udnie": 0.75}
    assert mixed.style_targets == {}
    for name, value in whole.network.style_parameters().items():
        assert torch.allclose(mixed.network.state_dict()[name], 0.25 * value[0] + 0.75 * value[1], atol=1e-6)


def ends(network: TransformNet) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if ".norm." in name}


def test_the_ends_of_a_mixture_are_the_styles_to_the_bit(zoo: Path) -> None:
    for text, name in (("wave=1,udnie=0", "wave"), ("wave=0,udnie=0.3", "udnie")):
        mixed, pure = (ends(load_model_file(zoo / each).network) for each in (text, name))
        assert all(torch.equal(mixed[key], pure[key]) for key in pure)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("zoo", ""),
        ("zoo/wave", "wave"),
        ("wave", "wave"),
        ("zoo/wave=0.6,udnie=0.4", "wave=0.6,udnie=0.4"),
        ("wave=0.6,udnie=0.4", "wave=0.6,udnie=0.4"),
        ("checkpoints/styles/zoo.safetensors/udnie", "udnie"),
        ("zoo/a=b,c", "a=b,c"),
    ],
)
def test_a_style_is_found_by_its_name(zoo: Path, name: str, found: str) -> None:
    path, mixture = split_path(find_model_file(name, "style"))
    assert (path.resolve(), mixture) == (zoo, found)


def test_an_existing_file_wins_over_a_name(zoo: Path) -> None:
    Path("mosaic").write_bytes(zoo.read_bytes())
    assert find_model_file("mosaic", "style") == Path("mosaic")
    assert one_style(find_model_file("mosaic/wave", "style")) == Path("mosaic/wave")


def test_a_bundled_file_wins_over_a_style_of_several(zoo: Path) -> None:
    save_model_file(
        zoo.with_name("wave.safetensors"), TransformNet(width=4, residual_blocks=1), {"kind": "style", "name": "wave"}
    )
    assert find_model_file("wave", "style") == zoo.with_name("wave.safetensors")


def test_of_several_styles_one_is_to_be_named(zoo: Path) -> None:
    with pytest.raises(ModelFileError, match="holds 3 styles; name one, as zoo/wave"):
        one_style(zoo)
    assert one_style(zoo / "wave") == zoo / "wave"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sea", "unknown style 'sea'; expected one of wave, udnie"),
        ("wave=0.5,sea=0.5", "unknown style 'sea'"),
        ("wave=0.5,wave=0.5", "wave is named twice"),
        ("wave=-1,udnie=2", "the weight of wave is -1; expected a number ≥ 0"),
        ("wave=nan", "the weight of wave is nan"),
        ("wave=inf,udnie=1", "the weight of wave is inf"),
        ("wave=0,udnie=0", "sum to 0; expected one above 0"),
        ("wave=much", "found wave=much in a mixture; expected NAME=WEIGHT"),
        ("wave,udnie", "found wave in a mixture; expected NAME=WEIGHT"),
        ("", "unknown style ''"),
        ("wave=1,", "unknown style ''"),
    ],
)
def test_mixtures_that_cannot_be_made_are_refused(zoo: Path, text: str, told: str) -> None:
    with pytest.raises(MixtureError) as caught:
        parse_mixture(text, NAMES)
    assert told in str(caught.value)
    if text:
        with pytest.raises(ModelFileError) as named:
            load_model_file(zoo / text)
        assert told in str(named.value)


@pytest.mark.parametrize("text", ["wave", "wave=0.25,udnie=0.75", "udnie=3, wave=1"])
def test_weights_sum_to_1(text: str) -> None:
    weights = parse_mixture(text, NAMES)
    assert sum(weights.values()) == pytest.approx(1)
    assert parse_mixture(mixture_text(weights), NAMES) == weights


@pytest.mark.parametrize("styles", [[], ["wave"], ["wave", "wave", "udnie"]])
def test_entries_fit_the_network(tmp_path: Path, styles: list[str]) -> None:
    with pytest.raises(ModelFileError, match="the network has 3, each with another name"):
        save_model_file(
            tmp_path / "x.safetensors", several(), {"kind": "style", "name": "x"}, styles=[*map(StyleEntry, styles)]
        )


@pytest.mark.parametrize("damage", [{"styles": 3}, {"styles": [{}]}, {"styles": ["wave"]}])
def test_a_damaged_list_of_styles_is_refused(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = tmp_path / "x.safetensors"
    save_model_file(path, TransformNet(width=4, residual_blocks=1), {"kind": "style", "name": "x", **damage})
    with pytest.raises(ModelFileError, match="expected a list of styles with names"):
        read_metadata(path)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 3e7])
def test_gram_matrices_of_many_styles_take_half_the_bytes(tmp_path: Path, scale: float) -> None:
    features = torch.randn(8, 50, generator=torch.Generator().manual_seed(0))
    gram = (features @ features.T / 50 * scale)[None]
    gram = (gram + gram.transpose(1, 2)) / 2
    entries = [StyleEntry(name, {}, {"relu1_1": gram}) for name in NAMES]
    save_model_file(tmp_path / "x.safetensors", several(), {"kind": "style", "name": "x"}, styles=entries)
    found = load_model_file(tmp_path / "x.safetensors" / "wave").style_targets["relu1_1"]
    assert torch.allclose(found, gram, rtol=2**-10, atol=float(gram.abs().max()) * 2**-24)
    assert stored({"relu1_1": gram}, "x", half=True)["x.relu1_1"].numel() == 8 * 9 // 2 + 1
    assert restored(stored({"relu1_1": 0 * gram}, "x", half=True)["x.relu1_1"]).abs().max() == 0


# --- in the commands ----------------------------------------------------------------------------------


@pytest.fixture
def photo(zoo: Path) -> Path:
    path = zoo.parents[2] / "photo.png"
    save_image(np.random.default_rng(0).integers(0, 256, (24, 33, 3), dtype=np.uint8), path)
    return path


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_mixture_is_applied_by_both_backends(zoo: Path, photo: Path, backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    words = ["stylize", "photo.png", "--backend", backend, "--precision", "float32"]
    assert main([*words, "--style", "zoo/udnie"]) == 0
    assert main([*words, "--style", "zoo", "--mix", "wave=1", "udnie=3"]) == 0
    assert main([*words, "--mix", "wave=0", "udnie=3", "-o", "end.png"]) == 0
    assert main([*words, "--style", "zoo/wave=1,udnie=3", "--tiles", "exact", "-o", "strips.png"]) == 0
    wanted = load_model_file(zoo / "wave=1,udnie=3").network
    with torch.inference_mode():
        expected = to_pixels(wanted(to_image(read_picture(photo).rgb)))
    mixed, pure, end, strips = (
        read_picture(name).rgb.astype(int)
        for name in ("photo_wave1_udnie3.png", "photo_udnie.png", "end.png", "strips.png")
    )
    assert abs(mixed - expected).max() <= 1
    assert abs(mixed - strips).max() <= 1
    assert np.array_equal(pure, end)
    assert abs(mixed - pure).max() > 1


def test_all_styles_come_on_one_sheet(zoo: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            ["stylize", "photo.png", "--style", "all", "--sheet", "sheets/s.png", "--size", "64", "--backend", "torch"]
        )
        == 0
    )
    assert capsys.readouterr().out.strip() == "sheets/s.png"
    sheet = Image.open("sheets/s.png")
    assert list(all_styles()) == ["mosaic", "zoo/wave", "zoo/udnie", "zoo/a=b,c"]
    assert sheet.width >= 2 * 64  # five pictures, in rows


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no style is given"),
        (["--style", "zoo"], "holds 3 styles; name one, as zoo/wave"),
        (["--style", "zoo/sea"], "unknown style 'sea'"),
        (["--style", "zoo", "--mix", "wave"], "found wave after --mix; expected STYLE=WEIGHT"),
        (["--style", "zoo", "--mix", "wave=-1", "udnie=1"], "the weight of wave is -1"),
        (["--style", "zoo", "--mix", "wave=0", "udnie=0"], "sum to 0"),
        (["--mix", "wave=1", "sea=1"], "unknown style 'wave=1,sea=1'"),
        (["--style", "mosaic", "--mix", "wave=1"], "unknown style 'wave'; expected one of mosaic"),
        (["--style", "zoo/wave", "--style", "mosaic", "--mix", "wave=1"], "found --mix with --style zoo/wave mosaic"),
        (["--style", "zoo/wave", "--sheet", "photo.png"], "photo.png: is read itself"),
        (["--style", "zoo/wave", "--sheet", "s.txt"], "s.txt: no picture format"),
        (["--style", "zoo/wave", "--sheet", "s.png", "-o", "x.png"], "--sheet takes one photograph"),
        (["--style", "zoo/wave", "--sheet", "checkpoints"], "no picture format"),
        (["photo.png", "--style", "zoo/wave", "--sheet", "s.png"], "--sheet takes one photograph"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_mixed_or_shown_is_refused(
    zoo: Path, photo: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in Path().iterdir())
    assert main(["stylize", "photo.png", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == before


def test_the_styles_of_a_file_are_listed(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["styles"]) == 0
    listed = capsys.readouterr().out
    assert "3 styles" in listed
    assert "zoo/udnie" in listed
    assert main(["info", "zoo"]) == 0
    assert "wave, udnie, a=b,c (zoo/STYLE tells more)" in capsys.readouterr().out
    assert main(["info", "zoo/udnie"]) == 0
    assert "udnie.jpg" in capsys.readouterr().out


@pytest.mark.parametrize("kind", rest_slow(["onnx", "openvino", "pt2"], 2))
def test_the_weights_are_an_input_of_the_exported_graph(
    zoo: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in NEEDS[kind]:
        pytest.importorskip(package)
    assert main(["export", "zoo", "--format", kind]) == 0  # compared with PyTorch before it is written
    assert "second input: weights (batch, 3) of wave, udnie, a=b,c" in capsys.readouterr().out


@pytest.mark.slow
def test_a_style_of_several_is_exported_alone(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "zoo/wave", "--format", "pt2"]) == 0
    assert capsys.readouterr().out == "wave.pt2\n"


def test_strokes_of_a_mixture_grow_as_those_of_its_styles_do() -> None:
    network = {"class": "TransformNet", "arguments": {"styles": 2}}
    metadata = {"network": network, "styles": [{"name": "a", "grow_from": 320}, {"name": "b"}]}
    assert mixture_metadata(metadata, {"a": 1.0})["grow_from"] == 320
    assert mixture_metadata(metadata, {"a": 0.75, "b": 0.25})["grow_from"] == 0.75 * 320 + 0.25 * 1024
    assert "grow_from" not in mixture_metadata(metadata, {"b": 1.0})
