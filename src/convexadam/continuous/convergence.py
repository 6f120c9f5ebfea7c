"""When a minimisation ends: after its iterations, or once the value hardly falls any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from convexadam._arguments import check_arguments
from convexadam._typing import Float, Tensor

CHECK_INTERVAL = 5
"""Iterations that always run, and between two looks at the value."""


@final
class Convergence:
    """Count iterations; stop early once `CHECK_INTERVAL` of them lower the value by less than ``tolerance`` of itself.

    Evaluating the value costs time and, on a GPU, waits for the device; with a tolerance of 0 it is never evaluated.

    Parameters
    ----------
    max_iterations
        Upper bound.
    tolerance
        Relative decrease; 0 runs all iterations.

    Examples
    --------
    >>> [iteration for iteration in Convergence(3)]
    [1, 2, 3]
    """

    @check_arguments
    def __init__(self, max_iterations: int, tolerance: float = 0.0) -> None:
        self.max_iterations, self._tolerance = max_iterations, tolerance
        self._count, self._last_value, self._converged = 0, float("inf"), False

    @property
    def count(self) -> int:
        """Iterations begun."""
        return self._count

    @property
    def monitored(self) -> bool:
        """Whether the value decides on the end."""
        return self._tolerance > 0

    @property
    def due(self) -> bool:
        """Whether the value at the beginning of this iteration should be passed to `record`."""
        return self.monitored and (self._count - 1) % CHECK_INTERVAL == 0

    @check_arguments
    def record(self, value: float | Float[Tensor, ""]) -> None:
        """Record the value at the beginning of this iteration, when it is `due`."""
        current = float(value)
        decrease = self._last_value - current
        self._converged = self._count > 1 and decrease < self._tolerance * abs(self._last_value)
        self._last_value = current

    def __iter__(self) -> Iterator[int]:
        """Yield the number of each iteration, from 1."""
        while self._count < self.max_iterations and not self._converged:
            self._count += 1
            yield self._count
