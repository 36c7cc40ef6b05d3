"""What holds of every command for whatever a user may give: one line and a documented exit code, nothing lost, nothing
changed in silence. Names, transparency, containers and settings are drawn at random, 2,000 examples and more.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from skimage import data as pictures

from fststyle.config import compose
from fststyle.images import ImageError, read_header, read_picture, save_image
from fststyle.model_file import save_model_file
from fststyle.networks.superres import SuperResNet
from fststyle.networks.transform import TransformNet
from fststyle.training.run import Run
from invariants import desk, examples, said

pytestmark = pytest.mark.slow

#: Examples of each kind; together 2,220.
NAMES, OVERRIDES, ALPHAS, CONTAINERS, RESULTS, OPTIONS, SETTINGS = 500, 120, 250, 800, 150, 250, 150
ON_CPU = ["--backend", "torch", "--device", "cpu"]
#: What the file system, the shell, argparse, glob, Hydra, OmegaConf and libvips each see something in.
SPECIAL = "~=,:;#%@!$&*?+|<>()[]{}\\'\"` .-_\n\t\x7f0aé漢😀\u202e"
SIDES = st.integers(16, 40)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny networks, ``style``, ``superres``, and a picture of 24×33 pixels, ``photo.png``."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for kind, network in (
        ("style", TransformNet(width=4, residual_blocks=1)),
        ("superres", SuperResNet(width=4, residual_blocks=1)),
    ):
        save_model_file(folder / f"{kind}.safetensors", network, {"kind": kind, "name": kind})
    save_image(np.ascontiguousarray(pictures.astronaut()[20:44, 100:133]), folder / "photo.png")
    return folder


# --- names -----------------------------------------------------------------------------------------------

#: Any bytes that the file system takes, and those that something sees a meaning in.
BYTES = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.text(SPECIAL, min_size=1, max_size=24).map(os.fsencode),
    st.sampled_from(["${", "${x}", "~root", "--", "-o", "null", "a=b", "[1", "choice(1)", "${oc.env:HOME}", "%s", "*"])
    .flatmap(lambda text: st.text(SPECIAL, max_size=8).map(lambda more: text + more))
    .map(os.fsencode),
    st.integers(180, 260).map(lambda count: b"\xff" * count),
).map(lambda name: name.replace(b"\0", b"0").replace(b"/", b"|"))
ENDINGS = st.sampled_from([b".png", b".PNG", b".jpg", b"", b".bmp", b".x", b"."])


def made(folder: bytes, name: bytes, content: bytes) -> bool:
    """Make a file, if the file system takes its name."""
    try:
        with open(os.path.join(folder, name), "xb") as file:
            file.write(content)
    except OSError:
        return False
    return True


@examples(NAMES)
@given(BYTES, ENDINGS, st.sampled_from(["stylize", "upscale", "stylize -o", "folder", "style", "info"]))
def test_any_name_of_a_file_is_taken(models: Path, stem: bytes, ending: bytes, command: str) -> None:
    name, photo, style = stem + ending, (models / "photo.png").read_bytes(), str(models / "style.safetensors")
    if name in (b".", b"..", b"-"):
        return
    with desk() as folder:
        text = os.fsdecode(name)
        if command == "stylize -o":
            done = said(folder, "stylize", str(models / "photo.png"), "--style", style, *ON_CPU, f"--output={text}")
            assert done.code or done.new
            return
        if command == "folder":
            if not made(folder, name, photo):
                return
            done = said(folder, "stylize", ".", "--style", style, *ON_CPU, "-o", "out")
            taken = Path(text).suffix.lower() in (".png", ".jpg", ".bmp") and not text.startswith(".")
            assert (done.code == 0) == (taken and len(Path(text).stem) + len("_style") < 240) or done.code
            return
        if command in ("style", "info"):
            name = stem + b".safetensors"
            text = os.fsdecode(name)
            if name.startswith(b"-") or not made(folder, name, Path(style).read_bytes()):
                return
            if command == "info":
                assert said(folder, "info", text).code == 0
            else:
                words = [str(models / "photo.png"), f"--style={text}", *ON_CPU, "-o", "out"]
                done = said(folder, "stylize", *words)
                assert done.code == (2 if len(stem) > 200 else 0) or len(stem) > 200
            return
        if not made(folder, name, photo):
            return
        model = ["--style", style] if command == "stylize" else ["--model", str(models / "superres.safetensors")]
        done = said(folder, command, *model, *ON_CPU, "--", text)
        label = "_style" if command == "stylize" else "_x4"
        kept = Path(text).suffix if Path(text).suffix.lower() in (".png", ".jpg") else ".png"
        result = os.fsencode(f"{Path(text).stem}{label}{kept}")
        assert done.new == ({os.path.join(folder, result)} if len(result) <= 255 else set()), done


@examples(OVERRIDES)
@given(BYTES, st.sampled_from(["style.image", "output", "name", "init_from", "data.source.path"]), st.booleans())
def test_a_name_in_an_override_stays_what_it_is(models: Path, name: bytes, key: str, there: bool) -> None:
    """``--cfg job`` shows what was understood, and does nothing."""
    if name in (b".", b".."):
        return
    with desk() as folder:
        there = there and made(folder, name, b"")
        text = os.fsdecode(name)
        done = said(folder, "train", "data=folder", f"{key}={text}", "--cfg", "job")
        assert not done.new
        if there:
            assert done.code == 0, done
            assert OmegaConf.select(OmegaConf.create(done.out), key) == text, done


# --- transparency ------------------------------------------------------------------------------------------


@st.composite
def shapes(draw: st.DrawFn) -> np.ndarray:
    """An alpha channel: noise, boxes, single pixels, rows, ramps, of which something may be seen."""
    height, width = draw(SIDES), draw(SIDES)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    alpha = np.zeros((height, width), np.uint8)
    kind = draw(st.sampled_from(["noise", "box", "pixel", "rows", "ramp", "nothing", "faint"]))
    if kind == "noise":
        alpha = np.where(random.random((height, width)) < draw(st.floats(0.01, 1)), 255, 0).astype(np.uint8)
    elif kind == "box":
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        alpha[top : draw(st.integers(top + 1, height)), left : draw(st.integers(left + 1, width))] = 255
    elif kind == "pixel":
        alpha[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = draw(st.integers(1, 255))
    elif kind == "rows":
        alpha[random.random(height) < 0.3] = 255
    elif kind == "ramp":
        alpha[:] = np.linspace(0, 255, width).astype(np.uint8)
    elif kind == "faint":
        alpha = random.integers(0, 3, (height, width)).astype(np.uint8)
    return alpha


@examples(ALPHAS)
@given(shapes(), st.sampled_from(["png", "webp", "tif", "png16"]), st.booleans(), st.sampled_from([None, "20", "64"]))
def test_what_is_hidden_changes_nothing(models: Path, alpha: np.ndarray, kind: str, tiled: bool, size: str) -> None:
    height, width = alpha.shape
    rgb = pictures.astronaut()[100 : 100 + height, 200 : 200 + width].copy()
    words = ["--style", str(models / "style.safetensors"), *ON_CPU, "--tiles", "exact" if tiled else "off"]
    words += ["--size", size] if size else []
    random, results = np.random.default_rng(int(alpha.sum())), []
    for colours in (0, 255, random.integers(0, 256, rgb.shape)):
        whole = np.where(alpha[..., None] == 0, colours, rgb).astype(np.uint8)
        with desk() as folder:
            path = Path(os.fsdecode(folder)) / f"a.{kind.removesuffix('16')}"
            if kind == "png16":
                save_image(whole.astype(np.uint16) * 257, path, alpha=alpha.astype(np.uint16) * 257)
            else:
                options: dict[str, Any] = {"webp": {"lossless": True, "exact": True}}.get(kind, {})
                Image.fromarray(np.dstack([whole, alpha])).save(path, **options)
            done = said(folder, "stylize", path.name, *words, "-o", "b.png")
            results.append(np.asarray(Image.open(path.with_name("b.png"))) if done.code == 0 else None)
            if not alpha.any():
                assert done.code == 2
                assert "wholly transparent" in done.err or "at this size" in done.err
    assert alpha.any() == (results[0] is not None) or size == "20"
    for other in results[1:]:
        assert (other is None) == (results[0] is None)
        assert other is None or np.array_equal(other, results[0])


# --- containers ----------------------------------------------------------------------------------------------

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "palette.png": ("PNG", {}),
    "jpg": ("JPEG", {"quality": 90}),
    "progressive.jpg": ("JPEG", {"progressive": True}),
    "gif": ("GIF", {}),
    "webp": ("WEBP", {}),
    "lossless.webp": ("WEBP", {"lossless": True}),
    "tif": ("TIFF", {}),
    "lzw.tif": ("TIFF", {"compression": "tiff_lzw"}),
    "bmp": ("BMP", {}),
    "ppm": ("PPM", {}),
}
#: Names of chunks, sound, unknown, or no name at all.
CHUNKS = st.sampled_from(
    [b"tEXt", b"zTXt", b"iTXt", b"gAMA", b"cICP", b"iCCP", b"tRNS", b"eXIf", b"acTL", b"abCd", b"P\n\x1b\xff"]
)


def of_kind(kind: str) -> bytes:
    ending, options = KINDS[kind]
    picture = Image.fromarray(pictures.astronaut()[20:60, 100:148])
    stream = io.BytesIO()
    (picture.quantize(16) if kind == "palette.png" else picture).save(stream, ending, **options)
    return stream.getvalue()


def with_chunk(data: bytes, name: bytes, content: bytes, sound: bool, late: bool) -> bytes:
    """A PNG file with one chunk more, after its header or after its pixels."""
    check = zlib.crc32(name + content) if sound else 0x12345678
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)
    at = len(data) - 12 if late else 33
    return data[:at] + chunk + data[at:]


@st.composite
def containers(draw: st.DrawFn) -> tuple[str, bytes, bool]:
    """A file's ending, its bytes, and whether its picture is whole."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    data, ending = of_kind(kind), kind.rpartition(".")[2]
    what = draw(st.sampled_from(["whole", "cut", "trailing", "chunk", "size", "bytes", "ending", "twice"]))
    if what == "cut":
        return ending, data[: draw(st.integers(0, len(data) - 1))], False
    if what == "trailing":
        return ending, data + draw(st.binary(min_size=1, max_size=3000)), True
    if what == "twice":
        return ending, data + of_kind(draw(st.sampled_from(sorted(KINDS)))), True
    if what == "chunk":
        more = draw(CHUNKS), draw(st.binary(max_size=60)), draw(st.booleans()), draw(st.booleans())
        return "png", with_chunk(of_kind("png"), *more), False
    if what == "size":  # where PNG and BMP, GIF, JPEG, TIFF say width and height
        at = draw(st.integers(4, min(len(data), 200) - 4))
        number = draw(st.sampled_from([0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF]))
        patched = data[:at] + struct.pack(draw(st.sampled_from(["<I", ">I"])), number) + data[at + 4 :]
        if kind.endswith("png"):
            patched = patched[:29] + struct.pack(">I", zlib.crc32(patched[12:29])) + patched[33:]
        return ending, patched, False
    if what == "bytes":
        found = bytearray(data)
        for _ in range(draw(st.integers(1, 8))):
            found[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        return ending, bytes(found), False
    if what == "ending":
        return draw(st.sampled_from(["png", "jpg", "webp", "tif", "bmp", "gif"])), data, True
    return ending, data, True


@examples(CONTAINERS)
@given(containers(), st.booleans())
def test_a_file_is_read_or_refused(models: Path, found: tuple[str, bytes, bool], tiled: bool) -> None:
    """Read whole, by both ways alike; or with a warning that names it; or refused with its name."""
    ending, data, whole = found
    with desk() as folder:
        path = Path(os.fsdecode(folder)) / f"a.{ending}"
        path.write_bytes(data)
        words = ["--style", str(models / "style.safetensors"), *ON_CPU, "--tiles", "exact" if tiled else "off"]
        done = said(folder, "stylize", path.name, *words, "-o", "b.png")
        assert done.code in (0, 2), done
        if whole:
            assert done.code == 0, done
        if done.code:
            assert "a." in done.err, done
            with pytest.raises(ImageError):
                read_picture(path)
        else:
            assert read_picture(path).rgb.shape == read_picture(path.with_name("b.png")).rgb.shape


@examples(RESULTS)
@given(containers(), st.booleans(), st.sampled_from(["photo_style.png", "photo_style.jpg"]), st.booleans())
def test_what_is_there_stays(
    models: Path, found: tuple[str, bytes, bool], named: bool, name: str, overwrite: bool
) -> None:
    """A file, whatever is in it, where a result goes; a picture may be replaced where that is said."""
    _, data, _ = found
    with desk() as folder:
        path = Path(os.fsdecode(folder)) / name
        path.write_bytes(data)
        shutil.copy(models / "photo.png", path.with_name("photo.png"))
        with contextlib.suppress(ImageError):
            read_header(path, max_pixels=2**62)
            if overwrite:
                return  # tests/cli/test_overwriting.py
        words = [*(["-o", name] if named else []), *(["--overwrite"] if overwrite else [])]
        taken = not data or (not named and name.endswith("jpg"))
        if data:
            done = said(folder, "stylize", "photo.png", "--style", str(models / "style.safetensors"), *ON_CPU, *words)
            assert (done.code == 0) == taken, done


# --- settings ------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.integers(-3, 70).map(str),
    st.floats().map(str),
    st.sampled_from(["", "0", "-1", "1e999", "nan", "inf", "-inf", "1e-320", "0x10", "1_0", "१", " 7", "null", "true"]),
)
VALUES = st.one_of(NUMBERS, st.text(SPECIAL, max_size=8), st.sampled_from(["auto", "csv", "cpu", "[]", "{}", "[1,2]"]))
FLAGS = ["--size", "--strength", "--style-scale", "--max-pixels", "--memory", "--tiles", "--precision", "--format"]
SWITCHES = ["--median", "--preserve-color", "--strip", "--skip-existing", "--recursive"]


