"""Two scans of a procedural torso with the exact transform between them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_axis_weights, show
from convexadam._typing import AxisWeights, Field, Points, Shaped, Tensor, Triple, Volume
from convexadam.data.body import HALF_MM
from convexadam.data.canvas import Canvas
from convexadam.data.motion import Motion, jacobian, largest_safe_scale, solve
from convexadam.data.organs import (
    landmarks,
    paint_bowel,
    paint_kidneys,
    paint_liver,
    paint_pancreas,
    paint_spleen,
    paint_stomach,
    paint_vessels,
)
from convexadam.data.plan import Plan
from convexadam.data.shapes import Number, Point
from convexadam.data.texture import Texture, bias_field, gaussian_noise, rician_noise
from convexadam.data.tissues import CONTRASTS, LABEL_NAMES
from convexadam.data.wall import paint_back, paint_chest, paint_ribs, paint_spine, paint_strands, paint_wall
from convexadam.errors import ConfigError, InputError
from convexadam.geometry.grid import Grid, axes_with_extent, restrict_to_slice
from convexadam.geometry.image import Image
from convexadam.geometry.tensors import finest_float, parse_device
from convexadam.kernels.warp import identity_positions

_LEAST_JACOBIAN = 0.3
_LEAST_VOXELS = 4
_BLOCK_VOXELS = 1 << 20
"""Volumes are made in slabs of about this many voxels, so that temporaries stay small."""
_CT_NOISE_HU = 11.0
_MR_NOISE = 14.0
_MR_BIAS = 0.35


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PhantomPair:
    """Two scans of one procedural torso with their exact correspondence.

    Attributes
    ----------
    fixed, moving
        float32 ``[1, i, j, k]`` on the same grid: HU for CT, arbitrary units for MR.
    fixed_labels, moving_labels
        int32 ``[1, i, j, k]``: the organ of each voxel, 0 for background.
    fixed_landmarks_mm, moving_landmarks_mm
        float64 ``(n, 3)``: corresponding points in mm RAS+, row by row; all within both fields of view.
    disp_vox
        float32 ``[3, i, j, k]``: ``T(x) = x + u(x)`` from fixed to moving, in voxels of the fixed grid. The
        anatomy of the moving scan at ``T(x)`` is that of the fixed scan at ``x``. Exact at voxel centres,
        and free of folds.
    label_names
        Organ of each label.

    Examples
    --------
    >>> from convexadam.data import phantom_pair
    >>> pair = phantom_pair((16, 16, 16))
    >>> pair.fixed.grid == pair.moving.grid, pair.fixed_landmarks_mm.shape == pair.moving_landmarks_mm.shape
    (True, True)
    """

    fixed: Image
    moving: Image
    fixed_labels: Image
    moving_labels: Image
    fixed_landmarks_mm: Points
    moving_landmarks_mm: Points
    disp_vox: Field
    label_names: dict[int, str]


@check_arguments
def phantom_pair(
    shape: Triple = (96, 80, 72),
    *,
    spacing_mm: Point | None = None,
    affine: Any = None,
    contrasts: tuple[str, str] = ("ct", "ct"),
    displacement_mm: Number = 12.0,
    restrict_deformation: AxisWeights = (1.0, 1.0, 1.0),
    seed: int = 0,
    noise: Number = 1.0,
    device: torch.device | str | None = None,
) -> PhantomPair:
    """Make two scans of a torso, one deformed, with labels, landmarks and the exact displacement between them.

    The torso always fills the grid: with neither ``spacing_mm`` nor ``affine`` the voxel size follows from a field of
    view of 400 x 300 x 300 mm (R, A, S), else the torso is scaled to the grid. Its orientation follows the affine,
    which may be oblique or flipped.

    The moving scan shows the undeformed anatomy, the fixed scan shows it at ``T(x)``. Tissue textures deform with the
    anatomy; noise and the bias field of MR do not.

    Parameters
    ----------
    shape
        Voxels along ``(i, j, k)``, at least 4 each; or 1 along one of them, for the middle slice, which moves in its
        plane only.
    spacing_mm
        Voxel size along ``(i, j, k)`` with axes along R, A, S, centred on the origin.
    affine
        4x4, voxel indices to mm RAS+, instead of ``spacing_mm``.
    contrasts
        Contrast of the fixed and of the moving scan: ``"ct"`` (portal venous phase), ``"t1"`` or ``"t2"``.
    displacement_mm
        Length of the largest displacement at any voxel, in mm; 0 for none.
    restrict_deformation
        Factor of the displacement along R, A and S, the closest axes of the grid, from 0 to 1: ``(0, 1, 0)`` for a
        distortion along A alone, as echo-planar images have it.
    seed
        Non-negative integer. Determines all random numbers: anatomy, vessels, textures, motion, noise. No global state
        is used.
    noise
        Strength of noise and bias field; 1 is that of a typical scan, 0 has neither.
    device
        Device of the volumes; ``None`` is the CPU. Random numbers are drawn on the CPU, so that devices differ by
        rounding only.

    Raises
    ------
    ConfigError
        If a contrast is unknown, a number is out of range, both ``spacing_mm`` and ``affine`` are given, or the
        displacement would fold (its Jacobian determinant must be at least 0.3).
    InputError
        If the shape is too small.
    GeometryError
        If the affine is unusable.

    Examples
    --------
    >>> pair = phantom_pair((24, 20, 18), contrasts=("ct", "t2"), seed=1)
    >>> pair.fixed.grid.orientation, tuple(pair.disp_vox.shape)
    ('RAS', (3, 24, 20, 18))
    >>> pair.label_names[int(pair.fixed_labels.data.max())]
    'liver lesion'
    """
    grid = _parse_grid(shape, spacing_mm, affine)
    _check_settings(contrasts, displacement_mm, noise, seed)
    check_axis_weights(restrict_deformation, "restrict_deformation")
    target = torch.device("cpu") if device is None else parse_device(device)
    generator = torch.Generator("cpu").manual_seed(int(seed))
    frame = _Frame.of(grid)
    restrict_deformation = restrict_to_slice(restrict_deformation, grid.canonical())
    person = Motion.draw_individual(generator)
    plan = Plan.draw(generator)
    motion = Motion.draw_breathing(generator).with_gain(restrict_deformation)
    motion = _scale_motion(motion, frame, displacement_mm, target)
    texture = Texture.draw(generator, target)
    no_motion = motion.with_gain((0.0, 0.0, 0.0))
    scans = []
    for contrast, shift in zip(contrasts, (motion, no_motion), strict=True):
        values, labels = _render(frame, contrast, (person, shift), plan, texture)
        values = _add_scanner_effects(values, contrast, float(noise), generator)
        scans.append((Image(values[None], grid), Image(labels[None], grid)))
    fixed_mm, moving_mm = _corresponding_landmarks(frame, person, motion, plan)
    points_device = target if finest_float(target) == torch.float64 else torch.device("cpu")
    return PhantomPair(
        fixed=scans[0][0],
        moving=scans[1][0],
        fixed_labels=scans[0][1],
        moving_labels=scans[1][1],
        fixed_landmarks_mm=fixed_mm.to(points_device),
        moving_landmarks_mm=moving_mm.to(points_device),
        disp_vox=_displacement_vox(frame, motion, target),
        label_names=dict(LABEL_NAMES),
    )


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class _Frame:
    """The grid in the nominal torso: 4x4 map of voxel indices to nominal mm, and nominal mm per mm."""

    grid: Grid
    from_voxels: np.ndarray
    per_mm: tuple[float, float, float]

    @classmethod
    def of(cls, grid: Grid) -> _Frame:
        """Fit the torso to a grid: centred, along R, A and S, scaled to the extent of the closest axes."""
        axes, _ = grid.canonical_axes()
        ratio = [
            1.0 if a == grid.slice_axis else 2 * half / (grid.shape[a] * grid.spacing_mm[a])
            for half, a in zip(HALF_MM, axes, strict=True)
        ]
        centre = grid.affine @ [*((n - 1) / 2 for n in grid.shape), 1.0]
        fit = np.diag([*ratio, 1.0])
        fit[:3, 3] = -np.array(ratio) * centre[:3]
        return cls(grid=grid, from_voxels=fit @ grid.affine, per_mm=(ratio[0], ratio[1], ratio[2]))

    def coords(self, start: int, stop: int, device: torch.device) -> Field:
        """Return nominal coordinates of the voxels of planes ``start`` to ``stop`` of the first axis, float32."""
        shape = (stop - start, self.grid.shape[1], self.grid.shape[2])
        at = identity_positions(shape, like=torch.empty(0, device=device))
        at[0] += start
        m = self.from_voxels.tolist()
        return torch.stack([at[0] * m[a][0] + at[1] * m[a][1] + (at[2] * m[a][2] + m[a][3]) for a in range(3)])

    def edge_mm(self) -> float:
        """Return the mean size of a voxel, in nominal mm; in the plane of a single slice."""
        if self.grid.slice_axis is None:
            return float(abs(np.linalg.det(self.from_voxels[:3, :3])) ** (1 / 3))
        first, second = np.linalg.norm(self.from_voxels[:3, :3], axis=0)[list(axes_with_extent(self.grid))]
        return float(math.sqrt(first * second))

    def slabs(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of planes of the first axis, which bound the memory of temporaries."""
        planes = max(1, _BLOCK_VOXELS // math.prod(self.grid.shape[1:]))
        for start in range(0, self.grid.shape[0], planes):
            yield start, min(start + planes, self.grid.shape[0])


def _scale_motion(motion: Motion, frame: _Frame, displacement_mm: Number, device: torch.device) -> Motion:
    """Scale the motion to a largest displacement, and check that it does not fold."""
    longest = torch.stack([motion(frame.coords(*slab, device)).square().sum(0).max() for slab in frame.slabs()])
    scale = displacement_mm / math.sqrt(float(longest.max()))
    i, j, k = (scale * p * gain for p, gain in zip(frame.per_mm, motion.gain, strict=True))
    scaled = motion.with_gain((i, j, k))
    axes = [torch.linspace(-half, half, 17, dtype=torch.float64, device="cpu") for half in HALF_MM]
    lattice = torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    safe = largest_safe_scale(jacobian(scaled, lattice.T), _LEAST_JACOBIAN)
    if safe < 1:
        raise ConfigError(
            f"displacement_mm must be at most {safe * displacement_mm:.3g} in this field of view, got "
            f"{displacement_mm:g}: the Jacobian determinant must be above {_LEAST_JACOBIAN}; choose a smaller "
            "displacement_mm or larger voxels"
        )
    return scaled


def _render(
    frame: _Frame, contrast: str, maps: tuple[Motion, Motion], plan: Plan, texture: Texture
) -> tuple[Volume, Shaped[Tensor, "i j k"]]:
    """Compute noise-free values and labels at coordinates displaced by the motion and by the individual anatomy."""
    person, shift = maps
    device = texture.grain.device
    values = torch.empty(frame.grid.shape, device=device)
    labels = torch.empty(frame.grid.shape, dtype=torch.int32, device=device)
    for start, stop in frame.slabs():
        coords = shift.displace(frame.coords(start, stop, device))
        anatomical = person.displace(coords)
        canvas = Canvas.blank(anatomical, texture(anatomical), contrast, frame.edge_mm())
        _paint(canvas, plan)
        values[start:stop], labels[start:stop] = canvas.values, canvas.labels
    return values, labels


def _paint(canvas: Canvas, plan: Plan) -> None:
    """Paint the whole torso; later structures cover earlier ones."""
    cavity = paint_wall(canvas)
    paint_strands(canvas, cavity)
    paint_back(canvas)
    paint_spine(canvas)
    paint_ribs(canvas, cavity)
    paint_kidneys(canvas)
    paint_spleen(canvas, cavity)
    paint_bowel(canvas, plan)
    paint_pancreas(canvas)
    paint_stomach(canvas)
    paint_liver(canvas, plan)
    paint_chest(canvas, cavity)
    paint_vessels(canvas)


def _add_scanner_effects(values: Volume, contrast: str, noise: float, generator: torch.Generator) -> Volume:
    """Add noise and, for MR, the bias field of the coil."""
    if contrast == "ct":
        return gaussian_noise(values, noise * _CT_NOISE_HU, generator)
    i, j, k = values.shape
    biased = values * bias_field((i, j, k), noise * _MR_BIAS, generator, values.device)
    return rician_noise(biased.clamp_(min=0), noise * _MR_NOISE, generator)


def _displacement_vox(frame: _Frame, motion: Motion, device: torch.device) -> Field:
    """Compute the displacement of each voxel, in voxels."""
    inverse = np.linalg.inv(frame.from_voxels[:3, :3]).tolist()
    field = torch.empty((3, *frame.grid.shape), device=device)
    for start, stop in frame.slabs():
        shift = motion(frame.coords(start, stop, device))
        for a in range(3):
            field[a, start:stop] = sum(shift[b] * inverse[a][b] for b in range(3))
    return field


def _corresponding_landmarks(frame: _Frame, person: Motion, motion: Motion, plan: Plan) -> tuple[Points, Points]:
    """Return corresponding landmarks of the fixed and the moving scan that are in both fields of view."""
    nominal = torch.tensor(landmarks(plan), dtype=torch.float64, device="cpu")
    moving = solve(person, nominal)
    fixed = solve(motion, moving)
    to_voxels = torch.from_numpy(np.linalg.inv(frame.from_voxels))
    vox = [points @ to_voxels[:3, :3].T + to_voxels[:3, 3] for points in (fixed, moving)]
    last = torch.tensor(frame.grid.shape, dtype=torch.float64, device="cpu") - 1
    held = torch.stack([((v >= 0) & (v <= last)).all(1) for v in vox]).all(0)
    return frame.grid.index_to_world(vox[0][held]), frame.grid.index_to_world(vox[1][held])


def _parse_grid(shape: Any, spacing_mm: Any, affine: Any) -> Grid:
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    whole = all(type(n) is int and (n == 1 or n >= _LEAST_VOXELS) for n in sizes)
    if len(sizes) != 3 or not whole or sizes.count(1) > 1:
        raise InputError(
            f"shape must be three whole numbers of at least {_LEAST_VOXELS} voxels, one of which may be 1, got "
            f"{show(shape)}; choose others"
        )
    if affine is not None:
        if spacing_mm is not None:
            raise ConfigError(
                "spacing_mm must be None with an affine, which determines the spacing, got both; omit one of them"
            )
        return Grid((sizes[0], sizes[1], sizes[2]), affine)
    sides = [2 * half / n for half, n in zip(HALF_MM, sizes, strict=True)]
    thick = min(sides)  # of a single slice
    spacing = (
        tuple(thick if n == 1 else s for n, s in zip(sizes, sides, strict=True)) if spacing_mm is None else spacing_mm
    )
    if not isinstance(spacing, (tuple, list)) or len(spacing) != 3 or not all(_is_number(s) and s > 0 for s in spacing):
        raise ConfigError(f"spacing_mm must be three positive numbers, got {show(spacing_mm)}; pass one per axis")
    centred = np.diag([*map(float, spacing), 1.0])
    centred[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(sizes, spacing, strict=True)]
    return Grid((sizes[0], sizes[1], sizes[2]), centred)


def _check_settings(contrasts: Any, displacement_mm: Any, noise: Any, seed: Any) -> None:
    pair = tuple(contrasts) if isinstance(contrasts, (tuple, list)) else (contrasts,)
    if len(pair) != 2 or not all(c in CONTRASTS for c in pair):
        known = ", ".join(CONTRASTS)
        raise ConfigError(
            f"contrasts must be two of {known}, got {show(contrasts)}; pass one for the fixed and one for the moving "
            "scan"
        )
    for name, value in (("displacement_mm", displacement_mm), ("noise", noise)):
        if not _is_number(value) or value < 0:
            raise ConfigError(f"{name} must be a finite number of at least 0, got {show(value)}; choose another")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(f"seed must be a whole number of at least 0, got {show(seed)}; choose another")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
