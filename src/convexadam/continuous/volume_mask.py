"""Where a first registration changed volume unlike elsewhere: a soft mask for a second one that preserves it."""

from __future__ import annotations

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import show
from convexadam._typing import Field, Tensor, Volume
from convexadam.continuous.smoothing import GaussianSmoothing
from convexadam.errors import ConfigError, InputError
from convexadam.kernels._precision import full_precision
from convexadam.kernels.jacobian import jacobian_determinant
from convexadam.kernels.smooth import smooth

_MIN_DETERMINANT = 0.05
"""Lower determinants, of folds, are clamped to it."""

_MIN_SPREAD = 0.01
"""Of the logarithm: a volume change of 1 % is never an outlier, even if the rest of the image does not change."""

_MAD_TO_STD = 1.4826
"""Standard deviation over median absolute deviation of a normal distribution."""


@full_precision
@check_arguments
def volume_mask(
    displacement: Field,
    *,
    mask: Volume | None = None,
    sigma: float = 1.5,
    low: float = 2.0,
    high: float = 4.0,
) -> Volume:
    """Estimate a soft mask of outliers of volume change, such as tumours that were made as large as in the other image.

    ``r = G log max(det J, 0.05)`` with a Gaussian mean ``G`` and ``J = I + du/dx``;
    ``z = |r - median r| / max(1.4826 median |r - median r|, 0.01)`` with medians over the image;
    ``s = h((z - low) / (high - low))``, where ``h(t) = t^2 (3 - 2 t)`` with ``t`` clamped to [0, 1]. A change of the
    whole image, as between two patients of different size, is no outlier, nor are changes as uneven as usual.

    Parameters
    ----------
    displacement
        Of a first registration without volume preservation, ``[3, i, j, k]`` in control points.
    mask
        Weights ``[i, j, k]`` in [0, 1]; where it is 0, volume changes are ignored and the result is 0. ``None`` for 1
        everywhere.
    sigma
        Standard deviation of the Gaussian, in control points.
    low, high
        Deviations, in robust standard deviations, up to which the soft mask is 0 and from which it is 1.

    Returns
    -------
    ``[i, j, k]`` in [0, 1], for `VolumePreserving`.

    Raises
    ------
    ConfigError
        If ``high`` is not above ``low``, or a setting is out of range.
    InputError
        If the mask is empty, or has another shape.

    Notes
    -----
    The idea to detect tumours by outliers of volume change in a first registration is that of Dong et al.,
    "Preserving tumor volumes for unsupervised medical image registration", ICCV 2023; the formula is our own.

    Examples
    --------
    >>> import torch
    >>> from convexadam.continuous import volume_mask
    >>> mask = volume_mask(0.01 * torch.randn(3, 12, 12, 12, generator=torch.Generator().manual_seed(0)))
    >>> tuple(mask.shape), 0 <= mask.min() <= mask.max() <= 1
    ((12, 12, 12), tensor(True))
    """
    if not 0 <= low < high:
        raise ConfigError(f"low and high must satisfy 0 <= low < high, got {show(low)} and {show(high)}")
    weight = _check_mask(displacement, mask)
    inside = weight > 0
    taps = GaussianSmoothing(sigma=sigma).taps()
    change = jacobian_determinant(displacement).clamp_min(_MIN_DETERMINANT).log()
    share = smooth(weight[None], taps)
    mean = torch.where(inside, smooth(change[None], taps, before=weight)[0] / share[0].clamp_min(1e-30), 0.0)
    deviation = (mean - mean[inside].median()).abs()
    spread = (_MAD_TO_STD * deviation[inside].median()).clamp_min(_MIN_SPREAD)
    t = ((deviation / spread - low) / (high - low)).clamp(0, 1)
    soft: Tensor = torch.where(inside, t.square() * (3 - 2 * t), 0.0)
    return soft


def _check_mask(displacement: Field, mask: Volume | None) -> Volume:
    """Return the mask in the type of the field, ones if it is ``None``, or raise."""
    if mask is None:
        return torch.ones_like(displacement[0])
    if mask.shape != displacement.shape[1:]:
        raise InputError(
            f"mask must have the shape of the displacement, {tuple(displacement.shape[1:])}, got {tuple(mask.shape)}; "
            "resample it to the control points"
        )
    if not bool((mask > 0).any()):
        raise InputError("mask must have a value above 0, got an empty mask; omit it to use all of the image")
    return mask.to(displacement)
