"""One file: weights, and everything that rebuilds and explains them.

A model file is a safetensors file. Its tensors are the network's state dict under ``network.`` and,
for a style, what it was trained against under ``style_targets.`` (the upper triangle of Gram matrices in
float32, or quantiles and colours in float16), so that loss, comparison and continued training need no painting; for
style swap, which runs an encoder, that encoder's weights under ``encoder.``. Its metadata holds one JSON
text under ``fststyle``. Nothing in it is ever unpickled or executed.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fststyle.checks import absent
from fststyle.images import write_atomically
from fststyle.resources import printable, resource, user_path

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
_KEY = "fststyle"
#: Networks that a model file can name, and where they are.
NETWORKS = {
    "TransformNet": "fststyle.networks.transform",
    "SuperResNet": "fststyle.networks.superres",
    "InverseNet": "fststyle.networks.styleswap",
}
#: Kinds of model file, and the folder of ``checkpoints/`` in which the bundled ones lie.
KINDS = {"style": "styles", "encoder": "encoders", "superres": "superres", "swap": "swap"}


class ModelFileError(ValueError):
    """A file that is no model file, or not the one that was needed; the message says which."""


@dataclass
class ModelFile:
    """A loaded model file.

    ``network`` is in evaluation mode, float32, on the CPU; ``metadata`` says how it came to be;
    ``style_targets`` maps layers to Gram matrices (1, C, C), or to quantiles (1, 2 C, Q), for kind ``style``, and
    ``color`` to the painting's colours (1, 4, 3), where the loss asks for them;
    ``encoder`` has the weights, float32, under the names that ``VGGEncoder`` takes, for kind ``swap``.
    """

    network: nn.Module
    metadata: dict[str, Any]
    style_targets: dict[str, Tensor] = field(default_factory=dict)
    encoder: dict[str, Tensor] = field(default_factory=dict)


def save_model_file(
    path: str | os.PathLike[str],
    network: nn.Module,
    metadata: Mapping[str, Any],
    style_targets: Mapping[str, Tensor] | None = None,
    dtype: str = "float16",
    encoder: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model file to a temporary file, then move it into place.

    Args:
        path: the ``.safetensors`` file.
        network: one of ``NETWORKS``, with its constructor's arguments in ``network.config``.
        metadata: JSON-compatible; ``kind`` and ``name`` at least. Format and network are added.
        style_targets: from ``PerceptualLoss.style_targets``.
        dtype: of the network's weights, ``float16`` or ``float32``.
        encoder: weights that the network needs to run (``networks.styleswap.truncated_encoder``); they get the same
            dtype, but for ``preprocess``, which stays float32.
    """
    import torch

    name = type(network).__name__
    if name not in NETWORKS:
        raise ModelFileError(f"{name} is not a network that a model file can rebuild; expected {', '.join(NETWORKS)}")
    if dtype not in ("float16", "float32"):
        raise ModelFileError(f"dtype is {dtype!r}; expected float16 or float32")
    tensors = {}
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            value = value.to(getattr(torch, dtype))
        tensors[f"network.{key}"] = value.detach().cpu().contiguous()
    for layer, target in (style_targets or {}).items():
        is_gram = target.shape[1] == target.shape[2] and torch.allclose(target, target.transpose(1, 2), 1e-4)
        tensors[f"style_targets.{layer}"] = fold(target) if is_gram else compact(target[0])
    for key, value in (encoder or {}).items():
        kept = torch.float32 if key.startswith("preprocess.") else getattr(torch, dtype)
        tensors[f"encoder.{key}"] = value.detach().to(kept).cpu().contiguous()
    described = {"network": {"class": name, "arguments": network.config, "dtype": dtype}}
    write_tensors(path, tensors, {**metadata, **described})


def _target(values: Tensor) -> Tensor:
    """A style target as ``ModelFile`` has it."""
    if values.dim() == 1:
        return unfold(values)
    if values.dim() != 2 or values.shape[0] % 2:
        raise ModelFileError(f"a style target has the shape {tuple(values.shape)}; expected (2 C, quantiles)")
    return values[None].float()


def compact(values: Tensor) -> Tensor:
    """In float16, where its range suffices."""
    return (values.half() if values.abs().max() < 6e4 else values.float()).cpu().contiguous()


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata as one model file: to a temporary file, then moved into place."""
    from safetensors.torch import save

    data = save(dict(tensors), {_KEY: json_text({"format": FORMAT, **metadata})})
    write_atomically(path, lambda file: file.write(data))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of a model file, read from the file's head without loading any tensor (or torch).

    Raises:
        ModelFileError: no such file, not a model file, a newer format, cut off, or without what every command reads.
    """
    path = Path(path)
    texts = _texts(path)
    if _KEY not in texts:
        raise ModelFileError(
            f"{path}: is a safetensors file, but not a model file of fststyle (its metadata is not ours)"
        )
    try:
        metadata = json.loads(texts[_KEY])
        version, kind = metadata["format"], metadata["kind"]
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError):
        raise ModelFileError(f"{path}: its metadata is damaged; expected JSON with a format and a kind") from None
    if version != FORMAT or kind not in tuple(KINDS):  # as a tuple: any JSON value can be looked for
        raise ModelFileError(
            f"{path}: is a model file of kind {kind!r}, format {version!r}; this version reads format {FORMAT}, "
            f"kinds {', '.join(KINDS)}"
        )
    metadata.setdefault("name", path.stem)
    if "health" in metadata:  # its name before
        metadata["diagnostics"] = metadata.pop("health")
    network = metadata.get("network") or {}
    described = isinstance(network, dict) and [type(network.get(key)) for key in ("class", "arguments")] == [str, dict]
    if not isinstance(metadata["name"], str) or not (described or kind == "encoder"):
        raise ModelFileError(f"{path}: its metadata is damaged; expected a name, and a network's class and arguments")
    return metadata


