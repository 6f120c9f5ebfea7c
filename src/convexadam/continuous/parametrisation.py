"""How optimiser steps become a displacement: added up and smoothed, or composed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, final, runtime_checkable

import torch

from convexadam._axes import checked_number
from convexadam._typing import Field, Volume
from convexadam.continuous.smoothing import GaussianSmoothing, Smoother, Smoothing
from convexadam.kernels.warp import compose


@runtime_checkable
class Motion(Protocol):
    """A displacement on its way from the start to the result; every step makes a new one."""

    @property
    def displacement(self) -> Field:
        """The current displacement ``[3, i, j, k]`` in nodes."""
        ...

    def gradient(self, by_displacement: Field) -> Field:
        """From the gradient with respect to the displacement to that of what the optimiser moves."""
        ...

    def moved(self, direction: Field) -> Motion:
        """Take the optimiser's step, which is subtracted."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Displacement:
    """The published form: ``u = B(p)``, and Adam moves ``p``. Smooth, but free to fold."""

    def begin(self, start: Field, smoothing: Smoothing | None, evidence: Volume | None) -> Motion:
        """Start with ``p`` equal to the given displacement, in nodes."""
        return _Added(start, Smoother(smoothing, start, evidence))


@final
@dataclass(frozen=True, kw_only=True)
class Compositional:
    """Small smooth steps composed: ``u <- G(v + u o (id + v))`` with ``v = -B(step)``, ``|v| <= largest_step``.

    Each factor is invertible as long as its steps are short and smooth, and so is their composition: fields hardly
    fold. ``G`` acts as an elastic regulariser, ``B`` as a fluid one.

    Attributes
    ----------
    field_smoothing
        ``G``, on the whole field after each step; ``None`` for none.
    largest_step
        Longest step of a node, in nodes.

    Raises
    ------
    ConfigError
        If ``largest_step`` is not positive.
    """

    field_smoothing: Smoothing | None = field(default_factory=lambda: GaussianSmoothing(sigma=0.7))
    largest_step: float = 0.5

    def __post_init__(self) -> None:
        checked_number(self.largest_step, "largest_step", above=True)

    def begin(self, start: Field, smoothing: Smoothing | None, evidence: Volume | None) -> Motion:
        """Start from the given displacement, in nodes."""
        # nodes without evidence take no steps of their own; smoothing and the regulariser carry them along
        return _Composed(start, Smoother(smoothing, start), Smoother(self.field_smoothing, start), self.largest_step)


Parametrisation: TypeAlias = Displacement | Compositional


class _Added:
    def __init__(self, parameters: Field, smooth: Smoother) -> None:
        self._parameters, self._smooth = parameters, smooth
        self.displacement = smooth(parameters)

    def gradient(self, by_displacement: Field) -> Field:
        return self._smooth.adjoint(by_displacement)

    def moved(self, direction: Field) -> _Added:
        return _Added(self._parameters - direction, self._smooth)


class _Composed:
    def __init__(self, displacement: Field, smooth_step: Smoother, smooth_field: Smoother, largest_step: float) -> None:
        self.displacement = displacement
        self._smooth_step, self._smooth_field, self._largest_step = smooth_step, smooth_field, largest_step

    def gradient(self, by_displacement: Field) -> Field:
        return by_displacement

    def moved(self, direction: Field) -> _Composed:
        step = self._smooth_step(direction.neg())
        step = step * (self._largest_step / torch.linalg.vector_norm(step, dim=0).clamp_min(self._largest_step))
        displacement = self._smooth_field(step + compose(self.displacement, step))
        return _Composed(displacement, self._smooth_step, self._smooth_field, self._largest_step)
