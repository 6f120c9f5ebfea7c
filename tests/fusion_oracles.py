"""Label fusion as plain loops in float64, which share no code with the library."""

from __future__ import annotations

import itertools

import numpy as np


def patch(image: np.ndarray, centre: tuple[int, ...], radius: int) -> np.ndarray:
    """All channels of a patch as one vector: minus the mean and divided by the norm of each channel, or 0 if flat."""
    found = []
    for channel in image:
        values = []
        for step in itertools.product(range(-radius, radius + 1), repeat=3):
            at = tuple(min(max(c + s, 0), n - 1) for c, s, n in zip(centre, step, channel.shape, strict=True))
            values.append(float(channel[at]))
        vector = np.array(values) - np.mean(values)
        norm = np.linalg.norm(vector)
        found.append(vector / norm if np.var(values) > 1e-4 else 0 * vector)
    return np.concatenate(found)


def offsets(radius: int) -> list[tuple[int, ...]]:
    """All offsets of a window, the last axis fastest."""
    return list(itertools.product(range(-radius, radius + 1), repeat=3))


def add(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Sum of two positions."""
    return tuple(x + y for x, y in zip(a, b, strict=True))


def correlations(
    target: np.ndarray, atlas: np.ndarray, voxel: tuple[int, ...], radius: int, search: int
) -> list[float]:
    """Correlation of the patch of the target with that at each offset."""
    mine = patch(target, voxel, radius)
    return [float(mine @ patch(atlas, add(voxel, o), radius)) / len(target) for o in offsets(search)]


def best_offset(
    target: np.ndarray, atlas: np.ndarray, voxel: tuple[int, ...], radius: int, search: int
) -> tuple[int, float]:
    """The offset whose patch correlates most, and its correlation."""
    values = correlations(target, atlas, voxel, radius, search)
    best = len(values) // 2
    for number, value in enumerate(values):
        if value > values[best] + 1e-12:
            best = number
    return best, values[best]


def joint_weights(
    target: np.ndarray,
    atlases: np.ndarray,
    shifts: list[tuple[int, ...]],
    voxel: tuple[int, ...],
    radius: int,
    alpha: float,
    beta: float,
) -> np.ndarray:
    """Weights that minimise ``w^T (M + alpha I) w`` with the sum 1."""
    mine = patch(target, voxel, radius)
    errors = [np.abs(mine - patch(a, add(voxel, o), radius)) for a, o in zip(atlases, shifts, strict=True)]
    joint = np.array([[float(a @ b) / len(target) for b in errors] for a in errors]) ** beta
    solved = np.linalg.inv(joint + alpha * np.eye(len(errors))).sum(1)
    return solved / solved.sum()


def shares(
    labels: np.ndarray,
    weights: np.ndarray,
    numbers: np.ndarray,
    mask: np.ndarray,
    voxel: tuple[int, ...],
    count: int,
    vote: int,
    search: int,
) -> np.ndarray:
    """Share of the votes of each label at a voxel."""
    window, votes = offsets(search), np.zeros(count)
    for step in offsets(vote):
        x = add(voxel, step)
        if all(0 <= n < m for n, m in zip(x, mask.shape, strict=True)) and mask[x]:
            for row in range(len(weights)):
                a = row // (len(weights) // len(labels))
                o = window[int(numbers[(row, *x)])]
                at = tuple(min(max(n, 0), m - 1) for n, m in zip(add(voxel, o), mask.shape, strict=True))
                if labels[(a, *at)] >= 0:
                    votes[labels[(a, *at)]] += weights[(row, *x)]
    votes = np.maximum(votes, 0)
    return votes / max(votes.sum(), 1e-300)
