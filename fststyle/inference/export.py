"""A style for other programs: ONNX, OpenVINO or PyTorch's own format, pictures in and pictures out.

The exported graph takes and gives decoded pictures, uint8 (B, H, W, 3), any batch, any height and width
from 16 on: what a program has in its hands. Every file is compared with PyTorch before it gets its name.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fststyle.images import MIN_SIDE, check_writable, write_atomically
from fststyle.inference.graphs import Pixels, quiet, styles_of, torch_export
from fststyle.inference.openvino import openvino_core, smallest_side

log = logging.getLogger(__name__)

#: Format to the endings of the files it consists of, the first of which is loaded.
FORMATS = {"onnx": (".onnx",), "openvino": (".xml", ".bin"), "pt2": (".pt2",)}
#: What must be installed for a format, beyond fststyle.
NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",), "pt2": ()}
#: What a file is tried at before it is called done, none of it what it was traced at: batch, and how many
#: pixels higher and wider than the smallest picture.
TRIED = ((1, 0, 0), (2, 31, 50), (1, 114, 77))
#: How far a result may lie from PyTorch's, in levels of 255.
TOLERANCE = 1


class ExportError(RuntimeError):
    """A file that was written, tried, and found to differ; it was removed."""


def export(network: nn.Module, path: Path, kind: str) -> list[Path]:
    """Write a network as ``kind`` and compare the file with PyTorch.

    Args:
        network: image in, image out; for several styles the graph has a second input, their weights (B, styles).
        path: the file to write, with the format's first ending.
        kind: ``onnx``, ``openvino`` (an ``.xml`` and a ``.bin``) or ``pt2`` (``torch.export.load`` reads it).

    Returns:
        The files.

    Raises:
        ValueError: unknown format, or what it needs is not installed; ImageError: the folder cannot be written.
        ExportError: the file's results differ by more than ``TOLERANCE`` levels.
    """
    if kind not in FORMATS:
        raise ValueError(f"format is {kind!r}; expected one of {', '.join(FORMATS)}")
    missing = [name for name in NEEDS[kind] if find_spec(name) is None]
    if missing:
        raise ValueError(f"{kind} needs {', '.join(missing)}; pip install 'fststyle[{kind}]'")
    check_writable(path.parent)
    network = network.eval().cpu()
    least = smallest_side(getattr(network, "border", 0))
    if least > MIN_SIDE:
        log.warning("%s takes pictures of %d×%d pixels and more", path.name, least, least)
    pixels = torch.zeros(2, least + 24, least + 36, 3, dtype=torch.uint8)
    with tempfile.TemporaryDirectory(prefix="fststyle-") as folder:  # under a name that every library can write
        part = Path(folder) / f"network{FORMATS[kind][0]}"
        with quiet():
            _WRITERS[kind](torch_export(Pixels(network), pixels, (1, 2)), part)
        run = _READERS[kind](part)
        for batch, higher, wider in TRIED:
            _compare(network, run, (batch, least + higher, least + wider), path)
        return [_placed(part.with_suffix(ending), path.with_suffix(ending)) for ending in FORMATS[kind]]


def _placed(part: Path, path: Path) -> Path:
    """A file's content at its place, whole or not at all."""
    content = part.read_bytes()
    write_atomically(path, lambda file: file.write(content))
    return path


def _compare(network: nn.Module, run: Callable[..., np.ndarray], shape: tuple[int, int, int], path: Path) -> None:
    chance, styles = np.random.default_rng(sum(shape)), styles_of(network)
    inputs = [chance.integers(0, 256, (*shape, 3), dtype=np.uint8)]
    if styles > 1:
        inputs.append(chance.dirichlet(np.ones(styles), shape[0]).astype(np.float32))
    with torch.inference_mode():
        wanted = Pixels(network)(*map(torch.from_numpy, inputs)).numpy()
    found = run(*inputs)
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        raise ExportError(
            f"{path}: gives {found.dtype} {found.shape}, PyTorch {wanted.dtype} {wanted.shape}; not written"
        )
    difference = int(np.abs(found.astype(int) - wanted.astype(int)).max())
    if difference > TOLERANCE:
        raise ExportError(
            f"{path}: differs from PyTorch by {difference} of 255 at {shape[2]}×{shape[1]} pixels; expected at most "
            f"{TOLERANCE}; not written"
        )


# --- formats --------------------------------------------------------------------------------------


def _write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    torch.onnx.export(program, f=str(path), dynamo=True, external_data=False, opset_version=18, verbose=False)


def _write_openvino(program: torch.export.ExportedProgram, path: Path) -> None:
    import openvino as ov

    ov.save_model(ov.convert_model(program), path, compress_to_fp16=False)


def _read_onnx(path: Path) -> Callable[..., np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))[0]  # type: ignore[no-any-return]


def _read_openvino(path: Path) -> Callable[..., np.ndarray]:
    model = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda *inputs: model(list(inputs))[0]  # type: ignore[no-any-return]


def _read_pt2(path: Path) -> Callable[..., np.ndarray]:
    module = torch.export.load(path).module()
    return lambda *inputs: module(*map(torch.from_numpy, inputs)).detach().numpy()


_WRITERS: dict[str, Callable[[Any, Path], Any]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "pt2": torch.export.save,
}
_READERS = {"onnx": _read_onnx, "openvino": _read_openvino, "pt2": _read_pt2}
