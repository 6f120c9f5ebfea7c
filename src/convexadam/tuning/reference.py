"""Reference data of a pair, by which the transform of a trial is evaluated, and the metrics of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import torch

from convexadam._typing import Points, Triple
from convexadam.errors import InputError
from convexadam.features import MindSSC, extract_features
from convexadam.geometry import DisplacementField, Image, resample
from convexadam.geometry.grid import HEADER_ROUNDING
from convexadam.geometry.tensors import finest_float
from convexadam.io import PairFiles, read_image, read_landmarks_mm
from convexadam.kernels.resize import pool
from convexadam.kernels.warp import identity_positions
from convexadam.metrics import common_labels, dice, hd95, tre
from convexadam.metrics.folding import folded_share, inner_determinant, shifted_log_spread
from convexadam.metrics.summary import mean_ignoring_nan, to_integer_labels
from convexadam.registration.pair import fit_spacing

Entries: TypeAlias = dict[str, list[float]]
"""Values of one pair by metric: a single one, or one for each label or landmark."""

HELD_OUT_FEATURES = MindSSC(radius=1, dilation=4)
"""Features by which images are compared without reference data; no space of the library includes them."""

_SPACING: Triple = (2, 2, 2)
"""Spacing in voxels of the points at which images are compared."""

_MIN_OVERLAP = 0.999
"""Share of the voxels around a point that must have data of the moving image."""

_HARDEST_SHARE = 0.3
"""As in the ranking of Learn2Reg."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Reference segmentations or landmarks of both images of a pair, if there are any.

    Attributes
    ----------
    labels
        Fixed and moving label map.
    scored
        The labels that both maps contain.
    landmarks_mm
        Fixed and moving landmarks, row by row the same anatomical points.
    surface
        Whether surface distances are computed.
    """

    labels: tuple[Image, Image] | None = None
    scored: tuple[int, ...] = ()
    landmarks_mm: tuple[Points, Points] | None = None
    surface: bool = True

    @classmethod
    def read(cls, files: PairFiles, fixed: Image, moving: Image, *, surface: bool = True) -> Reference:
        """Read the label maps and landmarks of a pair.

        Raises
        ------
        FileError, InputError
            If a file cannot be read, the fixed labels are not on the grid of the fixed image, the label maps have no
            label in common, or the numbers of landmarks differ.
        """
        labels = landmarks = None
        scored: tuple[int, ...] = ()
        device = fixed.data.device
        if files.fixed_labels is not None and files.moving_labels is not None:
            names = [f"{side}_labels of pair {files.id}" for side in ("fixed", "moving")]
            maps = [read_image(path, device=device) for path in (files.fixed_labels, files.moving_labels)]
            if not maps[0].grid.is_close(fixed.grid, tolerance=HEADER_ROUNDING):
                raise InputError(
                    f"fixed_labels of pair {files.id} must be on the grid of its fixed image "
                    f"{fixed.grid.shape}, got the grid {maps[0].grid.shape}; resample them"
                )
            labels = to_integer_labels(maps[0], names[0]), to_integer_labels(maps[1], names[1])
            scored = tuple(common_labels(labels[0].data, labels[1].data))
            if not scored:
                raise InputError(
                    f"fixed_labels and moving_labels of pair {files.id} must have a label above 0 in common, "
                    "got none; check the label maps"
                )
        if files.fixed_landmarks is not None and files.moving_landmarks is not None:
            landmarks = (
                read_landmarks_mm(files.fixed_landmarks, fixed.grid),
                read_landmarks_mm(files.moving_landmarks, moving.grid),
            )
            if len(landmarks[0]) != len(landmarks[1]):
                raise InputError(
                    f"fixed_landmarks and moving_landmarks of pair {files.id} must be row by row the same points, "
                    f"got {len(landmarks[0])} and {len(landmarks[1])}; remove those without a partner"
                )
        return cls(labels=labels, scored=scored, landmarks_mm=landmarks, surface=surface)

    @property
    def is_available(self) -> bool:
        """Whether there are label maps or landmarks."""
        return self.labels is not None or self.landmarks_mm is not None

    def evaluate_before(self) -> Entries:
        """Return the Dice of each label and the error of each landmark before registration."""
        entries: Entries = {}
        if self.labels is not None:
            fixed, moving = self.labels
            resampled = resample(moving, fixed.grid, mode="nearest").data[0]
            entries["dice"] = [*dice(fixed.data[0], resampled, labels=self.scored).values()]
        if self.landmarks_mm is not None:
            entries["tre_mm"] = tre(*self.landmarks_mm).tolist()
        return entries

    def evaluate(self, transform: DisplacementField) -> Entries:
        """Return the metrics of a transform: regularity always, accuracy by the labels and landmarks there are."""
        determinants = inner_determinant(transform.to_voxels(), torch.float32)
        entries: Entries = {
            "sdlogj": [shifted_log_spread(determinants)],
            "folded_percent": [100 * folded_share(determinants)],
        }
        if self.labels is not None:
            fixed, moving = self.labels
            moved = transform.warp(moving, mode="nearest").data[0]
            entries["dice"] = [*dice(fixed.data[0], moved, labels=self.scored).values()]
            if self.surface:
                spacing_mm = transform.grid.spacing_mm
                entries["hd95_mm"] = [*hd95(fixed.data[0], moved, spacing_mm=spacing_mm, labels=self.scored).values()]
        if self.landmarks_mm is not None:
            entries["tre_mm"] = tre(*self.landmarks_mm, transform).tolist()
        return entries


def evaluate_without_reference(
    fixed: Image, moving: Image, forward: DisplacementField, backward: DisplacementField
) -> Entries:
    """Evaluate a pair of transforms by their inverse consistency and by features that no setting optimised.

    ``inverse_error_mm`` is the mean of ``|backward(forward(x)) - x|`` over the points ``x`` of the fixed image that
    ``forward`` maps into the moving image; ``feature_residual`` the mean squared difference of `HELD_OUT_FEATURES`,
    summed over channels, where the warped image has data. Both are NaN if ``forward`` maps less than half of the points
    into the moving image that the identity does.
    """
    spacing = fit_spacing(_SPACING, fixed.grid.shape)
    grid = fixed.grid.pool(spacing)
    points = grid.index_to_world(
        identity_positions(grid.shape, like=forward.disp_mm).reshape(3, -1).T.to(finest_float(fixed.data.device))
    )
    mapped = forward(points)
    inside = _is_inside(mapped, moving)
    if 2 * inside.sum() < _is_inside(points, moving).sum():
        return {"inverse_error_mm": [math.nan], "feature_residual": [math.nan]}
    error = (backward(mapped[inside]) - points[inside]).norm(dim=1)
    fixed_features = extract_features(HELD_OUT_FEATURES, _to_float(fixed), (spacing,))[0]
    ones = Image(torch.ones_like(moving.data[:1], dtype=torch.float32), moving.grid)
    overlap = forward.warp(ones, mode="linear").data[0]
    moved = forward.warp(_to_float(moving), mode="linear")
    features = extract_features(HELD_OUT_FEATURES, moved, (spacing,), weight=overlap)[0]
    difference = features.sub_(fixed_features).square_().sum(0)
    weight = (pool(overlap[None], spacing)[0] > _MIN_OVERLAP).float()
    return {
        "inverse_error_mm": [float(error.mean())],
        "feature_residual": [float((difference * weight).sum() / weight.sum())],
    }


def find_hardest(before: Sequence[float], metric: str) -> list[int]:
    """Return the indices of the 30 per cent (at least one) that were worst before registration."""
    order = sorted(range(len(before)), key=before.__getitem__, reverse=not HIGHER_IS_BETTER[metric])
    return order[: max(1, math.ceil(_HARDEST_SHARE * len(before)))]


def summarise(entries: Mapping[str, Entries], before: Mapping[str, Entries]) -> dict[str, float]:
    """Return the mean of each metric over pairs, and that of the hardest 30 per cent of the labels or landmarks.

    The hardest are those of all pairs together that were worst before registration, as in Learn2Reg. A label that the
    warp has lost has Dice 0 and no surface distance: it is left out of the latter.
    """
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(name for pair in entries.values() for name in pair):
        values = {pair: of_pair[name] for pair, of_pair in entries.items() if name in of_pair}
        means = [mean_ignoring_nan(of_pair) for of_pair in values.values()]
        # NaN stays NaN, since a pair that could not be evaluated is not an easy one; but of the surface distance, where
        # a pair may have lost all labels, which its Dice shows
        metrics[name] = mean_ignoring_nan(means) if name == "hd95_mm" else math.fsum(means) / len(means)
        if name in HARDEST:
            all_before = [value for pair in values for value in before[pair][name]]
            all_after = [value for of_pair in values.values() for value in of_pair]
            metrics[HARDEST[name]] = mean_ignoring_nan(all_after[n] for n in find_hardest(all_before, name))
    return metrics


HARDEST = {"dice": "dice30", "tre_mm": "tre30_mm"}
"""Metrics that are also computed for the hardest labels or landmarks, and the names of those."""

HIGHER_IS_BETTER = {
    "dice": True,
    "dice30": True,
    "hd95_mm": False,
    "tre_mm": False,
    "tre30_mm": False,
    "sdlogj": False,
    "inverse_error_mm": False,
    "feature_residual": False,
    "folded_percent": False,
}
"""All metrics, those of accuracy first."""


def select_metrics(names: set[str]) -> tuple[str, ...]:
    """Return those of the available metrics that settings are ranked by.

    Regularity counts once: by SDlogJ with labels or landmarks, else by folding.
    """
    left_out = "sdlogj" if "inverse_error_mm" in names else "folded_percent"
    return tuple(name for name in HIGHER_IS_BETTER if name in names and name != left_out)


def _is_inside(points_mm: torch.Tensor, image: Image) -> torch.Tensor:
    """Whether points lie between the outer voxel centres."""
    index = image.grid.world_to_index(points_mm)
    last = torch.tensor(image.grid.shape, device=index.device) - 1
    return ((index >= 0) & (index <= last)).all(1)


def _to_float(image: Image) -> Image:
    return Image(image.data.float(), image.grid)
