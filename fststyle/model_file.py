"""One file: weights, and everything that rebuilds and explains them.

A model file is a safetensors file. Its tensors are the network's state dict under ``network.`` and,
for a style, what it was trained against under ``style_targets.`` (the upper triangle of Gram matrices in
float32, or quantiles and colours in float16), so that loss, comparison and continued training need no painting; for
style swap, which runs an encoder, that encoder's weights under ``encoder.``. Its metadata holds one JSON
text under ``fststyle``. Nothing in it is ever unpickled or executed.

A file of several styles holds the norms of all in one network, and for each, by its number in the metadata's
``styles``, ``styles.0.style_targets.`` and ``styles.0.thumbnail``. Its path with a style's name behind it, as in
``zoo.safetensors/wave``, or with a mixture, stands for a model file of that one style wherever one is read.

A style that was trained on the convolutions of another file may have its norms alone; ``tensor_files`` finds the rest.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fststyle.checks import absent
from fststyle.hub import PREFIX, HubError, find_on_hub
from fststyle.images import write_atomically
from fststyle.mixtures import MixtureError, mixture_metadata, mixture_row, parse_mixture
from fststyle.resources import resource, user_path
from fststyle.tensor_files import (
    ModelFileError,
    all_restored,
    is_style_parameter,
    json_text,
    load_tensors,
    load_whole,
    split_path,
    stored,
    trunk_hash,
    trunk_of,
    under,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
_KEY = "fststyle"
#: Networks that a model file can name, and where they are.
NETWORKS = {
    "TransformNet": "fststyle.networks.transform",
    "SuperResNet": "fststyle.networks.superres",
    "InverseNet": "fststyle.networks.styleswap",
    "ArbitraryNet": "fststyle.networks.arbitrary",
}
#: Kinds of model file, and the folder of ``checkpoints/`` in which the bundled ones lie.
KINDS = {"style": "styles", "encoder": "encoders", "superres": "superres", "swap": "swap", "arbitrary": "arbitrary"}


@dataclass
class StyleEntry:
    """What a file of several styles holds of one, beside its norms.

    ``metadata`` is what differs from the file's: the painting, ``normalizers`` of the loss or all of its settings,
    held-out terms; ``style_targets`` are as in ``ModelFile``; ``thumbnail`` is a small encoded picture, a photograph
    in that style, or empty.
    """

    name: str
    metadata: dict[str, Any] = field(default_factory=dict)
    style_targets: dict[str, Tensor] = field(default_factory=dict)
    thumbnail: bytes = b""


@dataclass
class ModelFile:
    """A loaded model file.

    ``network`` is in evaluation mode, float32, on the CPU; ``metadata`` says how it came to be;
    ``style_targets`` maps layers to Gram matrices (1, C, C), or to quantiles (1, 2 C, Q), for kind ``style``, and
    ``color`` to the painting's colours (1, 4, 3), where the loss asks for them;
    ``encoder`` has the weights, float32, under the names that ``VGGEncoder`` takes, for kind ``swap``;
    ``styles`` has an entry for each where there are several.
    """

    network: nn.Module
    metadata: dict[str, Any]
    style_targets: dict[str, Tensor] = field(default_factory=dict)
    encoder: dict[str, Tensor] = field(default_factory=dict)
    styles: list[StyleEntry] = field(default_factory=list)


def save_model_file(
    path: str | os.PathLike[str],
    network: nn.Module,
    metadata: Mapping[str, Any],
    style_targets: Mapping[str, Tensor] | None = None,
    dtype: str = "float16",
    encoder: Mapping[str, Tensor] | None = None,
    styles: Sequence[StyleEntry] = (),
    norms_only: bool = False,
) -> None:
    """Write a model file to a temporary file, then move it into place.

    Args:
        path: the ``.safetensors`` file.
        network: one of ``NETWORKS``, with its constructor's arguments in ``network.config``.
        metadata: JSON-compatible; ``kind`` and ``name`` at least. Format and network are added.
        style_targets: from ``PerceptualLoss.style_targets``.
        dtype: of the network's weights, ``float16`` or ``float32``.
        encoder: weights that the network needs to run (``encoders.truncated.truncated_encoder``); they get the same
            dtype, but for ``preprocess``, which stays float32.
        styles: an entry for each, in the order of the norms, for a network of several.
        norms_only: leave out the convolutions, which another file has.
    """
    import torch

    name = type(network).__name__
    if name not in NETWORKS:
        raise ModelFileError(f"{name} is not a network that a model file can rebuild; expected {', '.join(NETWORKS)}")
    if dtype not in ("float16", "float32"):
        raise ModelFileError(f"dtype is {dtype!r}; expected float16 or float32")
    tensors: dict[str, Any] = {}
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    for key, value in state.items():
        if norms_only and not is_style_parameter(key):
            continue
        tensors[f"network.{key}"] = value.to(getattr(torch, dtype)) if value.is_floating_point() else value
    arguments: Any = network.config
    many = int(arguments.get("styles", 1))
    if len(styles) != (many if many > 1 else 0) or len({entry.name for entry in styles}) < len(styles):
        names = ", ".join(entry.name for entry in styles) or "none"
        raise ModelFileError(f"found entries for the styles {names}; the network has {many}, each with another name")
    tensors |= stored(style_targets or {}, "style_targets")
    for number, entry in enumerate(styles):
        tensors |= stored(entry.style_targets, f"styles.{number}.style_targets", half=True)
        if entry.thumbnail:
            tensors[f"styles.{number}.thumbnail"] = np.frombuffer(entry.thumbnail, np.uint8)
    for key, value in (encoder or {}).items():
        kept = torch.float32 if key.startswith("preprocess.") else getattr(torch, dtype)
        tensors[f"encoder.{key}"] = value.detach().to(kept).cpu().contiguous()
    only = {"norms_only": True} if norms_only else {}
    described: dict[str, Any] = {"network": {"class": name, "arguments": arguments, "dtype": dtype, **only}}
    if styles:
        described["styles"] = [{**entry.metadata, "name": entry.name} for entry in styles]
    if metadata.get("kind") in ("style", "arbitrary"):
        described["trunk"] = trunk_hash(trunk_of(state))
    write_tensors(path, tensors, {**metadata, **described})


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write arrays or tensors on the CPU, and metadata, as one model file: a temporary one, then moved into place."""
    from safetensors.numpy import save

    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    data = save(arrays, {_KEY: json_text({"format": FORMAT, **metadata})})
    write_atomically(path, lambda file: file.write(data))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of a model file, read from the file's head without loading any tensor (or torch).

    Raises:
        ModelFileError: no such file, not a model file, a newer format, cut off, or without what every command reads.
    """
    path, mixture = split_path(path)
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
    entries = metadata.get("styles", [])
    if not isinstance(entries, list) or not all(isinstance(each, dict) and each.get("name") for each in entries):
        raise ModelFileError(f"{path}: its metadata is damaged; expected a list of styles with names")
    return mixture_metadata(metadata, _parsed(path, metadata, mixture)) if mixture else metadata


def style_names(metadata: Mapping[str, Any]) -> list[str]:
    """The styles of a file, of its metadata: one for a file of one style."""
    return [str(entry["name"]) for entry in metadata.get("styles", [])] or [str(metadata["name"])]


def _parsed(path: Path, metadata: Mapping[str, Any], mixture: str) -> dict[str, float]:
    try:
        return parse_mixture(mixture, style_names(metadata))
    except MixtureError as error:
        raise ModelFileError(f"{path}: {error}") from None


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
        with open(path, "rb") as file:
            begins_so = file.read(9)[8:] in (b"", b"{")  # others do not, such as PyTorch's, which are zip archives
        if begins_so and any(words in str(error) for words in ("invalid header length", "incomplete metadata")):
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


def load_model_file(
    path: str | os.PathLike[str], kind: str | None = None, trunks: Iterable[str | os.PathLike[str]] = ()
) -> ModelFile:
    """Load a model file and rebuild its network, without any config and without unpickling.

    Args:
        path: the file.
        kind: the kind that is needed (``style``, ``superres``, …), if only one will do.
        trunks: further files in which convolutions are looked for that norms alone go with.

    Raises:
        ModelFileError: as ``read_metadata``; another kind; tensors that do not fit the network.
    """
    path, mixture = split_path(path)
    metadata = check_kind(path, kind)
    weights = _parsed(path, metadata, mixture) if mixture else {}
    try:
        tensors = load_whole(path, metadata, [*trunks, *trunk_files()], load_tensors)
        name = metadata["network"]["class"]
        if name not in NETWORKS:
            raise ValueError(f"it names a network {name!r}; this version knows {', '.join(NETWORKS)}")
        make = getattr(importlib.import_module(NETWORKS[name]), name)
        network: nn.Module = make(**metadata["network"]["arguments"])
        network.load_state_dict(under(tensors, "network."))
        targets = all_restored(under(tensors, "style_targets."))
        encoder = {key: value.float() for key, value in under(tensors, "encoder.").items()}
        styles = []
        for number, entry in enumerate(metadata.get("styles", [])):
            about = {key: value for key, value in entry.items() if key != "name"}
            thumbnail = tensors.get(f"styles.{number}.thumbnail")
            picture = b"" if thumbnail is None else thumbnail.numpy().tobytes()
            own = all_restored(under(tensors, f"styles.{number}.style_targets."))
            styles.append(StyleEntry(str(entry["name"]), about, own, picture))
    except (ModelFileError, ModuleNotFoundError):  # no trunk; no torch
        raise
    except Exception as error:  # whatever a foreign or damaged file makes torch and safetensors raise
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])[:200] or type(error).__name__
        raise ModelFileError(f"{path}: does not fit its own description ({reason})") from None
    found = ModelFile(network.float().eval(), metadata, targets, encoder, styles)
    return _of_mixture(found, weights) if weights else found


def _of_mixture(file: ModelFile, weights: Mapping[str, float]) -> ModelFile:
    """A file of one style, of a file of several: a style's own, or a mixture, which has no style targets."""
    import torch

    network: Any = file.network
    if file.styles:
        network = network.of_mixture(torch.from_numpy(mixture_row(weights, [entry.name for entry in file.styles]))[0])
    targets = next((e.style_targets for e in file.styles if e.name in weights), {}) if len(weights) == 1 else {}
    return ModelFile(network, mixture_metadata(file.metadata, weights), targets or file.style_targets, file.encoder)


