"""Mutual information in torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeAlias

import torch

from convexadam._typing import Float, Points, Shaped, Tensor, Volume

BINS = 64

MARGIN = 2

_CHUNK = 1 << 16
"""Samples at a time: their weights of all bins are in memory together."""

OtherVolume: TypeAlias = Float[Tensor, "a b c"]
"""A volume of another shape than that beside it."""

Result: TypeAlias = tuple[Float[Tensor, ""], Float[Tensor, "3 4"], Float[Tensor, "12 12"]]


def mutual_information(
    points: Points,
    fixed: Volume,
    moving: OtherVolume,
    to_fixed: Float[Tensor, "3 4"],
    to_moving: Float[Tensor, "3 4"],
    used: Shaped[Tensor, " n"] | None = None,
) -> Result:
    """See the package."""
    points = points if used is None else points[used]
    homogeneous = torch.cat([points, torch.ones_like(points[:, :1])], dim=1)
    f, fixed_slopes = _sample(fixed, homogeneous, to_fixed.to(points))
    m, moving_slopes = _sample(moving, homogeneous, to_moving.to(points))
    chunks = [slice(first, first + _CHUNK) for first in range(0, len(points), _CHUNK)]
    joint = torch.zeros(BINS, BINS, dtype=torch.float64, device=points.device)
    for chunk in chunks:
        joint += (_spread(f[chunk], bspline).T @ _spread(m[chunk], bspline)).double()
    value, log_ratio = compare_with_independence(joint)
    gradient, information = joint.new_zeros(3, 4), joint.new_zeros(12, 12)
    table = log_ratio.to(points)
    for chunk in chunks:
        fixed_score = ((_spread(f[chunk], bspline_slope) @ table) * _spread(m[chunk], bspline)).sum(1, keepdim=True)
        moving_score = ((_spread(f[chunk], bspline) @ table) * _spread(m[chunk], bspline_slope)).sum(1, keepdim=True)
        force = (moving_score * moving_slopes[chunk] - fixed_score * fixed_slopes[chunk]) / 2
        gradient += (force.T @ homogeneous[chunk]).double()
        rows = (force[:, :, None] * homogeneous[chunk, None]).reshape(-1, 12)
        information += (rows.T @ rows).double()
    return value, gradient / max(len(points), 1), information / max(len(points), 1)


def compare_with_independence(
    joint: Float[Tensor, "bins bins"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "bins bins"]]:
    """Return the mutual information of a joint histogram, and ``log(p(f, m) / (p(f) p(m)))``, 0 for empty bins."""
    total = joint.sum()
    shares = joint / total.where(total > 0, 1.0)
    independent = shares.sum(1, keepdim=True) * shares.sum(0, keepdim=True)
    log_ratio = torch.where(shares > 0, torch.log(shares / independent), 0.0)
    return (shares * log_ratio).sum(), log_ratio


def bspline(t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Evaluate the cubic B-spline."""
    a = t.abs()
    return torch.where(a < 1, (4 - 6 * a**2 + 3 * a**3) / 6, (2 - a).clamp_min(0) ** 3 / 6)


def bspline_slope(t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Evaluate the derivative of the cubic B-spline."""
    a = t.abs()
    return torch.where(a < 1, (1.5 * a - 2) * a, (2 - a).clamp_min(0) ** 2 / -2) * t.sign()


def _spread(
    values: Float[Tensor, " n"], kernel: Callable[[Float[Tensor, "n bins"]], Float[Tensor, "n bins"]]
) -> Float[Tensor, "n bins"]:
    """Evaluate a kernel around each value at all bins."""
    return kernel(values[:, None] - torch.arange(BINS, dtype=values.dtype, device=values.device))


def _sample(
    volume: Float[Tensor, "_ _ _"], homogeneous: Float[Tensor, "n 4"], matrix: Float[Tensor, "3 4"]
) -> tuple[Float[Tensor, " n"], Points]:
    """Interpolate linearly; return values, and their gradients in the coordinates of the points."""
    positions = homogeneous @ matrix.T
    low, share, step, inside = [], [], [], []
    for axis, size in enumerate(volume.shape):
        position = positions[:, axis].clamp(0, size - 1)
        inside.append(positions[:, axis] == position)
        start = position.floor().clamp_max(max(size - 2, 0))
        low.append(start.long())
        share.append(position - start)
        step.append(min(size - 1, 1))
    values, slopes = torch.zeros_like(share[0]), torch.zeros_like(positions)
    for corner in itertools.product((0, 1), repeat=3):
        i, j, k = (at + up * one for at, up, one in zip(low, corner, step, strict=True))
        value = volume[i, j, k]
        weights = [x if up else 1 - x for x, up in zip(share, corner, strict=True)]
        values += weights[0] * weights[1] * weights[2] * value
        for axis in range(3):
            b, c = (weights[a] for a in range(3) if a != axis)
            slopes[:, axis] += (1 if corner[axis] else -1) * b * c * value
    return values, torch.where(torch.stack(inside, dim=1), slopes, 0.0) @ matrix[:, :3]
