"""Squared differences and their gradient on the CPU: one gather of eight rows of channels for each node."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch
from torch.nn import functional

from convexadam._typing import Channels, Field, Float, Tensor, Volume
from convexadam.kernels._cpu import channels_last, compiled, constant, in_slabs, prefetch, views, written_to

_ALL_KNOWN = np.float32(0.999)
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


class WarpSsd:
    """See `convexadam.kernels.warp_ssd.compared`."""

    def __init__(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
    ) -> None:
        self._features = channels_last(fixed), channels_last(moving)
        self._weights = _prepared(fixed[0], fixed_weight, moving_weight)
        self._channels = constant(fixed.shape[0])

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        gradient, value = self._run(displacement, diffusion, out, constant(1))
        return torch.tensor(value, dtype=torch.float32, device="cpu"), gradient

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        return self._run(displacement, diffusion, out, constant(0))[0]

    def _run(
        self, displacement: Field, diffusion: float, out: Field | None, valued: tuple[int, ...]
    ) -> tuple[Field, float]:
        gradient = written_to(out, like=displacement)
        nodes = displacement[0].numel()
        scales = np.float32(2 / nodes), np.float32(2 * diffusion / (3 * nodes))
        arrays = (*self._features, *views(displacement), *self._weights, *views(gradient))
        sums = in_slabs(_gradient, displacement.shape[1], *arrays, *scales, self._channels, valued)
        return gradient if out is None or out is gradient else out.copy_(gradient), sum(sums) / nodes


def evidence_under(displacement: Field, fixed_weight: Volume | None, moving_weight: Volume | None) -> Volume:
    """See the package."""
    weights = _prepared(displacement[0], fixed_weight, moving_weight)
    found = torch.empty(displacement.shape[1:], dtype=torch.float32, device="cpu")
    in_slabs(_evidence, displacement.shape[1], *views(displacement), *weights, *views(found))
    return found


def _prepared(like: Volume, fixed_weight: Volume | None, moving_weight: Volume | None) -> list[np.ndarray]:
    """Both weights, and the moving weight that all eight corners of a cell share: -1 where they do not."""
    one = torch.ones_like(like, memory_format=torch.contiguous_format)
    moving = one if moving_weight is None else moving_weight
    corners = functional.pad(moving[None, None], (0, 1) * 3, mode="replicate")
    high, low = functional.max_pool3d(corners, 2, 1)[0, 0], -functional.max_pool3d(-corners, 2, 1)[0, 0]
    shared = torch.where(high == low, high, -1.0)
    return views(one if fixed_weight is None else fixed_weight, moving, shared)


@no_type_check
@compiled
def _between(position, size):
    """Neighbours below and above a position clamped to an axis, and the share of the upper one."""
    clamped = min(max(position, _ZERO), np.float32(size - 1))
    low = min(int(clamped), max(size - 2, 0))
    return low, min(low + 1, size - 1), clamped - np.float32(low)


@no_type_check
@compiled
def _evidence_at(p0, p1, p2, moving_weight, shared):
    """Return the moving weight at a position: 0 outside the field of view, and where a corner that counts has none."""
    n0, n1, n2 = moving_weight.shape
    if not (
        p0 >= -_HALF
        and p0 <= np.float32(n0) - _HALF
        and p1 >= -_HALF
        and p1 <= np.float32(n1) - _HALF
        and p2 >= -_HALF
        and p2 <= np.float32(n2) - _HALF
    ):
        return _ZERO
    (a0, b0, f0), (a1, b1, f1), (a2, b2, f2) = _between(p0, n0), _between(p1, n1), _between(p2, n2)
    if shared[a0, a1, a2] >= _ZERO:
        return shared[a0, a1, a2]
    known, sampled = _ZERO, _ZERO
    for x0, s0 in ((a0, _ONE - f0), (b0, f0)):
        for x1, s1 in ((a1, _ONE - f1), (b1, f1)):
            for x2, s2 in ((a2, _ONE - f2), (b2, f2)):
                weight, share = moving_weight[x0, x1, x2], s0 * s1 * s2
                sampled += share * weight
                known += share if weight > _ZERO else _ZERO
    return sampled if known > _ALL_KNOWN else _ZERO


@no_type_check
@compiled
def _evidence(first, last, u, fixed_weight, moving_weight, shared, out):
    """Evidence of the planes ``first ... last - 1``."""
    for i in range(first, last):
        for j in range(u.shape[2]):
            for k in range(u.shape[3]):
                p0, p1, p2 = np.float32(i) + u[0, i, j, k], np.float32(j) + u[1, i, j, k], np.float32(k) + u[2, i, j, k]
                out[i, j, k] = fixed_weight[i, j, k] * _evidence_at(p0, p1, p2, moving_weight, shared)


@no_type_check
@compiled
def _gradient(
    first, last, fixed, moving, u, fixed_weight, moving_weight, shared, gradient, scale, rough, channels, valued
):
    """Gradient of the planes ``first ... last - 1``; returns the sum of squared differences if ``valued``."""
    n0, n1, n2 = fixed.shape[:3]
    flat, row, plane = moving.reshape(-1), n2 * len(channels), n1 * n2 * len(channels)
    loss = 0.0
    for i in range(first, last):
        for j in range(n1):
            for k in range(n2):
                weight = fixed_weight[i, j, k]
                p0, p1, p2 = np.float32(i) + u[0, i, j, k], np.float32(j) + u[1, i, j, k], np.float32(k) + u[2, i, j, k]
                if weight > _ZERO:
                    weight *= _evidence_at(p0, p1, p2, moving_weight, shared)
                if weight <= _ZERO:
                    gradient[0, i, j, k], gradient[1, i, j, k], gradient[2, i, j, k] = _ZERO, _ZERO, _ZERO
                    continue
                (a0, b0, f0), (a1, b1, f1), (a2, b2, f2) = _between(p0, n0), _between(p1, n1), _between(p2, n2)
                # the next row of nodes will read from here on: it is far away in memory
                ahead = (a0 * n1 + b1 + 1) * row + a2 * len(channels)
                prefetch(flat, ahead)
                prefetch(flat, ahead + len(channels) - 1)
                prefetch(flat, ahead + plane)
                prefetch(flat, ahead + plane + len(channels) - 1)
                here, m000, m001, m010 = fixed[i, j, k], moving[a0, a1, a2], moving[a0, a1, b2], moving[a0, b1, a2]
                m011, m100, m101 = moving[a0, b1, b2], moving[b0, a1, a2], moving[b0, a1, b2]
                m110, m111 = moving[b0, b1, a2], moving[b0, b1, b2]
                g0, g1, g2, squared = _ZERO, _ZERO, _ZERO, _ZERO
                for c in range(len(channels)):
                    # along k, then j, then i; a step is the difference of the two ends
                    step00, step01 = m001[c] - m000[c], m011[c] - m010[c]
                    step10, step11 = m101[c] - m100[c], m111[c] - m110[c]
                    low0, low1 = m000[c] + f2 * step00, m100[c] + f2 * step10
                    step0, step1 = m010[c] + f2 * step01 - low0, m110[c] + f2 * step11 - low1
                    start = low0 + f1 * step0
                    along_i = low1 + f1 * step1 - start
                    residual = start + f0 * along_i - here[c]
                    near, far = step00 + f1 * (step01 - step00), step10 + f1 * (step11 - step10)
                    if len(valued) > 0:
                        squared += residual * residual
                    g0 += residual * along_i
                    g1 += residual * (step0 + f0 * (step1 - step0))
                    g2 += residual * (near + f0 * (far - near))
                loss += weight * squared
                # a position clamped to the volume does not move with the displacement
                gradient[0, i, j, k] = g0 * weight * scale if p0 > _ZERO and p0 < np.float32(n0 - 1) else _ZERO
                gradient[1, i, j, k] = g1 * weight * scale if p1 > _ZERO and p1 < np.float32(n1 - 1) else _ZERO
                gradient[2, i, j, k] = g2 * weight * scale if p2 > _ZERO and p2 < np.float32(n2 - 1) else _ZERO
            if rough != _ZERO:
                for a in range(3):
                    _add_diffusion(u[a], i, j, gradient[a, i, j], rough)
    return loss


@no_type_check
@compiled
def _add_diffusion(u, i, j, row, factor):
    """Add ``factor`` times the differences to the six neighbours; a missing one counts as equal."""
    n0, n1, n2 = u.shape
    here, above, below = u[i, j], u[max(i - 1, 0), j], u[min(i + 1, n0 - 1), j]
    left, right = u[i, max(j - 1, 0)], u[i, min(j + 1, n1 - 1)]
    for k in range(n2):
        row[k] += factor * (np.float32(4) * here[k] - above[k] - below[k] - left[k] - right[k])
    before, after, inner = here[: n2 - 1], here[1:], row[1:]
    for k in range(n2 - 1):
        inner[k] += factor * (after[k] - before[k])
    for k in range(n2 - 1):
        row[k] += factor * (before[k] - after[k])
