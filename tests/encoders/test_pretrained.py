"""Where encoder weights come from: torchvision's files, downloads over a loopback server, local files, caches."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import VGG16_Weights, VGG19_Weights

from fststyle.encoders import pretrained
from fststyle.encoders.files import save_encoder
from fststyle.encoders.pretrained import (
    SAME_WEIGHTS,
    encoder_of,
    load_encoder,
    photographs_for_normalizing,
    random_weights,
)
from fststyle.encoders.published import DEFAULT_WEIGHTS, PUBLISHED, Published, WeightsError, fetch
from fststyle.encoders.vgg import VGGEncoder, mean_activations
from fststyle.images import to_image
from fststyle.losses import measure_photographs
from fststyle.model_file import bundled_files, read_metadata
from fststyle.resources import file_sha256

WIDTHS = (4, 6, 8, 10, 12)
#: Where the convolutions stand in torchvision's ``features``.
PLACES = {
    "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    "vgg19": (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
}


def torchvision_state(architecture: str = "vgg16", seed: int = 0) -> dict[str, Tensor]:
    """A narrow network's state dict in torchvision's layout, with something of a classifier."""
    weights = random_weights(architecture, seed, WIDTHS)
    names = [key.removesuffix(".weight") for key in weights if key.startswith("conv") and key.endswith(".weight")]
    state = {"classifier.0.weight": torch.ones(2, 2), "classifier.0.bias": torch.ones(2)}
    for place, name in zip(PLACES[architecture], names, strict=True):
        state[f"features.{place}.weight"], state[f"features.{place}.bias"] = (
            weights[f"{name}.weight"],
            weights[f"{name}.bias"] + 0.1,
        )
    return state


def write(path: Path, architecture: str = "vgg16", seed: int = 0) -> Path:
    torch.save(torchvision_state(architecture, seed), path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def first_layer(state: dict[str, Tensor], image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """conv1_1 of an image that is normalised by hand."""
    x = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    return F.conv2d(x, state["features.0.weight"], state["features.0.bias"], padding=1)


@pytest.fixture
def image(astronaut: np.ndarray) -> Tensor:
    return to_image(np.ascontiguousarray(astronaut[0:192:4, 120:312:4]))


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    return write(tmp_path / "weights.pth")


# --- what torchvision publishes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "theirs"),
    [
        (("vgg16", "features"), VGG16_Weights.IMAGENET1K_FEATURES),
        (("vgg16", "imagenet"), VGG16_Weights.IMAGENET1K_V1),
        (("vgg19", "imagenet"), VGG19_Weights.IMAGENET1K_V1),
    ],
)
def test_published_weights_are_torchvisions(key: tuple[str, str], theirs: Any) -> None:
    ours, transforms = PUBLISHED[key], theirs.transforms()
    assert ours.url == theirs.url
    assert Path(ours.filename).stem.endswith(f"-{ours.sha256}")  # where torchvision keeps the hash, too
    assert len(ours.sha256) == 8
    assert ours.mean == pytest.approx(transforms.mean, rel=1e-12)
    assert ours.std == pytest.approx(transforms.std, rel=1e-12)


def test_nothing_else_is_published_and_the_defaults_are_the_papers_network_and_torchvisions() -> None:
    assert set(PUBLISHED) == {("vgg16", "features"), ("vgg16", "imagenet"), ("vgg19", "imagenet")}
    assert DEFAULT_WEIGHTS == {"vgg16": "features", "vgg19": "imagenet"}


# --- downloads ------------------------------------------------------------------------------------


class Server:
    """A loopback web server with one file, and a count of who asked for it."""

    def __init__(self) -> None:
        self.body = b""
        self.promised: int | None = None  # the length that is announced, if not that of the body
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                if not outer.body:
                    self.send_error(404)
                    return
                self.send_response(200)
                length = len(outer.body) if outer.promised is None else outer.promised
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    thread = threading.Thread(target=partial(server.http.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch's hub, and so the download, keeps weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def publish(server: Server, body: bytes, digest: str | None = None) -> Published:
    server.body = body
    digest = digest or hashlib.sha256(body).hexdigest()[:8]
    return replace(PUBLISHED["vgg16", "features"], url=f"{server.address}/models/narrow-{digest}.pth", sha256=digest)


def test_published_weights_are_downloaded_once_and_loaded(
    server: Server, hub: Path, weights_file: Path, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish(server, weights_file.read_bytes())
    monkeypatch.setitem(PUBLISHED, ("vgg16", "features"), published)
    encoder = load_encoder("vgg16")
    assert server.requests == [f"/models/{published.filename}"]
    assert [path.name for path in hub.iterdir()] == [published.filename]
    assert (hub / published.filename).read_bytes() == weights_file.read_bytes()
    assert (encoder.name, encoder.digest) == ("vgg16-features", sha256(weights_file))
    expected = first_layer(torchvision_state(), image, (0.48235, 0.45882, 0.40784), (1 / 255,) * 3)
    torch.testing.assert_close(encoder(image, ["conv1_1"])["conv1_1"], expected, rtol=1e-4, atol=1e-3)

    again = load_encoder("vgg16", "features")
    assert len(server.requests) == 1
    assert torch.equal(again.weights()["conv5_3.weight"], encoder.weights()["conv5_3.weight"])


def test_a_downloaded_file_has_the_users_ordinary_permissions(server: Server, hub: Path) -> None:
    """The hub's folder is often shared between the users of a cluster."""
    before = os.umask(0o022)
    try:
        path = fetch(publish(server, b"weights"))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_download_of_another_hash_is_refused_and_nothing_is_left(server: Server, hub: Path) -> None:
    published = publish(server, b"not what was expected", digest="00000000")
    found = hashlib.sha256(b"not what was expected").hexdigest()[:8]
    with pytest.raises(WeightsError, match=rf'invalid hash value \(expected "00000000", got "{found}') as caught:
        fetch(published)
    assert_advises(caught.value, published, hub)
    assert not list(hub.iterdir())