def _texts(path: Path) -> dict[str, str]:
    """The texts of a safetensors file's header; no tensor is read."""
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        inside = sorted(path.glob("*.safetensors"))
        hint = f", such as {inside[0]} in it" if inside else ""
        raise ModelFileError(f"{path}: is a folder; expected a model file (.safetensors){hint}")
    if path.exists() and not path.is_file():
        raise ModelFileError(f"{path}: is a pipe or a device; expected a model file (.safetensors)")
    if not path.is_file():
        raise ModelFileError(absent(path, "a model file (.safetensors)"))
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        if any(words in str(error) for words in ("invalid header length", "incomplete metadata")):
            size = path.stat().st_size
            raise ModelFileError(f"{path}: is cut off at {size} bytes; copy or download it again") from None
        raise ModelFileError(
            f"{path}: is not a model file; expected a .safetensors file that fststyle train has written ({error})"
        ) from None


def check_kind(path: str | os.PathLike[str], kind: str | None) -> dict[str, Any]:
    """The metadata of a model file, which must be of that kind, if one is given.

    Raises:
        ModelFileError: as ``read_metadata``; another kind.
    """
    metadata = read_metadata(path)
    if kind is not None and metadata["kind"] != kind:
        raise ModelFileError(f"{path}: is a model file of kind {metadata['kind']!r}; expected kind {kind!r}")
    return metadata


def load_model_file(path: str | os.PathLike[str], kind: str | None = None) -> ModelFile:
    """Load a model file and rebuild its network, without any config and without unpickling.

    Args:
        path: the file.
        kind: the kind that is needed (``style``, ``superres``, …), if only one will do.

    Raises:
        ModelFileError: as ``read_metadata``; another kind; tensors that do not fit the network.
    """
    metadata = check_kind(path, kind)
    try:
        tensors = load_tensors(path)
        network = _build(metadata["network"])
        network.load_state_dict(
            {key.removeprefix("network."): value for key, value in tensors.items() if key.startswith("network.")}
        )
        targets = {
            key.removeprefix("style_targets."): _target(value)
            for key, value in tensors.items()
            if key.startswith("style_targets.")
        }
        encoder = {
            key.removeprefix("encoder."): value.float() for key, value in tensors.items() if key.startswith("encoder.")
        }
    except Exception as error:  # whatever a foreign or damaged file makes torch and safetensors raise
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])[:200] or type(error).__name__
        raise ModelFileError(f"{path}: does not fit its own description ({reason})") from None
    return ModelFile(network.float().eval(), metadata, targets, encoder)


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whatever its name."""
    from safetensors.torch import load, load_file

    name = os.fspath(path)
    return load_file(name) if printable(name) == name else load(Path(name).read_bytes())  # it takes UTF-8 alone


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON with the characters themselves; of names that are not UTF-8, the bytes as JSON's escapes."""
    return json.dumps(content, indent=indent, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def _build(description: Mapping[str, Any]) -> nn.Module:
    name = description["class"]
    if name not in NETWORKS:
        raise ModelFileError(f"it names a network {name!r}; this version knows {', '.join(NETWORKS)}")
    network: nn.Module = getattr(importlib.import_module(NETWORKS[name]), name)(**description["arguments"])
    return network


def fold(gram: Tensor) -> Tensor:
    """The upper triangle (C (C + 1) / 2,) of a symmetric matrix (1, C, C), float32."""
    import torch

    rows, columns = torch.triu_indices(*gram.shape[-2:])
    return gram[0].float().cpu()[rows, columns].contiguous()


def unfold(triangle: Tensor) -> Tensor:
    """The symmetric matrix (1, C, C) of an upper triangle."""
    import torch

    n = int(((8 * triangle.numel() + 1) ** 0.5 - 1) / 2)
    rows, columns = torch.triu_indices(n, n)
    gram = triangle.new_zeros(1, n, n)
    gram[0, rows, columns] = triangle
    gram[0, columns, rows] = triangle
    return gram


# --- by name --------------------------------------------------------------------------------------


def bundled_files(kind: str) -> dict[str, Path]:
    """The model files of a kind that came with the installation: name to file."""
    folder = resource("checkpoints") / KINDS[kind]
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def kind_of(name_or_path: str) -> str:
    """The kind of which there is a bundled model of that name; ``style`` for any other word."""
    return next((kind for kind in KINDS if name_or_path in bundled_files(kind)), "style")


def find_model_file(name_or_path: str | os.PathLike[str], kind: str) -> Path:
    """The file of a bundled model's name, or the path itself.

    Raises:
        ModelFileError: neither; the message lists the names there are.
    """
    known = bundled_files(kind)
    text = os.fspath(name_or_path)
    if not text:
        raise ModelFileError(f"found an empty name; expected a model file or one of {', '.join(known) or 'none'}")
    if text in known:
        return known[text]
    path = user_path(text)
    if path.exists():
        return path
    if path.suffix or os.sep in text:
        raise ModelFileError(absent(text, f"a model file or one of {', '.join(known) or 'none'}"))
    raise ModelFileError(f"unknown {kind} {text!r}; expected a model file or one of {', '.join(known) or 'none'}")
