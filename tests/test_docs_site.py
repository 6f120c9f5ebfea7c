"""Each type of page of the site in a headless Chromium: nothing is cut off, and the console has no errors."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium, find_chromium

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]

PAGES = {
    "home": "index.html",
    "gallery": "gallery.html",
    "tutorial": "tutorials/01_arrays.html",
    "how-to": "how-do-i.html",
    "reference": "reference/registration.html",
    "settings": "settings.html",
    "explanation": "method.html",
    "figures": "accuracy.html",
}

CUT_OFF = """
[...document.querySelectorAll(".md-content *")].filter((element) => {
  const box = element.getBoundingClientRect();
  if (box.width === 0 || box.right <= innerWidth + 1) return false;
  for (let outer = element.parentElement; !outer.matches(".md-content"); outer = outer.parentElement)
    if (["auto", "scroll"].includes(getComputedStyle(outer).overflowX)) return false;
  return true;
}).map((element) => element.outerHTML.slice(0, 80))
"""
"""What reaches over the right edge of the window, and cannot be scrolled to within the page."""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the site; it is not opened as files, as its search needs a server."""
    needed = ("mkdocs", "material", "mkdocstrings", "jupytext", "nbconvert")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        pytest.skip(f"the site cannot be built without {', '.join(missing)}")
    built = os.environ.get("CONVEXADAM_SITE")  # where it has been built already
    folder = Path(built) if built else tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "DOCS_EXECUTE"}
    if not built:
        subprocess.run(command, cwd=ROOT, check=True, env=environment | {"NO_MKDOCS_2_WARNING": "1"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip("there is no Chromium")
    with Chromium(program) as running:
        yield running


@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_on_a_phone(page: str, site: str, browser: Chromium) -> None:
    browser.errors.clear()
    browser.open(f"{site}/{PAGES[page]}", 390, 844)
    assert browser.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert browser.evaluate(CUT_OFF) == []
    assert browser.evaluate("[...document.images].filter((image) => image.naturalWidth === 0).map((i) => i.src)") == []
    assert browser.errors == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_on_a_desk_in_the_dark(page: str, site: str, browser: Chromium) -> None:
    browser.errors.clear()
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.open(f"{site}/{PAGES[page]}", 1440, 900)
    assert browser.evaluate("document.body.dataset.mdColorScheme") == "slate"
    assert browser.evaluate(CUT_OFF) == []
    assert browser.errors == []
