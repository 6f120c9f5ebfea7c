"""The verdict on good and on deliberately spoiled pairs: how many failures it flags, and how many good pairs.

The pairs are in ``verdict_cases.py``. Limits are tuned on the set ``tuning`` and judged on ``judged``; nobody is in both.
A registration has failed if its labels overlap, or its landmarks match, much less than those of the good pairs of its
group, so that a spoiled pair that is registered well counts as recovered. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import harness  # noqa: E402 - this folder is no package
from verdict_cases import JUDGED, TUNING, Pair, list_pairs  # noqa: E402

from convexadam import ConvexAdamError, preset, register  # noqa: E402
from convexadam.geometry import Transform  # noqa: E402
from convexadam.metrics import dice, tre  # noqa: E402
from convexadam.report import QualityMeasures, measure_quality  # noqa: E402
from convexadam.report.verdict import score_quality  # noqa: E402

MEASURES = tuple(field.name for field in fields(QualityMeasures))
COLUMNS = ("set", "group", "pair", "spoiling", "dice", "tre_mm", "error", "seconds", *MEASURES)
KEY = ("set", "group", "pair", "spoiling")
ROC = (
    "set",
    "judged",
    "limit",
    "failures",
    "flagged_percent",
    "good",
    "false_alarms_percent",
    "recovered_flagged_percent",
)

LEAST_DICE, MOST_TRE = 0.8, 2.0
"""A registration has failed below this share of the median Dice of the good pairs, or beyond this multiple of the TRE."""


def measure(pair: Pair, which: str) -> harness.Row:
    """Register a pair; return its truth and its measures."""
    row = {"set": which, "group": pair.group, "pair": pair.name, "spoiling": pair.spoiling}
    row |= dict.fromkeys(COLUMNS[4:], "")
    begin = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = register(pair.fixed, pair.moving, pair.config or preset())
    except ConvexAdamError as error:
        return row | {"error": str(error)}
    row["seconds"] = f"{time.process_time() - begin:.1f}"
    row |= measure_truth(pair, result.transform)
    values = measure_quality(result, pair.fixed, pair.moving).to_dict()
    return row | {name: "" if value is None else f"{value:.6g}" for name, value in values.items()}


def measure_truth(pair: Pair, transform: Transform) -> dict[str, str]:
    """Return the mean Dice of all labels of the fixed image, and the mean landmark error."""
    truth = {}
    if pair.labels is not None:
        moved = transform.warp(pair.labels[1], pair.fixed, mode="nearest").data[0]
        fixed = pair.labels[0].data[0]
        truth["dice"] = f"{statistics.fmean(dice(fixed, moved).values()):.4f}"
    if pair.points is not None:
        truth["tre_mm"] = f"{float(tre(*pair.points, transform).mean()):.3f}"
    return truth


def has_failed(row: harness.Row, rows: Iterable[harness.Row]) -> bool:
    """Return whether a registration failed, compared with the good pairs of its group and set."""
    if row["error"] or row["spoiling"] == "other organ":
        return True
    good = [r for r in rows if r["spoiling"] == "none" and (r["set"], r["group"]) == (row["set"], row["group"])]
    overlap = [float(r["dice"]) for r in good if r["dice"]]
    if row["dice"] and float(row["dice"]) < LEAST_DICE * statistics.median(overlap):
        return True
    errors_mm = [float(r["tre_mm"]) for r in good if r["tre_mm"]]
    return bool(row["tre_mm"]) and float(row["tre_mm"]) > MOST_TRE * statistics.median(errors_mm) + 2.0


def read_measures(row: harness.Row) -> QualityMeasures:
    """Return the measures of a row."""
    return QualityMeasures.from_dict({name: float(row[name]) if row[name] else None for name in MEASURES})


def score(rows: Sequence[harness.Row], *, cohort: bool) -> list[float]:
    """Return a score for each row; in a cohort, with the good pairs of its group and set beside it."""
    scores = []
    for row in rows:
        if row["error"]:
            scores.append(math.inf)
            continue
        others = [
            read_measures(r)
            for r in rows
            if cohort
            and r is not row
            and r["spoiling"] == "none"
            and (r["set"], r["group"]) == (row["set"], row["group"])
            and r["pair"] != row["pair"]
        ]
        scores.append(score_quality(read_measures(row), others))
    return scores


def make_roc(rows: Sequence[harness.Row]) -> list[harness.Row]:
    """Return the ROC of both sets, alone and in a cohort: limit 1 is that of the verdict."""
    roc = []
    for which in (TUNING, JUDGED):
        mine = [row for row in rows if row["set"] == which]
        failed = [has_failed(row, mine) for row in mine]
        good = [row["spoiling"] == "none" for row in mine]
        for cohort in (False, True):
            scores = score(mine, cohort=cohort)
            steps = sorted({0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0})
            for limit in steps:
                flagged = [s >= limit for s in scores]
                kinds = {
                    "failures": [f for f, bad in zip(flagged, failed, strict=True) if bad],
                    "good": [f for f, bad, ok in zip(flagged, failed, good, strict=True) if ok and not bad],
                    "recovered": [f for f, bad, ok in zip(flagged, failed, good, strict=True) if not ok and not bad],
                }
                shares = {kind: 100 * statistics.fmean(f) if f else math.nan for kind, f in kinds.items()}
                roc.append({
                    "set": which, "judged": "in a cohort" if cohort else "alone", "limit": f"{limit:g}",
                    "failures": str(len(kinds["failures"])), "flagged_percent": f"{shares['failures']:.1f}",
                    "good": str(len(kinds["good"])), "false_alarms_percent": f"{shares['good']:.1f}",
                    "recovered_flagged_percent": f"{shares['recovered']:.1f}",
                })  # fmt: skip
    return roc


def print_kinds(rows: Sequence[harness.Row]) -> None:
    """Print how many of each kind were flagged."""
    for which in (TUNING, JUDGED):
        mine = [row for row in rows if row["set"] == which]
        failed = [has_failed(row, mine) for row in mine]
        lines = []
        grades = [score(mine, cohort=cohort) for cohort in (False, True)]
        for kind in sorted({(row["group"], row["spoiling"]) for row in mine}):
            (chosen) = [n for n, row in enumerate(mine) if (row["group"], row["spoiling"]) == kind]
            bad = [n for n in chosen if failed[n]]
            counts = [f"{sum(g[n] >= 1 for n in bad)} / {sum(g[n] >= 1 for n in chosen)}" for g in grades]
            lines.append((", ".join(kind), str(len(chosen)), str(len(bad)), *counts))
        columns = ("pairs", "number", "failed", "flagged failed / all, alone", "in a cohort")
        harness.print_table(f"{which}: limit 1", columns, lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Register and judge; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of real pairs and brains; without it, phantoms alone")
    parser.add_argument("--sets", nargs="+", default=[TUNING, JUDGED], choices=(TUNING, JUDGED))
    parser.add_argument("--judge-only", action="store_true", help="judge the measures of earlier registrations")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args(arguments)
    table = options.output / "verdict_pairs.csv"
    rows = harness.read_rows(table, COLUMNS)
    for which in () if options.judge_only else options.sets:
        for make in list_pairs(which, options.data):
            for pair in make():
                row = measure(pair, which)
                harness.progress(" ".join(row[name] for name in (*KEY, "dice", "tre_mm", "matched_percent", "seconds")))
                rows = harness.merged_rows(rows, [row], KEY)
                harness.write_rows(table, COLUMNS, rows)
    harness.write_rows(options.output / "verdict.csv", ROC, make_roc(rows))
    print_kinds(rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
