"""Pairs whose linear transform is known: a volume sampled twice, once through the transform, with independent noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from convexadam import Grid, Image, read_image
from convexadam.data import phantom_pair

Volume = tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]
"""Values, and the affine to mm RAS+."""

FOLDERS = {"brain": "brain_t1_vxm", "lung": "lung_ct_elastix", "liver": "liver_mr_eth_18"}
PHANTOM_SHAPE = (200, 150, 150)
NOISE = 0.07
"""Standard deviation, relative to the mean difference between object and background."""

DISTORTION = 0.05
"""Largest entry of the scaling and shear that an affine transform has beside its rotation."""

SMOOTHING = 0.425
"""Sigma of the point spread function in voxels: its full width at half maximum is one (Cardoso et al., MICCAI 2015)."""


@dataclass(frozen=True)
class Motion:
    """A rotation about the centre of the field of view, and a translation, along random directions."""

    degrees: float
    mm: float

    def __str__(self) -> str:
        return f"{self.degrees:g}°, {self.mm:g} mm" if self.degrees or self.mm else "no motion"


@dataclass(frozen=True)
class Case:
    """A pair.

    Attributes
    ----------
    source
        A folder of `FOLDERS`, or ``"phantom"`` with the contrasts of the fixed and of the moving image.
    spacing_mm
        Width of the cubic voxels of both images.
    motion
        The transform.
    overlap
        Share of each field of view that is in the other one, before the motion.
    models
        Models that are estimated; with ``"affine"`` the truth is affine.
    """

    source: str
    spacing_mm: float
    motion: Motion
    overlap: float = 1.0
    models: tuple[str, ...] = ("rigid", "affine")

    @property
    def name(self) -> str:
        """Return the name in the tables."""
        overlap = "" if self.overlap == 1 else f", {100 * self.overlap:.0f} % overlap"
        return f"{self.source}, {self.spacing_mm:g} mm voxels: {self.motion}{overlap}"

    @property
    def has_two_contrasts(self) -> bool:
        """Return whether the intensities of the images differ in meaning."""
        contrasts = self.source.split()[1:]
        return len(set(contrasts)) == 2

    @property
    def needs_data(self) -> bool:
        """Return whether the source is in the data folder."""
        return self.source in FOLDERS


STILL, SMALL, MEDIUM, LARGE = Motion(0, 0), Motion(1, 1), Motion(4, 4), Motion(30, 60)
CASES = (
    *(Case("brain", 2.5, motion) for motion in (STILL, SMALL, MEDIUM, LARGE)),
    Case("brain", 2.5, MEDIUM, overlap=0.6),
    Case("brain", 1, MEDIUM, models=("rigid",)),
    Case("brain", 4, MEDIUM),
    *(Case("lung", 2.5, motion) for motion in (SMALL, MEDIUM)),
    *(Case("liver", 2, motion) for motion in (SMALL, MEDIUM)),
    *(Case("phantom ct ct", 4, motion) for motion in (STILL, SMALL, MEDIUM, LARGE)),
    *(Case(f"phantom {contrasts}", 4, MEDIUM) for contrasts in ("t1 t2", "ct t1")),
)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images, and the transform between them.

    Attributes
    ----------
    fixed, moving
        The images.
    truth
        4x4, mm RAS+, fixed to moving space.
    points
        Points of the object in mm, ``(n, 3)``.
    """

    fixed: Image
    moving: Image
    truth: npt.NDArray[np.float64]
    points: npt.NDArray[np.float64]

    def measure(self, matrix: npt.NDArray[np.float64]) -> float:
        """Return the mean distance between a transform and the truth over the object, in voxels."""
        difference = (matrix - self.truth)[:3]
        lengths = np.linalg.norm(self.points @ difference[:, :3].T + difference[:, 3], axis=1)
        return float(lengths.mean() / self.fixed.grid.spacing_mm[0])


def make_pair(case: Case, model: str, data: Path | None, seed: int = 0) -> Pair:
    """Sample the source of a case twice, and add noise."""
    rng = np.random.default_rng(seed)
    one, other = load_source(case.source, data)
    shape, affine = place_grid(one, case.spacing_mm)
    truth = draw_transform(case.motion, model, affine, shape, rng)
    volumes = [
        sample(source, affine, shape, matrix, case.spacing_mm)
        for source, matrix in ((one, np.eye(4)), (other, np.linalg.inv(truth)))
    ]
    found = find_object(volumes[0])[1]
    noisy = [add_noise(values, rng) for values in volumes]
    slices = crop_to_overlap(shape, case.overlap)
    images = []
    for values, kept in zip(noisy, slices, strict=True):
        placed = affine.copy()
        placed[:3, 3] += affine[:3, :3] @ [piece.start for piece in kept]
        cropped = torch.from_numpy(np.ascontiguousarray(values[kept]))[None]
        images.append(Image(cropped, Grid(tuple(cropped.shape[1:]), placed)))
    inside = np.zeros(shape, bool)
    inside[slices[0]] = found[slices[0]]
    points = np.argwhere(inside)[::37] @ affine[:3, :3].T + affine[:3, 3]
    return Pair(images[0], images[1], truth, points)


