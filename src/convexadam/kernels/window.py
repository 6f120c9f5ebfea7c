"""Candidate displacements of a discrete search."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from convexadam._typing import Triple


@final
@dataclass(frozen=True)
class Window:
    """Integer displacements around zero, within a box or an ellipsoid.

    Attributes
    ----------
    radius
        Largest displacement along each axis, in control-point spacings.
    ball
        Restrict the box to the ellipsoid with ``radius`` as its semi-axes.

    Examples
    --------
    >>> Window((0, 1, 1), ball=True).steps
    ((0, -1, 0), (0, 0, -1), (0, 0, 0), (0, 0, 1), (0, 1, 0))
    """

    radius: Triple
    ball: bool = False

    @cached_property
    def steps(self) -> tuple[Triple, ...]:
        """Displacements along i, j and k; the last axis varies fastest."""
        along_i, along_j, along_k = (range(-r, r + 1) for r in self.radius)
        box = itertools.product(along_i, along_j, along_k)
        return tuple(step for step in box if not self.ball or self._is_within(step))

    @cached_property
    def table(self) -> np.ndarray:
        """`steps` as ``[n, 3]``, int64."""
        return np.array(self.steps, dtype=np.int64)

    @cached_property
    def length_order(self) -> np.ndarray:
        """Indices of the steps in ascending order of length, ``[n]``, the order of preference at equal costs."""
        return np.argsort((self.table**2).sum(1), kind="stable")

    @cached_property
    def neighbours(self) -> np.ndarray:
        """Indices of the steps smaller and larger by 1 along each axis, ``[n, 3, 2]``; -1 if not in the window."""
        numbers = {step: number for number, step in enumerate(self.steps)}
        neighbours = np.full((len(self.steps), 3, 2), -1, dtype=np.int64)
        for (number, step), axis, side in itertools.product(enumerate(self.steps), range(3), range(2)):
            near = [s + (2 * side - 1) * (a == axis) for a, s in enumerate(step)]
            neighbours[number, axis, side] = numbers.get((near[0], near[1], near[2]), -1)
        return neighbours

    def _is_within(self, step: Triple) -> bool:
        return sum((s / r) ** 2 for s, r in zip(step, self.radius, strict=True) if r > 0) <= 1 + 1e-9
