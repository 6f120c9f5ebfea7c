"""The page of one pair."""

from __future__ import annotations

import base64
import json
import math
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any, final

from convexadam.geometry import Grid, Image, Transform
from convexadam.io import atomic_path
from convexadam.report.quality import QualityMeasures
from convexadam.report.verdict import CRITERIA, Verdict
from convexadam.report.views import SliceView, make_views
from convexadam.report.wording import TRUTH, WORDINGS

ASSETS = Path(__file__).parent / "assets"

_OVERLAYS = {
    "none": "None",
    "checkerboard": "Checkerboard",
    "outlines": "Outlines",
    "grid": "Grid",
    "jacobian": "Jacobian",
    "difference": "Difference",
    "correlation": "Correlation",
}

_PURPLE_TO_ORANGE = "linear-gradient(90deg, #2d004b, #8073ac, #f7f7f7, #e08214, #7f3b08)"
_DARK_TO_LIGHT = "linear-gradient(90deg, #000004, #57106e, #bc3754, #f98e09, #fcffa4)"

_ALT = {
    "fixed": "fixed image",
    "before": "moving image before registration",
    "after": "moved image after registration",
    "jacobian": "Jacobian determinant in colour, purple where it shrinks, orange where it grows",
    "outlines": "outlines",
    "difference-before": "absolute difference before registration",
    "difference-after": "absolute difference after registration",
    "correlation": "lack of local correlation after registration",
}


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PairReport:
    """What the page of a pair shows.

    Attributes
    ----------
    title
        Name of the pair.
    transform
        Fixed to moving space.
    fixed, moving
        The images.
    labels
        Label maps of the fixed and of the moving image, whose outlines are drawn.
    measures, verdict
        Its quality.
    summary
        `RegistrationResult.summary`, with ``command`` and ``inputs`` if they are known.
    others
        Measures of the other pairs of a cohort.
    truth
        Measures that need labels or landmarks, by the names of `TRUTH`.
    cohort
        Page of the cohort, relative to this one.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Affine, as_image
    >>> from convexadam.report import PairReport, QualityMeasures, Verdict
    >>> image = as_image(torch.rand(16, 16, 16))
    >>> PairReport(
    ...     title="A pair", transform=Affine(), fixed=image, moving=image, measures=QualityMeasures.from_dict({}),
    ...     verdict=Verdict(grade="ok", reasons=(), score=0.0),
    ... ).title
    'A pair'
    """

    title: str
    transform: Transform
    fixed: Image
    moving: Image
    measures: QualityMeasures
    verdict: Verdict
    labels: tuple[Image, Image] | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    others: Sequence[QualityMeasures] = ()
    truth: Mapping[str, float] = field(default_factory=dict)
    cohort: str | None = None


def write_pair_page(report: PairReport, path: Path | str, *, thumbnail: Path | None = None) -> None:
    """Write the page, and the thumbnail for that of the cohort: each complete, or not at all.

    Raises
    ------
    FileError
        If it cannot be written.
    MissingExtraError
        If matplotlib or Pillow is not installed.

    Examples
    --------
    >>> from pathlib import Path
    >>> import torch
    >>> from convexadam import Affine, as_image
    >>> from convexadam.report import PairReport, QualityMeasures, Verdict, write_pair_page
    >>> image = as_image(torch.rand(16, 16, 16))
    >>> report = PairReport(
    ...     title="A pair", transform=Affine(), fixed=image, moving=image, measures=QualityMeasures.from_dict({}),
    ...     verdict=Verdict(grade="ok", reasons=(), score=0.0),
    ... )
    >>> write_pair_page(report, "page.html")
    >>> "A pair" in Path("page.html").read_text(encoding="utf-8")
    True
    """
    views, has_one_contrast, picture = make_views(report.transform, report.fixed, report.moving, report.labels)
    page = _make_page(report, views, has_one_contrast)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    if thumbnail is not None:
        with atomic_path(thumbnail) as temporary:
            temporary.write_bytes(base64.b64decode(picture.partition(",")[2]))


def fill_template(name: str, parts: Mapping[str, str]) -> str:
    """Return a template of `ASSETS` with its style and script, and other parts."""
    texts = {"style": ASSETS / "page.css", "script": ASSETS / f"{name}.js"}
    read = {key: file.read_text(encoding="utf-8") for key, file in texts.items()}
    return Template((ASSETS / f"{name}.html").read_text(encoding="utf-8")).substitute(read, **parts)


def make_badge(grade: str) -> str:
    """Return the verdict as a word on a colour."""
    return f'<span class="badge {escape(grade)}">{escape(grade)}</span>'


def _make_page(report: PairReport, views: Sequence[SliceView], has_one_contrast: bool) -> str:
    comparison = "difference" if has_one_contrast else "correlation"
    overlays = [name for name in _OVERLAYS if name not in {"difference", "correlation"} - {comparison}]
    summary = report.summary
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in report.verdict.reasons)
    return fill_template(
        "pair",
        {
            "title": escape(report.title),
            "subtitle": f"fixed {_describe_grid(report.fixed.grid)} · moving {_describe_grid(report.moving.grid)}",
            "cohort": f'<p><a href="{escape(report.cohort)}">All pairs</a></p>' if report.cohort else "",
            "badge": make_badge(report.verdict.grade),
            "reasons": f'<ul class="reasons">{reasons or "<li>nothing unusual</li>"}</ul>',
            "overlays": "".join(_make_choice(name, n + 1) for n, name in enumerate(overlays)),
            "legend": _make_legend(report.labels is not None, comparison),
            "slices": "\n".join(_make_slice(view, has_one_contrast) for view in views),
            "others": f"median of {len(report.others)} others" if report.others else "",
            "figures": "\n".join(_list_figures(report)),
            "command": escape(_find_command(summary)),
            "facts": _list_facts(summary),
            "settings": escape(summary.get("settings_toml") or json.dumps(summary.get("config", {}), indent=1)),
            "versions": escape("\n".join(f"{k} {v}" for k, v in summary.get("versions", {}).items()) or "not recorded"),
        },
    )


