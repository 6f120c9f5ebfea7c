"""Options of the commands that register many pairs: settings, and where they run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from convexadam.cli.common import UsageError
from convexadam.executors import Executor, ProcessExecutor, open_dask
from convexadam.registration import RegistrationConfig, preset


def check_workers(workers: int, dask: str | None, slurm_jobs: int) -> None:
    """Raise unless workers are given in at most one way."""
    if len([option for option in (dask, slurm_jobs, workers > 1) if option]) > 1:
        raise UsageError("workers must be those of --workers, --dask or --slurm-jobs, got several; choose one")
    if workers < 1 or slurm_jobs < 0:
        raise UsageError(f"--workers must be at least 1, got {min(workers, slurm_jobs)}; pass a number")


@contextmanager
def open_executor(
    workers: int, dask: str | None = None, slurm_jobs: int = 0, gpus: Sequence[int] = ()
) -> Iterator[Executor | None]:
    """Open the executor of these options; ``None`` is this process."""
    names = tuple(map(str, gpus))
    if dask is None and not slurm_jobs:
        yield ProcessExecutor(workers, gpus=names) if workers > 1 or names else None
        return
    with open_dask(dask, slurm_jobs=slurm_jobs) as executor:
        yield executor


def make_config(name: str, file: Path | None) -> RegistrationConfig:
    """Return the settings of a file or of a preset."""
    if file is not None and name != "default":
        raise UsageError(
            f"settings must come from --preset or --config, got --preset {name} and --config {file}; omit one of them"
        )
    return preset(name) if file is None else RegistrationConfig.load(file)
