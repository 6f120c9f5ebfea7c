"""Folders of results: of one pair, as ``convexadam register`` writes it, and of a cohort."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from convexadam._atomic import atomic_path
from convexadam.errors import FileError
from convexadam.geometry import Transform
from convexadam.io import read_image, read_transform
from convexadam.report.cohort_page import CohortReport, CohortRow, write_cohort_page
from convexadam.report.pair_page import PairReport, write_pair_page
from convexadam.report.quality import QualityMeasures, measure_quality
from convexadam.report.verdict import Verdict, judge_cohort, judge_quality

PAIR_JSON, COHORT_JSON, COHORT_CSV, PAIRS = "report.json", "cohort.json", "cohort.csv", "pairs"
PAGE, THUMBNAIL = "report.html", "thumbnail.webp"


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class _Registered:
    """A transform and its inverse, read from files."""

    transform: Transform
    estimated_inverse: Transform | None


def write_report(folder: Path | str, *, all_pages: bool = False) -> Iterator[Path]:
    """Write the page of a folder of results, and yield the path of each page that was written.

    Parameters
    ----------
    folder
        Of one pair: with a ``report.json`` that names the ``inputs``, and the transform. Or of a cohort: with
        ``cohort.csv`` and a folder of each pair in ``pairs``; those whose page is missing or older than their
        ``report.json`` get one as well.
    all_pages
        Write the pages of all pairs again.

    Raises
    ------
    FileError
        If the folder is neither, a file is missing or damaged, or a page cannot be written.
    MissingExtraError
        If matplotlib or Pillow is not installed.

    Examples
    --------
    >>> from convexadam.report import write_report
    >>> for page in write_report("study"):  # doctest: +SKIP
    ...     print(page)
    """
    folder = Path(folder)
    if (folder / COHORT_CSV).is_file():
        yield from _write_cohort(folder, all_pages)
    elif (folder / PAIR_JSON).is_file():
        yield _write_pair(folder, folder.resolve().name, ())
    else:
        raise FileError(
            f"folder must hold a {PAIR_JSON} or a {COHORT_CSV}, got {folder} with neither; pass the --output-dir of "
            "convexadam register or cohort"
        )


def _write_cohort(folder: Path, all_pages: bool) -> Iterator[Path]:
    lines = _read_csv(folder / COHORT_CSV)
    registered = [line["id"] for line in lines if line.get("status") != "failed"]
    found = {name: _read_measures(folder / PAIRS / name) for name in registered}
    known = {name: measures for name, measures in found.items() if measures is not None}
    verdicts = _judge_groups(folder, known)
    rows = []
    for line in lines:
        name, pair = line["id"], folder / PAIRS / line["id"]
        error, verdict = line.get("error", ""), verdicts.get(name)
        if verdict is not None and (all_pages or _is_old(pair)):
            others = [measures for other, measures in known.items() if other != name]
            try:
                yield _write_pair(pair, name, others, verdict)
            except FileError as problem:
                error = str(problem)
        rows.append(_make_row(line, folder, error, known.get(name), verdict))
    about = _read_json(folder / COHORT_JSON) if (folder / COHORT_JSON).is_file() else {}
    page = folder / PAGE
    write_cohort_page(CohortReport(title=folder.resolve().name, rows=rows, about=about), page)
    yield page


def _judge_groups(folder: Path, known: Mapping[str, QualityMeasures]) -> dict[str, Verdict]:
    """Return the verdict of each pair beside the others of the same settings."""
    groups = defaultdict[str | None, list[str]](list)
    for name in known:
        groups[_read_json(folder / PAIRS / name / PAIR_JSON).get("cohort", {}).get("preset")].append(name)
    return {
        name: verdict
        for names in groups.values()
        for name, verdict in zip(names, judge_cohort([known[name] for name in names]), strict=True)
    }


def _make_row(
    line: Mapping[str, str], folder: Path, error: str, measures: QualityMeasures | None, verdict: Verdict | None
) -> CohortRow:
    page, thumbnail = (folder / PAIRS / line["id"] / name for name in (PAGE, THUMBNAIL))
    return CohortRow(
        name=line["id"],
        verdict=verdict or Verdict(grade="failed", reasons=(error or "no result",), score=math.inf),
        error=error,
        measures=measures,
        numbers={name: number for name in line if (number := _parse_number(line[name])) is not None},
        page=page.relative_to(folder).as_posix() if page.is_file() else None,
        thumbnail=thumbnail.read_bytes() if thumbnail.is_file() else None,
    )


def _is_old(folder: Path) -> bool:
    """Whether the page of a pair is missing, or older than its results."""
    page, results = folder / PAGE, folder / PAIR_JSON
    return not page.is_file() or page.stat().st_mtime < results.stat().st_mtime


def _read_measures(folder: Path) -> QualityMeasures | None:
    """Return the measures of a pair, which are computed if its report does not hold them; ``None`` without a result."""
    if not (folder / PAIR_JSON).is_file():
        return None
    summary = _read_json(folder / PAIR_JSON)
    if isinstance(quality := summary.get("quality"), Mapping):
        return QualityMeasures.from_dict(quality)
    inputs, registered = _read_inputs(folder, summary), _read_result(folder)
    measures = measure_quality(
        registered,
        inputs["fixed"],
        inputs["moving"],
        fixed_mask=inputs.get("fixed_mask"),
        moving_mask=inputs.get("moving_mask"),
    )
    with atomic_path(folder / PAIR_JSON) as temporary:
        temporary.write_text(json.dumps({**summary, "quality": measures.to_dict()}, indent=2) + "\n", encoding="utf-8")
    return measures


def _write_pair(folder: Path, name: str, others: Sequence[QualityMeasures], verdict: Verdict | None = None) -> Path:
    measures = _read_measures(folder)
    assert measures is not None  # its report was found before
    summary = _read_json(folder / PAIR_JSON)
    inputs = _read_inputs(folder, summary)
    labels = None
    if "fixed_labels" in inputs and "moving_labels" in inputs:
        labels = read_image(inputs["fixed_labels"]), read_image(inputs["moving_labels"])
    report = PairReport(
        title=name,
        transform=_read_result(folder).transform,
        fixed=read_image(inputs["fixed"]),
        moving=read_image(inputs["moving"]),
        labels=labels,
        measures=measures,
        verdict=verdict or judge_quality(measures),
        summary=summary,
        others=others,
        truth=summary.get("scores", {}),
        cohort=f"../../{PAGE}" if others else None,
    )
    write_pair_page(report, folder / PAGE, thumbnail=folder / THUMBNAIL)
    return folder / PAGE


def _read_result(folder: Path) -> _Registered:
    found = [path for path in sorted(folder.glob("transform.*")) if not path.name.endswith(".part")]
    if not found:
        raise FileError(
            f"{folder} must hold a transform.nii.gz or another file of a transform, got none; register again"
        )
    inverses = sorted(folder.glob("inverse_transform.*"))
    estimated = read_transform(inverses[0]) if inverses else None
    return _Registered(transform=read_transform(found[0]), estimated_inverse=estimated)


def _read_inputs(folder: Path, summary: Mapping[str, Any]) -> dict[str, Path]:
    """Return the paths of the inputs, by name."""
    inputs = summary.get("inputs")
    if not isinstance(inputs, Mapping) or not {"fixed", "moving"} <= inputs.keys():
        raise FileError(
            f"{folder / PAIR_JSON} must name the files of both images under inputs, got none; call result.report(path) "
            "in Python, or register again"
        )
    paths = {name: Path(path) for name, path in inputs.items() if path}
    for side in ("fixed", "moving"):
        if not paths[side].exists():
            raise FileError(
                f"the {side} image of {folder} must be where it was, got no file {paths[side]}; restore it, or change "
                f"its path in {folder / PAIR_JSON}"
            )
    return paths


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"{path} must hold JSON, got an error: {error}; register again") from error
    if not isinstance(values, dict):
        raise FileError(f"{path} must hold a JSON object, got {type(values).__name__}; register again")
    return values


def _read_csv(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = [{k: v or "" for k, v in line.items() if k} for line in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error) as error:
        raise FileError(f"{path} must hold a table, got an error: {error}; run the cohort again") from error
    if any("id" not in line for line in lines):
        raise FileError(f"{path} must have a column id, got none; run the cohort again")
    return lines


def _parse_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
