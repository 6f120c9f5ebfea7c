"""The steps of a registration one by one give the result of `register`; the loop over levels is the same for all."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from textures import shifted_pair
from torso import QUICK, cubic_pair, second_order, thick_pair

from convexadam import Affine, ConvexSearch, Grid, Image, NativeGrid, Refinement, RegistrationConfig, preset, register
from convexadam.continuous import Adam, BilateralSmoothing, Compositional, Diffusion, Level, VolumePreserving
from convexadam.kernels.feature_level import ForwardBackward
from convexadam.registration.inputs import RegistrationInputs, parse_mask
from convexadam.registration.landmarks import parse_landmarks
from convexadam.registration.pipeline import (
    finish,
    initialise,
    make_transform,
    measure_similarity,
    refine,
    resample_to_working_grid,
    search,
)

BILATERAL = Compositional(total_smoothing=BilateralSmoothing(sigma=0.8))
SHORT = preset("default").with_settings("continuous.levels.0.iterations = 3")
FORWARD_LAST = Level(iterations=2), Level(spacing=1, iterations=2, forward_only=True)

CONFIGS: dict[str, RegistrationConfig] = {
    "default": SHORT,
    "published": preset("published").with_settings("continuous.levels.0.iterations = 3"),
    "symmetric": dataclasses.replace(SHORT, symmetric=True),
    "several levels": dataclasses.replace(QUICK, continuous=second_order(4, 2), symmetric=True),
    "forward only at last": dataclasses.replace(QUICK, symmetric=True, continuous=Refinement(levels=FORWARD_LAST)),
    "several searches": dataclasses.replace(
        QUICK, discrete=(ConvexSearch(spacing=6, radius=2), ConvexSearch(spacing=3, radius=1))
    ),
    "no search": dataclasses.replace(QUICK, discrete=None),
    "no refinement": dataclasses.replace(QUICK, continuous=None),
    "edges": dataclasses.replace(QUICK, continuous=dataclasses.replace(second_order(2), parametrisation=BILATERAL)),
    "volumes": dataclasses.replace(
        QUICK, continuous=dataclasses.replace(second_order(2), regularisers=(VolumePreserving(region="auto"),))
    ),
    "tolerance": dataclasses.replace(
        QUICK, continuous=Refinement(levels=(Level(iterations=40),), tolerance=0.05), symmetric=True
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_the_steps_one_by_one_are_a_registration(name: str) -> None:
    pair, config = (thick_pair() if name in ("default", "symmetric") else cubic_pair()), CONFIGS[name]
    mask = torch.ones(pair.fixed.grid.shape)
    mask[:6] = 0
    points = pair.fixed_landmarks_mm[:5], pair.moving_landmarks_mm[:5]
    options: Any = {"fixed_mask": mask, "fixed_landmarks": points[0], "moving_landmarks": points[1]}
    expected = register(pair.fixed, pair.moving, config, **options)
    inputs = RegistrationInputs(
        fixed=pair.fixed,
        moving=pair.moving,
        masks=(parse_mask(mask, pair.fixed, "fixed_mask"), None),
        landmarks=parse_landmarks(*points, None, (pair.fixed.grid, pair.moving.grid)),
    )
    with torch.no_grad():
        initialisation = initialise(inputs, config)
        working_pair = resample_to_working_grid(inputs, initialisation, config)
        fields, level = search(working_pair, working_pair.extract()[0])
        assert fields is not None
        for snapshot in refine(working_pair, fields):
            fields, level = snapshot.fields, snapshot.features
        similarity = measure_similarity(level, fields.forward)
        transform, inverse, diagnostics = finish(inputs, initialisation, config, working_pair.grid, fields)
        forward, _ = make_transform(inputs, initialisation, config, working_pair.grid, fields)
    assert torch.equal(transform.disp_mm, expected.transform.disp_mm)
    assert torch.equal(forward.disp_mm, transform.disp_mm)
    assert similarity | diagnostics == expected.diagnostics
    assert (
        (inverse is None) == (expected.estimated_inverse is None) == (not config.symmetric or fields.backward is None)
    )
    if inverse is not None:
        assert expected.estimated_inverse is not None
        grid = pair.moving.grid
        found, wanted = (t.to_displacement_field(grid).disp_mm for t in (inverse, expected.estimated_inverse))
        assert torch.equal(found, wanted)


class Scaled:
    """Features that use neighbouring voxels as little as intensities do."""

    def __call__(self, image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        return image.data.float() / 100


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "refinement",
    [
        Refinement(levels=(Level(spacing=2, iterations=5),), regularisers=(Diffusion(weight=0.2),)),
        dataclasses.replace(second_order(4, 2, 1), regularisers=(VolumePreserving(region="auto"),)),
        dataclasses.replace(second_order(2, 1), optimiser=Adam(learning_rate=0.3), tolerance=0.05),
    ],
    ids=["one level", "estimated volume mask", "tolerance"],
)
def test_a_refinement_of_features_is_that_of_a_registration(refinement: Refinement, masked: bool) -> None:
    fixed, moving = shifted_pair(Grid((24, 22, 20)), (1.5, -1.0, 0.5), (6.0, 16.0))
    mask = torch.ones(24, 22, 20)
    mask[:7] = 0
    config = RegistrationConfig(grid=NativeGrid(), linear=None, features=Scaled(), discrete=None, continuous=refinement)
    expected = register(fixed, moving, config, fixed_mask=mask if masked else None).transform.to_voxels()
    weight = {"fixed_weight": mask} if masked else {}
    with torch.no_grad():
        found = refinement(fixed.data / 100, moving.data / 100, **weight)
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # the registration converts to mm


def test_a_refinement_continues_from_fields_of_any_spacing() -> None:
    pair = cubic_pair()
    inputs = RegistrationInputs(fixed=pair.fixed, moving=pair.moving)
    with torch.no_grad():
        initialisation = initialise(inputs, QUICK)
        working_pair = resample_to_working_grid(inputs, initialisation, QUICK)
        fields, _ = search(working_pair, working_pair.extract()[0])
        assert fields is not None
        resampled = fields.resample((2, 2, 2), working_pair.grid.shape)
        first, second = (list(refine(working_pair, start))[-1].fields for start in (fields, resampled))
    assert fields.spacing == (4, 4, 4)
    assert torch.equal(first.forward, second.forward)


def test_without_a_refinement_there_are_no_snapshots() -> None:
    pair, config = cubic_pair(), CONFIGS["no refinement"]
    inputs = RegistrationInputs(fixed=pair.fixed, moving=pair.moving)
    with torch.no_grad():
        working_pair = resample_to_working_grid(inputs, initialise(inputs, config), config)
        zero = ForwardBackward(forward=torch.zeros(3, *working_pair.grid.shape))
        assert list(refine(working_pair, zero)) == []


def test_initialisation_without_alignment_is_the_given_transform() -> None:
    pair, shift = cubic_pair(), Affine()
    config = dataclasses.replace(QUICK, linear=None)
    found = initialise(RegistrationInputs(fixed=pair.fixed, moving=pair.moving, initial=shift), config)
    assert found.start is shift
    assert found.linear is None
    assert found.masks == (None, None)
