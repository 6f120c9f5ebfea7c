"""``convexadam tune``."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from convexadam.cli.common import UsageError, say
from convexadam.errors import MissingExtraError
from convexadam.executors import DaskExecutor, connect_dask
from convexadam.tuning import (
    Progress,
    Ranking,
    Sampler,
    Space,
    Status,
    StorageKind,
    TuningResult,
    tradeoff_figure,
    tune,
)

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}

_PRINT_INTERVAL_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Choose settings by their results on the pairs of MANIFEST; the same command continues an interrupted search.

    The discrete search is chosen first, then the refinement given the best search. The output folder holds best.toml
    (for ``convexadam register --config``), trials.csv, report.json, tradeoff.png, and space.toml, which can be edited
    for another search.

    Attributes
    ----------
    manifest
        List of pairs: a .csv or .json with fixed and moving, and reference data to evaluate by: fixed_labels and
        moving_labels, or fixed_landmarks and moving_landmarks. Optional: fixed_mask, moving_mask, and
        fixed_segmentation and moving_segmentation for features that compare labels. Paths are relative to the list.
    output_dir
        Folder for the results; created if it does not exist.
    space
        Search space: default, published, labels, or a TOML file.
    samples
        Number of samples of the discrete and the continuous stage; default: those of the space.
    sampler
        random as published, tpe near the most accurate settings so far, multi-objective near accurate and smooth ones.
    ranking
        linear as published, or by the number of others that are significantly better, as Learn2Reg ranks.
    seed
        Seed of the samples.
    budget
        Time after which no new trial starts, such as 90s, 30m or 2h.
    surface
        Compute surface distances of labels (slow).
    storage
        File format of the study.
    memory
        Memory in GB for images, features and results that are reused by other trials.
    executor
        Run trials in this process (local), or on the workers of a Dask cluster.
    scheduler
        Address of the Dask scheduler; default: start workers on this machine.
    slurm_jobs
        SLURM jobs to start as workers, as dask-jobqueue is configured.
    device
        Device to compute on, such as cpu or cuda:0.
    quiet
        Print no progress and no summary.
    """

    manifest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MANIFEST")]
    output_dir: Path
    space: str = "default"
    samples: tuple[int, int] | None = None
    sampler: Sampler = "random"
    ranking: Ranking = "linear"
    seed: int = 0
    budget: str = ""
    surface: bool = True
    storage: StorageKind = "journal"
    memory: float = 2.0
    executor: Literal["local", "dask"] = "local"
    scheduler: str | None = None
    slurm_jobs: int = 0
    device: str = "cpu"
    quiet: bool = False

    def run(self) -> None:
        """Run the command."""
        if self.executor == "local" and (self.scheduler or self.slurm_jobs):
            raise UsageError(
                "--executor must be dask for --scheduler and --slurm-jobs, got local; add --executor dask, or omit them"
            )
        if not 0 <= self.memory < 1e6:
            raise UsageError(f"--memory must be a number of GB from 0 to 1e6, got {self.memory}")
        space, budget_s = Space.load(self.space), parse_duration(self.budget)
        with _open_executor(self) as executor, _show_progress(self.quiet) as progress:
            result = tune(
                self.manifest,
                self.output_dir,
                space=space,
                samples=self.samples,
                sampler=self.sampler,
                ranking=self.ranking,
                seed=self.seed,
                budget_s=budget_s,
                storage=self.storage,
                executor=executor,
                device=self.device,
                memory_bytes=int(self.memory * 1e9),
                surface=self.surface,
                progress=progress,
            )
        try:
            tradeoff_figure(result, path=self.output_dir / "tradeoff.png")
        except MissingExtraError as error:
            say(f"convexadam: no figure written: {error}")
        if not self.quiet:
            _print_table(result)
            say(
                f"{len(result.candidates)} settings evaluated, {len(result.failures)} trials failed; "
                f"wrote {self.output_dir / 'best.toml'}"
            )


def parse_duration(budget: str) -> float:
    """Return the seconds of a time such as 30m; infinity for an empty text."""
    if not budget:
        return float("inf")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--budget must be a time above 0 such as 90s, 30m or 2h, got {budget!r}")
    return float(match[1]) * _UNITS[match[2]]


@contextmanager
def _open_executor(options: Tune) -> Iterator[DaskExecutor | None]:
    if options.executor == "local":
        yield None
        return
    client = connect_dask(options.scheduler, slurm_jobs=options.slurm_jobs)
    try:
        yield DaskExecutor(client)
    finally:
        client.close()


@contextmanager
def _show_progress(quiet: bool) -> Iterator[Progress | None]:
    """Show a progress bar on a terminal, otherwise print a line every 30 s."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        yield _make_line_printer()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("start", total=None, left="")
        yield lambda s: bar.update(
            task, description=s.stage, completed=s.done, total=s.total, left=_format_time_left(s)
        )


def _make_line_printer() -> Progress:
    last = -_PRINT_INTERVAL_S

    def show(status: Status) -> None:
        nonlocal last
        if time.monotonic() - last >= _PRINT_INTERVAL_S or status.done == status.total:
            last = time.monotonic()
            left = _format_time_left(status)
            say(f"{status.stage}: {status.done} of {status.total}{', ' * bool(left)}{left}")

    return show


def _format_time_left(status: Status) -> str:
    if not status.seconds_left > 0:
        return ""
    minutes, seconds = divmod(round(status.seconds_left), 60)
    return f"{minutes} min {seconds:02d} s left" if minutes else f"{seconds} s left"


def _print_table(result: TuningResult) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "before", "base settings", "best settings")
    for name in result.ranked_by:
        values = [result.before.get(name), None if result.base is None else result.base.metrics[name]]
        table.add_row(name, *("" if v is None else f"{v:.4g}" for v in (*values, result.best.metrics[name])))
    Console(stderr=True).print(table)
