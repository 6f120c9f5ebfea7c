"""Distances between corresponding landmarks."""

from __future__ import annotations

import torch

from convexadam._typing import Float, Points, Tensor
from convexadam.errors import InputError
from convexadam.geometry import Transform


def tre(fixed_points_mm: Points, moving_points_mm: Points, transform: Transform | None = None) -> Float[Tensor, " n"]:
    """Compute the target registration error ``|T(fixed) - moving|`` of each pair of landmarks, in mm.

    Parameters
    ----------
    fixed_points_mm, moving_points_mm
        ``(n, 3)`` in mm RAS+; row ``n`` of both lists is the same anatomical point. ``grid.index_to_world(points_vox)``
        converts voxel indices of an image with the grid of that image.
    transform
        From fixed to moving space; ``None`` for the distance before registration.

    Returns
    -------
    ``(n,)`` float64, in mm.

    Raises
    ------
    InputError
        If the two lists are not ``(n, 3)`` with equal ``n``, are empty, or contain NaN or Inf.

    Examples
    --------
    >>> tre(torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[3.0, 4.0, 0.0]])).tolist()
    [5.0]
    """
    if fixed_points_mm.ndim != 2 or fixed_points_mm.shape[1] != 3 or fixed_points_mm.shape != moving_points_mm.shape:
        raise InputError(
            "fixed_points_mm and moving_points_mm must be two lists (n, 3) of the same length, got shapes "
            f"{tuple(fixed_points_mm.shape)} and {tuple(moving_points_mm.shape)}; pass one row for each landmark"
        )
    if fixed_points_mm.shape[0] == 0:
        raise InputError(
            "fixed_points_mm and moving_points_mm must contain at least one landmark, got none; check the lists"
        )
    # on the CPU, because MPS has no float64 and the lists are short
    fixed, moving = fixed_points_mm.detach().cpu().double(), moving_points_mm.detach().cpu().double()
    if not bool(fixed.isfinite().all() and moving.isfinite().all()):
        raise InputError(
            "fixed_points_mm and moving_points_mm must be finite, got NaN or Inf; remove such pairs from both lists"
        )
    mapped = fixed if transform is None else transform.warp_points(fixed, space="mm").cpu()
    distances: Tensor = torch.linalg.vector_norm(mapped - moving, dim=1)
    return distances
