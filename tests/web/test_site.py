"""The page's folder: what is built, served and refused. What it does in a browser is in ``test_browser``."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from fststyle.cli import main
from fststyle.images import ImageError
from fststyle.inference import Stylizer
from fststyle.inference.openvino import openvino_core
from fststyle.inference.prediction import colour_statistics, prediction_graph
from fststyle.model_file import StyleEntry, find_model_file, read_metadata, save_model_file
from fststyle.networks.transform import TransformNet
from fststyle.tensor_files import load_arrays
from fststyle.web import build_site, runtime, serve
from fststyle.web.site import MARK, PAGE


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """What stands for onnxruntime-web here."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in runtime.NAMES:
        (folder / name).write_text(name)
    return folder


def model(folder: Path, styles: tuple[str, ...] = ("composition_vii", "wave")) -> str:
    torch.manual_seed(0)
    path = folder / "mine.safetensors"
    entries = [StyleEntry(name, thumbnail=b"a picture") for name in styles]
    save_model_file(path, TransformNet(4, 1, styles=len(styles)), {"kind": "style", "name": "mine"}, styles=entries)
    return str(path)


def test_the_folder_holds_all_that_the_page_asks_for(tmp_path: Path, dist: Path) -> None:
    site = build_site(tmp_path / "a/site", [model(tmp_path)], dist)
    about = json.loads((site / "site.json").read_text())
    (described,) = about["models"]
    assert [style["title"] for style in described["styles"]] == ["Composition VII", "Wave"]
    assert (site / described["styles"][1]["thumbnail"]).read_bytes() == b"a picture"
    assert (site / described["file"]).stat().st_size == described["bytes"]
    for files in about["runtime"].values():
        assert (site / files["binary"]).stat().st_size == files.pop("bytes")
        assert all((site / name).is_file() for name in files.values())
    asked = re.findall(r'(?:from|href|src)="?\s*"\.?/?([\w./]+)"', (site / "index.html").read_text())
    for script in PAGE.glob("*.js"):
        asked += re.findall(r'(?:from |URL\(|register\(|fetch\()"\.?/?([\w.]+)"', script.read_text())
    assert {"style.css", "app.js", "engine.js", "worker.js", "sw.js", "site.json"} <= {*asked}
    assert all((site / name).is_file() for name in asked)


def test_what_is_kept_from_the_start_is_all_but_the_gpus_files_and_own_paintings(tmp_path: Path, dist: Path) -> None:
    site = build_site(tmp_path / "site", [model(tmp_path)], dist, "any")
    worker = (site / "sw.js").read_text()
    kept = json.loads(re.search(r"FILES = (\[.*\])", worker)[1])  # type: ignore[index]
    names = {file.relative_to(site).as_posix() for file in site.rglob("*") if file.is_file()}
    gpu = {f"ort/{name}" for name in vars(runtime.RUNTIMES["webgpu"]).values()}
    own = {"own/paint.onnx", "own/predict.onnx", "own/noise.bin"}
    assert own < names
    assert {*kept} == names - gpu - own - {"sw.js", MARK} | {"./"}
    (dist / "ort.wasm.min.mjs").write_text("another one")
    assert re.findall("VERSION = .*", (build_site(site, [model(tmp_path)], dist) / "sw.js").read_text()) != re.findall(
        "VERSION = .*", worker
    )


def test_the_model_is_small_and_gives_the_pictures_of_python(tmp_path: Path, dist: Path) -> None:
    path = model(tmp_path)
    site = build_site(tmp_path / "site", [path], dist)
    content = (site / "models/mine.onnx").read_bytes()
    rgb = np.random.default_rng(1).integers(0, 256, (32, 41, 3), dtype=np.uint8)
    run = openvino_core().compile_model(openvino_core().read_model(content, b""), "CPU")
    found = run([rgb[None], np.array([[0.25, 0.75]], np.float32)])[0][0]
    wanted = Stylizer.from_checkpoint(f"{path}/composition_vii=1,wave=3", "cpu", "torch").pixels(rgb)
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 2
    network = TransformNet(4, 1, styles=2)
    assert len(content) < 2.6 * sum(value.numel() for value in network.parameters()) + 15000


