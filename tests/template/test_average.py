"""Averages of intensities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convexadam import Image
from convexadam.template.average import RunningAverage, scale_intensity, sharpen


def test_means_and_deviations_with_weights() -> None:
    volumes, weights = torch.rand(5, 3, 4, 2), [1.0, 2.0, 0.5, 1.0, 3.0]
    average = RunningAverage(volumes[0])
    for volume, weight in zip(volumes, weights, strict=True):
        average.add(volume, weight)
    mean = np.average(volumes.numpy(), axis=0, weights=weights)
    spread = np.sqrt(np.average((volumes.numpy() - mean) ** 2, axis=0, weights=weights))
    assert average.find_mean().numpy() == pytest.approx(mean, abs=1e-6)
    assert average.find_deviation().numpy() == pytest.approx(spread, abs=1e-5)


def test_a_lesion_of_one_scan_leaves_little_trace() -> None:
    random = torch.Generator().manual_seed(0)
    centre = 0.5 + 0.2 * torch.rand(10, 10, 10, generator=random)
    volumes = [centre + 0.02 * torch.randn(10, 10, 10, generator=random) for _ in range(6)]
    volumes[3][2:4, 2:4, 2:4] = 2.0
    means = []
    for middle in (None, centre):
        average = RunningAverage(centre, middle)
        for volume in volumes:
            average.add(volume)
        means.append((average.find_mean() - centre)[2:4, 2:4, 2:4].mean())
    assert means[0] > 0.2
    assert means[1] < 0.1 * means[0]


def test_intensities_of_any_unit() -> None:
    data = torch.zeros(12, 12, 12)
    data[3:9, 3:9, 3:9] = 100 + torch.rand(6, 6, 6)
    found = [scale_intensity(Image.from_array(data * factor + shift)).data for factor, shift in ((1, 0), (30, -1000))]
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=0)
    assert float(found[0].max()) == pytest.approx(1, abs=0.02)
    assert not scale_intensity(Image.from_array(torch.full((4, 4, 4), 7.0))).data.any()


def test_sharpening_keeps_means_and_raises_contrast() -> None:
    data = torch.zeros(9, 9, 9)
    data[4] = 1
    assert torch.equal(sharpen(data, 0), data)
    assert float(sharpen(data, 1)[4, 4, 4]) > 1.5
    torch.testing.assert_close(sharpen(torch.ones(5, 5, 5), 1), torch.ones(5, 5, 5))
