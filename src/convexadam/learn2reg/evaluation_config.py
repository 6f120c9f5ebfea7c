"""Configuration of the evaluation of a task: its official file, or derived from the files beside the images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, final, get_args

from convexadam._arguments import check_arguments
from convexadam._typing import Triple
from convexadam.errors import FileError, InputError
from convexadam.io.reading import StrPath, check_file
from convexadam.learn2reg.task import PointKind, Split, Task, TaskPair, parse_pairs, parse_shape

Metric: TypeAlias = Literal["sdlogj", "dice", "hd95", "tre"]

_MASKED = ("AbdomenMRCT", "LungCT", "NLST")
"""Tasks whose regularity is computed inside the mask of the fixed image."""

_TRE_NAMES: dict[PointKind, str] = {"landmarks": "TRE_lm", "keypoints": "TRE_kp"}


@final
@dataclass(frozen=True, kw_only=True)
class Measure:
    """A metric of the evaluation, under the name it has in the results.

    Attributes
    ----------
    name
        Name in the results.
    metric
        The formula: standard deviation of the log-Jacobian, Dice, 95th percentile of the surface distance or landmark
        error.
    labels
        Labels of Dice and surface distance.
    points
        Points of the landmark error.

    Examples
    --------
    >>> from convexadam.learn2reg import Measure
    >>> Measure(name="DSC", metric="dice", labels=(1, 2)).labels
    (1, 2)
    """

    name: str
    metric: Metric
    labels: tuple[int, ...] = ()
    points: PointKind | None = None


@final
@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The pairs of an evaluation and the metrics computed for each.

    Attributes
    ----------
    task
        Name of the task.
    pairs, shapes
        The pairs, and the shape of the field of each.
    measures
        The metrics.
    masked
        Whether regularity is computed inside the mask of the fixed image, if there is one.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam.learn2reg import EvaluationConfig, Measure, TaskImage, TaskPair
    >>> fixed, moving = (TaskImage(folder=Path("Lung"), name=f"imagesTr/Lung_000{n}_0000.nii.gz") for n in (1, 2))
    >>> regularity = Measure(name="LogJacDetStd", metric="sdlogj")
    >>> config = EvaluationConfig(
    ...     task="Lung", pairs=(TaskPair(fixed=fixed, moving=moving),), shapes=((8, 8, 8),), measures=(regularity,),
    ...     masked=False,
    ... )
    >>> config.measures[0].name
    'LogJacDetStd'
    """

    task: str
    pairs: tuple[TaskPair, ...]
    shapes: tuple[Triple, ...]
    measures: tuple[Measure, ...]
    masked: bool


@check_arguments
def make_evaluation_config(task: Task, split: Split = "val") -> EvaluationConfig:
    """Return a configuration with all metrics that the files of a task allow, named as in the official ones.

    Regularity always; Dice and surface distances of the labels listed in dataset.json, if any pair has both label maps;
    landmark errors, if any pair has both files of landmarks or keypoints. Masks are used for AbdomenMRCT, LungCT and
    NLST.

    Raises
    ------
    InputError
        If the task has no pairs of that split.
    FileError
        If the shape of the images is unknown: dataset.json omits it, and an image cannot be read.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> from convexadam.learn2reg import make_evaluation_config, read_task
    >>> pair = {"fixed": "imagesTr/Demo_0001_0000.nii.gz", "moving": "imagesTr/Demo_0002_0000.nii.gz"}
    >>> dataset = {"name": "Demo", "tensorImageShape": [8, 8, 8], "registration_val": [pair]}
    >>> _ = Path("dataset.json").write_text(json.dumps(dataset))
    >>> config = make_evaluation_config(read_task("dataset.json"))
    >>> config.shapes, [measure.name for measure in config.measures]
    (((8, 8, 8),), ['LogJacDetStd'])
    """
    pairs = task.get_pairs(split)
    measures = [Measure(name="LogJacDetStd", metric="sdlogj")]
    if task.labels and any(all(path.is_file() for path in pair.get_volume_paths("labels")) for pair in pairs):
        labels = tuple(task.labels)
        measures += [
            Measure(name="DSC", metric="dice", labels=labels),
            Measure(name="HD95", metric="hd95", labels=labels),
        ]
    for kind in get_args(PointKind):
        if any(all(path.is_file() for path in pair.get_point_paths(kind)) for pair in pairs):
            measures.append(Measure(name=_TRE_NAMES[kind], metric="tre", points=kind))
    return EvaluationConfig(
        task=task.name,
        pairs=pairs,
        shapes=tuple(task.get_shape(pair) for pair in pairs),
        measures=tuple(measures),
        masked=task.name in _MASKED,
    )


@check_arguments
def read_evaluation_config(path: StrPath, task: Task) -> EvaluationConfig:
    """Read an official ``<Task>_VAL_evaluation_config.json``: pairs, shape, metrics, labels and use of masks.

    Parameters
    ----------
    path
        JSON file.
    task
        The task whose folder contains the images.

    Raises
    ------
    FileError
        If the file cannot be read, or is not such a configuration.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> from convexadam.learn2reg import read_evaluation_config, read_task
    >>> pair = {"fixed": "imagesTr/Demo_0001_0000.nii.gz", "moving": "imagesTr/Demo_0002_0000.nii.gz"}
    >>> dataset = {"name": "Demo", "tensorImageShape": [8, 8, 8], "registration_val": [pair]}
    >>> _ = Path("dataset.json").write_text(json.dumps(dataset))
    >>> official = {"eval_pairs": [pair], "expected_shape": [8, 8, 8], "evaluation_methods": [{"metric": "sdlogj"}]}
    >>> _ = Path("Demo_VAL_evaluation_config.json").write_text(json.dumps(official))
    >>> read_evaluation_config("Demo_VAL_evaluation_config.json", read_task("dataset.json")).shapes
    ((8, 8, 8),)
    """
    with check_file(path, "an evaluation configuration of Learn2Reg") as source:
        data = json.loads(source.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or not data.get("eval_pairs") or not data.get("evaluation_methods"):
            raise FileError(f"{source} must have eval_pairs and evaluation_methods, got none; give the official file")
        pairs = parse_pairs(data["eval_pairs"], task.folder, "eval_pairs")
        shape = parse_shape(data.get("expected_shape"), "expected_shape")
        return EvaluationConfig(
            task=str(data.get("task_name") or task.name),
            pairs=pairs,
            shapes=(shape,) * len(pairs),
            measures=tuple(_parse_measure(entry) for entry in data["evaluation_methods"]),
            masked=bool(data.get("masked_evaluation")),
        )


def _parse_measure(entry: Any) -> Measure:
    metric = entry.get("metric") if isinstance(entry, dict) else None
    if metric not in get_args(Metric):
        raise InputError(f"metric must be one of {', '.join(get_args(Metric))}, got {entry!r}")
    labels, points = entry.get("labels", []), entry.get("dest")
    is_valid = isinstance(labels, list) and all(str(label).isdecimal() for label in labels)
    if not is_valid or (metric in ("dice", "hd95") and not labels):
        raise InputError(f"labels of {metric} must be a list of whole numbers, got {entry!r}")
    if metric == "tre" and points not in get_args(PointKind):
        raise InputError(f"dest of tre must be {' or '.join(get_args(PointKind))}, got {entry!r}")
    return Measure(
        name=str(entry.get("name") or metric),
        metric=cast(Metric, metric),
        labels=tuple(int(label) for label in labels),
        points=points if metric == "tre" else None,
    )
