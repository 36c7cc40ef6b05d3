"""Encoders by name: published, bundled, local or random weights, normalised on photographs if wanted."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from fststyle import resources
from fststyle.encoders.files import preprocessing, read_statistics, read_weights
from fststyle.encoders.published import DEFAULT_WEIGHTS, IMAGENET, PUBLISHED, WeightsError, fetch
from fststyle.encoders.vgg import (
    ARCHITECTURES,
    WIDTHS,
    PhotographStatistics,
    VGGEncoder,
    conv_names,
    mean_activations,
    normalize_activations,
)
from fststyle.images import ImageError, find_pictures, open_visible, resize_shorter_side, to_image, write_atomically
from fststyle.model_file import bundled_files
from fststyle.resources import file_sha256, user_path

log = logging.getLogger(__name__)

#: Encoders by the name that an option takes, as the groups of ``conf/encoder``: architecture and weights.
ENCODERS = {
    "vgg16": ("vgg16", None),
    "vgg19": ("vgg19", None),
    "slim": ("vgg19", "slim"),
    "slim_vgg16": ("vgg16", "slim"),
}


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
        path = fetch(published) if published else boxed or user_path(weights)
        name = path.stem if published is None and boxed is None else f"{architecture}-{weights}"
        tensors, made_with = read_weights(path, architecture, preprocess)
        padding = padding or made_with
        digest = file_sha256(path)
        if (pooling, padding) == ("max", made_with):
            photographs = read_statistics(path)
    encoder = VGGEncoder(tensors, architecture, pooling, padding or "zeros", name, digest, photographs)  # type: ignore[arg-type]
    return encoder if normalize is None else _normalize(encoder, normalize, cached=path is not None)


def named_encoder(name: str, architecture: str, normalize: str | None) -> VGGEncoder:
    """The encoder that an option names, or that of a file, which has the given architecture."""
    known, weights = ENCODERS.get(name, (architecture, name))
    return load_encoder(known, weights, normalize=normalize)


def _looks_like_path(weights: str) -> bool:
    return weights.endswith((".pth", ".pt", ".safetensors")) or os.sep in weights or Path(weights).exists()


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
    """The encoder that a model file was trained with.

    Args:
        metadata: the model file's.
        weights: the file, for a model file that was trained with a local one.
        normalize: the photographs, for one whose filters were scaled on photographs.

    Raises:
        WeightsError: an encoder that cannot be had by its name, or another file than in training.
    """
    told = metadata.get("encoder")
    if not isinstance(told, dict) or not {"name", "architecture", "pooling", "padding", "sha256"} <= told.keys():
        raise WeightsError(
            f"{metadata['name']}: its file does not say which encoder it was trained with; expected one that fststyle "
            "train has written"
        )
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


def random_weights(architecture: str, seed: int = 0, widths: tuple[int, ...] = WIDTHS) -> dict[str, Tensor]:
    """He-initialised weights from a seed, zero biases; for timing, tests and dry runs."""
    generator = torch.Generator().manual_seed(seed)
    weights = preprocessing(*IMAGENET)
    inputs = 3
    for conv in conv_names(architecture):
        outputs = widths[int(conv[4]) - 1]
        shape = (outputs, inputs, 3, 3)
        weights[f"{conv}.weight"] = torch.randn(shape, generator=generator) * math.sqrt(2 / (9 * inputs))
        weights[f"{conv}.bias"] = torch.zeros(outputs)
        inputs = outputs
    return weights


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
        content = save({key: value.cpu().contiguous() for key, value in means.items()})
        write_atomically(cache, lambda file: file.write(content))
    except (OSError, ImageError) as error:  # no cache on this machine
        log.debug("the mean activations were not cached in %s: %s", cache.parent, error)
    return normalize_activations(encoder, means)


def photographs_for_normalizing(folder: str | os.PathLike[str], count: int = 100, size: int = 224) -> Iterable[Tensor]:
    """``count`` photographs spread evenly over a folder, shorter side ``size``, as images (1, 3, H, W)."""
    files = find_pictures(folder)
    count = min(count, len(files))
    for path in (files[index * len(files) // count] for index in range(count)):
        yield to_image(np.asarray(resize_shorter_side(open_visible(path), size)))
