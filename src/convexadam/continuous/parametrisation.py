"""How optimiser steps become a displacement: added up and smoothed, or composed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, final, runtime_checkable

import torch

from convexadam._typing import Field, Tensor
from convexadam.continuous.smoothing import GaussianSmoothing, Smoothing
from convexadam.errors import ConfigError
from convexadam.kernels.smooth import along_axes, smoothing_matrix
from convexadam.kernels.warp import compose

Matrices: TypeAlias = tuple[Tensor, Tensor, Tensor]


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

    def begin(self, start: Field, smoothing: Smoothing | None) -> Motion:
        """Start with ``p`` equal to the given displacement, in nodes."""
        forward = None if smoothing is None else smoothing_matrices(smoothing, start)
        return _Added(start, forward)


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
        if not (math.isfinite(self.largest_step) and self.largest_step > 0):
            raise ConfigError(f"largest_step is a positive number of nodes, but {self.largest_step} came")

    def begin(self, start: Field, smoothing: Smoothing | None) -> Motion:
        """Start from the given displacement, in nodes."""
        update = None if smoothing is None else smoothing_matrices(smoothing, start)
        whole = None if self.field_smoothing is None else smoothing_matrices(self.field_smoothing, start)
        return _Composed(start, update, whole, self.largest_step)


Parametrisation: TypeAlias = Displacement | Compositional


def smoothing_matrices(smoothing: Smoothing, like: Field) -> Matrices:
    """One matrix for each axis of ``[c, i, j, k]``."""
    i, j, k = (smoothing_matrix(smoothing.taps(), n, like=like) for n in like.shape[1:])
    return i, j, k


class _Added:
    def __init__(self, parameters: Field, forward: Matrices | None) -> None:
        self._parameters, self._forward = parameters, forward
        self.displacement = parameters if forward is None else along_axes(parameters, forward)

    def gradient(self, by_displacement: Field) -> Field:
        if self._forward is None:
            return by_displacement
        i, j, k = self._forward
        return along_axes(by_displacement, (i.T, j.T, k.T))

    def moved(self, direction: Field) -> _Added:
        return _Added(self._parameters - direction, self._forward)


class _Composed:
    def __init__(
        self, displacement: Field, update: Matrices | None, whole: Matrices | None, largest_step: float
    ) -> None:
        self.displacement = displacement
        self._update, self._whole, self._largest_step = update, whole, largest_step

    def gradient(self, by_displacement: Field) -> Field:
        return by_displacement

    def moved(self, direction: Field) -> _Composed:
        step = -direction if self._update is None else along_axes(direction.neg(), self._update)
        step *= self._largest_step / torch.linalg.vector_norm(step, dim=0).clamp_min(self._largest_step)
        displacement = step + compose(self.displacement, step)
        if self._whole is not None:
            displacement = along_axes(displacement, self._whole)
        return _Composed(displacement, self._update, self._whole, self._largest_step)
