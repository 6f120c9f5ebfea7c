"""Self-configuration: first the search, then the refinement given its winner, on pairs of the user's."""

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
from typing import Literal, TypeAlias, final, get_args

import numpy as np

from convexadam._atomic import made_folder
from convexadam.errors import ConfigError, FileError, InputError
from convexadam.io import PairFiles, atomic_path, read_manifest
from convexadam.tuning.bench import MEMORY_BYTES
from convexadam.tuning.executors import BenchPlan, Executor, Job, LocalExecutor
from convexadam.tuning.ranks import by_figures, by_significance
from convexadam.tuning.report import Tuning, write_results
from convexadam.tuning.space import Space, Stage
from convexadam.tuning.storage import StorageKind, opened
from convexadam.tuning.study import Candidate, Failure, Sampler, StageStudy
from convexadam.tuning.truth import Entries, ranked_metrics, summarised

Ranking: TypeAlias = Literal["linear", "significance"]
"""By figures, as published, or by how many others are significantly better, as Learn2Reg ranks."""


@final
@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a search is: the stage, trials done and in all, and the seconds that are left, as far as one can tell."""

    stage: str
    done: int
    total: int
    seconds_left: float


Progress: TypeAlias = Callable[[Status], None]


def tune(
    pairs: str | os.PathLike[str] | Sequence[PairFiles],
    output_dir: str | os.PathLike[str],
    *,
    space: Space | str | Path = "default",
    draws: tuple[int, int] | None = None,
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
) -> Tuning:
    """Choose settings by what they reach on pairs: first the search, then the refinement given the best search.

    Settings are tried on all pairs, and ranked by what the pairs offer: with labels by Dice, Dice of the hardest 30 per
    cent, HD95 and SDlogJ; with landmarks by the target registration error, that of the hardest 30 per cent, and SDlogJ;
    with neither by the inverse-consistency error, the difference of held-back features, and folding.
    A search that was ended, however, goes on where it was when it is called again with the same folder and arguments.

    Parameters
    ----------
    pairs
        A list of pairs in a file (see `convexadam.io.read_manifest`), or the pairs.
    output_dir
        Folder for ``best.toml`` (settings), ``trials.csv`` (all that was tried), ``report.json``, ``space.toml`` and
        the study; made where it does not exist.
    space
        What is tried: the name of a space, a file of one, or a `Space`.
    draws
        How many settings are drawn in each stage; ``None``: as many as the space says.
    sampler
        ``"random"`` as published; ``"tpe"`` draws near what was accurate so far; ``"multi-objective"`` near what was
        both accurate and smooth.
    ranking
        ``"linear"`` as published, or ``"significance"``.
    seed
        Of the draws. Same arguments, same draws; but with several workers, those of other samplers than
        ``"random"`` depend on which trial ends first.
    budget_s
        Seconds after which no new trial begins; the first stage takes a third of them at most. At least one trial of
        each stage runs.
    storage
        ``"journal"`` or ``"sqlite"``: the file of the study.
    executor
        Where trials run; ``None``: here. See `DaskExecutor`.
    device
        Where to compute.
    memory_bytes
        Of images, features and results that are kept to be used again.
    surface
        Whether surface distances are measured: the slow part of judging labels.
    progress
        Called after each trial.

    Returns
    -------
    `Tuning`; its results are in the folder as well.

    Raises
    ------
    FileError, InputError
        If files are missing or cannot be used, or no setting at all can be tried.
    ConfigError
        If an argument is out of range, or the folder has a search with other arguments.
    MissingExtraError
        If Optuna is not installed.
    """
    files = _resolved(read_manifest(pairs) if isinstance(pairs, (str, os.PathLike)) else tuple(pairs))
    space = space if isinstance(space, Space) else Space.load(space)
    stages = space.stages if draws is None else _with_draws(space.stages, draws)
    _check(files, sampler, ranking, budget_s)
    folder = made_folder(output_dir)
    plan = BenchPlan(pairs=files, device=device, memory_bytes=memory_bytes, surface=surface)
    arguments: dict[str, object] = {"draws": [stage.draws for stage in stages], "sampler": sampler, "seed": seed}
    arguments |= {"surface": surface, "storage": storage}
    executor, clock = executor or LocalExecutor(), _Clock(budget_s)
    ranked: list[_Ranked] = []
    with opened(folder, storage) as store:
        asked = {**arguments, "space": space.text, "pairs": [_fingerprint(pair) for pair in files]}
        known = _known(folder, asked | {"base": space.base.to_toml()})
        before = dataclasses.replace(plan, device="cpu").bench().before()
        if not known:
            _note(folder, space, asked | {"base": space.base.to_toml()})
        base = space.base
        for stage, share in zip(stages, (_FIRST_SHARE, 1.0), strict=True):
            found = ranked[0].best.settings if ranked else base
            name = f"{stage.name} {hashlib.sha256(found.to_toml().encode()).hexdigest()[:12]}"
            others = (base,) if found != base else ()
            study = StageStudy(store, name, stage, found, before, sampler=sampler, seed=seed, others=others)
            _run(study, executor, plan, clock.until(share), progress)
            ranked.append(_ranked(study, before, ranking))
    result = _tuning(ranked, before)
    write_results(result, folder, {**arguments, "ranking": ranking, "pairs": [pair.name for pair in files]})
    return result


_FIRST_SHARE = 1 / 3
"""Of the time that the first stage may take."""


@dataclass(frozen=True, kw_only=True)
class _Ranked:
    """What one stage came to."""

    candidates: list[Candidate]
    scores: list[float]
    failures: list[Failure]
    metrics: tuple[str, ...]

    @property
    def best(self) -> Candidate:
        return self.candidates[int(np.argmax(self.scores))]


class _Clock:
    def __init__(self, budget_s: float) -> None:
        self._began, self._budget_s = time.monotonic(), budget_s

    def until(self, share: float) -> Callable[[], float]:
        """Return what tells the seconds left of a share of the budget."""
        return lambda: self._began + share * self._budget_s - time.monotonic()


def _run(
    study: StageStudy, executor: Executor, plan: BenchPlan, seconds_left: Callable[[], float], progress: Progress | None
) -> None:
    """Run the trials of a stage that are left, as long as there is time, but one at least."""
    began, first = time.monotonic(), study.done

    def report() -> None:
        done, total = study.done, study.total
        pace = (time.monotonic() - began) / (done - first) if done > first else math.nan
        left = min(pace * (total - done), max(0.0, seconds_left()))
        if progress is not None:
            progress(Status(stage=study.stage.name, done=done, total=total, seconds_left=left))

    def following() -> Job | None:
        return study.following() if seconds_left() > 0 or not study.begun else None

    report()
    for job, outcome in executor.run(plan, following):
        study.told(job, outcome)
        report()


def _ranked(study: StageStudy, before: Mapping[str, Entries], ranking: Ranking) -> _Ranked:
    candidates, failures = study.outcomes()
    if not candidates:
        raise InputError(
            f"none of the {len(failures)} settings of the {study.stage.name} stage could be tried; the first error: "
            f"{failures[0].error if failures else 'none was begun'}"
        )
    metrics = ranked_metrics(set(candidates[0].figures))
    if ranking == "linear":
        scores = by_figures([candidate.figures for candidate in candidates], metrics)
    else:
        scores = by_significance([candidate.entries for candidate in candidates], before, metrics)
    return _Ranked(candidates=candidates, scores=scores.tolist(), failures=failures, metrics=metrics)


def _tuning(ranked: Sequence[_Ranked], before: Mapping[str, Entries]) -> Tuning:
    last = ranked[-1]
    return Tuning(
        best=last.best,
        base=next((candidate for candidate in last.candidates if candidate.is_base), None),
        candidates=tuple(candidate for stage in ranked for candidate in stage.candidates),
        scores=tuple(score for stage in ranked for score in stage.scores),
        failures=tuple(failure for stage in ranked for failure in stage.failures),
        before=summarised(before, before),
        metrics=last.metrics,
    )


def _with_draws(stages: tuple[Stage, Stage], draws: tuple[int, int]) -> tuple[Stage, Stage]:
    if not isinstance(draws, (tuple, list)) or len(draws) != 2 or not all(type(n) is int and n >= 0 for n in draws):
        raise ConfigError(f"draws are two whole numbers from 0, one for each stage, but {draws!r} came")
    first, second = (dataclasses.replace(stage, draws=n) for stage, n in zip(stages, draws, strict=True))
    return first, second


def _check(files: Sequence[PairFiles], sampler: str, ranking: str, budget_s: float) -> None:
    names = [pair.name for pair in files]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise InputError(f"{names.count(twice[0])} pairs have the name {twice[0]!r}; give each its own")
    offered = {(pair.fixed_labels is None, pair.fixed_landmarks is None) for pair in files}
    if len(offered) > 1:
        raise InputError("all pairs need the same to be judged by: labels, landmarks, both or neither")
    for name, value, kind in (("sampler", sampler, Sampler), ("ranking", ranking, Ranking)):
        if value not in get_args(kind):
            raise ConfigError(f"a {name} is one of {', '.join(get_args(kind))}, but {value!r} came")
    if not budget_s > 0:
        raise ConfigError(f"budget_s is seconds above 0, but {budget_s!r} came")


def _resolved(pairs: Sequence[PairFiles]) -> tuple[PairFiles, ...]:
    """Return pairs with whole paths, which mean the same to every worker."""
    if not pairs or not all(isinstance(pair, PairFiles) for pair in pairs):
        raise InputError(f"pairs are a file that lists some, or a sequence of PairFiles, but {pairs!r} came")
    whole = []
    for pair in pairs:
        files = {name: Path(path).resolve() for name, path in vars(pair).items() if name != "name" and path is not None}
        if gone := [str(path) for path in files.values() if not path.exists()]:
            raise FileError(f"files of pair {pair.name} are not there: {', '.join(gone)}")
        whole.append(PairFiles(name=pair.name, **files))
    return tuple(whole)


def _known(folder: Path, asked: Mapping[str, object]) -> bool:
    """Whether a folder has a search already, which has to be the same."""
    path = folder / "search.json"
    if not path.exists():
        return False
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise FileError(f"cannot read {path}: {error}; choose another folder") from error
    if changed := [name for name in asked if json.loads(json.dumps(asked[name])) != known.get(name)]:
        raise ConfigError(
            f"{folder} has a search with other {', '.join(changed)}; choose another folder, or give the same again"
        )
    return True


def _note(folder: Path, space: Space, asked: Mapping[str, object]) -> None:
    """Write down what is searched."""
    texts = {"search.json": json.dumps(asked, indent=2) + "\n", "space.toml": space.text}
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _fingerprint(pair: PairFiles) -> dict[str, str]:
    """Names, sizes and times of files: whether they are still the same."""
    files = {name: path for name, path in vars(pair).items() if isinstance(path, Path)}
    stats = {name: (path, path.stat()) for name, path in files.items()}
    return {"name": pair.name} | {
        name: f"{path}, {stat.st_size} bytes, {stat.st_mtime_ns}" for name, (path, stat) in stats.items()
    }
