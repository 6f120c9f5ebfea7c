"""The coupled argmin on the CPU: blocks of cells stay in the cache while all displacements pass by."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._cpu import compiled, in_slabs, views
from convexadam.kernels._half import read
from convexadam.kernels.window import Window

_BLOCK = 1024
_TINY = np.float32(np.finfo(np.float32).tiny)


def coupled_argmin(
    costs: Float[Tensor, "n i j k"],
    window: Window,
    *,
    toward: Field | None = None,
    theta: float = 0.0,
    subcell: bool = False,
) -> Field:
    """See the package."""
    cells = costs[0].numel()
    stored = costs if costs.dtype == torch.float16 else costs.float()
    flat = views(stored.contiguous().view(torch.uint16) if stored.dtype == torch.float16 else stored)[0]
    pull = np.zeros((3, 0), np.float32) if toward is None else views(toward)[0].reshape(3, -1)
    found = torch.empty((3, *costs.shape[1:]), dtype=torch.float32, device="cpu")
    tables = window.table, window.by_length, window.beside
    target = found.numpy().reshape(3, -1)
    flat = flat.reshape(len(costs), cells)
    in_slabs(_cells, cells, flat, pull, *tables, np.float32(theta), subcell, target, multiple=_BLOCK)
    return found


@no_type_check
@compiled
def _cells(first, last, costs, toward, steps, order, beside, theta, subcell, out):
    """Displacements of the cells ``first ... last - 1``."""
    radius0, radius1, radius2 = -steps[:, 0].min(), -steps[:, 1].min(), -steps[:, 2].min()
    pulled = toward.shape[1] > 0
    cells, every = costs.shape[1], costs.reshape(-1)
    # The least sums so far and the numbers of their steps: one array, so that the compiler sees that they are apart.
    least = np.empty(2 * _BLOCK, np.float32)
    pulls = np.zeros((3, 2 * max(radius0, radius1, radius2) + 1, _BLOCK), np.float32)
    pull0, pull1, pull2 = pulls[0].reshape(-1), pulls[1].reshape(-1), pulls[2].reshape(-1)
    for start in range(first, last, _BLOCK):
        size = min(_BLOCK, last - start)
        if pulled:
            for a, radius in ((0, radius0), (1, radius1), (2, radius2)):
                for d in range(-radius, radius + 1):
                    row, wanted = pulls[a, d + radius], toward[a, start : start + size]
                    for n in range(size):
                        apart = wanted[n] - np.float32(d)
                        row[n] = theta * apart * apart
        least[:_BLOCK], least[_BLOCK:] = np.inf, 0
        for number in order:
            name, begin = np.float32(number), np.uintp(number * cells + start)
            at0 = np.uintp((steps[number, 0] + radius0) * _BLOCK if pulled else 0)
            at1 = np.uintp((steps[number, 1] + radius1) * _BLOCK if pulled else 0)
            at2 = np.uintp((steps[number, 2] + radius2) * _BLOCK if pulled else 0)
            for n in range(size):
                at = np.uintp(n)
                total = read(every, begin + at) + (pull0[at0 + at] + pull1[at1 + at] + pull2[at2 + at])
                chosen = at + np.uintp(_BLOCK)
                better = total < least[at]
                least[at] = total if better else least[at]
                least[chosen] = name if better else least[chosen]
        for n in range(size):
            number = int(least[_BLOCK + n])
            for a, radius in ((0, radius0), (1, radius1), (2, radius2)):
                out[a, start + n] = np.float32(steps[number, a])
                below, above = beside[number, a, 0], beside[number, a, 1]
                if subcell and below >= 0 and above >= 0:
                    here = read(every, np.uintp(number * cells + start + n))
                    at = steps[number, a] + radius
                    pull = pulls[a, at, n]
                    low = read(every, np.uintp(below * cells + start + n)) - here + (pulls[a, at - 1, n] - pull)
                    high = read(every, np.uintp(above * cells + start + n)) - here + (pulls[a, at + 1, n] - pull)
                    if low + high > np.float32(0):
                        fitted = (low - high) / (np.float32(2) * max(low + high, _TINY))
                        out[a, start + n] += min(max(fitted, np.float32(-0.5)), np.float32(0.5))
