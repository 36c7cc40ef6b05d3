"""Several model files whose styles share their convolutions, joined into one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fststyle.checks import check_name, check_path
from fststyle.images import check_writable
from fststyle.model_file import ModelFile, ModelFileError, StyleEntry, load_model_file, save_model_file, style_names
from fststyle.networks.transform import TransformNet, in_common
from fststyle.octaves import trained_octaves
from fststyle.tensor_files import trunk_hash

#: Of a file's metadata, what the merged file has of its own.
_OWN = ("format", "kind", "name", "network", "trunk", "styles")


def merge_files(
    paths: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    thumbnail: Callable[[nn.Module, int], bytes] | None = None,
    trunks: Sequence[str | os.PathLike[str]] = (),
) -> list[str]:
    """Join the styles of model files into one file of several.

    What the styles' metadata have in common becomes the file's; the rest stays with each style.

    Args:
        paths: files of norms alone, of one style or of several, or a style of these, in the order of the result.
        output: the file to write, whose stem becomes its name.
        overwrite: replace what is there.
        thumbnail: of a network and its octaves, a small picture for a style without; None: they stay without.
        trunks: further files that convolutions are looked for in.

    Returns:
        The names of the styles.

    Raises:
        ValueError: other networks or convolutions, two styles of one name, a mixture, a file that is there.
    """
    target = check_path(output, "output")
    if target.suffix != ".safetensors":
        raise ModelFileError(f"{target}: expected a name that ends in .safetensors")
    check_name(target.stem, "output")
    if os.path.lexists(target) and not overwrite:
        raise ModelFileError(f"{target}: is there already; choose another name, or replace it with --overwrite")
    check_writable(target.absolute().parent)
    files = [load_model_file(path, "style", [*paths, *trunks]) for path in map(Path, paths)]
    hashes = []
    for path, file in zip(paths, files, strict=True):
        if "mixture" in file.metadata:
            raise ModelFileError(f"{path}: is a mixture, which has no painting; expected styles")
        if not isinstance(file.network, TransformNet) or not file.network.style_parameters():
            raise ModelFileError(f"{path}: its network has no norms of a style's own; expected instance norms")
        hashes.append(trunk_hash(file.network.state_dict()))
        if hashes[-1] != hashes[0] or file.network.shape != files[0].network.shape:
            raise ModelFileError(
                f"{path}: its convolutions are not those of {paths[0]} ({hashes[-1][:12]} and {hashes[0][:12]}); only "
                "styles that were trained together, or as norms from one of them, can be merged"
            )
    try:
        networks, arguments = in_common([file.network for file in files])  # type: ignore[misc]
    except ValueError as error:
        raise ModelFileError(f"{', '.join(map(str, paths))}: {error}") from None
    entries: list[StyleEntry] = []
    own: dict[str, list[Any]] = {}
    for path, file, network in zip(paths, files, networks, strict=True):
        for index, name in enumerate(style_names(file.metadata)):
            if name in {entry.name for entry in entries}:
                raise ModelFileError(f"{path}: its style {name} has the name of another one; each needs its own")
            entries.append(_entry(file, index, name, thumbnail))
        for key, value in network.style_parameters().items():
            own.setdefault(key, []).append(value.detach().reshape(len(style_names(file.metadata)), -1))
    rows = {key: torch.cat(values) for key, values in own.items()}
    one = len(entries) == 1
    merged = TransformNet(**arguments)
    merged.load_state_dict({**networks[0].state_dict(), **{k: v[0] if one else v for k, v in rows.items()}})
    first = entries[0].metadata
    shared = {k: v for k, v in first.items() if all(k in e.metadata and e.metadata[k] == v for e in entries)}
    for entry in entries:
        entry.metadata = {key: value for key, value in entry.metadata.items() if key not in shared}
    metadata = {"kind": "style", "name": entries[0].name if one else target.stem, **shared}
    dtypes = {file.metadata["network"].get("dtype", "float16") for file in files}
    save_model_file(
        *(target, merged, metadata, entries[0].style_targets if one else {}),
        dtype="float32" if "float32" in dtypes else "float16",
        styles=() if one else entries,
    )
    return [entry.name for entry in entries]


def _entry(file: ModelFile, index: int, name: str, thumbnail: Callable[..., bytes] | None) -> StyleEntry:
    """A style of a file, with all that the metadata say of it."""
    about = {key: value for key, value in file.metadata.items() if key not in _OWN}
    own = file.styles[index] if file.styles else StyleEntry(name, {}, file.style_targets)
    about |= own.metadata
    if "normalizers" in about:  # in the form that a file of one style has
        about["loss"] = {**about.get("loss", {}), "normalizers": about.pop("normalizers")}
    picture = own.thumbnail
    if thumbnail and not picture:
        network: Any = file.network
        one = network.of_mixture(torch.eye(len(file.styles))[index]) if file.styles else network
        picture = thumbnail(one, trained_octaves(about))
    return StyleEntry(name, about, own.style_targets, picture)
