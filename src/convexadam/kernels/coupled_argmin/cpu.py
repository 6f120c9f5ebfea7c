"""The coupled argmin on the CPU, in blocks of points that remain in the cache during the loop over displacements."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._cpu import compile_kernel, run_in_slabs, to_numpy
from convexadam.kernels._half import read
from convexadam.kernels.box_mean import box_mean
from convexadam.kernels.window import Window

_BLOCK = 1024
_TINY = np.float32(np.finfo(np.float32).tiny)


def coupled_argmin(
    costs: Float[Tensor, "n i j k"],
    window: Window,
    *,
    toward: Field | None = None,
    theta: float = 0.0,
    unit: Float[Tensor, ""] | None = None,
    parabolic_fit: bool = False,
    average: bool = False,
) -> Field:
    """See the package."""
    theta *= 1.0 if unit is None else float(unit) ** 2
    toward = box_mean(toward) if average and toward is not None else toward
    points = costs[0].numel()
    stored = costs if costs.dtype == torch.float16 else costs.float()
    flat = to_numpy(stored.contiguous().view(torch.uint16) if stored.dtype == torch.float16 else stored)[0]
    term = np.zeros((3, 0), np.float32) if toward is None else to_numpy(toward)[0].reshape(3, -1)
    displacement = torch.empty((3, *costs.shape[1:]), dtype=torch.float32, device="cpu")
    tables = window.table, window.length_order, window.neighbours
    target = displacement.numpy().reshape(3, -1)
    flat = flat.reshape(len(costs), points)
    run_in_slabs(_find_minima, points, flat, term, *tables, np.float32(theta), parabolic_fit, target, multiple=_BLOCK)
    return displacement


@no_type_check
@compile_kernel
def _find_minima(first, last, costs, toward, steps, order, beside, theta, parabolic_fit, out):
    """Compute the displacements of the points ``first ... last - 1``."""
    radius0, radius1, radius2 = 0, 0, 0
    for n in range(len(steps)):
        radius0, radius1, radius2 = max(radius0, steps[n, 0]), max(radius1, steps[n, 1]), max(radius2, steps[n, 2])
    coupled = toward.shape[1] > 0
    points, flat_costs = costs.shape[1], costs.reshape(-1)
    # minima so far, and the indices of their steps: in one array, so that the compiler knows that they do not alias
    best = np.empty(2 * _BLOCK, np.float32)
    terms = np.zeros((3, 2 * max(radius0, radius1, radius2) + 1, _BLOCK), np.float32)
    term0, term1, term2 = terms[0].reshape(-1), terms[1].reshape(-1), terms[2].reshape(-1)
    for start in range(first, last, _BLOCK):
        size = min(_BLOCK, last - start)
        if coupled:
            for a, radius in ((0, radius0), (1, radius1), (2, radius2)):
                for d in range(-radius, radius + 1):
                    row, target = terms[a, d + radius], toward[a, start : start + size]
                    for n in range(size):
                        difference = target[n] - np.float32(d)
                        row[n] = theta * difference * difference
        best[:_BLOCK], best[_BLOCK:] = np.inf, 0
        for number in order:
            label, begin = np.float32(number), np.uintp(number * points + start)
            at0 = np.uintp((steps[number, 0] + radius0) * _BLOCK if coupled else 0)
            at1 = np.uintp((steps[number, 1] + radius1) * _BLOCK if coupled else 0)
            at2 = np.uintp((steps[number, 2] + radius2) * _BLOCK if coupled else 0)
            for n in range(size):
                at = np.uintp(n)
                total = read(flat_costs, begin + at) + (term0[at0 + at] + term1[at1 + at] + term2[at2 + at])
                chosen = at + np.uintp(_BLOCK)
                better = total < best[at]
                best[at] = total if better else best[at]
                best[chosen] = label if better else best[chosen]
        for n in range(size):
            number = int(best[_BLOCK + n])
            for a, radius in ((0, radius0), (1, radius1), (2, radius2)):
                out[a, start + n] = np.float32(steps[number, a])
                below, above = beside[number, a, 0], beside[number, a, 1]
                if parabolic_fit and below >= 0 and above >= 0:
                    middle = read(flat_costs, np.uintp(number * points + start + n))
                    at = steps[number, a] + radius
                    term = terms[a, at, n]
                    low = read(flat_costs, np.uintp(below * points + start + n)) - middle + (terms[a, at - 1, n] - term)
                    high = (
                        read(flat_costs, np.uintp(above * points + start + n)) - middle + (terms[a, at + 1, n] - term)
                    )
                    if low + high > np.float32(0):
                        fitted = (low - high) / (np.float32(2) * max(low + high, _TINY))
                        out[a, start + n] += min(max(fitted, np.float32(-0.5)), np.float32(0.5))
