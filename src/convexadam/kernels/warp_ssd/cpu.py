"""Squared differences and their gradient on the CPU: one gather of eight rows of channels for each node."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Channels, Field, Float, Tensor, Volume
from convexadam.kernels._cpu import channels_last, compiled, constant, in_slabs, views

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
        weights = [torch.ones_like(fixed[0]) if w is None else w for w in (fixed_weight, moving_weight)]
        self._features = channels_last(fixed), channels_last(moving)
        self._weights = views(*weights)
        self._channels = constant(fixed.shape[0])

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        gradient = torch.empty_like(displacement, memory_format=torch.contiguous_format) if out is None else out
        nodes = displacement[0].numel()
        scales = np.float32(2 / nodes), np.float32(2 * diffusion / (3 * nodes))
        arrays = (*self._features, *views(displacement), *self._weights, *views(gradient))
        sums = in_slabs(_gradient, displacement.shape[1], *arrays, *scales, self._channels)
        return torch.tensor(sum(sums) / nodes, dtype=torch.float32), gradient


@no_type_check
@compiled
def _gradient(first, last, fixed, moving, u, fixed_weight, moving_weight, gradient, scale, rough, channels):
    """Gradient of the planes ``first ... last - 1``; returns the sum of their weighted squared differences."""
    n0, n1, n2 = fixed.shape[:3]
    top0, top1, top2 = np.float32(n0 - 1), np.float32(n1 - 1), np.float32(n2 - 1)
    loss = 0.0
    for i in range(first, last):
        for j in range(n1):
            for k in range(n2):
                g0, g1, g2, part = _ZERO, _ZERO, _ZERO, _ZERO
                weight = fixed_weight[i, j, k]
                p0, p1, p2 = np.float32(i) + u[0, i, j, k], np.float32(j) + u[1, i, j, k], np.float32(k) + u[2, i, j, k]
                inside = (
                    (p0 >= -_HALF)
                    and (p0 <= top0 + _HALF)
                    and (p1 >= -_HALF)
                    and (p1 <= top1 + _HALF)
                    and (p2 >= -_HALF)
                    and (p2 <= top2 + _HALF)
                )
                if inside and weight > _ZERO:
                    c0, c1, c2 = min(max(p0, _ZERO), top0), min(max(p1, _ZERO), top1), min(max(p2, _ZERO), top2)
                    a0, a1, a2 = (
                        min(int(c0), max(n0 - 2, 0)),
                        min(int(c1), max(n1 - 2, 0)),
                        min(int(c2), max(n2 - 2, 0)),
                    )
                    b0, b1, b2 = min(a0 + 1, n0 - 1), min(a1 + 1, n1 - 1), min(a2 + 1, n2 - 1)
                    f0, f1, f2 = c0 - np.float32(a0), c1 - np.float32(a1), c2 - np.float32(a2)
                    known, sampled = _ZERO, _ZERO
                    for x0, s0 in ((a0, _ONE - f0), (b0, f0)):
                        for x1, s1 in ((a1, _ONE - f1), (b1, f1)):
                            for x2, s2 in ((a2, _ONE - f2), (b2, f2)):
                                w, share = moving_weight[x0, x1, x2], s0 * s1 * s2
                                sampled += share * w
                                known += share if w > _ZERO else _ZERO
                    weight = weight * sampled if known > _ALL_KNOWN else _ZERO
                    if weight > _ZERO:
                        here = fixed[i, j, k]
                        m000, m001, m010, m011 = (
                            moving[a0, a1, a2],
                            moving[a0, a1, b2],
                            moving[a0, b1, a2],
                            moving[a0, b1, b2],
                        )
                        m100, m101, m110, m111 = (
                            moving[b0, a1, a2],
                            moving[b0, a1, b2],
                            moving[b0, b1, a2],
                            moving[b0, b1, b2],
                        )
                        for c in range(len(channels)):
                            d00, d01, d10, d11 = (
                                m001[c] - m000[c],
                                m011[c] - m010[c],
                                m101[c] - m100[c],
                                m111[c] - m110[c],
                            )
                            e00, e01, e10, e11 = (
                                m000[c] + f2 * d00,
                                m010[c] + f2 * d01,
                                m100[c] + f2 * d10,
                                m110[c] + f2 * d11,
                            )
                            slope0, slope1 = e01 - e00, e11 - e10
                            low, high = e00 + f1 * slope0, e10 + f1 * slope1
                            along0 = high - low
                            residual = low + f0 * along0 - here[c]
                            inner0, inner1 = d00 + f1 * (d01 - d00), d10 + f1 * (d11 - d10)
                            part += residual * residual
                            g0 += residual * along0
                            g1 += residual * (slope0 + f0 * (slope1 - slope0))
                            g2 += residual * (inner0 + f0 * (inner1 - inner0))
                        loss += weight * part
                        # a position clamped to the volume does not move with the displacement
                        g0 = g0 * weight * scale if p0 > _ZERO and p0 < top0 else _ZERO
                        g1 = g1 * weight * scale if p1 > _ZERO and p1 < top1 else _ZERO
                        g2 = g2 * weight * scale if p2 > _ZERO and p2 < top2 else _ZERO
                gradient[0, i, j, k], gradient[1, i, j, k], gradient[2, i, j, k] = g0, g1, g2
            if rough != _ZERO:
                for a in range(3):
                    here, row = u[a, i, j], gradient[a, i, j]
                    above, below = u[a, max(i - 1, 0), j], u[a, min(i + 1, n0 - 1), j]
                    left, right = u[a, i, max(j - 1, 0)], u[a, i, min(j + 1, n1 - 1)]
                    for k in range(n2):
                        row[k] += rough * (
                            (here[k] - above[k]) + (here[k] - below[k]) + (here[k] - left[k]) + (here[k] - right[k])
                        )
                    for k in range(1, n2):
                        row[k] += rough * (here[k] - here[k - 1])
                    for k in range(n2 - 1):
                        row[k] += rough * (here[k] - here[k + 1])
    return loss
