"""Registration of all pairs of a task; fields of an earlier run are kept."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch

from convexadam._arguments import check_arguments
from convexadam._atomic import make_folder
from convexadam._version import VERSION
from convexadam.errors import ConfigError, FileError
from convexadam.features import uses_labels
from convexadam.io import atomic_path
from convexadam.io.reading import StrPath, check_file
from convexadam.learn2reg.submission import RECORD, FieldFormat, check_field, find_fields, make_field_name, write_field
from convexadam.learn2reg.task import Split, Task, TaskPair
from convexadam.registration import RegistrationConfig, register
from convexadam.registration.progress import Progress


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of a pair.

    Attributes
    ----------
    pair
        Title of the pair: ``FFFF_ffff<--MMMM_mmmm``.
    status
        ``"done"`` by this run, ``"kept"`` from an earlier one, or ``"failed"``.
    error
        Error message, if it failed.
    seconds
        Time of the registration.
    folded_percent
        Share of folded voxels.

    Examples
    --------
    >>> from convexadam.learn2reg import Outcome
    >>> Outcome(pair="0001_0000<--0002_0000", status="done", seconds=1.6, folded_percent=0.0).status
    'done'
    """

    pair: str
    status: Literal["done", "kept", "failed"]
    error: str | None = None
    seconds: float | None = None
    folded_percent: float | None = None


