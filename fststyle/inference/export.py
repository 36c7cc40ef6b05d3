"""A style for other programs: ONNX, OpenVINO or PyTorch's own format, pictures in and pictures out.

The exported graph takes and gives decoded pictures, uint8 (B, H, W, 3), any batch, any height and width
from 16 on: what a program has in its hands. ONNX and OpenVINO files are made without PyTorch; where it is installed,
every file is compared with it before it gets its name.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fststyle.checks import check_name, check_path
from fststyle.images import MIN_SIDE, ImageError, check_writable, write_atomically
from fststyle.inference.graphs import graph_of
from fststyle.inference.openvino import openvino_core
from fststyle.model_file import ModelFileError, find_model_file, kind_of, load_model_file, read_metadata, style_names
from fststyle.octaves import trained_octaves
from fststyle.resources import working
from fststyle.tensor_files import json_text

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

#: Format to the endings of the files it consists of, the first of which is loaded.
FORMATS = {"onnx": (".onnx",), "openvino": (".xml", ".bin"), "pt2": (".pt2",)}
#: What must be installed for a format.
NEEDS = {"onnx": (), "openvino": ("openvino",), "pt2": ("torch",)}
#: What a file is tried at before it is called done: batch, and how many pixels higher and wider than the smallest.
TRIED = ((1, 0, 0), (2, 31, 50), (1, 114, 77))
#: How far a result may lie from PyTorch's, in levels of 255.
TOLERANCE = 1


class ExportError(RuntimeError):
    """A file that was written, tried, and found to differ; it was removed."""


def export_file(model: str, kind: str, output: str | None = None, overwrite: bool = False) -> list[Path]:
    """Write a model file's network for other programs.

    Args:
        model: a bundled name, or a model file, of a style or for super-resolution.
        kind: as for ``export``.
        output: a file, or a folder; None: called after the style, here.
        overwrite: replace files that are there.

    Returns:
        The files.

    Raises:
        ValueError: refused before work began. RuntimeError: failed.
    """
    source = find_model_file(model, kind_of(model))
    metadata = read_metadata(source)
    if metadata["kind"] not in ("style", "superres"):
        raise ModelFileError(
            f"{source}: is a model file of kind {metadata['kind']!r}, which is not exported; "
            "expected kind 'style' or 'superres'"
        )
    first, name = FORMATS[kind][0], metadata["name"]
    target = Path() if output is None else check_path(output, "output")
    if target.is_dir() or not target.suffix:
        target = target / f"{check_name(name, f'the name in {source}', first)}{first}"
    if target.suffix != first:
        raise ImageError(f"{target}: a file of format {kind} ends in {first}")
    files = [check_path(target.with_suffix(ending), "output") for ending in FORMATS[kind]]
    check_writable(target.parent)
    existing = [str(file) for file in files if os.path.lexists(file)]
    if any(map(os.path.isdir, existing)):
        raise ImageError(f"{', '.join(existing)}: is a folder; choose another -o")
    if existing and not overwrite:
        raise ImageError(f"{', '.join(existing)} exists already; replace it with --overwrite, or choose another -o")
    with working(f"the export of {name}"):
        return export(source, target, kind)


def export(model: Path, path: Path, kind: str) -> list[Path]:
    """Write a model file's network as ``kind``.

    Args:
        model: of kind ``style`` or ``superres``; or one of several styles with a style or a mixture behind it. Without
            one, the graph has a second input, their weights (B, styles).
        path: the file to write, with the format's first ending.
        kind: ``onnx``, ``openvino`` (an ``.xml`` and a ``.bin``) or ``pt2`` (``torch.export.load`` reads it).

    Returns:
        The files.

    Raises:
        ValueError: unknown format, or what it needs is not installed; ImageError: the folder cannot be written.
        ModelFileError: tensors that do not fit the network.
        ExportError: the file's results differ from PyTorch's by more than ``TOLERANCE`` levels.
    """
    if kind not in FORMATS:
        raise ValueError(f"format is {kind!r}; expected one of {', '.join(FORMATS)}")
    if missing := [name for name in NEEDS[kind] if find_spec(name) is None]:
        raise ValueError(f"{kind} takes {missing[0]}; pip install {'fststyle' if kind == 'pt2' else missing[0]}")
    check_writable(path.parent)
    least = _smallest_side(model, kind)
    if least > MIN_SIDE:
        log.warning("%s takes pictures of %d×%d pixels and more", path.name, least, least)
    with tempfile.TemporaryDirectory(prefix="fststyle-") as folder:  # under a name that every library can write
        part = Path(folder) / f"network{FORMATS[kind][0]}"
        _WRITERS[kind](model, part)
        if find_spec("torch") and all(map(find_spec, _TRIED_BY[kind])):
            _compare(model, _READERS[kind](part), least, path)
        return [_placed(part.with_suffix(ending), path.with_suffix(ending)) for ending in FORMATS[kind]]


def _placed(part: Path, path: Path) -> Path:
    """A file's content at its place, whole or not at all."""
    content = part.read_bytes()
    write_atomically(path, lambda file: file.write(content))
    return path


