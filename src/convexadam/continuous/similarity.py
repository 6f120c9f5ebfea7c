"""Similarities as values: how features of a fixed and of a warped moving image are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import torch

from convexadam._axes import checked_count, checked_number
from convexadam._typing import Channels, Field, Float, Tensor, Volume
from convexadam.errors import ConfigError, InputError
from convexadam.kernels.lncc import correlated
from convexadam.kernels.mutual_information import shared
from convexadam.kernels.warp_ssd import Comparison, compared


@final
@dataclass(frozen=True, kw_only=True)
class Ssd:
    """Mean squared difference of features, summed over channels.

    Attributes
    ----------
    robustness
        Squared difference, in multiples of its mean before the level, from which on a node counts less and less: what
        has no partner in the other image (a resection, noise) then does not pull. ``None`` for all alike.

    Raises
    ------
    ConfigError
        If ``robustness`` is not positive.
    """

    robustness: float | None = None

    def __post_init__(self) -> None:
        if self.robustness is not None:
            checked_number(self.robustness, "robustness", above=True)

    def begin(
        self, fixed: Channels, moving: Channels, start: Field, weights: tuple[Volume | None, Volume | None]
    ) -> Comparison:
        """Prepare feature maps ``[c, i, j, k]`` with their evidence; ``start`` is the displacement to begin with."""
        plain = compared(fixed, moving, fixed_weight=weights[0], moving_weight=weights[1])
        mean = 0.0 if self.robustness is None else float(plain(start)[0])
        if self.robustness is None or mean <= 0:
            return plain
        return compared(
            fixed, moving, fixed_weight=weights[0], moving_weight=weights[1], outlier=self.robustness * mean
        )


@final
@dataclass(frozen=True, kw_only=True)
class Lncc:
    """One minus the squared local correlation, summed over channels: for images of one contrast and uneven brightness.

    Attributes
    ----------
    radius
        Of the window: ``2 radius + 1`` nodes along each axis.
    floor
        What is added to local variances, as a share of the whole one: flat noise has no say.

    Raises
    ------
    ConfigError
        If the radius is no whole number of at least 1, or the floor not positive.
    """

    radius: int = 2
    floor: float = 1e-3

    def __post_init__(self) -> None:
        checked_count(self.radius, "radius", least=1)
        checked_number(self.floor, "floor", above=True)

    def begin(
        self, fixed: Channels, moving: Channels, start: Field, weights: tuple[Volume | None, Volume | None]
    ) -> Comparison:
        """Prepare maps ``[c, i, j, k]`` with their evidence."""
        return correlated(
            fixed, moving, radius=self.radius, floor=self.floor, fixed_weight=weights[0], moving_weight=weights[1]
        )


@final
@dataclass(frozen=True, kw_only=True)
class MutualInformation:
    """Two minus the normalised mutual information of two maps of one channel: any relation of brightness; for `Adam`.

    Attributes
    ----------
    bins
        Of the histogram, along each axis.

    Raises
    ------
    ConfigError
        If there are fewer than 4 bins.
    """

    bins: int = 32

    def __post_init__(self) -> None:
        checked_count(self.bins, "bins", least=4)

    def begin(
        self, fixed: Channels, moving: Channels, start: Field, weights: tuple[Volume | None, Volume | None]
    ) -> Comparison:
        """Prepare maps ``[1, i, j, k]`` with their evidence.

        Raises
        ------
        InputError
            If there are more channels.
        """
        if len(fixed) != 1:
            raise InputError(
                f"mutual information compares maps of one channel, but the features have {len(fixed)}; take Intensity, "
                "or a WeightedSum whose channels give it one of them"
            )
        return shared(fixed, moving, bins=self.bins, fixed_weight=weights[0], moving_weight=weights[1])


@final
@dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """Several similarities at once, brought to one scale: ``sum_t weights_t / c_t term_t``, times ``c_0 / weights_0``.

    ``c_t`` is the mean curvature of a term before the level (see `Comparison`), so that weights say how much each term
    has to say, whatever its unit.

    Attributes
    ----------
    terms
        The similarities.
    weights
        Share of each.
    channels
        How many channels each takes, one after the other (as of `Concat`), all there are; ``None`` gives every term all
        of them.

    Raises
    ------
    ConfigError
        If there is no term or something else among them, their numbers differ, or a number is not positive.
    """

    terms: tuple[Ssd | Lncc | MutualInformation, ...]
    weights: tuple[float, ...]
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.terms, tuple) or not all(
            isinstance(t, Ssd | Lncc | MutualInformation) for t in self.terms
        ):
            raise ConfigError(f"terms is a tuple of Ssd, Lncc and MutualInformation, but {self.terms!r} came")
        counts = (1,) * len(self.terms) if self.channels is None else self.channels
        if not self.terms or not len(self.terms) == len(self.weights) == len(counts):
            raise ConfigError(
                f"a weighted sum needs as many weights and numbers of channels as terms, and at least one, but "
                f"{len(self.terms)} terms, {len(self.weights)} weights and {len(counts)} numbers came"
            )
        for weight, count in zip(self.weights, counts, strict=True):
            checked_number(weight, "each of weights", above=True)
            checked_count(count, "each of channels", least=1)

    def begin(
        self, fixed: Channels, moving: Channels, start: Field, weights: tuple[Volume | None, Volume | None]
    ) -> Comparison:
        """Prepare feature maps ``[c, i, j, k]`` with their evidence.

        Raises
        ------
        InputError
            If the maps have another number of channels than the terms take.
        """
        counts = (len(fixed),) * len(self.terms) if self.channels is None else self.channels
        if self.channels is not None and sum(counts) != len(fixed):
            raise InputError(
                f"the terms take {' + '.join(map(str, counts))} channels, but the features have {len(fixed)}"
            )
        parts, factors, first = [], [], 0
        for term, weight, count in zip(self.terms, self.weights, counts, strict=True):
            here, there = (f.narrow(0, first, count) for f in (fixed, moving))
            first += 0 if self.channels is None else count
            part = term.begin(here, there, start, weights)
            curved = float(part.curvature(start)[1][3].mean())
            parts.append(part)
            factors.append(weight / curved if curved > 0 else 0.0)
        scale = next((1 / factor for factor in factors if factor > 0), 1.0)
        return _Sum(parts, [scale * factor for factor in factors])


Similarity: TypeAlias = Ssd | Lncc | MutualInformation | WeightedSum


@final
class _Sum:
    """Comparisons added up; see `Comparison`."""

    def __init__(self, parts: Sequence[Comparison], weights: Sequence[float]) -> None:
        kept = [(part, weight) for part, weight in zip(parts, weights, strict=True) if weight > 0]
        self._parts = kept or [(parts[0], 1.0)]  # without any slope they are all the same

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        total, field = displacement.new_zeros(()), torch.empty_like(displacement) if out is None else out
        for n, (part, weight) in enumerate(self._parts):
            value, gradient = part(displacement, diffusion=0.0 if n else diffusion / weight, out=None if n else field)
            total += weight * value
            field = gradient.mul_(weight) if n == 0 else field.add_(gradient, alpha=weight)
        return total, field

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        return self(displacement, diffusion=diffusion, out=out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        total, field = displacement.new_zeros(()), out
        for n, (part, weight) in enumerate(self._parts):
            rough = 0.0 if n else diffusion / weight
            value, found = part.curvature(displacement, diffusion=rough, out=None if n else out)
            total += weight * value
            field = found.mul_(weight) if field is None or n == 0 else field.add_(found, alpha=weight)
        assert field is not None  # there is at least one part
        return total, field
