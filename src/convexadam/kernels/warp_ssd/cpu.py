"""Squared differences and their gradient on the CPU: one gather of eight rows of channels for each node."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Channels, Field, Float, Tensor, Volume
from convexadam.kernels._cpu import (
    channels_last,
    compiled,
    constant,
    empty,
    in_slabs,
    prefetch,
    views,
    weights_or_ones,
    written_to,
)
from convexadam.kernels.diffusion.cpu import add_excess, around
from convexadam.kernels.warp.cpu import along

_ALL_KNOWN = np.float32(0.999)
_ZERO, _THIRD, _HALF, _ONE = np.float32(0), np.float32(1 / 3), np.float32(0.5), np.float32(1)


class WarpSsd:
    """See `convexadam.kernels.warp_ssd.compared`."""

    def __init__(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
        outlier: float | None = None,
    ) -> None:
        self._limit = np.float32(0 if outlier is None else 1 / outlier)
        self._features = channels_last(fixed), channels_last(moving)
        self._weights = _prepared(fixed[0], fixed_weight, moving_weight)
        self._channels = constant(fixed.shape[0])

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        return self._run(displacement, diffusion, out, valued=1)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        return self._run(displacement, diffusion, out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        found = empty(4, *displacement.shape[1:]) if out is None or not out.is_contiguous() else out
        value, _ = self._run(displacement, diffusion, found[:3], valued=1, trace=found[3:])
        return value, found if out is None or out is found else out.copy_(found)

    def _run(
        self,
        displacement: Field,
        diffusion: float,
        out: Field | None = None,
        *,
        valued: int = 0,
        trace: Float[Tensor, "1 i j k"] | None = None,
    ) -> tuple[Float[Tensor, ""], Field]:
        gradient, slopes = written_to(out, like=displacement), empty(0, 1, 1, 1) if trace is None else trace
        nodes = displacement[0].numel()
        scales = np.float32(2 / nodes), np.float32(2 * diffusion / (3 * nodes)), self._limit
        arrays = (*self._features, *views(displacement), *self._weights, *views(gradient, slopes))
        limited = int(self._limit > 0)
        constants = self._channels, constant(max(valued, limited)), constant(len(slopes))
        value = sum(in_slabs(_gradient, displacement.shape[1], *arrays, *scales, *constants)) / nodes
        found = gradient if out is None or out is gradient else out.copy_(gradient)
        return torch.tensor(value, dtype=torch.float32, device="cpu"), found


def evidence_under(displacement: Field, fixed_weight: Volume | None, moving_weight: Volume | None) -> Volume:
    """See the package."""
    weights = _prepared(displacement[0], fixed_weight, moving_weight)
    found = torch.empty(displacement.shape[1:], dtype=torch.float32, device="cpu")
    in_slabs(_evidence, displacement.shape[1], *views(displacement), *weights, *views(found))
    return found


def _prepared(like: Volume, fixed_weight: Volume | None, moving_weight: Volume | None) -> list[np.ndarray]:
    """Both weights, and the moving weight that all eight corners of a cell share: -1 where they do not."""
    fixed, moving = views(*weights_or_ones(fixed_weight, moving_weight, like=like))
    return [fixed, moving, shared_by_cells(moving)]


def shared_by_cells(weight: np.ndarray) -> np.ndarray:
    """Weight that all eight corners of the cell above each node share; -1 where they do not."""
    found = np.empty_like(weight)
    in_slabs(_shared, len(weight), weight, found)
    return found


@no_type_check
@compiled
def _shared(first, last, weight, out):
    """Weight that a node and those a step above it have in common, or -1, in the planes ``first ... last - 1``."""
    n0, n1, n2 = weight.shape
    for i in range(first, last):
        for j in range(n1):
            next_i, next_j = min(i + 1, n0 - 1), min(j + 1, n1 - 1)
            a, b, c, d, target = weight[i, j], weight[i, next_j], weight[next_i, j], weight[next_i, next_j], out[i, j]
            for k in range(n2):  # within a column of four nodes
                target[k] = a[k] if a[k] == b[k] and a[k] == c[k] and a[k] == d[k] else -_ONE
            for k in range(n2 - 1):  # and in the next column
                target[k] = target[k] if target[k] == target[k + 1] else -_ONE


@no_type_check
@compiled
def _inside(position, size):
    """Whether a position along an axis is in the field of view."""
    return position >= -_HALF and position <= np.float32(size) - _HALF


@no_type_check
@compiled
def between(at, steps, shares, weight):
    """Weight between a node and those a step from it; 0 where one that counts has none."""
    known, sampled = _ZERO, _ZERO
    for x0, s0 in ((0, _ONE - shares[0]), (steps[0], shares[0])):
        for x1, s1 in ((0, _ONE - shares[1]), (steps[1], shares[1])):
            for x2, s2 in ((0, _ONE - shares[2]), (steps[2], shares[2])):
                here, share = weight[at + x0 + x1 + x2], s0 * s1 * s2
                sampled += share * here
                known += share if here > _ZERO else _ZERO
    return sampled if known > _ALL_KNOWN else _ZERO


@no_type_check
@compiled
def _evidence(first, last, u, fixed_weight, moving_weight, shared, out):
    """Evidence of the planes ``first ... last - 1``."""
    _, n0, n1, n2 = u.shape
    there, same = moving_weight.reshape(-1), shared.reshape(-1)
    for i in range(first, last):
        for j in range(n1):
            for k in range(n2):
                p0, p1, p2 = np.float32(i) + u[0, i, j, k], np.float32(j) + u[1, i, j, k], np.float32(k) + u[2, i, j, k]
                out[i, j, k] = _ZERO
                if fixed_weight[i, j, k] > _ZERO and _inside(p0, n0) and _inside(p1, n1) and _inside(p2, n2):
                    (a0, s0, f0), (a1, s1, f1), (a2, s2, f2) = along(p0, n0), along(p1, n1), along(p2, n2)
                    at, steps = (a0 * n1 + a1) * n2 + a2, (s0 * n1 * n2, s1 * n2, s2)
                    common = same[np.uintp(at)]
                    weight = common if common >= _ZERO else between(at, steps, (f0, f1, f2), there)
                    out[i, j, k] = fixed_weight[i, j, k] * weight


@no_type_check
@compiled
def _gradient(
    first,
    last,
    fixed,
    moving,
    u,
    fixed_weight,
    moving_weight,
    shared,
    gradient,
    trace,
    scale,
    rough,
    limit,
    channels,
    valued,
    traced,
):
    """Gradient of the planes ``first ... last - 1``, and a third of the trace of its Gauss-Newton block if ``traced``.

    Returns the sum of squared differences if ``valued``.
    """
    n0, n1, n2 = fixed.shape[:3]
    volume, count = n0 * n1 * n2, len(channels)
    here, values, field, target = fixed.reshape(-1), moving.reshape(-1), u.reshape(-1), gradient.reshape(-1)
    known, there, same, slopes = (
        fixed_weight.reshape(-1),
        moving_weight.reshape(-1),
        shared.reshape(-1),
        trace.reshape(-1),
    )
    steps = min(n0 - 1, 1) * n1 * n2, min(n1 - 1, 1) * n2, min(n2 - 1, 1)  # one node alone is its own neighbour
    along0, along1, along2 = np.uintp(steps[0] * count), np.uintp(steps[1] * count), np.uintp(steps[2] * count)
    lows, low = np.empty(n2, np.int64), np.empty(n2, np.int32)
    shares, free, weights = np.empty((3, n2), np.float32), np.empty((3, n2), np.float32), np.empty(n2, np.float32)
    loss = 0.0
    for i in range(first, last):
        for j in range(n1):
            row = (i * n1 + j) * n2
            weights[:] = known[row : row + n2]
            lows[:] = 0
            for a, own, size in ((0, i, n0), (1, j, n1), (2, 0, n2)):
                positions = field[a * volume + row : a * volume + row + n2]
                look_up(positions, np.float32(own), a == 2, size, shares[a], low, free[a], weights)
                for k in range(n2):
                    lows[k] = lows[k] * size + low[k]
            for k in range(n2):
                weight, at = weights[k], lows[k]
                node = np.uintp(row + k)
                second, third = node + np.uintp(volume), node + np.uintp(2 * volume)
                f0, f1, f2 = shares[0, k], shares[1, k], shares[2, k]
                if weight > _ZERO:
                    common = same[np.uintp(at)]  # as good as always, all nodes around have the same
                    weight *= common if common >= _ZERO else between(at, steps, (f0, f1, f2), there)
                if weight <= _ZERO:
                    target[node], target[second], target[third] = _ZERO, _ZERO, _ZERO
                    if len(traced) > 0:
                        slopes[node] = _ZERO
                    continue
                # the next row of nodes will read from here on: it is far away in memory
                ahead = (at + 2 * n2) * count
                prefetch(values, ahead)
                prefetch(values, ahead + count - 1)
                prefetch(values, ahead + n1 * n2 * count)
                prefetch(values, ahead + n1 * n2 * count + count - 1)
                m000, own = np.uintp(at) * np.uintp(count), node * np.uintp(count)
                m010, m100, m110 = m000 + along1, m000 + along0, m000 + along0 + along1
                g0, g1, g2, squared = _ZERO, _ZERO, _ZERO, _ZERO
                h0, h1, h2 = _ZERO, _ZERO, _ZERO
                for channel in range(count):
                    c = np.uintp(channel)
                    moved, along_i, along_j, along_k = interpolated(
                        values, m000 + c, m010 + c, m100 + c, m110 + c, along2, f0, f1, f2
                    )
                    residual = moved - here[own + c]
                    if len(valued) > 0:
                        squared += residual * residual
                    g0 += residual * along_i
                    g1 += residual * along_j
                    g2 += residual * along_k
                    if len(traced) > 0:
                        h0 += along_i * along_i
                        h1 += along_j * along_j
                        h2 += along_k * along_k
                share = _ONE / (_ONE + squared * limit)  # without a value, and so without a limit, 1
                loss += weight * squared * share
                weight *= scale * share * share
                if len(traced) > 0:
                    slopes[node] = weight * _THIRD * (h0 * free[0, k] + h1 * free[1, k] + h2 * free[2, k])
                target[node], target[second] = g0 * weight * free[0, k], g1 * weight * free[1, k]
                target[third] = g2 * weight * free[2, k]
            if rough != _ZERO:
                for a in range(3):
                    start = a * volume + row
                    add_excess(field, start, around(start, i, j, u.shape), n2, target, start, rough)
    return loss


@no_type_check
@compiled
def interpolated(values, m000, m010, m100, m110, step, f0, f1, f2):
    """Value between eight nodes, and its slope along each axis; along k, then j, then i."""
    v00, v01, v10, v11 = values[m000], values[m010], values[m100], values[m110]
    step00, step01 = values[m000 + step] - v00, values[m010 + step] - v01
    step10, step11 = values[m100 + step] - v10, values[m110 + step] - v11
    low0, low1 = v00 + f2 * step00, v10 + f2 * step10
    step0, step1 = v01 + f2 * step01 - low0, v11 + f2 * step11 - low1
    start = low0 + f1 * step0
    along_i = low1 + f1 * step1 - start
    near, far = step00 + f1 * (step01 - step00), step10 + f1 * (step11 - step10)
    return start + f0 * along_i, along_i, step0 + f0 * (step1 - step0), near + f0 * (far - near)


@no_type_check
@compiled
def look_up(field, own, counted, size, share, low, free, weight):
    """Along one axis: nodes below a row of positions, shares of those above; no weight outside the field of view.

    A position clamped to the volume does not move with the displacement: it is not ``free``.
    """
    top, below_top = np.float32(size - 1), np.int32(max(size - 2, 0))
    for k in range(len(field)):
        position = own + (np.float32(k) if counted else _ZERO) + field[k]
        clamped = min(max(position, _ZERO), top)
        node = min(np.int32(clamped), below_top)
        low[k], share[k] = node, clamped - np.float32(node)
    for k in range(len(field)):
        position = own + (np.float32(k) if counted else _ZERO) + field[k]
        free[k] = _ONE if position > _ZERO and position < top else _ZERO
        weight[k] = weight[k] if position >= -_HALF and position <= top + _HALF else _ZERO
