"""Smoothing kernels as values: what makes a displacement grid smooth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np

from convexadam.errors import ConfigError


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
    """

    width: int = 3
    passes: int = 3

    def __post_init__(self) -> None:
        if self.width < 1 or self.width % 2 == 0:
            raise ConfigError(
                f"the width of a mean filter is odd and positive, but {self.width} came; "
                "an even one would shift the field"
            )
        if self.passes < 0:
            raise ConfigError(f"passes is 0 or more, but {self.passes} came")

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
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ConfigError(f"sigma is a positive number of nodes, but {self.sigma} came")

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
        Standard deviation in nodes; the nearest that whole widths allow.
    passes
        How many mean filters.

    Notes
    -----
    Kovesi, "Fast almost-Gaussian filtering", DICTA 2010.
    """

    sigma: float = 1.6
    passes: int = 4

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma > 0) or self.passes < 1:
            raise ConfigError(f"sigma and passes are positive, but {self.sigma} and {self.passes} came")

    def taps(self) -> tuple[float, ...]:
        """Weights along one axis, symmetric, with sum 1."""
        n = self.passes
        ideal = math.sqrt(12 * self.sigma**2 / n + 1)
        low = int(ideal) if int(ideal) % 2 else int(ideal) - 1
        count_low = round((12 * self.sigma**2 - n * low**2 - 4 * n * low - 3 * n) / (-4 * low - 4))
        return _boxes([low] * count_low + [low + 2] * (n - count_low))


Smoothing: TypeAlias = BoxSmoothing | GaussianSmoothing | KovesiSmoothing


def _boxes(widths: list[int]) -> tuple[float, ...]:
    taps = np.ones(1)
    for width in widths:
        taps = np.convolve(taps, np.full(width, 1 / width))
    return tuple(float(t) for t in taps)