@check_arguments
def run_task(
    task: Task,
    config: RegistrationConfig,
    folder: StrPath,
    *,
    split: Split = "val",
    field_format: FieldFormat = "npz",
    segmentation_dir: StrPath | None = None,
    masks: bool = False,
    keypoints: bool = False,
    device: torch.device | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Register all pairs of a split and write their fields in the format of submissions.

    ``run.json`` in the folder records the settings and the outcome of each pair. A valid field of an earlier run with
    the same settings is kept; a pair that fails does not stop the others.

    Parameters
    ----------
    task, split
        The pairs.
    config
        Settings of the registrations.
    folder
        Folder for the fields; created if it does not exist.
    field_format
        Format of the fields.
    segmentation_dir
        Folder of label maps with the file names of the images, for features that compare labels.
    masks
        Use the masks of the task for both images.
    keypoints
        Use the keypoints of the task as landmarks that guide the registration.
    device
        Device to compute on; ``None`` is the CPU.
    overwrite
        Replace the fields of another run in the folder.
    progress
        Called at the start of each stage of each pair, and at the end.

    Returns
    -------
    The outcome of each pair, in order.

    Raises
    ------
    ConfigError
        If the settings cannot be written as TOML, label maps are missing or not used by the features, or the folder
        holds fields with other settings or without a record.
    InputError
        If the task has no pairs of that split.
    FileError
        If the folder cannot be created or written to.

    Examples
    --------
    >>> from convexadam.learn2reg import read_task, run_task, task_preset
    >>> outcomes = run_task(read_task("LungCT"), task_preset("LungCT").config, "fields")  # doctest: +SKIP
    """
    pairs = task.get_pairs(split)
    _check_arguments(config, pairs, field_format, segmentation_dir)
    arguments = {
        "task": task.name,
        "release": task.release,
        "split": split,
        "format": field_format,
        "settings": config.to_toml(),
        "segmentation_dir": None if segmentation_dir is None else str(Path(segmentation_dir).resolve()),
        "masks": masks,
        "keypoints": keypoints,
    }
    record = _Record.open(Path(folder), arguments, pairs, overwrite=overwrite)
    outcomes = []
    for number, pair in enumerate(pairs):
        pair_progress = None if progress is None else _make_pair_progress(progress, number, len(pairs))
        inputs = _collect_inputs(pair, segmentation_dir, masks, keypoints)
        path = Path(folder) / make_field_name(pair, field_format)
        outcome = _find_previous(record, path, task, pair, field_format)
        if outcome is None:
            outcome = _register_pair(pair, config, path, task, field_format, inputs, device, pair_progress)
            record.add(outcome)
        outcomes.append(outcome)
    if progress is not None:
        progress("done", 1.0)
    return outcomes


@final
class _Record:
    """``run.json``: the arguments of a run, and the outcome of each pair."""

    def __init__(self, path: Path, arguments: dict[str, Any], pairs: dict[str, Any]) -> None:
        self._path, self._arguments, self.pairs = path, arguments, pairs

    @classmethod
    def open(cls, folder: Path, arguments: dict[str, Any], pairs: tuple[TaskPair, ...], *, overwrite: bool) -> _Record:
        """Read the record of a folder, or create one."""
        path = make_folder(folder) / RECORD
        fields = [file for pair in pairs for version in (None, "2021") for file in find_fields(folder, pair, version)]
        if overwrite:
            for file in fields:
                file.unlink(missing_ok=True)
        elif path.exists():
            saved = _read(path)
            changed = [key for key, value in arguments.items() if saved["arguments"].get(key) != value]
            if changed:
                raise ConfigError(
                    f"{', '.join(changed)} must be as in the run whose fields {folder} holds, got others; choose "
                    "another folder, or --overwrite (overwrite=True) to replace the fields"
                )
            return cls(path, arguments, saved["pairs"])
        elif fields:
            raise ConfigError(
                f"{folder} must have a {RECORD} for its fields, got {fields[0].name} without one; choose another "
                "folder, or --overwrite (overwrite=True) to replace the fields"
            )
        record = cls(path, arguments, {})
        record._save()
        return record

    def add(self, outcome: Outcome) -> None:
        """Record the outcome of a pair."""
        entry = {key: value for key, value in asdict(outcome).items() if key != "pair" and value is not None}
        self.pairs[outcome.pair] = {**entry, "version": VERSION}
        self._save()

    def _save(self) -> None:
        text = json.dumps({"arguments": self._arguments, "pairs": self.pairs}, indent=2) + "\n"
        with atomic_path(self._path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    with check_file(path, "the record of a run") as source:
        data = json.loads(source.read_text(encoding="utf-8"))
        tables = (data.get(key) for key in ("arguments", "pairs")) if isinstance(data, dict) else (None,)
        if not all(isinstance(table, dict) for table in tables):
            raise FileError(f"{source} must hold arguments and pairs of a run; choose another folder, or --overwrite")
        return dict(data)


def _check_arguments(
    config: RegistrationConfig,
    pairs: tuple[TaskPair, ...],
    field_format: FieldFormat,
    segmentation_dir: StrPath | None,
) -> None:
    needs_labels = any(uses_labels(extractor) for extractor in config.extractors)
    if needs_labels and segmentation_dir is None:
        raise ConfigError(
            "segmentation_dir must be a folder of label maps for features that compare labels, got none; give "
            "--segmentation-dir (segmentation_dir=)"
        )
    if segmentation_dir is not None and not needs_labels:
        raise ConfigError(
            f"segmentation_dir must be omitted for features that compare no labels, got {segmentation_dir}; "
            "omit --segmentation-dir, or choose other features"
        )
    if segmentation_dir is not None and not Path(segmentation_dir).is_dir():
        raise FileError(
            f"segmentation_dir must be an existing folder, got {segmentation_dir}; check --segmentation-dir"
        )
    names = [make_field_name(pair, field_format) for pair in pairs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(
            f"names of fields must be unique, got several pairs for {', '.join(repeated)}; choose the format npz"
        )


def _make_pair_progress(progress: Progress, number: int, count: int) -> Progress:
    """Return the progress of one of several pairs."""
    return lambda stage, share: progress(f"{number + 1}/{count} {stage}", (number + share) / count)


def _collect_inputs(pair: TaskPair, segmentation_dir: StrPath | None, masks: bool, keypoints: bool) -> dict[str, Path]:
    """Return the optional arguments of `register`."""
    sides = ("fixed", "moving")
    inputs: dict[str, Path] = {}
    if segmentation_dir is not None:
        for side, image in zip(sides, (pair.fixed, pair.moving), strict=True):
            inputs[f"{side}_segmentation"] = Path(segmentation_dir) / image.path.name
    if masks:
        inputs |= zip((f"{side}_mask" for side in sides), pair.get_volume_paths("masks"), strict=True)
    if keypoints:
        inputs |= zip((f"{side}_landmarks" for side in sides), pair.get_point_paths("keypoints"), strict=True)
    return inputs


def _find_previous(
    record: _Record, path: Path, task: Task, pair: TaskPair, field_format: FieldFormat
) -> Outcome | None:
    """Return the outcome of an earlier run, if it succeeded and its field is valid."""
    before = record.pairs.get(pair.title)
    if not isinstance(before, dict) or before.get("status") != "done" or not path.is_file():
        return None
    try:
        check_field(path, task, pair, field_format)
    except FileError:
        return None
    return Outcome(
        pair=pair.title,
        status="kept",
        seconds=before.get("seconds"),
        folded_percent=before.get("folded_percent"),
    )


def _register_pair(
    pair: TaskPair,
    config: RegistrationConfig,
    path: Path,
    task: Task,
    field_format: FieldFormat,
    inputs: dict[str, Path],
    device: torch.device | str | None,
    progress: Progress | None,
) -> Outcome:
    """Register a pair and write its field; an error of any kind becomes the outcome."""
    try:
        path.unlink(missing_ok=True)
        result = register(
            pair.fixed.path, pair.moving.path, config, device=device, progress=progress or False, **inputs
        )
        shape = result.fixed.grid.shape
        if shape != task.get_shape(pair):
            raise FileError(
                f"shape of {pair.fixed.path} must be that of the task, {task.get_shape(pair)}, "
                f"got {shape}; check tensorImageShape in dataset.json"
            )
        transform = result.transform.to_displacement_field(result.fixed)
        write_field(transform, path, field_format, moving=result.moving.grid)
        check_field(path, task, pair, field_format)
    except Exception as error:  # must not stop the other pairs
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return Outcome(pair=pair.title, status="failed", error=f"{type(error).__name__}: {error}")
    return Outcome(
        pair=pair.title,
        status="done",
        seconds=sum(result.timings.values()),
        folded_percent=result.diagnostics["folded_percent"],
    )
