"""Workers of a Dask cluster: on this machine, by SLURM, or of a scheduler that runs already."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, final

from convexadam.errors import ConfigError, MissingExtraError
from convexadam.executors.protocol import WorkerError
from convexadam.executors.threads import count_cores, make_thread_environment

J = TypeVar("J")
R = TypeVar("R")

_RECONNECT_S = 300.0
"""Time in which a scheduler that does not answer may come back."""

_RECONNECT_INTERVAL_S = 2.0

_LOST = (OSError, CancelledError)
"""What Dask raises while there is no scheduler; a lost connection cancels its futures."""


@final
class DaskExecutor:
    """Runs jobs on the workers of a Dask cluster.

    The job of a worker that dies is given to another one, and all jobs to a scheduler that comes back within five
    minutes.

    Parameters
    ----------
    client
        A `distributed.Client`.
    jobs_per_thread
        Jobs that run or wait for each thread of a worker, at least 1; with 2 no thread waits for its next job.

    Examples
    --------
    >>> from convexadam.executors import DaskExecutor, connect_dask
    >>> executor = DaskExecutor(connect_dask("tcp://scheduler:8786"))  # doctest: +SKIP
    """

    def __init__(self, client: Any, *, jobs_per_thread: int = 2) -> None:
        self._client, self._jobs_per_thread = client, jobs_per_thread
        self._address = client.scheduler.address

    def run(self, function: Callable[[J], R], next_job: Callable[[], J | None]) -> Iterator[tuple[J, R | Exception]]:
        """Run jobs until there are no more."""
        from distributed import wait

        pending: dict[Any, J] = {}
        more = True
        try:
            while more or pending:
                try:
                    # workers may come and go
                    limit = max(1, sum(self._client.nthreads().values())) * self._jobs_per_thread
                    while more and len(pending) < limit:
                        job = next_job()
                        more = job is not None
                        if job is not None:
                            pending[self._submit(function, job)] = job
                    if not pending:
                        return
                    done = wait(list(pending), return_when="FIRST_COMPLETED").done
                    results = [(future, _get_result(future)) for future in done]
                except _LOST:
                    self._reconnect()
                    pending = {self._submit(function, job): job for job in pending.values()}
                    continue
                for future, result in results:
                    yield pending.pop(future), result
        finally:  # also if the caller leaves early
            if pending:
                with suppress(*_LOST):
                    self._client.cancel(list(pending), force=True)

    def _submit(self, function: Callable[[J], R], job: J) -> Any:
        return self._client.submit(function, job, pure=False, retries=2)

    def _reconnect(self) -> None:
        """Wait until the scheduler answers.

        Raises
        ------
        WorkerError
            If it does not.
        """
        import distributed

        deadline = time.monotonic() + _RECONNECT_S
        while True:
            try:
                if self._client.status != "running":
                    self._client = distributed.Client(self._address)
                self._client.nthreads()
                return
            except _LOST as error:
                if time.monotonic() > deadline:
                    raise WorkerError(
                        f"the Dask scheduler at {self._address} must come back within {_RECONNECT_S:.0f} s, got no "
                        "answer; start it again, and repeat the command to continue"
                    ) from error
                time.sleep(_RECONNECT_INTERVAL_S)


def _get_result(future: Any) -> Any:
    """Return the result of a future, or its exception."""
    from distributed import KilledWorker

    error = future.exception()
    if isinstance(error, KilledWorker):
        return WorkerError(
            "the workers of a job must end with a result, got workers that were killed one after the other; start "
            "them with more memory, or fewer on each machine"
        )
    return future.result() if error is None else error


@contextmanager
def open_dask(address: str | None = None, *, slurm_jobs: int = 0) -> Iterator[DaskExecutor]:
    """Connect to a Dask cluster as `connect_dask` does, and end within the block what that has started.

    Examples
    --------
    >>> from convexadam.cohort import register_cohort
    >>> from convexadam.executors import open_dask
    >>> with open_dask(slurm_jobs=20) as executor:  # doctest: +SKIP
    ...     register_cohort("pairs.csv", output_dir="study", executor=executor)
    """
    client = connect_dask(address, slurm_jobs=slurm_jobs)
    cluster = client.cluster
    try:
        yield DaskExecutor(client)
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def connect_dask(
    address: str | None = None,
    *,
    slurm_jobs: int = 0,
    workers: int | None = None,
    threads: int | None = None,
    gpus: Sequence[str] = (),
) -> Any:
    """Return a client of a Dask cluster.

    Parameters
    ----------
    address
        Address of a running scheduler, such as ``tcp://10.0.0.1:8786``; ``None`` starts a cluster.
    slurm_jobs
        Number of SLURM jobs to start as workers, as dask-jobqueue is configured; 0 starts workers on this machine.
    workers
        Number of workers on this machine; ``None`` for one on each core, or on each of ``gpus``.
    threads
        Threads that a registration on a worker of this machine uses; ``None`` shares the cores among the workers.
    gpus
        Values of ``CUDA_VISIBLE_DEVICES``, which the workers of this machine take in turn.

    Raises
    ------
    MissingExtraError
        If Dask is not installed.
    ConfigError
        If both ``address`` and ``slurm_jobs`` are given, the scheduler does not answer, or SLURM cannot be used.

    Examples
    --------
    >>> from convexadam.executors import connect_dask
    >>> client = connect_dask(workers=4, threads=2)  # doctest: +SKIP
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
        raise MissingExtraError('jobs on several workers need Dask; pip install "convexadam-torch[cohort]"') from error
    client: Any = distributed.Client
    if address:
        try:
            return client(address)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot connect to a Dask scheduler at {address!r}: {error}; check the address"
            ) from error
    if not slurm_jobs:
        return client(_make_cluster(workers or len(gpus) or count_cores(), threads, gpus))
    try:
        cluster = SLURMCluster()
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"cannot start SLURM jobs: {error}; configure jobqueue.slurm of dask-jobqueue") from error
    cluster.scale(jobs=slurm_jobs)
    return client(cluster)


def _make_cluster(workers: int, threads: int | None, gpus: Sequence[str]) -> Any:
    """Start a scheduler and workers on this machine, each with its own variables of the environment."""
    import dask
    import distributed

    environment = make_thread_environment(threads or max(1, count_cores() // workers))
    specification = {
        number: {
            "cls": distributed.Nanny,
            "options": {
                "nthreads": 1,
                "memory_limit": 0,
                "env": environment | ({"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}),
            },
        }
        for number in range(workers)
    }
    scheduler = {"cls": distributed.Scheduler, "options": {"dashboard_address": None, "protocol": "tcp"}}
    # what is imported before the variables are set would not see them
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environment}):
        return distributed.SpecCluster(workers=specification, scheduler=scheduler, name="convexadam")
