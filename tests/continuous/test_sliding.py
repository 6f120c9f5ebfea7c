"""Edge-preserving smoothing of a refinement."""

from __future__ import annotations

from typing import Any

import jaxtyping
import oracles
import pytest
import torch

from convexadam.continuous import (
    Adam,
    BilateralSmoothing,
    Compositional,
    GaussianSmoothing,
    Level,
    LevenbergMarquardt,
    Refinement,
    StationaryVelocity,
)
from convexadam.continuous.smoothing import GuidedSmoother, make_total_smoother
from convexadam.errors import ConfigError, InputError
from convexadam.kernels.feature_level import FeatureLevel

SHAPE = (7, 6, 8)


@pytest.mark.parametrize(
    "wrong", [{"sigma": 0.0}, {"sigma_guide": -1.0}, {"sigma_field": 0.0}, {"sigma_guide": float("inf")}]
)
def test_settings_out_of_range_raise(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        BilateralSmoothing(**wrong)


@pytest.mark.parametrize("sigma_field", [None, 0.7])
def test_equals_the_kernel_with_a_window_of_two_standard_deviations(sigma_field: float | None) -> None:
    field, guide = oracles.noise(3, *SHAPE), oracles.uniform(2, *SHAPE, seed=1)
    smoothing = BilateralSmoothing(sigma=0.9, sigma_guide=0.3, sigma_field=sigma_field)
    expected = oracles.bilateral(
        field.numpy(), guide.numpy(), sigma=0.9, sigma_guide=0.3, sigma_field=sigma_field, radius=2
    )
    smoother = make_total_smoother(smoothing, field, guide)
    torch.testing.assert_close(smoother(field), torch.from_numpy(expected), rtol=0, atol=1e-12)
    out = torch.empty_like(field)
    assert smoother(field, out=out) is out
    torch.testing.assert_close(out, torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_without_edges_it_is_close_to_a_gaussian() -> None:
    field = oracles.noise(3, 12, 12, 12)
    found = make_total_smoother(BilateralSmoothing(sigma=0.8), field, torch.zeros(1, 12, 12, 12))(field)
    expected = make_total_smoother(GaussianSmoothing(sigma=0.8), field)(field)
    # less than 1 in 500 of the weight along an axis is beyond two standard deviations, here three control points
    assert (found - expected).abs().max() < 3 * 0.005 * field.abs().max()


def test_a_missing_guide_raises() -> None:
    with pytest.raises(InputError, match=r"guide .*\(7, 6, 8\).* none"):
        make_total_smoother(BilateralSmoothing(), torch.zeros(3, *SHAPE))


def test_only_bilateral_smoothing_uses_the_guide() -> None:
    like, guide = torch.zeros(3, *SHAPE), torch.zeros(1, *SHAPE)
    assert isinstance(make_total_smoother(BilateralSmoothing(), like, guide), GuidedSmoother)
    assert not isinstance(make_total_smoother(GaussianSmoothing(), like, guide), GuidedSmoother)
    assert not isinstance(make_total_smoother(None, like, guide), GuidedSmoother)


def test_update_smoothing_cannot_be_bilateral() -> None:
    for kind in (Level, Refinement):
        with pytest.raises((ConfigError, jaxtyping.TypeCheckError), match="update_smoothing"):
            kind(update_smoothing=BilateralSmoothing())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Compositional, StationaryVelocity])
@pytest.mark.parametrize("optimiser", [Adam(learning_rate=0.3), LevenbergMarquardt()])
def test_displacements_are_not_smoothed_across_an_edge(kind: Any, optimiser: Any) -> None:
    # only the second half differs, and updates are not smoothed: the first half can move by total smoothing alone
    fixed, moving = (oracles.noise(2, 8, 5, 5, seed=s).float() for s in (1, 2))
    moving[:, :4] = fixed[:, :4]
    guide = (torch.arange(8) < 4).float().reshape(1, 8, 1, 1).expand(1, 8, 5, 5)
    for total_smoothing in (BilateralSmoothing(sigma_guide=0.01), GaussianSmoothing(sigma=0.8)):
        bilateral = isinstance(total_smoothing, BilateralSmoothing)
        refine = Refinement(
            levels=(Level(spacing=1, iterations=1, total_smoothing=total_smoothing),),
            regularisers=(),
            update_smoothing=None,
            optimiser=optimiser,
            parametrisation=kind(total_smoothing=None),
        )
        assert refine.needs_guide() == bilateral
        found = refine.refine_level(FeatureLevel(fixed=fixed, moving=moving, fixed_guide=guide))
        assert found[:, 4:].abs().max() > 0.01
        assert (found[:, :4].abs().max() < 1e-5) == bilateral  # rounding of the interpolation


def test_a_guide_on_voxels_is_pooled() -> None:
    fixed, moving = (oracles.noise(2, 12, 8, 8, seed=s).float() for s in (1, 2))
    guide = oracles.uniform(1, 12, 8, 8).float()
    refine = Refinement(
        levels=(Level(spacing=2, iterations=3),), parametrisation=Compositional(total_smoothing=BilateralSmoothing())
    )
    blocks = guide.reshape(1, 6, 2, 4, 2, 4, 2).mean((2, 4, 6))
    pooled = [m.reshape(2, 6, 2, 4, 2, 4, 2).mean((2, 4, 6)) for m in (fixed, moving)]
    level = FeatureLevel(fixed=pooled[0], moving=pooled[1], fixed_guide=blocks, spacing=(2, 2, 2))
    expected = refine.upsample(2 * refine.refine_level(level), (2, 2, 2), (12, 8, 8))
    torch.testing.assert_close(refine(fixed, moving, guide=guide), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="guide"):
        refine(fixed, moving)
