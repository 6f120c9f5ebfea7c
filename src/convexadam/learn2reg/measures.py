"""What the evaluation of a task measures: by its official configuration, or by what lies beside the images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, final, get_args

from convexadam._typing import Triple
from convexadam.errors import FileError, InputError
from convexadam.io.nifti import StrPath
from convexadam.io.reading import reading
from convexadam.learn2reg.task import PointKind, Split, Task, TaskPair, pairs_from, three_numbers

Metric: TypeAlias = Literal["sdlogj", "dice", "hd95", "tre"]

_MASKED = ("AbdomenMRCT", "LungCT", "NLST")
"""Tasks whose regularity is measured within the mask of the fixed image."""

_TRE_NAMES: dict[PointKind, str] = {"landmarks": "TRE_lm", "keypoints": "TRE_kp"}


@final
@dataclass(frozen=True, kw_only=True)
class Measure:
    """One thing that is measured.

    Attributes
    ----------
    name
        In the results.
    metric
        Which formula.
    labels
        For Dice and surface distances.
    points
        For landmark errors: which points.
    """

    name: str
    metric: Metric
    labels: tuple[int, ...] = ()
    points: PointKind | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is measured on which pairs.

    Attributes
    ----------
    task
        Its name.
    pairs, shapes
        The pairs, and the shape of each one's field.
    measures
        All of them.
    masked
        Whether regularity is measured within the mask of the fixed image, where there is one.
    """

    task: str
    pairs: tuple[TaskPair, ...]
    shapes: tuple[Triple, ...]
    measures: tuple[Measure, ...]
    masked: bool


def measures_of(task: Task, split: Split = "val") -> Measures:
    """Return what can be measured with what lies beside the images, named as the official configurations do it.

    Regularity always; Dice and surface distances of the labels that dataset.json lists, where any pair has both label
    maps; landmark errors where any pair has both files of landmarks or keypoints. Masks count for AbdomenMRCT, LungCT
    and NLST.

    Raises
    ------
    InputError
        If the task has no pairs of that split.
    FileError
        If nothing says which shape the images have.
    """
    pairs = task.pairs(split)
    found = [Measure(name="LogJacDetStd", metric="sdlogj")]
    if task.labels and any(all(path.is_file() for path in pair.volumes("labels")) for pair in pairs):
        labels = tuple(task.labels)
        found += [Measure(name="DSC", metric="dice", labels=labels), Measure(name="HD95", metric="hd95", labels=labels)]
    for kind in get_args(PointKind):
        if any(all(path.is_file() for path in pair.points(kind)) for pair in pairs):
            found.append(Measure(name=_TRE_NAMES[kind], metric="tre", points=kind))
    return Measures(
        task=task.name,
        pairs=pairs,
        shapes=tuple(task.shape_of(pair) for pair in pairs),
        measures=tuple(found),
        masked=task.name in _MASKED,
    )


def read_measures(path: StrPath, task: Task) -> Measures:
    """Read an official ``<Task>_VAL_evaluation_config.json``: pairs, shape, metrics, labels and use of masks.

    Parameters
    ----------
    path
        The file.
    task
        In whose folder the images lie.

    Raises
    ------
    FileError
        If it is no such file.
    """
    with reading(path, "an evaluation configuration of Learn2Reg") as source:
        data = json.loads(source.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or not data.get("eval_pairs") or not data.get("evaluation_methods"):
            raise FileError(f"{source} has no eval_pairs or evaluation_methods; give an evaluation configuration")
        pairs = pairs_from(data["eval_pairs"], task.folder, "eval_pairs")
        shape = three_numbers(data.get("expected_shape"), "expected_shape")
        return Measures(
            task=str(data.get("task_name") or task.name),
            pairs=pairs,
            shapes=(shape,) * len(pairs),
            measures=tuple(_measure(entry) for entry in data["evaluation_methods"]),
            masked=bool(data.get("masked_evaluation")),
        )


def _measure(entry: Any) -> Measure:
    metric = entry.get("metric") if isinstance(entry, dict) else None
    if metric not in get_args(Metric):
        raise InputError(f"a metric is one of {', '.join(get_args(Metric))}, but {entry!r} came")
    labels, points = entry.get("labels", []), entry.get("dest")
    if metric in ("dice", "hd95") and not (labels and all(str(label).isdecimal() for label in labels)):
        raise InputError(f"{metric} needs 'labels', whole numbers, but {entry!r} came")
    if metric == "tre" and points not in get_args(PointKind):
        raise InputError(f"tre needs a 'dest', {' or '.join(get_args(PointKind))}, but {entry!r} came")
    return Measure(
        name=str(entry.get("name") or metric),
        metric=cast(Metric, metric),
        labels=tuple(int(label) for label in labels),
        points=points if metric == "tre" else None,
    )
