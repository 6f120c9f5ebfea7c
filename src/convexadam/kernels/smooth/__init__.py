"""Separable smoothing, exact at borders: no energy leaks out of the volume."""

from __future__ import annotations

from collections.abc import Sequence

from convexadam._typing import Channels, Volume
from convexadam.kernels._backend import implementation
from convexadam.kernels.smooth.reference import along_axes, smoothing_matrix

__all__ = ["along_axes", "smooth", "smoothing_matrix"]


def smooth(
    field: Channels,
    taps: Sequence[float],
    *,
    before: Volume | None = None,
    after: Volume | None = None,
    out: Channels | None = None,
) -> Channels:
    """Return ``after * T(before * field)``, with ``T`` a symmetric filter along each axis in turn.

    Taps that fall outside the volume are left out, so that ``T`` is its own adjoint, and swapping ``before`` and
    ``after`` gives the adjoint of the whole. A mean comes out where ``after = 1 / T(before)``.

    Parameters
    ----------
    field
        ``[c, i, j, k]``.
    taps
        An odd number of weights, symmetric.
    before, after
        Factors ``[i, j, k]``; 1 where ``None``.
    out
        Where to write the result (not ``field`` itself); ``None`` takes new memory.

    Returns
    -------
    ``[c, i, j, k]``, ``out`` where it was given.
    """
    module = implementation(__name__, field, before, after, out)
    result: Channels = module.smooth(field, taps, before=before, after=after, out=out)
    return result
