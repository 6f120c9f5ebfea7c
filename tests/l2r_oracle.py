"""The formulas of the Learn2Reg evaluation as naive float64 loops, which share no code with the library or scipy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np


def cubic_at(values: np.ndarray, point: Iterable[float]) -> float:
    """Cubic spline through all values, mirrored at the outer voxel centres, at one point; 0 outside of them."""
    position = list(point)
    if any(not 0 <= p <= n - 1 for p, n in zip(position, values.shape, strict=True)):
        return 0.0
    coefficients = values.astype(np.float64)
    for axis, n in enumerate(values.shape):
        system = np.zeros((n, n))
        for row in range(n):
            for step, weight in ((-1, 1 / 6), (0, 4 / 6), (1, 1 / 6)):
                system[row, mirrored(row + step, n)] += weight
        coefficients = np.moveaxis(np.tensordot(np.linalg.inv(system), coefficients, axes=(1, axis)), 0, axis)
    total = 0.0
    for index in itertools.product(*(range(math.floor(p) - 1, math.floor(p) + 3) for p in position)):
        weight = math.prod(bspline(p - i) for p, i in zip(position, index, strict=True))
        total += weight * coefficients[tuple(mirrored(i, n) for i, n in zip(index, values.shape, strict=True))]
    return total


def bspline(distance: float) -> float:
    far = abs(distance)
    return 2 / 3 - far**2 + far**3 / 2 if far < 1 else max(0.0, 2 - far) ** 3 / 6


def mirrored(index: int, n: int) -> int:
    index = abs(index) % (2 * n - 2)
    return min(index, 2 * n - 2 - index)


def distances(fixed: np.ndarray, moving: np.ndarray, spacing: Iterable[float], disp: np.ndarray | None) -> list[float]:
    """Landmark errors; ``disp`` is (3, i, j, k)."""
    found = []
    for point, target in zip(fixed, moving, strict=True):
        moved = [p + (0.0 if disp is None else cubic_at(disp[axis], point)) for axis, p in enumerate(point)]
        found.append(math.sqrt(sum(((m - t) * s) ** 2 for m, t, s in zip(moved, target, spacing, strict=True))))
    return found


def warped(labels: np.ndarray, disp: np.ndarray) -> np.ndarray:
    result = np.zeros(disp.shape[1:], labels.dtype)
    for index in np.ndindex(*result.shape):
        place = [x + float(disp[(axis, *index)]) for axis, x in enumerate(index)]
        if all(0 <= p <= n - 1 for p, n in zip(place, labels.shape, strict=True)):
            result[index] = labels[tuple(math.floor(p + 0.5) for p in place)]
    return result


def overlap(a: np.ndarray, b: np.ndarray, label: int) -> float:
    pairs = list(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    both = sum(x == label and y == label for x, y in pairs)
    return 2 * both / sum((x == label) + (y == label) for x, y in pairs)


AREAS = {
    (1, 0): 0.2165063509,
    (2, 1): 0.7071067812,
    (3, 2): 1.1495190528,
    (4, 4): 1.0,
    (4, 3): 1.2990381057,
    (4, 3.5): 1.5731321850,
}
"""Area of surface in a cube, by how many connected corners it cuts off and how many edges join them; 3.5 for a path."""


def surface(labels: np.ndarray, label: int) -> list[tuple[tuple[int, ...], float]]:
    """Cubes between eight voxels through which the surface of a label runs, and their areas."""
    found = []
    for index in itertools.product(*(range(n + 1) for n in labels.shape)):
        inside, outside = [], []
        for corner in itertools.product((0, 1), repeat=3):
            voxel = [i + c - 1 for i, c in zip(index, corner, strict=True)]
            exists = all(0 <= v < n for v, n in zip(voxel, labels.shape, strict=True))
            (inside if exists and labels[tuple(voxel)] == label else outside).append(corner)
        if inside and outside:
            found.append((index, area_between(inside if len(inside) <= 4 else outside)))
    return found


def area_between(corners: list[tuple[int, ...]]) -> float:
    left, total = set(corners), 0.0
    while left:
        part, before = {left.pop()}, 0
        while len(part) > before:
            before = len(part)
            part |= {c for c in left if any(math.dist(c, other) == 1 for other in part)}
        left -= part
        near = [sum(math.dist(c, other) == 1 for other in part) for c in part]
        path = len(part) == 4 and sorted(near) == [1, 1, 2, 2]
        total += AREAS[(4, 3.5) if path else (len(part), sum(near) / 2)]
    return total


def hausdorff95(a: np.ndarray, b: np.ndarray, label: int) -> float:
    surface_a, surface_b = surface(a, label), surface(b, label)
    if not surface_b:
        return math.inf
    directed = []
    for one, two in ((surface_a, surface_b), (surface_b, surface_a)):
        nearest = sorted((min(math.dist(p, q) for q, _ in two), area) for p, area in one)
        whole, so_far = sum(area for _, area in nearest), 0.0
        for distance, area in nearest:
            so_far += area
            if so_far / whole >= 0.95:
                directed.append(distance)
                break
    return max(directed)


def determinants(disp: np.ndarray) -> np.ndarray:
    """Jacobian determinants without the two outer voxels on each side."""
    shape = disp.shape[1:]
    result = np.zeros([n - 4 for n in shape])
    for index in np.ndindex(*result.shape):
        jacobian = np.eye(3)
        for component, axis in itertools.product(range(3), range(3)):
            ahead, behind = [i + 2 for i in index], [i + 2 for i in index]
            ahead[axis] += 1
            behind[axis] -= 1
            jacobian[component, axis] += (disp[(component, *ahead)] - disp[(component, *behind)]) / 2
        result[index] = np.linalg.det(jacobian)
    return result


def sdlogj(disp: np.ndarray, mask: np.ndarray | None) -> float:
    logs = []
    found = determinants(disp)
    for index in np.ndindex(*found.shape):
        if mask is None or mask[tuple(i + 2 for i in index)] == 1:
            logs.append(math.log(min(max(found[index] + 3, 1e-9), 1e9)))
    mean = sum(logs) / len(logs)
    return math.sqrt(sum((value - mean) ** 2 for value in logs) / len(logs))


def quantile(values: Iterable[float], share: float) -> float:
    """Between the two nearest values, linearly."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