def test_a_transfer_that_breaks_off_leaves_nothing(server: Server, hub: Path) -> None:
    published = publish(server, b"w" * 5000)
    server.body, server.promised = b"w" * 3000, 5000
    with pytest.raises(WeightsError, match="invalid hash value") as caught:
        fetch(published)
    assert_advises(caught.value, published, hub)
    assert not list(hub.iterdir())
    server.body, server.promised = b"w" * 5000, None
    assert fetch(published).read_bytes() == b"w" * 5000


def test_a_file_the_server_does_not_have_is_named(server: Server, hub: Path) -> None:
    published = publish(server, b"", digest="12345678")
    with pytest.raises(WeightsError, match=r"narrow-12345678.pth could not be downloaded \(Not Found\)") as caught:
        fetch(published)
    assert_advises(caught.value, published, hub)


def test_without_a_connection_the_message_says_what_to_fetch_and_which_option_takes_a_file(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as closed:  # bound but not listening: refused at once, and nobody else's
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/vgg16-12345678.pth"
        published = replace(PUBLISHED["vgg16", "features"], url=url, sha256="12345678")
        with pytest.raises(WeightsError, match=r"vgg16-12345678.pth could not be downloaded \(.*refused") as caught:
            fetch(published)
    assert_advises(caught.value, published, hub)
    assert not list(hub.iterdir())


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n", b""])
def test_something_else_than_a_web_server_is_no_traceback(
    hub: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reply() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=reply, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/vgg16-12345678.pth"
        published = replace(PUBLISHED["vgg16", "features"], url=url, sha256="12345678")
        with pytest.raises(WeightsError, match="could not be downloaded") as caught:
            fetch(published)
        thread.join()
    assert_advises(caught.value, published, hub)
    assert not list(hub.iterdir())


def test_a_hub_folder_that_cannot_be_made_is_no_traceback(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"could not be downloaded .*encoder\.weights=FILE"):
        fetch(publish(server, b"weights"))


def test_a_damaged_copy_in_the_hub_folder_is_named_and_not_used(server: Server, hub: Path) -> None:
    published = publish(server, b"weights")
    path = fetch(published)
    path.write_bytes(b"weight")
    with pytest.raises(WeightsError, match=rf"{path}: its SHA-256 begins with .*; delete it and fetch it again"):
        fetch(published)
    assert len(server.requests) == 1


def assert_advises(error: WeightsError, published: Published, hub: Path) -> None:
    message = str(error)
    assert f"fetch {published.url} on a machine with internet into {hub}" in message
    assert "encoder.weights=FILE" in message
    assert message.endswith("encoder=slim")
    assert "\n" not in message


# --- local files ----------------------------------------------------------------------------------


def test_a_local_copy_of_a_published_file_is_known_by_its_hash(
    weights_file: Path, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    caffe = ((0.48235, 0.45882, 0.40784), (1 / 255,) * 3)
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def loads_as(statistics: tuple[tuple[float, ...], tuple[float, ...]], **options: Any) -> None:
        expected = first_layer(torchvision_state(), image, *statistics)
        found = load_encoder("vgg16", weights_file, **options)(image, ["conv1_1"])["conv1_1"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))

    loads_as(imagenet)  # nobody knows it
    loads_as(caffe, preprocess="caffe")
    known = replace(PUBLISHED["vgg16", "features"], sha256=sha256(weights_file)[:8])
    monkeypatch.setitem(PUBLISHED, ("vgg16", "features"), known)
    loads_as(caffe)
    loads_as(imagenet, preprocess="imagenet")


def test_what_a_local_file_says_of_itself_goes_into_the_metadata(weights_file: Path) -> None:
    encoder = load_encoder("vgg16", weights_file)
    assert (encoder.name, encoder.digest, encoder.architecture) == ("weights", sha256(weights_file), "vgg16")
    assert (encoder.pooling, encoder.padding) == ("max", "zeros")
    other = load_encoder("vgg16", str(weights_file), pooling="average", padding="reflect")
    assert (other.pooling, other.padding) == ("average", "reflect")


def test_torchvisions_layout_as_safetensors_is_the_same(weights_file: Path, tmp_path: Path, image: Tensor) -> None:
    save_file(torchvision_state(), tmp_path / "weights.safetensors")
    pth, tensors = (load_encoder("vgg16", tmp_path / f"weights{s}") for s in (".pth", ".safetensors"))
    assert pth.layers == tensors.layers
    assert torch.equal(pth(image, ["relu5_3"])["relu5_3"], tensors(image, ["relu5_3"])["relu5_3"])


def test_layers_by_name_bring_their_own_normalisation_and_padding(tmp_path: Path, image: Tensor) -> None:
    weights = random_weights("vgg16", widths=WIDTHS)
    weights["preprocess.weight"] = torch.tensor([[0.0, 0, 255], [0, 255, 0], [255, 0, 0]])  # to BGR
    weights["preprocess.bias"] = torch.tensor([-104.0, -117, -124])
    plain = {**weights, "preprocess.weight": weights["preprocess.weight"].view(3, 3, 1, 1)}
    save_file(plain, tmp_path / "plain.safetensors")
    save_file({**weights, "to_vgg19.relu1_1.weight": torch.ones(64, 4, 1, 1)}, tmp_path / "distilled.safetensors")
    encoder = load_encoder("vgg16", tmp_path / "plain.safetensors")
    bgr = 255 * image.flip(1) - torch.tensor([104.0, 117, 124]).view(3, 1, 1)
    expected = F.conv2d(bgr, weights["conv1_1.weight"], padding=1)
    torch.testing.assert_close(encoder(image, ["conv1_1"])["conv1_1"], expected, rtol=1e-4, atol=1e-2)
    assert encoder.padding == "zeros"
    assert load_encoder("vgg16", tmp_path / "distilled.safetensors").padding == "reflect"
    assert load_encoder("vgg16", tmp_path / "distilled.safetensors", padding="zeros").padding == "zeros"


class Marker:
    """An object whose unpickling makes a folder: what a hostile file could do with anything else."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    marker, path = tmp_path / "ran", tmp_path / "hostile.pth"
    content = {**torchvision_state(), "features.99.weight": Marker(marker)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(WeightsError, match=r"hostile\.pth: is no \.pth file of tensors only, and was not unpickled$"):
        load_encoder("vgg16", path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert marker.exists()  # it would have


def without(*keys: str) -> dict[str, Tensor]:
    return {key: value for key, value in torchvision_state().items() if key not in keys}


def by_name(**changed: Tensor) -> dict[str, Tensor]:
    return {**random_weights("vgg16", widths=WIDTHS), **{k.replace("__", "."): v for k, v in changed.items()}}


BAD_STATES: dict[str, tuple[Any, str]] = {
    "another network": ({"layer1.0.weight": torch.ones(1)}, "has tensors layer1.0.weight, …; expected torchvision's"),
    "empty": ({}, "has tensors none, …; expected torchvision's names"),
    "a list": ([torch.ones(1)], "holds list; expected a state dict of tensors"),
    "numbers": ({"features.0.weight": 3}, "holds dict; expected a state dict of tensors"),
    "no bias": (without("features.5.bias"), "lacks conv2_1.bias of vgg16; is it the file of another network?"),
    "a gap": (without("features.5.weight"), "lacks conv2_1.weight of vgg16; is it the file of another network?"),
    "vgg19's": (torchvision_state("vgg19"), "lacks conv4_1.weight of vgg16; is it the file of another network?"),
    "grey input": (
        torchvision_state() | {"features.0.weight": torch.ones(4, 1, 3, 3)},
        "conv1_1.weight is (4, 1, 3, 3) for vgg16; expected (4, 3, 3, 3)",
    ),
    "5×5": (
        torchvision_state() | {"features.2.weight": torch.ones(4, 4, 5, 5)},
        "conv1_2.weight is (4, 4, 5, 5) for vgg16; expected (4, 4, 3, 3)",
    ),
    "channels": (
        torchvision_state() | {"features.5.weight": torch.ones(6, 5, 3, 3)},
        "conv2_1.weight is (6, 5, 3, 3) for vgg16; expected (6, 4, 3, 3)",
    ),
    "scalar": (
        torchvision_state() | {"features.0.weight": torch.tensor(1.0)},
        "conv1_1.weight is () for vgg16; expected (0, 3, 3, 3)",
    ),
    "bias": (
        torchvision_state() | {"features.0.bias": torch.ones(5)},
        "conv1_1.bias is (5,) for vgg16; expected (4,)",
    ),
    "preprocess": (
        by_name(preprocess__weight=torch.ones(4, 3)),
        "preprocess.weight is (4, 3) for vgg16; expected (3, 3)",
    ),
    "preprocess bias": (
        by_name(preprocess__bias=torch.ones(1)),
        "preprocess.bias is (1,) for vgg16; expected (3,)",
    ),
}


@pytest.mark.parametrize("kind", BAD_STATES)
def test_weights_of_another_make_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    state, message = BAD_STATES[kind]
    path = tmp_path / "bad.pth"
    torch.save(state, path)
    assert_refused(path, message)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"some text\n", b"\x89PNG\r\n\x1a\n" + bytes(64), b"PK\x03\x04 no zip"], ids=repr
)
def test_a_file_that_is_no_weights_is_refused_in_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    assert_refused(path, "")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    torch.save(torchvision_state(), path) if suffix == ".pth" else save_file(torchvision_state(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert_refused(path, "cannot be read as encoder weights (")


def test_a_missing_file_or_a_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    assert_refused(tmp_path / "missing.pth", "no such file; expected encoder weights (.pth or .safetensors)")
    (tmp_path / "folder.pth").mkdir()
    assert_refused(tmp_path / "folder.pth", "")


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_encoder("vgg16", path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vgg16", "caffe"), "vgg16 has no weights 'caffe'; expected features, imagenet, slim, random, or a file"),
        (("vgg19", "features"), "vgg19 has no weights 'features'; expected imagenet, slim, random, or a file"),
        (("vgg11",), "architecture is 'vgg11'; expected one of vgg16, vgg19"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_encoder(*arguments)
    assert str(caught.value) == message


def test_an_unknown_way_to_preprocess_is_refused(weights_file: Path) -> None:
    with pytest.raises(WeightsError, match=r"^preprocess is 'bgr'; expected imagenet or caffe$"):
        load_encoder("vgg16", weights_file, preprocess="bgr")


# --- random weights -------------------------------------------------------------------------------


def test_random_weights_warn_that_the_pictures_will_not_be_real(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="fststyle"):
        encoder = load_encoder("vgg16", "random", widths=WIDTHS)
    assert [entry.levelname for entry in caplog.records] == ["WARNING"]
    assert "random weights: the pictures will not look like the style" in caplog.text
    assert encoder.digest == ""


def test_files_do_not_warn(weights_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_encoder("vgg16", weights_file)
    assert not caplog.records


def test_random_weights_are_a_function_of_the_seed_alone(image: Tensor) -> None:
    def features(seed: int) -> Tensor:
        torch.manual_seed(torch.randint(1000, ()).item())  # whatever the state of the global generator
        return load_encoder("vgg16", "random", seed=seed, widths=WIDTHS)(image, ["relu5_1"])["relu5_1"]

    torch.manual_seed(1)
    first = features(7)
    torch.manual_seed(2)
    assert torch.equal(features(7), first)
    assert not torch.equal(features(8), first)


def test_random_weights_neither_use_nor_move_the_global_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load_encoder("vgg19", "random", widths=WIDTHS)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_weights_keep_the_signals_size() -> None:
    encoder = load_encoder("vgg19", "random", widths=(32,) * 5)
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    taps = encoder(noise, ["conv1_2", "conv5_1"])
    assert 0.1 < taps["conv5_1"].std() / taps["conv1_2"].std() < 10


# --- normalisation on photographs, and its cache --------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the means go; the folder is not there yet."""
    monkeypatch.setenv("FSTSTYLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "normalize"


def mean_of(encoder: VGGEncoder, image: Tensor, layer: str = "relu1_2") -> Tensor:
    return encoder(image, [layer])[layer].mean((0, 2, 3))


def test_normalising_on_images_brings_their_mean_activations_to_one(weights_file: Path, image: Tensor) -> None:
    encoder = load_encoder("vgg16", weights_file, normalize=[image])
    torch.testing.assert_close(mean_of(encoder, image), torch.ones(4), rtol=1e-4, atol=0)
    assert encoder.name == "weights+normalized"
    assert encoder.digest == sha256(weights_file)


def test_images_may_come_as_one_batch_or_several(weights_file: Path, image: Tensor, tmp_path: Path) -> None:
    batch = torch.cat([image, image.flip(2)])
    as_one, as_two = (load_encoder("vgg16", weights_file, normalize=n) for n in (batch, [image, image.flip(2)]))
    torch.testing.assert_close(mean_of(as_one, batch), torch.ones(4), rtol=1e-4, atol=0)
    torch.testing.assert_close(mean_of(as_two, image), mean_of(as_one, image))


def test_the_means_are_cached_in_the_users_folder_and_used_the_second_time(
    weights_file: Path, photographs: Path, image: Tensor, cache: Path
) -> None:
    first = mean_of(load_encoder("vgg16", weights_file, normalize=photographs), image)
    (kept,) = cache.iterdir()
    assert {path.name for path in weights_file.parent.iterdir()} == {weights_file.name, "cache"}
    again = mean_of(load_encoder("vgg16", weights_file, normalize=str(photographs)), image)
    assert torch.equal(again, first)
    save_file({key: 2 * value for key, value in load_file(kept).items()}, kept)
    tampered = mean_of(load_encoder("vgg16", weights_file, normalize=photographs), image)
    torch.testing.assert_close(tampered, first / 2)


def test_the_cache_belongs_to_these_pictures_these_weights_and_these_options(
    weights_file: Path, image: Tensor, cache: Path
) -> None:
    options: list[dict[str, Any]] = [
        {"normalize": [image]},
        {"normalize": [image.flip(3)]},
        {"normalize": [image, image]},
        {"normalize": [image], "pooling": "average"},
        {"normalize": [image], "padding": "reflect"},
        {"normalize": [image], "preprocess": "caffe"},
    ]
    for count, option in enumerate(options, 1):
        load_encoder("vgg16", weights_file, **option)
        assert len(list(cache.iterdir())) == count, option
    write(weights_file, seed=5)  # another file of the same name
    encoder = load_encoder("vgg16", weights_file, normalize=[image])
    torch.testing.assert_close(mean_of(encoder, image), torch.ones(4), rtol=1e-4, atol=0)
    assert len(list(cache.iterdir())) == len(options) + 1


def test_a_copy_of_the_weights_shares_the_cache(weights_file: Path, image: Tensor, cache: Path) -> None:
    for path in (weights_file, weights_file.with_name("copy.pth")):
        path.write_bytes(weights_file.read_bytes())
        load_encoder("vgg16", path, normalize=[image])
    assert len(list(cache.iterdir())) == 1


def test_means_of_random_weights_are_not_cached(
    tmp_path: Path, image: Tensor, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = load_encoder("vgg16", "random", widths=WIDTHS, normalize=[image])
    torch.testing.assert_close(mean_of(encoder, image), torch.ones(4), rtol=1e-4, atol=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["a file is in the way", "the disk is full"])
def test_a_cache_that_cannot_be_written_is_done_without(
    fault: str, weights_file: Path, image: Tensor, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "a file is in the way":  # who runs as root may write into every folder
        cache.parent.write_text("in the way")
    else:

        def full(*_: Any) -> None:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        monkeypatch.setattr(pretrained, "save_file", full)
    encoder = load_encoder("vgg16", weights_file, normalize=[image])
    torch.testing.assert_close(mean_of(encoder, image), torch.ones(4), rtol=1e-4, atol=0)
    assert {path.name for path in weights_file.parent.iterdir()} == {weights_file.name, "cache"}
    assert not cache.is_dir() or not list(cache.iterdir())


@pytest.mark.parametrize("left", [0, 4, 100])
def test_a_damaged_cache_is_made_anew(left: int, weights_file: Path, image: Tensor, cache: Path) -> None:
    load_encoder("vgg16", weights_file, normalize=[image])
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:left])
    encoder = load_encoder("vgg16", weights_file, normalize=[image])
    torch.testing.assert_close(mean_of(encoder, image), torch.ones(4), rtol=1e-4, atol=0)
    assert kept.read_bytes() == whole


def test_photographs_to_normalise_on_are_spread_over_the_folder(tmp_path: Path) -> None:
    """Grey pictures of level 10, 20, …, 70: of seven, five reach from the first to the last but one at least."""
    from PIL import Image

    for level in range(10, 80, 10):
        Image.new("L", (40, 32), level).save(tmp_path / f"{level}.png")
    chosen = list(photographs_for_normalizing(tmp_path, count=5, size=16))
    assert all(picture.shape == (1, 3, 16, 20) for picture in chosen)
    levels = [round(255 * picture.mean().item()) for picture in chosen]
    assert len(set(levels)) == 5
    assert levels[0] == 10
    assert levels[-1] >= 60
    everything = [round(255 * p.mean().item()) for p in photographs_for_normalizing(tmp_path, size=16)]
    assert everything == list(range(10, 80, 10))


def test_a_folder_without_pictures_is_refused_by_name(weights_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: has no pictures in it"):
        load_encoder("vgg16", weights_file, normalize=tmp_path / "empty")


# --- the small bundled encoders -------------------------------------------------------------------


@pytest.fixture
def slim() -> VGGEncoder:
    return load_encoder("vgg19", "slim")


@pytest.mark.parametrize(
    ("architecture", "padding", "taps"),
    [
        (
            "vgg19",
            "reflect",
            {"relu1_1": 16, "relu2_1": 32, "relu3_1": 64, "relu3_3": 64, "relu4_1": 128, "relu5_1": 128},
        ),
        ("vgg16", "zeros", {"relu1_2": 16, "relu2_2": 32, "relu3_1": 64, "relu3_3": 64, "relu4_3": 128}),
    ],
)
def test_a_slim_encoder_is_small_and_reaches_what_losses_tap(
    architecture: str, padding: str, taps: dict[str, int]
) -> None:
    encoder = load_encoder(architecture, "slim")
    path = bundled_files("encoder")[f"{architecture}_slim"]
    assert path.stat().st_size <= 4_200_000
    assert encoder.name == f"{architecture}-slim"
    assert encoder.digest == file_sha256(path)
    widths = {layer: value.shape[1] for layer, value in encoder(torch.rand(1, 3, 32, 32), encoder.layers).items()}
    assert taps.items() <= widths.items()
    assert encoder.padding == padding


@pytest.mark.parametrize("name", ["vgg19_slim", "vgg16_slim"])
def test_a_slim_encoder_tells_where_it_comes_from(name: str) -> None:
    metadata = read_metadata(bundled_files("encoder")[name])
    assert metadata["kind"] == "encoder"
    assert "Copyright (c) 2020 Huan Wang" in metadata["teacher"]["notice"]
    assert "shall be included in all" in metadata["teacher"]["notice"]
    assert len(metadata["teacher"]["sha256"]) == 64
    assert "distill_encoder.py" in metadata["command"]


@pytest.mark.slow
def test_the_slim_encoder_knows_photographs(slim: VGGEncoder, data: Path) -> None:
    """Activations of mean 1, but for filters that hardly ever fire; and what it knows is what photographs measure."""
    images = [image[..., :256, :256] for image in photographs_for_normalizing(data / "photos/preview", 12, 256)]
    means = mean_activations(slim, images)
    for conv in ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"):
        firing = means[conv][means[conv] > 0.5]
        assert len(firing) >= len(means[conv]) / 4, conv
        assert firing.mean().item() == pytest.approx(1, abs=0.25), conv
    known = slim.photographs
    assert known is not None
    measured = measure_photographs(slim, [torch.cat(images)])
    for layer in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"):
        assert measured.content[layer] == pytest.approx(known.content[layer], rel=0.5)
        assert measured.gram_energies[layer] == pytest.approx(known.gram_energies[layer], rel=0.8)


def test_a_change_of_pooling_or_padding_forgets_the_photographs() -> None:
    assert load_encoder("vgg16", "slim").photographs is not None
    assert load_encoder("vgg16", "slim", pooling="average").photographs is None
    assert load_encoder("vgg16", "slim", padding="reflect").photographs is None
    assert load_encoder("vgg19", "slim", padding="zeros").photographs is None


def test_an_encoder_is_saved_and_loaded(tmp_path: Path, encoder: VGGEncoder) -> None:
    known = measure_photographs(encoder, [torch.rand(3, 3, 32, 32)])
    save_encoder(tmp_path / "small.safetensors", encoder, {"kind": "encoder", "name": "small"}, known)
    again = load_encoder("vgg16", tmp_path / "small.safetensors")
    assert again.name == "small"
    for key, value in encoder.weights().items():
        torch.testing.assert_close(again.weights()[key], value, rtol=1e-3, atol=1e-6)
    assert again.photographs is not None
    assert again.photographs.content == known.content
    torch.testing.assert_close(again.photographs.grams["relu3_3"], known.grams["relu3_3"])
    assert again.photographs.quantile_energies == known.quantile_energies
    assert {"relu1_1", "relu3_1/2"} <= again.photographs.quantiles.keys()
    for name, quantiles in known.quantiles.items():
        torch.testing.assert_close(again.photographs.quantiles[name], quantiles, rtol=1e-3, atol=1e-6)
    assert (again.photographs.count, again.photographs.size) == (3, 32)


def test_unknown_weights_name_the_slim_ones_too() -> None:
    with pytest.raises(WeightsError, match="vgg16 has no weights 'caffe'; expected features, imagenet, slim, random"):
        load_encoder("vgg16", "caffe")
    with pytest.raises(WeightsError, match="vgg19 has no weights 'caffe'; expected imagenet, slim, random, or a file"):
        load_encoder("vgg19", "caffe")


# --- the encoder of a checkpoint ------------------------------------------------------------------


def told(encoder: VGGEncoder, **changes: Any) -> dict[str, Any]:
    metadata = {key: getattr(encoder, key) for key in ("name", "architecture", "pooling", "padding")}
    return {"name": "rain", "encoder": {**metadata, "sha256": encoder.digest, **changes}}


def test_a_checkpoints_encoder_is_found_by_its_name(slim: VGGEncoder) -> None:
    found = encoder_of(told(slim))
    assert (found.name, found.digest) == (slim.name, slim.digest)


def test_a_checkpoints_encoder_of_another_file_is_refused(slim: VGGEncoder) -> None:
    with pytest.raises(WeightsError, match="rain was trained with 0000"):
        encoder_of(told(slim, sha256="0" * 64))


def test_the_bundled_encoder_before_it_knew_quantiles_is_the_same() -> None:
    slim = load_encoder("vgg19", "slim")
    before = next(iter(SAME_WEIGHTS))
    assert SAME_WEIGHTS[before] == slim.digest
    assert encoder_of(told(slim, sha256=before)).digest == slim.digest


def test_a_local_or_scaled_encoder_must_be_given(slim: VGGEncoder) -> None:
    with pytest.raises(WeightsError, match="rain was trained with mine, which does not come with fststyle"):
        encoder_of(told(slim, name="mine"))
    with pytest.raises(WeightsError, match="filters scaled on photographs; give their folder: --normalize FOLDER"):
        encoder_of(told(slim, name="vgg19-slim+normalized"))
    beside = bundled_files("encoder")["vgg19_slim"].parent
    there = set(beside.iterdir())
    scaled = encoder_of(told(slim, name="vgg19-slim+normalized"), normalize=torch.rand(2, 3, 64, 64))
    assert scaled.name == "vgg19-slim+normalized"
    assert set(beside.iterdir()) == there, "a cache was left among what is bundled"
