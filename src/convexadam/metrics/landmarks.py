"""Distances between corresponding landmarks."""

from __future__ import annotations

import torch

from convexadam._checks import show
from convexadam._typing import Float, Points, Tensor
from convexadam.errors import InputError
from convexadam.geometry import Transform
from convexadam.geometry.tensors import parse_points


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
    # on the CPU, because MPS has no float64 and the lists are short
    fixed, moving = (
        parse_points(points, name, finite=True).detach().cpu().double()
        for points, name in ((fixed_points_mm, "fixed_points_mm"), (moving_points_mm, "moving_points_mm"))
    )
    if fixed.shape != moving.shape:
        raise InputError(
            "fixed_points_mm and moving_points_mm must be two lists (n, 3) of the same length, got shapes "
            f"{tuple(fixed.shape)} and {tuple(moving.shape)}; pass one row for each landmark"
        )
    if fixed.shape[0] == 0:
        raise InputError(
            "fixed_points_mm and moving_points_mm must contain at least one landmark, got none; check the lists"
        )
    if transform is not None and not isinstance(transform, Transform):
        raise InputError(f"transform must be a Transform, got {show(transform)}; wrap matrices in Affine(...)")
    mapped = fixed if transform is None else transform.warp_points(fixed, space="mm").cpu()
    distances: Tensor = torch.linalg.vector_norm(mapped - moving, dim=1)
    return distances
