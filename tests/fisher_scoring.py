"""Steps of Fisher scoring by numpy and scipy, for the tests of `scoring_step`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.linalg import expm

from convexadam.kernels.mutual_information import MutualInformation
from convexadam.kernels.scoring_step import ScoringState
from convexadam.linear.refinement import make_generators

RIDGE, LEAST, FACTORS, FALL = 1e-6, 1e-4, (0.25, 4.0), 0.25

CASES = [("rigid", 0.2), ("similarity", 0.2), ("affine", 1.5)]
"""Models, and the size of a step."""


def make_value(seed: int, size: float) -> MutualInformation:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(40, 12))
    information = scores.T @ scores / 40
    parts = rng.uniform(0.1, 1), size * rng.normal(size=(3, 4)), information
    return MutualInformation(*(torch.tensor(part, dtype=torch.float64) for part in parts))


def make_state(size: float, device: str = "cpu") -> ScoringState:
    placement = np.eye(4) + np.concatenate(
        [0.1 * np.random.default_rng(1).normal(size=(2, 3, 4)), np.zeros((2, 1, 4))], 1
    )
    current = MutualInformation(*(part.to(device) for part in make_value(2, size)))
    return ScoringState(torch.tensor(placement).to(device), current, torch.tensor(1.3, dtype=torch.float64).to(device))


def check_proposal(module: Any, model: Any, size: float, device: str = "cpu") -> None:
    generators = make_generators(model)
    state = make_state(size, device)
    entries = generators[:, :3].reshape(-1, 12)
    gradient, information = (part.cpu().numpy() for part in state.current[1:])
    left = entries @ information @ entries.T
    left += np.diag(RIDGE * (left.diagonal() + left.diagonal().mean()) + LEAST)
    expected = 1.3 * np.linalg.solve(left, entries @ gradient.flatten())
    half = np.tensordot(expected, generators, 1) / 2
    step, proposed = module.propose_step(state, torch.tensor(generators).to(device), ridge=RIDGE, least=LEAST)
    np.testing.assert_allclose(step.cpu(), expected, rtol=1e-9)
    fixed, moving = state.placement.cpu().numpy()
    np.testing.assert_allclose(proposed.cpu(), np.stack([fixed @ expm(-half), moving @ expm(half)]), atol=1e-10)


def check_judgement(module: Any, model: Any, size: float, *, rises: bool, device: str = "cpu") -> None:
    generators = make_generators(model)
    state, before, new = make_state(size, device), make_state(size), make_value(3, size)
    new = new._replace(value=before.current.value + (0.1 if rises else -0.1))
    step, proposed = np.random.default_rng(4).normal(size=len(generators)), before.placement + 1
    motion = np.tensordot(step, generators[:, :3], 1).flatten()
    change = motion @ (before.current.gradient - new.gradient).numpy().flatten()
    expected = motion @ before.current.information.numpy() @ motion
    ratio = np.clip(expected / change, *FACTORS) if change > 0 else FACTORS[1]
    sent = MutualInformation(*(part.to(device) for part in new))
    arrays = proposed.to(device), sent, torch.tensor(step).to(device), torch.tensor(generators).to(device)
    module.judge_step(state, *arrays, factors=FACTORS, fall=FALL)
    np.testing.assert_allclose(float(state.factor), ratio if rises else 1.3 * FALL, rtol=1e-9)
    assert torch.equal(state.placement.cpu(), proposed if rises else before.placement)
    for found, value in zip(state.current, new if rises else before.current, strict=True):
        assert torch.equal(found.cpu(), value)