def mixture_weights(path: Path, mixture: str) -> np.ndarray | None:
    """The weights of a mixture in the order of a file's styles, float32 (1, styles); None for a file of one style."""
    metadata = read_metadata(path)
    return mixture_row(_parsed(path, metadata, mixture), style_names(metadata)) if "styles" in metadata else None


# --- by name --------------------------------------------------------------------------------------


def bundled_files(kind: str) -> dict[str, Path]:
    """The model files of a kind that came with the installation: name to file."""
    folder = resource("checkpoints") / KINDS[kind]
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def trunk_files() -> list[Path]:
    """The bundled files whose convolutions norms alone may go with."""
    return [file for kind in ("style", "arbitrary") for file in bundled_files(kind).values()]


def all_styles() -> dict[str, Path]:
    """All bundled styles, name to path; of a file of several those that have no file of their own, as ``zoo/wave``."""
    files = bundled_files("style")
    inside = {
        name: style_names(metadata) for name, path in files.items() if "styles" in (metadata := read_metadata(path))
    }
    found = {name: path for name, path in files.items() if name not in inside}
    own = {f"{name}/{style}": files[name] / style for name, styles in inside.items() for style in styles}
    return found | {name: path for name, path in own.items() if path.name not in found}


def kind_of(name_or_path: str) -> str:
    """The kind of which there is a bundled model of that name; ``style`` for any other word."""
    return next((kind for kind in KINDS if name_or_path in bundled_files(kind)), "style")


