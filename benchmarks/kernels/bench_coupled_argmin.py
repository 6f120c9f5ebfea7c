"""Coupled argmin of a cost volume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import case
import work
from bench_cost_volume import WINDOWS
from case import Case, Triple

from convexadam.kernels.coupled_argmin import coupled_argmin


def cases(size: Triple, device: str) -> list[Case]:
    """Return searches as in a registration, where compiled kernels read float16 costs and the reference float32."""

    def of(name: str) -> Case:
        spacing, window = WINDOWS[name]
        points = case.coarsen_grid(size, spacing)
        toward = case.make_field(points, device)

        def make(backend: str) -> Callable[[], Any]:
            costs = case.make_random(len(window.steps), *points, device=device)
            costs = costs if backend == "reference" else costs.half()
            return lambda: coupled_argmin(costs, window, toward=toward, theta=0.1, parabolic_fit=name == "default")

        return Case(name=name, grid=points, make=make, work=work.cheapest(points, len(window.steps)))

    return [of(name) for name in WINDOWS]
