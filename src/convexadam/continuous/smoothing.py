"""Smoothing kernels as values: what makes a displacement grid smooth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias, final, runtime_checkable

import numpy as np
import torch

from convexadam._checks import check_count, check_number
from convexadam._typing import Field, Guide, Shaped, Tensor, Volume
from convexadam.errors import ConfigError, InputError
from convexadam.kernels.bilateral import bilateral
from convexadam.kernels.smooth import smooth

_MOST_SIGMA = 1000.0
"""Standard deviation in control points, far beyond the size of any volume."""

_MOST_TAPS = 10_000
"""Width of a kernel in control points."""

_MOST_PASSES = 1000


@runtime_checkable
class Smoothing(Protocol):
    """A separable smoothing, the same along each axis."""

    def taps(self) -> tuple[float, ...]:
        """Weights along one axis: an odd number of them, symmetric, with sum 1."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class BoxSmoothing:
    """Repeated mean filters; three of width 3 approximate a cubic B-spline with one knot per control point.

    Attributes
    ----------
    width
        Odd width of one mean filter, in control points (in voxels for a final smoothing).
    passes
        Number of repetitions; 0 leaves the field unchanged.

    Raises
    ------
    ConfigError
        If the width is not an odd whole number of at least 1, or ``passes`` not a whole number of at least 0.

    Examples
    --------
    >>> from convexadam.continuous import BoxSmoothing
    >>> [round(27 * tap) for tap in BoxSmoothing(width=3, passes=3).taps()]
    [1, 3, 6, 7, 6, 3, 1]
    """

    width: int = 3
    passes: int = 3

    def __post_init__(self) -> None:
        check_count(self.width, "width", least=1, most=_MOST_TAPS)
        check_count(self.passes, "passes", most=_MOST_PASSES)
        if self.width % 2 == 0:
            raise ConfigError(f"width must be odd, got {self.width}; a mean filter of even width would shift the field")
        if (self.width - 1) * self.passes >= _MOST_TAPS:
            raise ConfigError(
                f"width and passes must give a kernel of less than {_MOST_TAPS} control points, got {self.width} and "
                f"{self.passes}; lower one of them"
            )

    def taps(self) -> tuple[float, ...]:
        """Weights along one axis, symmetric, with sum 1."""
        return _convolve_boxes([self.width] * self.passes)


@final
@dataclass(frozen=True, kw_only=True)
class GaussianSmoothing:
    """A Gaussian, truncated at four standard deviations.

    Attributes
    ----------
    sigma
        Standard deviation in control points (in voxels for a final smoothing).

    Raises
    ------
    ConfigError
        If ``sigma`` is not positive.

    Examples
    --------
    >>> from convexadam.continuous import GaussianSmoothing
    >>> taps = GaussianSmoothing(sigma=1.0).taps()
    >>> round(taps[len(taps) // 2], 3)  # 1 / sqrt(2 pi)
    0.399
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        check_number(self.sigma, "sigma", above=True, most=_MOST_SIGMA)

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
        Standard deviation in control points; the nearest that odd widths allow (no smoothing below 0.577).
    passes
        Number of mean filters.

    Raises
    ------
    ConfigError
        If ``sigma`` is not positive, or ``passes`` not a whole number of at least 1.

    Notes
    -----
    Kovesi, "Fast almost-Gaussian filtering", DICTA 2010.

    Examples
    --------
    >>> from convexadam.continuous import KovesiSmoothing
    >>> taps = KovesiSmoothing(sigma=1.6, passes=4).taps()
    >>> round(sum(taps), 6)
    1.0
    """

    sigma: float = 1.6
    passes: int = 4

    def __post_init__(self) -> None:
        check_number(self.sigma, "sigma", above=True, most=_MOST_SIGMA)
        check_count(self.passes, "passes", least=1, most=_MOST_PASSES)

    def taps(self) -> tuple[float, ...]:
        """Weights along one axis, symmetric, with sum 1."""
        n = self.passes
        ideal = math.sqrt(12 * self.sigma**2 / n + 1)
        low = int(ideal) if int(ideal) % 2 else int(ideal) - 1
        count_low = round((12 * self.sigma**2 - n * low**2 - 4 * n * low - 3 * n) / (-4 * low - 4))
        return _convolve_boxes([low] * count_low + [low + 2] * (n - count_low))


