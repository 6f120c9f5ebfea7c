"""Displacements during a refinement, in either direction, and which of them are kept."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, final

from convexadam._typing import Field, Triple, Volume
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward
from convexadam.kernels.inverse_consistency import make_inverse_consistent
from convexadam.kernels.warp import identity_positions, sample_linear, sample_nearest

T = TypeVar("T")

Iterations: TypeAlias = tuple[int, ...]
"""Numbers of the iterations after which to yield."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """Displacements during a refinement.

    Attributes
    ----------
    level, iteration
        Numbers: of the level from 0, of the iterations done there.
    fields
        On the control points of the level; ``backward`` is ``None`` if the level refines forward only.
    features
        What the level compares.

    Examples
    --------
    >>> import torch
    >>> from convexadam.continuous import Level, Refinement
    >>> from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward
    >>> maps = torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> start = ForwardBackward(forward=torch.zeros(3, 8, 8, 8))
    >>> refinement = Refinement(levels=(Level(spacing=1, iterations=2),))
    >>> steps = refinement.refine(lambda number: FeatureLevel(fixed=maps, moving=maps), start, (8, 8, 8))
    >>> [(snapshot.level, snapshot.iteration) for snapshot in steps]
    [(0, 0), (0, 2)]
    """

    level: int
    iteration: int
    fields: ForwardBackward
    features: FeatureLevel


def take_last(steps: Iterator[T]) -> T:
    """Return the last of at least one, without keeping those before it."""
    return deque(steps, maxlen=1).pop()


def select(steps: Iterator[tuple[int, Field]], iterations: Iterations) -> Iterator[tuple[int, Field]]:
    """Yield copies of the steps asked for, and the last step; the next step overwrites the memory of a step."""
    number, displacement = 0, None
    for number, displacement in steps:
        if number in iterations:
            yield number, displacement.clone()
    if displacement is not None and number not in iterations:
        yield number, displacement


def pair_up(
    forward: list[tuple[int, Field]],
    backward: list[tuple[int, Field]],
    iterations: Iterations,
    spacing: Triple,
    *,
    consistency: int,
) -> Iterator[tuple[int, ForwardBackward]]:
    """Yield the steps asked for, and the last one, of both directions, inverse of each other."""
    last = max(forward[-1][0], backward[-1][0])
    for iteration in sorted({n for n in iterations if n < last} | {last}):
        # a direction that converged before has its last displacement
        pair = (dict(steps).get(iteration, steps[-1][1]) for steps in (forward, backward))
        u, v = make_inverse_consistent(*pair, iterations=consistency)
        yield iteration, ForwardBackward(forward=u, backward=v, spacing=spacing)


def swap(features: FeatureLevel, backward: Field, soft_mask: Volume | None) -> tuple[FeatureLevel, Volume | None]:
    """Exchange the images; what is known on the fixed image alone is resampled to the moving one."""
    reverse = features.swap()
    guide = features.fixed_guide if features.moving_guide is None else None
    if soft_mask is None and guide is None:
        return reverse, None
    positions = identity_positions(features.shape, like=backward) + backward
    if guide is not None:
        reverse = dataclasses.replace(reverse, fixed_guide=sample_nearest(guide, positions))
    return reverse, None if soft_mask is None else sample_linear(soft_mask[None], positions)[0]
