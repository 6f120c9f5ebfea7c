"""Executors of trials: one after the other in this process, or on the workers of a Dask cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch

from convexadam.errors import ConfigError, FileError, GeometryError, InputError, MissingExtraError, OutOfMemoryError
from convexadam.io import PairFiles
from convexadam.registration import RegistrationConfig
from convexadam.tuning.evaluator import Evaluator, Trial
from convexadam.tuning.space import Checkpoints


@final
@dataclass(frozen=True, kw_only=True)
class EvaluatorSpec:
    """Arguments of an `Evaluator`, from which each worker makes its own."""

    pairs: tuple[PairFiles, ...]
    device: str
    memory_bytes: int
    surface: bool

    def make(self) -> Evaluator:
        """Return a new evaluator."""
        return Evaluator(self.pairs, device=self.device, memory_bytes=self.memory_bytes, surface=self.surface)


@final
@dataclass(frozen=True, kw_only=True)
class TrialError:
    """Error of a trial as one line of text; a trial whose error is not permanent is repeated by the next call."""

    message: str
    permanent: bool

    @classmethod
    def from_exception(cls, error: BaseException, *, permanent: bool) -> TrialError:
        """Return the type and text of an exception."""
        return cls(message=" ".join(f"{type(error).__name__}: {error}".split()), permanent=permanent)


@final
@dataclass(frozen=True, kw_only=True)
class Job:
    """Settings to evaluate, as TOML text, and a number that identifies the job."""

    number: int
    settings: str
    checkpoints: Checkpoints

    def run(self, evaluator: Evaluator) -> Trial | TrialError:
        """Evaluate the settings; an error that concerns only these settings is returned.

        Raises
        ------
        FileError, MissingExtraError
            If a file or package is missing: no other settings could be evaluated either.
        """
        try:
            return self._evaluate(evaluator)
        except (FileError, MissingExtraError):
            raise
        except (ConfigError, InputError, GeometryError) as error:
            return TrialError.from_exception(error, permanent=True)
        except Exception as error:  # the error of one trial must not end the search
            return TrialError.from_exception(error, permanent=False)

    def _evaluate(self, evaluator: Evaluator) -> Trial:
        config = RegistrationConfig.from_toml(self.settings)
        try:
            return evaluator.evaluate(config, self.checkpoints)
        except (OutOfMemoryError, MemoryError, torch.cuda.OutOfMemoryError):
            evaluator.clear()  # its cache may take the memory that is missing
        return evaluator.evaluate(config, self.checkpoints)


NextJob = Callable[[], Job | None]
"""Returns the next job; ``None`` if there are no more."""


class Executor(Protocol):
    """Runs jobs and yields their outcomes in the order in which they end."""

    def run(self, spec: EvaluatorSpec, next_job: NextJob) -> Iterator[tuple[Job, Trial | TrialError]]:
        """Run jobs until there are no more."""
        ...


@final
class LocalExecutor:
    """Runs jobs in this process, one after the other."""

    def __init__(self) -> None:
        self._evaluators: dict[EvaluatorSpec, Evaluator] = {}

    def run(self, spec: EvaluatorSpec, next_job: NextJob) -> Iterator[tuple[Job, Trial | TrialError]]:
        """Run jobs until there are no more."""
        evaluator = _get_evaluator(self._evaluators, spec)
        while (job := next_job()) is not None:
            yield job, job.run(evaluator)


@final
class DaskExecutor:
    """Runs jobs on the workers of a Dask cluster; the job of a worker that dies is given to another one.

    Parameters
    ----------
    client
        A `distributed.Client`.
    jobs_per_thread
        Jobs that run or wait for each thread of a worker, at least 1; with 2 no thread waits for its next job.
    """

    def __init__(self, client: Any, *, jobs_per_thread: int = 2) -> None:
        self._client, self._jobs_per_thread = client, jobs_per_thread

    def run(self, spec: EvaluatorSpec, next_job: NextJob) -> Iterator[tuple[Job, Trial | TrialError]]:
        """Run jobs until there are no more."""
        from distributed import wait

        pending: dict[Any, Job] = {}
        more = True
        while more or pending:
            # workers may come and go
            limit = max(1, sum(self._client.nthreads().values())) * self._jobs_per_thread
            while more and len(pending) < limit:
                job = next_job()
                more = job is not None
                if job is not None:
                    pending[self._client.submit(_run_on_worker, spec, job, pure=False, retries=2)] = job
            if not pending:
                return
            for future in wait(list(pending), return_when="FIRST_COMPLETED").done:
                job = pending.pop(future)
                error = future.exception()
                if isinstance(error, (FileError, MissingExtraError)):
                    raise error
                yield job, future.result() if error is None else TrialError.from_exception(error, permanent=False)


def connect_dask(address: str | None = None, *, slurm_jobs: int = 0) -> Any:
    """Return a client of a Dask cluster.

    Parameters
    ----------
    address
        Address of a running scheduler, such as ``tcp://10.0.0.1:8786``; ``None`` starts a cluster.
    slurm_jobs
        Number of SLURM jobs to start as workers, as dask-jobqueue is configured; 0 starts workers on this machine.

    Raises
    ------
    MissingExtraError
        If Dask is not installed.
    ConfigError
        If both ``address`` and ``slurm_jobs`` are given, the scheduler does not answer, or SLURM cannot be used.
    """
    if address and slurm_jobs:
        raise ConfigError(
            f"a client must have an address or slurm_jobs, got {address!r} and {slurm_jobs}; omit one of them"
        )
    try:
        import distributed

        if slurm_jobs:
            from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise MissingExtraError(
            'trials on several workers need Dask; pip install "convexadam-torch[cohort]"'
        ) from error
    client: Any = distributed.Client
    if address:
        try:
            return client(address)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot connect to a Dask scheduler at {address!r}: {error}; check the address"
            ) from error
    if not slurm_jobs:
        return client(threads_per_worker=1)
    try:
        cluster = SLURMCluster()
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"cannot start SLURM jobs: {error}; configure jobqueue.slurm of dask-jobqueue") from error
    cluster.scale(jobs=slurm_jobs)
    return client(cluster)


_EVALUATORS: dict[EvaluatorSpec, Evaluator] = {}
"""The evaluator of this process if it is a worker, so that its cache serves all trials."""

_LOCK = threading.Lock()
"""A worker may have several threads, but an evaluator runs one trial at a time."""


def _run_on_worker(spec: EvaluatorSpec, job: Job) -> Trial | TrialError:
    with _LOCK:
        return job.run(_get_evaluator(_EVALUATORS, spec))


def _get_evaluator(evaluators: dict[EvaluatorSpec, Evaluator], spec: EvaluatorSpec) -> Evaluator:
    """Return the evaluator of a spec; one of another spec is dropped, with its cache."""
    if spec not in evaluators:
        evaluators.clear()
        evaluators[spec] = spec.make()
    return evaluators[spec]