def test_what_takes_own_paintings_is_small_and_predicts_what_python_predicts(tmp_path: Path, dist: Path) -> None:
    site = build_site(tmp_path / "site", [model(tmp_path)], dist, "any")
    about = json.loads((site / "site.json").read_text())["own"]
    assert all((site / file["file"]).stat().st_size == file["bytes"] for file in about.values())
    path = find_model_file("any", "arbitrary")
    graphs = (site / "own/predict.onnx").read_bytes(), prediction_graph(read_metadata(path), load_arrays(path))
    assert len(graphs[0]) < 0.6 * len(graphs[1])
    painting = np.random.default_rng(1).random((1, 3, 32, 41), dtype=np.float32)
    feeds = [painting, colour_statistics(painting[0].reshape(3, -1))]
    core = openvino_core()
    found, wanted = (core.compile_model(core.read_model(graph, b""), "CPU")(feeds)[0] for graph in graphs)
    assert np.abs(wanted).max() > 0.5
    assert np.allclose(found, wanted, atol=1e-4)


def test_own_paintings_are_taken_unless_they_are_left_out(tmp_path: Path, dist: Path) -> None:
    for words, own in (((), True), (("--predictor", "none"), False)):
        assert main(["web", model(tmp_path), "-o", str(tmp_path / "site"), "--runtime", str(dist), *words]) == 0
        assert bool(json.loads((tmp_path / "site/site.json").read_text())["own"]) == own
        assert (tmp_path / "site/own/paint.onnx").exists() == own


def test_a_page_is_built_anew_and_nothing_else_is_touched(tmp_path: Path, dist: Path) -> None:
    site = build_site(tmp_path / "site", [model(tmp_path)], dist)
    (site / "notes.txt").write_text("mine")
    build_site(site, [model(tmp_path, ("wave", "udnie", "mosaic"))], dist)
    assert len(list(site.glob("models/*.jpg"))) == 3
    build_site(site, [model(tmp_path)], dist)
    assert len(list(site.glob("models/*.jpg"))) == 2
    assert (site / "notes.txt").read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thing").write_text("mine")
    for folder, message in (("other", "holds files that are no page of ours"), ("other/thing", "is a file")):
        with pytest.raises(ImageError, match=message):
            build_site(tmp_path / folder, [model(tmp_path)], dist)
    assert not list(tmp_path.glob(".part-*"))


def test_the_server_sends_what_threads_take(tmp_path: Path) -> None:
    (tmp_path / "a.wasm").write_bytes(b"\0asm")
    (tmp_path / "b.mjs").write_text("1")
    with serve(tmp_path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, kind in (("a.wasm", "application/wasm"), ("b.mjs", "text/javascript")):
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{name}") as answer:
                assert answer.headers["Content-Type"] == kind
                assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
                assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        server.shutdown()


def test_the_command_serves_the_page_and_opens_the_browser(
    tmp_path: Path, dist: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", interrupted)
    assert main(["web", model(tmp_path), "--open", "--runtime", str(dist)]) == 0
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", opened[0])
    assert opened[0] in capsys.readouterr().err


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "found neither -o nor --open"),
        (("-o", "site", "nothing"), "unknown style 'nothing'"),
        (("-o", "site", "--predictor", "nothing"), "unknown arbitrary 'nothing'; expected a model file or one of any"),
        (
            ("-o", "site", "--predictor", "mine.safetensors"),
            "mine.safetensors: is a model file of kind 'style'; expected kind 'arbitrary'",
        ),
        (("-o", "site", "--runtime", "empty"), "empty: lacks ort-wasm-simd-threaded.asyncify.mjs, "),
        (("-o", "site", "--open", "--port", "70000"), "--port is 70000; expected a number from 0 to 65535"),
        (("-o", "site", "x4_pixel.safetensors"), "x4_pixel.safetensors: no such file"),
    ],
)
def test_what_cannot_be_built_is_refused(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    model(tmp_path)
    assert main(["web", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_without_npm_or_where_it_fails_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSTSTYLE_CACHE", str(tmp_path))
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="npm is not installed, which fetches onnxruntime-web"):
        runtime.runtime_folder()
    monkeypatch.setattr(runtime.shutil, "which", lambda name: "npm")
    failed = subprocess.CompletedProcess([], 1, "", "npm error\nnpm error network: no way out\n")
    monkeypatch.setattr(runtime.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(RuntimeError, match=r"npm could not fetch onnxruntime-web .*: npm error network: no way out"):
        runtime.runtime_folder()
    assert not list(tmp_path.rglob(".part-*"))


def test_the_page_names_no_other_host() -> None:
    for file in PAGE.iterdir():
        found = re.findall(r"https?://[^\s\"'<>]+", file.read_text())
        assert {*found} <= {"http://www.w3.org/2000/svg"}, file
