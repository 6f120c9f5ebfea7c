"""The verdict on good and on deliberately spoiled pairs: how many failures it flags, and how many good pairs.

The pairs are in ``verdict_cases.py``. Limits are tuned on one set and judged on the other; nobody is in both.
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
from contextlib import suppress
from dataclasses import fields, replace
from itertools import product
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import harness  # noqa: E402 - this folder is no package
from verdict_cases import JUDGED, TUNING, Pair, list_pairs  # noqa: E402

from convexadam import ConvexAdamError, preset, register  # noqa: E402
from convexadam.geometry import Transform  # noqa: E402
from convexadam.metrics import dice, tre  # noqa: E402
from convexadam.report import QualityMeasures, judge_quality, measure_quality, mirror_image  # noqa: E402

MEASURES = tuple(field.name for field in fields(QualityMeasures))
COLUMNS = ("set", "group", "pair", "spoiling", "dice", "tre_mm", "error", "seconds", *MEASURES)
KEY = ("set", "group", "pair", "spoiling")
ROC = (
    *("set", "judged", "limit", "failures", "flagged_percent", "good", "false_alarms_percent"),
    "recovered_flagged_percent",
)
MIRRORED = ("none", "left-right flip")
"""Kinds of pairs whose mirror image is registered as well; the others have to be found without."""

LIMITS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0)
ALONE, COHORT, WITHOUT_MIRROR = MODES = ("alone", "in a cohort", "without mirror")
"""A pair by itself, beside the good pairs of its group, and by itself without the registration of its mirror image."""

KINDS = (
    *("set", "spoiling", "pairs", "failed"),
    *(f"{mode.replace(' ', '_')}_{what}_flagged" for mode in MODES for what in ("failed", "others")),
)

LEAST_DICE, MOST_TRE = 0.8, 2.0
"""A registration has failed below this share of the median Dice of good pairs, or beyond this multiple of their TRE."""


def measure(pair: Pair, which: str) -> harness.Row:
    """Register a pair; return its truth and its measures."""
    row = {"set": which, "group": pair.group, "pair": pair.name, "spoiling": pair.spoiling}
    row |= dict.fromkeys(COLUMNS[4:], "")
    config, begin = pair.config or preset(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = register(pair.fixed, pair.moving, config)
        except ConvexAdamError as error:
            return row | {"error": str(error)}
        row["seconds"] = f"{time.process_time() - begin:.1f}"
        mirrored = None
        with suppress(ConvexAdamError):  # what is not a question of left and right is judged without
            if pair.spoiling in MIRRORED:
                mirrored = register(pair.fixed, mirror_image(pair.moving), config)
    row |= measure_truth(pair, result.transform)
    values = measure_quality(result, pair.fixed, pair.moving, mirrored=mirrored).to_dict()
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


def score(rows: Sequence[harness.Row], mode: str) -> list[float]:
    """Return a score for each row of a set: 1 and more is flagged, and an error of the registration always."""
    scores = []
    for row in rows:
        if row["error"]:
            scores.append(math.inf)
            continue
        good = [r for r in rows if r["spoiling"] == "none" and r["group"] == row["group"] and r["pair"] != row["pair"]]
        measures = read_measures(row)
        if mode == WITHOUT_MIRROR:
            measures = replace(measures, mirror_gain=math.nan)
        scores.append(judge_quality(measures, [read_measures(r) for r in good] if mode == COHORT else ()).score)
    return scores


def share(flagged: Iterable[bool]) -> str:
    """Return the percentage that is flagged; empty for none."""
    flagged = list(flagged)
    return f"{100 * statistics.fmean(flagged):.1f}" if flagged else ""


def make_roc(rows: Sequence[harness.Row]) -> list[harness.Row]:
    """Return the receiver operating characteristic of both sets over the limit, 1 for that of the verdict."""
    roc = []
    for which, mode in product((TUNING, JUDGED), MODES):
        mine = [row for row in rows if row["set"] == which]
        failed = [has_failed(row, mine) for row in mine]
        scored = list(zip(mine, failed, score(mine, mode), strict=True))
        for limit in LIMITS:
            bad = [s >= limit for _, f, s in scored if f]
            good = [s >= limit for row, f, s in scored if not f and row["spoiling"] == "none"]
            recovered = [s >= limit for row, f, s in scored if not f and row["spoiling"] != "none"]
            row = {
                "set": which,
                "judged": mode,
                "limit": f"{limit:g}",
                "failures": str(len(bad)),
                "good": str(len(good)),
            }
            row |= {"flagged_percent": share(bad), "false_alarms_percent": share(good)}
            roc.append(row | {"recovered_flagged_percent": share(recovered)})
    return roc


def count_kinds(rows: Sequence[harness.Row]) -> list[harness.Row]:
    """Return how many of each kind failed, and how many of those that failed or not were flagged."""
    counted = []
    for which in (TUNING, JUDGED):
        mine = [row for row in rows if row["set"] == which]
        failed = [has_failed(row, mine) for row in mine]
        scores = {mode: score(mine, mode) for mode in MODES}
        for kind in sorted({row["spoiling"] for row in mine}, key=lambda kind: (kind != "none", kind)):
            chosen = [n for n, row in enumerate(mine) if row["spoiling"] == kind]
            row = {"set": which, "spoiling": kind, "pairs": str(len(chosen))}
            row["failed"] = str(sum(failed[n] for n in chosen))
            for mode in MODES:
                name = mode.replace(" ", "_")
                row[f"{name}_failed_flagged"] = str(sum(failed[n] and scores[mode][n] >= 1 for n in chosen))
                row[f"{name}_others_flagged"] = str(sum(not failed[n] and scores[mode][n] >= 1 for n in chosen))
            counted.append(row)
    return counted


def main(arguments: Sequence[str] | None = None) -> int:
    """Register and judge; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of real pairs and brains; without it, phantoms alone")
    parser.add_argument("--sets", nargs="+", default=[TUNING, JUDGED], choices=(TUNING, JUDGED))
    parser.add_argument("--groups", nargs="+", help="only groups that begin so, such as brain or torso")
    parser.add_argument("--judge-only", action="store_true", help="judge the measures of earlier registrations")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args(arguments)
    table = options.output / "verdict_pairs.csv"
    rows = harness.read_rows(table, COLUMNS)
    for which in () if options.judge_only else options.sets:
        for make in list_pairs(which, options.data):
            for pair in make():
                if options.groups and not pair.group.startswith(tuple(options.groups)):
                    continue
                row = measure(pair, which)
                harness.progress(" ".join(row[name] for name in (*KEY, "dice", "tre_mm", "matched_percent", "seconds")))
                rows = harness.merged_rows(rows, [row], KEY)
                harness.write_rows(table, COLUMNS, rows)
    kinds = count_kinds(rows)
    harness.write_rows(options.output / "verdict.csv", ROC, make_roc(rows))
    harness.write_rows(options.output / "verdict_kinds.csv", KINDS, kinds)
    harness.print_table("flagged by the verdict", KINDS, [[row[name] for name in KINDS] for row in kinds])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
