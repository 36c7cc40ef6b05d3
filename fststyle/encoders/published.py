"""The weights that torchvision publishes, downloaded once and checked by hash."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from pathlib import Path

import torch

from fststyle.resources import file_sha256


class WeightsError(ValueError):
    """Encoder weights that cannot be had or used; the message says what to do."""


@dataclass(frozen=True)
class Published:
    """Weights that torchvision publishes: the file, its hash and the normalisation it expects."""

    architecture: str
    weights: str
    url: str
    sha256: str  # its first 8 digits stand at the end of the file's name
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[1]


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE = ((0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255))
_HOST = "https://download.pytorch.org/models/"

#: (architecture, weights) to what torchvision publishes. ``features``: the Caffe network that the
#: papers used; ``imagenet``: torchvision's own training (IMAGENET1K_V1).
PUBLISHED = {
    (p.architecture, p.weights): p
    for p in (
        Published("vgg16", "features", _HOST + "vgg16_features-amdegroot-88682ab5.pth", "88682ab5", *CAFFE),
        Published("vgg16", "imagenet", _HOST + "vgg16-397923af.pth", "397923af", *IMAGENET),
        Published("vgg19", "imagenet", _HOST + "vgg19-dcbb9e9d.pth", "dcbb9e9d", *IMAGENET),
    )
}
#: The weights that an architecture gets when none are named.
DEFAULT_WEIGHTS = {"vgg16": "features", "vgg19": "imagenet"}


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
        torch.hub.download_url_to_file(published.url, str(target), published.sha256)
    except (OSError, http.client.HTTPException, RuntimeError) as error:  # RuntimeError: another hash
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
