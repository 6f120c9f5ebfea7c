"""Registrations after a linear alignment or a given transform, and the influence of masks and foregrounds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from phantoms import Case, case

from convexadam import (
    Affine,
    ConfigError,
    ConvexSearch,
    DisplacementField,
    Image,
    InputError,
    RegistrationConfig,
    RegistrationResult,
    compose,
    preset,
    register,
)
from convexadam.data import phantom_pair
from convexadam.linear import LinearAlignment
from convexadam.registration import AutoForeground

SMALL = (56, 48, 44)
QUICK = dataclasses.replace(preset(), discrete=ConvexSearch(spacing=4, radius=2))
ALONE = dataclasses.replace(QUICK, linear=None)


@pytest.fixture(scope="module")
def far() -> Case:
    return case(1, shape=SMALL, rotation_degrees=20, shift_mm=40, scale=0.1, same_box=False)


@pytest.fixture(scope="module")
def registered(far: Case) -> RegistrationResult:
    return register(far.fixed, far.moving, QUICK)


def error_mm(found: RegistrationResult, pair: Case) -> float:
    points = torch.from_numpy(pair.points_mm)
    return float((found.transform(points) - Affine(pair.truth)(points)).norm(dim=1).mean())


def test_the_linear_alignment_is_part_of_the_transform(far: Case, registered: RegistrationResult) -> None:
    assert registered.linear is not None
    assert registered.linear.model is not None
    assert far.error_mm(registered.linear.transform) < far.voxel_mm
    assert error_mm(registered, far) < 0.5 * far.voxel_mm
    assert error_mm(register(far.fixed, far.moving, ALONE), far) > 1.5 * error_mm(
        registered, far
    )  # the linear alignment helps
    assert registered.transform.grid.is_close(far.fixed.grid)
    report = registered.summary()["linear"]
    assert report["model"] == registered.linear.model
    np.testing.assert_array_equal(report["transform"], registered.linear.transform.matrix)


def test_an_affine_initial_transform(far: Case) -> None:
    given = Affine(far.truth)
    for form in (given, far.truth, torch.from_numpy(far.truth)):
        found = register(far.fixed, far.moving, ALONE, initial_transform=form)
        assert found.linear is None
        assert error_mm(found, far) < 0.5 * far.voxel_mm
    found = register(far.fixed, far.moving, QUICK, initial_transform=given)
    assert found.linear is not None
    assert found.linear.transform is given


def test_without_stages_the_result_is_the_initial_transform_on_the_fixed_grid(far: Case) -> None:
    nothing = dataclasses.replace(ALONE, discrete=None, continuous=None)
    found = register(far.fixed, far.moving, nothing, initial_transform=far.truth).transform
    expected = Affine(far.truth).to_displacement_field(far.fixed)
    torch.testing.assert_close(found.disp_mm, expected.disp_mm, atol=1e-4, rtol=0)


def test_a_displacement_field_as_initial_transform(far: Case) -> None:
    chain = compose(Affine(far.truth @ np.diag([1.0, 1.0, 1.0, 1.0])), Affine())
    field = chain.to_displacement_field(far.fixed)
    found = register(far.fixed, far.moving, QUICK, initial_transform=field)
    assert found.linear is None
    assert error_mm(found, far) < 0.5 * far.voxel_mm
    masks = {"fixed_mask": torch.ones(SMALL), "moving_mask": torch.ones(SMALL)}
    masked = register(far.fixed, far.moving, QUICK, initial_transform=field, **masks)
    assert error_mm(masked, far) < 0.5 * far.voxel_mm


@pytest.mark.parametrize("value", [3, [1, 2]])
def test_an_unusable_initial_transform(far: Case, value: Any) -> None:
    with pytest.raises(InputError, match=rf"initial_transform must be a transform, .*, got a {type(value).__name__}"):
        register(far.fixed, far.moving, QUICK, initial_transform=value)


def test_masks_exclude_a_corrupted_part() -> None:
    pair = phantom_pair((64, 52, 48), displacement_mm=10.0, seed=3)
    half = torch.zeros(pair.fixed.grid.shape, dtype=torch.uint8)
    half[30:] = 1
    noise = torch.randn(pair.moving.data.shape, generator=torch.Generator().manual_seed(0)) * 400
    bad = torch.where(half[None] > 0, pair.moving.data, noise)
    found = [
        register(pair.fixed, Image(data, pair.moving.grid), moving_mask=half, fixed_mask=half).transform.to_voxels()
        for data in (pair.moving.data, bad)
    ]
    difference = (found[0] - found[1]).norm(dim=0)[30:]
    assert float(difference.max()) < 0.1
    plain = register(pair.fixed, Image(bad, pair.moving.grid)).transform.to_voxels()
    assert float((plain - found[0]).norm(dim=0)[30:].max()) > 0.1


def test_floating_point_masks_are_weights() -> None:
    pair = phantom_pair((40, 36, 32), displacement_mm=10.0, seed=1)
    slope = torch.linspace(0.02, 1.0, 40)[:, None, None].expand(40, 36, 32).contiguous()
    soft, whole = (register(pair.fixed, pair.moving, ALONE, fixed_mask=w).transform for w in (slope, slope > 0))
    assert not torch.equal(soft.disp_mm, whole.disp_mm)
    with pytest.raises(InputError, match=r"fixed_mask must hold weights in \[0, 1\] .*, got values from 0 to 255"):
        register(pair.fixed, pair.moving, ALONE, fixed_mask=(slope > 0.5).float() * 255)


def test_the_foreground_of_a_phantom() -> None:
    pair = phantom_pair((64, 56, 48), contrasts=("ct", "t2"))
    for image, labels in ((pair.fixed, pair.fixed_labels), (pair.moving, pair.moving_labels)):
        mask = AutoForeground(margin_mm=0.0)(image)
        assert mask is not None
        inside = DisplacementField(torch.zeros(3, *image.grid.shape), image.grid).warp(mask, mode="nearest").data > 0
        assert inside[labels.data > 0].float().mean() > 0.95
        wide = AutoForeground(margin_mm=30.0)(image)
        assert wide is None or wide.data.sum() > mask.data.sum()
    found = register(pair.fixed, pair.moving, dataclasses.replace(ALONE, foreground=AutoForeground()))
    plain = register(pair.fixed, pair.moving, ALONE)
    assert found.diagnostics["overlap_percent"] < plain.diagnostics["overlap_percent"]


def test_a_given_mask_replaces_the_foreground() -> None:
    pair = phantom_pair((40, 36, 32))
    config = dataclasses.replace(ALONE, foreground=AutoForeground())
    masks = {"fixed_mask": torch.ones(40, 36, 32), "moving_mask": torch.ones(40, 36, 32)}
    one, two = (register(pair.fixed, pair.moving, c, **masks).transform.disp_mm for c in (config, ALONE))
    assert torch.equal(one, two)


def test_an_image_without_a_background_has_no_foreground() -> None:
    texture = torch.rand(1, 30, 30, 30, generator=torch.Generator().manual_seed(0))
    pair = phantom_pair((40, 36, 32))
    for image in (Image(texture, pair.fixed.grid.__class__((30, 30, 30))), _flat()):
        mask = AutoForeground()(image)
        assert mask is None or mask.data.float().mean() > 0.95


def _flat() -> Image:
    image = phantom_pair((24, 20, 16)).fixed
    return Image(torch.full_like(image.data, 7.0), image.grid)


def test_settings() -> None:
    with pytest.raises(ConfigError, match="margin_mm"):
        AutoForeground(margin_mm=-1)
    with pytest.raises(ConfigError, match=r"linear .*LinearAlignment or None.*'rigid'"):
        RegistrationConfig(linear="rigid")  # type: ignore[arg-type]
    assert preset("published").linear is None
    assert preset().linear == LinearAlignment()
