"""The tensors of safetensors files by name, and the text that goes with them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fststyle.resources import printable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


_Values = TypeVar("_Values")


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