@examples(OPTIONS)
@given(
    st.lists(st.tuples(st.sampled_from(FLAGS), VALUES), max_size=3),
    st.lists(st.sampled_from(SWITCHES), max_size=3),
    st.sampled_from(["b.png", "b.jpg", "out", "b.gif", "b.nothing", "", "out/", "no/such/", "b.png/"]),
)
def test_options_are_taken_or_refused(
    models: Path, options: list[tuple[str, str]], switches: list[str], output: str
) -> None:
    with desk() as folder:
        Path(os.fsdecode(folder), "photo.png").write_bytes((models / "photo.png").read_bytes())
        words = [f"{flag}={value}" for flag, value in options if not _is_large(flag, value)]
        words += ["--style", str(models / "style.safetensors"), *ON_CPU, *switches, "-o", output]
        done = said(folder, "stylize", "photo.png", *words)
        assert (done.code == 0) == bool(done.new), done


def _is_large(flag: str, value: str) -> bool:
    """Whether it is a size that takes long."""
    return flag == "--size" and value.isdigit() and int(value) > 100


@functools.cache
def keys(command: str) -> list[str]:
    """Every key of a command's configuration that has a plain value, as words."""

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key in node:
            value = node._get_node(key)
            if hasattr(value, "keys"):
                yield from walk(value, f"{prefix}{key}.")
            elif key != "_target_":
                yield f"{prefix}{key}"

    return sorted(walk(compose(command), ""))