@final
@dataclass(frozen=True, kw_only=True)
class BilateralSmoothing:
    """An edge-preserving mean of the whole field, so that organs can slide along each other.

    ``k(x, y) = exp(-|x - y|^2 / 2 sigma^2 - |g(x) - g(y)|^2 / 2 sigma_guide^2 - |u(x) - u(y)|^2 / 2 sigma_field^2)`` is
    the weight of control point ``y`` at ``x``, up to ``2 sigma`` away along each axis, with the guide ``g``: the
    intensities of the image, or ``sliding_regions`` (see `register`). Without edges it is about as smooth as
    `GaussianSmoothing`.

    Attributes
    ----------
    sigma
        Standard deviation in control points.
    sigma_guide
        Standard deviation in the range of the guide; in a registration in units of the intensity range of the image.
    sigma_field
        Standard deviation in the range of the displacement, in control points: motions that differ by more are not
        averaged. ``None`` omits this term.

    Raises
    ------
    ConfigError
        If one of them is not positive.

    Notes
    -----
    Papiez, Heinrich, Fehrenbach, Risser, Schnabel, "An implicit sliding-motion preserving regularisation via bilateral
    filtering for deformable image registration", Medical Image Analysis 2014.

    Examples
    --------
    >>> from convexadam.continuous import BilateralSmoothing, Compositional
    >>> Compositional(total_smoothing=BilateralSmoothing(sigma=0.8, sigma_guide=0.05)).total_smoothing.sigma
    0.8
    """

    sigma: float = 0.8
    sigma_guide: float = 0.05
    sigma_field: float | None = None

    def __post_init__(self) -> None:
        for name in ("sigma", "sigma_guide", "sigma_field"):
            if getattr(self, name) is not None or name != "sigma_field":
                check_number(getattr(self, name), name, above=True)


@final
@dataclass(frozen=True, kw_only=True)
class AdaptiveSmoothing:
    """A Gaussian mean of the whole field that spares control points where the images say how they move.

    ``u <- c u + (1 - c) K(c u) / K(c)``, with the Gaussian ``K`` and the confidence ``c = h / (h + curvature)``, for
    the curvature ``h`` of the similarity at each control point at the beginning of the level. Edges and textures keep
    their displacement, and what lies between them follows them, rather than the other way round. Which images gain by
    it is in the documentation (accuracy): most of one contrast, and none of two.

    Attributes
    ----------
    sigma
        Standard deviation in control points.
    curvature
        That of control points whose confidence is 0.5, in the unit of the similarity summed over the control points:
        for squared differences, two thirds of the squared slope of all channels. With `JointSsd` its mean is about a
        third of the sum of the weights, whatever the features; other similarities need another value.

    Raises
    ------
    ConfigError
        If one of them is not positive.

    Notes
    -----
    The mean is the normalised convolution of Knutsson, Westin, "Normalized and differential convolution", CVPR 1993.

    Examples
    --------
    >>> from convexadam.continuous import AdaptiveSmoothing, Compositional
    >>> Compositional(total_smoothing=AdaptiveSmoothing(sigma=0.9, curvature=2.0)).total_smoothing.sigma
    0.9
    """

    sigma: float = 0.9
    curvature: float = 2.0

    def __post_init__(self) -> None:
        check_number(self.sigma, "sigma", above=True, most=_MOST_SIGMA)
        check_number(self.curvature, "curvature", above=True)


TotalSmoothing: TypeAlias = Smoothing | BilateralSmoothing | AdaptiveSmoothing

_LEAST_CONFIDENCE = 0.02
"""Of control points without contrast, so that those far from all others have a mean too."""

_MIN_WEIGHT = 1e-3
"""Control points without weight keep this much, so that the mean is defined far from all others too."""


@final
class Smoother:
    """A smoothing as a linear map on fields of one shape: ``x -> K(w x) / K(w)`` with the weight ``w``.

    Control points without weight follow their neighbours with weight (normalised convolution).
    """

    def __init__(self, smoothing: Smoothing | None, like: Field, weight: Volume | None = None) -> None:
        self._taps = () if smoothing is None else smoothing.taps()
        self._weight = None if weight is None else weight.clamp_min(_MIN_WEIGHT)
        self._like = like[0]

    @cached_property
    def _mean(self) -> Volume:
        known = torch.ones_like(self._like) if self._weight is None else self._weight
        return smooth(known[None], self._taps)[0].reciprocal_()

    def __call__(self, field: Field, *, out: Field | None = None, condition: Shaped[Tensor, ""] | None = None) -> Field:
        """Smooth a field ``[3, i, j, k]``, into ``out`` if given, and if a ``condition`` on the device holds."""
        if not self._taps:
            return field if out is None else _assign(out, field, condition)
        return smooth(field, self._taps, before=self._weight, after=self._mean, out=out, condition=condition)

    def adjoint(self, field: Field, *, out: Field | None = None) -> Field:
        """Apply the transposed map, which carries gradients back."""
        if not self._taps:
            return field if out is None else out.copy_(field)
        return smooth(field, self._taps, before=self._mean, after=self._weight, out=out)


