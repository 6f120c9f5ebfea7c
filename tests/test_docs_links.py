"""The check of links to other sites finds what is wrong with them; the links of the documentation are well formed."""

from __future__ import annotations

import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "check_links.py"


@pytest.fixture(scope="module")
def checks() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_links_of_the_documentation_are_well_formed(checks: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    status = checks["main"]([])
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert int(printed.splitlines()[-1].partition(" links")[0]) >= 3


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("[a paper](https://a.org/x)", "https://a.org/x"),
        ("[a](https://a.org/b_(c)), and", "https://a.org/b_(c)"),
        ("see https://a.org/x.", "https://a.org/x"),
        ("<https://a.org/x?y=1#z>", "https://a.org/x?y=1#z"),
        ("    url: https://a.org/x", "https://a.org/x"),
    ],
)
def test_links_end_where_they_end(checks: dict[str, Any], tmp_path: Path, text: str, link: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"first line\n{text}\n", encoding="utf-8")
    assert checks["find_links"]([page]) == {link: ["page.md:2"]}


@pytest.mark.parametrize(
    "links",
    [
        ("http://a.org/x",),
        ("https://localhost/x",),
        ("https://user@a.org/x",),
        ("https://A.org/x",),
        ("https://a.org/x//y",),
        ("https://a.org/{name}",),
        ("https://a.org/x", "https://a.org/x/"),
        ("https://a.org/x", "https://www.a.org/x"),
    ],
)
def test_bad_links_are_found(checks: dict[str, Any], links: tuple[str, ...]) -> None:
    good = ("https://a.org/z", "https://a.org/x?y=1")
    assert [link for link, _ in checks["find_problems"]((*good, *links))] == [links[-1]]


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/there": 200, "/refused": 403}.get(self.path, 404))
        self.end_headers()

    def do_HEAD(self) -> None:
        self.send_response(501)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Site)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_requests_tell_what_is_there_from_what_is_not(
    checks: dict[str, Any], site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    request = checks["request"]
    assert request(f"{site}/there") is None
    assert request(f"{site}/gone") == "answers 404"
    assert request(f"{site}/refused") == "answers 403, look yourself"
    assert request("http://127.0.0.1:9/x", timeout_s=1).startswith("cannot be reached")
