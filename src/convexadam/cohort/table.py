"""``cohort.csv``: one row for each pair."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, final

from convexadam.cohort.outcome import CohortOutcome
from convexadam.cohort.truth import SCORES
from convexadam.io import atomic_path
from convexadam.report import QualityMeasures

_QUALITY = tuple(item.name for item in fields(QualityMeasures))

COLUMNS = ("id", "status", "verdict", "reasons", "seconds", *SCORES, *_QUALITY, "error", "warnings", "fixed", "moving")
"""Columns of ``cohort.csv``; the status is ``done`` or ``failed``, and what a pair has no value for is empty."""


@final
class CohortTable:
    """The rows of the pairs that have ended, each written whole or not at all.

    A row that cannot be written, because the disk is full, is written with the next one.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._waiting = path, b""

    def rewrite(self, outcomes: Iterable[CohortOutcome]) -> None:
        """Replace all rows.

        Raises
        ------
        FileError
            If the file cannot be written.
        """
        with atomic_path(self.path) as temporary, temporary.open("wb") as file:
            file.write(_format(COLUMNS))
            for outcome in outcomes:
                file.write(_format(_make_row(outcome)))
        self._waiting = b""

    def append(self, outcome: CohortOutcome) -> None:
        """Append the row of an outcome."""
        self._waiting += _format(_make_row(outcome))
        with suppress(OSError), self.path.open("ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if file.write(self._waiting) == len(self._waiting):  # one call, which no reader sees half of
                self._waiting = b""
            else:
                file.truncate(size)


def _make_row(outcome: CohortOutcome) -> list[Any]:
    verdict, quality = outcome.verdict, outcome.quality
    values: dict[str, Any] = {
        "id": outcome.id,
        "status": "failed" if outcome.status == "failed" else "done",
        "verdict": None if verdict is None else verdict.grade,
        "reasons": None if verdict is None else "; ".join(verdict.reasons),
        "seconds": outcome.seconds,
        **outcome.scores,
        **({} if quality is None else vars(quality)),
        "error": outcome.error,
        "warnings": "; ".join(outcome.warnings),
        "fixed": outcome.pair.fixed,
        "moving": outcome.pair.moving,
    }
    return [_format_value(values.get(name)) for name in COLUMNS]


def _format_value(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else value


def _format(row: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue().encode()
