"""Options of the commands that register many pairs: settings, and where they run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from convexadam.cli.common import OptionalFile, Preset, UsageError
from convexadam.executors import Executor, ProcessExecutor, open_dask
from convexadam.registration import RegistrationConfig, preset


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Settings of the registrations, and the workers that run them.

    Attributes
    ----------
    config
        TOML file of settings, instead of a preset.
    workers
        Processes on this machine that share its cores.
    dask
        Address of a Dask scheduler, on whose workers to register.
    slurm_jobs
        SLURM jobs to start as workers, as dask-jobqueue is configured.
    """

    preset: Preset = "default"
    config: OptionalFile = None
    workers: int = 1
    dask: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="")] = None
    slurm_jobs: int = 0

    def check_workers(self) -> None:
        """Raise unless workers are given in at most one way."""
        if len([option for option in (self.dask, self.slurm_jobs, self.workers > 1) if option]) > 1:
            raise UsageError("workers must be those of --workers, --dask or --slurm-jobs, got several; choose one")
        if self.workers < 1 or self.slurm_jobs < 0:
            raise UsageError(f"--workers must be at least 1, got {min(self.workers, self.slurm_jobs)}; pass a number")

    @contextmanager
    def open_executor(self, gpus: Sequence[int] = ()) -> Iterator[Executor | None]:
        """Open the executor of these options; ``None`` is this process."""
        self.check_workers()
        names = tuple(map(str, gpus))
        if self.dask is None and not self.slurm_jobs:
            workers = max(self.workers, len(names))
            yield ProcessExecutor(workers, gpus=names) if workers > 1 or names else None
            return
        if names:
            raise UsageError(
                "--gpus must be omitted with --dask and --slurm-jobs, whose workers have their own; omit it"
            )
        with open_dask(self.dask, slurm_jobs=self.slurm_jobs) as executor:
            yield executor

    def make_config(self) -> RegistrationConfig:
        """Return the settings of the file or of the preset."""
        return make_config(self.preset, self.config, default=type(self).preset)


def make_config(name: str, file: Path | None, *, default: str = "default") -> RegistrationConfig:
    """Return the settings of a file, if no preset but the default is named, or of a preset."""
    if file is not None and name != default:
        raise UsageError(
            f"settings must come from --preset or --config, got --preset {name} and --config {file}; omit one of them"
        )
    return preset(name) if file is None else RegistrationConfig.load(file)
