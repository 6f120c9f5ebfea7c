"""When a minimisation ends: after its iterations, or once it gains too little."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from convexadam._typing import Float, Tensor

LEAST = 5
"""Iterations that always run, and between two looks at the value."""


@final
class Convergence:
    """Counts iterations, and ends them where the value falls by less than ``tolerance`` of itself in `LEAST` of them.

    Looking costs a value each time, and on a GPU a wait; with a tolerance of 0 there is no look.
    """

    def __init__(self, most: int, tolerance: float) -> None:
        self.most, self._tolerance = most, tolerance
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
