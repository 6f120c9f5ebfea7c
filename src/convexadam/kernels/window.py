"""Candidate displacements of a discrete search."""

from __future__ import annotations

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

    @property
    def count(self) -> int:
        """Number of displacements, known without making them."""
        i, j, k = (int(r) for r in self.radius)
        if not self.ball:
            return (2 * i + 1) * (2 * j + 1) * (2 * k + 1)
        squared = [(np.arange(-r, r + 1) / max(r, 1)) ** 2 for r in (i, j)]
        left = 1 + 1e-9 - squared[0][:, None] - squared[1]  # the square that remains for the last axis
        along = np.floor(np.sqrt(left[left >= 0]) * max(k, 1)) if k else np.zeros(int((left >= 0).sum()))
        return int((2 * along + 1).sum())

    @cached_property
    def steps(self) -> tuple[Triple, ...]:
        """Displacements along i, j and k; the last axis varies fastest."""
        return tuple((i, j, k) for i, j, k in self.table.tolist())

    @cached_property
    def table(self) -> np.ndarray:
        """`steps` as ``[n, 3]``, int64."""
        table: np.ndarray = np.ascontiguousarray(np.argwhere(self._inside)) - np.array(self.radius)
        return table

    @cached_property
    def length_order(self) -> np.ndarray:
        """Indices of the steps in ascending order of length, ``[n]``, the order of preference at equal costs."""
        return np.argsort((self.table**2).sum(1), kind="stable")

    @cached_property
    def neighbours(self) -> np.ndarray:
        """Indices of the steps smaller and larger by 1 along each axis, ``[n, 3, 2]``; -1 if not in the window."""
        numbers = np.full([2 * r + 3 for r in self.radius], -1, dtype=np.int64)  # with a border of steps not in it
        numbers[1:-1, 1:-1, 1:-1][self._inside] = np.arange(len(self.table))
        offsets = np.eye(3, dtype=np.int64)[:, None] * np.array([[-1], [1]])
        near = (self.table + np.array(self.radius) + 1)[:, None, None] + offsets
        neighbours: np.ndarray = np.ascontiguousarray(numbers[near[..., 0], near[..., 1], near[..., 2]])
        return neighbours

    @cached_property
    def _inside(self) -> np.ndarray:
        box = np.indices([2 * r + 1 for r in self.radius]) - np.array(self.radius).reshape(3, 1, 1, 1)
        if not self.ball:
            return np.ones(box.shape[1:], dtype=bool)
        lengths = box / np.maximum(self.radius, 1).reshape(3, 1, 1, 1)
        return np.asarray((lengths**2).sum(0) <= 1 + 1e-9)
