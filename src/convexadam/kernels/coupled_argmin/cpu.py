"""The coupled argmin on the CPU: blocks of cells stay in the cache while all displacements pass by."""

from __future__ import annotations

import itertools
from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._cpu import compiled, in_slabs, views

_BLOCK = 256
_TINY = np.float32(np.finfo(np.float32).tiny)


def coupled_argmin(
    costs: Float[Tensor, "di dj dk i j k"], *, toward: Field | None = None, theta: float = 0.0, subcell: bool = False
) -> Field:
    """See the package."""
    widths, shape = costs.shape[:3], costs.shape[3:]
    flat = views(costs)[0].reshape(-1, shape.numel())
    pull = np.zeros((3, 0), np.float32) if toward is None else views(toward)[0].reshape(3, -1)
    found = torch.empty((3, *shape), dtype=torch.float32)
    numbers = np.float32(theta), subcell, widths[1], widths[2]
    target = found.numpy().reshape(3, -1)
    in_slabs(_cells, shape.numel(), flat, pull, _by_length(widths), *numbers, target, multiple=_BLOCK)
    return found


def _by_length(widths: torch.Size) -> np.ndarray:
    """Displacements as ``[label, (i, j, k)]``, short ones first: of equal costs the first one wins."""
    steps = itertools.product(*(range(-(w // 2), w // 2 + 1) for w in widths))
    return np.array(sorted(steps, key=lambda step: sum(s * s for s in step)), dtype=np.int64)


@no_type_check
@compiled
def _cells(first, last, costs, toward, steps, theta, subcell, width1, width2, out):
    radius0, radius1, radius2 = -steps[:, 0].min(), -steps[:, 1].min(), -steps[:, 2].min()
    pulled = toward.shape[1] > 0
    best, chosen = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.int32)
    pulls = np.zeros((3, 2 * max(radius0, radius1, radius2) + 1, _BLOCK), np.float32)
    for start in range(first, last, _BLOCK):
        size = min(_BLOCK, last - start)
        if pulled:
            for a, radius in ((0, radius0), (1, radius1), (2, radius2)):
                for d in range(-radius, radius + 1):
                    row, wanted = pulls[a, d + radius], toward[a, start : start + size]
                    for n in range(size):
                        apart = wanted[n] - np.float32(d)
                        row[n] = theta * apart * apart
        best[:] = np.inf
        chosen[:] = 0
        for number in range(len(steps)):
            d0, d1, d2 = steps[number, 0] + radius0, steps[number, 1] + radius1, steps[number, 2] + radius2
            cost = costs[(d0 * width1 + d1) * width2 + d2, start : start + size]
            if pulled:
                p0, p1, p2 = pulls[0, d0], pulls[1, d1], pulls[2, d2]
                for n in range(size):
                    total = p0[n] + p1[n] + p2[n] + cost[n]
                    better = total < best[n]
                    best[n] = total if better else best[n]
                    chosen[n] = np.int32(number) if better else chosen[n]
            else:
                for n in range(size):
                    better = cost[n] < best[n]
                    best[n] = cost[n] if better else best[n]
                    chosen[n] = np.int32(number) if better else chosen[n]
        for n in range(size):
            step = steps[chosen[n]]
            for a in range(3):
                out[a, start + n] = np.float32(step[a])
            if subcell:
                label = ((step[0] + radius0) * width1 + step[1] + radius1) * width2 + step[2] + radius2
                here = costs[label, start + n]
                for a, radius, stride in ((0, radius0, width1 * width2), (1, radius1, width2), (2, radius2, 1)):
                    at = step[a] + radius
                    if at > 0 and at < 2 * radius:
                        low = (costs[label - stride, start + n] - here) + (pulls[a, at - 1, n] - pulls[a, at, n])
                        high = (costs[label + stride, start + n] - here) + (pulls[a, at + 1, n] - pulls[a, at, n])
                        if low + high > np.float32(0):
                            fitted = (low - high) / (np.float32(2) * max(low + high, _TINY))
                            out[a, start + n] += min(max(fitted, np.float32(-0.5)), np.float32(0.5))
