"""What a search found, and its files."""

from __future__ import annotations

import csv
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from convexadam._version import VERSION
from convexadam.io import atomic_path
from convexadam.tuning.study import Candidate, Failure


@final
@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What a search found.

    Attributes
    ----------
    best
        The settings with the best score of the second stage, those to begin with among them.
    candidates, scores
        All that was tried in both stages, and how good it was beside the others of its stage, from 0.1 to 1.
    failures
        What could not be tried, and why.
    before
        Figures before registration.
    metrics
        What was ranked by.
    """

    best: Candidate
    base: Candidate | None
    candidates: tuple[Candidate, ...]
    scores: tuple[float, ...]
    failures: tuple[Failure, ...]
    before: Mapping[str, float]
    metrics: tuple[str, ...]


def write_results(result: Tuning, folder: Path, arguments: Mapping[str, Any]) -> None:
    """Write ``best.toml``, ``trials.csv`` and ``report.json`` (each whole or not at all).

    Raises
    ------
    FileError
        If one cannot be written.
    """
    result.best.settings.save(folder / "best.toml")
    with atomic_path(folder / "trials.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = _rows(result)
        writer = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    with atomic_path(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(_report(result, arguments), indent=2) + "\n", encoding="utf-8")


def _rows(result: Tuning) -> list[dict[str, Any]]:
    tried = [
        {
            "stage": candidate.stage,
            "trial": candidate.trial,
            "score": f"{score:.4f}",
            **{name: f"{value:.5g}" for name, value in candidate.figures.items()},
            "seconds": f"{candidate.seconds:.2f}",
            "error": "",
            **_changes(candidate),
        }
        for candidate, score in zip(result.candidates, result.scores, strict=True)
    ]
    failed = [
        {"stage": f.stage, "trial": f.trial, "error": f.error, **{k: json.dumps(v) for k, v in f.changes.items()}}
        for f in result.failures
    ]
    return tried + failed


def _changes(candidate: Candidate) -> dict[str, str]:
    """Return what was drawn, and what one run shows of several settings."""
    found = {name: json.dumps(value) for name, value in candidate.changes.items()}
    refine = candidate.settings.continuous
    if candidate.stage == "continuous" and refine is not None:
        found |= {"iterations": str(refine.levels[-1].iterations), "final_smoothing": str(refine.final_smoothing)}
    return found


def _report(result: Tuning, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **arguments,
        "metrics": list(result.metrics),
        "before": _plain(result.before),
        "base": None if result.base is None else _plain(result.base.figures),
        "best": _plain(result.best.figures),
        "best_trial": {"stage": result.best.stage, "trial": result.best.trial},
        "tried": len(result.candidates),
        "failed": len(result.failures),
        "seconds": sum({(c.stage, c.trial): c.seconds for c in result.candidates}.values()),
        "versions": {"convexadam": VERSION, "torch": torch.__version__, "python": platform.python_version()},
    }


def _plain(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Return figures for JSON, which knows no NaN."""
    return {name: None if math.isnan(value) else value for name, value in figures.items()}