#: That name what is to be done, so that it can be done: a small one.
BASES = {
    "train": ["style.image=photo.png", "data=generated", "network.width=4", "network.residual_blocks=1", "steps=1"]
    + ["trainer.accelerator=cpu", "data.size=32", "task.compile=false"],
    "optimize": ["content=photo.png", "style.image=photo.png", "iterations=1", "size=24", "output=result.png"]
    + ["device=cpu"],
}
SMALL = ["encoder=random", "encoder.widths=[4,4,4,4,4]", "calibration_photographs=2", "data.workers=0"]
#: Of these, large values are sound, and take long or much memory.
HEAVY = ("size", "sizes", "shape", "iterations", "width", "widths", "blocks", "photographs", "workers", "batch_size")
HEAVY += ("held_out", "devices", "num_nodes", "history", "threads", "count", "candidates", "scale", "blur", "limit")


@examples(SETTINGS)
@given(st.data())
def test_settings_are_taken_or_refused(models: Path, data: st.DataObject) -> None:
    """``train`` builds its run and does not begin it; ``optimize`` takes a step."""
    command = data.draw(st.sampled_from(sorted(BASES)))
    chosen = data.draw(st.lists(st.tuples(st.sampled_from(keys(command)), VALUES), min_size=1, max_size=2))
    words = [f"{key}={value}" for key, value in chosen if not _is_heavy(key, value)]
    with desk() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "fit", lambda _: None)
        patch.setattr(torch, "set_num_threads", lambda _: None)
        Path(os.fsdecode(folder), "photo.png").write_bytes((models / "photo.png").read_bytes())
        done = said(folder, command, *BASES[command], *SMALL, *words)
        if done.code == 0:
            assert command == "train" or done.new


def _is_heavy(key: str, value: str) -> bool:
    last = key.rpartition(".")[2]
    large = any(word in last for word in HEAVY) and any(len(part) > 2 for part in value.split(","))
    return large or last == "compile"
