"""Whether two images have one contrast, so that a picture of their difference means something."""

from __future__ import annotations

import numpy as np

_SAME_CONTRAST = 0.94
"""Share of what any function of the other intensities explains that a linear one must explain, for one contrast."""

_BINS = 32


def have_one_contrast(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether the intensities of two images are related linearly, so that their difference means something.

    The squared correlation is compared with the correlation ratio, the share of the variance that any function of the
    other intensities explains (Roche et al., MICCAI 1998).
    """
    spreads = float(first.std()), float(second.std())
    if len(first) < _BINS or min(spreads) == 0:
        return False
    squared = float(np.corrcoef(first, second)[0, 1] ** 2)
    ratios = correlation_ratio(first, second), correlation_ratio(second, first)
    return squared >= _SAME_CONTRAST * max(ratios)


def correlation_ratio(given: np.ndarray, explained: np.ndarray) -> float:
    """Compute the share of the variance of values that the mean in each of 32 equal bins of other values explains."""
    bins = np.empty(len(given), np.intp)
    bins[np.argsort(given, kind="stable")] = np.arange(len(given)) * _BINS // len(given)
    counts = np.bincount(bins, minlength=_BINS)
    means = np.bincount(bins, weights=explained, minlength=_BINS) / counts
    return float((counts * (means - explained.mean()) ** 2).sum() / (len(given) * explained.var()))
