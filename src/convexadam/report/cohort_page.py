"""The page of a cohort: a table of its pairs, the most unusual first, and the distributions of the measures."""

from __future__ import annotations

import base64
import json
import math
import shlex
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, final

from convexadam.io import atomic_path
from convexadam.report.pair_page import fill_template, make_badge
from convexadam.report.quality import QualityMeasures
from convexadam.report.verdict import CRITERIA, Verdict
from convexadam.report.wording import TRUTH, WORDINGS, Wording

_SECONDS = Wording("seconds", "", "time of the registration")

_COLUMNS = (
    "dice",
    "tre_mm",
    "similarity_before",
    "similarity_after",
    "matched_percent",
    "residual_mm",
    "overlap_percent",
    "inverse_consistency_mm",
    "folded_percent",
    "sdlogj",
    "rotation_degrees",
    "translation_mm",
    "deformation_mm",
    "boundary_percent",
    "mirror_gain",
    "seconds",
)
"""Measures in the order of the table; those that no pair has are omitted."""

_WIDTH, _HEIGHT, _BINS = 250, 40, 50


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class CohortRow:
    """One pair of a cohort.

    Attributes
    ----------
    name
        Its id.
    verdict
        Its verdict among the others.
    error
        Why there is no result, or no page.
    measures
        Its quality; ``None`` without a result.
    numbers
        Other numbers, such as ``dice`` and ``seconds``.
    page
        Its page, relative to that of the cohort.
    thumbnail
        WebP: the moved image above the fixed one.
    """

    name: str
    verdict: Verdict
    error: str = ""
    measures: QualityMeasures | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    page: str | None = None
    thumbnail: bytes | None = None

    def find(self, measure: str) -> float:
        """Return a measure, or another number; NaN if there is none."""
        if measure in self.numbers:
            return self.numbers[measure]
        return float(getattr(self.measures, measure, math.nan)) if self.measures is not None else math.nan


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class CohortReport:
    """What the page of a cohort shows: its pairs, and ``about`` it what ``cohort.json`` holds."""

    title: str
    rows: Sequence[CohortRow]
    about: Mapping[str, Any] = field(default_factory=dict)


