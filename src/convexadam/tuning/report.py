"""Result of a search, and the files it is written to."""

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
class TuningResult:
    """Result of a search.

    Attributes
    ----------
    best
        The settings with the highest score of the second stage.
    base
        The initial settings, as evaluated in the second stage; ``None`` if their evaluation failed.
    candidates, scores
        All settings evaluated in both stages, and their scores among those of the same stage, from 0.1 to 1.
    failures
        Trials that failed.
    before
        Metrics before registration.
    ranked_by
        Names of the metrics that settings are ranked by.

    Examples
    --------
    >>> from convexadam import preset
    >>> from convexadam.tuning import Candidate, TuningResult
    >>> base = Candidate(
    ...     stage="continuous", trial=0, settings=preset("default"), entries={}, metrics={"dice": 0.8}, seconds=1.0,
    ...     changes={}, is_base=True,
    ... )
    >>> found = TuningResult(
    ...     best=base, base=base, candidates=(base,), scores=(1.0,), failures=(), before={"dice": 0.5},
    ...     ranked_by=("dice",),
    ... )  # as `tune` returns it
    >>> found.best.metrics["dice"] - found.before["dice"] > 0.2
    True
    """

    best: Candidate
    base: Candidate | None
    candidates: tuple[Candidate, ...]
    scores: tuple[float, ...]
    failures: tuple[Failure, ...]
    before: Mapping[str, float]
    ranked_by: tuple[str, ...]


def write_results(result: TuningResult, folder: Path, arguments: Mapping[str, Any]) -> None:
    """Write ``best.toml``, ``trials.csv`` and ``report.json``.

    Raises
    ------
    FileError
        If a file cannot be written.
    """
    result.best.settings.save(folder / "best.toml")
    with atomic_path(folder / "trials.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = _make_rows(result)
        writer = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    with atomic_path(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(_make_report(result, arguments), indent=2) + "\n", encoding="utf-8")


def _make_rows(result: TuningResult) -> list[dict[str, Any]]:
    succeeded = [
        {
            "stage": candidate.stage,
            "trial": candidate.trial,
            "score": f"{score:.4f}",
            **{name: f"{value:.5g}" for name, value in candidate.metrics.items()},
            "seconds": f"{candidate.seconds:.2f}",
            "error": "",
            **_format_changes(candidate),
        }
        for candidate, score in zip(result.candidates, result.scores, strict=True)
    ]
    failed = [
        {"stage": f.stage, "trial": f.trial, "error": f.error, **{k: json.dumps(v) for k, v in f.changes.items()}}
        for f in result.failures
    ]
    return succeeded + failed


def _format_changes(candidate: Candidate) -> dict[str, str]:
    """Return the sampled settings, and those of the checkpoint."""
    changes = {name: json.dumps(value) for name, value in candidate.changes.items()}
    refine = candidate.settings.continuous
    if candidate.stage == "continuous" and refine is not None:
        changes |= {"iterations": str(refine.levels[-1].iterations), "final_smoothing": str(refine.final_smoothing)}
    return changes


def _make_report(result: TuningResult, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **arguments,
        "ranked_by": list(result.ranked_by),
        "before": _replace_nan(result.before),
        "base": None if result.base is None else _replace_nan(result.base.metrics),
        "best": _replace_nan(result.best.metrics),
        "best_trial": {"stage": result.best.stage, "trial": result.best.trial},
        "evaluated": len(result.candidates),
        "failed": len(result.failures),
        "seconds": sum({(c.stage, c.trial): c.seconds for c in result.candidates}.values()),
        "versions": {"convexadam": VERSION, "torch": torch.__version__, "python": platform.python_version()},
    }


def _replace_nan(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Replace NaN, which JSON does not have, by null."""
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}
