"""Cost volume, at the spacing and window of each preset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import case
import torch
import work
from case import Case, Triple

from convexadam.kernels.cost_volume import Window, cost_volume

WINDOWS = {"default": (4, Window((5, 5, 5), ball=True)), "published": (6, Window((4, 4, 4)))}


def cases(size: Triple, device: str) -> list[Case]:
    """Return searches as in a registration, where compiled kernels store float16 costs and the reference float32."""

    def of(name: str) -> Case:
        spacing, window = WINDOWS[name]
        points = case.coarsen_grid(size, spacing)
        fixed = case.make_random(12, *points, device=device)
        moving = fixed.flip(1).contiguous()

        def make(backend: str) -> Callable[[], Any]:
            dtype = None if backend == "reference" else torch.float16
            return lambda: cost_volume(fixed, moving, window, dtype=dtype)

        return Case(name=name, grid=points, make=make, work=work.compared_over_windows(points, len(window.steps)))

    return [of(name) for name in WINDOWS]
