"""What the kernels should compute, as slow float64 loops in numpy, written from the formulas and not from the code.

Conventions: volumes ``[i, j, k]``, features ``[c, i, j, k]``, fields ``[3, i, j, k]`` in voxels (or cells, or nodes),
component ``a`` along axis ``a``; centres at integers. Costs are ``[di, dj, dk, i, j, k]``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from pairwise import pairwise

Triple = tuple[int, int, int]
Step = tuple[int, int, int]

ENTRIES = ((0, 1, 2), (1, 3, 4), (2, 4, 5))
"""Where each entry of a symmetric 3x3 matrix is among the rows 00 01 02 11 12 22."""

COUPLING_WEIGHTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

ORIENTATIONS: list[tuple[Triple, tuple[bool, bool, bool]]] = [
    (axes, (i, j, k)) for axes, i, j, k in pairwise(itertools.permutations(range(3)), *[(False, True)] * 3)
]
"""Permutations of the axes with flips of each: 12 of 48, in which each pair of a permutation and a flip occurs."""


# Inputs -------------------------------------------------------------------------------------------------------------


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return seeded normal noise; equal numbers for every type up to rounding."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype)


def uniform(*shape: int, seed: int = 0, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """Return seeded uniform numbers in float64."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * values


def blobs(positions: np.ndarray, shape: Triple, *, channels: int, sigma: float, seed: int = 0) -> np.ndarray:
    """Sum random Gaussian bumps at ``positions`` ``[3, ...]``: smooth features ``[c, ...]``, also beyond the volume."""
    rng = np.random.default_rng(seed)
    margin = 2 * sigma
    count = max(8, round(1.5 * math.prod(n + 2 * margin for n in shape) / (2 * sigma) ** 3))
    out = np.zeros((channels, *positions.shape[1:]))
    for c in range(channels):
        for _ in range(count):
            centre = [rng.uniform(-margin, n + margin) for n in shape]
            height = rng.normal()
            apart = sum((positions[a] - centre[a]) ** 2 for a in range(3))
            out[c] += height * np.exp(-0.5 * apart / sigma**2)
    return out


def indices(shape: Sequence[int]) -> np.ndarray:
    """Each voxel's own index, ``[3, i, j, k]``."""
    out = np.zeros((3, *shape))
    for x in np.ndindex(*shape):
        out[(slice(None), *x)] = x
    return out


def oblique_affine(
    spacing: tuple[float, float, float] = (1.5, 0.8, 2.5),
    *,
    degrees: tuple[float, float, float] = (20.0, -15.0, 30.0),
    origin: tuple[float, float, float] = (12.0, -30.0, 45.0),
    axes: tuple[int, int, int] = (0, 1, 2),
    flips: tuple[bool, bool, bool] = (False, False, False),
) -> np.ndarray:
    """4x4 voxel-to-mm matrix: tensor axis a along world axis ``axes[a]`` (backwards where flipped), then rotated."""
    rotation = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(3)
        b, c = (axis + 1) % 3, (axis + 2) % 3
        turn[b, b] = turn[c, c] = math.cos(angle)
        turn[b, c], turn[c, b] = -math.sin(angle), math.sin(angle)
        rotation = turn @ rotation
    out = np.eye(4)
    for a in range(3):
        out[:3, a] = rotation[:, axes[a]] * spacing[a] * (-1 if flips[a] else 1)
    out[:3, 3] = origin
    return out


