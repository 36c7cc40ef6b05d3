"""The tensors of safetensors files by name, and the text that goes with them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fststyle.resources import printable

if TYPE_CHECKING:
    from torch import Tensor


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whatever its name."""
    from safetensors.torch import load, load_file

    name = os.fspath(path)
    return load_file(name) if printable(name) == name else load(Path(name).read_bytes())  # it takes UTF-8 alone


def under(tensors: Mapping[str, Tensor], beginning: str) -> dict[str, Tensor]:
    """The tensors of a file whose names begin so, without that beginning."""
    return {key.removeprefix(beginning): value for key, value in tensors.items() if key.startswith(beginning)}


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON with the characters themselves; of names that are not UTF-8, the bytes as JSON's escapes."""
    return json.dumps(content, indent=indent, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
