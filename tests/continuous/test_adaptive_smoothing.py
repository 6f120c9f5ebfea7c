"""Smoothing of a whole field that spares control points with contrast."""

from __future__ import annotations

from typing import Any

import oracles
import pytest
import torch

from convexadam.continuous import (
    Adam,
    AdaptiveSmoothing,
    Compositional,
    GaussianSmoothing,
    GaussNewton,
    JointSsd,
    Level,
    Lncc,
    Part,
    Refinement,
    Ssd,
    StationaryVelocity,
)
from convexadam.continuous.smoothing import make_total_smoother
from convexadam.errors import ConfigError, InputError
from convexadam.kernels.feature_level import FeatureLevel

SHAPE = (7, 6, 8)


@pytest.mark.parametrize("wrong", [{"sigma": 0.0}, {"sigma": 1e6}, {"curvature": 0.0}, {"curvature": float("nan")}])
def test_settings_out_of_range_raise(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AdaptiveSmoothing(**wrong)


def test_equals_its_formula() -> None:
    field, curvature = oracles.noise(3, *SHAPE), oracles.uniform(*SHAPE, seed=1, low=0.0, high=9.0)
    curvature[:2] = 0
    taps = GaussianSmoothing(sigma=0.9).taps()
    confidence = (curvature / (curvature + 1.5)).clamp_min(0.02)
    mean = torch.from_numpy(oracles.smooth(field.numpy(), taps, confidence.numpy()))
    expected = confidence * field + (1 - confidence) * mean
    smoother = make_total_smoother(
        AdaptiveSmoothing(sigma=0.9, curvature=1.5), field, curvature[None] / curvature.numel()
    )
    torch.testing.assert_close(smoother(field), expected, rtol=0, atol=1e-12)
    out = torch.empty_like(field)
    assert smoother(field, out=out) is out
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def test_constants_are_kept() -> None:
    curvature = oracles.uniform(1, *SHAPE, low=0.0, high=5.0)
    smoother = make_total_smoother(AdaptiveSmoothing(), torch.zeros(3, *SHAPE, dtype=torch.float64), curvature)
    ones = torch.ones(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(smoother(ones), ones, rtol=1e-12, atol=0)


def test_what_has_no_contrast_follows_what_has() -> None:
    field = torch.zeros(3, 9, 9, 9)
    field[:, 4:] = 1.0
    curvature = torch.zeros(1, 9, 9, 9)
    curvature[:, 4:] = 100.0 / 9**3
    found = make_total_smoother(AdaptiveSmoothing(sigma=0.9, curvature=2.0), field, curvature)(field)
    plain = make_total_smoother(GaussianSmoothing(sigma=0.9), field)(field)
    assert (found[:, 3] > 0.9).all()  # next to the edge, on the side without contrast
    assert (found[:, 4] > 0.99).all()
    assert (plain[:, 3] < 0.5).all()


@pytest.mark.parametrize(("guide", "got"), [(None, "none"), (torch.zeros(2, *SHAPE), r"\(2, 7, 6, 8\)")])
def test_needs_the_curvature_as_one_channel(guide: torch.Tensor | None, got: str) -> None:
    with pytest.raises(InputError, match=rf"guide .*AdaptiveSmoothing, got .*{got}; pass the curvature"):
        make_total_smoother(AdaptiveSmoothing(), torch.zeros(3, *SHAPE), guide)


@pytest.mark.parametrize("kind", [Compositional, StationaryVelocity])
@pytest.mark.parametrize("optimiser", [Adam(learning_rate=0.3), GaussNewton()])
@pytest.mark.parametrize("similarity", [Ssd(), Lncc(), JointSsd(parts=(Part(channels=2),))])
def test_acts_in_a_level_on_the_curvature_of_its_similarity(kind: Any, optimiser: Any, similarity: Any) -> None:
    fixed, moving = (oracles.noise(2, 9, 8, 7, seed=s).float() for s in (1, 2))
    fixed[:, :3] = moving[:, :3] = 0  # no contrast
    level = FeatureLevel(fixed=fixed, moving=moving)

    def refine(**settings: Any) -> torch.Tensor:
        level_settings = Level(spacing=1, iterations=2, total_smoothing=AdaptiveSmoothing(**settings))
        return Refinement(
            levels=(level_settings,),
            regularisers=(),
            update_smoothing=None,
            optimiser=optimiser,
            parametrisation=kind(total_smoothing=None),
            similarity=similarity,
        ).refine_level(level)

    assert not Refinement(levels=(Level(total_smoothing=AdaptiveSmoothing()),)).needs_guide()
    little, much = refine(curvature=1e-9), refine(curvature=1e9)
    change = (little - much).abs()
    assert change[:, 5:].max() > 0.01  # where there is contrast, hardly any smoothing and plenty
    assert change[:, 0].max() <= change[:, 5:].max()


def test_the_unit_does_not_depend_on_the_number_of_points() -> None:
    fixed, moving = (oracles.noise(1, 6, 5, 4, seed=s).float() for s in (1, 2))
    wide = [torch.cat([m, torch.zeros(1, 18, 5, 4)], 1) for m in (fixed, moving)]
    refine = Refinement(
        levels=(Level(spacing=1, iterations=1, total_smoothing=AdaptiveSmoothing(sigma=0.4)),),
        regularisers=(),
        update_smoothing=None,
        optimiser=GaussNewton(damping=1e-6),
        parametrisation=Compositional(),
    )
    small = refine.refine_level(FeatureLevel(fixed=fixed, moving=moving))
    large = refine.refine_level(FeatureLevel(fixed=wide[0], moving=wide[1]))
    torch.testing.assert_close(small[:, :4], large[:, :4], rtol=1e-3, atol=1e-4)
