"""Measures of the quality of a registration that need no labels and no landmarks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol, final

import numpy as np
import torch

from convexadam._typing import Tensor
from convexadam.geometry import Affine, DisplacementField, Grid, Image, Transform
from convexadam.geometry.conversion import ImageLike, to_image
from convexadam.geometry.matrices import decompose_matrix
from convexadam.kernels.trimmed_fit import fit_weighted
from convexadam.metrics.folding import folded_share, inner_determinant, shifted_log_spread
from convexadam.report.lattice import LatticePair, pool_quantiles

_AT_BOUNDARY = 0.95
"""Share of the radius of the search from which a displacement counts as one at its boundary."""

_FIT_POINTS = 20_000


class Registered(Protocol):
    """What is measured: a `RegistrationResult`, or the same read from files."""

    @property
    def transform(self) -> Transform:
        """Fixed to moving space."""
        ...

    @property
    def estimated_inverse(self) -> Transform | None:
        """Moving to fixed space, if it was estimated as well."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class QualityMeasures:
    """Measures of one registration; NaN where something was not available.

    Attributes
    ----------
    similarity_before, similarity_after
        Mean squared local correlation of both images, in [0, 1], at the positions of the headers and after
        registration, where the fixed image has structure; 0 counts for points outside the moving image.
    similarity_shuffled
        The same for the moved image rolled by half its extent: the level of unrelated anatomy.
    matched_percent
        Points with structure at which the transform matches better than any shift by up to four points of a lattice of
        80,000 points.
    residual_mm
        Mean distance of the best of these shifts: an estimate of the remaining error.
    overlap_percent
        Points of the fixed image with structure that the transform maps into the moving image (and its mask).
    inverse_consistency_mm
        95th percentile of ``|T^-1(T(x)) - x|``, if the inverse was estimated.
    folded_percent
        Voxels with a Jacobian determinant of 0 or less, in per cent.
    jacobian_low, jacobian_high
        1st and 99th percentile of the Jacobian determinant, relative to that of the linear motion.
    sdlogj
        Standard deviation of ``log(clip(det + 3, 1e-9, 1e9))``, as Learn2Reg computes it.
    rotation_degrees, translation_mm, volume_ratio
        Linear motion: angle of the affine transform fitted to ``T``, displacement of the centre of the fixed image, and
        determinant.
    deformation_mm
        Root mean square of the displacement beyond the linear motion.
    boundary_percent
        Points with structure whose displacement beyond the linear alignment is at least 95 % of the radius of the
        search along an axis.
    mirror_gain
        Similarity after registration of the moving image mirrored left to right, minus ``similarity_after``; above 0 if
        the mirrored image fits better.

    Examples
    --------
    >>> from convexadam.report import QualityMeasures
    >>> measures = QualityMeasures.from_dict({"similarity_shuffled": 0.2, "similarity_after": 0.8})
    >>> round(measures.similarity_gain, 2)
    0.75
    """

    similarity_before: float
    similarity_after: float
    similarity_shuffled: float
    matched_percent: float
    residual_mm: float
    overlap_percent: float
    inverse_consistency_mm: float
    folded_percent: float
    jacobian_low: float
    jacobian_high: float
    sdlogj: float
    rotation_degrees: float
    translation_mm: float
    volume_ratio: float
    deformation_mm: float
    boundary_percent: float
    mirror_gain: float = math.nan

    @property
    def similarity_gain(self) -> float:
        """Similarity after registration, from 0 for unrelated anatomy to 1."""
        return (self.similarity_after - self.similarity_shuffled) / max(1 - self.similarity_shuffled, 1e-6)

    def to_dict(self) -> dict[str, float | None]:
        """Return the measures by name as JSON holds them: ``None`` for NaN."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QualityMeasures:
        """Return the measures of `to_dict`; names that are missing or ``None`` become NaN, others are ignored."""
        numbers = {f.name: values.get(f.name) for f in fields(cls)}
        return cls(**{name: math.nan if value is None else float(value) for name, value in numbers.items()})


@torch.no_grad()
def measure_quality(
    result: Registered,
    fixed: ImageLike,
    moving: ImageLike,
    *,
    fixed_mask: ImageLike | None = None,
    moving_mask: ImageLike | None = None,
    mirrored: Registered | None = None,
) -> QualityMeasures:
    """Measure the quality of a registration without labels or landmarks.

    Parameters
    ----------
    result
        A `RegistrationResult`, or any object with a ``transform`` and its ``estimated_inverse`` (or ``None``). If it
        has a ``config`` with ``searches``, the displacements are compared with their radius.
    fixed, moving
        The registered images, in any form that `convexadam.as_image` takes; the first channel is compared.
    fixed_mask, moving_mask
        Above 0 where images are compared, on any grid; ``None`` compares all.
    mirrored
        Result of the same registration with ``mirror_image(moving)``. Left and right of a brain differ so little that
        nothing else tells a flipped one.

    Returns
    -------
    The measures.

    Raises
    ------
    InputError, FileError
        If an image is none, or cannot be read.

    Examples
    --------
    >>> from convexadam import register
    >>> volume = Image(torch.rand(1, 24, 20, 16, generator=torch.Generator().manual_seed(0)), Grid((24, 20, 16)))
    >>> measures = measure_quality(register(volume, volume), volume, volume)
    >>> round(measures.similarity_after, 2), measures.folded_percent
    (1.0, 0.0)
    """
    fixed, moving = to_image(fixed, "fixed"), to_image(moving, "moving")
    fixed_mask, moving_mask = (
        None if mask is None else to_image(mask, name)
        for name, mask in (("fixed_mask", fixed_mask), ("moving_mask", moving_mask))
    )
    pair = LatticePair.sample(result.transform, fixed, moving, (fixed_mask, moving_mask))
    structure = pair.structure
    residuals_mm = pair.residuals_mm()
    linear = fit_motion(pair)
    motion = decompose_matrix(linear)
    centre = pair.grid.affine @ np.append((np.array(pair.grid.shape) - 1) / 2, 1.0)
    determinants = _jacobian(result.transform, pair.grid) / (motion["determinant"] or math.nan)
    low, high = pool_quantiles(determinants, (0.01, 0.99))
    similarity = float(pair.similarity(pair.after, pair.after_weight))
    mirror_gain = math.nan
    if mirrored is not None:
        masks = fixed_mask, None if moving_mask is None else mirror_image(moving_mask, about=moving.grid)
        other = LatticePair.sample(mirrored.transform, fixed, mirror_image(moving), masks)
        mirror_gain = float(other.similarity(other.after, other.after_weight)) - similarity
    return QualityMeasures(
        similarity_before=float(pair.similarity(pair.before, pair.before_weight)),
        similarity_after=similarity,
        similarity_shuffled=float(pair.shuffle_similarity()),
        matched_percent=100 * _mean(residuals_mm == 0),
        residual_mm=_mean(residuals_mm),
        overlap_percent=100 * _mean(pair.after_weight[structure] > 0),
        inverse_consistency_mm=_measure_inverse_consistency(result, pair, structure),
        folded_percent=100 * folded_share(determinants),
        jacobian_low=low,
        jacobian_high=high,
        sdlogj=shifted_log_spread(determinants),
        rotation_degrees=motion["rotation_degrees"],
        translation_mm=float(np.linalg.norm((linear @ centre - centre)[:3])),
        volume_ratio=motion["determinant"],
        deformation_mm=_measure_deformation(pair, structure, linear),
        boundary_percent=_measure_boundary(result, pair, structure, fixed.grid),
        mirror_gain=mirror_gain,
    )


def mirror_image(image: Image, *, about: Grid | None = None) -> Image:
    """Mirror an image left to right: its voxels change their order along the axis closest to R, its grid does not.

    Parameters
    ----------
    image
        The image.
    about
        Grid in whose middle the plane lies: that of the image which a mask or label map belongs to. If it is another
        one than that of ``image``, the grid of the result is mirrored instead of its voxels. ``None`` for its own.

    Examples
    --------
    >>> import torch
    >>> from convexadam import as_image
    >>> from convexadam.report import mirror_image
    >>> image = as_image(torch.arange(8.0).reshape(2, 2, 2))
    >>> mirror_image(image).data[0, :, 0, 0].tolist()
    [4.0, 0.0]
    """
    plane = image.grid if about is None else about
    axis = plane.canonical_axes()[0][0]
    if plane.is_close(image.grid):
        return Image(image.data.flip(axis + 1), image.grid)
    flip = np.eye(4)
    flip[axis, axis], flip[axis, 3] = -1.0, plane.shape[axis] - 1.0
    return Image(
        image.data, Grid(image.grid.shape, plane.affine @ flip @ np.linalg.inv(plane.affine) @ image.grid.affine)
    )


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if values.numel() else math.nan


def _points(pair: LatticePair, where: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return points in mm and what they are mapped to, ``(n, 3)`` each."""
    index = where.nonzero()
    index = index[:: max(1, len(index) // _FIT_POINTS)]
    displacements = pair.disp_mm[:, index[:, 0], index[:, 1], index[:, 2]].T.double()
    points = pair.grid.index_to_world(index.double())
    return points.cpu().numpy(), (points + displacements).cpu().numpy()


def fit_motion(pair: LatticePair) -> np.ndarray:
    """Return the affine matrix, 4x4 in mm, that fits the transform best where the fixed image has structure."""
    structure = pair.structure
    points, targets = _points(pair, structure)
    if len(points) < 4:
        points, targets = _points(pair, torch.ones_like(structure))
    return fit_weighted(points, targets, np.ones(len(points)), model="affine")


def _measure_deformation(pair: LatticePair, structure: Tensor, linear: np.ndarray) -> float:
    points, targets = _points(pair, structure)
    if not len(points):
        return math.nan
    residuals = points @ linear[:3, :3].T + linear[:3, 3] - targets
    return float(np.sqrt((residuals**2).sum(1).mean()))


def _jacobian(transform: Transform, lattice: Grid) -> Tensor:
    if isinstance(transform, Affine):
        return torch.tensor([float(np.linalg.det(transform.matrix[:3, :3]))], dtype=torch.float64, device="cpu")
    grid = transform.fixed_grid or lattice
    field = transform if isinstance(transform, DisplacementField) else transform.to_displacement_field(grid)
    return inner_determinant(field.to_voxels(), dtype=torch.float32)


def _measure_inverse_consistency(result: Registered, pair: LatticePair, structure: Tensor) -> float:
    if result.estimated_inverse is None:
        return math.nan
    points, targets = _points(pair, structure & (pair.after_weight > 0))
    if not len(points):
        return math.nan
    returned = result.estimated_inverse(torch.from_numpy(targets).to(pair.disp_mm.device)).cpu().numpy()
    return float(np.percentile(np.linalg.norm(returned - points, axis=1), 95))


def _measure_boundary(result: Registered, pair: LatticePair, structure: Tensor, fixed: Grid) -> float:
    """Compare displacements beyond the linear alignment with the radius of all searches, if there are any."""
    config: Any = getattr(result, "config", None)
    searches = getattr(config, "searches", ())
    if not searches or not bool(structure.any()):
        return math.nan
    grid: Grid = config.grid(fixed)
    fit: Any = getattr(result, "linear", None)
    start = np.eye(4) if fit is None else np.asarray(fit.transform.matrix)
    points, targets = _points(pair, structure)
    along_axes = (targets - (points @ start[:3, :3].T + start[:3, 3])) @ np.linalg.inv(grid.affine[:3, :3]).T
    reach = np.zeros(3)
    for search in searches:
        spacing, radius = search.control_grid(grid.shape, grid.spacing_mm)
        reach += np.multiply(spacing, radius)
    return float(100 * np.mean((np.abs(along_axes) >= _AT_BOUNDARY * np.maximum(reach, 1e-9)).any(1)))
