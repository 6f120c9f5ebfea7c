"""Steps of a minimisation, as an iterator whose values share memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TypeVar

from convexadam._typing import Field

T = TypeVar("T")


def take_last(steps: Iterator[T]) -> T:
    """Return the last of at least one, without keeping those before it."""
    return deque(steps, maxlen=1).pop()


def select_steps(steps: Iterator[tuple[int, Field]], iterations: tuple[int, ...]) -> Iterator[tuple[int, Field]]:
    """Yield copies of the steps asked for, and the last step; the next step overwrites the memory of a step."""
    number, displacement = 0, None
    for number, displacement in steps:
        if number in iterations:
            yield number, displacement.clone()
    if displacement is not None and number not in iterations:
        yield number, displacement
