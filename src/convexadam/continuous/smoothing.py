"""Smoothing kernels as values: what makes a displacement grid smooth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, final

import numpy as np
import torch

from convexadam._axes import checked_count, checked_number
from convexadam._typing import Field, Guide, Volume
from convexadam.errors import ConfigError, InputError
from convexadam.kernels.bilateral import bilateral
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


@final
@dataclass(frozen=True, kw_only=True)
class BilateralSmoothing:
    """A mean that stops at edges of a guide, so that organs may slide along each other: for whole fields.

    ``k(x, y) = exp(-|x - y|^2 / 2 sigma^2 - |g(x) - g(y)|^2 / 2 sigma_guide^2 - |u(x) - u(y)|^2 / 2 sigma_field^2)`` is
    the weight of node ``y`` at ``x``, up to ``2 sigma`` away along each axis, with the guide ``g``: the intensities of
    the image, or regions (see `register`). Where there is no edge it is about as smooth as `GaussianSmoothing`.

    Attributes
    ----------
    sigma
        Standard deviation in nodes.
    sigma_guide
        Difference of the guide that hardly stops the mean any more, in its units: of a registration, shares of the
        range of the image's intensities.
    sigma_field
        The same for displacements, in nodes: motion that differs by more stays different. ``None`` leaves this out.

    Raises
    ------
    ConfigError
        If one of them is no positive number.

    Notes
    -----
    Papiez, Heinrich, Fehrenbach, Risser, Schnabel, "An implicit sliding-motion preserving regularisation via bilateral
    filtering for deformable image registration", Medical Image Analysis 2014.
    """

    sigma: float = 0.8
    sigma_guide: float = 0.05
    sigma_field: float | None = None

    def __post_init__(self) -> None:
        for name in ("sigma", "sigma_guide", "sigma_field"):
            if getattr(self, name) is not None or name != "sigma_field":
                checked_number(getattr(self, name), name, above=True)


Smoothing: TypeAlias = BoxSmoothing | GaussianSmoothing | KovesiSmoothing
FieldSmoothing: TypeAlias = Smoothing | BilateralSmoothing

_LEAST_EVIDENCE = 1e-3
"""Share of its weight that a node without evidence keeps, so that far from all evidence there is still a mean."""


@final
class Smoother:
    """A smoothing as a linear map on fields of one shape: ``x -> K(w x) / K(w)`` with the evidence ``w`` of each node.

    Nodes without evidence follow those around them that have some, instead of the other way round.
    """

    def __init__(self, smoothing: Smoothing | None, like: Field, evidence: Volume | None = None) -> None:
        self._taps = () if smoothing is None else smoothing.taps()
        self._weight = None if evidence is None else evidence.clamp_min(_LEAST_EVIDENCE)
        self._like = like[0]

    @cached_property
    def _mean(self) -> Volume:
        known = torch.ones_like(self._like) if self._weight is None else self._weight
        return smooth(known[None], self._taps)[0].reciprocal_()

    def __call__(self, field: Field, *, out: Field | None = None) -> Field:
        """Smooth a field ``[3, i, j, k]``; into ``out`` where that is given."""
        if not self._taps:
            return field if out is None else out.copy_(field)
        return smooth(field, self._taps, before=self._weight, after=self._mean, out=out)

    def adjoint(self, field: Field, *, out: Field | None = None) -> Field:
        """Apply the transposed map, which carries gradients back."""
        if not self._taps:
            return field if out is None else out.copy_(field)
        return smooth(field, self._taps, before=self._mean, after=self._weight, out=out)


@final
class GuidedSmoother:
    """A `BilateralSmoothing` of fields of one shape; no linear map where it minds the field, so without adjoint."""

    def __init__(self, smoothing: BilateralSmoothing, guide: Guide) -> None:
        self._smoothing, self._guide = smoothing, guide
        self._radius = math.ceil(2 * smoothing.sigma)

    def __call__(self, field: Field, *, out: Field | None = None) -> Field:
        """Smooth a field ``[3, i, j, k]``; into ``out`` where that is given."""
        how = self._smoothing
        return bilateral(
            field,
            self._guide,
            sigma_nodes=how.sigma,
            sigma_guide=how.sigma_guide,
            sigma_field=how.sigma_field,
            radius=self._radius,
            out=out,
        )


def field_smoother(
    smoothing: FieldSmoothing | None, like: Field, guide: Guide | None = None
) -> Smoother | GuidedSmoother:
    """Return a smoothing as a map on fields shaped ``like`` one.

    Raises
    ------
    InputError
        If a `BilateralSmoothing` has no guide ``[c, i, j, k]`` on the same nodes.
    """
    if not isinstance(smoothing, BilateralSmoothing):
        return Smoother(smoothing, like)
    if guide is None or guide.shape[1:] != like.shape[1:]:
        came = "none" if guide is None else f"one of shape {tuple(guide.shape)}"
        raise InputError(
            f"a BilateralSmoothing needs a guide with edges on {tuple(like.shape[1:])} nodes, but {came} came; "
            "pass the intensities there as guide="
        )
    return GuidedSmoother(smoothing, guide.to(like).contiguous())


def _boxes(widths: list[int]) -> tuple[float, ...]:
    taps = np.ones(1)
    for width in widths:
        taps = np.convolve(taps, np.full(width, 1 / width))
    return tuple(float(t) for t in taps)
