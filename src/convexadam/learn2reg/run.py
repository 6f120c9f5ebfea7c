"""All pairs of a task, one after the other; what is there already is not done again."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch

from convexadam._atomic import made_folder
from convexadam._version import VERSION
from convexadam.errors import ConfigError, FileError
from convexadam.features import uses_labels
from convexadam.io import atomic_path
from convexadam.io.nifti import StrPath
from convexadam.io.reading import reading
from convexadam.learn2reg.submission import RECORD, FieldFormat, check_field, field_name, found_fields, write_field
from convexadam.learn2reg.task import Split, Task, TaskPair
from convexadam.registration import RegistrationConfig, register
from convexadam.registration.register import Progress


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a pair.

    Attributes
    ----------
    pair
        Its title: ``FFFF_ffff<--MMMM_mmmm``.
    status
        ``"done"`` now, ``"kept"`` from an earlier run, or ``"failed"``.
    error
        Why it failed.
    seconds
        How long it took.
    folded_percent
        Of the voxels of its field.
    """

    pair: str
    status: Literal["done", "kept", "failed"]
    error: str | None = None
    seconds: float | None = None
    folded_percent: float | None = None


def run_task(
    task: Task,
    config: RegistrationConfig,
    folder: StrPath,
    *,
    split: Split = "val",
    kind: FieldFormat = "npz",
    labels_dir: StrPath | None = None,
    masks: bool = False,
    keypoints: bool = False,
    device: torch.device | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Register all pairs of a split and write their fields as they are handed in.

    ``run.json`` in the folder says with which settings, and what became of each pair. A pair whose field is there,
    whole and made with the same settings is kept; one that fails does not stop the others.

    Parameters
    ----------
    task, split
        Which pairs.
    config
        The settings of all of them.
    folder
        For the fields; made where it does not exist.
    kind
        Format of the fields.
    labels_dir
        Folder of label maps, called like the images, for features that compare labels.
    masks
        Use the task's masks, as evidence of both images.
    keypoints
        Let the task's keypoints guide the registration.
    device
        Where to compute; ``None`` is the CPU.
    overwrite
        Replace what another run left in the folder.
    progress
        Called as each stage of each pair begins, and at the end.

    Returns
    -------
    One outcome for each pair, in their order.

    Raises
    ------
    ConfigError
        If the settings cannot be written as TOML, labels and features do not fit each other, or the folder holds
        fields made otherwise, or of which it does not say how.
    InputError
        If the task has no pairs of that split.
    FileError
        If the folder cannot be made or written to.
    """
    pairs = task.pairs(split)
    _check(config, pairs, kind, labels_dir)
    made = {
        "task": task.name,
        "release": task.release,
        "split": split,
        "format": kind,
        "settings": config.to_toml(),
        "labels_dir": None if labels_dir is None else str(Path(labels_dir).resolve()),
        "masks": masks,
        "keypoints": keypoints,
    }
    record = _Record.begun(Path(folder), made, pairs, overwrite=overwrite)
    outcomes = []
    for number, pair in enumerate(pairs):
        told = None if progress is None else _part(progress, number, len(pairs))
        beside = _beside(pair, labels_dir, masks, keypoints)
        path = Path(folder) / field_name(pair, kind)
        outcome = _kept(record, path, task, pair, kind)
        if outcome is None:
            outcome = _registered(pair, config, path, task, kind, beside, device, told)
            record.add(outcome)
        outcomes.append(outcome)
    if progress is not None:
        progress("done", 1.0)
    return outcomes


@final
class _Record:
    """``run.json``: how the fields of a folder were made, and what became of each pair."""

    def __init__(self, path: Path, made: dict[str, Any], pairs: dict[str, Any]) -> None:
        self._path, self._made, self.pairs = path, made, pairs

    @classmethod
    def begun(cls, folder: Path, made: dict[str, Any], pairs: tuple[TaskPair, ...], *, overwrite: bool) -> _Record:
        """Go on with the record of a folder, or begin one."""
        path = made_folder(folder) / RECORD
        there = [file for pair in pairs for kind in (None, "2021") for file in found_fields(folder, pair, kind)]
        if overwrite:
            for file in there:
                file.unlink(missing_ok=True)
        elif path.exists():
            before = _read(path)
            changed = [key for key, value in made.items() if before["made"].get(key) != value]
            if changed:
                raise ConfigError(
                    f"{folder} holds fields of another run: {', '.join(changed)} changed since; choose another folder, "
                    "or --overwrite (overwrite=True) to replace them"
                )
            return cls(path, made, before["pairs"])
        elif there:
            raise ConfigError(
                f"{folder} holds fields such as {there[0].name}, but no {RECORD} that says how they were made; choose "
                "another folder, or --overwrite (overwrite=True) to replace them"
            )
        record = cls(path, made, {})
        record._save()
        return record

    def add(self, outcome: Outcome) -> None:
        """Write down what became of a pair."""
        said = {key: value for key, value in asdict(outcome).items() if key != "pair" and value is not None}
        self.pairs[outcome.pair] = {**said, "version": VERSION}
        self._save()

    def _save(self) -> None:
        text = json.dumps({"made": self._made, "pairs": self.pairs}, indent=2) + "\n"
        with atomic_path(self._path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    with reading(path, "the record of a run") as source:
        data = json.loads(source.read_text(encoding="utf-8"))
        tables = (data.get(key) for key in ("made", "pairs")) if isinstance(data, dict) else (None,)
        if not all(isinstance(table, dict) for table in tables):
            raise FileError(f"{source} is no record of a run; choose another folder, or --overwrite")
        return dict(data)


def _check(
    config: RegistrationConfig, pairs: tuple[TaskPair, ...], kind: FieldFormat, labels_dir: StrPath | None
) -> None:
    compared = any(uses_labels(extractor) for extractor in config.compared)
    if compared and labels_dir is None:
        raise ConfigError(
            "the settings compare labels, but none came; give --labels-dir (labels_dir=) with a label map for each "
            "image, under the same name"
        )
    if labels_dir is not None and not compared:
        raise ConfigError("labels came, but no features of the settings compare them; leave --labels-dir out")
    if labels_dir is not None and not Path(labels_dir).is_dir():
        raise FileError(f"there is no folder {labels_dir} with label maps; check --labels-dir")
    names = [field_name(pair, kind) for pair in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"several pairs would be written to {', '.join(twice)}; choose a format with long names")


def _part(progress: Progress, number: int, count: int) -> Progress:
    """Progress of one pair of many."""
    return lambda stage, share: progress(f"{number + 1}/{count} {stage}", (number + share) / count)


def _beside(pair: TaskPair, labels_dir: StrPath | None, masks: bool, keypoints: bool) -> dict[str, Path]:
    """Return what `register` takes beside the images."""
    sides = ("fixed", "moving")
    found: dict[str, Path] = {}
    if labels_dir is not None:
        for side, image in zip(sides, (pair.fixed, pair.moving), strict=True):
            found[f"{side}_labels"] = Path(labels_dir) / image.path.name
    if masks:
        found |= zip((f"{side}_mask" for side in sides), pair.volumes("masks"), strict=True)
    if keypoints:
        found |= zip((f"{side}_landmarks" for side in sides), pair.points("keypoints"), strict=True)
    return found


def _kept(record: _Record, path: Path, task: Task, pair: TaskPair, kind: FieldFormat) -> Outcome | None:
    """Return what an earlier run did, if it did and the field is whole."""
    before = record.pairs.get(pair.title)
    if not isinstance(before, dict) or before.get("status") != "done" or not path.is_file():
        return None
    try:
        check_field(path, task, pair, kind)
    except FileError:
        return None
    return Outcome(
        pair=pair.title,
        status="kept",
        seconds=before.get("seconds"),
        folded_percent=before.get("folded_percent"),
    )


def _registered(
    pair: TaskPair,
    config: RegistrationConfig,
    path: Path,
    task: Task,
    kind: FieldFormat,
    beside: dict[str, Path],
    device: torch.device | str | None,
    progress: Progress | None,
) -> Outcome:
    """Register a pair and write its field; whatever goes wrong is its outcome."""
    try:
        path.unlink(missing_ok=True)
        result = register(pair.fixed.path, pair.moving.path, config, device=device, progress=progress, **beside)
        if result.transform.grid.shape != task.shape_of(pair):
            raise FileError(
                f"{pair.fixed.path} has shape {result.transform.grid.shape}, but the task {task.shape_of(pair)}"
            )
        write_field(result.transform, path, kind, moving=result.moving.grid)
        check_field(path, task, pair, kind)
    except Exception as error:  # the other pairs go on, and this one is reported
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return Outcome(pair=pair.title, status="failed", error=f"{type(error).__name__}: {error}")
    return Outcome(
        pair=pair.title,
        status="done",
        seconds=sum(result.seconds.values()),
        folded_percent=result.diagnostics["folded_percent"],
    )
