"""Squared differences of several kinds of channels on one scale, each normalised in local windows or as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_component, check_count, check_flag, check_number, show
from convexadam._typing import Channels, Field, Float, Tensor, Volume
from convexadam.continuous.protocols import SimilarityTerm, Weights
from convexadam.continuous.similarity import Ssd
from convexadam.errors import ConfigError, InputError
from convexadam.kernels.lncc.reference import normalise
from convexadam.kernels.smooth import smooth
from convexadam.kernels.warp_ssd import overlap_weight

_MOST_RADIUS = 1000
_MOST_CHANNELS = 10_000


@final
@dataclass(frozen=True, kw_only=True)
class Part:
    """Consecutive channels of a `JointSsd`.

    Attributes
    ----------
    channels
        Their number.
    first
        Number of the first of them.
    weight
        Influence relative to the other parts.
    radius
        Of the window, of ``2 radius + 1`` control points along each axis, in which each channel is shifted and scaled
        to mean 0 and variance 1 beforehand; ``None`` compares values as they are.
    variance_floor
        Added to local variances, as a share of the variance of the whole channel, so that noise in flat regions counts
        little.
    by_distance
        Whether the weight is multiplied by the square of the mean squared difference at the beginning of a level over
        the mean squared slope, which is about the squared distance still to go, in control points. Intensities lead
        images together that are far from aligned, such as those of two persons; close to alignment, what is left of
        their difference is true.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Examples
    --------
    >>> from convexadam.continuous import JointSsd, Part
    >>> JointSsd(parts=(Part(channels=12), Part(first=12, channels=1, radius=2))).parts[1].first
    12
    """

    channels: int
    first: int = 0
    weight: float = 1.0
    radius: int | None = None
    variance_floor: float = 1e-3
    by_distance: bool = False

    def __post_init__(self) -> None:
        check_count(self.channels, "channels", least=1, most=_MOST_CHANNELS)
        check_count(self.first, "first", most=_MOST_CHANNELS)
        check_number(self.weight, "weight", above=True)
        if self.radius is not None:
            check_count(self.radius, "radius", least=1, most=_MOST_RADIUS)
        check_number(self.variance_floor, "variance_floor", above=True)
        check_flag(self.by_distance, "by_distance")

    @check_arguments
    def select(self, features: Channels, weight: Volume | None) -> Iterator[Volume]:
        """Yield the channels, normalised in local windows if ``radius`` is set."""
        for number in range(self.first, self.first + self.channels):
            channel = features[number : number + 1]
            if self.radius is not None:
                channel = normalise_locally(channel, self.radius, self.variance_floor, weight)
            yield channel[0]


def normalise_locally(channel: Channels, radius: int, floor: float, weight: Volume | None) -> Channels:
    """Shift and scale a channel ``[1, i, j, k]`` to mean 0 and variance 1 in the window around each point.

    ``floor`` is added to local variances, as a share of the variance of the channel. Points of less weight than their
    window has on average, which hold padding rather than the image, are drawn towards its mean, 0.
    """
    taps = (1.0,) * (2 * radius + 1)
    values = normalise(channel.contiguous(), weight)
    known = torch.ones_like(values[0]) if weight is None else weight
    total = smooth(known[None], taps)[0]
    inverse = torch.where(total > 0, 1 / torch.where(total > 0, total, 1.0), 0.0)
    mean = smooth(values, taps, before=weight, after=inverse)
    variance = smooth(values.square(), taps, before=weight, after=inverse).addcmul_(mean, mean, value=-1)
    result = (values - mean).mul_(variance.clamp_min_(0).add_(floor).rsqrt_())
    return result if weight is None else result.mul_(inverse.mul_(known).mul_(len(taps) ** 3).clamp_(max=1.0))


@final
@dataclass(frozen=True, kw_only=True)
class JointSsd:
    """Squared differences of several parts of the channels, ``sum_p weight_p / c_p sum_c (M_c(x + u(x)) - F_c(x))^2``.

    ``c_p`` is the mean squared slope of a part, so that weights are relative influences, independent of the units of
    the channels. For a part that is normalised in local windows, the squared difference is twice one minus the local
    correlation, if the displacement hardly changes within the window: it takes the time of `Ssd`, for any number of
    channels.

    Attributes
    ----------
    parts
        Which channels are compared, and how; a channel may be in several of them, and is not compared if in none.
    robust_scale
        As of `Ssd`, of the sum over the parts.

    Raises
    ------
    ConfigError
        If there is no part, or ``robust_scale`` is not positive.

    Examples
    --------
    >>> from convexadam.continuous import JointSsd, Part, Refinement
    >>> both = JointSsd(parts=(Part(channels=12), Part(first=12, channels=1, weight=2.0)))
    >>> len(Refinement(similarity=both).similarity.parts)
    2
    """

    parts: tuple[Part, ...]
    robust_scale: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.parts, tuple) or not self.parts:
            raise ConfigError(f"parts must be a tuple of at least one Part, got {show(self.parts)}; write (Part(...),)")
        for part in self.parts:
            check_component(part, Part, "each of parts")
        if self.robust_scale is not None:
            check_number(self.robust_scale, "robust_scale", above=True)

    @check_arguments
    def count_copied_channels(self, channels: int, *, channels_last: bool) -> int:
        """Return how many channels are copied; see `convexadam.continuous.CopiesFeatures`."""
        return sum(part.channels for part in self.parts)

    @check_arguments
    def prepare(self, fixed: Channels, moving: Channels, start: Field, weights: Weights) -> SimilarityTerm:
        """Return the similarity of two feature maps; see `convexadam.continuous.Similarity`.

        Raises
        ------
        InputError
            If the maps have fewer channels than the parts need.
        """
        needed = max(part.first + part.channels for part in self.parts)
        if needed > len(fixed):
            raise InputError(
                f"features must have at least {needed} channels for the parts of the JointSsd, got {len(fixed)}; "
                "set first and channels of each Part to those of the features"
            )
        count = sum(part.channels for part in self.parts)
        maps = [f.new_empty((*f.shape[1:], count)).permute(3, 0, 1, 2) for f in (fixed, moving)]
        first = 0
        for part in self.parts:
            slopes = fixed.new_zeros(())
            for target, features, weight in zip(maps, (fixed, moving), weights, strict=True):
                for number, channel in enumerate(part.select(features, weight), start=first):
                    target[number] = channel
                    slopes = slopes + _mean_squared_slope(channel, weight)
            per_slope = torch.where(slopes > 0, 1 / torch.where(slopes > 0, slopes, 1.0), 0.0)
            scale = part.weight * per_slope
            f, m = (target[first : first + part.channels] for target in maps)
            if part.by_distance:
                scale = scale * (per_slope * _mean_squared_difference(f, m, start, weights)).square()
            for target in (f, m):
                target.mul_(scale.sqrt())
            first += part.channels
        return Ssd(robust_scale=self.robust_scale).prepare(maps[0], maps[1], start, weights)


def _mean_squared_difference(fixed: Channels, moving: Channels, start: Field, weights: Weights) -> Float[Tensor, ""]:
    """Sum over the channels of the mean over the overlap, by weight, at the displacement ``start``."""
    difference, _ = Ssd().prepare(fixed, moving, start, weights)(start.detach())
    return difference.detach() / overlap_weight(start, *weights).mean().clamp_min(1e-12)


def _mean_squared_slope(channel: Volume, weight: Volume | None) -> Float[Tensor, ""]:
    """Mean over the points, by weight, of the squared differences of neighbours along each axis."""
    total = torch.zeros((), dtype=torch.float64, device=channel.device)
    for axis in range(3):
        squares = channel.diff(dim=axis).square_()
        if weight is not None:
            squares *= _least_of_neighbours(weight, axis)
        total = total + squares.sum(dtype=torch.float64)
    known = channel.numel() if weight is None else weight.sum(dtype=torch.float64).clamp_min(1e-12)
    return (total / known).to(channel.dtype)


def _least_of_neighbours(weight: Volume, axis: int) -> Float[Tensor, "a b d"]:
    size = weight.shape[axis] - 1
    return torch.minimum(weight.narrow(axis, 0, size), weight.narrow(axis, 1, size))
