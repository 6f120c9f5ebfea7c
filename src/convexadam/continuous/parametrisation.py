"""How optimiser steps become a displacement: added up and smoothed, composed, or integrated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeAlias, final, runtime_checkable

import torch

from convexadam._axes import checked_number
from convexadam._typing import Field, Guide, Volume
from convexadam.continuous.smoothing import (
    FieldSmoothing,
    GaussianSmoothing,
    GuidedSmoother,
    Smoother,
    Smoothing,
    field_smoother,
)
from convexadam.errors import ConfigError
from convexadam.kernels.warp import add_step

_SQUARINGS = 6
"""Of a velocity: it is taken as constant over a 64th of the way."""


@runtime_checkable
class Descent(Protocol):
    """An optimiser that has a memory of gradients."""

    def descend(self, variable: Field, gradient: Field, *, accumulate: bool = True) -> None:
        """Move ``variable``, in place, by one step against the gradient; or replace it by the step alone."""
        ...


@runtime_checkable
class Motion(Protocol):
    """A displacement on its way from the start to the result."""

    @property
    def displacement(self) -> Field:
        """The current displacement ``[3, i, j, k]`` in nodes; the next step overwrites it."""
        ...

    @property
    def longest(self) -> float:
        """Longest step of a node, in nodes."""
        ...

    def move(self, gradient: Field, descent: Descent) -> None:
        """Take one step against the gradient with respect to the displacement, smoothed."""
        ...

    def tried(self, step: Field) -> Field:
        """Return the displacement after a step that is smooth already, whose memory it may take; `keep` keeps it."""
        ...

    def keep(self) -> None:
        """Take the step last tried."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Displacement:
    """The published form: ``u = B(p)``, and the optimiser moves ``p``. Smooth, but free to fold."""

    fold_free: ClassVar[bool] = False
    """Whether a registration unfolds what folds all the same."""

    def begin(
        self, start: Field, smoothing: Smoothing | None, evidence: Volume | None, guide: Guide | None = None
    ) -> Motion:
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

    field_smoothing: FieldSmoothing | None = field(default_factory=lambda: GaussianSmoothing(sigma=0.7))
    largest_step: float = 0.5

    def __post_init__(self) -> None:
        _check(self.field_smoothing, self.largest_step)

    def begin(
        self, start: Field, smoothing: Smoothing | None, evidence: Volume | None, guide: Guide | None = None
    ) -> Motion:
        """Start from the given displacement, in nodes."""
        # nodes without evidence take no steps of their own; smoothing and the regulariser carry them along
        start = start.clone(memory_format=torch.contiguous_format)
        whole = field_smoother(self.field_smoothing, start, guide)
        return _Composed(start, Smoother(smoothing, start), whole, self.largest_step)


@final
@dataclass(frozen=True, kw_only=True)
class StationaryVelocity:
    """One steady flow on top of the start: ``u = w + start o (id + w)``, ``w = exp(v)``, ``v <- G(v - B(step))``.

    ``exp`` follows the velocity ``v`` for a unit of time, by scaling and squaring: invertible however long the steps,
    where ``v`` is smooth. What folds all the same (the start may) is unfolded at the end of a registration.

    Attributes
    ----------
    field_smoothing
        ``G``, on the velocity after each step; ``None`` for none.
    largest_step
        Longest step of a node, in nodes.

    Raises
    ------
    ConfigError
        If ``largest_step`` is not positive, or ``field_smoothing`` no smoothing.

    Notes
    -----
    Arsigny, Commowick, Pennec, Ayache, "A log-Euclidean framework for statistics on diffeomorphisms", MICCAI 2006.
    The gradient with respect to ``u`` stands for that with respect to ``v``, as in Vercauteren, Pennec, Perchant,
    Ayache, "Symmetric log-domain diffeomorphic registration", MICCAI 2008.
    """

    fold_free: ClassVar[bool] = True
    """Whether a registration unfolds what folds all the same."""

    field_smoothing: FieldSmoothing | None = field(default_factory=lambda: GaussianSmoothing(sigma=0.7))
    largest_step: float = 0.5

    def __post_init__(self) -> None:
        _check(self.field_smoothing, self.largest_step)

    def begin(
        self, start: Field, smoothing: Smoothing | None, evidence: Volume | None, guide: Guide | None = None
    ) -> Motion:
        """Start from the given displacement, in nodes."""
        start = start.clone(memory_format=torch.contiguous_format)
        whole = field_smoother(self.field_smoothing, start, guide)
        return _Flowing(start, Smoother(smoothing, start), whole, self.largest_step)


