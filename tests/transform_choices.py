"""Cases of the choice of linear transforms, with what numpy says about them."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import oracles
import torch
from turned import MATRIX

from convexadam.kernels.linear_choice import Candidate

SHAPE = (4, 5, 3)
SCALES = {"moderate": 1.2, "too large": 2.1, "mirrored": -1.0}
CORNERS = np.array([(*index, 1.0) for index in np.ndindex(2, 2, 2)]) * [90, 80, 70, 1]


def make_candidate(seed: int, model: int, *, covered: float = 1.0, level: float = 1.0, scale: float = 1.1) -> Candidate:
    """Random dissimilarities around a level, and weights that are 0 beyond a share of the points."""
    values, weight = (oracles.uniform(*SHAPE, seed=seed + n, low=0.5).float() for n in range(2))
    weight /= weight.sum()
    weight.flatten()[round(covered * weight.numel()) :] = 0
    matrix = torch.tensor(MATRIX @ np.diag([scale, 1.0, 1.0, 1.0]))
    return Candidate(values=level * values, weight=weight, matrix=matrix, model=torch.tensor(model, dtype=torch.int32))


def check_choice(
    module: ModuleType, best: Candidate, other: Candidate, *, by_mean: bool = False, device: str = "cpu"
) -> bool:
    """Compare the choice with numpy in float64; return whether the other one is kept."""
    (v, w), (new_v, new_w) = ((c.values.double().numpy(), c.weight.double().numpy()) for c in (best, other))
    both = np.minimum(w, new_w)
    old, new = (both * v).sum(), (both * new_v).sum()
    if by_mean or both.sum() < max(w.sum(), new_w.sum()) / 2:
        old, new = (w * v).sum() + 1 - w.sum(), (new_w * new_v).sum() + 1 - new_w.sum()
    volume = np.linalg.det(other.matrix.numpy()[:3, :3])
    required = 0.35 if best.model < 0 else 0.25
    kept = other.model >= 0 and 1 / 8 < volume < 8 and new < (1 - required) * old
    arrays = [Candidate(**{name: value.to(device).clone() for name, value in vars(c).items()}) for c in (best, other)]
    module.keep_better(*arrays, min_improvement=(0.35, 0.25), by_mean=by_mean)
    expected = other if kept else best
    for name, value in vars(arrays[0]).items():
        assert torch.equal(value.cpu(), getattr(expected, name)), name
    return bool(kept)


def check_update(module: ModuleType, scale: str, *, active: bool, moves: float, device: str = "cpu") -> None:
    """Compare an update with numpy."""
    matrix, update = torch.tensor(MATRIX), np.diag([SCALES[scale]] * 3 + [1.0])
    update[:3, 3] = moves
    longest = np.linalg.norm(CORNERS @ (update - np.eye(4)).T, axis=1).max()
    fitted = MATRIX @ update
    accepted = active and 1 / 8 < np.linalg.det(fitted[:3, :3]) < 8
    for share, converged in ((0.99, False), (1.01, True)):
        state = matrix.clone().to(device), torch.tensor(active, device=device)
        rest = torch.tensor(update, device=device), torch.tensor(CORNERS, device=device)
        module.apply_update(*state, *rest, close=share * longest)
        np.testing.assert_allclose(state[0].cpu().numpy(), fitted if accepted else MATRIX, rtol=1e-12)
        assert bool(state[1]) == (accepted and not converged)