@final
class GuidedSmoother:
    """A `BilateralSmoothing` of fields of one shape; not linear if it depends on the field, and without adjoint."""

    def __init__(self, smoothing: BilateralSmoothing, guide: Guide) -> None:
        self._smoothing, self._guide = smoothing, guide
        self._radius = math.ceil(2 * smoothing.sigma)

    def __call__(self, field: Field, *, out: Field | None = None, condition: Shaped[Tensor, ""] | None = None) -> Field:
        """Smooth a field ``[3, i, j, k]``, into ``out`` if given, and if a ``condition`` on the device holds."""
        settings = self._smoothing
        smoothed = bilateral(
            field,
            self._guide,
            sigma=settings.sigma,
            sigma_guide=settings.sigma_guide,
            sigma_field=settings.sigma_field,
            radius=self._radius,
            out=out if condition is None else None,
        )
        return smoothed if out is None or condition is None else _assign(out, smoothed, condition)


@final
class AdaptiveSmoother:
    """An `AdaptiveSmoothing` of fields of one shape, for the curvature ``[i, j, k]`` of a similarity."""

    def __init__(self, smoothing: AdaptiveSmoothing, curvature: Volume) -> None:
        self._taps = GaussianSmoothing(sigma=smoothing.sigma).taps()
        half = smoothing.curvature / curvature.numel()  # similarities are means over the control points
        self._confidence = (curvature / (curvature + half)).clamp_min_(_LEAST_CONFIDENCE)
        self._rest = (1 - self._confidence).div_(smooth(self._confidence[None], self._taps)[0])

    def __call__(self, field: Field, *, out: Field | None = None, condition: Shaped[Tensor, ""] | None = None) -> Field:
        """Smooth a field ``[3, i, j, k]``, into ``out`` if given, and if a ``condition`` on the device holds."""
        return smooth(
            field, self._taps, before=self._confidence, after=self._rest, out=out, condition=condition, keep=True
        )


def make_total_smoother(
    smoothing: TotalSmoothing | None, like: Field, guide: Guide | None = None
) -> Smoother | GuidedSmoother | AdaptiveSmoother:
    """Return a smoothing as a map on fields with the shape of ``like``.

    Raises
    ------
    InputError
        If a `BilateralSmoothing` has no guide ``[c, i, j, k]`` on the same control points, or an `AdaptiveSmoothing` no
        curvature ``[1, i, j, k]``.
    """
    if isinstance(smoothing, BilateralSmoothing):
        return GuidedSmoother(smoothing, _check_guide(guide, like, "a BilateralSmoothing", "the intensities"))
    if isinstance(smoothing, AdaptiveSmoothing):
        curvature = _check_guide(guide, like, "an AdaptiveSmoothing", "the curvature, as one channel,", channels=1)
        return AdaptiveSmoother(smoothing, curvature[0])
    return Smoother(smoothing, like)


def _check_guide(
    guide: Guide | None, like: Field, needed_by: str, content: str, *, channels: int | None = None
) -> Guide:
    """Return a guide with the type and device of a field, after a check of its shape."""
    points = tuple(like.shape[1:])
    if guide is None or tuple(guide.shape[1:]) != points or len(guide) != (channels or len(guide)):
        got = "none" if guide is None else f"shape {tuple(guide.shape)}"
        raise InputError(f"guide must have {points} control points for {needed_by}, got {got}; pass {content} there")
    return guide.to(like).contiguous()


def _assign(out: Field, values: Field, condition: Shaped[Tensor, ""] | None) -> Field:
    """Overwrite a field, if a condition on the device holds."""
    return out.copy_(values) if condition is None else torch.where(condition, values, out, out=out)


def _convolve_boxes(widths: list[int]) -> tuple[float, ...]:
    taps = np.ones(1)
    for width in widths:
        taps = np.convolve(taps, np.full(width, 1 / width))
    return tuple(float(t) for t in taps)
