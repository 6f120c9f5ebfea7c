"""Distances between corresponding points."""

from __future__ import annotations

import torch

from convexadam._typing import Float, Points, Tensor
from convexadam.errors import InputError
from convexadam.geometry import Transform


def tre(fixed_points_mm: Points, moving_points_mm: Points, transform: Transform | None = None) -> Float[Tensor, " n"]:
    """Target registration error ``|T(fixed) - moving|`` of each pair of landmarks, in mm.

    Parameters
    ----------
    fixed_points_mm, moving_points_mm
        ``(n, 3)`` in mm RAS+, row by row the same place in the two images. ``grid.to_mm(points_vox)`` makes them of
        voxel indices: each image's own grid for its own points.
    transform
        From fixed to moving space; ``None`` measures how far the points are apart before any registration.

    Returns
    -------
    ``(n,)`` float64, in mm.

    Raises
    ------
    InputError
        If the two lists are not ``(n, 3)`` alike, are empty, or hold NaN or Inf.

    Examples
    --------
    >>> tre(torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[3.0, 4.0, 0.0]])).tolist()
    [5.0]
    """
    if fixed_points_mm.ndim != 2 or fixed_points_mm.shape[1] != 3 or fixed_points_mm.shape != moving_points_mm.shape:
        raise InputError(
            "landmarks are two lists (n, 3) of the same length, but the shapes are "
            f"{tuple(fixed_points_mm.shape)} and {tuple(moving_points_mm.shape)}"
        )
    if fixed_points_mm.shape[0] == 0:
        raise InputError("there are no landmarks: both lists are empty")
    # Points are few, and MPS has no float64: the error is taken on the CPU.
    fixed, moving = fixed_points_mm.detach().cpu().double(), moving_points_mm.detach().cpu().double()
    if not bool(fixed.isfinite().all() and moving.isfinite().all()):
        raise InputError("the landmarks hold NaN or Inf; leave such pairs out of both lists")
    found = fixed if transform is None else transform.warp_points(fixed, space="mm").cpu()
    distances: Tensor = torch.linalg.vector_norm(found - moving, dim=1)
    return distances
