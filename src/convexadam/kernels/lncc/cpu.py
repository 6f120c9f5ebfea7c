"""Local correlation and its gradient on the CPU: a gather, and two sweeps of box filters over planes."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Channels, Field, Float, Tensor, Volume
from convexadam.kernels._cpu import compiled, empty, in_slabs, prefetch, views, written_to
from convexadam.kernels.diffusion.cpu import add_excess, around
from convexadam.kernels.lncc.reference import normalised
from convexadam.kernels.warp_ssd.cpu import between, interpolated, look_up, shared_by_cells

_NONE = np.empty((0, 0, 0), np.float32)
_ZERO, _THIRD, _ONE, _TWO = np.float32(0), np.float32(1 / 3), np.float32(1), np.float32(2)


class Correlation:
    """See `convexadam.kernels.lncc.correlated`."""

    def __init__(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        radius: int = 2,
        floor: float = 1e-3,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
    ) -> None:
        self._maps = views(normalised(fixed, fixed_weight), normalised(moving, moving_weight))
        self._weights = given_or_none(fixed_weight, moving_weight)
        self._radius, self._floor = radius, np.float32(floor)

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        return self._run(displacement, diffusion, out)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        return self._run(displacement, diffusion, out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        found = empty(4, *displacement.shape[1:]) if out is None or not out.is_contiguous() else out
        value, _ = self._run(displacement, diffusion, found[:3], found[3:])
        return value, found if out is None or out is found else out.copy_(found)

    def _run(
        self, displacement: Field, diffusion: float, out: Field | None, trace: Float[Tensor, "1 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        gradient, curved = written_to(out, like=displacement), empty(0, 1, 1, 1) if trace is None else trace
        u, target, traces = views(displacement, gradient, curved)
        alone = len(self._maps[0]) == 1
        slopes = target if alone else np.empty_like(target)  # a single channel keeps them where the gradient will be
        moved, weight, *factors = views(*empty(5, *u.shape[1:]))
        nodes, value, planes = weight.size, 0.0, len(weight)
        rough = np.float32(2 * diffusion / (3 * nodes))
        for number, (fixed, moving) in enumerate(zip(*self._maps, strict=True)):
            in_slabs(warp_with_slopes, planes, moving, u, *self._weights, moved, weight, slopes)
            local = fixed, moved, weight, *factors, self._radius
            value += sum(in_slabs(_correlate, planes, *local, self._floor)) / nodes
            extra = rough if number == 0 else _ZERO
            in_slabs(_gradient, planes, *local, slopes, u, target, traces, number > 0, np.float32(1 / nodes), extra)
        found = gradient if out is None or out is gradient else out.copy_(gradient)
        return torch.tensor(value, dtype=torch.float32, device="cpu"), found


def given_or_none(fixed_weight: Volume | None, moving_weight: Volume | None) -> list[np.ndarray]:
    """Both weights, and the moving weight that all eight corners of a cell share; empty where there are none."""
    fixed, moving = (_NONE if w is None else views(w)[0] for w in (fixed_weight, moving_weight))
    return [fixed, moving, _NONE if moving_weight is None else shared_by_cells(moving)]


@no_type_check
@compiled
def warp_with_slopes(first, last, moving, u, fixed_weight, moving_weight, shared, moved, evidence, slopes):
    """Warp the planes ``first ... last - 1``: values, their evidence and their slopes; all 0 without evidence."""
    n0, n1, n2 = moving.shape
    volume = n0 * n1 * n2
    values, field, there, same = moving.reshape(-1), u.reshape(-1), moving_weight.reshape(-1), shared.reshape(-1)
    target = slopes.reshape(-1)
    steps = min(n0 - 1, 1) * n1 * n2, min(n1 - 1, 1) * n2, min(n2 - 1, 1)  # one node alone is its own neighbour
    along0, along1, along2 = np.uintp(steps[0]), np.uintp(steps[1]), np.uintp(steps[2])
    lows, low = np.empty(n2, np.int64), np.empty(n2, np.int32)
    shares, free = np.empty((3, n2), np.float32), np.empty((3, n2), np.float32)
    for i in range(first, last):
        for j in range(n1):
            row, weights, warped = (i * n1 + j) * n2, evidence[i, j], moved[i, j]
            if fixed_weight.size > 0:
                weights[:] = fixed_weight[i, j]
            else:
                weights[:] = _ONE
            lows[:] = 0
            for a, own, size in ((0, i, n0), (1, j, n1), (2, 0, n2)):
                positions = field[a * volume + row : a * volume + row + n2]
                look_up(positions, np.float32(own), a == 2, size, shares[a], low, free[a], weights)
                for k in range(n2):
                    lows[k] = lows[k] * size + low[k]
            for k in range(n2):
                at, node = lows[k], np.uintp(row + k)
                second, third = node + np.uintp(volume), node + np.uintp(2 * volume)
                f0, f1, f2 = shares[0, k], shares[1, k], shares[2, k]
                if there.size > 0 and weights[k] > _ZERO:
                    common = same[np.uintp(at)]  # as good as always, all nodes around have the same
                    weights[k] *= common if common >= _ZERO else between(at, steps, (f0, f1, f2), there)
                if weights[k] <= _ZERO:
                    warped[k], target[node], target[second], target[third] = _ZERO, _ZERO, _ZERO, _ZERO
                    continue
                prefetch(values, at + 2 * n2)  # the next row of nodes will read from here on
                prefetch(values, at + 2 * n2 + n1 * n2)
                m000 = np.uintp(at)
                m010, m100, m110 = m000 + along1, m000 + along0, m000 + along0 + along1
                value, along_i, along_j, along_k = interpolated(values, m000, m010, m100, m110, along2, f0, f1, f2)
                warped[k], target[node] = value, along_i * free[0, k]
                target[second], target[third] = along_j * free[1, k], along_k * free[2, k]


@no_type_check
@compiled
def _box_sums(ring, low, high, lines, sums):
    """Add up the windows of one row: the rows ``low ... high`` of the ring, then along the row.

    ``lines`` has zeros beyond both ends of a row.
    """
    width, count, size = ring.shape
    reach = width // 2
    for c in range(count):
        line, target = lines[c], sums[c]
        for j in range(low, high + 1):
            row = ring[j % width, c]
            if j == low:
                for k in range(size):
                    line[np.uintp(reach + k)] = row[k]
            else:
                for k in range(size):
                    line[np.uintp(reach + k)] += row[k]
        target[:] = _ZERO
        for o in range(width):
            for k in range(size):
                target[k] += line[np.uintp(k + o)]


@no_type_check
@compiled
def _correlate(first, last, fixed, moved, evidence, factor_a, factor_b, factor_c, reach, floor):
    """Correlate the windows of the planes ``first ... last - 1``; returns the sum of ``w (1 - cc)``.

    The derivative of that sum with respect to the moved value ``m`` of a node is ``w`` times the box sum of
    ``factor_b m - factor_a f - factor_c``, and box sums of ``factor_b`` are its curvature by that value.
    """
    n0, n1, n2 = fixed.shape
    width = 2 * reach + 1
    ring, lines = np.empty((width, 6, n2), np.float32), np.zeros((6, n2 + 2 * reach), np.float32)
    sums = np.empty((6, n2), np.float32)
    loss = 0.0
    for i in range(first, last):
        for step in range(n1 + reach):
            if step < n1:
                _add_moments(
                    fixed, moved, evidence, max(i - reach, 0), min(i + reach, n0 - 1), step, ring[step % width]
                )
            j = step - reach
            if j < 0:
                continue
            _box_sums(ring, max(j - reach, 0), min(j + reach, n1 - 1), lines, sums)
            weights, a, b, c = evidence[i, j], factor_a[i, j], factor_b[i, j], factor_c[i, j]
            total, sum_f, sum_ff = sums[0], sums[1], sums[2]
            sum_m, sum_mm, sum_fm = sums[3], sums[4], sums[5]
            for k in range(n2):
                weight = weights[k]
                share = _ONE / total[k] if weight > _ZERO else _ZERO
                f, m = sum_f[k] * share, sum_m[k] * share
                cov = sum_fm[k] * share - f * m
                vf, vm = max(sum_ff[k] * share - f * f, _ZERO) + floor, max(sum_mm[k] * share - m * m, _ZERO) + floor
                slope = cov / vm
                of_a = _TWO * weight * share * slope / vf
                of_b = of_a * slope
                a[k], b[k], c[k] = of_a, of_b, of_b * m - of_a * f
                loss += weight * (_ONE - cov * slope / vf)
    return loss


@no_type_check
@compiled
def _add_moments(fixed, moved, evidence, low, high, j, out):
    """Add up a row of the planes ``low ... high``: ``w``, ``w f``, ``w f^2``, ``w m``, ``w m^2``, ``w f m``."""
    out[:] = _ZERO
    total, sum_f, sum_ff, sum_m, sum_mm, sum_fm = out[0], out[1], out[2], out[3], out[4], out[5]
    for i in range(low, high + 1):
        fixed_row, moved_row, weights = fixed[i, j], moved[i, j], evidence[i, j]
        for k in range(len(weights)):
            weight, f, m = weights[k], fixed_row[k], moved_row[k]
            of_f, of_m = weight * f, weight * m
            total[k] += weight
            sum_f[k] += of_f
            sum_ff[k] += of_f * f
            sum_m[k] += of_m
            sum_mm[k] += of_m * m
            sum_fm[k] += of_f * m


@no_type_check
@compiled
def _gradient(
    first,
    last,
    fixed,
    moved,
    evidence,
    factor_a,
    factor_b,
    factor_c,
    reach,
    slopes,
    u,
    gradient,
    trace,
    add,
    scale,
    rough,
):
    """Gradient of the planes ``first ... last - 1``, which may overwrite ``slopes``; and a trace if there is one."""
    n0, n1, n2 = fixed.shape
    width, volume = 2 * reach + 1, n0 * n1 * n2
    ring, lines = np.empty((width, 3, n2), np.float32), np.zeros((3, n2 + 2 * reach), np.float32)
    sums = np.empty((3, n2), np.float32)
    for i in range(first, last):
        for step in range(n1 + reach):
            if step < n1:
                target = ring[step % width]
                target[:] = _ZERO
                for near in range(max(i - reach, 0), min(i + reach, n0 - 1) + 1):
                    for c, factor in ((0, factor_a), (1, factor_b), (2, factor_c)):
                        for k in range(n2):
                            target[c, k] += factor[near, step, k]
            j = step - reach
            if j < 0:
                continue
            _box_sums(ring, max(j - reach, 0), min(j + reach, n1 - 1), lines, sums)
            weights, f, m, sum_a, sum_b, sum_c = evidence[i, j], fixed[i, j], moved[i, j], sums[0], sums[1], sums[2]
            if len(trace) > 0:
                target, along_i, along_j, along_k = trace[0, i, j], slopes[0, i, j], slopes[1, i, j], slopes[2, i, j]
                for k in range(n2):
                    squared = along_i[k] * along_i[k] + along_j[k] * along_j[k] + along_k[k] * along_k[k]
                    found = scale * _THIRD * weights[k] * sum_b[k] * squared
                    target[k] = target[k] + found if add else found
            for a in range(3):
                target, slope = gradient[a, i, j], slopes[a, i, j]
                for k in range(n2):
                    found = scale * weights[k] * (sum_b[k] * m[k] - sum_a[k] * f[k] - sum_c[k]) * slope[k]
                    target[k] = target[k] + found if add else found
            if rough != _ZERO:
                for a in range(3):
                    row = a * volume + (i * n1 + j) * n2
                    beside = around(row, i, j, u.shape)
                    add_excess(u.reshape(-1), row, beside, n2, gradient.reshape(-1), row, rough)