def find_model_file(name_or_path: str | os.PathLike[str], kind: str) -> Path:
    """The path itself, the file of a bundled model's name or of one on the Hub, or a style of a file of several.

    Args:
        name_or_path: a file, which wins over a name; a bundled model's name; ``hf:user/repo``, as ``hub`` has it; for a
            style also ``FILE/STYLE``, FILE being any of them, a bundled file's style by its name alone, and mixtures
            instead of a style.

    Raises:
        ModelFileError: none of them; the message lists the names there are.
    """
    known = bundled_files(kind)
    text = os.fspath(name_or_path)
    if not text:
        raise ModelFileError(f"found an empty name; expected a model file or one of {', '.join(known) or 'none'}")
    path = user_path(text)
    if path.is_file():
        return path
    if text in known:
        return known[text]
    if text.startswith(PREFIX):
        return _on_hub(text)
    if path.exists():
        return path
    names = list(known)
    if kind == "style":
        before, _, mixture = text.rpartition(os.sep)
        if file := user_path(before) if before and user_path(before).is_file() else known.get(before):
            _parsed(file, read_metadata(file), mixture)
            return file / mixture
        for file in known.values():
            styles = style_names(metadata) if (metadata := read_metadata(file)).get("styles") else []
            names += [f"{file.stem}/{style}" for style in styles]
            if not before and {part.rpartition("=")[0] or part for part in text.split(",")} <= {*styles}:
                _parsed(file, metadata, text)
                return file / text
    expected = f"a model file or one of {', '.join(names) or 'none'}"
    if path.suffix or os.sep in text:
        raise ModelFileError(absent(text, expected))
    raise ModelFileError(f"unknown {kind} {text!r}; expected {expected}")


def _on_hub(name: str) -> Path:
    try:
        file, mixture = find_on_hub(name)
    except HubError as error:
        raise ModelFileError(str(error)) from None
    if mixture:
        _parsed(file, read_metadata(file), mixture)
    return file / mixture


def one_style(path: Path) -> Path:
    """The path of a model file of one style, or of one style in a file.

    Raises:
        ModelFileError: a file of several, of which none is named.
    """
    metadata = read_metadata(path)
    if "styles" not in metadata:
        return path
    names = style_names(metadata)
    raise ModelFileError(f"{path}: holds {len(names)} styles; name one, as {path.stem}/{names[0]} ({', '.join(names)})")
