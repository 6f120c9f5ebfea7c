"""Separable symmetric filters with truncation at the border."""

from __future__ import annotations

from collections.abc import Sequence

from convexadam._typing import Channels, Shaped, Tensor, Volume
from convexadam.kernels._backend import get_implementation
from convexadam.kernels.smooth.reference import along_axes, smoothing_matrix

__all__ = ["along_axes", "smooth", "smoothing_matrix"]


def smooth(
    field: Channels,
    taps: Sequence[float],
    *,
    before: Volume | None = None,
    after: Volume | None = None,
    out: Channels | None = None,
    condition: Shaped[Tensor, ""] | None = None,
    keep: bool = False,
    spare: bool = False,
) -> Channels:
    """Compute ``after * T(before * field)``, with ``T`` a symmetric filter along each axis in turn.

    Taps outside the volume are omitted, so that ``T`` is self-adjoint, and exchanging ``before`` and ``after`` gives
    the adjoint operator. With ``after = 1 / T(before)`` the result is a weighted mean.

    Parameters
    ----------
    field
        ``[c, i, j, k]``.
    taps
        Filter coefficients, symmetric and odd in number.
    before, after
        Factors ``[i, j, k]``; ``None`` for 1.
    out
        Tensor to which the result is written, not ``field``; ``None`` for a new one.
    condition
        Truth value on the device, unless which ``out``, which must be given, keeps its values; ``None`` for true.
    keep
        Whether ``before * field`` is added to the result; with ``after = (1 - before) / T(before)`` it is a mean of the
        field and of its weighted mean.
    spare
        Whether ``field`` may be overwritten, which saves a GPU memory.

    Returns
    -------
    ``[c, i, j, k]``; ``out`` if given.
    """
    module = get_implementation(__name__, field, before, after, out)
    result: Channels = module.smooth(
        field, taps, before=before, after=after, out=out, condition=condition, keep=keep, spare=spare
    )
    return result
