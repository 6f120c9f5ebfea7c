"""Shift and scale feature maps to mean 0 and variance 1 in the window around each point, and measure their slopes."""

from __future__ import annotations

from convexadam._typing import Channels, Float, Shaped, Tensor, Volume
from convexadam.kernels._backend import get_implementation
from convexadam.kernels.warp_ssd.feature_rows import FeatureMap, FeatureRows, tensor_of

__all__ = ["mean_squared_slopes", "normalise_locally", "scale_channels"]


def normalise_locally(
    features: Channels,
    *,
    radius: int,
    floor: float,
    weight: Volume | None = None,
    out: Shaped[Tensor, "c i j k"] | None = None,
    step: float | None = None,
) -> Shaped[Tensor, "c i j k"]:
    """Compute ``(x - m) / sqrt(v + floor V)``, with mean ``m`` and variance ``v`` of the window around each point.

    ``V`` is the variance of the whole channel; constant channels become 0. Points of less weight than their window has
    on average, which hold padding rather than the image, are drawn towards the mean of the window, 0.

    Parameters
    ----------
    features
        ``[c, i, j, k]``.
    radius
        Of the window, of ``2 radius + 1`` points along each axis, truncated at the border.
    floor
        Share of ``V``, above 0.
    weight
        Of each point, ``[i, j, k]``, not negative; ``None`` for 1.
    out
        Where the result is written, in any layout; ``None`` for a new tensor.
    step
        With ``out`` of int16, the value of 1 there: results are rounded, and clipped to `LARGEST` steps. Not on a GPU.
    """
    options = {} if step is None else {"step": step}
    result: Channels = get_implementation(__name__, features, weight).normalise_locally(
        features, radius=radius, floor=floor, weight=weight, out=out, **options
    )
    return result


def mean_squared_slopes(features: FeatureMap, weight: Volume | None = None) -> Float[Tensor, " c"]:
    """Mean over the points, by weight, of the squared differences of neighbours along each axis, for each channel.

    A difference has the smaller weight of both points.
    """
    module = get_implementation(__name__, tensor_of(features), weight)
    if isinstance(features, FeatureRows) and module.__name__ != f"{__name__}.cpu":
        features = features.unpack()
    result: Float[Tensor, " c"] = module.mean_squared_slopes(features, weight)
    return result


def scale_channels(features: Channels, factors: Float[Tensor, " c"]) -> None:
    """Multiply each channel by a factor, in place."""
    get_implementation(__name__, features).scale_channels(features, factors)
