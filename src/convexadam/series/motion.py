"""Motion of the frames of a series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import final

import numpy as np
import torch

from convexadam._typing import Volume
from convexadam.geometry import Affine, DisplacementField, Grid, Transform
from convexadam.geometry.linear_maps import average_affines, fit_affine
from convexadam.io.tables import write_rows

_HEAD_RADIUS_MM = 50.0
"""Radius of the sphere on which framewise displacement measures rotations."""

_NEGLIGIBLE = 1e-3
"""Weight of a Gaussian, relative to its centre, below which a frame does not count."""


@final
@dataclass(frozen=True, kw_only=True)
class FrameMotion:
    """Motion of one frame.

    Attributes
    ----------
    frame
        From 0.
    translation_r_mm, translation_a_mm, translation_s_mm
        Displacement of the centre of the reference along R, A and S.
    rotation_r_degrees, rotation_a_degrees, rotation_s_degrees
        Rotation about the axes R, then A, then S, of the rigid part.
    mean_displacement_mm
        Mean length of the displacement over the voxels of the reference.
    framewise_displacement_mm
        Sum of the absolute changes of translation and rotation since the frame before, rotations as arcs of 50 mm
        (Power et al., NeuroImage 2012); 0 for the first one.

    Examples
    --------
    >>> from convexadam import Affine, Grid
    >>> from convexadam.series import measure_motion
    >>> measure_motion([Affine()], Grid((8, 8, 8)))[0].framewise_displacement_mm
    0.0
    """

    frame: int
    translation_r_mm: float
    translation_a_mm: float
    translation_s_mm: float
    rotation_r_degrees: float
    rotation_a_degrees: float
    rotation_s_degrees: float
    mean_displacement_mm: float
    framewise_displacement_mm: float


def measure_motion(transforms: Sequence[Transform], grid: Grid, weight: Volume | None = None) -> list[FrameMotion]:
    """Measure the motion of frames.

    Parameters
    ----------
    transforms
        From the reference to each frame.
    grid
        That of the reference.
    weight
        Voxels of the reference that count; ``None`` for all.

    Examples
    --------
    >>> import numpy as np
    >>> from convexadam import Affine, Grid
    >>> from convexadam.series import measure_motion
    >>> shift = np.eye(4)
    >>> shift[0, 3] = 3
    >>> motion = measure_motion([Affine(), Affine(shift)], Grid((8, 8, 8)))
    >>> round(motion[1].mean_displacement_mm, 3)
    3.0
    """
    from scipy.linalg import polar
    from scipy.spatial.transform import Rotation

    weight = torch.ones(grid.shape, dtype=torch.float32, device="cpu") if weight is None else weight
    centre = grid.index_to_world(torch.tensor([[(n - 1) / 2 for n in grid.shape]], dtype=torch.float64, device="cpu"))
    found, before = list[FrameMotion](), np.zeros(6)
    for number, transform in enumerate(transforms):
        affine = transform if isinstance(transform, Affine) else fit_affine(transform, grid, weight)
        rotation, _ = polar(affine.matrix[:3, :3])
        angles = Rotation.from_matrix(rotation).as_euler("xyz")
        shift = (affine(centre) - centre)[0].numpy()
        now = np.concatenate([shift, angles])
        change = np.abs(now - before) if number else np.zeros(6)
        length = transform.to_displacement_field(grid).disp_mm.double().square().sum(0).sqrt()
        found.append(
            FrameMotion(
                frame=number,
                **dict(zip(_TRANSLATIONS, map(float, shift), strict=True)),
                **dict(zip(_ROTATIONS, map(math.degrees, angles), strict=True)),
                mean_displacement_mm=float((length * weight).sum() / weight.sum()),
                framewise_displacement_mm=float(change[:3].sum() + _HEAD_RADIUS_MM * change[3:].sum()),
            )
        )
        before = now
    return found


_TRANSLATIONS = tuple(f"translation_{axis}_mm" for axis in "ras")
_ROTATIONS = tuple(f"rotation_{axis}_degrees" for axis in "ras")


def smooth_transforms(transforms: Sequence[Transform], sigma: float) -> list[Transform]:
    """Smooth transforms over time with a Gaussian of ``sigma`` frames: logarithms of matrices, or displacements."""
    if sigma == 0:
        return list(transforms)
    reach = math.ceil(sigma * math.sqrt(-2 * math.log(_NEGLIGIBLE)))
    found = list[Transform]()
    for number in range(len(transforms)):
        near = range(max(0, number - reach), min(len(transforms), number + reach + 1))
        weights = np.array([math.exp(-0.5 * ((n - number) / sigma) ** 2) for n in near])
        found.append(_average([transforms[n] for n in near], weights / weights.sum()))
    return found


def _average(transforms: Sequence[Transform], weights: np.ndarray) -> Transform:
    affines = [one for one in transforms if isinstance(one, Affine)]
    if len(affines) == len(transforms):
        return average_affines(affines, list(weights))
    fixed = next(one.grid for one in transforms if isinstance(one, DisplacementField))
    parts = [w * one.to_displacement_field(fixed).disp_mm for w, one in zip(weights, transforms, strict=True)]
    return DisplacementField(torch.stack(parts).sum(0), fixed)


def write_motion(motion: Sequence[FrameMotion], path: Path) -> None:
    """Write motion as a table."""
    write_rows(path, [field.name for field in fields(FrameMotion)], map(astuple, motion))
