"""What is known of a pair that a transform can be judged by, and how it is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import torch

from convexadam._typing import Points, Triple
from convexadam.errors import InputError
from convexadam.features import MindSSC, pooled_features
from convexadam.geometry import DisplacementField, Image, resample
from convexadam.geometry.tensors import finest_float
from convexadam.io import PairFiles, read_image, read_landmarks
from convexadam.kernels.resize import pool
from convexadam.kernels.warp import identity_positions
from convexadam.metrics import common_labels, dice, hd95, tre
from convexadam.metrics.folding import folded_share, inner_determinant, shifted_log_spread
from convexadam.metrics.summary import mean_of_known, whole_numbers
from convexadam.registration.levels import fitting

Entries: TypeAlias = dict[str, list[float]]
"""Figures of one pair: for each metric one number, or one for each label or landmark."""

HELD_BACK = MindSSC(radius=1, dilation=4)
"""Described by this, images are compared where nothing else is known; no space that comes along tries it."""

_SPACING: Triple = (2, 2, 2)
"""Of the nodes on which images are compared."""

_SEEN = 0.999
"""Share of a node that the moving image has to show."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """Labels, some of them scored, or landmarks of both images of a pair; neither leaves what images alone tell."""

    labels: tuple[Image, Image] | None = None
    scored: tuple[int, ...] = ()
    landmarks_mm: tuple[Points, Points] | None = None
    surface: bool = True

    @classmethod
    def read(cls, files: PairFiles, fixed: Image, moving: Image, *, surface: bool = True) -> Truth:
        """Read what a pair offers.

        Raises
        ------
        FileError, InputError
            If it cannot be read, the fixed labels are not on the fixed image's grid, or the label maps have no label in
            common.
        """
        labels = landmarks = None
        scored: tuple[int, ...] = ()
        device = fixed.data.device
        if files.fixed_labels is not None and files.moving_labels is not None:
            names = [f"{side} (pair {files.name})" for side in ("fixed", "moving")]
            maps = [read_image(path, device=device) for path in (files.fixed_labels, files.moving_labels)]
            if not maps[0].grid.same_as(fixed.grid):
                raise InputError(
                    f"the fixed labels of pair {files.name} are not on the grid of its fixed image; resample them"
                )
            labels = whole_numbers(maps[0], names[0]), whole_numbers(maps[1], names[1])
            scored = tuple(common_labels(labels[0].data, labels[1].data))
            if not scored:
                raise InputError(f"the label maps of pair {files.name} have no label in common, but 0")
        if files.fixed_landmarks is not None and files.moving_landmarks is not None:
            points = read_landmarks(files.fixed_landmarks), read_landmarks(files.moving_landmarks)
            if len(points[0]) != len(points[1]):
                raise InputError(
                    f"pair {files.name} has {len(points[0])} fixed landmarks but {len(points[1])} moving ones; "
                    "row by row they are the same place"
                )
            landmarks = fixed.grid.to_mm(points[0]), moving.grid.to_mm(points[1])
        return cls(labels=labels, scored=scored, landmarks_mm=landmarks, surface=surface)

    @property
    def known(self) -> bool:
        """Whether there is any."""
        return self.labels is not None or self.landmarks_mm is not None

    def before(self) -> Entries:
        """Return the figures of each label and landmark with no transform at all: which of them are hard."""
        found: Entries = {}
        if self.labels is not None:
            fixed, moving = self.labels
            there = resample(moving, fixed.grid, mode="nearest").data[0]
            found["dice"] = [*dice(fixed.data[0], there, labels=self.scored).values()]
        if self.landmarks_mm is not None:
            found["tre_mm"] = tre(*self.landmarks_mm).tolist()
        return found

    def entries(self, transform: DisplacementField) -> Entries:
        """Return the figures of a transform."""
        determinants = inner_determinant(transform.to_voxels(), torch.float32)
        found: Entries = {
            "sdlogj": [shifted_log_spread(determinants)],
            "folded_percent": [100 * folded_share(determinants)],
        }
        if self.labels is not None:
            fixed, moving = self.labels
            moved = transform.warp(moving, mode="nearest").data[0]
            found["dice"] = [*dice(fixed.data[0], moved, labels=self.scored).values()]
            if self.surface:
                spacing_mm = transform.grid.spacing_mm
                found["hd95_mm"] = [*hd95(fixed.data[0], moved, spacing_mm=spacing_mm, labels=self.scored).values()]
        if self.landmarks_mm is not None:
            found["tre_mm"] = tre(*self.landmarks_mm, transform).tolist()
        return found


def blind_entries(fixed: Image, moving: Image, there: DisplacementField, back: DisplacementField) -> Entries:
    """Judge without any truth: whether the ways there and back agree, and what nobody optimised is alike.

    ``inverse_error_mm`` is the mean distance from which a point of the fixed image comes back, over those points that
    lie within the moving image; ``feature_residual`` the mean squared difference of `HELD_BACK`, summed over channels,
    where the moving image is seen.
    """
    spacing = fitting(_SPACING, fixed.grid.shape)
    nodes = fixed.grid.pooled(spacing)
    points = nodes.to_mm(
        identity_positions(nodes.shape, like=there.disp_mm).reshape(3, -1).T.to(finest_float(fixed.data.device))
    )
    reached = there(points)
    indices, last = moving.grid.to_voxels(reached), torch.tensor(moving.grid.shape, device=points.device) - 1
    inside = ((indices >= 0) & (indices <= last)).all(1)
    still = moving.grid.to_voxels(points)
    if 2 * inside.sum() < ((still >= 0) & (still <= last)).all(1).sum():  # a field that moves the image out of sight
        return {"inverse_error_mm": [math.nan], "feature_residual": [math.nan]}
    error = (back(reached[inside]) - points[inside]).norm(dim=1)
    described = pooled_features(HELD_BACK, _floating(fixed), (spacing,))[0]
    seen = there.warp(Image(torch.ones_like(moving.data[:1], dtype=torch.float32), moving.grid), mode="linear").data[0]
    moved = there.warp(_floating(moving), mode="linear")
    difference = pooled_features(HELD_BACK, moved, (spacing,), weight=seen)[0].sub_(described).square_().sum(0)
    weight = (pool(seen[None], spacing)[0] > _SEEN).float()
    return {
        "inverse_error_mm": [float(error.mean())],
        "feature_residual": [float((difference * weight).sum() / weight.sum())],
    }


def hardest(before: Sequence[float], metric: str) -> list[int]:
    """Places of the 30 per cent of entries, at least one, that were worst before registration."""
    order = sorted(range(len(before)), key=before.__getitem__, reverse=not HIGHER_IS_BETTER[metric])
    return order[: max(1, math.ceil(0.3 * len(before)))]


def summarised(entries: Mapping[str, Entries], before: Mapping[str, Entries]) -> dict[str, float]:
    """Figures over all pairs: of each metric the mean over pairs, and of those with entries that of the hardest 30 %.

    The hardest are the labels or landmarks of all pairs that were worst before registration, as Learn2Reg counts them.
    A label that was lost has no surface distance, and is left out there; its Dice is 0.
    """
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for case in entries.values() for name in case):
        with_it = {case: figures[name] for case, figures in entries.items() if name in figures}
        means = [mean_of_known(values) for values in with_it.values()]
        # a pair without a figure is no easy one; but where all labels of a pair are lost, Dice says so
        found[name] = mean_of_known(means) if name == "hd95_mm" else math.fsum(means) / len(means)
        if name in HARDEST:
            entries_before = [value for case in with_it for value in before[case][name]]
            entries_after = [value for values in with_it.values() for value in values]
            found[HARDEST[name]] = mean_of_known(entries_after[n] for n in hardest(entries_before, name))
    return found


HARDEST = {"dice": "dice30", "tre_mm": "tre30_mm"}
"""Metrics that are also looked at where it is hardest, and under what name."""

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


def ranked_metrics(names: set[str]) -> tuple[str, ...]:
    """Those of the metrics at hand that settings are ranked by: with labels or landmarks, folding is left to SDlogJ."""
    blind = "inverse_error_mm" in names
    left_out = "sdlogj" if blind else "folded_percent"
    return tuple(name for name in HIGHER_IS_BETTER if name in names and name != left_out)


def _floating(image: Image) -> Image:
    return Image(image.data.float(), image.grid)
