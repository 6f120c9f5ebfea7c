"""The in-place Adam update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import case
import work
from case import Case, Triple

from convexadam.kernels.adam import adam_step


def cases(size: Triple, device: str) -> list[Case]:
    """Return a field on control points of spacing 2."""
    points = case.coarsen_grid(size, 2)

    def make(_: str) -> Callable[[], Any]:
        variable, gradient, first, second = (case.make_field(points, device) for _ in range(4))
        second.abs_()
        return lambda: adam_step(variable, gradient, first, second, step=5, learning_rate=1.0, eps=1e-8)

    return [Case(name="step", grid=points, make=make, work=work.moved(points))]
