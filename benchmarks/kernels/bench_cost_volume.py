"""Costs of all displacements of a window, at the cells of each preset."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import case
import torch
import work
from case import Case, Triple

from convexadam.kernels.cost_volume import Window, cost_volume

WINDOWS = {"default": (4, Window((5, 5, 5), ball=True)), "published": (6, Window((4, 4, 4)))}


def cases(size: Triple, device: str) -> list[Case]:
    """As in a search: compiled kernels leave float16, the reference float32."""

    def of(name: str) -> Case:
        spacing, window = WINDOWS[name]
        cells = case.coarser(size, spacing)
        fixed = case.random(12, *cells, device=device)
        moving = fixed.flip(1).contiguous()

        def make(backend: str) -> Callable[[], Any]:
            dtype = None if backend == "reference" else torch.float16
            return lambda: cost_volume(fixed, moving, window, dtype=dtype)

        return Case(name=name, grid=cells, make=make, work=work.compared_over_windows(cells, len(window.steps)))

    return [of(name) for name in WINDOWS]


if __name__ == "__main__":
    sys.exit(case.main("cost_volume"))
