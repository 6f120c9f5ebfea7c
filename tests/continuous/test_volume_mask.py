"""Soft masks of the region whose volume changes unlike the rest."""

from __future__ import annotations

import math
from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch

from convexadam.continuous import GaussianSmoothing, volume_mask
from convexadam.errors import ConfigError, InputError
from convexadam.kernels.jacobian import jacobian_determinant

SHAPE = (42, 36, 46)
CENTRE = torch.tensor([18.0, 20.0, 24.0], dtype=torch.float64).reshape(3, 1, 1, 1)
RADIUS = 6.0


def _from_centre() -> torch.Tensor:
    return torch.from_numpy(oracles.indices(SHAPE)) - CENTRE


def _distance() -> torch.Tensor:
    return _from_centre().norm(dim=0) / RADIUS


def _shrunken_ball(factor: float = 0.7) -> torch.Tensor:
    """A ball whose edges are ``factor`` times as long; the change fades out at twice its radius."""
    fading = (2 - _distance()).clamp(0, 1)
    return (factor - 1) * _from_centre() * fading.square() * (3 - 2 * fading)


def _waves(height: float = 0.5) -> torch.Tensor:
    """Waves along all axes, each longer than the ball is wide; they change volumes by up to a quarter."""
    x = torch.from_numpy(oracles.indices(SHAPE))
    phases = oracles.uniform(3, 3, high=2 * math.pi)
    parts = [torch.sin(2 * math.pi * x[b] / (30 + 5 * a + 2 * b) + phases[a, b]) for a in range(3) for b in range(3)]
    return height * torch.stack(parts).reshape(3, 3, *SHAPE).sum(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_ball_that_changes_volume_is_found(dtype: torch.dtype, factor: float) -> None:
    found = volume_mask((_waves() + _shrunken_ball(factor)).to(dtype))
    assert found.dtype == dtype
    assert 0 <= found.min() <= found.max() <= 1
    assert found[_distance() < 0.7].min() > 0.99
    # the change of volume around the ball compensates for it; beyond, hardly any is as large
    far = found[_distance() > 2.5]
    assert (far > 0.5).double().mean() < 0.05
    assert (far == 0).double().mean() > 0.85


def test_smooth_motion_alone_is_hardly_in_the_mask() -> None:
    assert jacobian_determinant(_waves()).log().abs().max() > 0.2
    assert volume_mask(_waves()).mean() < 0.05
    assert not volume_mask(0.02 * _waves()).any()  # changes below 2 % never are


def test_without_other_motion_only_the_ball_is_found() -> None:
    found = volume_mask(_shrunken_ball())
    assert found[_distance() < 0.7].min() == 1
    assert not found[_distance() > 2 + 6.5 / RADIUS].any()  # beyond the support of the Gaussian


def test_a_global_change_of_size_does_not_count() -> None:
    grown = 0.2 * _from_centre()
    assert not volume_mask(grown).any()
    plain, larger = (volume_mask(u) for u in (_waves() + _shrunken_ball(), _waves() + _shrunken_ball() + grown))
    assert larger[_distance() < 0.7].min() > 0.99
    assert (larger - plain).abs().mean() < 0.05


@pytest.mark.parametrize("settings", [{}, {"sigma": 0.8, "low": 0.5, "high": 1.5}])
def test_equals_the_formula(settings: dict[str, Any]) -> None:
    field = 0.3 * oracles.noise(3, 5, 7, 9)  # an odd number of control points, so that the median is one of them
    sigma, low, high = (settings.get(*default) for default in (("sigma", 1.5), ("low", 2.0), ("high", 4.0)))
    change = np.log(np.maximum(oracles.jacobian(field.numpy()), 0.05))
    assert (oracles.jacobian(field.numpy()) < 0.05).any()
    mean = oracles.smooth(change[None], GaussianSmoothing(sigma=sigma).taps())[0]
    deviation = np.abs(mean - np.median(mean))
    t = (deviation / (1.4826 * np.median(deviation)) - low) / (high - low)
    expected = np.where(t <= 0, 0, np.where(t >= 1, 1, t**2 * (3 - 2 * t)))
    np.testing.assert_allclose(volume_mask(field, **settings).numpy(), expected, rtol=0, atol=1e-10)
    assert settings == {} or 0.05 < expected.mean() < 0.95


def test_values_outside_the_mask_have_no_influence() -> None:
    motion = _waves() + _shrunken_ball()
    mask = torch.ones(SHAPE)
    mask[:, :6] = 0
    wild = motion.clone()
    wild[:, :, :5] += 5 * oracles.noise(
        3, SHAPE[0], 5, SHAPE[2]
    )  # the derivatives at the edge of the mask do not use these values
    found = volume_mask(wild, mask=mask)
    assert torch.equal(found, volume_mask(motion, mask=mask))
    assert not found[:, :6].any()
    assert found[_distance() < 0.7].min() > 0.99
    full = volume_mask(motion, mask=torch.ones(SHAPE))
    torch.testing.assert_close(full, volume_mask(motion))


def test_inputs_are_not_modified() -> None:
    field, mask = oracles.noise(3, 4, 5, 6), torch.ones(4, 5, 6)
    before = field.clone()
    volume_mask(field, mask=mask)
    assert torch.equal(field, before)
    assert bool((mask == 1).all())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"low": 4.0, "high": 4.0}, ConfigError, "high"),
        ({"low": -1.0}, ConfigError, "low"),
        ({"high": math.nan}, ConfigError, "high"),
        ({"sigma": 0.0}, ConfigError, "sigma"),
        ({"mask": torch.zeros(4, 5, 6)}, InputError, "mask"),
        ({"mask": torch.ones(4, 5, 7)}, InputError, "shape"),
    ],
)
def test_unusable_settings(
    settings: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # without the run-time check of annotations, which only the tests have and which would raise first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(error, match=message):
        volume_mask(oracles.noise(3, 4, 5, 6), **settings)
