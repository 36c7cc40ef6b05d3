"""The scripts beside the package: the benchmark's yardstick is a fair one, and what measures runs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fststyle.encoders.pretrained import load_encoder
from fststyle.encoders.truncated import truncated_encoder
from fststyle.images import read_picture, save_image, to_image
from fststyle.inference import Stylizer
from fststyle.model_file import StyleEntry, load_model_file, one_style, read_metadata, save_model_file
from fststyle.networks.styleswap import InverseNet
from fststyle.networks.transform import TransformNet

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(name).name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_computes_what_our_network_does() -> None:
    torch.manual_seed(0)
    ours = TransformNet(width=8, residual_blocks=2).double()
    theirs = script("benchmark/reference").Reference(8, 2).double().take(ours.state_dict())
    image = torch.rand(2, 3, 40, 64, dtype=torch.float64)
    torch.testing.assert_close(theirs(image), ours(image), rtol=1e-6, atol=1e-6)


def test_the_reference_stylises_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = TransformNet(8)
    save_model_file(tmp_path / "a.safetensors", network, {"kind": "style", "name": "a"}, dtype="float32")
    rgb = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    save_image(rgb, tmp_path / "in.png")
    words = [str(tmp_path / name) for name in ("in.png", "out.png")]
    monkeypatch.setattr(sys, "argv", ["reference.py", *words, "--style", str(tmp_path / "a.safetensors")])
    script("benchmark/reference").main()
    ours = Stylizer(network, device="cpu").pixels(rgb).astype(int)
    assert np.abs(read_picture(tmp_path / "out.png").rgb.astype(int) - ours).max() <= 1


def test_the_reference_trains() -> None:
    reference = script("benchmark/reference")
    torch.manual_seed(0)
    step = reference.Step(reference.Reference(4, 1), torch.rand(1, 3, 32, 32))
    photographs = torch.rand(2, 3, 32, 32)
    losses = [step(photographs) for _ in range(4)]
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "title", "rows"),
    [
        (
            ("step", "--eager", "--batch", "1", "--encoder", "slim", "--precision", "float32"),
            "training step, batch 1, 256 px",
            2,
        ),
        (("inference", "--size", "64"), "one pass, 64 px", 5),
    ],
)
def test_the_benchmark_measures_in_turn(tmp_path: Path, words: tuple[str, ...], title: str, rows: int) -> None:
    """In a process of its own, as it is used: it loads every backend beside training."""
    pytest.importorskip("openvino")
    more, on_the_cpu = ["--repeats", "1", "-o", str(tmp_path)], {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SCRIPTS / "benchmark"), *words, *more]
    subprocess.run(command, check=True, capture_output=True, env=on_the_cpu)
    table = json.loads((tmp_path / "benchmark.json").read_text())["tables"][title]
    assert len(table) == rows
    assert table[0]["what"] == "reference"
    assert table[0]["times"] == 1.0
    assert all(row["seconds"] > 0 and row["of peak"] > 0 for row in table)
    assert "Benchmark" in (tmp_path / "benchmark.html").read_text()


@pytest.mark.slow
def test_recipes_are_judged_at_every_state_they_save(
    tmp_path: Path, photographs: Path, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_image(astronaut[200:296, 200:296].copy(), tmp_path / "rain.png")
    save_image(astronaut[:200, 100:300].copy(), tmp_path / "face.png")
    recipes = script("checks/recipes")
    small = ["data.size=64", "data.batch_size=2", "data.workers=0", "task.compile=false", "calibration_photographs=4"]
    monkeypatch.setattr(
        recipes,
        "RECIPES",
        {"default": (small, 0.006), "from nothing": ([*small, "init_from=null", "network.width=4"], 1)},
    )
    words = ["--painting", str(tmp_path / "rain.png"), "--photo", str(tmp_path / "face.png")]
    words += ["--photographs", str(photographs)]
    words += ["--minutes", "0.1", "--starting", "0", "--every", "0.04", "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["recipes.py", *words])
    recipes.measure(None, {"recipes": recipes.recipes})
    found = json.loads((tmp_path / "out" / "recipes.json").read_text())
    assert {row["recipe"] for row in found} == {"default", "from nothing"}
    assert [row["steps"] for row in found if row["recipe"] == "from nothing"][-1] == 6
    assert all(row["everywhere"] > 0 and row["content"] > 0 and row["minutes"] > 0 for row in found)
    pictures = list((tmp_path / "out").glob("face_*.png"))
    assert len(pictures) == len(found)
    assert read_picture(pictures[0]).rgb.shape == (512, 512, 3)
    assert (tmp_path / "out" / "recipes.svg").read_text().startswith("<svg")


def test_style_swap_is_measured(tmp_path: Path, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    encoder = load_encoder("vgg16", "slim")
    weights, told = truncated_encoder(encoder, "relu3_1")
    metadata = {"kind": "swap", "name": "mine", "encoder": told}
    save_model_file(tmp_path / "mine.safetensors", InverseNet(64), metadata, encoder=weights)
    for name, part in (("photo", astronaut[:64, :64]), ("painting", astronaut[100:164, 100:164])):
        save_image(part.copy(), tmp_path / f"{name}.png")
    swap = script("checks/swap")
    pictures = {"photo": [tmp_path / "photo.png"], "painting": [tmp_path / "painting.png"]}
    found = dict(swap.iterations(**pictures, model=str(tmp_path / "mine.safetensors"), size=64, steps=5))
    assert set(found) == {"photo painting", "median", "least"}
    assert 1 <= found["median"] <= 5
    assert swap.one_swap(str(tmp_path / "mine.safetensors"), 64, 64)["GiB"] > 0.1


@pytest.mark.slow
def test_a_run_that_is_killed_is_compared_with_one_that_is_not(tmp_path: Path) -> None:
    """In a process of its own: it forks."""
    words = ["--cases", "no workers", "--kills", "1", "--steps", "30", "--json", str(tmp_path / "found.json")]
    subprocess.run([sys.executable, str(SCRIPTS / "checks" / "resume.py"), *words], check=True, capture_output=True)
    found = json.loads((tmp_path / "found.json").read_text())["resume"]
    assert found["no workers"]["differing"] == []


@pytest.mark.slow
def test_pictures_and_files_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check, on little; in a process of its own, since they start processes that import it."""
    pytest.importorskip("pyvips")
    torch.manual_seed(0)
    metadata = {"kind": "style", "name": "a", "style": {"image": "a.png"}}
    save_model_file(tmp_path / "a.safetensors", TransformNet(width=4, residual_blocks=1), metadata)
    common = ["--style", str(tmp_path / "a.safetensors"), "--size", "96"]
    common += ["--json", str(tmp_path / "found.json"), "-o", str(tmp_path / "out")]
    words = ["equal", "large", "--only-styles", *common]
    subprocess.run([sys.executable, str(SCRIPTS / "checks" / "pictures.py"), *words], check=True, capture_output=True)
    found = json.loads((tmp_path / "found.json").read_text())
    (row,) = found["equal"].values()
    assert row["float64"] < 1e-9
    assert row["96x96"]["largest"] <= 1
    assert found["large"]["96 tiled"]["GiB"] > 0.1
    assert (tmp_path / "out" / "memory.svg").read_text().startswith("<svg xmlns")
    words = ["folder", "kills", "fuzz", "--count", "30", "--files", "27", "--within", "0.2", "--kills", "2", *common]
    words += ["--mutations", "30", "--backend", "torch"]
    subprocess.run([sys.executable, str(SCRIPTS / "checks" / "files.py"), *words], check=True, capture_output=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["folder"]["done"] == found["folder"]["whole"] == found["folder"]["good"]
    assert found["folder"]["named"] == found["folder"]["bad"] > 0
    assert found["kills"]["not whole"] == 0
    assert found["kills"]["there"] == 27
    assert found["fuzz"]["crashes"] == found["fuzz"]["hangs"] == found["fuzz"]["other"] == 0


@pytest.mark.slow
def test_videos_are_measured(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model_file(
        tmp_path / "a.safetensors", TransformNet(width=2, residual_blocks=0), {"kind": "style", "name": "a"}
    )
    video = script("checks/video")
    found = dict(video.speed(str(tmp_path / "a.safetensors"), frames=3, rounds=1))
    assert 0 < found["speed of the network alone, by clock"] < 2
    found = dict(video.memory(minutes=0.1, width=1, frames=130))
    assert found["frames"] > 0


@pytest.mark.slow
def test_a_network_of_several_styles_learns_what_others_make(
    tmp_path: Path, photographs: Path, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    metadata = {"kind": "style", "encoder": {}, "octaves": 2}
    entries = [StyleEntry(name, {"style": {"image": f"{name}.jpg"}}) for name in ("red", "blue")]
    start = TransformNet(width=4, residual_blocks=1, styles=2)
    save_model_file("start.safetensors", start, {**metadata, "name": "start"}, styles=entries, dtype="float32")
    teachers = {}
    for name, shift in (("red", (2.0, 0.0, 0.0)), ("blue", (0.0, 0.0, 2.0))):
        teachers[name] = TransformNet(width=4, residual_blocks=1)
        teachers[name].fold_color_transform(torch.eye(3), torch.tensor(shift))
        save_model_file(f"{name}.safetensors", teachers[name], {**metadata, "name": name}, dtype="float32")
    distill = script("distill_styles")
    steps: list[int] = []
    monkeypatch.setattr(distill.time, "perf_counter", lambda: steps.append(0) or len(steps) / 2)
    words = ["red=red.safetensors", "blue=blue.safetensors", "--photographs", str(photographs), "--size", "48"]
    words += ["--start", "start.safetensors", "--rate", "0.05", "--minutes", "0.3", "--every", "10", "-o", "both"]
    monkeypatch.setattr(sys, "argv", ["distill_styles.py", *words])
    distill.main()
    made = load_model_file("both/both.safetensors")
    assert [style.name for style in made.styles] == ["red", "blue"]
    assert made.metadata["command"].endswith("-o both")
    image = to_image(astronaut[:64, :64])
    for mixture, teacher in zip(torch.eye(2), teachers.values(), strict=True):
        wanted, before, after = (
            teacher(image),
            start.of_mixture(mixture)(image),
            made.network.of_mixture(mixture)(image),
        )
        assert (after - wanted).abs().mean() < 0.7 * (before - wanted).abs().mean()


@pytest.mark.slow
def test_styles_are_trained_together_and_each_gets_a_file(
    tmp_path: Path, photographs: Path, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    paintings = {"rain": astronaut[200:264, 200:264], "wave": 255 - astronaut[100:164, 100:164]}
    for name, part in paintings.items():
        save_image(part.copy(), tmp_path / f"{name}.png")
    words = [f"{name}={tmp_path / name}.png" for name in paintings]
    words += ["--photographs", str(photographs), "--photo", str(sorted(photographs.iterdir())[0]), "--size", "32"]
    words += ["--width", "4", "--batch", "2", "--every", "2", "-o", str(tmp_path / "out")]
    together = script("train_together")
    steps: list[int] = []
    monkeypatch.setattr(together.time, "perf_counter", lambda: steps.append(0) or len(steps) / 2)  # a second a step
    monkeypatch.setattr(sys, "argv", ["train_together.py", *words, "--minutes", "0.1"])
    together.main()
    made = {name: load_model_file(tmp_path / "out" / f"{name}.safetensors") for name in paintings}
    assert made["rain"].metadata["steps"] == 6
    assert made["rain"].metadata["history"] == []
    assert "rain=rain.png wave=wave.png --photographs" in made["rain"].metadata["command"]
    weights = [made[name].metadata["loss"]["style_weight"] for name in paintings]
    assert weights[1] == pytest.approx(0.5 * weights[0])
    assert made["rain"].style_targets["relu4_3"].shape == (1, 128, 128)  # Gram matrix
    assert made["rain"].style_targets["pixels"].shape == (1, 6, 128)  # quantiles
    rain, snow = (made[name].network.state_dict() for name in paintings)
    assert all(torch.equal(rain[key], snow[key]) for key in rain if ".norm." not in key)
    assert not torch.equal(rain["encode.0.norm.bias"], snow["encode.0.norm.bias"])
    monkeypatch.setattr(sys, "argv", ["train_together.py", *words, "--minutes", "0.2"])
    together.main()
    assert load_model_file(tmp_path / "out" / "rain.safetensors").metadata["steps"] > 6
    words += ["-o", str(tmp_path / "own"), "--separate", "--init", str(tmp_path / "out"), "--minutes", "0.1"]
    words += ["--share", "rain=2"]
    monkeypatch.setattr(sys, "argv", ["train_together.py", *words])
    together.main()
    made = {name: load_model_file(tmp_path / "own" / f"{name}.safetensors") for name in paintings}
    rain, snow = (made[name].network.state_dict() for name in paintings)
    assert not any(torch.equal(rain[key], snow[key]) for key in rain if key.endswith("conv.weight"))
    assert [made[name].metadata["steps"] for name in paintings] == [4, 2]
    (first,) = made["wave"].metadata["history"]
    assert first["command"].endswith("--minutes 0.2")
    assert first["steps"] > 6
    monkeypatch.setattr(sys, "argv", ["train_together.py", *words, "--share", "hail=2"])
    with pytest.raises(SystemExit):
        together.main()


def test_a_widened_network_gives_the_same_pictures_at_first(network: TransformNet) -> None:
    wider = script("train_together").widened(network, network.config["width"] + 3)
    assert wider.encode[0].conv.conv.weight.shape[0] == network.config["width"] + 3
    image = torch.rand(2, 3, 24, 37, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(wider.eval()(image), network.eval()(image))
    with pytest.raises(ValueError, match="width is 3; expected at least that of the network to go on from, 4"):
        script("train_together").widened(network, 3)
    wider(image).sum().backward()
    assert (wider.decode[2].conv.weight.grad.abs().sum((0, 2, 3)) > 0).all()  # new channels can be learned


def test_the_demo_applies_every_bundled_style(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo, asked = script("demo"), []

    def parts(styles: dict[str, Path], out: Path) -> list[str]:
        asked.extend(styles.values())
        return []

    for name in ("apply_styles", "enlarge", "swap_patches", "train_small"):
        monkeypatch.setattr(demo, name, parts if name == "apply_styles" else lambda *_: [])
    monkeypatch.setattr(sys, "argv", ["demo.py", "--output", str(tmp_path / "out")])
    parts.__name__ = "apply_styles"
    demo.main()
    assert len(asked) > 9
    assert all("styles" not in read_metadata(one_style(path)) for path in asked)  # a file of several has no picture


def test_the_demo_shows_every_photograph_once_beside_every_style(
    tmp_path: Path, network: TransformNet, monkeypatch: pytest.MonkeyPatch, astronaut: np.ndarray
) -> None:
    demo = script("demo")
    monkeypatch.setattr(demo, "photographs", lambda: {"one": astronaut[:64, :96], "two": astronaut[64:128, :64]})
    styles = {}
    for name in ("mosaic", "wave", "unknown"):
        styles[name] = tmp_path / f"{name}.safetensors"
        save_model_file(styles[name], network, {"kind": "style", "name": name})
    page = "".join(demo.apply_styles(styles, tmp_path))
    shown = [f"{photo}{style}" for photo in ("one", "two") for style in ("", "_mosaic", "_wave", "_unknown")]
    links = re.findall(r'<a href="([^"]+)">', page)
    assert links == ["painting_mosaic.jpg", *(f"{name}.png" for name in shown)]  # once each, row by row
    assert all(read_picture(tmp_path / link).rgb.size for link in links)
    heads = re.findall(r'<th scope="col">(.*?)</th>', page)
    assert [re.sub("<[^>]+>", " ", head).split() for head in heads] == [
        ["photograph"],
        ["mosaic"],
        ["wave", "Hokusai,", "The", "Great", "Wave", "off", "Kanagawa", "(1831)"],
        ["unknown"],
    ]
    assert re.findall(r'<th scope="row"><a href="(\w+)', page) == ["one", "two"]
    assert re.search(r'alt="one in the style of wave"></a><small>[\d.]+ s</small>', page)


def test_every_bundled_style_has_a_painting_or_says_who_painted_it() -> None:
    gallery = script("make_gallery")
    assert all(gallery.head(style) != f"`{style}`" for style in gallery.style_files(several=False))


def test_the_gallery_is_made_from_the_model_files(
    tmp_path: Path, network: TransformNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = script("make_gallery")
    metadata = {"kind": "style", "steps": 1200, "images": 4800, "seconds": 90, "command": "fststyle train x"}
    metadata["held_out"] = {"style/relu1_2": 0.125, "style/relu2_2": 0.375, "content/relu2_2": 0.5}
    styles = {}
    for name in ("a", "b", "c", "d", "mosaic"):
        styles[name] = tmp_path / f"{name}.safetensors"
        save_model_file(styles[name], network, {**metadata, "name": name})
    monkeypatch.setattr(gallery, "bundled_files", lambda kind: styles if kind == "style" else {})
    monkeypatch.setattr(gallery, "SIZES", {"": 32, "_1024": 64})
    monkeypatch.setattr(sys, "argv", ["make_gallery.py", "--root", str(tmp_path)])
    threads = torch.get_num_threads()
    gallery.main()
    torch.set_num_threads(threads)
    page = (tmp_path / "checkpoints" / "README.md").read_text()
    tables = [line for line in page.splitlines() if line.startswith("| photograph |")]
    assert [line.count("|") - 2 for line in tables] == [2, 3]
    assert tables[1].endswith("| `c` | `d` | ![the painting of mosaic](paintings/mosaic.jpg)<br>`mosaic` |")
    made = {f"../docs/gallery/{file.name}" for file in (tmp_path / "docs" / "gallery").iterdir()}
    assert set(re.findall(r"\((\.\./[^)]+)\)", page)) == made
    assert len(made) == 3 + 3 * 5 * 2
    assert "| `a` | 1,200 | 4,800 | 2 | 0.250 | 0.500 |" in page
    assert "1,292 photographs" in page
    assert "fststyle train x" in page
    listed = json.loads((tmp_path / "checkpoints" / "manifest.json").read_text())
    assert list(listed) == [f"styles/{name}.safetensors" for name in styles]
    assert listed["styles/a.safetensors"]["steps"] == 1200


def test_the_galleries_page_is_that_of_the_model_files() -> None:
    """checkpoints/README.md is written anew whenever what it shows changes, and its pictures are there."""
    page = script("make_gallery").page()
    readme = SCRIPTS.parent / "checkpoints" / "README.md"
    assert readme.read_text(encoding="utf-8") == page
    for path in set(re.findall(r"\(((?!http)[^)]+\.jpg)\)", page)):
        assert (readme.parent / path).is_file(), path


def test_lines_and_the_files_that_a_path_enters_are_counted() -> None:
    architecture = script("checks/architecture")
    text = '"""Of\ntwo lines."""\n\n# No.\nx = 1  # yes\n\n\ndef f():\n    """One."""\n    return (\n        x\n    )\n'
    assert architecture.counted(text) == (5, 12)
    found = architecture.construct()
    assert found.keys() - {"__init__.py"} == {"config.py", "training/callbacks.py"}
    assert found["training/callbacks.py"] == ["AverageWeights.__init__"]
