"""Images and labels on a working grid: their types and values."""

from __future__ import annotations

import pytest
import torch

from convexadam.geometry import Grid, Image
from convexadam.geometry.to_grid import resample_labels_to_grid, to_floating


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.uint8, torch.float64),
        (torch.bool, torch.float64),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_floating_point_types_of_at_least_32_bits_are_kept(given: torch.dtype, expected: torch.dtype) -> None:
    image = Image((torch.arange(24).reshape(1, 2, 3, 4) % 2).to(given), Grid((2, 3, 4)))
    found = to_floating(image)
    assert found.data.dtype == expected
    assert torch.equal(found.data.double(), image.data.double())
    assert (found is image) == (given == expected)


def test_labels_stay_whole_numbers_and_probabilities_are_interpolated() -> None:
    fine = Grid((4, 4, 4)).with_spacing((0.7, 0.7, 0.7))
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.int16)
    labels[:, :2] = 5
    found = resample_labels_to_grid(Image(labels, Grid((4, 4, 4))), fine)
    assert found.data.dtype == torch.int16
    assert set(found.data.unique().tolist()) == {0, 5}
    soft = resample_labels_to_grid(Image((labels == 5).float(), Grid((4, 4, 4))), fine)
    assert bool(((soft.data > 0.1) & (soft.data < 0.9)).any())
