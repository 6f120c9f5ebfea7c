"""When a minimisation ends: after its iterations, or once it gains too little."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

from convexadam._typing import Float, Tensor

LEAST = 5
"""Iterations that always run, and between two looks at the value."""


@final
class Convergence:
    """Counts iterations, and ends them where the value falls by less than ``tolerance`` of itself in `LEAST` of them.

    Looking costs a value each time, and on a GPU a wait; with a tolerance of 0 there is no look. ``passed`` is called
    when as many iterations are done as one of ``marks`` says.
    """

    def __init__(
        self,
        most: int,
        tolerance: float,
        *,
        marks: tuple[int, ...] = (),
        passed: Callable[[int], None] | None = None,
    ) -> None:
        self.most, self._tolerance = most, tolerance
        self._marks, self._passed = sorted({mark for mark in marks if 0 < mark <= most}), passed
        self._count, self._seen, self._ended = 0, float("inf"), False

    @property
    def watched(self) -> bool:
        """Whether values are looked at."""
        return self._tolerance > 0

    @property
    def count(self) -> int:
        """Iterations begun."""
        return self._count

    @property
    def due(self) -> bool:
        """Whether the value at the beginning of this iteration is to be looked at."""
        return self.watched and (self._count - 1) % LEAST == 0

    def saw(self, value: float | Float[Tensor, ""]) -> None:
        """Take note of the value at the beginning of this iteration, where it is `due`."""
        now = float(value)
        self._ended = self._seen - now < self._tolerance * abs(self._seen) if self._count > 1 else False
        self._seen = now

    def __iter__(self) -> Iterator[int]:
        """Run through the iterations left."""
        while self._count < self.most and not self._ended:
            self._count += 1
            yield self._count
            self._pass()

    def stretches(self) -> Iterator[int]:
        """Run through the iterations left, where nobody looks: how many there are up to each mark and to the end."""
        for end in (*self._marks, self.most):
            if end > self._count:
                length, self._count = end - self._count, end
                yield length
                self._pass()

    def _pass(self) -> None:
        if self._passed is not None and self._count in self._marks:
            self._passed(self._count)
