"""Averages of the intensities of scans on the grid of a template."""

from __future__ import annotations

import torch

from convexadam._typing import Volume
from convexadam.geometry import Image

FOREGROUND = 0.1
"""Intensity of a scan or template, of about 1 in bright tissue, above which it counts for shape and change."""

_BRIGHT = 0.99
"""Quantile of the foreground that is scaled to 1."""

_TUNING = 1.345
"""Residual, in standard deviations, from which weights fall: 95 % of the efficiency of the mean for normal errors."""


def scale_intensity(image: Image) -> Image:
    """Scale intensities so that the darkest background is 0 and the bright foreground 1."""
    data = image.data[:1].float()
    low = data.min()
    values = (data - low).flatten()
    foreground = values[values > 0.1 * values.mean()]
    if len(foreground) == 0:
        return Image(torch.zeros_like(data), image.grid)
    high = foreground.kthvalue(max(1, int(_BRIGHT * len(foreground)))).values
    return Image((data - low) / high.clamp_min(torch.finfo(torch.float32).tiny), image.grid)


class RunningAverage:
    """A weighted mean and standard deviation of volumes that come one after the other.

    With a centre, each value is weighted by its distance to it, as Huber does: 1 up to 1.345 standard deviations of all
    differences, and inversely to the distance beyond, so that lesions of single scans leave little trace.
    """

    def __init__(self, like: Volume, centre: Volume | None = None) -> None:
        self._weight = torch.zeros_like(like, dtype=torch.float64)
        self._sum, self._squares = self._weight.clone(), self._weight.clone()
        self._centre = centre

    def add(self, volume: Volume, weight: float = 1.0) -> None:
        """Add a volume."""
        weights = torch.full_like(volume, weight)
        if self._centre is not None:
            distance = (volume - self._centre).abs_()
            part = tuple(slice(None, None, max(1, min(2, n // 32))) for n in volume.shape)
            inside = distance[part][self._centre[part] > 0]
            spread = 1.4826 * inside.median() if len(inside) else distance.max()
            weights *= (_TUNING * spread / distance.clamp_min_(1e-12)).clamp_max_(1)
        self._weight += weights
        weights *= volume
        self._sum += weights  # float64: the order of the scans makes no difference
        self._squares += weights.mul_(volume)

    def find_mean(self) -> Volume:
        """Return the mean."""
        mean: Volume = (self._sum / self._weight.clamp_min(1e-30)).float()
        return mean

    def find_deviation(self) -> Volume:
        """Return the standard deviation."""
        mean = self._sum / self._weight.clamp_min(1e-30)
        variance = self._squares / self._weight.clamp_min(1e-30) - mean * mean
        deviation: Volume = variance.clamp_min(0).sqrt().float()
        return deviation


def sharpen(volume: Volume, amount: float) -> Volume:
    """Add ``amount`` times the difference of a volume from its mean over 3 x 3 x 3 voxels (unsharp mask)."""
    padded = torch.nn.functional.pad(volume[None, None], (1,) * 6, mode="replicate")
    smooth = torch.nn.functional.avg_pool3d(padded, 3, stride=1)[0, 0]
    sharp: Volume = (volume + amount * (volume - smooth)).clamp_min(0)
    return sharp
