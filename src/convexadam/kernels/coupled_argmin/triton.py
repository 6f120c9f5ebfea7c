"""The coupled argmin on GPUs: a program keeps a block of points in registers in a loop over the displacements.

Costs are loaded once and sums are not stored, so that the memory traffic is that of the cost volume. Several
displacements are loaded at a time, each with its own running minimum; these are merged after the loop.
"""

from __future__ import annotations

import functools
from typing import no_type_check

import numpy as np
import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._device import send
from convexadam.kernels.box_mean.triton import average_neighbours
from convexadam.kernels.window import Window

# Fixed sizes, because autotuning at run time would delay the first call by seconds.
_BLOCK_POINTS = 64  # two cache lines of 128 bytes per displacement in half precision
_BLOCK_LABELS = 16  # 1024 costs at a time, eight per thread
_WARPS = 4


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
    shape, points = costs.shape[1:], costs[0].numel()
    costs = costs.contiguous()
    displacement = torch.empty((3, *shape), dtype=torch.float32, device=costs.device)
    table = _table(window, costs.device)
    with torch.cuda.device_of(costs):  # type: ignore[no-untyped-call]  # has no effect on the CPU
        _find_minima[(triton.cdiv(points, _BLOCK_POINTS),)](
            costs,
            displacement if toward is None else toward.contiguous(),
            table,
            unit,
            displacement,
            points,
            *shape,
            table.shape[1],
            0.0 if toward is None else float(theta),  # the terms of the coupling are 0: no variant without them
            parabolic_fit=parabolic_fit,
            average=average,
            block_labels=_BLOCK_LABELS,
            block_points=_BLOCK_POINTS,
            num_warps=_WARPS,
            enable_fp_fusion=True,  # explicit, because the default differs between versions, with a warning
        )
    return displacement


@functools.cache  # never released, because recordings use it
def _table(window: Window, device: torch.device) -> Tensor:
    """Return index, displacement and the indices of the six neighbouring steps, ``[10, n]``, in order of length.

    Of equal costs the first one is selected.
    """
    order = window.length_order
    rows = np.concatenate([order[None], window.table[order].T, window.neighbours[order].reshape(-1, 6).T])
    return send(torch.from_numpy(rows), torch.empty(0, dtype=torch.int32, device=device))


@no_type_check
@triton.jit(do_not_specialize=["points", "n0", "n1", "n2", "labels"])
def _find_minima(
    costs,
    toward,
    table,
    unit,
    out,
    points,
    n0,
    n1,
    n2,
    labels,
    theta,
    parabolic_fit: tl.constexpr,
    average: tl.constexpr,
    block_labels: tl.constexpr,
    block_points: tl.constexpr,
):
    """Compute the displacements of ``block_points`` points; labels are counted in the order of ``table``."""
    point = tl.program_id(0).to(tl.int64) * block_points + tl.arange(0, block_points)
    valid = point < points
    if unit is not None:
        factor = tl.load(unit).to(tl.float32)
        theta *= factor * factor
    given = valid & (tl.zeros(point.shape, tl.float32) + theta != 0.0)
    if average:
        target0, target1, target2 = _average(toward, point, points, n0, n1, n2, given)
    else:
        target0 = tl.load(toward + point, mask=given, other=0.0)
        target1 = tl.load(toward + points + point, mask=given, other=0.0)
        target2 = tl.load(toward + points + points + point, mask=given, other=0.0)
    best = tl.full((block_labels, block_points), float("inf"), tl.float32)
    number = tl.zeros((block_labels, block_points), tl.int32)
    for first in range(0, labels, block_labels):
        candidate = first + tl.arange(0, block_labels)
        in_range = candidate < labels
        label = tl.load(table + candidate, mask=in_range, other=0).to(tl.int64)
        at = costs + label[:, None] * points + point[None, :]
        total = tl.load(at, mask=in_range[:, None] & valid[None, :], other=float("inf")).to(tl.float32)
        step0 = tl.load(table + labels + candidate, mask=in_range, other=0)
        step1 = tl.load(table + 2 * labels + candidate, mask=in_range, other=0)
        step2 = tl.load(table + 3 * labels + candidate, mask=in_range, other=0)
        term = _coupling(target0[None, :], step0[:, None], theta) + _coupling(target1[None, :], step1[:, None], theta)
        total += term + _coupling(target2[None, :], step2[:, None], theta)
        better = total < best
        best = tl.where(better, total, best)
        number = tl.where(better, candidate[:, None], number)
    minimum = tl.min(best, axis=0)
    number = tl.where(best == minimum[None, :], number, labels)
    chosen = tl.minimum(tl.min(number, axis=0), labels - 1)
    label = tl.load(table + chosen, mask=valid, other=0)
    step0 = tl.load(table + labels + chosen, mask=valid, other=0)
    step1 = tl.load(table + 2 * labels + chosen, mask=valid, other=0)
    step2 = tl.load(table + 3 * labels + chosen, mask=valid, other=0)
    d0, d1, d2 = step0.to(tl.float32), step1.to(tl.float32), step2.to(tl.float32)
    if parabolic_fit:
        neighbours = table + 4 * labels + chosen
        d0 += _parabola(costs, point, valid, points, label, neighbours, labels, step0, target0, theta)
        d1 += _parabola(costs, point, valid, points, label, neighbours + 2 * labels, labels, step1, target1, theta)
        d2 += _parabola(costs, point, valid, points, label, neighbours + 4 * labels, labels, step2, target2, theta)
    tl.store(out + point, d0, mask=valid)
    tl.store(out + points + point, d1, mask=valid)
    tl.store(out + points + points + point, d2, mask=valid)


@no_type_check
@triton.jit
def _average(toward, point, points, n0, n1, n2, valid):
    """Average the three components over the neighbours of each point."""
    i, j, k = (point // n2 // n1).to(tl.int32), (point // n2 % n1).to(tl.int32), (point % n2).to(tl.int32)
    at = toward + point
    return (
        average_neighbours(at, i, j, k, n0, n1, n2, valid),
        average_neighbours(at + points, i, j, k, n0, n1, n2, valid),
        average_neighbours(at + points + points, i, j, k, n0, n1, n2, valid),
    )


@no_type_check
@triton.jit
def _coupling(target, step, theta):
    difference = target - step.to(tl.float32)
    return theta * (difference * difference)


@no_type_check
@triton.jit
def _parabola(costs, point, valid, points, label, neighbours, labels, step, target, theta):
    """Compute the vertex of the parabola through a minimum and its two neighbours, in [-1/2, 1/2].

    From differences to the minimum, because the curvature is small compared with the costs.
    """
    below, above = tl.load(neighbours, mask=valid, other=-1), tl.load(neighbours + labels, mask=valid, other=-1)
    inside = valid & (below >= 0) & (above >= 0)
    middle = tl.load(costs + label.to(tl.int64) * points + point, mask=inside, other=0.0).to(tl.float32)
    low = tl.load(costs + below.to(tl.int64) * points + point, mask=inside, other=0.0).to(tl.float32) - middle
    high = tl.load(costs + above.to(tl.int64) * points + point, mask=inside, other=0.0).to(tl.float32) - middle
    term = _coupling(target, step, theta)
    low += _coupling(target, step - 1, theta) - term
    high += _coupling(target, step + 1, theta) - term
    curvature = low + high
    vertex = (low - high) / (2.0 * tl.maximum(curvature, 1.1754944e-38))
    return tl.where(inside & (curvature > 0.0), tl.minimum(tl.maximum(vertex, -0.5), 0.5), 0.0)