def _compare(model: Path, run: Callable[..., np.ndarray], least: int, path: Path) -> None:
    import torch

    network = load_model_file(model).network
    between_pixels = _between_pixels(network, trained_octaves(read_metadata(model)))
    styles = int(getattr(network, "styles", 1))
    for batch, higher, wider in TRIED:
        shape = (batch, least + higher, least + wider)
        chance = np.random.default_rng(sum(shape))
        inputs = [chance.integers(0, 256, (*shape, 3), dtype=np.uint8)]
        if styles > 1:
            inputs.append(chance.dirichlet(np.ones(styles), batch).astype(np.float32))
        with torch.inference_mode():
            wanted = between_pixels(*map(torch.from_numpy, inputs)).numpy()
        found = run(*inputs)
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            said = f"{found.dtype} {found.shape}, PyTorch {wanted.dtype} {wanted.shape}"
            raise ExportError(f"{path}: gives {said}; not written")
        difference = int(np.abs(found.astype(int) - wanted.astype(int)).max())
        if difference > TOLERANCE:
            raise ExportError(
                f"{path}: differs from PyTorch by {difference} of 255 at {shape[2]}×{shape[1]} pixels; expected at "
                f"most {TOLERANCE}; not written"
            )


# --- formats --------------------------------------------------------------------------------------


def _write_onnx(model: Path, path: Path) -> None:
    metadata = read_metadata(model)
    about = {"fststyle": json_text({key: metadata[key] for key in ("name", "kind", "licence") if key in metadata})}
    if "styles" in metadata:
        about["styles"] = json_text(style_names(metadata))
    path.write_bytes(graph_of(model, metadata=about, octaves=trained_octaves(metadata)))


def _write_openvino(model: Path, path: Path) -> None:
    import openvino as ov

    graph = graph_of(model, octaves=trained_octaves(read_metadata(model)))
    ov.save_model(openvino_core().read_model(graph, b""), path, compress_to_fp16=False)


def _write_pt2(model: Path, path: Path) -> None:
    """By tracing, of any batch, height and width."""
    import torch

    network, least, dynamic = load_model_file(model).network, _smallest_side(model, "pt2"), torch.export.Dim.DYNAMIC
    octaves = trained_octaves(read_metadata(model))
    inputs: list[Tensor] = [torch.zeros(2, least + 24, least + 36, 3, dtype=torch.uint8)]
    shapes, styles = [dict.fromkeys((0, 1, 2), dynamic)], int(getattr(network, "styles", 1))
    if styles > 1:
        inputs.append(torch.full((2, styles), 1 / styles))
        shapes.append({0: dynamic})
    with _quiet(), torch.no_grad():
        program = torch.export.export(_between_pixels(network, octaves), tuple(inputs), dynamic_shapes=tuple(shapes))
        torch.export.save(program, path)


def _between_pixels(network: nn.Module, octaves: int) -> nn.Module:
    """A network between decoded pictures, uint8 (B, H, W, 3) in and out, from coarse to fine."""
    import torch

    from fststyle.networks.octaves import coarse_to_fine

    class Pixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Tensor, mixture: Tensor | None = None) -> Tensor:
            image = pixels.permute(0, 3, 1, 2).float() / 255
            given = () if mixture is None else (mixture,)
            output = coarse_to_fine(lambda seen: self.network(seen, *given), image, octaves)
            return (output.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)

    return Pixels()


def _smallest_side(model: Path, kind: str) -> int:
    """The shorter side of the smallest picture that a graph takes: none of its octaves is below what a network takes,
    and in a traced one the reflection pad folds only once."""
    metadata = read_metadata(model)
    traced = int(metadata["network"]["arguments"].get("border", 0)) + 4 if kind == "pt2" else 0
    return max(MIN_SIDE, traced) * 2 ** (trained_octaves(metadata) - 1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling the user of its own progress."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _read_openvino(path: Path) -> Callable[..., np.ndarray]:
    model = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda *inputs: model(list(inputs))[0]  # type: ignore[no-any-return]


def _read_pt2(path: Path) -> Callable[..., np.ndarray]:
    import torch

    module = torch.export.load(path).module()
    return lambda *inputs: module(*map(torch.from_numpy, inputs)).detach().numpy()


_WRITERS: dict[str, Callable[[Path, Path], Any]] = {"onnx": _write_onnx, "openvino": _write_openvino, "pt2": _write_pt2}
#: What tries a file.
_TRIED_BY = {"onnx": ("openvino",), "openvino": ("openvino",), "pt2": ("torch",)}
_READERS = {"onnx": _read_openvino, "openvino": _read_openvino, "pt2": _read_pt2}
