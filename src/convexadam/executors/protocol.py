"""What all executors have in common, and the one of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar, final

from convexadam.errors import ConvexAdamError

J = TypeVar("J")
R = TypeVar("R")


class WorkerError(ConvexAdamError):
    """The workers that ran a job ended without a result."""


class Executor(Protocol):
    """Runs a function on jobs, and yields each job with its result, or its exception, in the order in which they end.

    ``next_job`` returns the next job, and ``None`` if there are no more. Jobs, function and results can be pickled.
    """

    def run(self, function: Callable[[J], R], next_job: Callable[[], J | None]) -> Iterator[tuple[J, R | Exception]]:
        """Run jobs until there are no more."""
        ...


@final
class LocalExecutor:
    """Runs jobs in this process, one after the other.

    Examples
    --------
    >>> from convexadam.executors import LocalExecutor
    >>> jobs = iter([1, 2, 3])
    >>> [result for job, result in LocalExecutor().run(abs, lambda: next(jobs, None))]
    [1, 2, 3]
    """

    def run(self, function: Callable[[J], R], next_job: Callable[[], J | None]) -> Iterator[tuple[J, R | Exception]]:
        """Run jobs until there are no more."""
        while (job := next_job()) is not None:
            result: R | Exception
            try:
                result = function(job)
            except Exception as error:
                result = error
            yield job, result