_AnySmoother: TypeAlias = Smoother | GuidedSmoother
Parametrisation: TypeAlias = Displacement | Compositional | StationaryVelocity


def _check(field_smoothing: object, largest_step: float) -> None:
    checked_number(largest_step, "largest_step", above=True)
    if not isinstance(field_smoothing, FieldSmoothing | None):
        raise ConfigError(f"field_smoothing is a smoothing or None, but {field_smoothing!r} came")


class _Added:
    longest = float("inf")

    def __init__(self, parameters: Field, smooth: Smoother) -> None:
        self._parameters, self._smooth = parameters, smooth
        self._buffer = torch.empty_like(parameters)
        self.displacement = smooth(parameters, out=torch.empty_like(parameters))
        self._step: Field | None = None

    def move(self, gradient: Field, descent: Descent) -> None:
        descent.descend(self._parameters, self._smooth.adjoint(gradient, out=self._buffer))
        self.displacement = self._smooth(self._parameters, out=self.displacement)

    def tried(self, step: Field) -> Field:
        self._step = step
        return self._smooth(self._parameters + step, out=self._buffer)

    def keep(self) -> None:
        if self._step is not None:
            self._parameters += self._step
            self.displacement, self._buffer = self._buffer, self.displacement


class _Composed:
    def __init__(self, displacement: Field, smooth_step: Smoother, smooth_field: _AnySmoother, longest: float) -> None:
        self.displacement, self.longest = displacement, longest
        self._smooth_step, self._smooth_field = smooth_step, smooth_field
        self._moved: Field | None = None
        self._buffers: tuple[Field, Field] | None = None

    def move(self, gradient: Field, descent: Descent) -> None:
        if self._buffers is None:
            self._buffers = torch.empty_like(self.displacement), torch.empty_like(self.displacement)
        rough, smooth = self._buffers
        descent.descend(rough, gradient, accumulate=False)
        self.tried(self._smooth_step(rough, out=smooth))
        self.keep()

    def tried(self, step: Field) -> Field:
        self._moved = add_step(self.displacement, step, longest=self.longest, out=step)
        return self._moved

    def keep(self) -> None:
        if self._moved is not None:
            self.displacement = self._smooth_field(self._moved, out=self.displacement)


class _Flowing:
    def __init__(self, start: Field, smooth_step: Smoother, smooth_field: _AnySmoother, longest: float) -> None:
        self.displacement, self.longest = start.clone(), longest
        self._start, self._velocity = start, torch.zeros_like(start)
        self._smooth_step, self._smooth_field = smooth_step, smooth_field
        self._step, self._buffer, self._moved = (torch.empty_like(start) for _ in range(3))

    def move(self, gradient: Field, descent: Descent) -> None:
        descent.descend(self._step, gradient, accumulate=False)
        self._add(self._smooth_step(self._step, out=self._buffer))
        self.keep()

    def tried(self, step: Field) -> Field:
        self._add(step)
        self._moved = self._followed(self._step)
        return self._moved

    def keep(self) -> None:
        self._velocity = self._smooth_field(self._step, out=self._velocity)
        self.displacement.copy_(self._followed(self._velocity))  # a recorded step reads where it has written

    def _add(self, step: Field) -> None:
        length = step.square().sum(0, keepdim=True).sqrt_()
        self._step = torch.addcdiv(self._velocity, step, (length / self.longest).clamp_min_(1), out=self._step)

    def _followed(self, velocity: Field) -> Field:
        flow = velocity / 2**_SQUARINGS
        for _ in range(_SQUARINGS):
            flow = add_step(flow, flow)
        return add_step(self._start, flow)
