"""Every command and every snippet of the README runs, on small pictures, with small settings where it trains."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import hydra
import numpy as np
import pytest
import torch

from clips import make_clip
from fststyle import config
from fststyle.cli import compose, main, parser, preview
from fststyle.encoders import pretrained, published
from fststyle.images import save_image
from fststyle.model_file import bundled_files, save_model_file
from fststyle.networks.transform import TransformNet
from fststyle.web import runtime

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: What makes a documented training small. The command's own words come after, and win.
SMALL = [
    *("encoder=random", "encoder.widths=[4,4,4,4,4]", "network.width=4", "network.residual_blocks=1"),
    *("data.size=32", "data.workers=0", "data.held_out=2", "steps=1", "calibration_photographs=4", "style.size=96"),
    *("trainer.accelerator=cpu", "callbacks.previews.count=1"),
]

PHOTOGRAPHS = ["data=folder", "data.source.path=photographs"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def shell_lines() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def documents_lines() -> list[str]:
    """The commands of the other documents."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
    found = [block for text in texts for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    lines = [line.split("#")[0].strip() for block in found for line in block.splitlines()]
    return sorted({line for line in lines if line.startswith("fststyle ")})


def recipes() -> list[str]:
    """The right columns of the tables of training options, one entry for each piece of code in it."""
    tables = [
        part.split("\n\n")[0]
        for part in README.split("## Train")[1].split("### On a cluster")[0].split("| to | say |")[1:]
    ]
    cells = [line.rsplit("|", 2)[1] for table in tables for line in table.splitlines()[2:]]
    return [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]


def cases(lines: list[str], slow: Callable[[str], bool]) -> list[Any]:
    """Each line as a case, marked where it is a slow one."""
    return [pytest.param(line, marks=pytest.mark.slow if slow(line) else ()) for line in lines]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: np.ndarray) -> Path:
    """A folder with everything that the README's commands name."""
    monkeypatch.chdir(tmp_path)
    small = astronaut[::4, ::4].copy()
    for name in ("photo.jpg", "painting.jpg", "holiday/beach.jpg", "more/boat.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_image(small, name)
    make_clip(tmp_path / "clip.mp4", times=(0, 20), audio="aac")
    mask = np.zeros(small.shape, np.uint8)
    mask[: len(mask) // 2] = 255
    save_image(mask, "mask.png")
    (tmp_path / "photographs").mkdir()
    for index in range(10):
        save_image(small[index:, index:].copy(), f"photographs/{index}.jpg")
    encoded = [(tmp_path / f"photographs/{index}.jpg").read_bytes() for index in range(10)]
    table = datasets.Dataset.from_dict({"image": [{"bytes": data, "path": None} for data in encoded]})
    table = table.cast_column("image", datasets.Image(decode=False))
    (tmp_path / "photos").mkdir()
    table.to_parquet("photos/0.parquet")
    (tmp_path / "shards").mkdir()
    shutil.make_archive("shards/0", "tar", "photographs")
    torch.manual_seed(0)
    (tmp_path / "runs/mine").mkdir(parents=True)
    metadata = {"kind": "style", "name": "mine", "style": {"image": "painting.jpg"}, "licence": "Apache-2.0"}
    save_model_file("runs/mine/mine.safetensors", TransformNet(width=4, residual_blocks=1), metadata)
    (tmp_path / "paintings").mkdir()
    save_image(small, "paintings/one.jpg")
    (tmp_path / "my_conf/style").mkdir(parents=True)
    shutil.copy(ROOT / "conf/style/wave.yaml", "my_conf/style/my_wave.yaml")

    (tmp_path / "dist").mkdir()
    for name in runtime.NAMES:  # which npm would fetch
        (tmp_path / "dist" / name).write_text("")
    monkeypatch.setattr("fststyle.web.site.runtime_folder", lambda given: tmp_path / "dist")

    load = datasets.load_dataset

    def offline(name: str, **options: Any) -> Any:
        if name != "detection-datasets/coco":
            return load(name, **options)
        return table.to_iterable_dataset() if options["streaming"] else table

    monkeypatch.setattr(datasets, "load_dataset", offline)
    return tmp_path


HYDRAS = ("train", "optimize", "preview")
#: Training options that take long: several trainings, or networks of full size.
LONG = (
    "-m ",
    "experiment=norms",
    "experiment=quick",
    "init_from=",
    "trainer=ddp",
    "'style=[",
    "resume=last resume_changed",
)
#: What makes a documented optimisation small; here the command's own words come first.
FEW = ["size=40", "style.size=40", "iterations=2", "calibration_photographs=4", "data.size=32", "overwrite=true"]


@pytest.mark.parametrize(
    "line",
    cases(
        [line for line in shell_lines() if line.startswith("fststyle") and line.split()[1] not in HYDRAS],
        slow=lambda line: any(words in line for words in ("--size 1024", "--sheet", "pt2", "evaluate superres")),
    ),
)
def test_a_documented_command_runs(line: str, workplace: Path, request: pytest.FixtureRequest) -> None:
    missing = [name for name in ("starry_night", "wave") if name in line and name not in bundled_files("style")]
    if missing:
        pytest.skip(f"{missing[0]} is not among the bundled styles")
    if line.split()[1] == "swap" and "slim" not in bundled_files("swap"):
        pytest.skip("slim is not among the bundled networks for style swap")
    if line.split()[1] in ("upscale", "evaluate") and "x4_pixel" not in bundled_files("superres"):
        pytest.skip("x4_pixel is not among the bundled networks for super-resolution")
    if " push " in line or " hf:" in line:
        hub = request.getfixturevalue("hub")
        hub.add("user/mine", {"mine.safetensors": (workplace / "runs/mine/mine.safetensors").read_bytes()})
    small = ["--size", "48", "--iterations", "3"] if line.split()[1] == "compare" else []
    assert main([*shlex.split(line)[1:], *small]) == 0


@pytest.mark.parametrize(
    "line",
    cases(
        [line for line in shell_lines() if line.startswith("fststyle optimize")],
        slow=lambda line: "preset=gatys" in line,
    ),
)
def test_a_documented_optimisation_runs(line: str, workplace: Path) -> None:
    words = shlex.split(line)[2:]
    if "preset=gatys" in words:  # the full VGG-19 would be a download
        words += ["encoder.weights=random", "+encoder.widths=[4,4,4,4,4]"]
    assert main(["optimize", *words, *FEW]) == 0
    assert (workplace / "as_in_2016.png").is_file() == ("preset=gatys" in words)


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("fststyle preview")])
def test_a_documented_preview_runs(line: str, workplace: Path) -> None:
    assert main(["preview", *shlex.split(line)[2:], "size=40", "iterations=1", "style_sizes=[48,64]"]) == 0
    assert list(workplace.glob("*/sheet.png"))


