"""The served page in a browser: asked by the keyboard alone, on a phone and a desk, by day and by night."""

import io
import shutil
import socket
import threading

import clients
import pytest
from PIL import Image

from generalist.cli import main

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("faiss", reason="needs the extra serve")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve")
play = pytest.importorskip("playwright.sync_api", reason="needs the extra test")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)")
expect = play.expect
expect.set_options(timeout=30_000)  # ms: of a busy machine
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def address(tmp_path_factory, small_run):
    """The page of a small model that ranks, with an index of four pictures."""
    from generalist.serve.app import app_of

    home, model = tmp_path_factory.mktemp("page"), small_run / "model"
    (home / "things").mkdir()
    for seed in range(4):
        Image.fromarray(clients.picture(16, 16, seed)).save(home / "things" / f"{seed}.png")
    place = home / "index"
    assert main(["index", str(model), str(home / "things"), "--out", str(place), "--quiet"]) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app_of(model, {}, index=place), port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def browser():
    with play.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def png(seed: int) -> dict[str, object]:
    out = io.BytesIO()
    Image.fromarray(clients.picture(16, 16, seed)).save(out, "PNG")
    return {"name": f"{seed}.png", "mimeType": "image/png", "buffer": out.getvalue()}


def reach(page, name: str) -> None:
    """Press Tab until the element is focused."""
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == name:
            return
    raise AssertionError(f"the keyboard does not reach {name}")


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), ({"width": 1280, "height": 900}, "light")])
def test_a_question_asked_by_the_keyboard_alone(address, browser, size, scheme):
    page = browser.new_page(viewport=size, color_scheme=scheme)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(error))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    own = (address, "data:")
    page.on("request", lambda request: None if request.url.startswith(own) else wrong.append(request.url))
    # heard from the start: Chromium is told to hand choosers over without waiting for its word that it will
    page.on("filechooser", lambda chooser: chooser.set_files(png(2)))
    page.goto(address)
    expect(page.locator("#about")).to_contain_text("modalities")
    page.select_option("#modality", "image")
    reach(page, "drop")
    page.keyboard.press("Enter")
    expect(page.locator("#hint")).to_have_text("2.png")
    reach(page, "candidates")
    page.keyboard.type("seven\nnine\na red square")
    reach(page, "ask")
    page.keyboard.press("Enter")
    expect(page.locator(".answer")).to_have_count(3)
    shares = [float(text.rstrip(" %")) for text in page.locator(".answer b").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=0.3) and shares == sorted(shares, reverse=True)
    assert page.evaluate("document.activeElement.id") == "ask"  # where one was, so that one can ask again
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing is cut off at the side
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == (scheme == "dark")
    page.focus("#candidates")
    page.keyboard.press("Control+A")
    page.keyboard.type("seven\nnine")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".answer")).to_have_count(2)
    assert not wrong, wrong
    page.close()


def test_what_is_most_like_a_picture_is_shown(address, browser):
    page = browser.new_page(viewport=PHONE)
    page.goto(address)
    page.set_input_files("#file", png(3))
    page.select_option("#way", "nearest")
    expect(page.locator("#candidatesLabel")).to_be_hidden()
    page.click("#ask")
    expect(page.locator(".like li")).to_have_count(4)
    expect(page.locator(".like li").first).to_contain_text("3.png (1.000)")
    seen = page.locator(".like img").first
    page.wait_for_function("image => image.complete", arg=seen.element_handle())
    assert seen.evaluate("image => image.naturalWidth") == 16
    page.close()


def test_a_mistake_stands_on_the_page(address, browser):
    page = browser.new_page()
    page.goto(address)
    page.click("#ask")
    expect(page.locator("#error")).to_contain_text("no input given")
    page.close()
