"""Regularisers as values."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch
from pairwise import pairwise

from convexadam.continuous import Bending, Diffusion, Regulariser, VolumePreserving
from convexadam.errors import ConfigError

SHAPE = (4, 5, 3)
ALL: list[Any] = [Diffusion, Bending, VolumePreserving]


def _energy(regulariser: Regulariser, displacement: np.ndarray, soft_mask: np.ndarray | None) -> float:
    match regulariser:
        case Diffusion():
            return oracles.diffusion_energy(displacement)
        case Bending():
            return oracles.bending_energy(displacement)
        case VolumePreserving():
            return oracles.volume_change(displacement, soft_mask)


@pytest.mark.parametrize(("make", "masked", "dtype"), pairwise(ALL, [False, True], [torch.float32, torch.float64]))
def test_the_gradient_is_that_of_the_weighted_cost(make: Any, masked: bool, dtype: torch.dtype) -> None:
    field, mask = 0.1 * oracles.noise(3, *SHAPE), oracles.uniform(*SHAPE, seed=1) if masked else None
    regulariser, share = make(weight=0.7), None if mask is None else mask.numpy()
    value, gradient = regulariser(field.to(dtype), soft_mask=None if mask is None else mask.to(dtype))
    assert value.dtype == gradient.dtype == dtype
    assert value.item() == pytest.approx(0.7 * _energy(regulariser, field.numpy(), share), rel=1e-5)
    direction = oracles.noise(3, *SHAPE, seed=2)
    up, down = (0.7 * _energy(regulariser, (field + s * direction).numpy(), share) for s in (1e-4, -1e-4))
    # the third derivative of the cost along the direction is below 1e3
    assert (gradient.double() * direction).sum().item() == pytest.approx((up - down) / 2e-4, abs=1e-5)


@pytest.mark.parametrize("make", ALL)
def test_the_gradient_is_added_in_place(make: Any) -> None:
    field, add_to = 0.1 * oracles.noise(3, *SHAPE).float(), torch.ones(3, *SHAPE)
    value, gradient = make()(field)
    again, found = make()(field, add_to=add_to)
    assert found is add_to
    assert again.item() == pytest.approx(value.item(), rel=1e-6)
    torch.testing.assert_close(add_to, 1 + gradient, rtol=0, atol=1e-6)


def test_bending_is_as_stiff_as_diffusion_for_waves_of_14_control_points() -> None:
    # whole waves of 2 pi / k control points; without a border exact up to a factor (k / 2 / sin(k / 2))^2
    for length in (14, 28):
        k = 2 * math.pi / length
        field = torch.zeros(3, 40 * length, 1, 1, dtype=torch.float64)
        field[0, :, 0, 0] = torch.sin(k * torch.arange(40.0 * length, dtype=torch.float64))
        bent, stretched = Bending(weight=1.0)(field)[0], Diffusion(weight=k**2)(field)[0]
        assert bent.item() == pytest.approx(stretched.item(), rel=k**2 / 12 + 2 / 40)
    assert Bending().weight * (2 * math.pi / 14) ** 2 == pytest.approx(Diffusion().weight, rel=0.02)


def test_only_the_volume_within_the_mask_is_preserved() -> None:
    field, empty = 0.1 * oracles.noise(3, *SHAPE), torch.zeros(SHAPE, dtype=torch.float64)
    value, gradient = VolumePreserving()(field, soft_mask=empty)
    assert value == 0
    assert not gradient.any()
    for other in (Diffusion(), Bending()):
        for masked, plain in zip(other(field, soft_mask=empty), other(field), strict=True):
            assert torch.equal(masked, plain)


@pytest.mark.parametrize("make", ALL)
def test_they_are_immutable_values(make: Any) -> None:
    assert make(weight=3.0) == make(weight=3.0)
    assert make(weight=3.0) != make(weight=2.0)
    assert len({make(weight=3.0), make(weight=3.0), make()}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().weight = 2.0


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf, "1", True, None])
def test_unusable_weights(make: Any, weight: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # without the run-time check of annotations, which only the tests have and which would raise first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match="weight"):
        make(weight=weight)
    assert make(weight=0).weight == 0
