"""Similarities as values: how features of the fixed and of the warped moving image are compared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_component, check_count, check_number, show
from convexadam._typing import Channels, Field, Float, Tensor
from convexadam.continuous.protocols import CopiesFeatures, Similarity, SimilarityTerm, Weights
from convexadam.errors import ConfigError, InputError
from convexadam.kernels import use_backend
from convexadam.kernels.lncc import prepare_lncc
from convexadam.kernels.warp_ssd import FeatureMap, prepare_ssd

_MOST_RADIUS = 1000
"""Control points, far beyond the size of any volume."""


@final
@dataclass(frozen=True, kw_only=True)
class Ssd:
    """Mean squared difference of features, summed over channels.

    Attributes
    ----------
    robust_scale
        Squared difference, in multiples of its mean at the beginning of the level, at which the weight of a control
        point is halved, so that structures without a counterpart (a resection, noise) pull less; ``None`` for plain
        squared differences.

    Raises
    ------
    ConfigError
        If ``robust_scale`` is not positive.

    Notes
    -----
    The robust form is that of Geman and McClure, Bulletin of the ISI 1987.

    Examples
    --------
    >>> import torch
    >>> from convexadam.continuous import Ssd
    >>> maps = torch.rand(2, 10, 10, 10, generator=torch.Generator().manual_seed(0))
    >>> still = torch.zeros(3, 10, 10, 10)
    >>> term = Ssd().prepare(maps, maps + 1, still, (None, None))
    >>> value, gradient = term(still)
    >>> round(value.item(), 3), tuple(gradient.shape)
    (2.0, (3, 10, 10, 10))
    """

    channels_last: ClassVar[bool] = True
    """See `convexadam.continuous.ChannelsLast`."""

    robust_scale: float | None = None

    def __post_init__(self) -> None:
        if self.robust_scale is not None:
            check_number(self.robust_scale, "robust_scale", above=True)

    @check_arguments
    def count_copied_channels(self, channels: int, *, channels_last: bool) -> int:
        """Return how many channels are copied; see `convexadam.continuous.CopiesFeatures`."""
        return 0 if channels_last or channels == 1 else channels

    @check_arguments
    def prepare(self, fixed: FeatureMap, moving: FeatureMap, start: Field, weights: Weights) -> SimilarityTerm:
        """Return the similarity of two feature maps; see `convexadam.continuous.Similarity`."""
        with _reference_if_differentiated(start):
            plain = prepare_ssd(fixed, moving, fixed_weight=weights[0], moving_weight=weights[1])
        if self.robust_scale is None:
            return plain
        mean = plain.value(start.detach()).detach()
        if mean.is_cuda:  # which is not waited for
            return plain.with_outlier(self.robust_scale * mean)
        outlier = self.robust_scale * mean.double()
        return plain.with_outlier(float(outlier)) if outlier > 0 else plain


@final
@dataclass(frozen=True, kw_only=True)
class Lncc:
    """One minus the squared local normalised cross-correlation, summed over channels; invariant to local brightness.

    Attributes
    ----------
    radius
        Of the window: ``2 radius + 1`` control points along each axis.
    variance_floor
        Added to local variances, as a share of the variance of the whole image, so that noise in flat regions counts
        little.

    Raises
    ------
    ConfigError
        If ``radius`` is not a whole number of at least 1, or ``variance_floor`` not positive.

    Examples
    --------
    >>> import torch
    >>> from convexadam.continuous import Lncc
    >>> maps = torch.rand(1, 10, 10, 10, generator=torch.Generator().manual_seed(0))
    >>> still = torch.zeros(3, 10, 10, 10)
    >>> term = Lncc(radius=2).prepare(maps, 0.5 * maps + 2, still, (None, None))  # another brightness
    >>> bool(term(still)[0] < 0.1)
    True
    """

    radius: int = 2
    variance_floor: float = 1e-3

    def __post_init__(self) -> None:
        check_count(self.radius, "radius", least=1, most=_MOST_RADIUS)
        check_number(self.variance_floor, "variance_floor", above=True)

    @check_arguments
    def prepare(self, fixed: Channels, moving: Channels, start: Field, weights: Weights) -> SimilarityTerm:
        """Return the similarity of two feature maps; see `convexadam.continuous.Similarity`."""
        with _reference_if_differentiated(start):
            return prepare_lncc(
                fixed,
                moving,
                radius=self.radius,
                floor=self.variance_floor,
                fixed_weight=weights[0],
                moving_weight=weights[1],
            )


@final
@dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """Several similarities on one scale: ``sum_t weights_t / c_t term_t``, times ``c_0 / weights_0``.

    ``c_t`` is the mean curvature of a term at the beginning of the level, so that weights are relative influences,
    independent of the units of the terms.

    Attributes
    ----------
    terms
        The similarities.
    weights
        Of each term.
    channels
        Number of consecutive channels for each term (as concatenated by `Concat`); ``None`` gives each term all of
        them.

    Raises
    ------
    ConfigError
        If there is no term, a term is no `Similarity`, the numbers differ, or one is not positive.

    Examples
    --------
    >>> from convexadam.continuous import Lncc, Refinement, Ssd, WeightedSum
    >>> Refinement(similarity=WeightedSum(terms=(Ssd(), Lncc()), weights=(1.0, 0.5))).similarity.weights
    (1.0, 0.5)
    """

    terms: tuple[Similarity, ...]
    weights: tuple[float, ...]
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.terms, tuple) or not self.terms:
            raise ConfigError(f"terms must be a tuple of at least one similarity, got {show(self.terms)}")
        for term in self.terms:
            check_component(term, Similarity, "each of terms")
        counts = (1,) * len(self.terms) if self.channels is None else self.channels
        for name, values in (("weights", self.weights), ("channels", counts)):
            if not isinstance(values, tuple) or len(values) != len(self.terms):
                raise ConfigError(
                    f"{name} must be a tuple of {len(self.terms)} numbers, one for each term, got {show(values)}"
                )
        for weight, count in zip(self.weights, counts, strict=True):
            check_number(weight, "each of weights", above=True)
            check_count(count, "each of channels", least=1)

    @check_arguments
    def count_copied_channels(self, channels: int, *, channels_last: bool) -> int:
        """Return how many channels are copied: a part of the channels is never stored with channels last."""
        counts = self.channels or (channels,) * len(self.terms)
        return sum(
            term.count_copied_channels(count, channels_last=False)
            for term, count in zip(self.terms, counts, strict=True)
            if isinstance(term, CopiesFeatures)
        )

    @check_arguments
    def prepare(self, fixed: Channels, moving: Channels, start: Field, weights: Weights) -> SimilarityTerm:
        """Return the similarity of two feature maps; see `convexadam.continuous.Similarity`.

        Raises
        ------
        InputError
            If the maps have another number of channels than ``channels`` in total.
        """
        counts = (len(fixed),) * len(self.terms) if self.channels is None else self.channels
        if self.channels is not None and sum(counts) != len(fixed):
            raise InputError(
                f"features must have {' + '.join(map(str, counts))} channels for the terms of the WeightedSum, "
                f"got {len(fixed)}; set channels to those of the features"
            )
        terms, factors, first = [], [], 0
        for similarity, weight, count in zip(self.terms, self.weights, counts, strict=True):
            term = similarity.prepare(fixed.narrow(0, first, count), moving.narrow(0, first, count), start, weights)
            first += 0 if self.channels is None else count
            curvature = float(term.curvature(start)[1][3].mean())
            terms.append(term)
            factors.append(weight / curvature if curvature > 0 else 0.0)
        scale = next((1 / factor for factor in factors if factor > 0), 1.0)
        return _SumTerm(terms, [scale * factor for factor in factors])


def _reference_if_differentiated(start: Field) -> AbstractContextManager[None]:
    """Select torch for a displacement that requires a gradient: compiled kernels record none."""
    return use_backend("reference") if start.requires_grad and torch.is_grad_enabled() else nullcontext()


@final
class _SumTerm:
    """A weighted sum of prepared similarities."""

    def __init__(self, terms: Sequence[SimilarityTerm], weights: Sequence[float]) -> None:
        # a term without any slope has no scale; if none has one, any of them stands for all
        self._terms = [pair for pair in zip(terms, weights, strict=True) if pair[1] > 0] or [(terms[0], 1.0)]

    def __call__(self, displacement: Field, *, out: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
        total, gradient = displacement.new_zeros(()), torch.empty_like(displacement) if out is None else out
        for number, (term, weight) in enumerate(self._terms):
            value, part = term(displacement, out=None if number else gradient)
            total += weight * value
            gradient = gradient.add_(part, alpha=weight) if number else part.mul_(weight)
        return total, gradient

    def gradient(self, displacement: Field, *, out: Field | None = None) -> Field:
        return self(displacement, out=out)[1]

    def curvature(
        self, displacement: Field, *, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        (first, weight), *others = self._terms
        value, derivatives = first.curvature(displacement, out=out)
        total, derivatives = weight * value, derivatives.mul_(weight)
        for term, weight in others:
            value, part = term.curvature(displacement)
            total = total + weight * value
            derivatives.add_(part, alpha=weight)
        return total, derivatives
