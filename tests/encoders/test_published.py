"""What torchvision publishes, and how it is downloaded."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import VGG16_Weights, VGG19_Weights

from encoder_weights import first_layer, sha256, torchvision_state
from fststyle.encoders.pretrained import load_encoder
from fststyle.encoders.published import DEFAULT_WEIGHTS, PUBLISHED, Published, WeightsError, fetch

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


# --- downloads ------------------------------------------------------------------------------------


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
