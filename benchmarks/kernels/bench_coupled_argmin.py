"""The cheapest displacement of each cell, with a pull towards a field."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import case
import work
from bench_cost_volume import WINDOWS
from case import Case, Triple

from convexadam.kernels.coupled_argmin import coupled_argmin


def cases(size: Triple, device: str) -> list[Case]:
    """As in a search: compiled kernels read float16, the reference float32."""

    def of(name: str) -> Case:
        spacing, window = WINDOWS[name]
        cells = case.coarser(size, spacing)
        toward = case.field(cells, device)

        def make(backend: str) -> Callable[[], Any]:
            costs = case.random(len(window.steps), *cells, device=device)
            costs = costs if backend == "reference" else costs.half()
            return lambda: coupled_argmin(costs, window, toward=toward, theta=0.1, subcell=name == "default")

        return Case(name=name, grid=cells, make=make, work=work.cheapest(cells, len(window.steps)))

    return [of(name) for name in WINDOWS]


if __name__ == "__main__":
    sys.exit(case.main("coupled_argmin"))
