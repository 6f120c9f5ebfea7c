"""Pages in a headless Chromium: keys, pointer, sort, filter, export, and what is on the screen."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Chromium
from PIL import Image as Pillow

from convexadam.report import QualityMeasures, Verdict
from convexadam.report.cohort_page import CohortReport, CohortRow, write_cohort_page


@pytest.fixture
def pair_page(browser: Chromium, cohort: Path) -> Chromium:
    browser.errors.clear()
    browser.open(cohort / "pairs" / "sub-3" / "report.html")
    return browser


@pytest.fixture
def cohort_page(browser: Chromium, cohort: Path) -> Chromium:
    browser.errors.clear()
    browser.open(cohort / "report.html")
    browser.evaluate("localStorage.clear()")
    browser.open(cohort / "report.html")
    return browser


def screen(page: Chromium, selector: str, number: int = 0) -> np.ndarray:
    """Return the pixels of an element, as they are on the screen."""
    box: Any = page.evaluate(
        f"(() => {{ const e = document.querySelectorAll({selector!r})[{number}]; e.scrollIntoView({{block: 'center'}});"
        "const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })()"
    )
    left, top, width, height = (int(v) for v in box)
    picture = Pillow.open(io.BytesIO(page.screenshot())).convert("RGB")
    return np.asarray(picture, dtype=float)[top + 2 : top + height - 2, left + 2 : left + width - 2]


def shown(page: Chromium) -> list[str]:
    """Return the layers of the first slice that are visible."""
    layers: list[str] = page.evaluate(
        "[...document.querySelector('.frame').querySelectorAll('img, svg')]"
        ".filter((e) => getComputedStyle(e).visibility === 'visible').map((e) => e.getAttribute('class'))"
    )
    return layers


def visible_rows(page: Chromium) -> list[str]:
    rows: list[str] = page.evaluate(
        "[...document.querySelectorAll('.pairs tbody tr')].filter((r) => !r.hidden)"
        ".map((r) => r.querySelector('.name').textContent)"
    )
    return rows


def test_keys_choose_the_image_and_the_overlay(pair_page: Chromium) -> None:
    assert shown(pair_page) == ["after"]
    overlays = {
        "1": [],
        "2": ["fixed"],
        "3": ["outlines"],
        "4": ["grid"],
        "5": ["jacobian"],
        "6": ["difference-after"],
    }
    for key, layers in overlays.items():
        pair_page.press(key)
        assert set(shown(pair_page)) == {"after", *layers}
    pair_page.press("b")
    assert set(shown(pair_page)) == {"before", "difference-before"}
    pair_page.press("1")
    pair_page.press("f")
    assert shown(pair_page) == ["fixed"]
    pair_page.press("x")
    assert shown(pair_page) == ["before"], "x goes back to the image that was seen before the fixed one"
    pair_page.press("m")
    assert shown(pair_page) == ["after"]
    assert pair_page.errors == []


def test_hover_shows_the_fixed_image_in_one_slice(pair_page: Chromium) -> None:
    x, y = pair_page.evaluate(
        "(() => { const b = document.querySelector('.slice').getBoundingClientRect(); return [b.x + 50, b.y + 50]; })()"
    )
    pair_page.move(x, y)
    assert shown(pair_page) == ["fixed"]
    assert pair_page.evaluate("document.querySelectorAll('.shown')[0].textContent") == "fixed"
    assert pair_page.evaluate("document.querySelectorAll('.shown')[1].textContent") == "moved, after"
    pair_page.move(2, 2)
    assert shown(pair_page) == ["after"]
    pair_page.evaluate("document.querySelector('.slice').click()")
    assert shown(pair_page) == ["fixed"]
    assert pair_page.evaluate("document.querySelector('#view').dataset.base") == "fixed"


def test_the_keyboard_alone(pair_page: Chromium) -> None:
    def focus() -> str:
        tag: str = pair_page.evaluate(
            "`${document.activeElement.tagName} ${document.activeElement.value || ''}`.trim()"
        )
        return tag

    pair_page.press("Tab")
    assert focus() == "A", "to the page of all pairs"
    pair_page.press("Tab")
    assert focus() == "INPUT after"
    pair_page.press("Tab")
    assert focus() == "BUTTON"
    pair_page.press("Enter")
    assert pair_page.evaluate("document.getElementById('flicker').getAttribute('aria-pressed')") == "true"
    start = time.monotonic()
    while shown(pair_page) != ["fixed"]:
        assert time.monotonic() - start < 30
    pair_page.press("p")
    assert pair_page.evaluate("document.getElementById('flicker').getAttribute('aria-pressed')") == "false"
    for _ in range(2):
        pair_page.press("Tab")
    assert pair_page.evaluate("document.activeElement.className") == "slice"
    ring = pair_page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid", "the focus can be seen"


def test_the_screen_shows_what_was_chosen(pair_page: Chromium) -> None:
    pair_page.move(2, 2)
    pictures = {}
    for key, name in (("f", "fixed"), ("m", "after"), ("b", "before")):
        pair_page.press(key)
        pictures[name] = screen(pair_page, ".frame", 2)
    assert np.abs(pictures["fixed"] - pictures["after"]).mean() < np.abs(pictures["fixed"] - pictures["before"]).mean()
    pair_page.press("m")
    pair_page.press("2")
    board = screen(pair_page, ".frame", 2)
    from_fixed = np.abs(board - pictures["fixed"]).sum(-1) < np.abs(board - pictures["after"]).sum(-1)
    differs = np.abs(pictures["fixed"] - pictures["after"]).sum(-1) > 30
    assert 0.2 < from_fixed[differs].mean() < 0.8, "fields of both images alternate"
    pair_page.press("3")
    orange = np.abs(screen(pair_page, ".frame", 2) - [230, 159, 0]).sum(-1) < 60
    assert 0.002 < orange.mean() < 0.2
    pair_page.press("5")
    assert screen(pair_page, ".frame", 2).mean() > 150, "mostly no volume change, which is white"


def test_sort(cohort_page: Chromium) -> None:
    assert visible_rows(cohort_page)[:2] == ["sub-6", "sub-3"]
    click = "document.querySelector('th[data-column={}] button').click()"
    cohort_page.evaluate(click.format("dice"))
    assert visible_rows(cohort_page) == ["sub-5", "sub-4", "sub-3", "sub-2", "sub-1", "sub-0", "sub-6"]
    assert cohort_page.evaluate("document.querySelector('th[data-column=dice]').ariaSort") == "ascending"
    cohort_page.evaluate(click.format("dice"))
    assert visible_rows(cohort_page) == [f"sub-{n}" for n in range(7)], "empty cells come last either way"
    cohort_page.evaluate(click.format("name"))
    assert visible_rows(cohort_page) == [f"sub-{n}" for n in range(7)]
    assert len(cohort_page.evaluate("[...document.querySelectorAll('th[aria-sort]')].map((e) => e.tagName)")) == 1
    assert cohort_page.errors == []


def test_filter(cohort_page: Chromium) -> None:
    cohort_page.press("/")
    for letter in "overlap at":
        cohort_page.press(letter)
    assert visible_rows(cohort_page) == ["sub-6"]
    assert cohort_page.evaluate("document.getElementById('status').textContent") == "1 of 7 shown, 0 excluded"
    search = "document.getElementById('search')"
    cohort_page.evaluate(f"{search}.value = ''; {search}.dispatchEvent(new Event('input'))")
    cohort_page.evaluate("document.querySelector('input[name=grade][value=ok]').click()")
    assert visible_rows(cohort_page) == ["sub-6", "sub-3"]


def test_exclusions_are_kept_and_exported(cohort_page: Chromium, cohort: Path) -> None:
    cohort_page.evaluate("document.getElementById('tick-failed').click()")
    cohort_page.evaluate("document.querySelector('input[name=exclude][value=sub-1]').click()")
    cohort_page.open(cohort / "report.html")
    assert cohort_page.evaluate("document.querySelectorAll('tr.excluded').length") == 3
    cohort_page.press("e")
    target, start = cohort_page.downloads / "exclusions.csv", time.monotonic()
    while not target.is_file() or not target.read_text(encoding="utf-8").endswith("\n"):
        assert time.monotonic() - start < 30
        time.sleep(0.05)
    with target.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["sub-6", "sub-3", "sub-1"]
    assert rows[0] == {"id": "sub-6", "verdict": "failed", "reasons": 'InputError: "no" overlap, at all'}
    target.unlink()
    assert cohort_page.errors == []


def test_keys_go_from_pair_to_pair(cohort_page: Chromium) -> None:
    names = []
    for key in "jjjk":
        cohort_page.press(key)
        names.append(cohort_page.evaluate("document.activeElement.textContent"))
    assert names == ["sub-6", "sub-3", *names[2:3], "sub-3"]
    cohort_page.press("Enter")
    start = time.monotonic()
    while not cohort_page.evaluate("document.title").startswith("sub-3"):
        assert time.monotonic() - start < 30


@pytest.fixture(scope="module")
def large_page(tmp_path_factory: pytest.TempPathFactory, measures: QualityMeasures) -> Path:
    """Page of 500 pairs with thumbnails."""
    rng = np.random.default_rng(0)
    thumbnails = []
    for _ in range(5):
        buffer = io.BytesIO()
        texture = Pillow.fromarray(rng.integers(0, 255, (24, 36), dtype=np.uint8)).resize((288, 192))
        texture.save(buffer, format="WEBP", quality=80)
        thumbnails.append(buffer.getvalue())
    rows = [
        CohortRow(
            name=f"sub-{number:03}",
            verdict=Verdict(grade="ok", score=float(rng.random())),
            measures=measures,
            numbers={"dice": float(rng.random()), "seconds": float(rng.random())},
            thumbnail=thumbnails[number % 5],
        )
        for number in range(500)
    ]
    path = tmp_path_factory.mktemp("large") / "report.html"
    write_cohort_page(CohortReport(title="500 pairs", rows=rows), path)
    return path


def test_a_page_of_500_pairs_opens_within_two_seconds(browser: Chromium, large_page: Path) -> None:
    assert large_page.stat().st_size < 8e6
    browser.send("Performance.enable", timeDomain="threadTicks")  # others on this machine do not count
    before = {m["name"]: m["value"] for m in browser.send("Performance.getMetrics")["metrics"]}
    browser.open(large_page)
    after = {m["name"]: m["value"] for m in browser.send("Performance.getMetrics")["metrics"]}
    busy = after["TaskDuration"] - before.get("TaskDuration", 0.0)
    assert busy < 2, f"{busy:.2f} s"
    loaded = browser.evaluate("[...document.querySelectorAll('.pairs img')].filter((i) => i.src).length")
    assert loaded < 60, "thumbnails out of sight are not decoded"
    browser.evaluate("scrollTo(0, document.body.scrollHeight)")
    start = time.monotonic()
    while not browser.evaluate("Boolean([...document.querySelectorAll('.pairs tr:last-child img')].pop().src)"):
        assert time.monotonic() - start < 30


def test_print(pair_page: Chromium) -> None:
    pair_page.send("Emulation.setEmulatedMedia", media="print")
    assert pair_page.evaluate("getComputedStyle(document.querySelector('.tools')).display") == "none"
    assert pair_page.evaluate("getComputedStyle(document.querySelector('.slice')).display") != "none"
    assert pair_page.send("Page.printToPDF")["data"].startswith("JVBERi")  # %PDF
    pair_page.send("Emulation.setEmulatedMedia", media="")
