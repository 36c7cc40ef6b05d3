"""What the tests share: small networks and encoders, photographs of scikit-image, and data where it exists."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fake_hub import TOKEN, FakeHub
from fststyle.encoders.pretrained import random_weights
from fststyle.encoders.vgg import VGGEncoder
from fststyle.images import save_image
from fststyle.networks.transform import TransformNet

ROOT = Path(__file__).resolve().parent.parent
#: Photographs, paintings and weights that lie beside a developer's checkout; tests skip without them.
DATA = Path(os.environ.get("FSTSTYLE_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def data() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"no data folder at {DATA}")
    return DATA


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own, also for the commands that they start."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSTSTYLE_CACHE", str(folder))
        yield folder


@pytest.fixture
def encoder() -> VGGEncoder:
    """A narrow VGG-16 with random weights."""
    return VGGEncoder(random_weights("vgg16", widths=(4, 6, 8, 10, 12)), "vgg16")


@pytest.fixture
def network() -> TransformNet:
    torch.manual_seed(0)
    return TransformNet(width=4, residual_blocks=1)


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A photograph that comes with scikit-image, uint8 (512, 512, 3)."""
    from skimage import data as pictures

    return np.asarray(pictures.astronaut())


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray) -> Path:
    """A folder of a dozen small photographs, cut from one."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for index in range(12):
        top, left = rng.integers(0, 512 - 96, 2)
        save_image(astronaut[top : top + 96, left : left + 80].copy(), folder / f"{index:02d}.jpg")
    return folder


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hugging Face Hub on this machine, its user logged in, and huggingface_hub's cache empty."""
    from huggingface_hub import constants

    found, home = FakeHub(), tmp_path_factory.mktemp("huggingface")
    plain = {"HF_ENDPOINT": found.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    for name, value in {**plain, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}.items():
        monkeypatch.setenv(name, value)
    read_at_import = {
        **{
            "ENDPOINT": found.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": found.url + "/{repo_id}/resolve/{revision}/{filename}",
        },
        **{"HF_HUB_CACHE": str(home / "hub"), "HF_TOKEN_PATH": str(home / "token")},
    }
    for name, value in {**read_at_import, "HF_HUB_DISABLE_XET": True, "HF_HUB_OFFLINE": False}.items():
        monkeypatch.setattr(constants, name, value, raising=False)
    yield found
    found.close()
