"""Files of encoder weights: torchvision's layout, layers by name, and our own with calibration statistics."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fststyle.checks import absent
from fststyle.encoders.published import CAFFE, IMAGENET, PUBLISHED, WeightsError
from fststyle.encoders.vgg import PhotographStatistics, VGGEncoder, conv_names, layer_names
from fststyle.model_file import ModelFileError, load_tensors, read_metadata, write_tensors
from fststyle.resources import file_sha256
from fststyle.tensor_files import compact, fold, under, unfold


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
    known = {"imagenet": IMAGENET, "caffe": CAFFE}
    if preprocess is not None:
        if preprocess not in known:
            raise WeightsError(f"preprocess is {preprocess!r}; expected imagenet or caffe")
        return known[preprocess]
    digest = file_sha256(path)
    for published in PUBLISHED.values():
        if digest.startswith(published.sha256):
            return published.mean, published.std
    return IMAGENET


def _read_state(path: Path) -> Mapping[str, Tensor]:
    if path.is_dir():
        raise WeightsError(f"{path}: is a folder; expected encoder weights (.pth or .safetensors)")
    if not path.is_file():
        raise WeightsError(absent(path, "encoder weights (.pth or .safetensors)"))
    try:
        state = load_tensors(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
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


def preprocessing(mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Tensor]:
    """(x - mean) / std as a 1×1 convolution."""
    shift, scale = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    return {"preprocess.weight": torch.diag(1 / scale), "preprocess.bias": -shift / scale}


def save_encoder(
    path: str | os.PathLike[str], encoder: VGGEncoder, metadata: Mapping[str, Any], photographs: PhotographStatistics
) -> None:
    """Write an encoder as one model file: weights (float16), what photographs measure in it, and its metadata.

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
    except ModelFileError:
        return {}  # a file of another origin


def read_statistics(path: Path) -> PhotographStatistics | None:
    measured = _encoder_metadata(path).get("photographs")
    if measured is None:
        return None
    tensors = load_tensors(path)
    grams = {layer: unfold(value) for layer, value in under(tensors, "photographs.gram.").items()}
    quantiles = {name: value[None].float() for name, value in under(tensors, "photographs.quantiles.").items()}
    return PhotographStatistics(grams=grams, quantiles=quantiles, **measured)
