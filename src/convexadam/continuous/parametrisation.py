"""How optimiser steps become a displacement: added up and smoothed, or composed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeAlias, final, runtime_checkable

import torch

from convexadam._axes import checked_number
from convexadam._typing import Field, Volume
from convexadam.continuous.adam import Adam
from convexadam.continuous.smoothing import GaussianSmoothing, Smoother, Smoothing
from convexadam.errors import ConfigError
from convexadam.kernels.warp import add_step


@runtime_checkable
class Motion(Protocol):
    """A displacement on its way from the start to the result."""

    @property
    def displacement(self) -> Field:
        """The current displacement ``[3, i, j, k]`` in nodes; the next step overwrites it."""
        ...

    def move(self, gradient: Field, adam: Adam) -> None:
        """Take one step against the gradient with respect to the displacement."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Displacement:
    """The published form: ``u = B(p)``, and Adam moves ``p``. Smooth, but free to fold."""

    fold_free: ClassVar[bool] = False
    """Whether a registration unfolds what folds all the same."""

    def begin(self, start: Field, smoothing: Smoothing | None, evidence: Volume | None) -> Motion:
        """Start with ``p`` equal to the given displacement, in nodes."""
        return _Added(start.clone(memory_format=torch.contiguous_format), Smoother(smoothing, start, evidence))


@final
@dataclass(frozen=True, kw_only=True)
class Compositional:
    """Small smooth steps composed: ``u <- G(v + u o (id + v))`` with ``v = -B(step)``, ``|v| <= largest_step``.

    Each factor is invertible as long as its steps are short and smooth, and so is their composition: fields hardly
    fold, and what folds all the same is unfolded at the end of a registration. ``G`` acts as an elastic regulariser,
    ``B`` as a fluid one.

    Attributes
    ----------
    field_smoothing
        ``G``, on the whole field after each step; ``None`` for none.
    largest_step
        Longest step of a node, in nodes.

    Raises
    ------
    ConfigError
        If ``largest_step`` is not positive, or ``field_smoothing`` no smoothing.
    """

    fold_free: ClassVar[bool] = True
    """Whether a registration unfolds what folds all the same."""

    field_smoothing: Smoothing | None = field(default_factory=lambda: GaussianSmoothing(sigma=0.7))
    largest_step: float = 0.5

    def __post_init__(self) -> None:
        checked_number(self.largest_step, "largest_step", above=True)
        if not isinstance(self.field_smoothing, Smoothing | None):
            raise ConfigError(f"field_smoothing is a smoothing or None, but {self.field_smoothing!r} came")

    def begin(self, start: Field, smoothing: Smoothing | None, evidence: Volume | None) -> Motion:
        """Start from the given displacement, in nodes."""
        # nodes without evidence take no steps of their own; smoothing and the regulariser carry them along
        start = start.clone(memory_format=torch.contiguous_format)
        return _Composed(start, Smoother(smoothing, start), Smoother(self.field_smoothing, start), self.largest_step)


Parametrisation: TypeAlias = Displacement | Compositional


class _Added:
    def __init__(self, parameters: Field, smooth: Smoother) -> None:
        self._parameters, self._smooth = parameters, smooth
        self._buffer = torch.empty_like(parameters)
        self.displacement = smooth(parameters, out=torch.empty_like(parameters))

    def move(self, gradient: Field, adam: Adam) -> None:
        adam.descend(self._parameters, self._smooth.adjoint(gradient, out=self._buffer))
        self.displacement = self._smooth(self._parameters, out=self.displacement)


class _Composed:
    def __init__(self, displacement: Field, smooth_step: Smoother, smooth_field: Smoother, largest_step: float) -> None:
        self.displacement = displacement
        self._smooth_step, self._smooth_field, self._largest_step = smooth_step, smooth_field, largest_step
        self._step, self._buffer = torch.empty_like(displacement), torch.empty_like(displacement)

    def move(self, gradient: Field, adam: Adam) -> None:
        adam.descend(self._step, gradient, accumulate=False)
        step = self._smooth_step(self._step, out=self._buffer)
        moved = add_step(self.displacement, step, longest=self._largest_step, out=self._step)
        self.displacement = self._smooth_field(moved, out=self.displacement)
