"""The part of an encoder that travels in a model file, where a network needs features to be applied."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fststyle.encoders.vgg import VGGEncoder
from fststyle.model_file import ModelFile, ModelFileError


def truncated_encoder(encoder: VGGEncoder, layer: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An encoder up to ``layer``, and nothing deeper.

    Returns:
        Its weights, for ``save_model_file(encoder=…)``, and what stands in the metadata under ``encoder``.
    """
    encoder.check_layers([layer])
    reached = encoder.layers[: encoder.layers.index(layer) + 1]
    weights = {key: value for key, value in encoder.weights().items() if key.split(".")[0] in ("preprocess", *reached)}
    return weights, {**encoder.metadata, "layer": layer}


def encoder_in(checkpoint: ModelFile) -> VGGEncoder:
    """The encoder that a model file holds.

    Raises:
        KeyError, TypeError, ValueError: foreign metadata, or weights that do not fit them.
    """
    told = checkpoint.metadata["encoder"]
    return VGGEncoder(checkpoint.encoder, told["architecture"], told["pooling"], told["padding"], told["name"])


def unfit(checkpoint: ModelFile, error: Exception) -> ModelFileError:
    """What is said of a model file whose encoder and network do not fit each other."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    name = checkpoint.metadata.get("name", "the model file")
    return ModelFileError(f"{name}: does not hold what its kind, {checkpoint.metadata.get('kind')}, needs ({reason})")