def _describe_grid(grid: Grid) -> str:
    shape, spacing_mm = "&times;".join(map(str, grid.shape)), "&times;".join(f"{s:.3g}" for s in grid.spacing_mm)
    return f"{shape} voxels of {spacing_mm} mm, {grid.orientation}"


def _make_choice(name: str, key: int) -> str:
    checked = " checked" if name == "none" else ""
    return (
        f'<label class="choice"><input type="radio" name="overlay" value="{name}"{checked}>'
        f"<span>{_OVERLAYS[name]} <kbd>{key}</kbd></span></label>\n"
    )


def _make_legend(has_labels: bool, comparison: str) -> str:
    def line(colour: str, text: str) -> str:
        return f'<span class="for-outlines"><i class="line" style="background:{colour}"></i>{text}</span>'

    def bar(name: str, low: str, colours: str, high: str, text: str) -> str:
        return (
            f'<span class="for-{name}">{low}<i class="bar" style="background:{colours}"></i>{high}</span>'
            f'<span class="for-{name}">{text}</span>'
        )

    if has_labels:
        outlines = line("var(--fixed)", "labels of the fixed image") + line("var(--moved)", "moved labels")
    else:
        outlines = line("var(--fixed)", "iso-contours of the fixed image")
    shares = {
        "difference": bar("difference", "0", _DARK_TO_LIGHT, "1", "absolute difference, as a share of the window"),
        "correlation": bar(
            "correlation", "1", _DARK_TO_LIGHT, "0", "squared local correlation; two contrasts have no difference"
        ),
    }
    jacobian = bar("jacobian", "¼", _PURPLE_TO_ORANGE, "4", "volume change; white is 1, black folds")
    grid = '<span class="for-grid">grid of the fixed image, moved by the deformation beyond the linear motion</span>'
    return outlines + grid + jacobian + shares[comparison]


def _make_slice(view: SliceView, has_one_contrast: bool) -> str:
    where = f"{view.plane} slice at {view.position_mm:.0f} mm"
    images = "".join(
        f'<img class="{name}" alt="{_ALT[name]}, {where}" src="{uri}">' for name, uri in view.layers.items()
    )
    width, height = view.size
    grid = f'<svg class="grid" viewBox="0 0 {width} {height}" aria-hidden="true"><path d="{view.grid}"/></svg>'
    sides = zip(("left", "right", "up", "down"), view.edges, strict=True)
    edges = "".join(f'<span class="edge {side}">{letter}</span>' for side, letter in sides)
    folds = f' <span class="folds">{view.folded} folded voxels</span>' if view.folded else ""
    return (
        f'<figure><button type="button" class="slice" aria-label="{where}, {view.reason}: alternate with the fixed '
        f'image"><span class="frame" style="display:block;aspect-ratio:{width}/{height};'
        f'max-width:calc(380px*{width}/{height})">{images}{grid}{edges}</span><span class="shown"></span></button>'
        f"<figcaption><b>{view.plane}</b> {view.position_mm:.0f} mm · {view.reason}{folds}</figcaption></figure>"
    )


def _list_figures(report: PairReport) -> Iterator[str]:
    usual = {criterion.measure: criterion for criterion in CRITERIA}
    for name, wording in WORDINGS.items():
        value = float(getattr(report.measures, name))
        others = [v for v in (float(getattr(m, name)) for m in report.others) if not math.isnan(v)]
        median = wording.format(statistics.median(others)) if others else ""
        distance = usual[name].measure_distance(report.measures) if name in usual else 0.0
        if name in usual:
            distance = max(distance, usual[name].compare(report.measures, *usual[name].summarise(report.others)))
        grade = "failed" if distance >= 2 else "look" if distance >= 1 else ""
        limit = usual[name].describe_limit() if name in usual else ""
        mark = f" {make_badge(grade)}" if grade else ""
        yield _make_row(grade, wording.label + mark, wording.format(value), limit, median, wording.text)
    for name, wording in TRUTH.items():
        if name in report.truth:
            yield _make_row("", wording.label, wording.format(report.truth[name]), "", "", wording.text)


def _make_row(grade: str, label: str, value: str, usual: str, median: str, text: str) -> str:
    return (
        f'<tr class="{grade}"><td>{label}</td><td class="number">{value}</td><td>{escape(usual)}</td>'
        f'<td class="number">{median}</td><td class="help">{escape(text)}</td></tr>'
    )


def _find_command(summary: Mapping[str, Any]) -> str:
    """Return the command that was run, or one that repeats it with the settings of the page."""
    if isinstance(command := summary.get("command"), str):
        return command
    inputs = summary.get("inputs", {})
    files = [shlex.quote(str(inputs.get(side, f"{side}.nii.gz"))) for side in ("fixed", "moving")]
    return f"convexadam register {' '.join(files)} --output-dir OUT --config settings.toml"


def _list_facts(summary: Mapping[str, Any]) -> str:
    facts = {name: str(value) for name, value in summary.get("inputs", {}).items() if value}
    facts |= {name: str(summary[name]) for name in ("device", "backend") if name in summary}
    if timings := summary.get("timings"):
        facts["seconds"] = ", ".join(f"{name} {seconds:.1f}" for name, seconds in timings.items())
    rows = "".join(f'<tr><td>{escape(k)}</td><td class="help">{escape(v)}</td></tr>' for k, v in facts.items())
    return f"<table><tbody>{rows}</tbody></table>" if rows else ""
