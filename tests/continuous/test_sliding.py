"""Smoothing that stops at the edges of a guide, in a refinement."""

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
from convexadam.continuous.smoothing import GuidedSmoother, field_smoother
from convexadam.errors import ConfigError, InputError

SHAPE = (7, 6, 8)


@pytest.mark.parametrize(
    "wrong", [{"sigma": 0.0}, {"sigma_guide": -1.0}, {"sigma_field": 0.0}, {"sigma_guide": float("inf")}]
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        BilateralSmoothing(**wrong)


@pytest.mark.parametrize("sigma_field", [None, 0.7])
def test_is_the_kernel_with_a_window_of_two_standard_deviations(sigma_field: float | None) -> None:
    field, guide = oracles.noise(3, *SHAPE), oracles.uniform(2, *SHAPE, seed=1)
    smoothing = BilateralSmoothing(sigma=0.9, sigma_guide=0.3, sigma_field=sigma_field)
    expected = oracles.bilateral(
        field.numpy(), guide.numpy(), sigma_nodes=0.9, sigma_guide=0.3, sigma_field=sigma_field, radius=2
    )
    smoother = field_smoother(smoothing, field, guide)
    torch.testing.assert_close(smoother(field), torch.from_numpy(expected), rtol=0, atol=1e-12)
    out = torch.empty_like(field)
    assert smoother(field, out=out) is out
    torch.testing.assert_close(out, torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_without_edges_it_is_about_a_gaussian() -> None:
    field = oracles.noise(3, 12, 12, 12)
    found = field_smoother(BilateralSmoothing(sigma=0.8), field, torch.zeros(1, 12, 12, 12))(field)
    expected = field_smoother(GaussianSmoothing(sigma=0.8), field)(field)
    # beyond two standard deviations, here three nodes or more, lies less than 1 in 500 of the weight of an axis
    assert (found - expected).abs().max() < 3 * 0.005 * field.abs().max()


def test_without_a_guide_there_is_an_error() -> None:
    with pytest.raises(InputError, match=r"needs a guide with edges on \(7, 6, 8\) nodes, but none came"):
        field_smoother(BilateralSmoothing(), torch.zeros(3, *SHAPE))


def test_only_bilateral_smoothing_takes_the_guide() -> None:
    like, guide = torch.zeros(3, *SHAPE), torch.zeros(1, *SHAPE)
    assert isinstance(field_smoother(BilateralSmoothing(), like, guide), GuidedSmoother)
    assert not isinstance(field_smoother(GaussianSmoothing(), like, guide), GuidedSmoother)
    assert not isinstance(field_smoother(None, like, guide), GuidedSmoother)


def test_a_step_has_no_guide() -> None:
    for wrong in (Level, Refinement):
        with pytest.raises((ConfigError, jaxtyping.TypeCheckError), match="smoothing"):
            wrong(smoothing=BilateralSmoothing())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Compositional, StationaryVelocity])
@pytest.mark.parametrize("optimiser", [Adam(learning_rate=0.3), LevenbergMarquardt()])
def test_sides_of_an_edge_do_not_heed_each_other(kind: Any, optimiser: Any) -> None:
    # only the second half has reason to move, and steps stay on their nodes: all that reaches the first is smoothing
    fixed, moving = (oracles.noise(2, 8, 5, 5, seed=s).float() for s in (1, 2))
    moving[:, :4] = fixed[:, :4]
    guide = (torch.arange(8) < 4).float().reshape(1, 8, 1, 1).expand(1, 8, 5, 5)
    for field_smoothing in (BilateralSmoothing(sigma_guide=0.01), GaussianSmoothing(sigma=0.8)):
        bilateral = isinstance(field_smoothing, BilateralSmoothing)
        refine = Refinement(
            levels=(Level(spacing=1, iterations=1, field_smoothing=field_smoothing),),
            regularisers=(),
            smoothing=None,
            optimiser=optimiser,
            parametrisation=kind(field_smoothing=None),
        )
        assert refine.guided() == bilateral
        found = refine.on_nodes(fixed, moving, guide=guide)
        assert found[:, 4:].abs().max() > 0.01
        assert (found[:, :4].abs().max() < 1e-5) == bilateral  # rounding of samples


def test_voxels_of_a_guide_are_pooled() -> None:
    fixed, moving = (oracles.noise(2, 12, 8, 8, seed=s).float() for s in (1, 2))
    guide = oracles.uniform(1, 12, 8, 8).float()
    refine = Refinement(
        levels=(Level(spacing=2, iterations=3),), parametrisation=Compositional(field_smoothing=BilateralSmoothing())
    )
    blocks = guide.reshape(1, 6, 2, 4, 2, 4, 2).mean((2, 4, 6))
    pooled = [m.reshape(2, 6, 2, 4, 2, 4, 2).mean((2, 4, 6)) for m in (fixed, moving)]
    expected = refine.on_voxels(2 * refine.on_nodes(*pooled, guide=blocks), (2, 2, 2), (12, 8, 8))
    torch.testing.assert_close(refine(fixed, moving, guide=guide), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="guide"):
        refine(fixed, moving)
