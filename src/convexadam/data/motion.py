"""Smooth analytic displacements: the motion between two scans and the anatomy of an individual."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias, final

import torch

from convexadam._typing import Points, Tensor
from convexadam.data.shapes import Coords
from convexadam.errors import ConfigError

Map: TypeAlias = Callable[[Tensor], Tensor]
_STEP_MM = 1e-3
_SOLVED_MM = 1e-10

# centre, width and direction: the diaphragm in breathing, the anterior wall, the two sides.
_BREATHING = (
    ((25.0, 10.0, 75.0), (120.0, 95.0, 75.0), (0.05, 0.30, -1.0)),
    ((0.0, 110.0, -30.0), (110.0, 60.0, 85.0), (0.0, 0.45, -0.15)),
)


@final
@dataclass(frozen=True, kw_only=True)
class Motion:
    """Sum of Gaussian bumps and of plane waves, as a displacement of nominal coordinates.

    Attributes
    ----------
    bumps
        Centre, width and direction of each Gaussian bump, in mm of the nominal torso.
    waves
        Wave vector (radian per mm), phase and direction of each plane wave.
    gain
        Factor for each of R, A and S.
    """

    bumps: tuple[tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]], ...] = ()
    waves: tuple[tuple[tuple[float, ...], float, tuple[float, ...]], ...] = ()
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @classmethod
    def draw_breathing(cls, generator: torch.Generator) -> Motion:
        """Draw breathing and sliding of the organs, with a small random deformation; up to about 1 mm."""
        bumps = list(_BREATHING)
        for side in (-1.0, 1.0):
            for level in (60.0, -60.0):
                jitter, direction, width = _draw_uniform((3, 3), generator)
                centre = (side * 80 + 30 * jitter[0], 40 * jitter[1], level + 40 * jitter[2])
                widths = _triple([60 + 15 * abs(w) for w in width])
                bumps.append((_triple(centre), widths, _triple([0.45 * d for d in direction])))
        return cls(bumps=tuple(bumps), waves=_draw_waves(3, (260.0, 420.0), 0.12, generator))

    @classmethod
    def draw_individual(cls, generator: torch.Generator) -> Motion:
        """Draw the deviation of a person's anatomy from the nominal one, several mm."""
        return cls(waves=_draw_waves(3, (170.0, 300.0), 2.6, generator) + _draw_waves(4, (70.0, 120.0), 0.8, generator))

    def with_gain(self, gain: tuple[float, float, float]) -> Motion:
        """Return the same motion with another gain."""
        return replace(self, gain=gain)

    def __call__(self, coords: Coords) -> Coords:
        """Return the displacement at coordinates, both in mm of the nominal torso."""
        total = torch.zeros_like(coords)
        for centre, width, direction in self.bumps:
            squares = [((coords[a] - centre[a]) / width[a]).square_() for a in range(3)]
            exponent = squares[0].add_(squares[1]).add_(squares[2]).mul_(-0.5)
            _accumulate(total, exponent.exp_(), direction)
        for vector, phase, direction in self.waves:
            angle = coords[0] * vector[0] + coords[1] * vector[1] + coords[2] * vector[2] + phase
            _accumulate(total, angle.sin_(), direction)
        for a in range(3):
            total[a] *= self.gain[a]
        return total

    def displace(self, coords: Coords) -> Coords:
        """Return the coordinates plus their displacement."""
        return coords + self(coords)


def _accumulate(total: Tensor, weight: Tensor, direction: tuple[float, ...]) -> None:
    for a in range(3):
        total[a].add_(weight, alpha=direction[a])


def _draw_waves(
    count: int, lengths_mm: tuple[float, float], size: float, generator: torch.Generator
) -> tuple[tuple[tuple[float, ...], float, tuple[float, ...]], ...]:
    waves = []
    for _ in range(count):
        towards, direction, other = _draw_uniform((3, 3), generator)
        length = lengths_mm[0] + (lengths_mm[1] - lengths_mm[0]) * abs(other[0])
        norm = math.hypot(*towards) + 1e-9
        vector = _triple([2 * math.pi * t / (norm * length) for t in towards])
        waves.append((vector, math.pi * other[1], _triple([size * d for d in direction])))
    return tuple(waves)


def _draw_uniform(shape: tuple[int, int], generator: torch.Generator) -> list[list[float]]:
    drawn = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
    values: list[list[float]] = (2 * drawn - 1).tolist()
    return values


def _triple(values: list[float] | tuple[float, ...]) -> tuple[float, float, float]:
    return values[0], values[1], values[2]


def jacobian(displacement: Map, points: Points) -> Tensor:
    """Compute the gradient ``[n, 3, 3]`` of a displacement by central differences in float64; row = component."""
    columns = []
    for axis in range(3):
        step = torch.zeros(3, 1, dtype=torch.float64, device=points.device)
        step[axis] = _STEP_MM
        coords = points.T.to(torch.float64)
        columns.append((displacement(coords + step) - displacement(coords - step)) / (2 * _STEP_MM))
    return torch.stack(columns, -1).permute(1, 0, 2)


def solve(displacement: Map, targets: Points, *, iterations: int = 60) -> Points:
    """Solve ``x + u(x) = y`` for the points ``x`` of ``targets``, by Newton iterations in float64.

    Raises
    ------
    ConfigError
        If the iterations do not converge to 1e-10 mm; smooth displacements without folds do.
    """
    target = targets.to(torch.float64)
    points = target.clone()
    identity = torch.eye(3, dtype=torch.float64, device=points.device)
    for _ in range(iterations):
        residual = points + displacement(points.T).T - target
        if residual.abs().max() < _SOLVED_MM:
            return points
        points = points - torch.linalg.solve(identity + jacobian(displacement, points), residual)
    raise ConfigError(
        "displacement_mm must be small enough to invert the motion at the landmarks; choose a smaller one"
    )


def largest_safe_scale(gradient: Tensor, least: float) -> float:
    """Find the largest factor up to 1 for which ``det(I + factor * gradient)`` is above ``least`` everywhere."""
    identity = torch.eye(3, dtype=torch.float64, device=gradient.device)

    def is_safe(factor: float) -> bool:
        return bool((torch.linalg.det(identity + factor * gradient) > least).all())

    if is_safe(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if is_safe(middle) else (low, middle)
    return low
