"""Squared differences and their gradient on the CPU: one gather of eight rows of channels per point."""

from __future__ import annotations

import copy
from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor, Volume
from convexadam.kernels._cpu import (
    compile_kernel,
    empty,
    fill_weights,
    get_output,
    make_constant,
    prefetch,
    run_in_slabs,
    to_numpy,
    view_channels_last,
)
from convexadam.kernels.diffusion.cpu import add_negative_laplacian, neighbour_rows
from convexadam.kernels.warp.cpu import find_neighbours
from convexadam.kernels.warp_ssd.feature_rows import FeatureMap, FeatureRows, tensor_of, unpack

_MIN_KNOWN = np.float32(0.999)
_ZERO, _THIRD, _HALF, _ONE = np.float32(0), np.float32(1 / 3), np.float32(0.5), np.float32(1)


class WarpSsd:
    """See `convexadam.kernels.warp_ssd.prepare_ssd`."""

    def __init__(
        self,
        fixed: FeatureMap,
        moving: FeatureMap,
        *,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
        outlier: float | Float[Tensor, ""] | None = None,
    ) -> None:
        self._limit = _limit(outlier)
        self._features, self._squared_scale = _to_rows(fixed, moving)
        like = tensor_of(fixed).new_empty(()).expand(fixed.shape[1:])
        self._weights = _prepare_weights(like, fixed_weight, moving_weight)
        self._channels = make_constant(self._features[0].shape[3])

    def with_outlier(self, outlier: float | Float[Tensor, ""]) -> WarpSsd:
        """See `convexadam.kernels.warp_ssd.SquaredDifferences`."""
        other = copy.copy(self)
        other._limit = _limit(outlier)
        return other

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self._run(displacement, diffusion, out)

    def value(self, displacement: Field) -> Float[Tensor, ""]:
        """See `convexadam.kernels.warp_ssd.SquaredDifferences`."""
        nothing = empty(0, *displacement.shape[1:])
        return self._sum_and_write(displacement, 0.0, nothing, nothing)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self._run(displacement, diffusion, out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        result = empty(4, *displacement.shape[1:]) if out is None or not out.is_contiguous() else out
        value, _ = self._run(displacement, diffusion, result[:3], trace=result[3:])
        return value, result if out is None or out is result else out.copy_(result)

    def _run(
        self,
        displacement: Field,
        diffusion: float,
        out: Field | None = None,
        *,
        trace: Float[Tensor, "1 i j k"] | None = None,
    ) -> tuple[Float[Tensor, ""], Field]:
        gradient, nothing = get_output(out, like=displacement), empty(0, *displacement.shape[1:])
        slopes = nothing if trace is None else trace
        value = self._sum_and_write(displacement, diffusion, gradient, slopes)
        return value, gradient if out is None or out is gradient else out.copy_(gradient)

    def _sum_and_write(
        self,
        displacement: Field,
        diffusion: float,
        gradient: Float[Tensor, "g i j k"],
        slopes: Float[Tensor, "t i j k"],
    ) -> Float[Tensor, ""]:
        """Write the gradient and the curvature, if they have channels, and return the value."""
        points = displacement[0].numel()
        scales = np.float32(2 / points), np.float32(2 * diffusion / (3 * points)), self._limit
        arrays = *self._features, self._squared_scale, *to_numpy(displacement), *self._weights
        written = make_constant(min(len(gradient), 1)), make_constant(len(slopes))
        scaled = make_constant(min(len(self._squared_scale), 1))
        constants = self._channels, scaled, *written
        results = to_numpy(gradient, slopes)
        value = sum(run_in_slabs(_gradient, displacement.shape[1], *arrays, *results, *scales, *constants)) / points
        return torch.tensor(value, dtype=torch.float32, device="cpu")


def _to_rows(fixed: FeatureMap, moving: FeatureMap) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return both maps with channels last, and the factors of squared differences of integers, none of float32."""
    if isinstance(fixed, FeatureRows) and isinstance(moving, FeatureRows) and fixed.scale is moving.scale:
        squared = np.zeros(fixed.rows.shape[3], np.float32)
        squared[: fixed.channels] = fixed.scale.square().numpy()
        return (fixed.rows.numpy(), moving.rows.numpy()), squared
    return (view_channels_last(unpack(fixed)), view_channels_last(unpack(moving))), np.empty(0, np.float32)


def _limit(outlier: float | Float[Tensor, ""] | None) -> np.float32:
    return np.float32(0 if outlier is None else 1 / float(outlier))


def overlap_weight(displacement: Field, fixed_weight: Volume | None, moving_weight: Volume | None) -> Volume:
    """See the package."""
    weights = _prepare_weights(displacement[0], fixed_weight, moving_weight)
    result = torch.empty(displacement.shape[1:], dtype=torch.float32, device="cpu")
    run_in_slabs(_compute_overlap, displacement.shape[1], *to_numpy(displacement), *weights, *to_numpy(result))
    return result


def _prepare_weights(like: Volume, fixed_weight: Volume | None, moving_weight: Volume | None) -> list[np.ndarray]:
    """Return both weights, and the moving weights of `find_uniform_cells`."""
    fixed, moving = to_numpy(*fill_weights(fixed_weight, moving_weight, like=like))
    return [fixed, moving, find_uniform_cells(moving)]


def find_uniform_cells(weight: np.ndarray) -> np.ndarray:
    """Return the weight of the cell that begins at each point if its eight corners have equal weights, otherwise -1."""
    result = np.empty_like(weight)
    run_in_slabs(_find_uniform_rows, len(weight), weight, result)
    return result


@no_type_check
@compile_kernel
def _find_uniform_rows(first, last, weight, out):
    """Compute `find_uniform_cells` in the planes ``first ... last - 1``."""
    n0, n1, n2 = weight.shape
    for i in range(first, last):
        for j in range(n1):
            next_i, next_j = min(i + 1, n0 - 1), min(j + 1, n1 - 1)
            a, b, c, d, target = weight[i, j], weight[i, next_j], weight[next_i, j], weight[next_i, next_j], out[i, j]
            for k in range(n2):  # the four corners at k
                target[k] = a[k] if a[k] == b[k] and a[k] == c[k] and a[k] == d[k] else -_ONE
            for k in range(n2 - 1):  # and those at k + 1
                target[k] = target[k] if target[k] == target[k + 1] else -_ONE


@no_type_check
@compile_kernel
def _inside(position, size):
    """Whether a position along an axis is in the field of view."""
    return position >= -_HALF and position <= np.float32(size) - _HALF


@no_type_check
@compile_kernel
def interpolate_weight(at, steps, shares, weight):
    """Interpolate a weight in a cell; 0 if a corner of positive interpolation weight has weight 0."""
    known, sampled = _ZERO, _ZERO
    for x0, s0 in ((0, _ONE - shares[0]), (steps[0], shares[0])):
        for x1, s1 in ((0, _ONE - shares[1]), (steps[1], shares[1])):
            for x2, s2 in ((0, _ONE - shares[2]), (steps[2], shares[2])):
                value, share = weight[at + x0 + x1 + x2], s0 * s1 * s2
                sampled += share * value
                known += share if value > _ZERO else _ZERO
    return sampled if known > _MIN_KNOWN else _ZERO


@no_type_check
@compile_kernel
def _compute_overlap(first, last, u, fixed_weight, moving_weight, uniform_weight, out):
    """Compute the overlap weight in the planes ``first ... last - 1``."""
    _, n0, n1, n2 = u.shape
    moving_weights, uniform = moving_weight.reshape(-1), uniform_weight.reshape(-1)
    for i in range(first, last):
        for j in range(n1):
            for k in range(n2):
                p0, p1, p2 = np.float32(i) + u[0, i, j, k], np.float32(j) + u[1, i, j, k], np.float32(k) + u[2, i, j, k]
                out[i, j, k] = _ZERO
                if fixed_weight[i, j, k] > _ZERO and _inside(p0, n0) and _inside(p1, n1) and _inside(p2, n2):
                    (a0, s0, f0), (a1, s1, f1), (a2, s2, f2) = (
                        find_neighbours(p0, n0),
                        find_neighbours(p1, n1),
                        find_neighbours(p2, n2),
                    )
                    at, steps = (a0 * n1 + a1) * n2 + a2, (s0 * n1 * n2, s1 * n2, s2)
                    cell_weight = uniform[np.uintp(at)]
                    weight = (
                        cell_weight
                        if cell_weight >= _ZERO
                        else interpolate_weight(at, steps, (f0, f1, f2), moving_weights)
                    )
                    out[i, j, k] = fixed_weight[i, j, k] * weight


@no_type_check
@compile_kernel
def _gradient(
    first,
    last,
    fixed,
    moving,
    squared_scale,
    u,
    fixed_weight,
    moving_weight,
    uniform_weight,
    gradient,
    trace,
    scale,
    rough,
    limit,
    channels,
    with_scale,
    with_gradient,
    with_trace,
):
    """Compute the gradient of the planes ``first ... last - 1`` if ``with_gradient``, a curvature if ``with_trace``.

    Squared differences of each channel are multiplied by ``squared_scale`` if ``with_scale``. Returns their sum, which
    takes 2 % of the time: a kernel without it would be another one to compile.
    """
    n0, n1, n2 = fixed.shape[:3]
    volume, count = n0 * n1 * n2, len(channels)
    fixed_values, values, field, target = fixed.reshape(-1), moving.reshape(-1), u.reshape(-1), gradient.reshape(-1)
    fixed_weights, moving_weights, uniform, slopes = (
        fixed_weight.reshape(-1),
        moving_weight.reshape(-1),
        uniform_weight.reshape(-1),
        trace.reshape(-1),
    )
    # along an axis of one point, it is its own neighbour
    steps = (
        min(n0 - 1, 1) * n1 * n2,
        min(n1 - 1, 1) * n2,
        min(n2 - 1, 1),
    )
    along0, along1, along2 = np.uintp(steps[0] * count), np.uintp(steps[1] * count), np.uintp(steps[2] * count)
    lows, low = np.empty(n2, np.int64), np.empty(n2, np.int32)
    shares, free, weights = np.empty((3, n2), np.float32), np.empty((3, n2), np.float32), np.empty(n2, np.float32)
    cells, sums = np.empty(n2, np.float32), np.empty((7, n2), np.float32)
    loss = 0.0
    for i in range(first, last):
        for j in range(n1):
            row = (i * n1 + j) * n2
            weights[:] = fixed_weights[row : row + n2]
            lows[:] = 0
            for a, index, size in ((0, i, n0), (1, j, n1), (2, 0, n2)):
                positions = field[a * volume + row : a * volume + row + n2]
                locate_row(positions, np.float32(index), a == 2, size, shares[a], low, free[a], weights)
                for k in range(n2):
                    lows[k] = lows[k] * size + low[k]
            weigh_row(lows, shares, steps, uniform, moving_weights, cells, weights)
            for k in range(n2):
                if weights[k] <= _ZERO:
                    sums[:, k] = _ZERO
                    continue
                # the next row of points reads from here on, far away in memory for the hardware prefetcher
                at = lows[k]
                upcoming = (at + 2 * n2) * count
                prefetch(values, upcoming)
                prefetch(values, upcoming + count - 1)
                prefetch(values, upcoming + n1 * n2 * count)
                prefetch(values, upcoming + n1 * n2 * count + count - 1)
                m000, fixed_row = np.uintp(at) * np.uintp(count), np.uintp(row + k) * np.uintp(count)
                f0, f1, f2 = shares[0, k], shares[1, k], shares[2, k]
                m010, m100, m110 = m000 + along1, m000 + along0, m000 + along0 + along1
                g0, g1, g2, squared = _ZERO, _ZERO, _ZERO, _ZERO
                h0, h1, h2 = _ZERO, _ZERO, _ZERO
                for channel in range(count):
                    c = np.uintp(channel)
                    warped, along_i, along_j, along_k = interpolate_with_slopes(
                        values, m000 + c, m010 + c, m100 + c, m110 + c, along2, f0, f1, f2
                    )
                    residual = warped - np.float32(fixed_values[fixed_row + c])
                    factor = squared_scale[c] if len(with_scale) > 0 else _ONE
                    scaled = factor * residual
                    squared += scaled * residual
                    if len(with_gradient) > 0:
                        g0 += scaled * along_i
                        g1 += scaled * along_j
                        g2 += scaled * along_k
                    if len(with_trace) > 0:
                        h0 += factor * along_i * along_i
                        h1 += factor * along_j * along_j
                        h2 += factor * along_k * along_k
                sums[3, k] = squared
                if len(with_gradient) > 0:
                    sums[0, k], sums[1, k], sums[2, k] = g0, g1, g2
                if len(with_trace) > 0:
                    sums[4, k], sums[5, k], sums[6, k] = h0, h1, h2
            part = _ZERO
            for k in range(n2):  # apart from the loop above, so that it is vectorised along the row
                squared = sums[3, k]
                share = _ONE / (_ONE + squared * limit)  # 1 without an outlier limit
                part += weights[k] * squared * share
                factor = weights[k] * scale * share * share
                if len(with_trace) > 0:
                    squared_slopes = sums[4, k] * free[0, k] + sums[5, k] * free[1, k] + sums[6, k] * free[2, k]
                    slopes[row + k] = factor * _THIRD * squared_slopes
                if len(with_gradient) > 0:
                    sums[0, k] *= factor * free[0, k]
                    sums[1, k] *= factor * free[1, k]
                    sums[2, k] *= factor * free[2, k]
            loss += part
            for a in range(3 * len(with_gradient)):
                line, start = sums[a], np.uintp(a * volume + row)
                for k in range(n2):
                    target[start + np.uintp(k)] = line[k]
            if rough != _ZERO:
                for a in range(3):
                    start = a * volume + row
                    add_negative_laplacian(field, start, neighbour_rows(start, i, j, u.shape), n2, target, start, rough)
    return loss


@no_type_check
@compile_kernel
def weigh_row(lows, shares, steps, uniform, moving_weights, cells, weights):
    """Multiply the weights of a row of points by those of the cells of the moving map, see `interpolate_weight`."""
    least = _ZERO
    for k in range(len(weights)):
        cells[k] = uniform[np.uintp(lows[k])]
        least = min(least, cells[k])
    if least < _ZERO:  # rare: almost always the eight corners of a cell have one weight
        for k in range(len(weights)):
            if cells[k] < _ZERO:
                at, part = lows[k], (shares[0, k], shares[1, k], shares[2, k])
                cells[k] = interpolate_weight(at, steps, part, moving_weights) if weights[k] > _ZERO else _ZERO
    for k in range(len(weights)):
        weights[k] *= cells[k]


@no_type_check
@compile_kernel
def interpolate_with_slopes(values, m000, m010, m100, m110, step, f0, f1, f2):
    """Interpolate eight values trilinearly along k, j and i; return value and derivatives along i, j and k."""
    v00, v01 = np.float32(values[m000]), np.float32(values[m010])  # of integers as well
    v10, v11 = np.float32(values[m100]), np.float32(values[m110])
    step00, step01 = np.float32(values[m000 + step]) - v00, np.float32(values[m010 + step]) - v01
    step10, step11 = np.float32(values[m100 + step]) - v10, np.float32(values[m110 + step]) - v11
    low0, low1 = v00 + f2 * step00, v10 + f2 * step10
    step0, step1 = v01 + f2 * step01 - low0, v11 + f2 * step11 - low1
    start = low0 + f1 * step0
    along_i = low1 + f1 * step1 - start
    near, far = step00 + f1 * (step01 - step00), step10 + f1 * (step11 - step10)
    return start + f0 * along_i, along_i, step0 + f0 * (step1 - step0), near + f0 * (far - near)


@no_type_check
@compile_kernel
def locate_row(field, index, is_row_axis, size, share, low, free, weight):
    """Find the lower neighbours and upper weights of a row of positions along one axis.

    Sets ``weight`` to 0 outside the field of view, and ``free`` to 0 where the position is clamped to the volume and
    the derivative vanishes.
    """
    top, below_top = np.float32(size - 1), np.int32(max(size - 2, 0))
    for k in range(len(field)):
        position = index + (np.float32(k) if is_row_axis else _ZERO) + field[k]
        clamped = min(max(position, _ZERO), top)
        point = max(min(np.int32(clamped), below_top), np.int32(0))  # also where the position is NaN, without weight
        low[k], share[k] = point, clamped - np.float32(point)
    for k in range(len(field)):
        position = index + (np.float32(k) if is_row_axis else _ZERO) + field[k]
        free[k] = _ONE if position > _ZERO and position < top else _ZERO
        weight[k] = weight[k] if position >= -_HALF and position <= top + _HALF else _ZERO
