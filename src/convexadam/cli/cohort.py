"""``convexadam cohort``."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import tyro

from convexadam.cli.common import Header, OptionalFile, UsageError, say
from convexadam.cli.workers import StudyOptions
from convexadam.cohort import (
    CohortOutcome,
    CohortPlan,
    pair_all,
    pair_bids,
    pair_with_fixed,
    plan_cohort,
    write_derivatives,
)
from convexadam.cohort.cohort import OUTPUTS, register_cohort
from convexadam.errors import ConvexAdamError, OutOfMemoryError
from convexadam.executors import count_cores
from convexadam.io import PairFiles, read_manifest
from convexadam.registration import RegistrationConfig
from convexadam.registration.files import Output

_SHOWN = 20
"""Pairs that failed, or should be looked at, that the summary lists."""

_PRINT_INTERVAL_S = 30.0

Patterns = Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATTERN", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Cohort(StudyOptions):
    """Register a whole study; the same command continues an interrupted run.

    The pairs are those of MANIFEST, or --fixed with each --moving, or --all-pairs, or --bids. DIR holds cohort.csv,
    with one row for each pair as it ends, cohort.json, and a folder of results for each pair; with --bids the results
    have the names of BIDS derivatives as well. A pair is registered again if its files or settings have changed. The
    exit status is 1 if pairs failed.

    Attributes
    ----------
    manifest
        List of pairs: .csv, .tsv or .json with fixed and moving, and optionally id, preset, initial_transform, and
        fixed_mask, moving_mask, fixed_labels, moving_labels (to warp, and for the Dice overlap), fixed_landmarks,
        moving_landmarks (for the landmark error), fixed_segmentation, moving_segmentation. Paths are relative to it.
    output_dir
        Folder for the results; created if it does not exist. That of images in BIDS layout is derivatives/convexadam
        beside them unless another one is given.
    fixed
        Image that all others are registered to.
    moving
        The others, such as 'scans/*.nii.gz', or their names.
    all_pairs
        Register each pair of these images once.
    bids
        Folder in BIDS layout. Without --fixed, within each subject all images to the first one.
    suffix
        Kind of the images of --bids.
    set
        Change one: discrete.spacing=5 (repeatable).
    keep
        Files to keep of each pair: transform, inverse, moved, labels.
    check_mirror
        Also register mirror images, to find exchanged left and right.
    retries
        How often a pair that failed is tried again.
    device
        Device such as cuda:0.
    gpus
        GPUs that the workers take in turn, by number; at least one worker for each, and --device cuda.
    dry_run
        Check the pairs, print the estimated time and memory, and register nothing.
    quiet
        Print no progress and no summary.
    """

    manifest: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="MANIFEST", help_behavior_hint="")] = (
        None
    )
    output_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    fixed: OptionalFile = None
    moving: Patterns = ()
    all_pairs: Patterns = ()
    bids: OptionalFile = None
    suffix: str = "T1w"
    set: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="TOML", help_behavior_hint="")
    ] = ()
    keep: tuple[Output, ...] = OUTPUTS
    check_mirror: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    retries: int = 1
    device: Annotated[str, tyro.conf.arg(metavar="NAME")] = "cpu"
    gpus: tuple[int, ...] = ()
    header: Header = None
    dry_run: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    quiet: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False

    def run(self) -> None:
        """Run the command."""
        self._check_options()
        folder = self._find_folder()
        pairs, config = self._find_pairs(), self.make_config().with_settings(*self.set)
        if self.dry_run:
            self._print_plan(pairs, config)
            return
        outcomes = list[CohortOutcome]()
        start = time.monotonic()
        with (
            self.open_executor(self.gpus) as executor,
            _show_progress(len(pairs), quiet=self.quiet) as show,
        ):
            for outcome in register_cohort(
                pairs,
                config,
                output_dir=folder,
                executor=executor,
                outputs=self.keep,
                check_mirror=self.check_mirror,
                retries=self.retries,
                device="cuda" if self.gpus and self.device == "cpu" else self.device,
                source=self._describe_source(),
            ):
                outcomes.append(outcome)
                if self.bids is not None:
                    write_derivatives(outcome, folder)
                show(outcome)
        if not self.quiet:
            _print_summary(outcomes, time.monotonic() - start)
            say(f"convexadam report {shlex.quote(str(folder))} writes a page with pictures of all pairs")
        if failed := [outcome for outcome in outcomes if outcome.status == "failed"]:
            names = ", ".join(outcome.id for outcome in failed[:_SHOWN]) + ", ..." * (len(failed) > _SHOWN)
            raise ConvexAdamError(
                f"{len(failed)} of {len(outcomes)} pairs failed: {names}; see {folder / 'cohort.csv'}, and "
                "repeat the command to try them again"
            )

    def _check_options(self) -> None:
        ways = {
            "MANIFEST": self.manifest,
            "--moving": self.moving,
            "--all-pairs": self.all_pairs,
            "--bids": self.bids,
        }
        if len(given := [name for name, value in ways.items() if value]) != 1:
            raise UsageError(
                f"pairs must be given in one way, {', '.join(ways)}, got {' and '.join(given) or 'none'}; choose one"
            )
        if self.manifest is not None and self.manifest.is_dir():
            raise UsageError(
                f"MANIFEST must be a file with a list of pairs, got the folder {self.manifest}; name its images by "
                f"--fixed IMAGE --moving '{self.manifest}/*.nii.gz', or a folder in BIDS layout by --bids"
            )
        if self.moving and self.fixed is None:
            raise UsageError("--fixed must be given with --moving, got none; name the image to register to")
        if self.fixed is not None and given[0] in ("MANIFEST", "--all-pairs"):
            raise UsageError(f"--fixed must be omitted with {given[0]}, which says what is registered to what")
        self.check_workers()

    def _find_folder(self) -> Path:
        if self.output_dir is None and self.bids is None:
            raise UsageError("--output-dir must be given unless the pairs are those of --bids, got none; name a folder")
        return self.output_dir or Path(self.bids or "") / "derivatives" / "convexadam"

    def _find_pairs(self) -> Sequence[PairFiles]:
        if self.manifest is not None:
            return read_manifest(self.manifest)
        if self.all_pairs:
            return pair_all(self.all_pairs)
        if self.bids is not None:
            return pair_bids(self.bids, self.suffix, self.fixed)
        assert self.fixed is not None
        return pair_with_fixed(self.fixed, self.moving)

    def _describe_source(self) -> str:
        patterns = " ".join(self.moving or self.all_pairs)
        return str(self.manifest or self.bids or (f"{self.fixed}, {patterns}" if self.moving else patterns))

    def _print_plan(self, pairs: Sequence[PairFiles], config: RegistrationConfig) -> None:
        plan = plan_cohort(
            pairs,
            config,
            workers=self.workers,
            threads=max(1, count_cores() // self.workers),
            check_mirror=self.check_mirror,
        )
        say(_describe_plan(plan))
        if not plan.fits:
            raise OutOfMemoryError(
                f"the machine must have {plan.memory_bytes / 1e9:.1f} GB of memory for {plan.workers} workers, got "
                f"{plan.machine_bytes / 1e9:.1f}; use fewer workers"
            )


def _describe_plan(plan: CohortPlan) -> str:
    return (
        f"{plan.pairs} pairs on {plan.workers} worker{'s' * (plan.workers > 1)}: about {_format_time(plan.seconds)} "
        f"(right to a factor of three), {plan.memory_bytes / 1e9:.1f} GB of memory of {plan.machine_bytes / 1e9:.1f}"
    )


def _format_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


class _Show(Protocol):
    def __call__(self, outcome: CohortOutcome) -> None: ...


@contextmanager
def _show_progress(total: int, *, quiet: bool) -> Iterator[_Show]:
    """Show a progress bar on a terminal, otherwise print a line every 30 s; name each pair that failed as it ends."""
    if quiet:
        yield lambda outcome: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("pairs", total=total)

            def show(outcome: CohortOutcome) -> None:
                bar.update(task, advance=1)
                if outcome.error is not None:
                    bar.console.print(f"{outcome.id}: {outcome.error}", markup=False)

            yield show
    else:
        yield _make_line_printer(total)


def _make_line_printer(total: int) -> _Show:
    done, last = 0, -_PRINT_INTERVAL_S

    def show(outcome: CohortOutcome) -> None:
        nonlocal done, last
        done += 1
        if outcome.error is not None:
            say(f"{outcome.id}: {outcome.error}")
        if time.monotonic() - last >= _PRINT_INTERVAL_S or done == total:
            last = time.monotonic()
            say(f"{done} of {total} pairs")

    return show


def _print_summary(outcomes: Sequence[CohortOutcome], seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    counts = Counter(outcome.status for outcome in outcomes)
    grades = Counter(outcome.verdict.grade for outcome in outcomes if outcome.verdict is not None)
    table = Table("pairs", "registered", "kept", "failed", "ok", "to look at", "verdict failed", "time")
    numbers = (len(outcomes), *(counts[s] for s in ("done", "kept", "failed")))
    numbers += tuple(grades[grade] for grade in ("ok", "look", "failed"))
    table.columns[-1].no_wrap = True
    table.add_row(*map(str, numbers), _format_time(seconds))
    console = Console(stderr=True)
    console.print(table)
    doubtful = [outcome for outcome in outcomes if outcome.verdict is not None and outcome.verdict.grade != "ok"]
    for outcome in doubtful[:_SHOWN]:
        assert outcome.verdict is not None
        console.print(f"{outcome.id}: {outcome.verdict.grade} ({outcome.verdict.reasons[0]})", markup=False)
    if len(doubtful) > _SHOWN:
        console.print(f"... and {len(doubtful) - _SHOWN} more", markup=False)
