"""Several pairs of one shape."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch

from convexadam import ConvexSearch, InputError, Refinement, RegistrationConfig, register, register_batch
from convexadam.continuous import Level

CONFIG = RegistrationConfig(
    linear=None, discrete=ConvexSearch(spacing=4, radius=1), continuous=Refinement(levels=(Level(iterations=2),))
)


def _volumes(count: int, *shape: int) -> torch.Tensor:
    return torch.stack([oracles.noise(*(shape or (24, 22, 20)), seed=s, dtype=torch.float32) for s in range(count)])


def test_results_are_those_of_single_registrations() -> None:
    fixed, moving = _volumes(2), _volumes(2).flip(0)
    results = register_batch(fixed, moving, CONFIG)
    assert len(results) == 2
    assert results[0].diagnostics != results[1].diagnostics
    for f, m, result in zip(fixed, moving, results, strict=True):
        alone = register(f, m, CONFIG)
        assert torch.equal(result.transform.disp_mm, alone.transform.disp_mm)
        assert result.diagnostics == alone.diagnostics


def test_images_have_the_forms_of_register() -> None:
    fixed, moving = _volumes(1).numpy(), list(_volumes(1))
    (result,) = register_batch(fixed, moving, CONFIG)
    assert isinstance(result.to_type(), torch.Tensor)
    assert isinstance(register_batch(moving, fixed, CONFIG)[0].to_type(), np.ndarray)
    assert register_batch([], [], CONFIG) == []


def test_what_cannot_be_a_batch() -> None:
    with pytest.raises(InputError, match=r"moving_images must be as many as fixed_images, 2, got 1"):
        register_batch(_volumes(2), _volumes(1), CONFIG)
    with pytest.raises(InputError, match=r"one shape, got \(24, 22, 20\), \(24, 22, 21\)"):
        register_batch(_volumes(1), _volumes(1, 24, 22, 21), CONFIG)
