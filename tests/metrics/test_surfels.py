"""Surface distances as Learn2Reg counts them."""

from __future__ import annotations

import math

import l2r_oracle as oracle
import numpy as np
import pytest
import torch

from convexadam import InputError
from convexadam.metrics import hd95, hd95_area_weighted

GOLDEN = {
    0: (3.0, 3.0),
    1: (3.0, 3.0),
    2: (2.449489742783178, 3.1622776601683795),
    3: (3.0, 3.0),
}
"""Labels 1 and 2 of `noise(seed)`, by the package surface-distance 0.1, which Learn2Reg's evaluation uses."""


def noise(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    fixed, moved = np.random.default_rng(seed).integers(0, 3, (2, 6, 7, 5)).astype(np.uint8)
    fixed[:3] = 0
    return torch.from_numpy(fixed), torch.from_numpy(moved)


@pytest.mark.parametrize("seed", GOLDEN)
def test_equals_the_package_of_the_evaluation(seed: int) -> None:
    assert hd95_area_weighted(*noise(seed)) == pytest.approx(dict(zip((1, 2), GOLDEN[seed], strict=True)))


def test_surface_voxels_say_something_else() -> None:
    by_voxels = hd95(*noise(2), spacing_mm=(1.0, 1.0, 1.0))
    assert by_voxels[1] > hd95_area_weighted(*noise(2))[1] + 0.1


def test_solid_shapes_and_a_stray_voxel() -> None:
    fixed, moved = torch.zeros(2, 12, 10, 8, dtype=torch.int32)
    fixed[1:7, 2:8, 1:6] = 1
    moved[4:12, 3:6, 0:8] = 1
    fixed[9, 8, 6] = 1
    assert hd95_area_weighted(fixed, moved) == {1: 5.0}  # by surface-distance 0.1


@pytest.mark.parametrize("seed", range(6))
def test_equals_naive_loops(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    shape = tuple(rng.integers(1, 9, 3))
    fixed, moved = (rng.random(shape) < rng.uniform(0.1, 0.9) for _ in range(2))
    fixed[0, 0, 0] = moved[-1, -1, -1] = True
    found = hd95_area_weighted(torch.from_numpy(fixed.astype(np.uint8)), torch.from_numpy(moved.astype(np.uint8)))
    assert found == pytest.approx({1: oracle.hausdorff95(fixed, moved, True)})


def test_a_shift_is_its_length() -> None:
    fixed = torch.zeros(14, 12, 10, dtype=torch.uint8)
    fixed[2:8, 3:9, 2:8] = 7
    assert hd95_area_weighted(fixed, torch.roll(fixed, 3, dims=0)) == {7: 3.0}
    assert hd95_area_weighted(fixed, fixed) == {7: 0.0}


def test_one_voxel() -> None:
    fixed, moved = torch.zeros(2, 3, 3, 3, dtype=torch.uint8)
    fixed[0, 0, 0] = moved[2, 2, 2] = 1  # the nearest cubes between them are (1, 1, 1) and (2, 2, 2), the next further
    found = hd95_area_weighted(fixed, moved)[1]
    assert found == pytest.approx(2 * math.sqrt(3))  # of eight equal cubes the last is above 95 per cent


def test_absent_labels_and_wrong_maps() -> None:
    fixed, moved = torch.zeros(2, 4, 4, 4, dtype=torch.uint8)
    fixed[1, 1, 1] = 1
    assert math.isnan(hd95_area_weighted(fixed, moved)[1])
    assert list(hd95_area_weighted(fixed, moved, labels=(3, 2))) == [2, 3]
    with pytest.raises(InputError, match=r"fixed_labels must be of an integer type, got torch\.float32"):
        hd95_area_weighted(fixed.float(), moved)