@cache
def load_source(name: str, data: Path | None) -> tuple[Volume, Volume]:
    """Return the volume from which the fixed image is sampled, and that of the moving image."""
    if name in FOLDERS:
        assert data is not None
        image = read_image(data / FOLDERS[name] / "fixed.nii.gz")
        values = image.data[0].numpy().astype(np.float32)
        volume = (np.clip(values, -1000, None) if name == "lung" else values, image.grid.affine)
        return volume, volume
    fixed, moving = name.split()[1:]
    pair = phantom_pair(PHANTOM_SHAPE, contrasts=(fixed, moving), displacement_mm=0.0, noise=0.0)
    one, other = ((image.data[0].numpy(), image.grid.affine) for image in (pair.fixed, pair.moving))
    return one, other


def place_grid(source: Volume, spacing_mm: float) -> tuple[tuple[int, int, int], npt.NDArray[np.float64]]:
    """Return shape and affine of a grid of cubic voxels along R, A and S in the field of view of a volume."""
    values, affine = source
    ends = np.array(np.meshgrid(*((-0.5, n - 0.5) for n in values.shape))).reshape(3, -1).T
    corners = ends @ affine[:3, :3].T + affine[:3, 3]
    low, high = corners.min(0), corners.max(0)
    i, j, k = (int(n) for n in np.round((high - low) / spacing_mm))
    placed = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    placed[:3, 3] = (low + high) / 2 - spacing_mm * (np.array((i, j, k)) - 1) / 2
    return (i, j, k), placed


def draw_transform(
    motion: Motion, model: str, affine: npt.NDArray[np.float64], shape: tuple[int, int, int], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw a transform of a model, fixed to moving space."""
    axis, direction = rng.normal(size=(2, 3))
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = math.radians(motion.degrees)
    linear = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    if model == "affine" and motion != STILL:
        linear = linear @ (np.eye(3) + DISTORTION * rng.uniform(-1, 1, (3, 3)))
    centre = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre + motion.mm * direction / np.linalg.norm(direction) - linear @ centre
    return matrix


def sample(
    source: Volume,
    affine: npt.NDArray[np.float64],
    shape: tuple[int, int, int],
    matrix: npt.NDArray[np.float64],
    spacing_mm: float,
) -> npt.NDArray[np.float32]:
    """Interpolate a volume by cubic splines at the transformed voxel centres of a grid, with antialiasing."""
    values, own = source
    ratio = spacing_mm / np.linalg.norm(own[:3, :3], axis=0)
    sigma = SMOOTHING * np.sqrt(np.maximum(ratio**2 - 1, 0))
    smooth = ndimage.gaussian_filter(values, sigma) if sigma.any() else values
    index = np.linalg.inv(own) @ matrix @ affine
    sampled: npt.NDArray[np.float32] = ndimage.affine_transform(
        smooth, index[:3, :3], index[:3, 3], output_shape=shape, order=3, mode="constant", cval=float(values.min())
    )
    return sampled.astype(np.float32)


def find_object(values: npt.NDArray[np.float32]) -> tuple[float, npt.NDArray[np.bool_]]:
    """Return the value of the background, that of the outer planes, and which voxels differ from it."""
    background = float(np.median(values[[0, -1]]))
    found: npt.NDArray[np.bool_] = np.abs(values - background) > 0.1 * np.ptp(values)
    return background, found


def add_noise(values: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Add Gaussian noise in proportion to the object."""
    background, found = find_object(values)
    level = NOISE * float(np.abs(values[found] - background).mean())
    return values + level * rng.standard_normal(values.shape, np.float32)


def crop_to_overlap(shape: tuple[int, int, int], overlap: float) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the parts of a grid, from its two ends along the last axis, that share a part of each."""
    length = round(shape[2] / (2 - overlap))
    whole = slice(0, shape[0]), slice(0, shape[1])
    return (*whole, slice(0, length)), (*whole, slice(shape[2] - length, shape[2]))


def make_series(frames: int, seed: int = 0) -> list[Pair]:
    """Return the first frame of a series of a phantom with each of the others, with motion of up to 2° and 2 mm."""
    rng = np.random.default_rng(seed)
    source, _ = load_source("phantom t2 t2", None)
    shape, affine = place_grid(source, 4)
    clean = sample(source, affine, shape, np.eye(4), 4)
    points = np.argwhere(find_object(clean)[1])[::37] @ affine[:3, :3].T + affine[:3, 3]
    first = Image(torch.from_numpy(add_noise(clean, rng))[None], Grid(shape, affine))
    pairs = []
    for _ in range(frames - 1):
        motion = Motion(*rng.uniform(0, 2, 2))
        truth = draw_transform(motion, "rigid", affine, shape, rng)
        values = add_noise(sample(source, affine, shape, np.linalg.inv(truth), 4), rng)
        pairs.append(Pair(first, Image(torch.from_numpy(values)[None], first.grid), truth, points))
    return pairs
