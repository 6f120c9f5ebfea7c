"""Local correlation and its gradient on the CPU: one gather, and two passes of box filters."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Channels, Field, Float, Tensor, Volume
from convexadam.kernels._cpu import compile_kernel, empty, get_output, prefetch, run_in_slabs, to_numpy
from convexadam.kernels.diffusion.cpu import add_negative_laplacian, neighbour_rows
from convexadam.kernels.lncc.reference import normalise
from convexadam.kernels.warp_ssd.cpu import find_uniform_cells, interpolate_with_slopes, locate_row, weigh_row

_NONE = np.empty((0, 0, 0), np.float32)
_ZERO, _THIRD, _ONE, _TWO = np.float32(0), np.float32(1 / 3), np.float32(1), np.float32(2)


class Correlation:
    """See `convexadam.kernels.lncc.prepare_lncc`."""

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
        self._maps = to_numpy(normalise(fixed, fixed_weight), normalise(moving, moving_weight))
        self._weights = prepare_optional_weights(fixed_weight, moving_weight)
        self._radius, self._floor = radius, np.float32(floor)

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self._run(displacement, diffusion, out)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self._run(displacement, diffusion, out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        result = empty(4, *displacement.shape[1:]) if out is None or not out.is_contiguous() else out
        value, _ = self._run(displacement, diffusion, result[:3], result[3:])
        return value, result if out is None or out is result else out.copy_(result)

    def _run(
        self, displacement: Field, diffusion: float, out: Field | None, trace: Float[Tensor, "1 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        gradient, curved = get_output(out, like=displacement), empty(0, 1, 1, 1) if trace is None else trace
        u, target, traces = to_numpy(displacement, gradient, curved)
        single = len(self._maps[0]) == 1
        # for a single channel in the memory of the gradient, which overwrites them
        slopes = target if single else np.empty_like(target)
        warped, weight, *factors = to_numpy(*empty(5, *u.shape[1:]))
        points, value, planes = weight.size, 0.0, len(weight)
        rough = np.float32(2 * diffusion / (3 * points))
        for number, (fixed, moving) in enumerate(zip(*self._maps, strict=True)):
            run_in_slabs(warp_with_slopes, planes, moving, u, *self._weights, warped, weight, slopes)
            local = fixed, warped, weight, *factors, self._radius
            value += sum(run_in_slabs(_correlate, planes, *local, self._floor)) / points
            extra = rough if number == 0 else _ZERO
            run_in_slabs(
                _gradient, planes, *local, slopes, u, target, traces, number > 0, np.float32(1 / points), extra
            )
        result = gradient if out is None or out is gradient else out.copy_(gradient)
        return torch.tensor(value, dtype=torch.float32, device="cpu"), result


def prepare_optional_weights(fixed_weight: Volume | None, moving_weight: Volume | None) -> list[np.ndarray]:
    """Return both weights, and the moving weight of the cells whose corners have equal weights; empty for ``None``."""
    fixed, moving = (_NONE if w is None else to_numpy(w)[0] for w in (fixed_weight, moving_weight))
    return [fixed, moving, _NONE if moving_weight is None else find_uniform_cells(moving)]


@no_type_check
@compile_kernel
def warp_with_slopes(first, last, moving, u, fixed_weight, moving_weight, uniform_weight, warped, overlap, slopes):
    """Warp the planes ``first ... last - 1``: values, weights and spatial derivatives; all 0 where the weight is 0."""
    n0, n1, n2 = moving.shape
    volume = n0 * n1 * n2
    values, field, moving_weights, uniform = (
        moving.reshape(-1),
        u.reshape(-1),
        moving_weight.reshape(-1),
        uniform_weight.reshape(-1),
    )
    target = slopes.reshape(-1)
    # along an axis of one point, it is its own neighbour
    steps = (
        min(n0 - 1, 1) * n1 * n2,
        min(n1 - 1, 1) * n2,
        min(n2 - 1, 1),
    )
    along0, along1, along2 = np.uintp(steps[0]), np.uintp(steps[1]), np.uintp(steps[2])
    lows, low = np.empty(n2, np.int64), np.empty(n2, np.int32)
    shares, free, cells = np.empty((3, n2), np.float32), np.empty((3, n2), np.float32), np.empty(n2, np.float32)
    for i in range(first, last):
        for j in range(n1):
            row, weights, warped_row = (i * n1 + j) * n2, overlap[i, j], warped[i, j]
            if fixed_weight.size > 0:
                weights[:] = fixed_weight[i, j]
            else:
                weights[:] = _ONE
            lows[:] = 0
            for a, own, size in ((0, i, n0), (1, j, n1), (2, 0, n2)):
                positions = field[a * volume + row : a * volume + row + n2]
                locate_row(positions, np.float32(own), a == 2, size, shares[a], low, free[a], weights)
                for k in range(n2):
                    lows[k] = lows[k] * size + low[k]
            if moving_weights.size > 0:
                weigh_row(lows, shares, steps, uniform, moving_weights, cells, weights)
            for k in range(n2):
                at, point = lows[k], np.uintp(row + k)
                second, third = point + np.uintp(volume), point + np.uintp(2 * volume)
                f0, f1, f2 = shares[0, k], shares[1, k], shares[2, k]
                if weights[k] <= _ZERO:
                    warped_row[k], target[point], target[second], target[third] = _ZERO, _ZERO, _ZERO, _ZERO
                    continue
                prefetch(values, at + 2 * n2)  # the next row of points will read from here on
                prefetch(values, at + 2 * n2 + n1 * n2)
                m000 = np.uintp(at)
                m010, m100, m110 = m000 + along1, m000 + along0, m000 + along0 + along1
                value, along_i, along_j, along_k = interpolate_with_slopes(
                    values, m000, m010, m100, m110, along2, f0, f1, f2
                )
                warped_row[k], target[point] = value, along_i * free[0, k]
                target[second], target[third] = along_j * free[1, k], along_k * free[2, k]


@no_type_check
@compile_kernel
def _box_sums(ring, low, high, lines, sums):
    """Sum over the windows of one row: over the rows ``low ... high`` of the ring buffer, then along the row.

    ``lines`` is zero-padded at both ends of a row.
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
@compile_kernel
def _correlate(first, last, fixed, warped, overlap, factor_a, factor_b, factor_c, reach, floor):
    """Compute the correlation in the windows of the planes ``first ... last - 1``; returns the sum of ``w (1 - cc)``.

    The derivative of that sum with respect to the warped value ``m`` of a point is ``w`` times the box sum of
    ``factor_b m - factor_a f - factor_c``, and its second derivative is approximated by box sums of ``factor_b``.
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
                    fixed, warped, overlap, max(i - reach, 0), min(i + reach, n0 - 1), step, ring[step % width]
                )
            j = step - reach
            if j < 0:
                continue
            _box_sums(ring, max(j - reach, 0), min(j + reach, n1 - 1), lines, sums)
            weights, a, b, c = overlap[i, j], factor_a[i, j], factor_b[i, j], factor_c[i, j]
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
@compile_kernel
def _add_moments(fixed, warped, overlap, low, high, j, out):
    """Sum ``w``, ``w f``, ``w f^2``, ``w m``, ``w m^2`` and ``w f m`` of a row over the planes ``low ... high``."""
    out[:] = _ZERO
    total, sum_f, sum_ff, sum_m, sum_mm, sum_fm = out[0], out[1], out[2], out[3], out[4], out[5]
    for i in range(low, high + 1):
        fixed_row, warped_row, weights = fixed[i, j], warped[i, j], overlap[i, j]
        for k in range(len(weights)):
            weight, f, m = weights[k], fixed_row[k], warped_row[k]
            of_f, of_m = weight * f, weight * m
            total[k] += weight
            sum_f[k] += of_f
            sum_ff[k] += of_f * f
            sum_m[k] += of_m
            sum_mm[k] += of_m * m
            sum_fm[k] += of_f * m


@no_type_check
@compile_kernel
def _gradient(
    first,
    last,
    fixed,
    warped,
    overlap,
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
    """Compute the gradient of the planes ``first ... last - 1`` and optionally a trace; add to the former if ``add``.

    ``gradient`` may be the memory of ``slopes``.
    """
    n0, n1, n2 = fixed.shape
    width, volume = 2 * reach + 1, n0 * n1 * n2
    ring, lines = np.empty((width, 3, n2), np.float32), np.zeros((3, n2 + 2 * reach), np.float32)
    sums = np.empty((3, n2), np.float32)
    for i in range(first, last):
        for step in range(n1 + reach):
            if step < n1:
                target = ring[step % width]
                target[:] = _ZERO
                for neighbour in range(max(i - reach, 0), min(i + reach, n0 - 1) + 1):
                    for c, factor in ((0, factor_a), (1, factor_b), (2, factor_c)):
                        for k in range(n2):
                            target[c, k] += factor[neighbour, step, k]
            j = step - reach
            if j < 0:
                continue
            _box_sums(ring, max(j - reach, 0), min(j + reach, n1 - 1), lines, sums)
            weights, f, m, sum_a, sum_b, sum_c = overlap[i, j], fixed[i, j], warped[i, j], sums[0], sums[1], sums[2]
            if len(trace) > 0:
                target, along_i, along_j, along_k = trace[0, i, j], slopes[0, i, j], slopes[1, i, j], slopes[2, i, j]
                for k in range(n2):
                    squared = along_i[k] * along_i[k] + along_j[k] * along_j[k] + along_k[k] * along_k[k]
                    value = scale * _THIRD * weights[k] * sum_b[k] * squared
                    target[k] = target[k] + value if add else value
            for a in range(3):
                target, slope = gradient[a, i, j], slopes[a, i, j]
                for k in range(n2):
                    value = scale * weights[k] * (sum_b[k] * m[k] - sum_a[k] * f[k] - sum_c[k]) * slope[k]
                    target[k] = target[k] + value if add else value
            if rough != _ZERO:
                for a in range(3):
                    row = a * volume + (i * n1 + j) * n2
                    neighbours = neighbour_rows(row, i, j, u.shape)
                    add_negative_laplacian(u.reshape(-1), row, neighbours, n2, gradient.reshape(-1), row, rough)