@pytest.mark.parametrize(
    "line",
    cases(
        [line for line in shell_lines() if line.startswith("fststyle train")],
        slow=lambda line: " experiment=" in line or " -m " in line,  # networks of full size, several trainings
    ),
)
def test_a_documented_training_runs(line: str, workplace: Path) -> None:
    words = shlex.split(line)[2:]
    if "hydra/launcher=slurm" in words:  # here one after the other; tests/cluster has a Slurm
        words[words.index("hydra/launcher=slurm")] = "hydra/launcher=basic"
        assert main(["train", *SMALL, *words, "style.image=painting.jpg", *PHOTOGRAPHS]) == 0
        assert len(list(workplace.glob("runs/multirun/*/*/*.safetensors"))) == 3
        return
    if any(word.startswith("experiment=") for word in words):
        slim = ("encoder",) if "experiment=inverse" in words or "encoder=slim" in words else ()
        own = ("style.", "network.", "data.size", *slim)
        small = [word for word in SMALL if not word.startswith(own)]
        assert main(["train", *small, "data.size=128", *words, "name=painting"]) == 0
    else:
        assert main(["train", *SMALL, *words]) == 0
    assert (workplace / "runs/painting/painting.safetensors").is_file()


@pytest.mark.parametrize("recipe", cases(recipes(), slow=lambda code: code.startswith(LONG)))
def test_a_training_option_runs(recipe: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(recipe)
    if "resume=last" in words:
        assert main(["train", *SMALL, "style.image=painting.jpg", *PHOTOGRAPHS]) == 0
        words.append("steps=2")
    if "init_from=starry_night" in words and "starry_night" not in bundled_files("style"):
        pytest.skip("starry_night is not among the bundled styles")
    if "task.compile=true" in words:  # a minute of compiling; that the option reaches the task is enough here
        monkeypatch.setattr(torch, "compile", lambda function: function)
    if "experiment=johnson" in words:  # the paper's settings want the paper's encoder: the right layout, narrow
        weights = pretrained.random_weights("vgg16", widths=(4, 4, 4, 4, 4))
        monkeypatch.setattr(pretrained, "fetch", lambda _: workplace / "vgg.safetensors")
        from safetensors.torch import save_file

        save_file({key: value.float() for key, value in weights.items()}, "vgg.safetensors")
        small = [word for word in SMALL if not word.startswith("encoder")] + ["network.border=8"]
    elif "encoder=slim" in words:
        small = [word for word in SMALL if not word.startswith("encoder")]
    else:
        small = SMALL
    if "style.image=painting.jpg" not in words:
        words.insert(0, "style.image=painting.jpg")
    if not any(word.startswith(("data=", "experiment=")) for word in words):
        words += PHOTOGRAPHS
    if "--config-dir" in words:
        words.append("style=my_wave")
    assert main(["train", *small, *words]) == 0
    assert list(workplace.glob("runs/**/*.safetensors"))


def test_fetch_is_documented_and_downloads_what_vgg16_needs(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "`fststyle fetch vgg16`" in README
    monkeypatch.setattr(published, "fetch", lambda weights: Path("/cache") / weights.filename)
    assert main(["fetch", "vgg16"]) == 0
    assert capsys.readouterr().out.strip() == "/cache/vgg16_features-amdegroot-88682ab5.pth"


@pytest.mark.parametrize("code", cases(blocks("python"), slow=lambda code: "Export" in code or "build" in code))
def test_a_documented_snippet_runs(code: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "starry_night" not in bundled_files("style"):
        pytest.skip("starry_night is not among the bundled styles")
    composed, small = config.compose, [word for word in SMALL if not word.startswith("encoder")]
    monkeypatch.setattr(config, "compose", lambda to, words: composed(to, [*(small if to == "train" else ()), *words]))
    exec(compile(code.replace("2000", "1"), "README.md", "exec"), {})
    made = {"Stylizer": "stylised.png", "build": "runs/painting/painting.safetensors", "Export": "mine.safetensors"}
    assert (workplace / next(file for word, file in made.items() if word in code)).is_file()


def test_documented_make_targets_exist() -> None:
    targets = re.findall(r"^make ([\w-]+)", "\n".join(blocks("sh")), re.MULTILINE)
    assert set(targets) == {"demo", "test", "test-fast", "test-slow"}
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_pictures_and_files_that_the_readme_shows_exist() -> None:
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("line", documents_lines())
def test_a_command_of_another_document_is_understood(line: str) -> None:
    """What it does is tested elsewhere; here, that it says what there is."""
    command, *words = shlex.split(line)[1:]
    if command not in HYDRAS:
        parser().parse_args([command, *words])
        return
    overrides = preview.photo_first(words) if command == "preview" else compose.split(words)[1]
    single = [word if "=[" in word else word.split(",")[0] for word in overrides]
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert hydra.compose(command, config.several_styles(command, single), return_hydra_config=True)
