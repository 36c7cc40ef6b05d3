"""Where encoder weights come from: published files checked by hash, local files, or random ones."""

from __future__ import annotations

import hashlib
import http.client
import logging
import math
import os
import pickle
import tempfile
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from fststyle import resources
from fststyle.images import find_pictures, open_picture, resize_shorter_side, to_image
from fststyle.networks.checkpoint import (
    CheckpointError,
    bundled_files,
    compact,
    fold,
    read_metadata,
    unfold,
    write_tensors,
)
from fststyle.networks.vgg import (
    ARCHITECTURES,
    WIDTHS,
    PhotographStatistics,
    VGGEncoder,
    conv_names,
    layer_names,
    mean_activations,
    normalize_activations,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """Weights that torchvision publishes: the file, its hash and the normalisation it expects."""

    architecture: str
    weights: str
    url: str
    sha256: str  # its first 8 digits stand at the end of the file's name
    megabytes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[1]


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CAFFE = ((0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255))
_HOST = "https://download.pytorch.org/models/"

#: (architecture, weights) to what torchvision publishes. ``features``: the Caffe network that the
#: papers used; ``imagenet``: torchvision's own training (IMAGENET1K_V1).
PUBLISHED = {
    (p.architecture, p.weights): p
    for p in (
        Published("vgg16", "features", _HOST + "vgg16_features-amdegroot-88682ab5.pth", "88682ab5", 528, *_CAFFE),
        Published("vgg16", "imagenet", _HOST + "vgg16-397923af.pth", "397923af", 528, *_IMAGENET),
        Published("vgg19", "imagenet", _HOST + "vgg19-dcbb9e9d.pth", "dcbb9e9d", 548, *_IMAGENET),
    )
}
#: The weights that an architecture gets when none are named.
DEFAULT_WEIGHTS = {"vgg16": "features", "vgg19": "imagenet"}


class WeightsError(ValueError):
    """Encoder weights that cannot be had or used; the message says what to do."""


def load_encoder(
    architecture: str = "vgg16",
    weights: str | os.PathLike[str] | None = None,
    pooling: str = "max",
    padding: str | None = None,
    normalize: str | os.PathLike[str] | Iterable[Tensor] | None = None,
    preprocess: str | None = None,
    seed: int = 0,
    widths: tuple[int, ...] = WIDTHS,
) -> VGGEncoder:
    """Build a frozen encoder.

    Args:
        architecture: ``vgg16`` or ``vgg19``.
        weights: ``features`` (torchvision VGG16_Weights.IMAGENET1K_FEATURES, the network the papers
            used; VGG-16's default), ``imagenet`` (IMAGENET1K_V1; VGG-19's default), ``slim`` (the
            small VGG-16 that comes with this package), a local ``.pth`` or ``.safetensors`` file in
            torchvision's layout or with layers by name, or ``random``.
        pooling: ``max`` or ``average``.
        padding: ``zeros`` or ``reflect``; if None, what the weights were made with.
        normalize: photographs on which to scale every filter to mean activation 1 (Gatys et al.): a
            folder, of which 100 are used, or images (B, 3, H, W). The means are cached in the user's cache
            folder (``FSTSTYLE_CACHE``), by the hash of weights and pictures; random weights' are not.
        preprocess: how a local file in torchvision's layout wants its input: ``imagenet`` or
            ``caffe``; if None, as the published file of the same hash does, else ``imagenet``.
        seed: for ``random``.
        widths: channels per block, for ``random``; a file brings its own.

    Raises:
        WeightsError: unknown name, no such file, wrong layout, failed download or wrong hash.
    """
    if architecture not in ARCHITECTURES:
        raise WeightsError(f"architecture is {architecture!r}; expected one of {', '.join(ARCHITECTURES)}")
    weights = str(weights or DEFAULT_WEIGHTS[architecture])
    path: Path | None = None
    photographs: PhotographStatistics | None = None
    boxed = bundled_files("encoder").get(f"{architecture}_{weights}")
    if weights == "random":
        log.warning("the encoder %s has random weights: the pictures will not look like the style", architecture)
        tensors = random_weights(architecture, seed, widths)
        name, digest = f"{architecture}-random-{seed}", ""
    else:
        published = PUBLISHED.get((architecture, weights))
        if published is None and boxed is None and not _looks_like_path(weights):
            names = [w for a, w in PUBLISHED if a == architecture]
            names += [
                name.removeprefix(f"{architecture}_") for name in bundled_files("encoder") if architecture in name
            ]
            raise WeightsError(
                f"{architecture} has no weights {weights!r}; expected {', '.join(names)}, random, or a file"
            )
        path = fetch(published) if published else boxed or Path(weights).expanduser()
        name = path.stem if published is None and boxed is None else f"{architecture}-{weights}"
        tensors, made_with = read_weights(path, architecture, preprocess)
        padding = padding or made_with
        digest = file_sha256(path)
        if (pooling, padding) == ("max", made_with):
            photographs = _read_statistics(path)
    encoder = VGGEncoder(tensors, architecture, pooling, padding or "zeros", name, digest, photographs)  # type: ignore[arg-type]
    return encoder if normalize is None else _normalize(encoder, normalize, cached=path is not None)


#: The bundled VGG-19, and earlier files of it by SHA-256: the same weights with fewer measurements beside them.
_SLIM = "7cd077bf19dd1d9ebac4f1ceba10d0e86de60fcca823984e5f85a1fd18e0d399"
SAME_WEIGHTS = {
    "2eaa5dc69dce42d8748c1cb1b0543764fac39d8d3cf657ce13d753db71d00867": _SLIM,
    "5395536a642e3804feeaec1c6f23345b61cb49f0aeb724b8b37aabd06eb99423": _SLIM,
    "a35b5451f949009c938d85e18b9cc9e4354e5b98fdb7d8db9072315413f738cc": _SLIM,
}


def encoder_of(
    metadata: Mapping[str, Any],
    weights: str | os.PathLike[str] | None = None,
    normalize: str | os.PathLike[str] | Iterable[Tensor] | None = None,
) -> VGGEncoder:
    """The encoder that a checkpoint was trained with.

    Args:
        metadata: the checkpoint's.
        weights: the file, for a checkpoint that was trained with a local one.
        normalize: the photographs, for one whose filters were scaled on photographs.

    Raises:
        WeightsError: an encoder that cannot be had by its name, or another file than in training.
    """
    told = metadata["encoder"]
    name = told["name"].removesuffix("+normalized")
    if weights is None:
        weights = name.removeprefix(f"{told['architecture']}-")
        known = {w for a, w in PUBLISHED if a == told["architecture"]}
        if weights not in known and f"{told['architecture']}_{weights}" not in bundled_files("encoder"):
            raise WeightsError(
                f"{metadata['name']} was trained with {name}, which does not come with fststyle; "
                "give its file: --encoder FILE"
            )
    if name != told["name"] and normalize is None:
        raise WeightsError(
            f"{metadata['name']} was trained with filters scaled on photographs; give their folder: --normalize FOLDER"
        )
    encoder = load_encoder(told["architecture"], weights, told["pooling"], told["padding"], normalize)
    if encoder.digest not in (told["sha256"], SAME_WEIGHTS.get(told["sha256"])):
        raise WeightsError(
            f"{weights}: has the SHA-256 {encoder.digest[:12]}…, {metadata['name']} was trained with "
            f"{told['sha256'][:12]}…; give that file with --encoder FILE"
        )
    return encoder


# --- files ----------------------------------------------------------------------------------------


def read_weights(path: Path, architecture: str, preprocess: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Read an encoder's weights from a file: under the names that ``VGGEncoder`` takes, and its padding.

    Known layouts: torchvision's (``features.0.weight`` …), and layers by name (``conv1_1.weight`` …,
    ``preprocess.weight`` (3, 3[, 1, 1]) and ``preprocess.bias``). A ``.pth`` is read with unpickling
    of tensors only.
    """
    state = _read_state(path)
    found: dict[str, Tensor] = {}
    padding = "zeros"
    if "features.0.weight" in state:
        for index, layer in enumerate(layer_names(architecture)):  # torchvision's Sequential, in the same order
            for part in ("weight", "bias"):
                if layer.startswith("conv") and f"features.{index}.{part}" in state:
                    found[f"{layer}.{part}"] = state[f"features.{index}.{part}"]
        found |= preprocessing(*_input_statistics(path, preprocess))
    elif "conv1_1.weight" in state and "preprocess.weight" in state:
        keys = [f"{key}.{part}" for key in ["preprocess", *conv_names(architecture)] for part in ("weight", "bias")]
        found = {key: state[key] for key in keys if key in state}
        found["preprocess.weight"] = found["preprocess.weight"].squeeze()
        # A network distilled from VGG-19 with reflection padding has maps to the original beside it.
        padding = "reflect" if any(key.startswith("to_vgg19.") for key in state) else "zeros"
        padding = _encoder_metadata(path).get("padding", padding)
    else:
        some = ", ".join(sorted(map(str, state))[:3]) or "none"
        raise WeightsError(
            f"{path}: has tensors {some}, …; expected torchvision's names (features.0.weight) "
            "or layers by name (conv1_1.weight and preprocess.weight)"
        )
    _check_shapes(path, architecture, found)
    return found, padding


def _input_statistics(path: Path, preprocess: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    known = {"imagenet": _IMAGENET, "caffe": _CAFFE}
    if preprocess is not None:
        if preprocess not in known:
            raise WeightsError(f"preprocess is {preprocess!r}; expected imagenet or caffe")
        return known[preprocess]
    digest = file_sha256(path)
    for published in PUBLISHED.values():
        if digest.startswith(published.sha256):
            return published.mean, published.std
    return _IMAGENET


def _read_state(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected encoder weights (.pth or .safetensors)")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's own message advises to load it nevertheless
        raise WeightsError(f"{path}: is no .pth file of tensors only, and was not unpickled") from None
    except Exception as error:  # torch and safetensors raise many kinds on foreign bytes
        reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise WeightsError(f"{path}: cannot be read as encoder weights ({reason})") from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: holds {type(state).__name__}; expected a state dict of tensors")
    return state


def _check_shapes(path: Path, architecture: str, weights: Mapping[str, Tensor]) -> None:
    shapes: dict[str, tuple[int, ...]] = {"preprocess.weight": (3, 3), "preprocess.bias": (3,)}
    inputs = 3
    depth = sum(f"{conv}.weight" in weights for conv in conv_names(architecture))
    for conv in conv_names(architecture)[:depth]:  # without a gap, or the file is another network's
        outputs = (*getattr(weights.get(f"{conv}.weight"), "shape", ()), 0)[0]
        shapes |= {f"{conv}.weight": (outputs, inputs, 3, 3), f"{conv}.bias": (outputs,)}
        inputs = outputs
    for key, shape in shapes.items():
        if key not in weights:
            raise WeightsError(f"{path}: lacks {key} of {architecture}; is it the file of another network?")
        if tuple(weights[key].shape) != shape:
            raise WeightsError(f"{path}: {key} is {tuple(weights[key].shape)} for {architecture}; expected {shape}")


def _looks_like_path(weights: str) -> bool:
    return weights.endswith((".pth", ".pt", ".safetensors")) or os.sep in weights or Path(weights).exists()


def preprocessing(mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Tensor]:
    """(x - mean) / std as a 1×1 convolution."""
    shift, scale = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    return {"preprocess.weight": torch.diag(1 / scale), "preprocess.bias": -shift / scale}


def random_weights(architecture: str, seed: int = 0, widths: tuple[int, ...] = WIDTHS) -> dict[str, Tensor]:
    """He-initialised weights from a seed, zero biases; for timing, tests and dry runs."""
    generator = torch.Generator().manual_seed(seed)
    weights = preprocessing(*_IMAGENET)
    inputs = 3
    for conv in conv_names(architecture):
        outputs = widths[int(conv[4]) - 1]
        shape = (outputs, inputs, 3, 3)
        weights[f"{conv}.weight"] = torch.randn(shape, generator=generator) * math.sqrt(2 / (9 * inputs))
        weights[f"{conv}.bias"] = torch.zeros(outputs)
        inputs = outputs
    return weights


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


# --- encoders as checkpoints ----------------------------------------------------------------------


def save_encoder(
    path: str | os.PathLike[str],
    encoder: VGGEncoder,
    metadata: Mapping[str, Any],
    photographs: PhotographStatistics,
) -> None:
    """Write an encoder as one checkpoint file: weights (float16), what photographs measure in it, and its metadata.

    Args:
        path: the ``.safetensors`` file.
        encoder: any; ``load_encoder(weights=path)`` builds it again.
        metadata: how it came to be; ``kind: encoder``, ``name``.
        photographs: from ``losses.measure_photographs``.
    """
    tensors = {key: value.half().cpu().contiguous() for key, value in encoder.weights().items()}
    tensors |= {f"preprocess.{part}": getattr(encoder, f"preprocess_{part}") for part in ("weight", "bias")}
    tensors |= {f"photographs.gram.{layer}": fold(gram) for layer, gram in photographs.grams.items()}
    tensors |= {f"photographs.quantiles.{name}": compact(value[0]) for name, value in photographs.quantiles.items()}
    measured = {key: value for key, value in vars(photographs).items() if key not in ("grams", "quantiles")}
    described = {"architecture": encoder.architecture, "padding": encoder.padding, "photographs": measured}
    write_tensors(path, tensors, {**metadata, **described})


def _encoder_metadata(path: Path) -> dict[str, Any]:
    try:
        return read_metadata(path)
    except CheckpointError:
        return {}  # a file of another origin


def _read_statistics(path: Path) -> PhotographStatistics | None:
    measured = _encoder_metadata(path).get("photographs")
    if measured is None:
        return None
    tensors = load_file(path)

    def named(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    grams = {layer: unfold(value) for layer, value in named("photographs.gram.").items()}
    quantiles = {name: value[None].float() for name, value in named("photographs.quantiles.").items()}
    return PhotographStatistics(grams=grams, quantiles=quantiles, **measured)


# --- downloads ------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where downloaded weights lie: torch's hub folder, shared with torchvision (``TORCH_HOME``)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def fetch(published: Published) -> Path:
    """The local copy of published weights; downloaded, with progress, if it is not there yet.

    Raises:
        WeightsError: no connection, or a file of another hash; nothing is left half-written.
    """
    target = cache_folder() / published.filename
    if target.is_file():
        if fault := _hash_fault(target, published):
            raise WeightsError(f"{target}: {fault}; delete it and fetch it again")
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{published.filename}.", dir=target.parent) as folder:
            part = Path(folder) / published.filename
            with part.open("wb") as file, urllib.request.urlopen(published.url, timeout=30) as response:
                total = int(response.headers.get("Content-Length") or 0) or None
                with tqdm(total=total, unit="B", unit_scale=True, desc=published.filename) as bar:
                    while chunk := response.read(1 << 20):
                        file.write(chunk)
                        bar.update(len(chunk))
            if fault := _hash_fault(part, published):
                raise OSError(f"{part.stat().st_size} bytes came, {total or 'any number'} expected; {fault}")
            part.replace(target)
    except (OSError, http.client.HTTPException) as error:  # urllib's own errors are OSErrors
        reason = " ".join(str(getattr(error, "reason", None) or error).split())  # a server's words, on one line
        raise WeightsError(
            f"{published.filename} could not be downloaded ({reason}); fetch {published.url} on a machine with "
            f"internet into {target.parent}, name a local file with encoder.weights=FILE, or use the small encoder "
            "that needs no download: encoder=slim"
        ) from None
    return target


def _hash_fault(path: Path, published: Published) -> str:
    digest = file_sha256(path)
    if digest.startswith(published.sha256):
        return ""
    return f"its SHA-256 begins with {digest[:8]}, expected {published.sha256}"


# --- normalisation --------------------------------------------------------------------------------


def _normalize(encoder: VGGEncoder, photographs: str | os.PathLike[str] | Iterable[Tensor], cached: bool) -> VGGEncoder:
    if isinstance(photographs, Tensor):
        photographs = [photographs]  # one batch, not a sequence of its images
    by_path = isinstance(photographs, (str, os.PathLike))
    images: list[Tensor] = list(photographs_for_normalizing(photographs) if by_path else photographs)  # type: ignore[arg-type]
    if not cached:
        return normalize_activations(encoder, mean_activations(encoder, images))
    digest = hashlib.sha256(f"{encoder.architecture} {encoder.pooling} {encoder.padding}".encode())
    for tensor in [*encoder.weights().values(), *images]:  # the weights too: another input, another file of that name
        digest.update(str(tuple(tensor.shape)).encode() + tensor.cpu().contiguous().numpy().tobytes())
    cache = resources.cache_folder("normalize") / f"{digest.hexdigest()[:24]}.safetensors"
    try:
        return normalize_activations(encoder, load_file(cache))
    except (OSError, SafetensorError):  # not there yet, or damaged
        means = mean_activations(encoder, images)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=cache.parent) as folder:
            part = Path(folder) / cache.name
            save_file({key: value.cpu().contiguous() for key, value in means.items()}, part)
            part.replace(cache)
    except (OSError, SafetensorError) as error:  # no cache on this machine
        log.debug("the mean activations were not cached in %s: %s", cache.parent, error)
    return normalize_activations(encoder, means)


def photographs_for_normalizing(folder: str | os.PathLike[str], count: int = 100, size: int = 224) -> Iterable[Tensor]:
    """``count`` photographs spread evenly over a folder, shorter side ``size``, as images (1, 3, H, W)."""
    files = find_pictures(folder)
    count = min(count, len(files))
    for path in (files[index * len(files) // count] for index in range(count)):
        yield to_image(np.asarray(resize_shorter_side(open_picture(path).convert("RGB"), size)))
