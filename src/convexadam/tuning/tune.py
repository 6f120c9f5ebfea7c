"""Self-configuration: the search, then the refinement given the best search, are chosen on the pairs of a user."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, final, get_args

import numpy as np

from convexadam._arguments import check_arguments
from convexadam._atomic import make_folder
from convexadam._checks import check_choice, is_number, show
from convexadam.errors import ConfigError, FileError, InputError, MissingExtraError
from convexadam.executors import Executor, LocalExecutor
from convexadam.io import PairFiles, atomic_path, read_manifest
from convexadam.tuning.evaluator import MEMORY_BYTES
from convexadam.tuning.ranks import score_by_metrics, score_by_significance
from convexadam.tuning.reference import Entries, select_metrics, summarise
from convexadam.tuning.report import TuningResult, write_results
from convexadam.tuning.space import Space, Stage
from convexadam.tuning.storage import StorageKind, open_storage
from convexadam.tuning.study import Candidate, Failure, Sampler, StageStudy
from convexadam.tuning.trials import EvaluatorSpec, Job, TrialError, keep_evaluator

Ranking: TypeAlias = Literal["linear", "significance"]
"""By the metrics, as published, or by how many others are significantly better, as Learn2Reg ranks."""

_RECORD = "search.json"


@final
@dataclass(frozen=True, kw_only=True)
class Status:
    """Progress of a search: the stage, its trials done and in total, and an estimate of the seconds left (or NaN).

    Examples
    --------
    >>> from convexadam.tuning import Status
    >>> Status(stage="discrete", done=3, total=10, seconds_left=70.0).done
    3
    """

    stage: str
    done: int
    total: int
    seconds_left: float


Progress: TypeAlias = Callable[[Status], None]


@check_arguments
def tune(
    pairs: str | os.PathLike[str] | Sequence[PairFiles],
    output_dir: str | os.PathLike[str],
    *,
    space: Space | str | Path = "default",
    samples: tuple[int, int] | None = None,
    sampler: Sampler = "random",
    ranking: Ranking = "linear",
    seed: int = 0,
    budget_s: float = math.inf,
    storage: StorageKind = "journal",
    executor: Executor | None = None,
    device: str = "cpu",
    memory_bytes: int = MEMORY_BYTES,
    surface: bool = True,
    progress: Progress | None = None,
) -> TuningResult:
    """Choose settings by their results on pairs: first the search, then the refinement given the best search.

    All settings are evaluated on all pairs, and ranked by the metrics that the pairs allow: with label maps by Dice,
    Dice of the hardest 30 per cent, HD95 and SDlogJ; with landmarks by the target registration error, that of the
    hardest 30 per cent, and SDlogJ; with neither by the inverse-consistency error, the difference of held-out features,
    and folding. An interrupted search continues when it is called again with the same folder and arguments.

    Parameters
    ----------
    pairs
        A list of pairs in a file (see `convexadam.io.read_manifest`), or the pairs.
    output_dir
        Folder for ``best.toml`` (settings), ``trials.csv`` (all trials), ``report.json``, ``space.toml`` and the study;
        created if it does not exist.
    space
        The search space: a name, a file, or a `Space`.
    samples
        Number of samples of each stage; ``None`` takes those of the space.
    sampler
        ``"random"`` as published; ``"tpe"`` samples near the most accurate settings so far; ``"multi-objective"`` near
        those that are accurate and smooth.
    ranking
        ``"linear"`` as published, or ``"significance"``.
    seed
        Seed of the samples. The same arguments lead to the same samples; except that with several workers, those of
        other samplers than ``"random"`` depend on the order in which trials end.
    budget_s
        Seconds after which no new trial starts; the first stage may take a third of them. At least one trial of each
        stage runs.
    storage
        ``"journal"`` or ``"sqlite"``: the file format of the study.
    executor
        Where trials run; ``None`` for this process. See `convexadam.executors`.
    device
        Device to compute on.
    memory_bytes
        Memory for images, features and results that are reused by other trials.
    surface
        Whether surface distances are computed: the slow part of the evaluation with label maps.
    progress
        Called after each trial.

    Returns
    -------
    `TuningResult`, which is also written to the folder.

    Raises
    ------
    FileError, InputError
        If files are missing or cannot be used, or all trials failed.
    ConfigError
        If an argument is out of range, or the folder holds a search with other arguments.
    MissingExtraError
        If Optuna is not installed.

    Examples
    --------
    >>> from convexadam.tuning import tune
    >>> found = tune("pairs.csv", "search", samples=(20, 20))  # doctest: +SKIP
    >>> found.best.settings.save("best.toml")  # doctest: +SKIP
    """
    files = _resolve_paths(read_manifest(pairs) if isinstance(pairs, (str, os.PathLike)) else tuple(pairs))
    space = space if isinstance(space, Space) else Space.load(space)
    stages = space.stages if samples is None else _replace_samples(space.stages, samples)
    _check_arguments(files, sampler, ranking, budget_s)
    folder = make_folder(output_dir)
    spec = EvaluatorSpec(pairs=files, device=device, memory_bytes=memory_bytes, surface=surface)
    arguments: dict[str, object] = {"samples": [stage.samples for stage in stages], "sampler": sampler, "seed": seed}
    arguments |= {"surface": surface, "storage": storage}
    executor, clock = executor or LocalExecutor(), _Clock(budget_s)
    results: list[_StageResult] = []
    with open_storage(folder, storage) as store, keep_evaluator():
        record = {**arguments, "space": space.text, "pairs": [_make_fingerprint(pair) for pair in files]}
        record |= {"base": space.base.to_toml()}
        continues = _check_record(folder, record)
        before = dataclasses.replace(spec, device="cpu").make().score_before()
        if not continues:  # only now: pairs that cannot be evaluated must not occupy the folder
            _write_record(folder, space, record)
        for stage, share in zip(stages, (_FIRST_SHARE, 1.0), strict=True):
            base = results[0].best.settings if results else space.base
            name = f"{stage.name} {hashlib.sha256(base.to_toml().encode()).hexdigest()[:12]}"
            others = (space.base,) if base != space.base else ()
            study = StageStudy(store, name, stage, base, before, sampler=sampler, seed=seed, others=others)
            _run_stage(study, executor, spec, clock.until(share), progress)
            results.append(_rank_stage(study, before, ranking))
    result = _make_result(results, before)
    write_results(result, folder, {**arguments, "ranking": ranking, "pairs": [pair.id for pair in files]})
    return result


_FIRST_SHARE = 1 / 3
"""Share of the budget that the first stage may take."""


@dataclass(frozen=True, kw_only=True)
class _StageResult:
    """Ranked candidates of one stage."""

    candidates: list[Candidate]
    scores: list[float]
    failures: list[Failure]
    ranked_by: tuple[str, ...]

    @property
    def best(self) -> Candidate:
        return self.candidates[int(np.argmax(self.scores))]


class _Clock:
    def __init__(self, budget_s: float) -> None:
        self._start, self._budget_s = time.monotonic(), budget_s

    def until(self, share: float) -> Callable[[], float]:
        """Return a function for the seconds left of a share of the budget."""
        return lambda: self._start + share * self._budget_s - time.monotonic()


def _run_stage(
    study: StageStudy,
    executor: Executor,
    spec: EvaluatorSpec,
    get_seconds_left: Callable[[], float],
    progress: Progress | None,
) -> None:
    """Run the trials of a stage that are left while there is time, but at least one."""
    start, done_before = time.monotonic(), study.n_done

    def report() -> None:
        done, total = study.n_done, study.n_total
        pace_s = (time.monotonic() - start) / (done - done_before) if done > done_before else math.nan
        if progress is not None:
            left_s = min(pace_s * (total - done), max(0.0, get_seconds_left()))
            progress(Status(stage=study.stage.name, done=done, total=total, seconds_left=left_s))

    def next_job() -> Job | None:
        return study.next_job() if get_seconds_left() > 0 or not study.n_started else None

    report()
    for job, outcome in executor.run(spec, next_job):
        if isinstance(outcome, (FileError, MissingExtraError)):
            raise outcome
        study.record(
            job, TrialError.from_exception(outcome, permanent=False) if isinstance(outcome, Exception) else outcome
        )
        report()


def _rank_stage(study: StageStudy, before: Mapping[str, Entries], ranking: Ranking) -> _StageResult:
    candidates, failures = study.get_outcomes()
    if not candidates:
        raise InputError(
            f"the {study.stage.name} stage must have a successful trial, got {len(failures)} failed ones; "
            f"the first error: {failures[0].error if failures else 'no trial was started'}"
        )
    ranked_by = select_metrics(set(candidates[0].metrics))
    if ranking == "linear":
        scores = score_by_metrics([candidate.metrics for candidate in candidates], ranked_by)
    else:
        scores = score_by_significance([candidate.entries for candidate in candidates], before, ranked_by)
    return _StageResult(candidates=candidates, scores=scores.tolist(), failures=failures, ranked_by=ranked_by)


def _make_result(results: Sequence[_StageResult], before: Mapping[str, Entries]) -> TuningResult:
    last = results[-1]
    return TuningResult(
        best=last.best,
        base=next((candidate for candidate in last.candidates if candidate.is_base), None),
        candidates=tuple(candidate for stage in results for candidate in stage.candidates),
        scores=tuple(score for stage in results for score in stage.scores),
        failures=tuple(failure for stage in results for failure in stage.failures),
        before=summarise(before, before),
        ranked_by=last.ranked_by,
    )


def _replace_samples(stages: tuple[Stage, Stage], samples: tuple[int, int]) -> tuple[Stage, Stage]:
    if (
        not isinstance(samples, (tuple, list))
        or len(samples) != 2
        or not all(type(n) is int and n >= 0 for n in samples)
    ):
        raise ConfigError(
            f"samples must be two whole numbers of at least 0, one for each stage, got {show(samples)}; "
            "write for example (40, 60)"
        )
    first, second = (dataclasses.replace(stage, samples=n) for stage, n in zip(stages, samples, strict=True))
    return first, second


def _check_arguments(files: Sequence[PairFiles], sampler: str, ranking: str, budget_s: float) -> None:
    names = [pair.id for pair in files]
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise InputError(
            f"ids of pairs must be unique, got {names.count(repeated[0])} named {repeated[0]!r}; rename them"
        )
    for pair in files:
        if (pair.fixed_labels is None) != (pair.moving_labels is None):
            raise InputError(f"labels must be given for both images of a pair or for none, got one of pair {pair.id}")
    available = {(pair.fixed_labels is None, pair.fixed_landmarks is None) for pair in files}
    if len(available) > 1:
        raise InputError(
            "all pairs must have the same reference data: labels, landmarks, both or neither, got several kinds; "
            "complete the pairs, or tune on those alike"
        )
    check_choice(sampler, "sampler", get_args(Sampler))
    check_choice(ranking, "ranking", get_args(Ranking))
    if not is_number(budget_s) or not budget_s > 0:
        raise ConfigError(f"budget_s must be a number of seconds above 0, got {show(budget_s)}; omit it for no limit")


def _resolve_paths(pairs: Sequence[PairFiles]) -> tuple[PairFiles, ...]:
    """Return pairs with absolute paths, which are valid on every worker."""
    if not pairs or not all(isinstance(pair, PairFiles) for pair in pairs):
        raise InputError(f"pairs must be a file with a list of pairs or at least one PairFiles, got {show(pairs)}")
    resolved = []
    for pair in pairs:
        if pair.initial_transform is not None or pair.preset is not None:
            raise InputError(
                f"pairs to tune on must have neither an initial transform nor a preset, got one of pair {pair.id}; "
                "remove these columns"
            )
        absolute: dict[str, Any] = {name: path.resolve() for name, path in pair.files.items()}
        if missing := [str(path) for path in absolute.values() if not path.exists()]:
            raise FileError(f"files of pair {pair.id} must exist, missing: {', '.join(missing)}; check the list")
        resolved.append(dataclasses.replace(pair, **absolute))
    return tuple(resolved)


def _check_record(folder: Path, record: Mapping[str, object]) -> bool:
    """Return whether a folder holds a search; raise if it is one with other arguments."""
    path = folder / _RECORD
    if not path.exists():
        return False
    try:
        saved = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise FileError(f"cannot read {path}: {error}; choose another folder") from error
    if changed := [name for name in record if json.loads(json.dumps(record[name])) != saved.get(name)]:
        raise ConfigError(
            f"{', '.join(changed)} must be as in the search that {folder} holds, got others; "
            "choose another folder, or repeat the arguments"
        )
    return True


def _write_record(folder: Path, space: Space, record: Mapping[str, object]) -> None:
    texts = {_RECORD: json.dumps(record, indent=2) + "\n", "space.toml": space.text}
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _make_fingerprint(pair: PairFiles) -> dict[str, str]:
    """Return paths, sizes and modification times of files, by which a change is noticed."""
    stats = {name: (path, path.stat()) for name, path in pair.files.items()}
    return {"id": pair.id} | {
        name: f"{path}, {stat.st_size} bytes, {stat.st_mtime_ns}" for name, (path, stat) in stats.items()
    }
