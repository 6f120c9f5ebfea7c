"""Small phantom pairs, quick settings, and how far off a registration is within the organs."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import oracles
import torch

from convexadam import ConvexSearch, Refinement, RegistrationConfig, RegistrationResult
from convexadam.continuous import Compositional, Diffusion, Level, LevenbergMarquardt
from convexadam.data import PhantomPair, phantom_pair

ANISOTROPIC = np.array([[-8.0, 0.4, 0, 190], [0.3, 0, 14, -140], [0, 9, 0.5, -160], [0, 0, 0, 1]])
SEARCH = ConvexSearch(spacing=4, radius=3, window="ball")
ADAM = Refinement(
    levels=(Level(iterations=20),), regularisers=(Diffusion(weight=0.2),), parametrisation=Compositional()
)
QUICK = RegistrationConfig(linear=None, discrete=SEARCH, continuous=ADAM)
QUICKEST = RegistrationConfig(
    discrete=ConvexSearch(spacing=3, radius=2), continuous=Refinement(levels=(Level(iterations=5),))
)
"""With a linear alignment; for tests of what is done with a result, whatever its accuracy."""


@functools.cache
def cubic_pair() -> PhantomPair:
    """Two scans of one contrast, of nearly cubic voxels."""
    return phantom_pair((48, 40, 36), contrasts=("t1", "t1"), displacement_mm=25, seed=3)


@functools.cache
def thick_pair() -> PhantomPair:
    """Two contrasts in thick oblique slices."""
    return phantom_pair((48, 40, 18), contrasts=("t1", "t2"), affine=ANISOTROPIC, displacement_mm=25, seed=3)


def second_order(*spacings: int, parametrisation: Any = None) -> Refinement:
    """Levels of a few steps of `LevenbergMarquardt` each."""
    return Refinement(
        levels=tuple(Level(spacing=spacing, iterations=5) for spacing in spacings),
        regularisers=(Diffusion(weight=0.2),),
        optimiser=LevenbergMarquardt(),
        parametrisation=parametrisation or Compositional(),
    )


def organs_mm(pair: PhantomPair) -> torch.Tensor:
    """Points of the fixed image within organs, ``(n, 3)``."""
    where = pair.fixed_labels.data[0].numpy() > 0
    return torch.from_numpy(oracles.mm_of_voxels(pair.fixed.grid.affine, where.shape)[:, where].T.copy())


def moved_mm(pair: PhantomPair, linear: np.ndarray | None = None) -> torch.Tensor:
    """Where `organs_mm` have moved to."""
    where = pair.fixed_labels.data[0].numpy() > 0
    linear = np.eye(4) if linear is None else linear
    moved = pair.disp_vox.double().numpy()[:, where].T @ pair.fixed.grid.affine[:3, :3].T
    points = organs_mm(pair).numpy() + moved
    return torch.from_numpy(points @ linear[:3, :3].T + linear[:3, 3])


def scale_to_voxels(pair: PhantomPair, apart_mm: torch.Tensor) -> torch.Tensor:
    """Lengths of vectors in mm, ``(n, 3)``, in voxels of the fixed image."""
    return torch.from_numpy(np.linalg.solve(pair.fixed.grid.affine[:3, :3], apart_mm.numpy().T)).norm(dim=0)


def error(result: RegistrationResult, pair: PhantomPair, linear: np.ndarray | None = None) -> float:
    return float(scale_to_voxels(pair, result.transform(organs_mm(pair)) - moved_mm(pair, linear)).mean())


def still(pair: PhantomPair) -> float:
    """Error of nothing at all."""
    return float(scale_to_voxels(pair, moved_mm(pair) - organs_mm(pair)).mean())
