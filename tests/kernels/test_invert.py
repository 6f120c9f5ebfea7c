"""Points that a displacement takes to targets: there and back with the loops of ``oracles.py`` in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from compiled import noise, scattered

from convexadam import use_backend
from convexadam.kernels.invert import origins
from convexadam.kernels.invert.reference import CLOSE

SHAPE = (6, 9, 7)
RUNS: list[Any] = [("reference", torch.float64), ("reference", torch.float32), ("cpu", torch.float32)]
STEEP = 0.6
"""Largest change of the gentle field over a voxel: three components, each by up to 0.2 along each of three axes."""


def allowed(dtype: torch.dtype) -> float:
    """Roundings of positions of up to 16 voxels, times slopes of up to 3, in a few sums."""
    return 10 * 16 * 3 * torch.finfo(dtype).eps


def gentle() -> torch.Tensor:
    return 0.1 * oracles.uniform(3, *SHAPE, low=-1, high=1)


def missed(displacement: torch.Tensor, targets: torch.Tensor, points: torch.Tensor) -> np.ndarray:
    """``x + u(x) - y`` by naive loops."""
    where = points.double().numpy()
    found = where + oracles.trilinear(displacement.double().numpy(), where) - targets.double().numpy()
    return np.asarray(found)


def solved(
    run: Any, displacement: torch.Tensor, targets: torch.Tensor, guess: torch.Tensor | None = None
) -> tuple[torch.Tensor, np.ndarray]:
    """The points, whose reported misses are held to what they are; and those."""
    backend, dtype = run
    values = [v.to(dtype) for v in (displacement, targets, targets if guess is None else guess)]
    before = [v.clone() for v in values]
    with use_backend(backend):
        points, off = origins(*values)
    assert all(torch.equal(*pair) for pair in zip(values, before, strict=True))
    assert points.dtype == off.dtype == dtype
    found = missed(values[0], values[1], points)
    assert np.abs(off.double().numpy() - found).max() <= allowed(dtype)
    return points, found


@pytest.mark.parametrize("run", RUNS)
def test_there_and_back(run: Any) -> None:
    displacement = gentle()
    points = oracles.uniform(3, 40, low=-3, high=9)  # beyond the edges as well, where edge values hold
    targets = points + torch.from_numpy(oracles.trilinear(displacement.numpy(), points.numpy()))
    found, left = solved(run, displacement, targets)
    assert np.linalg.norm(left, axis=0).max() <= CLOSE + allowed(run[1])
    assert (found - points).norm(dim=0).max() <= (CLOSE + allowed(run[1])) / (1 - STEEP)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("slope", [2.0, -0.9, 1.0, 0.0])
def test_steep_fields_are_solved_by_newton_steps(run: Any, slope: float) -> None:
    centre = torch.tensor([2.5, 4.0, 3.0], dtype=torch.float64)
    displacement = slope * (torch.from_numpy(oracles.indices(SHAPE)) - centre.reshape(3, 1, 1, 1))
    points = oracles.uniform(3, 20, low=0.6, high=4.4)
    targets = points + slope * (points - centre[:, None])
    found, left = solved(run, displacement, targets, guess=torch.full_like(targets, 2.0))
    assert np.linalg.norm(left, axis=0).max() <= CLOSE + allowed(run[1])
    assert (found - points).norm(dim=0).max() <= (CLOSE + allowed(run[1])) / (1 + slope)


@pytest.mark.parametrize("run", RUNS)
def test_a_good_guess_is_taken(run: Any) -> None:
    fold = torch.zeros(3, 12, 4, 4, dtype=torch.float64)
    fold[0] = (-3.0 * torch.arange(12.0, dtype=torch.float64)).clamp_min(-9.0)[
        :, None, None
    ]  # 0, -2, -4, -6, -5, -4, ...
    points, targets = (torch.tensor([[x], [1.0], [2.0]], dtype=torch.float64) for x in (11.0, 2.0))
    guessed, left = solved(run, fold, targets, guess=points)
    assert torch.equal(guessed.double(), points)
    assert np.abs(left).max() == 0


@pytest.mark.parametrize("run", RUNS)
def test_in_folds_nothing_gets_worse(run: Any) -> None:
    folded = 3 * oracles.noise(3, *SHAPE)
    targets = oracles.uniform(3, 60, low=0, high=5)
    starts = [targets - torch.from_numpy(oracles.trilinear(folded.numpy(), targets.numpy())), targets]
    before = np.min([np.linalg.norm(missed(folded, targets, start), axis=0) for start in starts], axis=0)
    _, left = solved(run, folded, targets)
    after = np.linalg.norm(left, axis=0)
    assert (after <= before + allowed(run[1])).all()
    assert 0 < (after > CLOSE + allowed(run[1])).mean() < 0.9  # some are found, some are not


@pytest.mark.parametrize("run", RUNS)
def test_nothing_moves(run: Any) -> None:
    targets = oracles.uniform(3, 5, low=-2, high=9)
    found, left = solved(run, torch.zeros(3, 1, 2, 1, dtype=torch.float64), targets)
    assert torch.equal(found, targets.to(run[1]))
    assert np.abs(left).max() == 0


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("number", [1, 1023, 5000])
def test_slabs_and_layouts_do_not_show(number: int) -> None:
    displacement, targets = gentle().float(), oracles.uniform(3, number, low=-1, high=8).float()
    with use_backend("cpu"):
        expected = torch.cat([torch.stack(origins(displacement, t, t)) for t in targets.split(700, dim=1)], dim=-1)
        last = displacement.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
        for layout in (displacement, last, scattered(displacement)):
            assert torch.equal(torch.stack(origins(layout, targets, scattered(targets))), expected)


def test_both_agree() -> None:
    displacement, targets = 0.3 * noise(3, *SHAPE), oracles.uniform(3, 3000, low=0, high=5).float()
    results = []
    for backend in ("reference", "cpu"):
        with use_backend(backend):  # type: ignore[arg-type]
            results.append(origins(displacement, targets, targets))
    solutions = [off.norm(dim=0) <= CLOSE for _, off in results]
    assert bool(solutions[0].float().mean() > 0.9)
    assert bool((solutions[0] == solutions[1]).float().mean() > 0.99)
