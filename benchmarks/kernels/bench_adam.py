"""The update of Adam, in place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import case
import work
from case import Case, Triple

from convexadam.kernels.adam import adam_step


def cases(size: Triple, device: str) -> list[Case]:
    """Return a field on nodes of 2 voxels."""
    nodes = case.coarser(size, 2)

    def make(_: str) -> Callable[[], Any]:
        variable, gradient, first, second = (case.field(nodes, device) for _ in range(4))
        second.abs_()
        return lambda: adam_step(variable, gradient, first, second, step=5, learning_rate=1.0, eps=1e-8)

    return [Case(name="step", grid=nodes, make=make, work=work.moved(nodes))]


if __name__ == "__main__":
    sys.exit(case.main("adam"))
