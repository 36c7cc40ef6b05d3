"""Names of files that a file system allows and a shell, Hydra or an encoding do not: every command takes them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from commands import SMALL, in_folder, train
from fststyle.cli import main
from fststyle.config import compose
from fststyle.images import read_picture, save_image
from fststyle.model_file import read_metadata, save_model_file
from fststyle.networks.transform import TransformNet
from fststyle.resources import printable

#: What comes before the ending.
NAMES = [
    *(
        "~x",
        "a=b",
        "a,b",
        "[1]",
        "{a:1}",
        "${b}",
        "it's",
        '"a\'b"',
        "#1 %d",
        "\\",
        " a ",
        "a\nb",
        "漢字 é😀",
        "null",
        "-x",
    ),
    *(os.fsdecode(name) for name in (b"\xff", b"=\xff,${\xfe}")),
]
MORE_NAMES = [
    *(
        "~root",
        "~",
        "=",
        ",",
        "a[0-9]",
        "{a}",
        "x{",
        "a${b",
        r"\${b}",
        "$HOME",
        '"',
        "'quoted'",
        "'",
        "%s%n",
        r"a\b",
        "a b",
    ),
    *(
        " a",
        "a ",
        "a..",
        "a\tb",
        "été",
        "e\u0301",
        "\u202ea",
        "*",
        "?",
        "a*b",
        "1e3",
        "true",
        "a:b",
        "a::b",
        "C:a",
        "a;b",
    ),
    *("a&b", "(a)", "a|b", "!", "@a", "+a", "choice(a,b)", "--debug", "--", "a" * 200),
    *(os.fsdecode(name) for name in (b"a\xe9b", b"\xed\xa0\x80")),
]
EVERY_NAME = [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_NAMES)]
#: Those that are tried where a command takes a second and more; the last has something of most.
FEW = [
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("~x", "a=b,c", "[${b}]", 'it\'s "a" #1 %d', "a\nb", "漢字 é😀")
    ),
    os.fsdecode(b"~=\xff,[${\xfe}\n'\\"),
]
OPTIMIZE = ["encoder=random", "encoder.widths=[4,4,4,4,4]", "size=48", "iterations=1", "calibration_photographs=4"]
OPTIMIZE += ["data=generated", "device=cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, astronaut: np.ndarray, network: TransformNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user is in, with a picture, a painting and a style; and no home."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    save_image(astronaut[:24, 100:133].copy(), "photo.png")
    save_image(astronaut[200:264:2, :64:2].copy(), "painting.png")
    save_model_file("wave.safetensors", network, {"kind": "style", "name": "wave", "style": {}})
    return folder


def put(source: str, name: str) -> str:
    shutil.copy(source, os.path.join(".", name))
    return name


def option(name: str) -> str:
    """As a user writes what argparse would take for an option, or what is below a folder that is called ``~``."""
    return f"./{name}" if name.startswith(("-", "~/")) else name


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    line = capsys.readouterr().err
    assert line.startswith("fststyle: error: ")
    assert line.count("\n") == 1
    assert not any(word in line for word in ("LexerNoViableAlt", "mismatched", "extraneous", "Traceback", "hydra.cc"))
    return line


@pytest.mark.parametrize("name", EVERY_NAME)
def test_pictures_are_stylised_whatever_they_are_called(name: str, here: Path) -> None:
    put("photo.png", f"{name}.png")
    words = ["--style", "wave.safetensors", "--backend", "torch"]
    assert main(["stylize", option(f"{name}.png"), *words]) == 0
    assert (here / f"{name}_wave.png").is_file()
    assert main(["stylize", "photo.png", *words, f"-o={option(name)}.jpg"]) == 0
    assert (here / f"{name}.jpg").is_file()
    (here / name).mkdir()
    shutil.copy("photo.png", here / name / f"{name}.png")
    assert main(["stylize", option(f"{name}/*.png"), *words, "-o", "out"]) == 0
    assert (here / "out" / f"{name}_wave.png").is_file()
    assert sorted(path.name for path in here.iterdir() if path.is_dir()) == sorted([name, "out"])


@pytest.mark.parametrize("name", EVERY_NAME)
def test_styles_are_found_whatever_they_are_called(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("wave.safetensors", f"{name}.safetensors")
    assert main(["info", option(f"{name}.safetensors")]) == 0
    assert main(["info", "--json", option(f"{name}.safetensors")]) == 0
    assert "wave" in capsys.readouterr().out
    words = ["stylize", "photo.png", "--backend", "torch", f"--style={option(name)}.safetensors"]
    assert main(words) == 0
    assert (here / f"photo_{name}.png").is_file()


def test_names_after_two_dashes_are_no_options(here: Path) -> None:
    for name in ("-x.png", "--debug", "--style.png"):
        put("photo.png", name)
    assert main(["stylize", "--style", "wave.safetensors", "--", "-x.png", "--debug", "--style.png"]) == 0
    assert {"-x_wave.png", "--debug_wave.png", "--style_wave.png"} <= {path.name for path in here.iterdir()}


def test_the_home_folder_is_meant_where_no_file_is_called_so(here: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy("photo.png", home / "a.png")
    assert main(["stylize", "~/a.png", "--style", "wave.safetensors", "-o", "~/b.png"]) == 0
    assert (home / "b.png").is_file()
    assert not (here / "~").exists()


@pytest.mark.parametrize("name", EVERY_NAME)
def test_names_that_are_not_there_are_refused_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stylize", option(f"{name}_.png"), "--style", "wave.safetensors"]) == 2
    error_line(capsys)
    with in_folder(Path()):
        assert main(["optimize", f"content={name}.png", "style.image=painting.png", *OPTIMIZE]) == 2
    error_line(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_the_other_commands_take_them(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, painting = put("photo.png", f"{name}.png"), put("painting.png", f"{name}2.png")
    style = put("wave.safetensors", f"{name}.safetensors")
    assert main(["upscale", photo, "-o", f"{name}3.png", "--backend", "torch"]) == 0
    assert main(["swap", photo, "--style-image", painting, "--size", "24", "--style-size", "24"]) == 0
    assert (here / f"{name}_{name}2.png").is_file()
    assert main(["export", style, "--format", "pt2", "-o", f"{name}.pt2"]) == 0
    assert (here / f"{name}.pt2").is_file()
    large = np.asarray(read_picture(photo).rgb).repeat(4, 0).repeat(4, 1)
    (here / f"{name}4").mkdir()
    save_image(large, here / f"{name}4" / photo)
    words = ["evaluate", "superres", f"{name}4", "-o", f"{name}5", "--backend", "torch"]
    assert main(words) == 0
    assert (here / f"{name}5" / "index.html").read_text(encoding="utf-8")
    assert (here / f"{name}5" / "figures.csv").read_text(encoding="utf-8")
    assert json.loads((here / f"{name}5" / "figures.json").read_text())["data set"] == f"{name}4"


@pytest.mark.parametrize("name", FEW)
def test_a_comparison_takes_them(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, painting = put("photo.png", f"{name}.png"), put("painting.png", f"{name}2.png")
    words = ["--style", "wave", "--size", "48", "--iterations", "1", "-o", f"{name}6"]
    assert main(["compare", photo, "--style-image", painting, *words]) == 0
    assert (here / f"{name}6" / "index.html").read_text(encoding="utf-8")
    (case,) = json.loads((here / f"{name}6" / "report.json").read_text())["cases"]
    assert case["photo"] == photo


@pytest.mark.parametrize("name", FEW)
def test_an_optimisation_takes_them(name: str, here: Path) -> None:
    photo, painting = put("photo.png", f"{name}.png"), put("painting.png", f"{name}2.png")
    words = [f"content={photo}", f"style.image={painting}", f"start={painting}", "trace=csv", *OPTIMIZE]
    with in_folder(here):
        assert main(["optimize", *words]) == 0
        assert main(["optimize", *words, f"output={name}7.png"]) == 0
    assert (here / f"{name}_{printable(name)}2.png").is_file()
    assert (here / f"{name}7.png").is_file()


@pytest.mark.parametrize("name", [*FEW, "size=256", "-x"])
def test_a_preview_takes_them_and_its_commands_can_be_typed(name: str, here: Path) -> None:
    photo = put("photo.png", f"{name}.png")
    painting = put("painting.png", f"{name}2.png")
    words = [f"style.image={painting}", f"output={name}8", "size=48", "iterations=1", "factors=[1]", "style_sizes=[32]"]
    with in_folder(here):
        assert main(["preview", *words, "encoder=random", "calibration_photographs=4", "--", photo]) == 0
    assert (here / f"{name}8" / "index.html").read_text(encoding="utf-8")
    command = json.loads((here / f"{name}8" / "preview.json").read_text())[0]["command"]
    assert compose("train", shlex.split(command)[2:]).style.image == painting


@pytest.mark.parametrize("name", FEW)
def test_a_training_takes_them(name: str, here: Path, photographs: Path) -> None:
    painting = put("painting.png", f"{name}.png")
    (here / f"{name}9").mkdir()
    for index, file in enumerate(sorted(photographs.iterdir())):
        shutil.copy(file, here / f"{name}9" / f"{name}{index}.jpg")
    words = [f"style.image={painting}", "style.size=32", f"data.source.path={name}9", *SMALL, "data.held_out=2"]
    words += ["data=folder", "data.batch_size=2", "callbacks.checkpoints.every=1"]
    assert train(here, *words, "steps=1") == 0
    text = printable(name)
    exported = here / "runs" / text / f"{text}.safetensors"
    metadata = read_metadata(exported)
    source = metadata["data"]["source"]["path"]
    assert (metadata["name"], metadata["style"]["image"], source) == (text, painting, f"{name}9")
    assert train(here, *words, "steps=2", "resume=auto") == 0
    assert read_metadata(exported)["steps"] == 2
    assert OmegaConf.load(exported.with_name("config.yaml")).style.image == painting
    assert train(here, *words, "steps=1", f"output={name}out", f"init_from={exported.relative_to(here)}") == 0
    assert (here / f"{name}out" / f"{text}.safetensors").is_file()


@pytest.mark.slow
def test_a_multirun_takes_lists_and_names(here: Path, photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a=b.png", "c d,e.png", "${f}.png", os.fsdecode(b"\xff.png")):
        put("painting.png", name)
    words = ["style.size=32", "data=folder", f"data.source.path={photographs}", *SMALL, "steps=1", "data.held_out=0"]
    for number, (images, names) in enumerate(
        (
            (("a=b.png", "${f}.png", os.fsdecode(b"\xff.png")), ["${f}", r"\xff", "a=b"]),
            (("c d,e.png",), ["c d,e"]),
        )
    ):
        sweep = f"runs/a=b{number}"
        assert train(here, "-m", f"style.image={','.join(images)}", f"hydra.sweep.dir={sweep}", *words) == 0
        assert sorted(path.stem for path in (here / sweep).glob("*/*.safetensors")) == names
    assert "unfinished" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss.style_weight=a=b"], "'loss.style_weight='\"'\"'a=b'\"'\"''"),
        (["loss.style_weight=1,2"], "loss.style_weight has several values; -m does one run for each"),
        (["photo.png"], "found photo.png; expected KEY=VALUE"),
        (["a b=c"], "found 'a b=c'; expected KEY=VALUE"),
        (["content=${nowhere}.png"], r"a part of a name it is written \${…}"),
        (["loss=[", "content=photo.png"], "which Hydra cannot read"),
        (["=x"], "unknown key ''"),
    ],
)
def test_what_cannot_be_understood_is_told_in_a_line_with_what_can(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with in_folder(here):
        assert main(["optimize", "style.image=painting.png", *OPTIMIZE, *words]) == 2
    assert message in error_line(capsys)


@pytest.mark.parametrize(
    "word", [r"content='a=b.png'", r"content=a\=b.png", "content='\\${f}.png'", "content='${f}.png'"]
)
def test_quotes_and_escapes_of_hydra_are_understood(word: str, here: Path) -> None:
    for name in ("a=b.png", "${f}.png"):
        put("photo.png", name)
    with in_folder(here):
        assert main(["optimize", word, "style.image=painting.png", "output=out.png", *OPTIMIZE]) == 0
    assert (here / "out.png").is_file()


@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0", "LC_ALL": "C"}]
)
def test_names_are_printed_in_any_locale(variables: dict[str, str], here: Path) -> None:
    names = ["é漢😀", os.fsdecode(b"\xff")]
    for name in names:
        put("photo.png", f"{name}.png")
    words = ["stylize", *(f"{name}.png" for name in names), "none\udcfe.png", "--style", "wave.safetensors"]
    run = subprocess.run(
        [sys.executable, "-m", "fststyle", *words, "--backend", "torch"],
        capture_output=True,
        env=os.environ | variables,
    )
    assert (run.returncode, run.stderr.count(b"\n")) == (1, 2), run.stderr
    assert all((here / f"{name}_wave.png").is_file() for name in names)
    assert b"\xff_wave.png" in run.stdout.splitlines()
    assert len(run.stdout.splitlines()) == 2
