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

from convexadam.cli.common import WrongUse, say
from convexadam.errors import MissingExtraError
from convexadam.tuning import (
    DaskExecutor,
    Progress,
    Ranking,
    Sampler,
    Space,
    Status,
    StorageKind,
    Tuning,
    dask_client,
    tradeoff_figure,
    tune,
)

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}

_SAY_EVERY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Choose settings by what they reach on the pairs of a MANIFEST; the same command goes on after an interruption.

    First the search is chosen, then the refinement given the best search. Into a folder go best.toml (for ``convexadam
    register --config``), trials.csv, report.json, tradeoff.png, and space.toml, which can be edited for a next time.

    Attributes
    ----------
    manifest
        List of pairs: a .csv or .json with fixed and moving and, to judge by, fixed_labels and moving_labels, or
        fixed_landmarks and moving_landmarks; masks as fixed_mask and moving_mask; label maps to compare as
        fixed_segmentation and moving_segmentation. Files are relative to the list.
    output_dir
        Folder for the results; made where it does not exist.
    space
        What is tried: default, published, labels, or a TOML file.
    draws
        How many settings are drawn in each of the two stages; without it, as many as the space says.
    sampler
        random as published, tpe near what was accurate so far, multi-objective near what was accurate and smooth.
    ranking
        linear as published, or by how many others are significantly better, as Learn2Reg ranks.
    seed
        Of the draws.
    budget
        Time after which no new trial begins, such as 90s, 30m or 2h.
    surface
        Whether surface distances of labels count (slow).
    storage
        Kind of file that keeps the trials.
    memory
        GB of images, features and results that are kept for other trials.
    executor
        Where trials run: here, or on the workers of a Dask cluster.
    scheduler
        Address of its scheduler; without it, workers start on this machine.
    slurm_jobs
        Jobs of SLURM to start as workers, as dask-jobqueue is configured for.
    device
        Where to compute, such as cpu or cuda:0.
    quiet
        No progress, no summary.
    """

    manifest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MANIFEST")]
    output_dir: Path
    space: str = "default"
    draws: tuple[int, int] | None = None
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
        """Do the work."""
        if self.executor == "local" and (self.scheduler or self.slurm_jobs):
            raise WrongUse("--scheduler and --slurm-jobs go with --executor dask")
        if not 0 <= self.memory < 1e6:
            raise WrongUse(f"--memory is GB from 0, but {self.memory} came")
        space, budget_s = Space.load(self.space), seconds(self.budget)
        with _workers(self) as executor, _shown(self.quiet) as progress:
            result = tune(
                self.manifest,
                self.output_dir,
                space=space,
                draws=self.draws,
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
            say(f"no figure: {error}")
        if not self.quiet:
            _print_table(result)
            say(f"tried {len(result.candidates)}, failed {len(result.failures)}; wrote {self.output_dir}/best.toml")


def seconds(budget: str) -> float:
    """Turn a time such as 30m into seconds; an empty one is no limit."""
    if not budget:
        return float("inf")
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if found is None or float(found[1]) == 0:
        raise WrongUse(f"--budget is a time above 0 such as 90s, 30m or 2h, but {budget!r} came")
    return float(found[1]) * _UNITS[found[2]]


@contextmanager
def _workers(options: Tune) -> Iterator[DaskExecutor | None]:
    if options.executor == "local":
        yield None
        return
    client = dask_client(options.scheduler, slurm_jobs=options.slurm_jobs)
    try:
        yield DaskExecutor(client)
    finally:
        client.close()


@contextmanager
def _shown(quiet: bool) -> Iterator[Progress | None]:
    """Show a bar on a terminal, and elsewhere a line now and then."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        yield _said_now_and_then()
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
        task = bar.add_task("begin", total=None, left="")
        yield lambda s: bar.update(task, description=s.stage, completed=s.done, total=s.total, left=_left(s))


def _said_now_and_then() -> Progress:
    last = -_SAY_EVERY_S

    def show(status: Status) -> None:
        nonlocal last
        if time.monotonic() - last >= _SAY_EVERY_S or status.done == status.total:
            last = time.monotonic()
            say(f"{status.stage}: {status.done} of {status.total}{', ' * bool(_left(status))}{_left(status)}")

    return show


def _left(status: Status) -> str:
    if not status.seconds_left > 0:
        return ""
    minutes, rest = divmod(round(status.seconds_left), 60)
    return f"{minutes} min {rest:02d} s left" if minutes else f"{rest} s left"


def _print_table(result: Tuning) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "before", "as begun", "best")
    for name in result.metrics:
        figures = [result.before.get(name), None if result.base is None else result.base.figures[name]]
        table.add_row(name, *("" if v is None else f"{v:.4g}" for v in (*figures, result.best.figures[name])))
    Console(stderr=True).print(table)
