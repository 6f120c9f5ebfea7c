"""Whether two images have one contrast, and what a refinement does if they have not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_component, check_count, check_number
from convexadam._typing import Channels, Field, Float, Tensor
from convexadam.continuous.level import Level
from convexadam.continuous.protocols import Similarity, Weights
from convexadam.errors import ConfigError
from convexadam.kernels.feature_level import FeatureLevel
from convexadam.kernels.local_normalisation import normalise_locally
from convexadam.kernels.smooth import smooth
from convexadam.kernels.warp import sample_displaced
from convexadam.kernels.warp_ssd import overlap_weight, unpack

_RADIUS = 4
"""Of the windows of the local correlation, in control points."""

_INNER_RADIUS = 2
"""Of the windows in which intensities are normalised before."""

_FLOOR = 1e-2
"""Added to local variances, as a share of the variance of the image."""

_MOST_CHANNELS = 10_000


@check_arguments
def contrast_coherence(fixed: Channels, moving: Channels, displacement: Field, weights: Weights) -> Float[Tensor, ""]:
    """Measure how far two aligned images have one contrast, ``mean(r) |mean(r)| / mean(r^2)``, from -1 to 1.

    ``r`` is the correlation, in the window around each point, of intensities that are normalised in smaller windows
    first, so that faint borders count as much as strong ones. The means are weighted by the contrast that is left. It
    is near 1 if brighter tissue is brighter in both images almost everywhere, however well the images are aligned, and
    near 0 if the sign of the correlation depends on the tissue.

    Parameters
    ----------
    fixed, moving
        Intensities ``[1, i, j, k]``.
    displacement
        From fixed to moving, ``[3, i, j, k]``, in grid units.
    weights
        Evidence of both images, ``[i, j, k]``; ``None`` for 1.

    Examples
    --------
    >>> import torch
    >>> from convexadam.continuous import contrast_coherence
    >>> image = torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> same = contrast_coherence(image, image, torch.zeros(3, 8, 8, 8), (None, None))
    >>> round(same.item(), 2)
    1.0
    """
    f, m = (
        normalise_locally(x, radius=_INNER_RADIUS, floor=_FLOOR, weight=w)
        for x, w in zip((fixed, moving), weights, strict=True)
    )
    m = sample_displaced(m, displacement)
    weight, taps = overlap_weight(displacement, *weights), (1.0,) * (2 * _RADIUS + 1)
    covariance, f2, m2 = smooth(torch.cat([f * m, f * f, m * m]), taps, before=weight)
    evidence = f2.mul_(m2).sqrt_()  # of which the covariance is at most as much: without evidence there is none
    mean, scale = covariance.sum(), evidence.sum()
    squared = covariance.square_().div_(evidence.clamp_min(torch.finfo(evidence.dtype).tiny)).sum()
    coherence: Tensor = mean * mean.abs() / (scale * squared)
    return coherence.nan_to_num_(0.0)


@final
@dataclass(frozen=True, kw_only=True)
class DifferentContrasts:
    """What a `Refinement` does instead if the images turn out to have different contrasts.

    Attributes
    ----------
    levels
        In place of its levels, with the same spacings.
    similarity
        In place of its similarity.
    channel
        Number of the feature channel with intensities.
    coherence
        Contrasts are different if `contrast_coherence` at the start of the refinement is below this: 0.84 to 0.95 were
        measured for pairs of one contrast (CT, T1, and breathing in MR), and 0.46 or less for T1 with T2 or FLAIR.

    Raises
    ------
    ConfigError
        If a setting is out of range or of the wrong type.

    Examples
    --------
    >>> from convexadam.continuous import DifferentContrasts, Level, Refinement, Ssd
    >>> other = DifferentContrasts(levels=(Level(spacing=2, iterations=20),), similarity=Ssd())
    >>> Refinement(different_contrasts=other).different_contrasts.coherence
    0.65
    """

    levels: tuple[Level, ...]
    similarity: Similarity
    channel: int = 0
    coherence: float = 0.65

    def __post_init__(self) -> None:
        if not isinstance(self.levels, tuple) or not self.levels:
            raise ConfigError(
                f"levels must be a tuple of at least one Level, got {self.levels!r}; write (Level(spacing=2),) for one"
            )
        for level in self.levels:
            check_component(level, Level, "each of levels")
        check_component(self.similarity, Similarity, "similarity")
        check_count(self.channel, "channel", most=_MOST_CHANNELS)
        check_number(self.coherence, "coherence", least=-1.0, most=1.0)

    @check_arguments
    def check_levels(self, levels: tuple[Level, ...]) -> None:
        """Raise unless the levels have the spacings of others: features are extracted before the contrasts are known.

        Raises
        ------
        ConfigError
            If they differ.
        """
        needed, found = ([level.spacing for level in both] for both in (levels, self.levels))
        if needed != found:
            raise ConfigError(f"different_contrasts.levels must have the spacings of levels, {needed}, got {found}")


def have_one_contrast(level: FeatureLevel, displacement: Field, settings: DifferentContrasts) -> bool:
    """Whether both images have one contrast, by their features on control points and a displacement on these."""
    fixed, moving = (unpack(f)[settings.channel : settings.channel + 1] for f in (level.fixed, level.moving))
    return bool(contrast_coherence(fixed, moving, displacement, level.weights) >= settings.coherence)
