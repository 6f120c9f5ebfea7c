"""How steps become a displacement: added up or composed."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from motions import Plain, smoothed

from convexadam.continuous import (
    Adam,
    BoxSmoothing,
    Compositional,
    Diffusion,
    Displacement,
    GaussianSmoothing,
    Level,
    Refinement,
    StationaryVelocity,
)
from convexadam.errors import ConfigError

SHAPE = (4, 3, 5)


def _evidence(seed: int = 9) -> torch.Tensor:
    """Random, and none for half of the nodes."""
    return (oracles.uniform(*SHAPE, seed=seed) - 0.5).clamp_min(0)


@pytest.mark.parametrize("evidence", [None, _evidence()])
@pytest.mark.parametrize("smoothing", [None, BoxSmoothing()])
def test_displacement_adds_steps_and_smooths_their_sum(smoothing: Any, evidence: Any) -> None:
    start, step = oracles.noise(3, *SHAPE), oracles.noise(3, *SHAPE, seed=1)
    motion = Displacement().begin(start, smoothing, evidence)
    expected = smoothed(start.numpy(), smoothing, evidence)
    np.testing.assert_allclose(motion.displacement.numpy(), expected, rtol=0, atol=1e-12)
    for _ in range(2):
        motion.move(step, Plain())
    parameters = start - 2 * _adjoint(step, smoothing, evidence)
    expected = smoothed(parameters.numpy(), smoothing, evidence)
    np.testing.assert_allclose(motion.displacement.numpy(), expected, rtol=0, atol=1e-12)


def _adjoint(field: torch.Tensor, smoothing: Any, evidence: torch.Tensor | None) -> torch.Tensor:
    """From ``<field, B(e)>`` for all unit vectors ``e``: the naive adjoint of a linear map."""
    found = torch.zeros_like(field)
    for at in np.ndindex(*SHAPE):
        unit = np.zeros((1, *SHAPE))
        unit[(0, *at)] = 1  # components do not mix
        response = smoothed(unit, smoothing, evidence)
        found[(slice(None), *at)] = torch.from_numpy((field.numpy() * response).sum((1, 2, 3)))
    return found


@pytest.mark.parametrize("update", [None, GaussianSmoothing(sigma=0.8)])
@pytest.mark.parametrize("whole", [None, GaussianSmoothing(sigma=0.7)])
def test_compositional_composes_short_smooth_steps(update: Any, whole: Any) -> None:
    start = oracles.noise(3, *SHAPE)
    motion = Compositional(field_smoothing=whole, largest_step=0.3).begin(start, update, None)
    assert torch.equal(motion.displacement, start)
    expected = start.numpy()
    for seed in (1, 2):
        direction = 0.4 * oracles.noise(3, *SHAPE, seed=seed)  # some nodes step further than 0.3, some do not
        motion.move(direction, Plain())
        step = -smoothed(direction.numpy(), update)
        length = np.sqrt((step**2).sum(0))
        assert length.min() < 0.3 < length.max()
        step = step * np.minimum(1, 0.3 / length)
        expected = smoothed(step + oracles.compose(expected, step), whole)
        np.testing.assert_allclose(motion.displacement.numpy(), expected, rtol=0, atol=1e-12)


def test_compositional_steps_are_the_same_with_and_without_evidence() -> None:
    start, direction = oracles.noise(3, *SHAPE), oracles.noise(3, *SHAPE, seed=1)
    plain, told = (Compositional().begin(start, BoxSmoothing(), evidence) for evidence in (None, _evidence()))
    for motion in (plain, told):
        motion.move(direction, Plain())
    assert torch.equal(plain.displacement, told.displacement)
    added = [Displacement().begin(start, BoxSmoothing(), evidence) for evidence in (None, _evidence())]
    assert not torch.equal(added[0].displacement, added[1].displacement)


def test_inputs_are_left_alone() -> None:
    start, direction = oracles.noise(3, *SHAPE), oracles.noise(3, *SHAPE, seed=1)
    evidence = _evidence()
    before = start.clone(), direction.clone()
    for parametrisation in (Displacement(), Compositional()):
        for smoothing in (None, BoxSmoothing()):
            motion = parametrisation.begin(start, smoothing, evidence)
            motion.move(direction, Plain())
            motion.move(direction, Plain())
    assert torch.equal(start, before[0])
    assert torch.equal(direction, before[1])
    assert torch.equal(evidence, _evidence())


def test_compositional_steps_hardly_fold_where_added_ones_do() -> None:
    # Noise against noise asks for a wild field.
    fixed, moving = oracles.noise(2, 10, 9, 8), oracles.noise(2, 10, 9, 8, seed=1)
    folded = []
    for smoothing, parametrisation in (
        (GaussianSmoothing(sigma=1.7), Compositional()),
        (GaussianSmoothing(sigma=0.7), Displacement()),
    ):
        refinement = Refinement(
            levels=(Level(spacing=1, iterations=15),),
            regularisers=(Diffusion(weight=0.0),),
            smoothing=smoothing,
            parametrisation=parametrisation,
        )
        folded.append(float((oracles.jacobian(refinement(fixed, moving).numpy()) <= 0).mean()))
    assert folded[0] < 0.01 < folded[1]


@pytest.mark.parametrize("parametrisation", [Displacement(), Compositional(field_smoothing=None)])
def test_either_finds_a_translation(parametrisation: Any) -> None:
    # Linear features, of which pooling and interpolation lose nothing.
    shift = torch.tensor([1.4, -1.0, 0.7], dtype=torch.float64).reshape(3, 1, 1, 1)
    ticks = torch.from_numpy(oracles.indices((11, 10, 9))) / 4
    refinement = Refinement(
        regularisers=(Diffusion(weight=0.1),), optimiser=Adam(learning_rate=0.1), parametrisation=parametrisation
    )
    # At a fixed rate Adam comes to rest within one step: a tenth of a node of two voxels.
    assert (refinement(ticks + shift / 4, ticks) - shift).abs().max() < 0.2


@pytest.mark.parametrize("largest_step", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [Compositional, StationaryVelocity])
def test_unusable_settings(kind: Any, largest_step: float) -> None:
    with pytest.raises(ConfigError, match="largest_step"):
        kind(largest_step=largest_step)


@pytest.mark.parametrize("kind", [Compositional, StationaryVelocity])
def test_a_field_smoothing_is_a_smoothing(kind: Any) -> None:
    parametrisation = kind()
    object.__setattr__(parametrisation, "field_smoothing", "x")  # past the type checks of the tests
    with pytest.raises(ConfigError, match="field_smoothing is a smoothing or None, but 'x' came"):
        parametrisation.__post_init__()
