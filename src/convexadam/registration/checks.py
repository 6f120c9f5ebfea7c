"""Checks of numbers that a GPU computes, made when the host waits for it anyway."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

from convexadam._typing import Float, Tensor
from convexadam.kernels._device import read_numbers

Check = Callable[[list[float]], None]
"""Raises if numbers are not as they have to be."""


@final
class Checks:
    """Checks of one registration.

    Parameters
    ----------
    at_once
        Whether numbers are checked as they are added; those on a GPU can wait until others are read.
    recording
        Whether nothing can be read until all is computed, because it is recorded.
    """

    def __init__(self, *, at_once: bool = True, recording: bool = False) -> None:
        self.recording, self._at_once = recording, at_once and not recording
        self._deferred: list[tuple[Float[Tensor, " n"], Check]] = []

    def add(self, numbers: Float[Tensor, " n"], check: Check) -> None:
        """Check numbers, at once or when others are read."""
        if self._at_once or not numbers.is_cuda:
            check(numbers.tolist())
        else:
            self._deferred.append((numbers, check))

    def read(self, numbers: Mapping[str, Tensor]) -> dict[str, float]:
        """Return 0-dimensional tensors as numbers; read those that are to be checked with them, and check them."""
        deferred = {f"{i} {j}": value for i, (values, _) in enumerate(self._deferred) for j, value in enumerate(values)}
        read = read_numbers({**numbers, **deferred})
        for i, (values, check) in enumerate(self._deferred):
            check([read.pop(f"{i} {j}") for j in range(len(values))])
        return read
