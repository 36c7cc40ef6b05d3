"""Backends: the same pictures from each, and OpenVINO without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fststyle.images import save_image
from fststyle.inference import DeviceError, StylizeOptions, Stylizer, backends
from fststyle.inference import openvino as backend
from fststyle.inference.backends import TorchBackend
from fststyle.inference.openvino import OpenVINOBackend
from fststyle.model_file import ModelFileError, save_model_file
from fststyle.networks.transform import TransformNet

openvino = pytest.mark.skipif(not backend.openvino_installed(), reason="openvino is not installed")
SIZES = [(16, 16), (48, 64), (47, 66), (65, 33)]
VARIANTS = [
    {},
    {"norm": "batch", "upsampling": "transposed", "border": 8, "output": "tanh"},
    {"padding": "zeros", "norm": "none", "output": "linear", "upsampling": "nearest"},
    {"norm": "batch", "residual_blocks": 5, "border": 40},  # the paper's pad, more than small pictures hold
]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FSTSTYLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def saved(tmp_path: Path, **options: object) -> Path:
    torch.manual_seed(3)
    network = TransformNet(**{"width": 8, "residual_blocks": 1, **options})  # type: ignore[arg-type]
    path = tmp_path / "small.safetensors"
    save_model_file(path, network, {"kind": "style", "name": "small"}, dtype="float32")
    return path


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@openvino
@pytest.mark.parametrize("variant", range(len(VARIANTS)))
def test_openvino_gives_the_pictures_of_torch_at_every_size(tmp_path: Path, variant: int) -> None:
    path = saved(tmp_path, **VARIANTS[variant])
    ours, theirs = (Stylizer.from_checkpoint(path, "cpu", name, "float32") for name in ("openvino", "torch"))
    assert (ours.backend.name, theirs.backend.name) == ("openvino", "torch")
    for size in SIZES:
        a, b = ours.pixels(picture(*size)), theirs.pixels(picture(*size))
        assert a.dtype == np.uint8
        assert a.shape == b.shape == (*size, 3)
        assert np.abs(a.astype(int) - b.astype(int)).max() <= 1
        image = torch.rand(2, 3, *size)
        torch.testing.assert_close(ours(image), theirs(image), atol=2e-4, rtol=0)


@openvino
def test_a_picture_comes_from_openvino_without_torch(tmp_path: Path, empty_cache: Path) -> None:
    path = saved(tmp_path)
    save_image(picture(32, 40), tmp_path / "photo.png")
    arguments = ["stylize", str(tmp_path / "photo.png"), "--style", str(path), "--backend", "openvino", "--median"]
    code = f"import sys; from fststyle.cli import main; assert main({arguments!r}) == 0; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "openvino" in loaded
    assert "torch" not in loaded
    assert (tmp_path / "photo_small.png").is_file()


@openvino
def test_what_is_compiled_is_kept_and_the_oldest_forgotten(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "KEPT", 1)
    wanted = Stylizer.from_checkpoint(saved(tmp_path), backend="openvino").pixels(picture(32, 32))
    (first,) = empty_cache.rglob("*.blob")
    os.utime(first, (10**9, 10**9))
    for width, kept in ((4, 2), (6, 2)):
        Stylizer.from_checkpoint(saved(tmp_path, width=width), backend="openvino")
        assert len(list(empty_cache.rglob("*.blob"))) == kept  # the last one, and the one that was made after that
    assert not first.exists()
    again = Stylizer.from_checkpoint(saved(tmp_path), backend="openvino").pixels(picture(32, 32))
    np.testing.assert_array_equal(again, wanted)


@openvino
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FSTSTYLE_CACHE", str(tmp_path / "file"))
    output = Stylizer.from_checkpoint(saved(tmp_path), backend="openvino").pixels(picture(32, 32))
    assert output.shape == (32, 32, 3)


@openvino
@pytest.mark.parametrize("damage", [b"", b"cut", None])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, empty_cache: Path, damage: bytes | None) -> None:
    path = saved(tmp_path)
    wanted = Stylizer.from_checkpoint(path, backend="openvino").pixels(picture(32, 32))
    (compiled,) = empty_cache.rglob("*.blob")
    content = compiled.read_bytes()
    compiled.chmod(0o600)
    compiled.write_bytes(content[: len(content) // 2] if damage is None else damage)
    np.testing.assert_array_equal(Stylizer.from_checkpoint(path, backend="openvino").pixels(picture(32, 32)), wanted)


@openvino
def test_tensors_that_do_not_fit_are_refused_as_by_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TransformNet(8, 1)
    for change in ({"width": 4}, {"residual_blocks": 2}, {"residual_blocks": 0}, {"output": "none"}, {"depth": 3}):
        network.config = {**TransformNet(8, 1).config, **change}
        save_model_file(tmp_path / "odd.safetensors", network, {"kind": "style", "name": "odd"})
        for name in ("torch", "openvino"):
            with pytest.raises(ModelFileError, match=r"odd\.safetensors: does not fit its own description"):
                Stylizer.from_checkpoint(tmp_path / "odd.safetensors", "cpu", name)


@openvino
def test_the_median_filter_works_with_openvino(tmp_path: Path) -> None:
    path = saved(tmp_path)
    ours, theirs = (Stylizer.from_checkpoint(path, "cpu", name, "float32") for name in ("openvino", "torch"))
    a, b = (stylizer.pixels(picture(32, 48), StylizeOptions(median=True)).astype(int) for stylizer in (ours, theirs))
    assert np.abs(a - b).max() <= 1


def test_auto_is_openvino_on_a_cpu_where_it_is_installed(
    tmp_path: Path, network: TransformNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = saved(tmp_path), []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        "fststyle.inference.stylizer.OpenVINOBackend", lambda *a: made.append(a) or TorchBackend(network, "cpu")
    )
    for installed, gpu, device, precision, wanted in (
        (True, False, "auto", "auto", 1),
        (True, False, "cpu", "float32", 1),
        (True, True, "cpu", "auto", 1),
        (True, True, "auto", "auto", 0),
        (True, False, "auto", "float16", 0),
        (False, False, "auto", "auto", 0),
    ):
        monkeypatch.setattr("fststyle.inference.stylizer.openvino_installed", lambda value=installed: value)
        monkeypatch.setattr("fststyle.inference.stylizer.has_gpu", lambda value=gpu: value)
        made.clear()
        Stylizer.from_checkpoint(path, device, "auto", precision)
        assert len(made) == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tpu"}, "backend is 'tpu'; expected one of auto, torch, openvino"),
        ({"backend": "openvino", "device": "cuda"}, "openvino runs on the CPU"),
        ({"backend": "torch", "precision": "int4"}, "precision is 'int4'; expected one of auto, float32"),
        pytest.param(
            {"backend": "openvino", "precision": "float16"},
            "with openvino expected one of auto, float32",
            marks=openvino,
        ),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        Stylizer.from_checkpoint(saved(tmp_path), **options)


def test_openvino_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "openvino_installed", lambda: False)
    with pytest.raises(DeviceError, match="pip install openvino"):
        OpenVINOBackend(saved(tmp_path))


def test_low_precision_in_torch_stays_close(tmp_path: Path) -> None:
    path = saved(tmp_path)
    low, full = (Stylizer.from_checkpoint(path, "cpu", "torch", kind) for kind in ("bfloat16", "float32"))
    image = torch.rand(1, 3, 48, 64)
    assert low(image).dtype == torch.float32
    assert 0 < float((low(image) - full(image)).abs().mean()) < 0.02


def test_whole_numbers_are_refused_as_images(network: TransformNet) -> None:
    with pytest.raises(ValueError, match=r"torch.uint8; expected floating point in \[0, 1\]"):
        Stylizer(network, device="cpu")(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_a_size_that_comes_often_is_compiled_and_a_compiler_that_fails_done_without(
    network: TransformNet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def compiled(inputs: torch.Tensor) -> torch.Tensor:
        calls.append("compiled")
        if len(calls) > 2:
            raise torch._dynamo.exc.TorchDynamoException("no compiler here\nlong story")
        return network(inputs)  # type: ignore[no-any-return]

    monkeypatch.setattr(torch, "compile", lambda module, dynamic: compiled)
    backend = TorchBackend(network, "cpu")
    backend._compiles = True  # as on a GPU
    image = torch.rand(1, 3, 32, 32)
    wanted = backend(image)
    for _ in range(backends.WORTH_COMPILING + 4):
        torch.testing.assert_close(backend(image), wanted)
    assert calls == ["compiled"] * 3
    assert caplog.text.count("torch.compile failed, so pictures take longer: no compiler here") == 1
    assert not TorchBackend(network, "cpu")._compiles


@openvino
def test_a_signal_after_two_stylizers_are_gone_is_survived(tmp_path: Path) -> None:
    """OpenVINO leaves the signal stack of a core behind that another one has outlived."""
    program = (
        "import gc, os, signal, sys; from fststyle.inference import Stylizer\n"
        "made = [Stylizer.from_checkpoint(sys.argv[1], 'cpu', 'openvino', 'float32') for _ in range(2)]\n"
        "del made[0]; gc.collect(); made.clear(); gc.collect()\n"
        "signal.signal(signal.SIGINT, lambda *_: print('handled')); os.kill(os.getpid(), signal.SIGINT)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(saved(tmp_path))], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "handled"), run.stderr
