"""Registration of all pairs of a cohort."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from convexadam._atomic import make_folder
from convexadam._checks import check_count, check_flag
from convexadam._lock import lock_folder
from convexadam._version import VERSION
from convexadam.cohort.fingerprint import describe_settings
from convexadam.cohort.job import PairJob, remove_folder, run_pair, sweep
from convexadam.cohort.outcome import CohortOutcome
from convexadam.cohort.table import CohortTable
from convexadam.errors import ConfigError, ConvexAdamError, InputError
from convexadam.executors import Executor, LocalExecutor
from convexadam.io import PairFiles, atomic_path, read_manifest
from convexadam.io.ids import check_ids
from convexadam.io.nifti_placement import get_header_form
from convexadam.io.reading import StrPath
from convexadam.registration import RegistrationConfig, preset
from convexadam.registration.files import Output
from convexadam.registration.presets import parse_config
from convexadam.report.verdict import judge_cohort

OUTPUTS: tuple[Output, ...] = ("transform", "moved", "labels")
"""Files that are kept of each pair, unless told otherwise."""


def register_cohort(
    pairs: StrPath | Sequence[PairFiles],
    config: RegistrationConfig | str | None = None,
    *,
    output_dir: StrPath,
    executor: Executor | None = None,
    outputs: Collection[Output] = OUTPUTS,
    check_mirror: bool = False,
    measure: bool = True,
    compress: bool = True,
    retries: int = 1,
    device: str | None = None,
    source: str | None = None,
) -> Iterator[CohortOutcome]:
    """Register all pairs of a cohort, and yield what came of each pair as it ends.

    Results are written to the folder described in `convexadam.cohort`. An interrupted run continues when it is called
    again: pairs whose files (by content) and settings are the same are kept, and all others registered. The error of a
    pair is an outcome as well, and does not stop the others.

    Parameters
    ----------
    pairs
        A list of pairs in a file (see `convexadam.io.read_manifest`), or the pairs. Those with a ``preset`` use its
        settings.
    config
        Settings of all other pairs, or the name of a preset; ``None`` is ``"default"``.
    output_dir
        Folder for the results; created if it does not exist.
    executor
        Where pairs are registered; ``None`` for this process. See `convexadam.executors`.
    outputs
        Files to keep of each pair: ``"transform"``, ``"inverse"``, ``"moved"`` and ``"labels"`` (the labels of the
        moving image, warped). Files that an earlier run has kept stay.
    check_mirror
        Register the mirror image of each moving image as well, which takes twice the time: nothing else tells a brain
        whose left and right are exchanged. See ``mirror_gain`` of `convexadam.report.QualityMeasures`.
    measure
        Measure the quality and judge it. Without, a registration with ``"default"`` takes an eighth less, and the page
        of the cohort measures it.
    compress
        Pack images and fields (``.nii.gz``). Without, they are written and read several times as fast.
    retries
        How often a pair that failed is tried again, at the end; not if its files or settings cannot be used.
    device
        Device to compute on; ``None`` is the CPU.
    source
        How the pairs were given, for ``cohort.json``.

    Returns
    -------
    Iterator of one outcome for each pair, those that are kept first. The folder is locked until it is exhausted or
    closed.

    Raises
    ------
    InputError, FileError
        If pairs cannot be used, before any is registered; or, from the iterator, if another process uses the folder.
    ConfigError
        If an argument is out of range.

    Examples
    --------
    >>> for outcome in register_cohort("pairs.csv", output_dir="study"):  # doctest: +SKIP
    ...     print(outcome.id, outcome.status, outcome.verdict)
    """
    files = tuple(pairs) if not isinstance(pairs, (str, os.PathLike)) else read_manifest(pairs)
    _check_arguments(files, outputs, retries, device)
    options = {"check_mirror": check_mirror, "measure": measure, "compress": compress}
    for name, value in options.items():
        check_flag(value, name)
    if check_mirror and not measure:
        raise ConfigError("check_mirror must be False without measures, got True; pass measure=True")
    folder = Path(output_dir)
    jobs = list(_make_jobs(files, config, folder.resolve() / "pairs", tuple(outputs), device, options))
    record = _make_record(jobs, source or (str(pairs) if isinstance(pairs, (str, os.PathLike)) else None), retries)
    return _run(jobs, folder, record, executor or LocalExecutor(), retries)


def _check_arguments(files: Sequence[PairFiles], outputs: Collection[Output], retries: int, device: str | None) -> None:
    if not files or not all(isinstance(pair, PairFiles) for pair in files):
        raise InputError("pairs must be a file with a list of pairs or at least one PairFiles, got none or others")
    check_ids([pair.id for pair in files])
    if unknown := sorted({*outputs} - {*get_args(Output)}):
        raise ConfigError(f"outputs must be among {', '.join(get_args(Output))}, got {unknown[0]!r}")
    check_count(retries, "retries")
    try:
        torch.device(device or "cpu")  # whether a worker has it is known there
    except RuntimeError as error:
        raise ConfigError(f'device must be one such as "cuda" or "cuda:0", got {device!r}') from error


def _make_jobs(
    files: Sequence[PairFiles],
    config: RegistrationConfig | str | None,
    folder: Path,
    outputs: tuple[Output, ...],
    device: str | None,
    options: Mapping[str, bool],
) -> Iterator[PairJob]:
    """Yield the job of each pair.

    Raises
    ------
    InputError
        If files do not exist or presets are unknown; the message lists all of them.
    """
    problems, presets = list[str](), dict[str | None, RegistrationConfig]({None: parse_config(config)})
    exist: dict[Path, bool] = {}
    for pair in files:
        gone = [path for path in pair.files.values() if not exist.setdefault(path, path.exists())]
        problems += [f"pair {pair.id}: there is no file {path}" for path in gone]
        try:
            if pair.preset is not None and pair.preset not in presets:
                presets[pair.preset] = preset(pair.preset)
        except ConvexAdamError as error:
            problems.append(f"pair {pair.id}: {error}")
    if problems:
        raise InputError(f"pairs must name files and presets that exist: {'; '.join(problems)}")
    uses, header = Counter(pair.fixed for pair in files), get_header_form()
    settings = {name: describe_settings(config, header) for name, config in presets.items()}
    for pair in files:
        absolute: dict[str, Any] = {name: path.absolute() for name, path in pair.files.items()}
        yield PairJob(
            pair=dataclasses.replace(pair, **absolute),
            config=presets[pair.preset],
            folder=folder,
            outputs=outputs,
            settings=settings[pair.preset],
            header=header,
            device=device,
            shares_fixed=uses[pair.fixed] > 1,
            **options,
        )


def _make_record(jobs: Sequence[PairJob], source: str | None, retries: int) -> dict[str, Any]:
    """Return what ``cohort.json`` holds."""
    settings = {job.pair.preset or "": job.settings for job in jobs}
    return {
        "command": sys.argv,
        "source": source,
        "pairs": len(jobs),
        "outputs": list(jobs[0].outputs),
        "check_mirror": jobs[0].check_mirror,
        "measure": jobs[0].measure,
        "compress": jobs[0].compress,
        "retries": retries,
        "device": jobs[0].device or "cpu",
        "settings": {name: json.loads(text) for name, text in settings.items()},
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {
            "convexadam": VERSION,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _run(
    jobs: Sequence[PairJob], folder: Path, record: dict[str, Any], executor: Executor, retries: int
) -> Iterator[CohortOutcome]:
    make_folder(folder / "pairs")
    with lock_folder(folder, "cohort"):
        sweep(folder / "pairs")
        with atomic_path(folder / "cohort.json") as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        table, outcomes, waiting = CohortTable(folder / "cohort.csv"), list[CohortOutcome](), list[PairJob]()
        for job in jobs:
            kept = job.find_kept()
            if kept is None:
                waiting.append(job)
            else:
                outcomes.append(kept)
        table.rewrite(outcomes)
        yield from outcomes
        for outcome in _register(waiting, executor, retries):
            if outcome.status == "failed":
                remove_folder(outcome.folder)  # results of other files or settings, which the table does not have
            outcomes.append(outcome)
            table.append(outcome)
            yield outcome
        table.rewrite(_judge(outcomes))


def _register(jobs: list[PairJob], executor: Executor, retries: int) -> Iterator[CohortOutcome]:
    """Yield the outcome of each job; what fails is tried again when all others have ended."""
    for left in range(retries, -1, -1):
        failed = list[PairJob]()
        for job, result in executor.run(run_pair, partial(next, iter(jobs), None)):
            outcome = _make_failure(job, result) if isinstance(result, Exception) else result
            if outcome.status == "failed" and left and not outcome.is_permanent:
                failed.append(job)
            else:
                # a worker that was lost after it had written its results has kept them
                yield dataclasses.replace(outcome, status="done") if outcome.status == "kept" else outcome
        if not failed:
            return
        jobs = failed


def _make_failure(job: PairJob, error: Exception) -> CohortOutcome:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return CohortOutcome(pair=job.pair, status="failed", folder=job.folder / job.pair.id, error=text)


def _judge(outcomes: Iterable[CohortOutcome]) -> Iterator[CohortOutcome]:
    """Yield outcomes with their verdicts by comparison with others of the same settings."""
    groups = defaultdict[str | None, list[CohortOutcome]](list)
    for outcome in outcomes:
        groups[outcome.pair.preset].append(outcome)
    for group in groups.values():
        verdicts = judge_cohort([outcome.quality for outcome in group if outcome.quality is not None])
        for outcome in group:
            yield outcome if outcome.quality is None else dataclasses.replace(outcome, verdict=next(verdicts))
