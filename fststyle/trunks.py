"""Trunks: the convolutions that the styles of a network share, told by a hash, and found where a file lacks them.

A style that was trained on the convolutions of another network can be kept as its norms alone, a few kilobytes. Nothing
here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fststyle.mixtures import split_path


def is_style_parameter(name: str) -> bool:
    """Whether a tensor of a network's state is of a norm or of its colour transform, and not of its convolutions."""
    return ".norm." in name or name.startswith("colors.")


def trunk_of(state: Mapping[str, Any]) -> dict[str, Any]:
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


class MissingTrunkError(ValueError):
    """Norms alone, whose convolutions are in none of the files that there are."""


def find_trunk(path: Path, metadata: Mapping[str, Any], known: Iterable[str | os.PathLike[str]]) -> Path:
    """The file that holds the convolutions which a file's norms go with: a known one, or one beside it.

    Args:
        path: the file of norms alone.
        metadata: of it.
        known: style files, or styles of them. Those of earlier versions do not say the hash, and are read whole.

    Raises:
        MissingTrunkError: none has them.
    """
    trunk = metadata.get("trunk")
    files = [*(split_path(each)[0] for each in known), *sorted(path.absolute().parent.glob("*.safetensors"))]
    found = next((file for file in files if trunk and _trunk_of(file) == trunk), None)
    if found is None:
        start = (metadata.get("init_from") or {}).get("name") or "the file that it was trained from"
        raise MissingTrunkError(
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
