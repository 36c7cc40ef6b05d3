"""What model files are made of: tensors of a safetensors file by name, style targets and the text beside them.

Of Gram matrices the upper triangle is kept in float32, or in float16 as ``halved`` has it where a file holds many
styles; quantiles and colours in float16. Torch is imported where tensors are made, so that arrays come without.

A style that was trained on the convolutions of another network, its trunk, can be kept as its norms alone, a few
kilobytes. A hash tells trunks apart; it leads from the norms to a file that has the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fststyle.resources import printable

if TYPE_CHECKING:
    from torch import Tensor

#: Largest value of a halved triangle, as a power of 2: float16 ends at 65504.
_TOP = 15
_Values = TypeVar("_Values")


class ModelFileError(ValueError):
    """A file that is no model file, or not the one that was needed; the message says which."""


def split_path(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """A model file, and the mixture that is named behind it; empty where none is."""
    path = Path(path)
    return (path.parent, path.name) if not path.exists() and path.parent.is_file() else (path, "")


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whatever its name."""
    from safetensors.torch import load, load_file

    name = os.fspath(path)
    return load_file(name) if printable(name) == name else load(Path(name).read_bytes())  # it takes UTF-8 alone


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as arrays, without torch."""
    from safetensors.numpy import load

    return load(Path(path).read_bytes())


def under(tensors: Mapping[str, _Values], beginning: str) -> dict[str, _Values]:
    """The tensors of a file whose names begin so, without that beginning."""
    return {key.removeprefix(beginning): value for key, value in tensors.items() if key.startswith(beginning)}


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON with the characters themselves; of names that are not UTF-8, the bytes as JSON's escapes."""
    return json.dumps(content, indent=indent, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


# --- style targets ----------------------------------------------------------------------------------


def stored(targets: Mapping[str, Tensor], under: str, half: bool = False) -> dict[str, Tensor]:
    """Style targets (1, …) as a file has them, by name; ``half``: Gram matrices in half as many bytes."""
    import torch

    tensors = {}
    for layer, target in targets.items():
        is_gram = target.shape[1] == target.shape[2] and torch.allclose(target, target.transpose(1, 2), 1e-4)
        folded = fold(target) if is_gram else compact(target[0])
        tensors[f"{under}.{layer}"] = halved(folded) if is_gram and half else folded
    return tensors


def halved(triangle: Tensor) -> Tensor:
    """A triangle in float16, times the power of 2 that uses its range, whose exponent comes last: exact to 2⁻¹¹."""
    import torch

    top = float(triangle.abs().max())
    exponent = _TOP - math.frexp(top)[1] if top else 0
    return torch.cat([torch.ldexp(triangle, torch.tensor(exponent)), torch.tensor([float(exponent)])]).half()


def all_restored(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Style targets (1, …) again, by layer."""
    return {layer: restored(value) for layer, value in values.items()}


def restored(values: Tensor) -> Tensor:
    """A style target (1, …) again."""
    if values.dim() == 1 and values.element_size() == 2:
        *_, exponent = values.tolist()
        return unfold(values[:-1].float() * 2.0**-exponent)
    if values.dim() == 1:
        return unfold(values)
    if values.dim() != 2 or values.shape[0] % 2:
        raise ValueError(f"a style target has the shape {tuple(values.shape)}; expected (2 C, quantiles)")
    return values[None].float()


def compact(values: Tensor) -> Tensor:
    """In float16, where its range suffices."""
    return (values.half() if values.abs().max() < 6e4 else values.float()).cpu().contiguous()


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


# --- trunks -----------------------------------------------------------------------------------------


def is_style_parameter(name: str) -> bool:
    """Whether a tensor of a network's state is of a norm or of its colour transform, and not of its convolutions."""
    return ".norm." in name or name.startswith("colors.")


def style_sizes(width: int, residual_blocks: int) -> dict[str, int]:
    """How many parameters a style has of its own in a ``TransformNet`` with colour transform, by name and in order."""
    widths = {"encode.0": width, "encode.1": 2 * width, "encode.2": 4 * width}
    widths |= {f"transform.{k}{part}": 4 * width for k in range(residual_blocks) for part in (".first", "")}
    widths |= {"decode.0": 2 * width, "decode.1": width}
    norms = {f"{name}.norm.{key}": size for name, size in widths.items() for key in ("weight", "bias")}
    return norms | {"colors.weight": 9, "colors.bias": 3}


def trunk_of(state: Mapping[str, _Values]) -> dict[str, _Values]:
    """The convolutions of a network's state, of one for any painting those that paint, by their names in a network for
    one style."""
    painter = any(name.startswith("painter.") for name in state)
    found = {k.removeprefix("painter."): v for k, v in state.items() if not painter or k.startswith("painter.")}
    return {name: value for name, value in found.items() if not is_style_parameter(name)}


def trunk_hash(state: Mapping[str, Any]) -> str:
    """The sha256 of a network's convolutions as float16, in the order of their names.

    Args:
        state: name to array, or to tensor on the CPU; style parameters play no part.
    """
    digest = hashlib.sha256()
    for name in sorted(key for key in state if not is_style_parameter(key)):
        digest.update(name.encode() + b"\0" + np.ascontiguousarray(state[name], dtype=np.float16).tobytes())
    return digest.hexdigest()


def load_whole(
    path: Path,
    metadata: Mapping[str, Any],
    known: Iterable[str | os.PathLike[str]],
    load: Callable[[Path], dict[str, _Values]],
) -> dict[str, _Values]:
    """The tensors that ``load`` gives of a model file; with the convolutions, where it has norms alone.

    Args:
        path, metadata, known: as for ``find_trunk``.

    Raises:
        ModelFileError: as ``find_trunk``.
    """
    tensors = load(path)
    if metadata["network"].get("norms_only"):
        shared = trunk_of(under(load(find_trunk(path, metadata, known)), "network."))
        tensors |= {f"network.{name}": value for name, value in shared.items()}
    return tensors


def find_trunk(path: Path, metadata: Mapping[str, Any], known: Iterable[str | os.PathLike[str]]) -> Path:
    """The file that holds the convolutions which a file's norms go with: a known one, or one beside it.

    Args:
        path: the file of norms alone.
        metadata: of it.
        known: style files, or styles of them. Those of earlier versions do not say the hash, and are read whole.

    Raises:
        ModelFileError: none has them.
    """
    trunk = metadata.get("trunk")
    files = [*(split_path(each)[0] for each in known), *sorted(path.absolute().parent.glob("*.safetensors"))]
    found = next((file for file in files if trunk and _trunk_of(file) == trunk), None)
    if found is None:
        start = (metadata.get("init_from") or {}).get("name") or "the file that it was trained from"
        raise ModelFileError(
            f"{path}: holds norms alone, and no bundled style and no file beside it has the convolutions that they go "
            f"with ({str(trunk)[:12]}); put {start} into its folder"
        )
    return found


def _trunk_of(file: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            metadata = json.loads((opened.metadata() or {}).get("fststyle", "{}"))
            network = metadata.get("network") or {}
            if metadata.get("kind") not in ("style", "arbitrary") or network.get("norms_only"):
                return None
            if "trunk" in metadata:
                return str(metadata["trunk"])
            names = [name for name in opened.keys() if name.startswith("network.")]  # noqa: SIM118 - it is no mapping
            return trunk_hash({name.removeprefix("network."): opened.get_tensor(name) for name in names})
    except (SafetensorError, OSError, ValueError, AttributeError):
        return None
