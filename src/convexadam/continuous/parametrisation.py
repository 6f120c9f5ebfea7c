"""How the updates of an optimiser become a displacement: added up and smoothed, composed, or integrated."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeAlias, final

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_component, check_number
from convexadam._typing import Field, Guide, Shaped, Tensor, Volume
from convexadam.continuous.protocols import DisplacementState, HasTotalSmoothing, Parametrisation, UpdateRule
from convexadam.continuous.smoothing import (
    AdaptiveSmoother,
    GaussianSmoothing,
    GuidedSmoother,
    Smoother,
    Smoothing,
    TotalSmoothing,
    make_total_smoother,
)
from convexadam.kernels.warp import add_step

_SQUARINGS = 6
"""Scaling and squaring treats a velocity as constant over a 64th of the unit of time."""


@final
@dataclass(frozen=True, kw_only=True)
class Additive:
    """The published form: ``u = B(p)``, and the optimiser updates ``p``. Smooth, but free to fold.

    Examples
    --------
    >>> from convexadam.continuous import Additive, Refinement
    >>> Refinement(parametrisation=Additive()).parametrisation
    Additive()
    """

    fold_free: ClassVar[bool] = False
    """Whether `register` repairs what folds in the end."""

    memory_fields: ClassVar[int] = 7
    """See `convexadam.continuous.HasMemory`."""

    @check_arguments
    def initialise(
        self, start: Field, smoothing: Smoothing | None, weight: Volume | None, guide: Guide | None = None
    ) -> DisplacementState:
        """Begin with ``p`` equal to the given displacement; see `convexadam.continuous.Parametrisation`."""
        return _AdditiveState(start.clone(memory_format=torch.contiguous_format), Smoother(smoothing, start, weight))


@final
@dataclass(frozen=True, kw_only=True)
class Compositional:
    """Composition of small smooth updates: ``u <- G(v + u o (id + v))`` with ``v = -B(step)``, ``|v| <= max_step``.

    Each factor is invertible if its updates are short and smooth, and so is their composition: fields hardly fold, and
    `register` repairs the rest. ``G`` acts as an elastic regulariser, ``B`` as a fluid one.

    Attributes
    ----------
    total_smoothing
        ``G``, of the whole field after each update; ``None`` for none.
    max_step
        Longest update of a control point, in control points.

    Raises
    ------
    ConfigError
        If ``max_step`` is not positive, or ``total_smoothing`` is no smoothing.

    Examples
    --------
    >>> from convexadam.continuous import Compositional, GaussianSmoothing
    >>> Compositional(total_smoothing=GaussianSmoothing(sigma=0.8)).total_smoothing
    GaussianSmoothing(sigma=0.8)
    """

    fold_free: ClassVar[bool] = True
    """Whether `register` repairs what folds in the end."""

    memory_fields: ClassVar[int] = 8
    """See `convexadam.continuous.HasMemory`."""

    total_smoothing: TotalSmoothing | None = field(default_factory=lambda: GaussianSmoothing(sigma=0.7))
    max_step: float = 0.5

    def __post_init__(self) -> None:
        check_number(self.max_step, "max_step", above=True)
        check_component(self.total_smoothing, TotalSmoothing | None, "total_smoothing")

    @check_arguments
    def with_total_smoothing(self, smoothing: TotalSmoothing) -> Compositional:
        """Return the same with another smoothing of the whole field."""
        return replace(self, total_smoothing=smoothing)

    @check_arguments
    def initialise(
        self, start: Field, smoothing: Smoothing | None, weight: Volume | None, guide: Guide | None = None
    ) -> DisplacementState:
        """Begin with the given displacement; see `convexadam.continuous.Parametrisation`.

        The weight is not used: control points without weight have no gradient, and smoothing carries them along.
        """
        start = start.clone(memory_format=torch.contiguous_format)
        smooth_total = make_total_smoother(self.total_smoothing, start, guide)
        return _CompositionalState(start, Smoother(smoothing, start), smooth_total, self.max_step)


@final
@dataclass(frozen=True, kw_only=True)
class StationaryVelocity:
    """A stationary velocity on top of the start: ``u = w + start o (id + w)``, ``w = exp(v)``, ``v <- G(v - B(step))``.

    ``exp`` integrates the velocity ``v`` over a unit of time by scaling and squaring, so that ``w`` is invertible for
    updates of any length if ``v`` is smooth. The start may fold, and `register` repairs what folds in the end.

    Attributes
    ----------
    total_smoothing
        ``G``, of the velocity after each update; ``None`` for none.
    max_step
        Longest update of a control point, in control points.

    Raises
    ------
    ConfigError
        If ``max_step`` is not positive, or ``total_smoothing`` is no smoothing.

    Notes
    -----
    Arsigny, Commowick, Pennec, Ayache, "A log-Euclidean framework for statistics on diffeomorphisms", MICCAI 2006.
    The gradient with respect to ``u`` approximates that with respect to ``v``, as in Vercauteren, Pennec, Perchant,
    Ayache, "Symmetric log-domain diffeomorphic registration", MICCAI 2008.

    Examples
    --------
    >>> from convexadam.continuous import Refinement, StationaryVelocity
    >>> Refinement(parametrisation=StationaryVelocity()).parametrisation.fold_free
    True
    """

    fold_free: ClassVar[bool] = True
    """Whether `register` repairs what folds in the end."""

    memory_fields: ClassVar[int] = 12
    """See `convexadam.continuous.HasMemory`."""

    total_smoothing: TotalSmoothing | None = field(default_factory=lambda: GaussianSmoothing(sigma=0.7))
    max_step: float = 0.5

    def __post_init__(self) -> None:
        check_number(self.max_step, "max_step", above=True)
        check_component(self.total_smoothing, TotalSmoothing | None, "total_smoothing")

    @check_arguments
    def with_total_smoothing(self, smoothing: TotalSmoothing) -> StationaryVelocity:
        """Return the same with another smoothing of the velocity."""
        return replace(self, total_smoothing=smoothing)

    @check_arguments
    def initialise(
        self, start: Field, smoothing: Smoothing | None, weight: Volume | None, guide: Guide | None = None
    ) -> DisplacementState:
        """Begin with the given displacement and zero velocity; see `convexadam.continuous.Parametrisation`."""
        start = start.clone(memory_format=torch.contiguous_format)
        smooth_total = make_total_smoother(self.total_smoothing, start, guide)
        return _VelocityState(start, Smoother(smoothing, start), smooth_total, self.max_step)


def total_smoothing_of(model: Parametrisation) -> TotalSmoothing | None:
    """Return how a parametrisation smooths the whole field after each step; ``None`` if it does not."""
    return model.total_smoothing if isinstance(model, HasTotalSmoothing) else None


_AnySmoother: TypeAlias = Smoother | GuidedSmoother | AdaptiveSmoother

Condition: TypeAlias = Shaped[Tensor, ""] | None
"""Truth value on the device, which the host does not wait for if that is a GPU; ``None`` for true."""


def _is_refused(condition: Condition) -> bool:
    """Whether a condition is known not to hold; of one on a GPU the host knows nothing."""
    return condition is not None and not condition.is_cuda and not condition


class _AdditiveState:
    longest = float("inf")

    def __init__(self, parameters: Field, smooth: Smoother) -> None:
        self._parameters, self._smooth = parameters, smooth
        self._buffer = torch.empty_like(parameters)
        self.displacement = smooth(parameters, out=torch.empty_like(parameters))
        self._step: Field | None = None

    def move(self, gradient: Field, rule: UpdateRule) -> None:
        rule.update(self._parameters, self._smooth.adjoint(gradient, out=self._buffer))
        self.displacement = self._smooth(self._parameters, out=self.displacement)

    def propose(self, step: Field) -> Field:
        self._step = step
        return self._smooth(self._parameters + step, out=self._buffer)

    def accept(self, condition: Condition = None) -> None:
        if self._step is None or _is_refused(condition):
            return
        if condition is not None and condition.is_cuda:  # in place, as a recorded step has to
            self._parameters += self._step.where(condition, 0.0)
            torch.where(condition, self._buffer, self.displacement, out=self.displacement)
        else:
            self._parameters += self._step
            self.displacement, self._buffer = self._buffer, self.displacement


class _CompositionalState:
    def __init__(
        self, displacement: Field, smooth_update: Smoother, smooth_total: _AnySmoother, longest: float
    ) -> None:
        self.displacement, self.longest = displacement, longest
        self._smooth_update, self._smooth_total = smooth_update, smooth_total
        self._proposal: Field | None = None
        self._buffers: tuple[Field, Field] | None = None

    def move(self, gradient: Field, rule: UpdateRule) -> None:
        if self._buffers is None:  # second-order optimisers never need them
            self._buffers = torch.empty_like(self.displacement), torch.empty_like(self.displacement)
        raw, smooth = self._buffers
        rule.update(raw, gradient, accumulate=False)
        self.propose(self._smooth_update(raw, out=smooth))
        self.accept()

    def propose(self, step: Field) -> Field:
        self._proposal = add_step(self.displacement, step, longest=self.longest, out=step)
        return self._proposal

    def accept(self, condition: Condition = None) -> None:
        if self._proposal is not None:
            self.displacement = self._smooth_total(self._proposal, out=self.displacement, condition=condition)


class _VelocityState:
    def __init__(self, start: Field, smooth_update: Smoother, smooth_total: _AnySmoother, longest: float) -> None:
        self.displacement, self.longest = start.clone(), longest
        self._start, self._velocity = start, torch.zeros_like(start)
        self._smooth_update, self._smooth_total = smooth_update, smooth_total
        self._new_velocity, self._buffer, self._proposal = (torch.empty_like(start) for _ in range(3))

    def move(self, gradient: Field, rule: UpdateRule) -> None:
        rule.update(self._new_velocity, gradient, accumulate=False)
        self._add(self._smooth_update(self._new_velocity, out=self._buffer))
        self.accept()

    def propose(self, step: Field) -> Field:
        self._add(step)
        self._proposal = self._integrate(self._new_velocity)
        return self._proposal

    def accept(self, condition: Condition = None) -> None:
        if _is_refused(condition):
            return
        self._velocity = self._smooth_total(self._new_velocity, out=self._velocity, condition=condition)
        # a recorded step reads where it has written
        self.displacement = self._integrate(self._velocity, out=self.displacement)

    def _add(self, step: Field) -> None:
        length = step.square().sum(0, keepdim=True).sqrt_()
        scale = (length / self.longest).clamp_min_(1)
        self._new_velocity = torch.addcdiv(self._velocity, step, scale, out=self._new_velocity)

    def _integrate(self, velocity: Field, *, out: Field | None = None) -> Field:
        flow = velocity / 2**_SQUARINGS
        for _ in range(_SQUARINGS):
            flow = add_step(flow, flow)
        return add_step(self._start, flow, out=out)
