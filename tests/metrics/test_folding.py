"""Regularity against hand-worked numbers and Learn2Reg's formula written out in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from convexadam.errors import InputError
from convexadam.metrics import folded_percent, folding, sdlogj, sdlogj_plain


def learn2reg_determinant(disp: np.ndarray) -> np.ndarray:
    """Zero-padded central differences in voxels, identity added, two voxels cropped; voxel by voxel."""
    shape = disp.shape[1:]
    padded = np.pad(disp, ((0, 0), (1, 1), (1, 1), (1, 1)))
    result = np.empty([n - 4 for n in shape])
    for i, j, k in np.ndindex(*result.shape):
        x, y, z = i + 3, j + 3, k + 3
        jacobian = np.eye(3)
        jacobian[:, 0] += 0.5 * (padded[:, x + 1, y, z] - padded[:, x - 1, y, z])
        jacobian[:, 1] += 0.5 * (padded[:, x, y + 1, z] - padded[:, x, y - 1, z])
        jacobian[:, 2] += 0.5 * (padded[:, x, y, z + 1] - padded[:, x, y, z - 1])
        result[i, j, k] = np.linalg.det(jacobian)
    return result


def rough_field(*shape: int, seed: int = 0, size: float = 1.5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, size, (3, *shape))


def test_equals_learn2reg() -> None:
    disp = rough_field(9, 11, 8)
    determinant = learn2reg_determinant(disp)
    field = torch.tensor(disp)
    assert folded_percent(field) == pytest.approx(100 * (determinant <= 0).mean())
    assert 10 < folded_percent(field) < 90  # the case tells something
    assert sdlogj(field) == pytest.approx(np.log(np.clip(determinant + 3, 1e-9, 1e9)).std())
    assert sdlogj_plain(field) == pytest.approx(np.log(determinant[determinant > 0]).std())


def test_mask_is_cropped_alike() -> None:
    disp = rough_field(9, 11, 8)
    mask = np.random.default_rng(1).integers(0, 3, (9, 11, 8))
    determinant = learn2reg_determinant(disp)[mask[2:-2, 2:-2, 2:-2] > 0]
    field, chosen = torch.tensor(disp), torch.tensor(mask)
    assert folded_percent(field, chosen) == pytest.approx(100 * (determinant <= 0).mean())
    assert sdlogj(field, chosen) == pytest.approx(np.log(np.clip(determinant + 3, 1e-9, 1e9)).std())
    assert sdlogj_plain(field, chosen) == pytest.approx(np.log(determinant[determinant > 0]).std())


def test_nothing_in_the_mask() -> None:
    field, mask = torch.zeros(3, 6, 6, 6), torch.zeros(6, 6, 6, dtype=torch.bool)
    mask[0, 0, 0] = True  # cropped away
    assert all(math.isnan(f(field, mask)) for f in (folded_percent, sdlogj, sdlogj_plain))


def test_linear_fields_by_hand() -> None:
    ramp = torch.zeros(3, 8, 8, 8)
    ramp[1] = torch.arange(8.0).reshape(1, 8, 1) * -1.5  # det = 1 - 1.5 everywhere: all folded
    assert folded_percent(ramp) == 100.0
    assert sdlogj(ramp) == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(sdlogj_plain(ramp))
    half = ramp.clone()
    half[1, 4:] = 0  # folded up to i = 3: along i nothing else varies, because component 1 has no part in axis 0
    assert folded_percent(half) == pytest.approx(50.0)


def test_collapse_counts_as_folded() -> None:
    flat = torch.zeros(3, 8, 8, 8)
    flat[0] = -torch.arange(8.0).reshape(8, 1, 1)  # det = 0
    assert folded_percent(flat) == 100.0


def test_translation_is_perfectly_regular() -> None:
    shift = torch.tensor([3.0, -2.0, 0.25]).reshape(3, 1, 1, 1).expand(3, 7, 6, 9)
    assert (folded_percent(shift), sdlogj(shift), sdlogj_plain(shift)) == (0.0, 0.0, 0.0)


def test_short_axes_are_kept_whole() -> None:
    field = torch.tensor(rough_field(4, 9, 1))
    determinant = folding.inner_determinant(field)
    assert determinant.shape == (4, 5, 1)
    mask = torch.ones(4, 9, 1)
    assert folded_percent(field, mask) == folded_percent(field)
    assert folding.inner_determinant(torch.zeros(3, 1, 1, 1)).tolist() == [[[1.0]]]


def test_half_precision_is_measured_in_double() -> None:
    field = torch.tensor(rough_field(8, 8, 8, size=0.05)).half()
    assert sdlogj(field) == sdlogj(field.double())
    assert not math.isnan(sdlogj(field))


def test_refuses_a_mask_of_another_shape() -> None:
    with pytest.raises((InputError, TypeCheckError)):
        sdlogj(torch.zeros(3, 6, 6, 6), torch.ones(6, 6, 5))
