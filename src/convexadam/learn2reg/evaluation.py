"""The metrics of the official evaluation of Learn2Reg (version 2.0), from the fields of a submission."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._typing import Field
from convexadam.errors import FileError, InputError
from convexadam.io import read_image, read_landmarks, read_learn2reg_voxels
from convexadam.io.nifti_file import open_nifti
from convexadam.io.reading import StrPath, check_file
from convexadam.learn2reg.evaluation_config import EvaluationConfig, Measure, Metric
from convexadam.learn2reg.submission import find_fields
from convexadam.learn2reg.task import TaskPair
from convexadam.metrics import common_labels, dice, hd95_area_weighted
from convexadam.metrics.folding import folded_share, inner_determinant, inner_mask, shifted_log_spread
from convexadam.metrics.summary import to_integer_labels
from convexadam.registration.progress import Progress

_QUANTILE: dict[Metric, float] = {"tre": 0.7, "sdlogj": 0.7, "dice": 0.3, "hd95": 0.3}
"""Quantile of the means of cases, reported as ``"30"``; for HD95 the better end, as in the official evaluation."""

_HARDEST_SHARE = 0.3


@check_arguments
def evaluate_fields(config: EvaluationConfig, folder: StrPath, *, progress: Progress | None = None) -> dict[str, Any]:
    """Evaluate the fields in a folder, one for each pair, by the formulas of the official evaluation.

    Parameters
    ----------
    config
        Pairs and metrics.
    folder
        Folder of the fields (see `find_fields`).
    progress
        Called at the start of each pair and at the end.

    Returns
    -------
    As the official metrics.json: ``name``, ``aggregates`` (mean, standard deviation and the quantile ``30`` of the
    means of cases), ``cases`` (``mean`` and ``detailed`` values of each) and ``eval_version``. The official
    ``num_foldings`` is always 0, since it is counted after 3 was added to the determinant: ``num_foldings_raw`` is the
    number of folded voxels. In addition ``ranking``: for Dice and landmark errors the mean over the 30 per cent of the
    labels or landmarks that are worst before registration, as the challenge ranks (labels of all cases together,
    landmarks case by case). Undefined values are NaN; the surface distance of a label that the warp has lost is
    infinite.

    Raises
    ------
    FileError
        If a field, label map, list of points or image is missing or unusable.
    InputError
        If shapes of label maps or numbers of points differ.

    Notes
    -----
    All computations are in float64; the official script evaluates ``.npz`` fields in float32.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import write_learn2reg
    >>> from convexadam.learn2reg import evaluate_fields, make_evaluation_config, read_task
    >>> pair = {"fixed": "imagesTr/Demo_0001_0000.nii.gz", "moving": "imagesTr/Demo_0002_0000.nii.gz"}
    >>> dataset = {"name": "Demo", "tensorImageShape": [8, 8, 8], "registration_val": [pair]}
    >>> _ = Path("dataset.json").write_text(json.dumps(dataset))
    >>> Path("fields").mkdir()
    >>> field = DisplacementField(torch.zeros(3, 8, 8, 8), Grid((8, 8, 8)))
    >>> write_learn2reg(field, "fields/disp_0001_0000_0002_0000.npz")
    >>> found = evaluate_fields(make_evaluation_config(read_task("dataset.json")), "fields")
    >>> found["aggregates"]["LogJacDetStd"]["mean"]
    0.0
    """
    cases, hardest = {}, {m.name: _HardestMean(m.metric) for m in config.measures if m.metric in ("dice", "tre")}
    for number, (pair, shape) in enumerate(zip(config.pairs, config.shapes, strict=True)):
        if progress is not None:
            progress(pair.title, number / len(config.pairs))
        disp_vox = read_learn2reg_voxels(_find_field(Path(folder), pair), shape)
        cases[pair.title] = _evaluate_case(pair, config, disp_vox, hardest)
    if progress is not None:
        progress("done", 1.0)
    metrics: dict[str, Metric] = {m.name: m.metric for m in config.measures}
    return {
        "name": config.task,
        "aggregates": {
            name: _aggregate([case[name]["mean"] for case in cases.values()], metrics.get(name, "sdlogj"))
            for name in next(iter(cases.values()))
        },
        "cases": cases,
        "eval_version": "2.0",
        "ranking": {f"{name}{round(100 * _HARDEST_SHARE)}": values.compute() for name, values in hardest.items()},
    }


def compute_landmark_distances(
    fixed_vox: np.ndarray, moving_vox: np.ndarray, spacing_mm: np.ndarray, disp_vox: np.ndarray | None = None
) -> np.ndarray:
    """Return the distance ``|(fixed + u(fixed) - moving) * spacing|`` of each pair of points in mm.

    Parameters
    ----------
    fixed_vox, moving_vox
        ``(n, 3)`` in voxels of their own image.
    spacing_mm
        ``(3,)``, voxel sizes of the moving image.
    disp_vox
        ``(3, i, j, k)``, interpolated by cubic splines, 0 outside the outer voxel centres; ``None`` for the identity.
    """
    from scipy.ndimage import map_coordinates

    moved = fixed_vox
    if disp_vox is not None:
        moved = fixed_vox + np.stack([map_coordinates(u, fixed_vox.T, order=3) for u in disp_vox], axis=1)
    return np.asarray(np.linalg.norm((moved - moving_vox) * spacing_mm, axis=1))


def warp_labels(labels: np.ndarray, disp_vox: np.ndarray) -> np.ndarray:
    """Return labels at ``x + u(x)``: of the nearest voxel (upwards at a tie), 0 outside the outer voxel centres."""
    from scipy.ndimage import map_coordinates

    warped = np.empty(disp_vox.shape[1:], labels.dtype)
    for i in range(len(warped)):  # plane by plane, to save memory
        positions = disp_vox[:, i] + np.indices((1, *warped.shape[1:]))[:, 0]
        positions[0] += i
        map_coordinates(labels, positions, order=0, output=warped[i])
    return warped


def _evaluate_case(
    pair: TaskPair, config: EvaluationConfig, disp_vox: np.ndarray, hardest: dict[str, _HardestMean]
) -> dict[str, dict[str, Any]]:
    case: dict[str, dict[str, Any]] = {}
    maps: _LabelMaps | None = None
    for measure in config.measures:
        if measure.metric == "sdlogj":
            mask = _read_mask(pair, disp_vox) if config.masked else None
            sdlogj, folded = _compute_regularity(torch.from_numpy(disp_vox), mask)
            case[measure.name] = _to_entry(sdlogj)
            case["num_foldings"], case["num_foldings_raw"] = _to_entry(0.0), _to_entry(folded)
        elif measure.metric == "tre":
            after, before = _compute_landmark_errors(pair, measure, disp_vox)
            hardest[measure.name].add(after, before)
            case[measure.name] = {"mean": float(after.mean()), "detailed": after.tolist()}
        else:
            maps = _LabelMaps(pair, disp_vox) if maps is None else maps
            after = maps.compute(measure, warped=True)
            if measure.metric == "dice":
                hardest[measure.name].add(after, maps.compute(measure, warped=False))
            case[measure.name] = {"mean": _mean_of_known(after), "detailed": after.tolist()}
    return case


class _LabelMaps:
    """Label maps of a pair: fixed, moving, and moving warped by the field."""

    def __init__(self, pair: TaskPair, disp_vox: np.ndarray) -> None:
        shape = disp_vox.shape[1:]
        fixed, moving = (
            to_integer_labels(read_image(path), side).data[0]
            for path, side in zip(pair.get_volume_paths("labels"), ("fixed", "moving"), strict=True)
        )
        if tuple(fixed.shape) != shape:
            raise InputError(
                f"shape of the fixed labels of {pair.title} must be that of the field, {shape}, "
                f"got {tuple(fixed.shape)}"
            )
        self._pair, self._fixed, self._moving = pair, fixed, moving
        self._warped = torch.from_numpy(warp_labels(moving.numpy(), disp_vox))
        self._common = common_labels(fixed, moving)

    def compute(self, measure: Measure, *, warped: bool) -> np.ndarray:
        """Return the value of each label of the measure, NaN for labels that one of the two original maps lacks."""
        moving = self._warped if warped else self._moving
        if moving.shape != self._fixed.shape:
            raise InputError(
                f"shapes of the label maps of {self._pair.title} must be equal, got {tuple(self._fixed.shape)} and "
                f"{tuple(moving.shape)}"
            )
        labels = [label for label in measure.labels if label in self._common]
        if measure.metric == "dice":
            values = dice(self._fixed, moving, labels=labels)
        else:
            values = hd95_area_weighted(self._fixed, moving, labels=labels)
            values = {label: math.inf if math.isnan(value) else value for label, value in values.items()}
        return np.array([values.get(label, math.nan) for label in measure.labels])


class _HardestMean:
    """Mean after registration of the values that were worst before: of labels among all cases, of landmarks by case."""

    def __init__(self, metric: Metric) -> None:
        self._by_case, self._after, self._before = metric == "tre", [np.empty(0)], [np.empty(0)]

    def add(self, after: np.ndarray, before: np.ndarray) -> None:
        """Add the values of a case."""
        known = np.isfinite(after) & np.isfinite(before)
        self._after.append(after[known])
        self._before.append(before[known])

    def compute(self) -> float:
        """Return the mean of the hardest values; NaN if there are none."""
        parts = list(zip(self._after, self._before, strict=True))
        if not self._by_case:  # the smallest overlaps are the worst
            parts = [(np.concatenate(self._after), -np.concatenate(self._before))]
        selected = [after[np.argsort(-before, kind="stable")[: _count_hardest(len(before))]] for after, before in parts]
        values = np.concatenate(selected)
        return float(values.mean()) if values.size else math.nan


def _count_hardest(count: int) -> int:
    return max(1, round(_HARDEST_SHARE * count))


def _compute_regularity(disp_vox: Field, mask: torch.Tensor | None) -> tuple[float, float]:
    """Return the standard deviation of the shifted log-determinant in the mask, and the number of all folded voxels."""
    determinants = inner_determinant(disp_vox)
    masked = determinants if mask is None else determinants[inner_mask(mask)]
    return shifted_log_spread(masked), float(round(folded_share(determinants) * determinants.numel()))


def _read_mask(pair: TaskPair, disp_vox: np.ndarray) -> torch.Tensor | None:
    """Return where the mask of the fixed image is exactly 1, as in the official evaluation; ``None`` without a mask."""
    path, _ = pair.get_volume_paths("masks")
    if not path.is_file():
        return None
    mask = read_image(path).data[0]
    if mask.shape != disp_vox.shape[1:]:
        raise InputError(
            f"shape of the mask {path} must be that of the field, {disp_vox.shape[1:]}, got {tuple(mask.shape)}"
        )
    return mask == 1


def _compute_landmark_errors(pair: TaskPair, measure: Measure, disp_vox: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    assert measure.points is not None  # always given for tre
    fixed, moving = (read_landmarks(path).numpy() for path in pair.get_point_paths(measure.points))
    if len(fixed) != len(moving):
        raise InputError(
            f"{measure.points} of {pair.title} must be as many for both images, got {len(fixed)} and {len(moving)}"
        )
    with check_file(pair.moving.path, "a NIfTI image") as source:
        header: Any = open_nifti(source).header
        spacing_mm = np.asarray(header.get_zooms()[:3], dtype=np.float64)
    return (
        compute_landmark_distances(fixed, moving, spacing_mm, disp_vox),
        compute_landmark_distances(fixed, moving, spacing_mm),
    )


def _find_field(folder: Path, pair: TaskPair) -> Path:
    fields = find_fields(folder, pair)
    if len(fields) != 1:
        names = ", ".join(path.name for path in fields) or "none"
        raise FileError(
            f"{folder} must contain one field of {pair.title}, {pair.long_name}.npz or {pair.long_name}.nii.gz, "
            f"got {names}"
        )
    return fields[0]


def _to_entry(value: float) -> dict[str, Any]:
    return {"mean": value, "detailed": value}


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _aggregate(means: Sequence[float], metric: Metric) -> dict[str, float]:
    values = np.asarray(means, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # of infinite distances
        spread, quantile = values.std(), np.quantile(values, _QUANTILE[metric])
    return {"mean": float(values.mean()), "std": float(spread), "30": float(quantile)}
