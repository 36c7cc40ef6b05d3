"""The page in Chromium: pictures in by every way, Python's results, offline, and faults in words.

Needs Chromium, playwright, and the runtime, which npm fetches; skips without.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fststyle.images import save_image
from fststyle.inference import StylizeOptions, Stylizer
from fststyle.inference.predictor import predicted_style
from fststyle.model_file import find_model_file, read_metadata, style_names
from fststyle.web import build_site, runtime, serve

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
WAIT = 300_000  # milliseconds: machines are shared
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    try:
        folder = runtime.runtime_folder()
    except (OSError, RuntimeError) as error:
        pytest.skip(str(error))
    return build_site(tmp_path_factory.mktemp("page") / "site", runtime=folder, predictor="any")


@pytest.fixture(scope="module")
def browser(site: Path) -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *CAMERA])
        yield browser
        browser.close()


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    with serve(site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, loaded; at its end, nothing was asked of another host, and no error was left unsaid."""
    asked, failed = [], []
    with browser.new_context(accept_downloads=True, permissions=["camera"]) as context:
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(address)
        page.wait_for_selector("[data-ready]")
        yield page
    assert [url for url in asked if not url.startswith((address, f"blob:{address}", "data:"))] == []
    assert failed == []


@pytest.fixture
def photo(tmp_path: Path, astronaut: np.ndarray) -> Path:
    save_image(astronaut[:101, 150:270].copy(), tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def painting(tmp_path: Path, astronaut: np.ndarray) -> Path:
    """It takes the place of a painting; it is brought to 512 pixels."""
    save_image(astronaut[10:230, 130:430].copy(), tmp_path / "rocket.png")
    return tmp_path / "rocket.png"


def until(page: Any, expression: str) -> None:
    """Wait for an expression to hold, of the page, whose security policy lets nothing be evaluated by itself."""
    for _ in range(WAIT // 200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(200)
    raise AssertionError(f"{expression} never held; the page says {page.inner_text('#status')!r}")


def painted(page: Any) -> str:
    """Wait for a result; returns what the page says of it."""
    until(page, "document.getElementById('status').textContent.endsWith('shown.')")
    return str(page.inner_text("#status"))


def downloaded(page: Any) -> np.ndarray:
    with page.expect_download() as download:
        page.click("#download")
    return np.asarray(Image.open(download.value.path()).convert("RGB")).astype(int)


def pythons(photo: Path, style: str, options: StylizeOptions | None = None) -> np.ndarray:
    rgb = np.asarray(Image.open(photo).convert("RGB"))
    stylizer = Stylizer.from_checkpoint(style, "cpu", "torch", "float32")
    return stylizer.pixels(rgb, options or StylizeOptions()).astype(int)


def test_every_style_gives_the_picture_of_python(page: Any, photo: Path) -> None:
    names = style_names(read_metadata(find_model_file("zoo", "style")))
    page.set_input_files("#file", photo)
    for number, name in enumerate(names):
        page.locator(".style:not(.own)").nth(number).click()
        title = page.locator(".style:not(.own)").nth(number).inner_text()
        until(page, f"document.getElementById('status').textContent.startsWith('{title},')")
        painted(page)
        assert np.abs(downloaded(page) - pythons(photo, f"zoo/{name}")).max() <= 2, name
    assert len(names) == page.locator(".style:not(.own)").count()
    page.wait_for_selector(".style:last-child[data-ready]")


def test_strength_colours_and_a_second_style_are_those_of_python(page: Any, photo: Path) -> None:
    page.set_input_files("#file", photo)
    painted(page)
    page.select_option("#second", label="Wave")
    page.locator("#share").fill("25")
    painted(page)
    page.wait_for_selector("#progress", state="hidden")
    page.locator("#strength").fill("60")
    page.check("#colours")
    wanted = pythons(photo, "zoo/starry_night=3,wave=1", StylizeOptions(strength=0.6, preserve_color=True))
    assert np.abs(downloaded(page) - wanted).max() <= 2
    assert page.inner_text("#strength-value") == "60 %"


def test_a_file_is_dropped_and_another_pasted(page: Any, photo: Path) -> None:
    content = list(photo.read_bytes())
    for event, field in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.evaluate(
            """([content, event, field]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(content)], `${event}.png`, { type: "image/png" }));
                const Kind = event === "drop" ? DragEvent : ClipboardEvent;
                document.getElementById("status").textContent = "";
                document.dispatchEvent(new Kind(event, { [field]: data, bubbles: true, cancelable: true }));
            }""",
            [content, event, field],
        )
        assert "120 × 101 pixels shown" in painted(page)


def test_the_camera_gives_a_picture_and_is_switched_off(page: Any) -> None:
    page.click("#camera")
    until(page, "document.getElementById('video').videoWidth > 0")
    page.click("#take")
    painted(page)
    assert not page.is_visible("#camera-dialog")
    assert page.evaluate("document.getElementById('video').srcObject") is None
    page.click("#camera")
    page.click("#close-camera")  # before it shows anything, perhaps
    until(page, "!document.getElementById('camera-dialog').open")
    assert page.evaluate("document.getElementById('video').srcObject") is None


@contextlib.contextmanager
def kept_page(browser: Any, site: Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """The page in a browser that keeps it for use without a network, and what stops the server."""
    with browser.new_context() as context, serve(site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        until(page, "navigator.serviceWorker.controller !== null")

        def stop() -> None:
            server.shutdown()
            server.server_close()

        yield page, stop


def test_it_works_without_a_network_once_it_was_loaded(browser: Any, site: Path, photo: Path) -> None:
    with kept_page(browser, site) as (page, stop):
        stop()
        page.reload()
        page.wait_for_selector("[data-ready]")
        page.set_input_files("#file", photo)
        assert "Starry night" in painted(page)


def test_a_server_without_headers_is_done_with_one_thread_and_then_with_more(
    browser: Any, site: Path, photo: Path
) -> None:
    class Plain(http.server.SimpleHTTPRequestHandler):
        extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Plain, directory=str(site))
    with browser.new_context() as context, http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_selector("[data-ready]")
        page.set_input_files("#file", photo)
        painted(page)
        assert page.evaluate("document.documentElement.dataset.runtime") == "wasm, 1"
        until(page, "navigator.serviceWorker.controller !== null")
        page.reload()
        page.wait_for_selector("[data-ready]")
        assert page.evaluate("self.crossOriginIsolated")
        server.shutdown()


def test_a_photograph_of_twelve_megapixels_is_painted_and_saved_at_its_size(
    page: Any, astronaut: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(astronaut).resize((4000, 3000)).save(tmp_path / "large.jpg", quality=80)
    page.set_input_files("#file", tmp_path / "large.jpg")
    assert "512 × 384 pixels shown" in painted(page)
    sizes = page.locator("#size option").all_inner_texts()
    assert sizes[0] == "1024 × 768"
    assert sizes[-1].startswith("4000 × 3000, painted at 2366 × 1775")
    page.select_option("#size", sizes[0])
    assert downloaded(page).shape == (768, 1024, 3)


def test_what_is_no_picture_is_said_in_words(page: Any, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "words.jpg").write_text("no picture")
    save_image(np.zeros((16, 16, 3), np.uint8), tmp_path / "dot.png")
    Image.open(tmp_path / "dot.png").resize((9, 40)).save(tmp_path / "dot.png")
    for name, message in (
        ("words.jpg", "words.jpg: is no picture that this browser can open"),
        ("dot.png", "The picture is 9×40 pixels; expected at least 16 each way."),
    ):
        page.set_input_files("#file", tmp_path / name)
        page.wait_for_selector("#error:not([hidden])")
        assert message in page.inner_text("#error")
    page.set_input_files("#file", photo)
    painted(page)
    assert not page.is_visible("#error")


def test_the_keyboard_does_all(page: Any, photo: Path) -> None:
    page.set_input_files("#file", photo)
    painted(page)
    page.locator(".style[aria-checked=true]").focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.getElementById('status').textContent.startsWith('Wave')")
    assert page.evaluate("document.activeElement.getAttribute('aria-checked')") == "true"
    page.locator("#split").focus()
    page.keyboard.press("End")
    assert page.evaluate("getComputedStyle(document.getElementById('frame')).getPropertyValue('--split')") == "100%"
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, input, select, progress")].filter(
            (each) => !each.textContent.trim() && !each.ariaLabel && !each.labels?.length).map((each) => each.id)"""
    )
    assert unnamed == []


def test_an_own_painting_is_a_style_as_pythons_and_is_fetched_for_once_it_is_there(
    page: Any, photo: Path, painting: Path
) -> None:
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.wait_for_selector("[data-ready]")
    page.set_input_files("#file", photo)
    page.wait_for_selector(".style:last-child[data-ready]")
    assert asked
    assert [url for url in asked if "/own/" in url] == []
    page.set_input_files("#painting", painting)
    until(page, "document.getElementById('status').textContent.startsWith('Your own painting, ')")
    assert {url.rsplit("/", 1)[1] for url in asked if "/own/" in url} == {"paint.onnx", "predict.onnx", "noise.bin"}
    assert page.get_attribute(".own", "aria-checked") == "true"
    assert not page.is_visible("#mixing")
    rgb, style = np.asarray(Image.open(photo).convert("RGB")), str(predicted_style(painting))
    stylizer = Stylizer.from_checkpoint(style, "cpu", "openvino", "float32")
    assert_as_pythons(downloaded(page), stylizer.pixels(rgb))
    page.locator("#strength").fill("60")
    page.check("#colours")
    assert_as_pythons(downloaded(page), stylizer.pixels(rgb, StylizeOptions(strength=0.6, preserve_color=True)))
    page.locator("#stroke").fill("2")
    painted(page)
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "photo_rocket.png"


def assert_as_pythons(found: np.ndarray, wanted: np.ndarray) -> None:
    difference = np.abs(found - wanted)
    assert np.mean(difference <= 3) >= 0.99, f"mean {difference.mean():.2f}, most {difference.max()}"


def test_an_own_painting_is_taken_by_keyboard_dropped_and_pasted(page: Any, photo: Path, painting: Path) -> None:
    page.on("filechooser", lambda _: None)  # from now on it is caught, not only once the key is pressed
    page.locator(".style[aria-checked=true]").focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.classList.contains('own')")
    assert page.get_attribute(".own", "aria-checked") == "false"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(painting)
    until(page, "document.getElementById('status').textContent.endsWith('choose a photograph.')")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute(".own", "aria-checked") == "false"
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute(".own", "aria-checked") == "true"
    page.set_input_files("#file", photo)
    assert painted(page).startswith("Your own painting, 120 × 101")
    for event, field in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.locator(".own").focus()
        page.evaluate(
            """([content, event, field]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(content)], `${event}.png`, { type: "image/png" }));
                const Kind = event === "drop" ? DragEvent : ClipboardEvent;
                document.getElementById("status").textContent = "";
                const told = new Kind(event, { [field]: data, bubbles: true, cancelable: true });
                document.activeElement.dispatchEvent(told);
            }""",
            [list(photo.read_bytes()), event, field],
        )
        assert painted(page).startswith("Your own painting, 120 × 101")
        with page.expect_download() as download:
            page.click("#download")
        assert download.value.suggested_filename == f"photo_{event}.png"


def test_what_is_no_painting_is_said_in_words_and_changes_nothing(page: Any, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "words.jpg").write_text("no picture")
    save_image(np.zeros((16, 700, 3), np.uint8), tmp_path / "strip.png")
    Image.open(tmp_path / "strip.png").resize((9, 40)).save(tmp_path / "dot.png")
    for name, message in (
        ("words.jpg", "words.jpg: is no picture that this browser can open"),
        ("dot.png", "The picture is 9×40 pixels; expected at least 16 each way."),
        ("strip.png", "The painting is 700×16 pixels, too narrow; expected at most 32 times as long as wide."),
    ):
        page.set_input_files("#painting", tmp_path / name)
        page.wait_for_selector("#error:not([hidden])")
        assert message in page.inner_text("#error")
        page.evaluate("document.getElementById('error').hidden = true")
    assert page.locator(".own.vacant[aria-checked=false]").count() == 1
    page.set_input_files("#file", photo)
    assert painted(page).startswith("Starry night")


def test_own_paintings_are_taken_without_a_network_once_one_was(
    browser: Any, site: Path, photo: Path, painting: Path
) -> None:
    with kept_page(browser, site) as (page, stop):
        page.set_input_files("#painting", painting)
        page.set_input_files("#file", photo)
        painted(page)
        kept = (
            "caches.keys().then((all) => caches.open(all[0])).then((one) => one.match('own/noise.bin')).then(Boolean)"
        )
        until(page, kept)
        stop()
        page.reload()
        page.wait_for_selector("[data-ready]")
        page.set_input_files("#painting", photo)
        page.set_input_files("#file", painting)
        assert painted(page).startswith("Your own painting, 300 × 220")


def test_without_a_network_a_first_own_painting_is_refused_in_words(
    browser: Any, site: Path, photo: Path, painting: Path
) -> None:
    with kept_page(browser, site) as (page, stop):
        page.set_input_files("#file", photo)
        painted(page)
        stop()
        page.set_input_files("#painting", painting)
        page.wait_for_selector("#error:not([hidden])")
        assert page.inner_text("#error") == "own/paint.onnx cannot be loaded: there is no way to the page's server."
