"""Where a first registration changed volume conspicuously: a soft mask for a second one that is to keep it."""

from __future__ import annotations

import torch

from convexadam._typing import Field, Tensor, Volume
from convexadam.continuous.smoothing import GaussianSmoothing
from convexadam.errors import ConfigError, InputError
from convexadam.kernels._precision import full_precision
from convexadam.kernels.jacobian import jacobian_determinant
from convexadam.kernels.smooth import smooth

_LEAST = 0.05
"""Determinant that folds count as."""

_LEAST_SPREAD = 0.01
"""Of the logarithm: a volume change of 1 % is never conspicuous, however still the rest is."""

_NORMAL = 1.4826
"""Standard deviation of normal numbers over their median absolute deviation."""


@full_precision
def volume_mask(
    displacement: Field,
    *,
    mask: Volume | None = None,
    sigma: float = 1.5,
    unsuspicious: float = 2.0,
    conspicuous: float = 4.0,
) -> Volume:
    """Estimate softly where volume changes conspicuously: tumours that were made as large as in the other image.

    ``r = G log max(det J, 0.05)`` with a Gaussian mean ``G`` and ``J = I + du/dx``;
    ``z = |r - median r| / max(1.4826 median |r - median r|, 0.01)`` with medians over the image;
    ``s = h((z - unsuspicious) / (conspicuous - unsuspicious))``, where ``h(t) = t^2 (3 - 2 t)`` with ``t`` cut off at 0
    and 1. So a change of the whole image, as between two patients of different size, is not conspicuous, and neither
    is what is as uneven as usual.

    Parameters
    ----------
    displacement
        Of a first registration that was free to change volumes, ``[3, i, j, k]`` in nodes.
    mask
        ``[i, j, k]``, weights in [0, 1]; where it is 0 nothing is looked at, and nothing is conspicuous. All of the
        image where ``None``.
    sigma
        Standard deviation of the Gaussian, in nodes.
    unsuspicious, conspicuous
        Deviations, in robust standard deviations, up to which the soft mask is 0 and from which on it is 1.

    Returns
    -------
    ``[i, j, k]`` in [0, 1], for `VolumePreserving`.

    Raises
    ------
    ConfigError
        If ``conspicuous`` is not above ``unsuspicious``, or a setting is out of range.
    InputError
        If the mask leaves nothing, or has another shape.

    Notes
    -----
    The idea to find tumours softly by how unlike the rest their volume changes in a first registration is that of Dong
    et al., "Preserving tumor volumes for unsupervised medical image registration", ICCV 2023; the formula is our own.
    """
    if not 0 <= unsuspicious < conspicuous:
        raise ConfigError(
            f"conspicuous is above unsuspicious, and that is at least 0, but {conspicuous!r} and {unsuspicious!r} came"
        )
    known = _known(displacement, mask)
    inside = known > 0
    taps = GaussianSmoothing(sigma=sigma).taps()
    change = jacobian_determinant(displacement).clamp_min(_LEAST).log()
    share = smooth(known[None], taps)
    mean = torch.where(inside, smooth(change[None], taps, before=known)[0] / share[0].clamp_min(1e-30), 0.0)
    deviation = (mean - mean[inside].median()).abs()
    spread = (_NORMAL * deviation[inside].median()).clamp_min(_LEAST_SPREAD)
    t = ((deviation / spread - unsuspicious) / (conspicuous - unsuspicious)).clamp(0, 1)
    soft: Tensor = torch.where(inside, t.square() * (3 - 2 * t), 0.0)
    return soft


def _known(displacement: Field, mask: Volume | None) -> Volume:
    """Return the mask in the type of the field, or raise; ones where there is none."""
    if mask is None:
        return torch.ones_like(displacement[0])
    if mask.shape != displacement.shape[1:]:
        raise InputError(
            f"the mask has the shape of the displacement's grid, {tuple(displacement.shape[1:])}, but "
            f"{tuple(mask.shape)} came; resample it onto the nodes"
        )
    if not bool((mask > 0).any()):
        raise InputError("the mask leaves nothing to look at; leave it out, or give one that is above 0 somewhere")
    return mask.to(displacement)
