"""Additive and compositional parametrisations."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from motions import GradientDescent, smooth

from convexadam.continuous import (
    Adam,
    Additive,
    BoxSmoothing,
    Compositional,
    Diffusion,
    GaussianSmoothing,
    Level,
    Refinement,
    StationaryVelocity,
)
from convexadam.errors import ConfigError

SHAPE = (4, 3, 5)


def _weight(seed: int = 9) -> torch.Tensor:
    """Random, and 0 for half of the control points."""
    return (oracles.uniform(*SHAPE, seed=seed) - 0.5).clamp_min(0)


@pytest.mark.parametrize("weight", [None, _weight()])
@pytest.mark.parametrize("smoothing", [None, BoxSmoothing()])
def test_additive_smooths_the_sum_of_the_steps(smoothing: Any, weight: Any) -> None:
    start, step = oracles.noise(3, *SHAPE), oracles.noise(3, *SHAPE, seed=1)
    state = Additive().initialise(start, smoothing, weight)
    expected = smooth(start.numpy(), smoothing, weight)
    np.testing.assert_allclose(state.displacement.numpy(), expected, rtol=0, atol=1e-12)
    for _ in range(2):
        state.move(step, GradientDescent())
    parameters = start - 2 * _adjoint(step, smoothing, weight)
    expected = smooth(parameters.numpy(), smoothing, weight)
    np.testing.assert_allclose(state.displacement.numpy(), expected, rtol=0, atol=1e-12)


def _adjoint(field: torch.Tensor, smoothing: Any, weight: torch.Tensor | None) -> torch.Tensor:
    """From ``<field, B(e)>`` for all unit vectors ``e``: the naive adjoint of a linear map."""
    found = torch.zeros_like(field)
    for at in np.ndindex(*SHAPE):
        unit = np.zeros((1, *SHAPE))
        unit[(0, *at)] = 1  # components do not mix
        response = smooth(unit, smoothing, weight)
        found[(slice(None), *at)] = torch.from_numpy((field.numpy() * response).sum((1, 2, 3)))
    return found


@pytest.mark.parametrize("update", [None, GaussianSmoothing(sigma=0.8)])
@pytest.mark.parametrize("whole", [None, GaussianSmoothing(sigma=0.7)])
def test_compositional_composes_short_smooth_steps(update: Any, whole: Any) -> None:
    start = oracles.noise(3, *SHAPE)
    state = Compositional(total_smoothing=whole, max_step=0.3).initialise(start, update, None)
    assert torch.equal(state.displacement, start)
    expected = start.numpy()
    for seed in (1, 2):
        direction = 0.4 * oracles.noise(3, *SHAPE, seed=seed)  # steps longer and shorter than 0.3
        state.move(direction, GradientDescent())
        step = -smooth(direction.numpy(), update)
        length = np.sqrt((step**2).sum(0))
        assert length.min() < 0.3 < length.max()
        step = step * np.minimum(1, 0.3 / length)
        expected = smooth(step + oracles.compose(expected, step), whole)
        np.testing.assert_allclose(state.displacement.numpy(), expected, rtol=0, atol=1e-12)


def test_compositional_steps_do_not_depend_on_the_weight() -> None:
    start, direction = oracles.noise(3, *SHAPE), oracles.noise(3, *SHAPE, seed=1)
    plain, weighted = (Compositional().initialise(start, BoxSmoothing(), weight) for weight in (None, _weight()))
    for state in (plain, weighted):
        state.move(direction, GradientDescent())
    assert torch.equal(plain.displacement, weighted.displacement)
    additive = [Additive().initialise(start, BoxSmoothing(), weight) for weight in (None, _weight())]
    assert not torch.equal(additive[0].displacement, additive[1].displacement)


def test_inputs_are_not_modified() -> None:
    start, direction = oracles.noise(3, *SHAPE), oracles.noise(3, *SHAPE, seed=1)
    weight = _weight()
    before = start.clone(), direction.clone()
    for parametrisation in (Additive(), Compositional()):
        for smoothing in (None, BoxSmoothing()):
            state = parametrisation.initialise(start, smoothing, weight)
            state.move(direction, GradientDescent())
            state.move(direction, GradientDescent())
    assert torch.equal(start, before[0])
    assert torch.equal(direction, before[1])
    assert torch.equal(weight, _weight())


def test_compositional_steps_hardly_fold_and_additive_ones_do() -> None:
    # noise registered to other noise gives rough fields
    fixed, moving = oracles.noise(2, 10, 9, 8), oracles.noise(2, 10, 9, 8, seed=1)
    folded = []
    for smoothing, parametrisation in (
        (GaussianSmoothing(sigma=1.7), Compositional()),
        (GaussianSmoothing(sigma=0.7), Additive()),
    ):
        refinement = Refinement(
            levels=(Level(spacing=1, iterations=15),),
            regularisers=(Diffusion(weight=0.0),),
            update_smoothing=smoothing,
            parametrisation=parametrisation,
        )
        folded.append(float((oracles.jacobian(refinement(fixed, moving).numpy()) <= 0).mean()))
    assert folded[0] < 0.01 < folded[1]


@pytest.mark.parametrize("parametrisation", [Additive(), Compositional(total_smoothing=None)])
def test_both_find_a_translation(parametrisation: Any) -> None:
    # pooling and interpolation of linear features are exact
    shift = torch.tensor([1.4, -1.0, 0.7], dtype=torch.float64).reshape(3, 1, 1, 1)
    ticks = torch.from_numpy(oracles.indices((11, 10, 9))) / 4
    refinement = Refinement(
        regularisers=(Diffusion(weight=0.1),), optimiser=Adam(learning_rate=0.1), parametrisation=parametrisation
    )
    # with a fixed learning rate Adam ends within one step: a tenth of a control point of two voxels
    assert (refinement(ticks + shift / 4, ticks) - shift).abs().max() < 0.2


@pytest.mark.parametrize("max_step", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [Compositional, StationaryVelocity])
def test_unusable_settings(kind: Any, max_step: float) -> None:
    with pytest.raises(ConfigError, match="max_step"):
        kind(max_step=max_step)


@pytest.mark.parametrize("kind", [Compositional, StationaryVelocity])
def test_total_smoothing_must_be_a_smoothing(kind: Any) -> None:
    parametrisation = kind()
    object.__setattr__(parametrisation, "total_smoothing", "x")  # bypasses the type checks of the tests
    with pytest.raises(ConfigError, match=r"total_smoothing .* or None, .*'x'"):
        parametrisation.__post_init__()
