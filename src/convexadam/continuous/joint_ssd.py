"""Squared differences of several kinds of channels on one scale, each normalised in local windows or as it is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeAlias, cast, final

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_component, check_count, check_flag, check_number, show
from convexadam._typing import Channels, Field, Float, Shaped, Tensor, Volume
from convexadam.continuous.protocols import Compared, SimilarityTerm, Weights
from convexadam.continuous.similarity import Ssd
from convexadam.errors import ConfigError, InputError
from convexadam.kernels._backend import backend_for
from convexadam.kernels._device import allocate, send_constant
from convexadam.kernels.local_normalisation import mean_squared_slopes, normalise_locally, scale_channels
from convexadam.kernels.warp_ssd import FeatureRows, overlap_weight, pack_features, prepare_ssd
from convexadam.kernels.warp_ssd.feature_rows import LARGEST, select_channels

_Joined: TypeAlias = Float[Tensor, "p i j k"] | FeatureRows
"""The channels of all parts of an image."""

_MOST_RADIUS = 1000
_MOST_CHANNELS = 10_000

_CHANNELS = 16
"""Integers of a row are a multiple of this: the conversion of other numbers is not vectorised."""

_MOST_DEVIATIONS = 32.0
"""Largest value of a locally normalised channel that integers hold."""


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
        Whether the weight is multiplied by the fifth power of the distance still to go, in control points, whose square
        is about the mean squared difference at the beginning of a level over the mean squared slope. Intensities lead
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
        """Return how many channels of float32 take the memory of the copies, of 16 bits, on the CPU.

        See `convexadam.continuous.CopiesFeatures`.
        """
        return _pad(sum(part.channels for part in self.parts)) // 2

    @check_arguments
    def prepare(self, fixed: Channels, moving: Channels, start: Field, weights: Weights) -> SimilarityTerm:
        """Return the similarity of two feature maps; see `convexadam.continuous.Similarity`.

        Raises
        ------
        InputError
            If the maps have fewer channels than the parts need.
        """
        self._check([fixed, moving])
        similarity, (one, other) = self._join([fixed, moving], start, weights)
        return similarity.prepare(one, other, start, weights)

    @check_arguments
    def pack(self, maps: list[Channels], start: Field, weights: Weights) -> tuple[Ssd, Compared]:
        """Return the channels of all parts, and how they are compared; see `convexadam.continuous.PacksFeatures`.

        On the CPU in integers of 16 bits: values are rounded to the 32,767th part of the largest one of a part, or for
        local windows of the largest that is possible there, at most 32 standard deviations, beyond which they are
        clipped.

        Raises
        ------
        InputError
            If there are not two maps, or they have fewer channels than the parts need.
        """
        self._check(maps)
        if backend_for(*maps) == "cpu":
            similarity, (fixed, moving) = self._join(maps, start, weights, steps=_choose_steps(self.parts, maps))
            return similarity, (fixed, moving)
        similarity, joined = self._join(maps, start, weights)
        return similarity, pack_features(cast("list[Channels]", joined))

    def _join(
        self, maps: list[Channels], start: Field, weights: Weights, *, steps: Float[Tensor, " p"] | None = None
    ) -> tuple[Ssd, list[_Joined]]:
        """Return the channels of all parts of both images, and how they are compared; with ``steps`` in integers."""
        joined = [self._write_parts(maps.pop(0), weight, steps) for weight in weights]
        slopes = mean_squared_slopes(joined[0], weights[0]) + mean_squared_slopes(joined[1], weights[1])
        counts = [part.channels for part in self.parts]
        slope = torch.cat([s if len(s) == 1 else s.sum(0, keepdim=True) for s in torch.split(slopes, counts)])
        per_slope = slope.reciprocal().nan_to_num_(nan=0.0, posinf=0.0)
        scale = send_constant(torch.tensor([part.weight for part in self.parts], device="cpu"), slope) * per_slope
        first = 0
        for number, part in enumerate(self.parts):
            if part.by_distance:
                chosen = [select_channels(features, first, part.channels) for features in joined]
                difference = _mean_squared_difference(chosen[0], chosen[1], start, weights)
                scale[number].mul_((per_slope[number] * difference).pow(2.5))
            first += part.channels
        numbers = np.repeat(np.arange(len(counts)), counts)
        factors = scale.sqrt_()[send_constant(torch.from_numpy(numbers), slope.new_empty(0, dtype=torch.int64))]
        return Ssd(robust_scale=self.robust_scale), _scale(joined, factors)

    def _check(self, maps: list[Channels]) -> None:
        if len(maps) != 2:
            raise InputError(f"maps must be those of the fixed and of the moving image, got {len(maps)}; pass both")
        needed = max(part.first + part.channels for part in self.parts)
        given = min(len(features) for features in maps)
        if needed > given:
            raise InputError(
                f"features must have at least {needed} channels for the parts of the JointSsd, got {given}; "
                "set first and channels of each Part to those of the features"
            )

    def _write_parts(self, features: Channels, weight: Volume | None, steps: Float[Tensor, " p"] | None) -> _Joined:
        """Return the channels of all parts, last in memory; with the value of 1 in each channel, in integers."""
        count = sum(part.channels for part in self.parts)
        if steps is None:
            rows = allocate(*features.shape[1:], count, like=features)
        else:
            rows = torch.zeros(*features.shape[1:], _pad(count), dtype=torch.int16, device=features.device)
        rest = rows.movedim(-1, 0)
        values = [1.0] * count if steps is None else steps.tolist()
        for part in self.parts:
            step = None if steps is None else values[0]
            _write_channels(part, features, weight, rest[: part.channels], step)
            rest, values = rest[part.channels :], values[part.channels :]
        return rows.movedim(-1, 0) if steps is None else FeatureRows(rows=rows, scale=steps, channels=count)


def _scale(maps: list[_Joined], factors: Float[Tensor, " p"]) -> list[_Joined]:
    """Multiply the channels of maps that are in integers or not, both alike."""
    rows = [features for features in maps if isinstance(features, FeatureRows)]
    if rows:
        scale = rows[0].scale * factors
        return [dataclasses.replace(features, scale=scale) for features in rows]
    for features in maps:
        scale_channels(cast("Channels", features), factors)
    return maps


def _pad(channels: int) -> int:
    """Return the number of channels of rows of integers, whose conversion is vectorised."""
    return -(-channels // _CHANNELS) * _CHANNELS


def _choose_steps(parts: tuple[Part, ...], maps: list[Channels]) -> Float[Tensor, " p"]:
    """Return the value of 1 in each channel of integers: for all channels of a part, and both maps.

    A value differs from the mean of its window by at most the square root of the number of points, times its deviation;
    those beyond `_MOST_DEVIATIONS` are clipped.
    """
    found = []
    for part in parts:
        if part.radius is None:
            chosen = [features[part.first : part.first + part.channels] for features in maps]
            ends = [end for values in chosen for end in torch.aminmax(values)]
            most = torch.stack(ends).abs().amax().clamp_min(torch.finfo(torch.float32).tiny * LARGEST)
        else:
            most = torch.tensor(min((2 * part.radius + 1) ** 1.5, _MOST_DEVIATIONS), dtype=torch.float32, device="cpu")
        found.append((most / LARGEST).expand(part.channels))
    return torch.cat(found)


def _write_channels(
    part: Part, features: Channels, weight: Volume | None, out: Shaped[Tensor, "p i j k"], step: float | None
) -> None:
    """Write the channels of a part, normalised in local windows if it has a radius."""
    chosen = features[part.first : part.first + part.channels]
    if part.radius is not None:
        normalise_locally(chosen, radius=part.radius, floor=part.variance_floor, weight=weight, out=out, step=step)
    elif step is None:
        out.copy_(chosen)
    else:
        for target, values in zip(out, chosen, strict=True):
            target.copy_((values / step).round_())


def _mean_squared_difference(fixed: Channels, moving: Channels, start: Field, weights: Weights) -> Float[Tensor, ""]:
    """Sum over the channels of the mean over the overlap, by weight, at the displacement ``start``."""
    term = prepare_ssd(fixed, moving, fixed_weight=weights[0], moving_weight=weights[1])
    return term.value(start.detach()).detach() / overlap_weight(start, *weights).mean().clamp_min(1e-12)
