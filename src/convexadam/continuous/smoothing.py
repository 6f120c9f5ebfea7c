"""Smoothing kernels as values: what makes a displacement grid smooth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch

from convexadam._axes import checked_count, checked_number
from convexadam._typing import Field, Volume
from convexadam.errors import ConfigError
from convexadam.kernels.smooth import smooth


@final
@dataclass(frozen=True, kw_only=True)
class BoxSmoothing:
    """Mean filters in a row; three of width 3 are close to a cubic B-spline with one knot for each node.

    Attributes
    ----------
    width
        Odd width of one mean filter, in nodes (voxels, for a final smoothing).
    passes
        How many in a row; 0 leaves the field as it is.

    Raises
    ------
    ConfigError
        If the width is no odd whole number of at least 1, or ``passes`` no whole number of at least 0.
    """

    width: int = 3
    passes: int = 3

    def __post_init__(self) -> None:
        checked_count(self.width, "width", least=1)
        checked_count(self.passes, "passes")
        if self.width % 2 == 0:
            raise ConfigError(
                f"the width of a mean filter is odd, but {self.width} came; an even one would shift the field"
            )

    def taps(self) -> tuple[float, ...]:
        """Weights along one axis, symmetric, with sum 1."""
        return _boxes([self.width] * self.passes)


@final
@dataclass(frozen=True, kw_only=True)
class GaussianSmoothing:
    """A Gaussian, cut off at four standard deviations.

    Attributes
    ----------
    sigma
        Standard deviation in nodes (voxels, for a final smoothing).

    Raises
    ------
    ConfigError
        If ``sigma`` is no positive number.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        checked_number(self.sigma, "sigma", above=True)

    def taps(self) -> tuple[float, ...]:
        """Weights along one axis, symmetric, with sum 1."""
        half = max(1, math.ceil(4 * self.sigma))
        weights = np.exp(-0.5 * (np.arange(-half, half + 1) / self.sigma) ** 2)
        return tuple(float(w) for w in weights / weights.sum())


@final
@dataclass(frozen=True, kw_only=True)
class KovesiSmoothing:
    """A Gaussian approximated by mean filters of two odd widths.

    Attributes
    ----------
    sigma
        Standard deviation in nodes; the nearest that whole widths allow (none at all below 0.577 node).
    passes
        How many mean filters.

    Raises
    ------
    ConfigError
        If ``sigma`` is no positive number, or ``passes`` no whole number of at least 1.

    Notes
    -----
    Kovesi, "Fast almost-Gaussian filtering", DICTA 2010.
    """

    sigma: float = 1.6
    passes: int = 4

    def __post_init__(self) -> None:
        checked_number(self.sigma, "sigma", above=True)
        checked_count(self.passes, "passes", least=1)

    def taps(self) -> tuple[float, ...]:
        """Weights along one axis, symmetric, with sum 1."""
        n = self.passes
        ideal = math.sqrt(12 * self.sigma**2 / n + 1)
        low = int(ideal) if int(ideal) % 2 else int(ideal) - 1
        count_low = round((12 * self.sigma**2 - n * low**2 - 4 * n * low - 3 * n) / (-4 * low - 4))
        return _boxes([low] * count_low + [low + 2] * (n - count_low))


Smoothing: TypeAlias = BoxSmoothing | GaussianSmoothing | KovesiSmoothing

_LEAST_EVIDENCE = 1e-3
"""Share of its weight that a node without evidence keeps, so that far from all evidence there is still a mean."""


@final
class Smoother:
    """A smoothing as a linear map on fields of one shape: ``x -> K(w x) / K(w)`` with the evidence ``w`` of each node.

    Nodes without evidence follow those around them that have some, instead of the other way round.
    """

    def __init__(self, smoothing: Smoothing | None, like: Field, evidence: Volume | None = None) -> None:
        self._taps = None if smoothing is None else smoothing.taps()
        if self._taps is not None:
            self._weight = None if evidence is None else evidence.clamp_min(_LEAST_EVIDENCE)
            known = torch.ones_like(like[0]) if self._weight is None else self._weight
            self._mean = smooth(known[None], self._taps)[0].reciprocal_()

    def __call__(self, field: Field, *, out: Field | None = None) -> Field:
        """Smooth a field ``[3, i, j, k]``; into ``out`` where that is given."""
        if self._taps is None:
            return field if out is None else out.copy_(field)
        return smooth(field, self._taps, before=self._weight, after=self._mean, out=out)

    def adjoint(self, field: Field, *, out: Field | None = None) -> Field:
        """Apply the transposed map, which carries gradients back."""
        if self._taps is None:
            return field if out is None else out.copy_(field)
        return smooth(field, self._taps, before=self._mean, after=self._weight, out=out)


def _boxes(widths: list[int]) -> tuple[float, ...]:
    taps = np.ones(1)
    for width in widths:
        taps = np.convolve(taps, np.full(width, 1 / width))
    return tuple(float(t) for t in taps)
