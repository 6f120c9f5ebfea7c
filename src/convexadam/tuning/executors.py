"""Where trials run: here, one after the other, or on the workers of a Dask cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, final

import torch

from convexadam.errors import ConfigError, FileError, GeometryError, InputError, MissingExtraError, OutOfMemoryError
from convexadam.io import PairFiles
from convexadam.registration import RegistrationConfig
from convexadam.tuning.bench import Bench, Trial
from convexadam.tuning.space import ReadOff


@final
@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """What a worker needs to set up a bench of its own."""

    pairs: tuple[PairFiles, ...]
    device: str
    memory_bytes: int
    surface: bool

    def bench(self) -> Bench:
        """Set it up."""
        return Bench(self.pairs, device=self.device, memory_bytes=self.memory_bytes, surface=self.surface)


@final
@dataclass(frozen=True, kw_only=True)
class Failed:
    """Why settings could not be tried, and whether that lasts: what may have been bad luck is tried again later."""

    error: str
    lasting: bool

    @classmethod
    def because(cls, error: BaseException, *, lasting: bool) -> Failed:
        """Return an error as one line of text."""
        return cls(error=" ".join(f"{type(error).__name__}: {error}".split()), lasting=lasting)


@final
@dataclass(frozen=True, kw_only=True)
class Job:
    """Settings to be tried; a number tells jobs apart."""

    number: int
    settings: str
    read_off: ReadOff

    def done_on(self, bench: Bench) -> Trial | Failed:
        """Try the settings; what went wrong, if they cannot be tried.

        Raises
        ------
        FileError, MissingExtraError
            If files or packages are missing: no other settings could be tried either.
        """
        try:
            return self._tried(bench)
        except (FileError, MissingExtraError):
            raise
        except (ConfigError, InputError, GeometryError) as error:
            return Failed.because(error, lasting=True)
        except Exception as error:  # one setting that cannot be tried does not end the search
            return Failed.because(error, lasting=False)

    def _tried(self, bench: Bench) -> Trial:
        settings = RegistrationConfig.from_toml(self.settings)
        try:
            return bench.try_out(settings, self.read_off)
        except (OutOfMemoryError, MemoryError, torch.cuda.OutOfMemoryError):
            bench.clear()  # which may have taken what is missing
        return bench.try_out(settings, self.read_off)


Next = Callable[[], Job | None]
"""Returns the next job; ``None`` if there is none any more."""


class Executor(Protocol):
    """Runs jobs, and hands over what they came to in the order in which they end."""

    def run(self, plan: BenchPlan, following: Next) -> Iterator[tuple[Job, Trial | Failed]]:
        """Run jobs until there are none."""
        ...


@final
class LocalExecutor:
    """In this process, one after the other."""

    def __init__(self) -> None:
        self._benches: dict[BenchPlan, Bench] = {}

    def run(self, plan: BenchPlan, following: Next) -> Iterator[tuple[Job, Trial | Failed]]:
        """Run jobs until there are none."""
        bench = _bench_of(self._benches, plan)
        while (job := following()) is not None:
            yield job, job.done_on(bench)


@final
class DaskExecutor:
    """On the workers of a Dask cluster; the job of a worker that dies goes to another one.

    Parameters
    ----------
    client
        A `distributed.Client`.
    ahead
        Jobs begun or waiting for each thread of a worker, at least 1; with more than 1 none is idle.
    """

    def __init__(self, client: Any, *, ahead: int = 2) -> None:
        self._client, self._ahead = client, ahead

    def run(self, plan: BenchPlan, following: Next) -> Iterator[tuple[Job, Trial | Failed]]:
        """Run jobs until there are none."""
        from distributed import wait

        waiting: dict[Any, Job] = {}
        more = True
        while more or waiting:
            most = max(1, sum(self._client.nthreads().values())) * self._ahead
            while more and len(waiting) < most:
                job = following()
                more = job is not None
                if job is not None:
                    waiting[self._client.submit(_on_worker, plan, job, pure=False, retries=2)] = job
            if not waiting:
                return
            for future in wait(list(waiting), return_when="FIRST_COMPLETED").done:
                job = waiting.pop(future)
                error = future.exception()
                if isinstance(error, (FileError, MissingExtraError)):
                    raise error
                yield job, future.result() if error is None else Failed.because(error, lasting=False)


def dask_client(address: str | None = None, *, slurm_jobs: int = 0) -> Any:
    """Return a client of a Dask cluster.

    Parameters
    ----------
    address
        Of a scheduler that runs, such as ``tcp://10.0.0.1:8786``; ``None`` starts a cluster.
    slurm_jobs
        Jobs of SLURM to start as workers, with what the configuration of dask-jobqueue says about them; 0 starts
        workers on this machine.

    Raises
    ------
    MissingExtraError
        If Dask is not installed.
    ConfigError
        If both an address and jobs come, the scheduler does not answer, or SLURM cannot be used.
    """
    if address and slurm_jobs:
        raise ConfigError("the address of a scheduler and jobs of SLURM both came; give one of them")
    try:
        import distributed

        if slurm_jobs:
            from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise MissingExtraError('spreading trials needs Dask; pip install "convexadam-torch[cohort]"') from error
    client: Any = distributed.Client
    if address:
        try:
            return client(address)
        except (OSError, ValueError) as error:
            raise ConfigError(f"no scheduler of Dask answers at {address!r}: {error}") from error
    if not slurm_jobs:
        return client(threads_per_worker=1)
    try:
        cluster = SLURMCluster()
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"the jobs of SLURM are not configured ({error}); see jobqueue.slurm of dask-jobqueue"
        ) from error
    cluster.scale(jobs=slurm_jobs)
    return client(cluster)


_BENCHES: dict[BenchPlan, Bench] = {}
"""Of this process, where it is a worker: what trials have in common stays from one to the next."""


_ONE_AT_A_TIME = threading.Lock()


def _on_worker(plan: BenchPlan, job: Job) -> Trial | Failed:
    with _ONE_AT_A_TIME:  # a worker may have several threads
        return job.done_on(_bench_of(_BENCHES, plan))


K = TypeVar("K")


def _bench_of(benches: dict[BenchPlan, Bench], plan: BenchPlan) -> Bench:
    """Return the bench of a plan; those of other plans are let go."""
    if plan not in benches:
        benches.clear()
        benches[plan] = plan.bench()
    return benches[plan]
