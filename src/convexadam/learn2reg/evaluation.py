"""The numbers of the official evaluation of Learn2Reg (version 2.0), from fields as they are handed in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexadam._typing import Field
from convexadam.errors import FileError, InputError
from convexadam.io import learn2reg_voxels, read_image, read_landmarks
from convexadam.io.nifti import StrPath, open_nifti
from convexadam.io.reading import reading
from convexadam.learn2reg.measures import Measure, Measures, Metric
from convexadam.learn2reg.submission import found_fields
from convexadam.learn2reg.task import TaskPair
from convexadam.metrics import common_labels, dice, hd95_by_area
from convexadam.metrics.folding import folded_share, inner_determinant, inner_mask, shifted_log_spread
from convexadam.metrics.summary import whole_numbers
from convexadam.registration.register import Progress

_QUANTILE: dict[Metric, float] = {"tre": 0.7, "sdlogj": 0.7, "dice": 0.3, "hd95": 0.3}
"""Of the cases' means, reported as ``"30"``; that of HD95 is the better end, as in the official file."""

_HARDEST = 0.3


def evaluate_fields(measures: Measures, folder: StrPath, *, progress: Progress | None = None) -> dict[str, Any]:
    """Measure the fields in a folder, one for each pair, by the formulas of the official evaluation.

    Parameters
    ----------
    measures
        What to measure on which pairs.
    folder
        With fields as they are handed in (see `found_fields`).
    progress
        Called at the beginning of each pair and at the end.

    Returns
    -------
    As the official metrics.json: ``name``, ``aggregates`` (mean, standard deviation and the quantile ``30`` of the
    cases' means), ``cases`` (``mean`` and ``detailed`` values of each) and ``eval_version``; ``num_foldings`` is 0
    there whatever the field is, since it is counted after 3 was added to the determinant: ``num_foldings_raw`` is the
    true count. Beside them ``ranking``: for Dice and landmark errors the mean over the 30 per cent of the labels or
    landmarks that are worst before any registration, as the challenge ranks (labels of all cases together, landmarks
    case by case). What is not known is NaN, the surface distance of a label that the warp has lost infinite.

    Raises
    ------
    FileError
        If a field, label map, list of points or image is missing or unusable.
    InputError
        If labels or points do not fit each other.

    Notes
    -----
    Float64 throughout, where the official script measures ``.npz`` fields in float32.
    """
    cases, hardest = {}, {m.name: _Hardest(m.metric) for m in measures.measures if m.metric in ("dice", "tre")}
    for number, (pair, shape) in enumerate(zip(measures.pairs, measures.shapes, strict=True)):
        if progress is not None:
            progress(pair.title, number / len(measures.pairs))
        disp_vox = learn2reg_voxels(_only_field(Path(folder), pair), shape)
        cases[pair.title] = _case(pair, measures, disp_vox, hardest)
    if progress is not None:
        progress("done", 1.0)
    metrics: dict[str, Metric] = {m.name: m.metric for m in measures.measures}
    return {
        "name": measures.task,
        "aggregates": {
            name: _aggregate([case[name]["mean"] for case in cases.values()], metrics.get(name, "sdlogj"))
            for name in next(iter(cases.values()))
        },
        "cases": cases,
        "eval_version": "2.0",
        "ranking": {f"{name}{round(100 * _HARDEST)}": found.mean() for name, found in hardest.items()},
    }


def landmark_distances(
    fixed_vox: np.ndarray, moving_vox: np.ndarray, spacing_mm: np.ndarray, disp_vox: np.ndarray | None = None
) -> np.ndarray:
    """Distance ``|(fixed + u(fixed) - moving) spacing|`` of each pair of points, in mm.

    Parameters
    ----------
    fixed_vox, moving_vox
        ``(n, 3)`` in voxels of their own image.
    spacing_mm
        ``(3,)``, voxel sizes of the moving image.
    disp_vox
        ``(3, i, j, k)``, read by cubic splines, and 0 outside the outer voxel centres; ``None`` for none.
    """
    from scipy.ndimage import map_coordinates

    moved = fixed_vox
    if disp_vox is not None:
        moved = fixed_vox + np.stack([map_coordinates(u, fixed_vox.T, order=3) for u in disp_vox], axis=1)
    return np.asarray(np.linalg.norm((moved - moving_vox) * spacing_mm, axis=1))


def warped_labels(labels: np.ndarray, disp_vox: np.ndarray) -> np.ndarray:
    """Labels at ``x + u(x)``: those of the nearest voxel (upwards at a tie), 0 outside the outer voxel centres."""
    from scipy.ndimage import map_coordinates

    warped = np.empty(disp_vox.shape[1:], labels.dtype)
    for i in range(len(warped)):  # positions of a plane at a time
        positions = disp_vox[:, i] + np.indices((1, *warped.shape[1:]))[:, 0]
        positions[0] += i
        map_coordinates(labels, positions, order=0, output=warped[i])
    return warped