def write_cohort_page(report: CohortReport, path: Path | str) -> None:
    """Write the page, complete or not at all.

    Raises
    ------
    FileError
        If it cannot be written.
    """
    rows = sorted(report.rows, key=lambda row: (-row.verdict.score, row.name))
    columns = {
        name: _SECONDS if name == "seconds" else (WORDINGS | TRUTH)[name]
        for name in _COLUMNS
        if any(not math.isnan(row.find(name)) for row in rows)
    }
    counts = Counter(row.verdict.grade for row in rows)
    settings = {name: value for name, value in report.about.items() if name != "command"}
    page = fill_template(
        "cohort",
        {
            "title": escape(report.title),
            "subtitle": f"{len(rows)} pairs",
            "totals": "".join(f"<span>{make_badge(g)} <b>{counts[g]}</b></span>" for g in ("failed", "look", "ok")),
            "distributions": "\n".join(_draw_distributions(columns, rows)),
            "grades": "".join(_make_filter(grade) for grade in ("failed", "look", "ok")),
            "heads": "".join(_make_heads(columns)),
            "rows": "\n".join(_make_row(row, columns) for row in rows),
            "command": escape(_find_command(report.about)),
            "settings": escape(json.dumps(settings, indent=1)),
        },
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _find_command(about: Mapping[str, Any]) -> str:
    """Return the command: a text, or the list of its program and arguments."""
    command = about.get("command", "not recorded")
    return shlex.join(["convexadam", *map(str, command[1:])]) if isinstance(command, list) else str(command)


def _make_filter(grade: str) -> str:
    return (
        f'<label class="choice"><input type="checkbox" name="grade" value="{grade}" checked>'
        f"<span>{grade}</span></label>\n"
    )


def _make_heads(columns: Mapping[str, Wording]) -> Iterator[str]:
    yield '<th scope="col">exclude</th><th scope="col">moved / fixed</th>'
    for name, label in (("name", "pair"), ("score", "verdict"), ("why", "why")):
        sort = ' aria-sort="descending"' if name == "score" else ""
        yield f'<th scope="col" data-column="{name}"{sort}><button type="button">{label}</button></th>'
    for name, wording in columns.items():
        unit = f",{wording.unit}" if wording.unit else ""
        yield (
            f'<th scope="col" class="number" data-column="{name}" title="{escape(wording.text)}">'
            f'<button type="button">{escape(wording.label)}{unit}</button></th>'
        )


def _make_row(row: CohortRow, columns: Mapping[str, Wording]) -> str:
    name, why = escape(row.name), " · ".join(row.verdict.reasons) or "nothing unusual"
    if row.error and row.error not in why:
        why = f"{why} · {row.error}"
    link = f'<a href="{escape(row.page)}">{name}</a>' if row.page else f'<span tabindex="0">{name}</span>'
    score = "1e9" if math.isinf(row.verdict.score) else f"{row.verdict.score:.4g}"
    unusual = _find_unusual(row)
    cells = [
        f'<td><input type="checkbox" name="exclude" value="{name}" aria-label="exclude {name}"></td>',
        f"<td>{_make_thumbnail(row)}</td>",
        f'<td class="name">{link}</td>',
        f'<td data-value="{score}">{make_badge(row.verdict.grade)}</td>',
        f'<td class="why"><div>{escape(why)}</div></td>',
    ]
    for column, wording in columns.items():
        value = row.find(column)
        mark = " unusual" if column in unusual else ""
        number = "" if math.isnan(value) else f"{value:.6g}"
        shown = wording.format(value).removesuffix(wording.unit) if wording.unit else wording.format(value)
        cells.append(f'<td class="number{mark}" data-value="{number}">{shown}</td>')
    text = escape(f"{row.name} {row.verdict.grade} {why}".lower())
    return f'<tr data-grade="{row.verdict.grade}" data-text="{text}">{"".join(cells)}</tr>'


def _find_unusual(row: CohortRow) -> set[str]:
    """Return the measures that are named in the reasons of the verdict."""
    if row.measures is None:
        return set()
    named = {
        criterion.measure
        for criterion in CRITERIA
        if any(reason.startswith(f"{WORDINGS[criterion.measure].label} ") for reason in row.verdict.reasons)
    }
    return named | {"similarity_after"} if "similarity_gain" in named else named


def _make_thumbnail(row: CohortRow) -> str:
    if row.thumbnail is None:
        return '<span class="sub">none</span>'
    uri = f"data:image/webp;base64,{base64.b64encode(row.thumbnail).decode('ascii')}"
    alt = f"middle slices of {escape(row.name)}: moved image above, fixed image below"
    return f'<span class="thumbnail" tabindex="0"><img alt="{alt}" data-src="{uri}"></span>'


def _draw_distributions(columns: Mapping[str, Wording], rows: Sequence[CohortRow]) -> Iterator[str]:
    """Yield a plot of each measure that differs between pairs."""
    for name, wording in columns.items():
        if len({row.find(name) for row in rows if not math.isnan(row.find(name))}) > 1:
            yield _draw_distribution(name, wording, rows)


def _draw_distribution(name: str, wording: Wording, rows: Sequence[CohortRow]) -> str:
    """Return a plot of dots, stacked where they have one place, as SVG; the worst are drawn above the others."""
    values = [(value, row) for row in rows if not math.isnan(value := row.find(name))]
    numbers = [value for value, _ in values]
    low, high, middle = min(numbers), max(numbers), statistics.median(numbers)
    span = high - low or 1.0
    heights: Counter[int] = Counter(min(_BINS - 1, int((v - low) / span * _BINS)) for v in numbers)
    step = min(5.0, _HEIGHT / max(heights.values()))
    filled, dots = Counter[int](), []
    for value, row in sorted(values, key=lambda entry: entry[1].verdict.score):
        place = min(_BINS - 1, int((value - low) / span * _BINS))
        filled[place] += 1
        x, y = (place + 0.5) * _WIDTH / _BINS, _HEIGHT - (filled[place] - 0.5) * step
        text = escape(f"{row.name}: {wording.format(value)}")
        dot = f'<circle class="{row.verdict.grade}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"><title>{text}</title></circle>'
        dots.append(f'<a href="{escape(row.page)}" tabindex="-1">{dot}</a>' if row.page else dot)
    marks = f'<text x="0" y="60">{low:.3g}</text><text x="{_WIDTH}" y="60" text-anchor="end">{high:.3g}</text>'
    summary = f"{wording.label}: {low:.3g} to {high:.3g}, median {middle:.3g}"
    return (
        f"<div><b>{escape(wording.label)}{wording.unit and ',' + wording.unit}</b> "
        f'<span class="sub">median {middle:.3g}</span>'
        f'<svg viewBox="0 0 {_WIDTH} 64" role="img" aria-label="{escape(summary)}">'
        f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{_HEIGHT + 2}" y2="{_HEIGHT + 2}"/>'
        f"{''.join(dots)}{marks}</svg></div>"
    )
