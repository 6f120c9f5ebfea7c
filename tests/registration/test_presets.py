"""Presets: the one for all images, and how smooth their fields are."""

from __future__ import annotations

import dataclasses

import pytest

from convexadam import preset, register
from convexadam.continuous import Diffusion, GaussianSmoothing
from convexadam.data import PhantomPair, phantom_pair
from convexadam.errors import ConfigError
from convexadam.metrics import evaluate_transform

SHAPE = (32, 28, 24)


@pytest.fixture(scope="module", params=[("ct", "ct"), ("ct", "t1")], ids=["one contrast", "two contrasts"])
def pair(request: pytest.FixtureRequest) -> PhantomPair:
    return phantom_pair(SHAPE, contrasts=request.param, displacement_mm=25)


def test_best_registers_one_and_two_contrasts(pair: PhantomPair) -> None:
    result = register(pair.fixed, pair.moving, preset("best"))
    after, before = (
        (points(pair) - pair.moving_landmarks_mm).norm(dim=1).mean()
        for points in (lambda p: result.transform(p.fixed_landmarks_mm), lambda p: p.fixed_landmarks_mm)
    )
    assert after < 0.5 * before
    assert result.diagnostics["jacobian_min"] > 0
    there = result.transform(pair.fixed_landmarks_mm)
    assert (result.inverse()(there) - pair.fixed_landmarks_mm).norm(dim=1).mean() < 1.0


def test_smoothness_makes_fields_smoother() -> None:
    pair = phantom_pair(SHAPE, displacement_mm=25)
    rough, smooth = (
        evaluate_transform(
            register(pair.fixed, pair.moving, preset("best", smoothness=factor)).transform,
            fixed_labels=pair.fixed_labels,
            moving_labels=pair.moving_labels,
            surface=False,
        )["sdlogj"]
        for factor in (0.7, 1.5)
    )
    assert smooth < 0.8 * rough


def test_smoothness_multiplies_widths_and_weights() -> None:
    assert preset("best", smoothness=1.0) == preset("best")
    assert preset("published", smoothness=2.0).continuous.regularisers == (Diffusion(weight=5.0),)  # type: ignore[union-attr]
    once, twice = (preset("best", smoothness=s).continuous for s in (1.0, 2.0))
    for one, other in ((once, twice), (once.different_contrasts, twice.different_contrasts)):  # type: ignore[union-attr]
        for level, smoother in zip(one.levels, other.levels, strict=True):
            assert smoother.update_smoothing == GaussianSmoothing(sigma=2 * level.update_smoothing.sigma)
            total = level.total_smoothing
            assert smoother.total_smoothing == dataclasses.replace(total, sigma=2 * total.sigma)
    assert preset("rigid", smoothness=2.0) == preset("rigid")


@pytest.mark.parametrize("smoothness", [0.0, -1.0, float("inf")])
def test_smoothness_must_be_positive(smoothness: float) -> None:
    with pytest.raises(ConfigError, match="smoothness must be a finite number above 0"):
        preset(smoothness=smoothness)