def _case(
    pair: TaskPair, measures: Measures, disp_vox: np.ndarray, hardest: dict[str, _Hardest]
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    maps: _Maps | None = None
    for measure in measures.measures:
        if measure.metric == "sdlogj":
            spread, folded = _regularity(torch.from_numpy(disp_vox), _mask(pair, disp_vox) if measures.masked else None)
            found[measure.name] = _alone(spread)
            found["num_foldings"], found["num_foldings_raw"] = _alone(0.0), _alone(folded)
        elif measure.metric == "tre":
            after, before = _landmark_errors(pair, measure, disp_vox)
            hardest[measure.name].add(after, before)
            found[measure.name] = {"mean": float(after.mean()), "detailed": after.tolist()}
        else:
            maps = _Maps(pair, disp_vox) if maps is None else maps
            after = maps.scores(measure, moved=True)
            if measure.metric == "dice":
                hardest[measure.name].add(after, maps.scores(measure, moved=False))
            found[measure.name] = {"mean": _mean_of_known(after), "detailed": after.tolist()}
    return found


class _Maps:
    """Label maps of a pair: fixed, moving as it is, and moving as the field brings it."""

    def __init__(self, pair: TaskPair, disp_vox: np.ndarray) -> None:
        shape = disp_vox.shape[1:]
        fixed, moving = (
            whole_numbers(read_image(path), side).data[0]
            for path, side in zip(pair.volumes("labels"), ("fixed", "moving"), strict=True)
        )
        if tuple(fixed.shape) != shape:
            raise InputError(f"the fixed labels of {pair.title} have shape {tuple(fixed.shape)}, but the field {shape}")
        self._pair, self._fixed, self._moving = pair, fixed, moving
        self._moved = torch.from_numpy(warped_labels(moving.numpy(), disp_vox))
        self._common = common_labels(fixed, moving)

    def scores(self, measure: Measure, *, moved: bool) -> np.ndarray:
        """One number for each label of the measure: NaN where one of the two original maps lacks it."""
        other = self._moved if moved else self._moving
        if other.shape != self._fixed.shape:
            raise InputError(
                f"the label maps of {self._pair.title} have shapes {tuple(self._fixed.shape)} and "
                f"{tuple(other.shape)}, but those of Learn2Reg are alike"
            )
        scored = [label for label in measure.labels if label in self._common]
        if measure.metric == "dice":
            values = dice(self._fixed, other, labels=scored)
        else:
            values = hd95_by_area(self._fixed, other, labels=scored)
            values = {label: math.inf if math.isnan(value) else value for label, value in values.items()}
        return np.array([values.get(label, math.nan) for label in measure.labels])


class _Hardest:
    """Values after registration of what was worst before: of labels among all cases, of landmarks case by case."""

    def __init__(self, metric: Metric) -> None:
        self._by_case, self._after, self._before = metric == "tre", [np.empty(0)], [np.empty(0)]

    def add(self, after: np.ndarray, before: np.ndarray) -> None:
        """Add the values of a case."""
        known = np.isfinite(after) & np.isfinite(before)
        self._after.append(after[known])
        self._before.append(before[known])

    def mean(self) -> float:
        """Mean of the chosen ones; NaN where there are none."""
        parts = list(zip(self._after, self._before, strict=True))
        if not self._by_case:  # small overlaps are the worst
            parts = [(np.concatenate(self._after), -np.concatenate(self._before))]
        chosen = [after[np.argsort(-before, kind="stable")[: _share(len(before))]] for after, before in parts]
        values = np.concatenate(chosen)
        return float(values.mean()) if values.size else math.nan


def _share(count: int) -> int:
    return max(1, round(_HARDEST * count))


def _regularity(disp_vox: Field, mask: torch.Tensor | None) -> tuple[float, float]:
    """Spread of the logarithm of the shifted determinant, within the mask; number of folded voxels, everywhere."""
    determinants = inner_determinant(disp_vox)
    counted = determinants if mask is None else determinants[inner_mask(mask)]
    return shifted_log_spread(counted), float(round(folded_share(determinants) * determinants.numel()))


def _mask(pair: TaskPair, disp_vox: np.ndarray) -> torch.Tensor | None:
    """Where the mask of the fixed image is exactly 1; ``None`` where it has none, as in the official evaluation."""
    path, _ = pair.volumes("masks")
    if not path.is_file():
        return None
    mask = read_image(path).data[0]
    if mask.shape != disp_vox.shape[1:]:
        raise InputError(f"the mask {path} has shape {tuple(mask.shape)}, but the field {disp_vox.shape[1:]}")
    return mask == 1


def _landmark_errors(pair: TaskPair, measure: Measure, disp_vox: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    assert measure.points is not None  # landmark errors have some
    fixed, moving = (read_landmarks(path).numpy() for path in pair.points(measure.points))
    if len(fixed) != len(moving):
        raise InputError(f"{measure.points} of {pair.title} are pairs, but {len(fixed)} and {len(moving)} came")
    with reading(pair.moving.path, "a NIfTI image") as source:
        header: Any = open_nifti(source).header
        spacing_mm = np.asarray(header.get_zooms()[:3], dtype=np.float64)
    return landmark_distances(fixed, moving, spacing_mm, disp_vox), landmark_distances(fixed, moving, spacing_mm)


def _only_field(folder: Path, pair: TaskPair) -> Path:
    found = found_fields(folder, pair)
    if not found:
        raise FileError(
            f"{folder} has no field of {pair.title}; it is called {pair.long_name}.npz or {pair.long_name}.nii.gz"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise FileError(f"{folder} has several fields of {pair.title}: {names}; keep one of them")
    return found[0]


def _alone(value: float) -> dict[str, Any]:
    return {"mean": value, "detailed": value}


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _aggregate(means: Sequence[float], metric: Metric) -> dict[str, float]:
    values = np.asarray(means, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # infinite distances have no spread
        spread, quantile = values.std(), np.quantile(values, _QUANTILE[metric])
    return {"mean": float(values.mean()), "std": float(spread), "30": float(quantile)}