def mm_of_voxels(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Millimetres of each voxel centre, ``[3, i, j, k]``."""
    return np.einsum("ab,bijk->aijk", affine[:3, :3], indices(shape)) + affine[:3, 3].reshape(3, 1, 1, 1)


# Sampling -----------------------------------------------------------------------------------------------------------


def trilinear(volume: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Trilinear values of ``[c, i, j, k]`` at ``[3, ...]``, positions clamped to the outer centres."""
    out = np.zeros((volume.shape[0], *positions.shape[1:]))
    for x in np.ndindex(*positions.shape[1:]):
        low, share = [], []
        for axis, n in enumerate(volume.shape[1:]):
            p = min(max(float(positions[(axis, *x)]), 0.0), n - 1.0)
            low.append(math.floor(p))
            share.append(p - math.floor(p))
        for corner in itertools.product((0, 1), repeat=3):
            weight = math.prod(s if up else 1 - s for s, up in zip(share, corner, strict=True))
            if weight > 0:
                i, j, k = (a + up for a, up in zip(low, corner, strict=True))
                out[(slice(None), *x)] += weight * volume[:, i, j, k]
    return out


def nearest(volume: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Values of the nearest voxels; which of two equally near ones is left open (do not test there)."""
    out = np.zeros((volume.shape[0], *positions.shape[1:]), volume.dtype)
    for x in np.ndindex(*positions.shape[1:]):
        near = [
            min(range(n), key=lambda v, p=float(positions[(axis, *x)]): abs(v - p))
            for axis, n in enumerate(volume.shape[1:])
        ]
        out[(slice(None), *x)] = volume[(slice(None), *near)]
    return out


def inside(positions: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Whether positions are at most half a voxel beyond the outer centres."""
    out = np.zeros(positions.shape[1:], bool)
    for x in np.ndindex(*positions.shape[1:]):
        out[x] = all(-0.5 <= positions[(a, *x)] <= n - 0.5 for a, n in enumerate(shape))
    return out


def compose(field: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """``field(x + displacement(x))``."""
    return trilinear(field, displacement + indices(displacement.shape[1:]))


# Smoothing, pooling, interpolation ----------------------------------------------------------------------------------


def smooth(volume: np.ndarray, taps: Sequence[float], evidence: np.ndarray | None = None) -> np.ndarray:
    """Filter ``[c, i, j, k]`` with ``taps`` along each axis; at borders, divide by the sum of the taps that fit.

    With evidence, each node counts as much as it has, and at least a thousandth.
    """
    half = len(taps) // 2
    counts = np.ones(volume.shape[1:]) if evidence is None else np.maximum(evidence, 1e-3)
    out = np.zeros_like(volume, dtype=np.float64)
    shape = volume.shape[1:]
    for x in np.ndindex(*shape):
        total, share = np.zeros(volume.shape[0]), 0.0
        reach = [range(max(0, c - half), min(n, c + half + 1)) for c, n in zip(x, shape, strict=True)]
        for y in itertools.product(*reach):
            weight = counts[y] * math.prod(taps[b - a + half] for a, b in zip(x, y, strict=True))
            total += weight * volume[(slice(None), *y)]
            share += weight
        out[(slice(None), *x)] = total / share
    return out


def mean3(volume: np.ndarray) -> np.ndarray:
    """Mean over the 3x3x3 neighbours that lie in the volume."""
    return smooth(volume, (1.0, 1.0, 1.0))


def pool(volume: np.ndarray, spacing: Triple, weight: np.ndarray | None = None) -> np.ndarray:
    """Return (weighted) means over whole blocks; 0 in a block without weight."""
    weight = np.ones(volume.shape[1:]) if weight is None else weight
    shape = [n // s for n, s in zip(volume.shape[1:], spacing, strict=True)]
    out = np.zeros((volume.shape[0], *shape))
    for node in np.ndindex(*shape):
        total, share = np.zeros(volume.shape[0]), 0.0
        for step in np.ndindex(*spacing):
            y = tuple(n * s + t for n, s, t in zip(node, spacing, step, strict=True))
            total += weight[y] * volume[(slice(None), *y)]
            share += weight[y]
        if share > 0:
            out[(slice(None), *node)] = total / share
    return out


def node_weights(weight: np.ndarray, spacing: Triple) -> np.ndarray:
    """Mean weight of each block; 0 where a voxel of it has none, unless that is so in all blocks."""
    means = pool(weight[None], spacing)[0]
    least = np.zeros_like(means)
    for node in np.ndindex(*means.shape):
        least[node] = weight[tuple(slice(n * s, n * s + s) for n, s in zip(node, spacing, strict=True))].min()
    return np.where(least > 0, means, 0) if (least > 0).any() else means


def control_point_positions(shape: Sequence[int], spacing: Triple) -> np.ndarray:
    """Voxel positions ``s n + (s - 1) / 2`` of the nodes of a volume of ``shape``, ``[3, ...]``."""
    nodes = indices([n // s for n, s in zip(shape, spacing, strict=True)])
    return np.stack([s * nodes[a] + (s - 1) / 2 for a, s in enumerate(spacing)])


def control_points_to_voxels(field: np.ndarray, spacing: Triple, shape: Triple) -> np.ndarray:
    """Read a field on nodes at each voxel, linearly."""
    voxels = indices(shape)
    return trilinear(field, np.stack([(voxels[a] - (s - 1) / 2) / s for a, s in enumerate(spacing)]))


def voxels_to_control_points(field: np.ndarray, spacing: Triple) -> np.ndarray:
    """Read a field on voxels at each node, linearly."""
    return trilinear(field, control_point_positions(field.shape[1:], spacing))


# MIND-SSC -----------------------------------------------------------------------------------------------------------


def neighbour_pairs() -> list[tuple[Step, Step]]:
    """Pairs of the six unit steps at squared distance 2, in any order."""
    units: list[Step] = [s for s in itertools.product((-1, 0, 1), repeat=3) if sum(abs(v) for v in s) == 1]
    return [
        (p, q) for p, q in itertools.combinations(units, 2) if sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) == 2
    ]


def _read_clamped(volume: np.ndarray, step: Sequence[int]) -> np.ndarray:
    """``volume[x + step]`` for every x, edges replicated."""
    ticks = [np.clip(np.arange(n) + s, 0, n - 1) for n, s in zip(volume.shape, step, strict=True)]
    return volume[np.ix_(*ticks)]


def mind_distances(volume: np.ndarray, radius: int, dilation: int) -> dict[frozenset[Step], np.ndarray]:
    """``D_pq(x)``: mean over the patch of ``(I(y + p) - I(y + q))^2``."""
    distances = {}
    for p, q in neighbour_pairs():
        at_p = _read_clamped(volume, [dilation * s for s in p])
        at_q = _read_clamped(volume, [dilation * s for s in q])
        squared = (at_p - at_q) ** 2
        patch = list(itertools.product(range(-radius, radius + 1), repeat=3))
        total = np.zeros_like(volume)
        for step in patch:
            total += _read_clamped(squared, step)
        distances[frozenset((p, q))] = total / len(patch)
    return distances


def mind_variance(distances: dict[frozenset[Step], np.ndarray], weight: np.ndarray | None = None) -> np.ndarray:
    """``v(x)``: mean of ``S_pq``, clamped to [1e-3 m, 1e3 m]."""
    stack = np.stack(list(distances.values()))
    variance = (stack - stack.min(0)).mean(0)
    average = variance.mean() if weight is None else (variance * weight).sum() / weight.sum()
    return np.minimum(np.maximum(variance, 1e-3 * average), 1e3 * average)


def mind_ssc(
    volume: np.ndarray, radius: int, dilation: int, weight: np.ndarray | None = None
) -> dict[frozenset[Step], np.ndarray]:
    """``exp(-S_pq / v)`` for each pair of neighbours; not defined without contrast."""
    distances = mind_distances(volume, radius, dilation)
    variance = mind_variance(distances, weight)
    least = np.stack(list(distances.values())).min(0)
    return {pair: np.exp(-(d - least) / variance) for pair, d in distances.items()}


# Costs and the discrete search --------------------------------------------------------------------------------------


def labels(radius: Triple) -> Iterator[tuple[Step, Step]]:
    """Index in a cost volume and displacement, for all of them."""
    for index in itertools.product(*(range(2 * r + 1) for r in radius)):
        i, j, k = index
        yield (i, j, k), (i - radius[0], j - radius[1], k - radius[2])


def feature_distances(fixed: np.ndarray, moving: np.ndarray, radius: Triple) -> np.ndarray:
    """``|F(x) - M(x + d)|^2``, infinite where ``x + d`` is outside."""
    shape = fixed.shape[1:]
    out = np.full((*(2 * r + 1 for r in radius), *shape), np.inf)
    for index, step in labels(radius):
        for x in np.ndindex(*shape):
            at = tuple(a + s for a, s in zip(x, step, strict=True))
            if all(0 <= a < n for a, n in zip(at, shape, strict=True)):
                out[(*index, *x)] = ((fixed[(slice(None), *x)] - moving[(slice(None), *at)]) ** 2).sum()
    return out


def cost_volume(
    fixed: np.ndarray,
    moving: np.ndarray,
    radius: Triple,
    fixed_weight: np.ndarray | None = None,
    moving_weight: np.ndarray | None = None,
) -> np.ndarray:
    """Weighted mean, with the kernel of two 3x3x3 means, of ``|F(y) - M(y + d)|^2`` over the y that have evidence."""
    shape = fixed.shape[1:]
    fixed_weight = np.ones(shape) if fixed_weight is None else fixed_weight
    moving_weight = np.ones(shape) if moving_weight is None else moving_weight
    line = np.convolve(np.ones(3) / 3, np.ones(3) / 3)
    kernel = line[:, None, None] * line[None, :, None] * line[None, None, :]
    out = np.full((*(2 * r + 1 for r in radius), *shape), np.inf)
    for index, step in labels(radius):
        difference, weight = np.zeros(shape), np.zeros(shape)
        for y in np.ndindex(*shape):
            at = tuple(a + s for a, s in zip(y, step, strict=True))
            if all(0 <= a < n for a, n in zip(at, shape, strict=True)):
                difference[y] = ((fixed[(slice(None), *y)] - moving[(slice(None), *at)]) ** 2).sum()
                weight[y] = fixed_weight[y] * moving_weight[at]
        for x in np.ndindex(*shape):
            lows = [max(0, a - 2) for a in x]
            highs = [min(n, a + 3) for a, n in zip(x, shape, strict=True)]
            near = tuple(slice(a, b) for a, b in zip(lows, highs, strict=True))
            part = tuple(slice(a - c + 2, b - c + 2) for a, b, c in zip(lows, highs, x, strict=True))
            share = (kernel[part] * weight[near]).sum()
            if share > 0:
                out[(*index, *x)] = (kernel[part] * weight[near] * difference[near]).sum() / share
    return out


def fill_without_evidence(costs: np.ndarray) -> np.ndarray:
    """Infinite costs become the mean of the cell's finite ones, or 0 where there is none."""
    out = costs.copy()
    for x in np.ndindex(*costs.shape[3:]):
        cell = out[(slice(None), slice(None), slice(None), *x)]
        finite = np.isfinite(cell)
        cell[~finite] = cell[finite].mean() if finite.any() else 0.0
    return out


def coupled_argmin(
    costs: np.ndarray, toward: np.ndarray | None = None, theta: float = 0.0, *, parabolic_fit: bool = False
) -> np.ndarray:
    """``argmin_d C(x, d) + theta |d - u(x)|^2``; of equal ones the shortest d.

    With ``parabolic_fit``, component by component the lowest point of the parabola through d and its two neighbours; d
    where
    one of them lies outside the window, or all three are equal.
    """
    radius: Triple = (costs.shape[0] // 2, costs.shape[1] // 2, costs.shape[2] // 2)
    out = np.zeros((3, *costs.shape[3:]))
    for x in np.ndindex(*costs.shape[3:]):
        best = (np.inf, np.inf)
        totals: dict[Step, float] = {}
        for index, step in labels(radius):
            total = float(costs[(*index, *x)])
            if toward is not None:
                total += theta * sum((s - float(toward[(a, *x)])) ** 2 for a, s in enumerate(step))
            totals[step] = total
            key = (total, float(sum(s * s for s in step)))
            if key < best:
                best = key
                out[(slice(None), *x)] = step
        if parabolic_fit:
            i, j, k = (int(s) for s in out[(slice(None), *x)])
            for axis in range(3):
                e = [int(a == axis) for a in range(3)]
                down, up = (i - e[0], j - e[1], k - e[2]), (i + e[0], j + e[1], k + e[2])
                if down in totals and up in totals:
                    quadratic, linear, _ = np.linalg.solve(
                        [[1.0, -1, 1], [0, 0, 1], [1, 1, 1]], [totals[s] for s in (down, (i, j, k), up)]
                    )
                    out[(axis, *x)] -= linear / (2 * quadratic) if quadratic > 0 else 0.0
    return out


def coupled_convex(
    costs: np.ndarray, coupling_weights: Sequence[float] = COUPLING_WEIGHTS, *, parabolic_fit: bool = False
) -> np.ndarray:
    """``u <- mean3(argmin_d C)``, then ``u <- mean3(argmin_d C + theta |d - u|^2)`` for each theta."""
    field = mean3(coupled_argmin(costs, parabolic_fit=parabolic_fit))
    for theta in coupling_weights:
        field = mean3(coupled_argmin(costs, field, theta, parabolic_fit=parabolic_fit))
    return field


def inverse_consistency(forward: np.ndarray, backward: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """``u <- (u - v o (id + u)) / 2`` and the same for v, both from the previous pair."""
    for _ in range(iterations):
        new_forward = 0.5 * (forward - compose(backward, forward))
        new_backward = 0.5 * (backward - compose(forward, backward))
        forward, backward = new_forward, new_backward
    return forward, backward


# Refinement ---------------------------------------------------------------------------------------------------------


def ssd_terms(
    fixed: np.ndarray,
    moving: np.ndarray,
    displacement: np.ndarray,
    weights: np.ndarray | None = None,
    outlier: float = math.inf,
) -> np.ndarray:
    """``w(x) r / (1 + r / outlier)``, ``r = sum_c (M_c(x + u(x)) - F_c(x))^2``, for each node."""
    warped = compose(moving, displacement)
    out = np.zeros(fixed.shape[1:])
    for x in np.ndindex(*out.shape):
        squared = sum((warped[(c, *x)] - fixed[(c, *x)]) ** 2 for c in range(fixed.shape[0]))
        out[x] = squared / (1 + squared / outlier)
    return out if weights is None else out * weights


def ssd_weights(
    displacement: np.ndarray, fixed_weight: np.ndarray | None = None, moving_weight: np.ndarray | None = None
) -> np.ndarray:
    """``w(x)``: the product of both weights; 0 where ``x + u(x)`` leaves the field of view.

    0 also where nodes without weight make up a thousandth or more of what is interpolated there.
    """
    shape = displacement.shape[1:]
    out = inside(displacement + indices(shape), shape).astype(float)
    if moving_weight is not None:
        missing = compose((moving_weight == 0)[None].astype(float), displacement)[0]
        out *= np.where(missing < 1e-3, compose(moving_weight[None], displacement)[0], 0)
    return out if fixed_weight is None else out * fixed_weight


def ssd(
    fixed: np.ndarray,
    moving: np.ndarray,
    displacement: np.ndarray,
    weights: np.ndarray | None = None,
    outlier: float = math.inf,
) -> float:
    """Mean over the nodes of `ssd_terms`."""
    return float(ssd_terms(fixed, moving, displacement, weights, outlier).mean())


def robust_weights(
    fixed: np.ndarray, moving: np.ndarray, displacement: np.ndarray, weights: np.ndarray, outlier: float
) -> np.ndarray:
    """``w(x)`` times the derivative of ``r / (1 + r / outlier)`` by ``r``: what the gradient of each node counts."""
    return weights / (1 + ssd_terms(fixed, moving, displacement) / outlier) ** 2


def ssd_gradient(
    fixed: np.ndarray, moving: np.ndarray, displacement: np.ndarray, weights: np.ndarray, step: float = 1e-4
) -> np.ndarray:
    """Central differences of `ssd`; each node's term depends on its own displacement only."""
    out = np.zeros_like(displacement)
    for axis in range(3):
        up, down = displacement.copy(), displacement.copy()
        up[axis] += step
        down[axis] -= step
        change = ssd_terms(fixed, moving, up, weights) - ssd_terms(fixed, moving, down, weights)
        out[axis] = change / (2 * step) / weights.size
    return out


def gauss_newton(moving: np.ndarray, displacement: np.ndarray, weights: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """``2/N w(x) sum_c dM_c dM_c^T`` as in `ENTRIES`, ``[6, i, j, k]``; slopes are central differences."""
    slopes = []
    for axis in range(3):
        up, down = displacement.copy(), displacement.copy()
        up[axis] += step
        down[axis] -= step
        slopes.append((compose(moving, up) - compose(moving, down)) / (2 * step))
    out = np.zeros((6, *weights.shape))
    for x in np.ndindex(*weights.shape):
        for row, (a, b) in enumerate(itertools.combinations_with_replacement(range(3), 2)):
            total = sum(slopes[a][(c, *x)] * slopes[b][(c, *x)] for c in range(moving.shape[0]))
            out[(row, *x)] = 2 / weights.size * weights[x] * total
    return out


def third_of_trace(block: np.ndarray) -> np.ndarray:
    """Mean of the diagonal of blocks as in `ENTRIES`."""
    return (block[0] + block[3] + block[5]) / 3


def _window(x: Sequence[int], shape: Sequence[int], radius: int) -> tuple[slice, ...]:
    """Nodes at most ``radius`` from ``x`` along each axis."""
    return tuple(slice(max(c - radius, 0), min(c + radius + 1, n)) for c, n in zip(x, shape, strict=True))


def local_moments(f: np.ndarray, m: np.ndarray, weights: np.ndarray, radius: int) -> tuple[np.ndarray, ...]:
    """Covariance and both variances of two volumes within each window, and its weight; all 0 where a node has none."""
    out = np.zeros((4, *f.shape))
    for x in np.ndindex(*f.shape):
        if weights[x] > 0:
            near = _window(x, f.shape, radius)
            w = weights[near]
            off_f = f[near] - (w * f[near]).sum() / w.sum()
            off_m = m[near] - (w * m[near]).sum() / w.sum()
            moments = [(w * product).sum() / w.sum() for product in (off_f * off_m, off_f**2, off_m**2)]
            out[(slice(None), *x)] = [*moments, w.sum()]
    return tuple(out)


def variance(volume: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Variance of a volume, each node counted by its weight."""
    counts = np.ones(volume.shape) if weight is None else weight
    mean = (counts * volume).sum() / counts.sum()
    return float((counts * (volume - mean) ** 2).sum() / counts.sum())


def lncc(
    fixed: np.ndarray,
    moving: np.ndarray,
    displacement: np.ndarray,
    weights: np.ndarray,
    *,
    radius: int,
    floors: Sequence[tuple[float, float]],
) -> float:
    """``1/N sum_x w(x) sum_c (1 - cov^2 / ((vf + floor) (vm + floor)))``, with two floors for each channel."""
    warped, total = compose(moving, displacement), 0.0
    for f, m, (floor_f, floor_m) in zip(fixed, warped, floors, strict=True):
        cov, vf, vm, _ = local_moments(f, m, weights, radius)
        for x in np.argwhere(weights > 0):
            at = tuple(x)
            total += weights[at] * (1 - cov[at] ** 2 / ((vf[at] + floor_f) * (vm[at] + floor_m)))
    return total / weights.size


def lncc_blocks(
    fixed: np.ndarray,
    moving: np.ndarray,
    displacement: np.ndarray,
    weights: np.ndarray,
    *,
    radius: int,
    floors: Sequence[tuple[float, float]],
) -> np.ndarray:
    """``sum_c h_c dM_c dM_c^T``, ``h(y) = w(y)/N sum_x w(x)/W(x) 2 cov^2 / (vf vm^2)`` over the windows with ``y``."""
    warped, out = compose(moving, displacement), np.zeros((6, *weights.shape))
    for c, (floor_f, floor_m) in enumerate(floors):
        cov, vf, vm, total = local_moments(fixed[c], warped[c], weights, radius)
        h = np.zeros(weights.shape)
        for x in np.ndindex(*weights.shape):
            if weights[x] > 0:
                curvature = 2 * cov[x] ** 2 / ((vf[x] + floor_f) * (vm[x] + floor_m) ** 2)
                h[_window(x, weights.shape, radius)] += weights[x] / total[x] * curvature
        # `gauss_newton` of one channel, with weights of its own
        out += gauss_newton(moving[c : c + 1], displacement, weights * h) / 2
    return out


def damped_step(
    slopes: np.ndarray, means: np.ndarray, damping: float, longest: float = math.inf
) -> tuple[np.ndarray, float]:
    """``v = -means_012 / (means_3 + damping)`` of at most ``longest``, and ``-sum_x (g . v + h |v|^2 / 2)``."""
    step, gain = np.zeros((3, *means.shape[1:])), 0.0
    for x in np.ndindex(*means.shape[1:]):
        v = np.array([-means[(a, *x)] / (means[(3, *x)] + damping) for a in range(3)])
        length = math.sqrt(v @ v)
        v = v * (longest / length) if length > longest else v
        step[(slice(None), *x)] = v
        gain -= sum(slopes[(a, *x)] * v[a] for a in range(3)) + slopes[(3, *x)] * (v @ v) / 2
    return step, gain


def diffusion_energy(displacement: np.ndarray) -> float:
    """``1/3 sum_a mean_x |u(x + e_a) - u(x)|^2``, without the differences that leave the grid."""
    shape = displacement.shape[1:]
    total = 0.0
    for x in np.ndindex(*shape):
        for axis in range(3):
            y = list(x)
            y[axis] += 1
            if y[axis] < shape[axis]:
                total += ((displacement[(slice(None), *y)] - displacement[(slice(None), *x)]) ** 2).sum()
    return total / (3 * math.prod(shape))


def bending_energy(displacement: np.ndarray) -> float:
    """``1/3 mean_x sum_ab |d_a d_b u|^2``; ``d_a d_a`` looks to both sides, others to the next ones, all inside."""
    shape = displacement.shape[1:]
    unit = np.eye(3, dtype=int)

    def at(y: np.ndarray) -> np.ndarray:
        return displacement[(slice(None), *y)]

    total = 0.0
    for x in np.ndindex(*shape):
        for a, b in itertools.product(range(3), repeat=2):
            if a == b and 0 < x[a] < shape[a] - 1:
                total += ((at(x + unit[a]) - 2 * at(x) + at(x - unit[a])) ** 2).sum()
            if a != b and x[a] < shape[a] - 1 and x[b] < shape[b] - 1:
                total += ((at(x + unit[a] + unit[b]) - at(x + unit[a]) - at(x + unit[b]) + at(x)) ** 2).sum()
    return float(total / (3 * math.prod(shape)))


def volume_change(displacement: np.ndarray, share: np.ndarray | None = None) -> float:
    """``1/N sum_x s(x) log(det J)^2``; below a determinant of 0.05 the line that touches the curve there."""
    total = 0.0
    for x, determinant in np.ndenumerate(jacobian(displacement)):
        if determinant >= 0.05:
            cost = math.log(determinant) ** 2
        else:
            cost = math.log(0.05) ** 2 + 2 * math.log(0.05) / 0.05 * (determinant - 0.05)
        total += cost * (1 if share is None else share[x])
    return total / math.prod(displacement.shape[1:])


def bilateral(
    displacement: np.ndarray,
    guide: np.ndarray,
    *,
    sigma: float,
    sigma_guide: float,
    sigma_field: float | None = None,
    radius: int = 1,
) -> np.ndarray:
    """Mean over a window, weighted by how near nodes are, how alike in the guide and, if asked for, in the field."""
    shape = displacement.shape[1:]
    out = np.zeros_like(displacement)
    for x in np.ndindex(*shape):
        total, share = np.zeros(3), 0.0
        for y in itertools.product(
            *(range(max(0, c - radius), min(n, c + radius + 1)) for c, n in zip(x, shape, strict=True))
        ):
            apart = sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / sigma**2
            apart += ((guide[(slice(None), *x)] - guide[(slice(None), *y)]) ** 2).sum() / sigma_guide**2
            if sigma_field is not None:
                difference = displacement[(slice(None), *x)] - displacement[(slice(None), *y)]
                apart += (difference**2).sum() / sigma_field**2
            weight = math.exp(-apart / 2)
            total += weight * displacement[(slice(None), *y)]
            share += weight
        out[(slice(None), *x)] = total / share
    return out


def jacobian(displacement: np.ndarray) -> np.ndarray:
    """``det(I + du/dx)``: central differences inside, one-sided at the ends, 0 along an axis of one voxel."""
    shape = displacement.shape[1:]
    out = np.zeros(shape)
    for x in np.ndindex(*shape):
        matrix = np.eye(3)
        for axis, n in enumerate(shape):
            low, high = list(x), list(x)
            low[axis], high[axis] = max(x[axis] - 1, 0), min(x[axis] + 1, n - 1)
            if high[axis] > low[axis]:
                rise = displacement[(slice(None), *high)] - displacement[(slice(None), *low)]
                matrix[:, axis] += rise / (high[axis] - low[axis])
        out[x] = np.linalg.det(matrix)
    return out
