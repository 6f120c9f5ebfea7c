"""Several processes of this machine, each with its share of the cores."""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar, final

from convexadam._checks import check_count
from convexadam.executors.protocol import WorkerError
from convexadam.executors.threads import count_cores, make_thread_environment
from convexadam.executors.worker import receive, send

J = TypeVar("J")
R = TypeVar("R")

_WORKER = str(Path(__file__).with_name("worker.py"))

_ATTEMPTS = 2
"""Workers that a job may cost: the second one shows that the job, not the machine, ends them."""


@final
class ProcessExecutor:
    """Runs jobs in several processes of this machine; the job of one that is killed is given to a new one.

    The processes end with this one, however it ends. Functions and jobs have to be importable there: those that a
    script or notebook defines itself are not.

    Parameters
    ----------
    workers
        Number of processes, at least 1.
    threads
        Threads of each process; ``None`` shares the cores among the processes.
    gpus
        Values of ``CUDA_VISIBLE_DEVICES`` that the processes take in turn; none leaves the variable as it is.

    Raises
    ------
    ConfigError
        If a number is below 1.

    Examples
    --------
    >>> from convexadam.cohort import register_cohort
    >>> from convexadam.executors import ProcessExecutor
    >>> register_cohort("pairs.csv", output_dir="study", executor=ProcessExecutor(4, threads=2))  # doctest: +SKIP
    """

    def __init__(self, workers: int, *, threads: int | None = None, gpus: Sequence[str] = ()) -> None:
        check_count(workers, "workers", least=1)
        if threads is not None:
            check_count(threads, "threads", least=1)
        self.workers = workers
        self.threads = threads or max(1, count_cores() // workers)
        self._gpus = tuple(gpus)

    def run(self, function: Callable[[J], R], next_job: Callable[[], J | None]) -> Iterator[tuple[J, R | Exception]]:
        """Run jobs until there are no more."""
        tasks: queue.SimpleQueue[J | None] = queue.SimpleQueue()
        results: queue.SimpleQueue[tuple[J, Any]] = queue.SimpleQueue()
        workers: list[_Worker] = []
        waiting, more = 0, True
        try:
            while more or waiting:
                # twice as many as there are workers, so that none waits for its next job
                while more and waiting < 2 * self.workers:
                    job = next_job()
                    more = job is not None
                    if job is not None:
                        if len(workers) < self.workers:
                            workers.append(_Worker(function, self._make_environment(len(workers)), tasks, results))
                        tasks.put(job)
                        waiting += 1
                if waiting:
                    finished = results.get()
                    waiting -= 1
                    yield finished
        finally:  # also if the caller leaves early
            for worker in workers:
                worker.kill()
            for _ in workers:
                tasks.put(None)
            for worker in workers:
                worker.join()

    def _make_environment(self, number: int) -> dict[str, str]:
        gpu = {"CUDA_VISIBLE_DEVICES": self._gpus[number % len(self._gpus)]} if self._gpus else {}
        return {**os.environ, **make_thread_environment(self.threads), **gpu}


class _Worker:
    """A process that runs a function on jobs, and a thread of this process that waits for it."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        environment: dict[str, str],
        tasks: queue.SimpleQueue[Any],
        results: queue.SimpleQueue[Any],
    ) -> None:
        self._function, self._environment = function, environment
        self._tasks, self._results = tasks, results
        self._process: subprocess.Popen[bytes] | None = None
        self._lock, self._killed = threading.Lock(), False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                self._process.kill()

    def join(self) -> None:
        """Wait for the thread, which ends at a job that is ``None``."""
        self._thread.join()
        self._release()

    def _serve(self) -> None:
        while (job := self._tasks.get()) is not None:
            try:
                self._results.put((job, self._call(job)))
            except Exception as error:  # a job that cannot be pickled, or a process that cannot be started
                self._results.put((job, error))

    def _call(self, job: Any) -> Any:
        """Return the result of a job, or its exception."""
        message, status = pickle.dumps(job), None
        for _ in range(_ATTEMPTS):
            process = self._start()
            try:
                send(_get_stream(process.stdin), message)
                return pickle.loads(receive(_get_stream(process.stdout)))
            except (EOFError, OSError):
                status = process.wait()
                self._release()
        return WorkerError(
            f"the process of a job must end with a result, got exit status {status} from {_ATTEMPTS} processes; use "
            "fewer workers if the memory was full (status -9)"
        )

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._killed:
                raise WorkerError("a job must start before its executor ends")
            if self._process is None:
                start = (
                    f"import runpy, sys; sys.path[:] = {sys.path!r}; runpy.run_path({_WORKER!r}, run_name='__main__')"
                )
                self._process = subprocess.Popen(
                    [sys.executable, "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment
                )
                send(_get_stream(self._process.stdin), pickle.dumps(self._function))
            return self._process

    def _release(self) -> None:
        """Close the pipes of a process that has ended."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):  # what the process did not read
                    _get_stream(stream).close()


def _get_stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # both are pipes
    return stream
