"""Folders of fields as they are handed in: names, a check of everything in them, and the archive."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal, TypeAlias

from convexadam.errors import FileError
from convexadam.geometry import Grid, Transform
from convexadam.io import atomic_path, check_learn2reg, check_learn2reg_2021, write_learn2reg, write_learn2reg_2021
from convexadam.io.nifti import StrPath
from convexadam.learn2reg.task import Split, Task, TaskPair

FieldFormat: TypeAlias = Literal["npz", "nii.gz", "2021"]
"""``"npz"`` (float16) and ``"nii.gz"`` (float32) are those of today, ``"2021"`` that of 2020 and 2021."""

RECORD = "run.json"
"""What `convexadam.learn2reg.run` knows of a folder; it is not handed in."""

_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""Date of everything in an archive: the same fields give the same archive."""


def field_name(pair: TaskPair, kind: FieldFormat = "npz") -> str:
    """Name of a field: the long one, which is always accepted; in 2021 there was only the short one."""
    return f"{pair.short_name}.npz" if kind == "2021" else f"{pair.long_name}.{kind}"


def found_fields(folder: Path, pair: TaskPair, kind: FieldFormat | None = None) -> list[Path]:
    """Return the fields of a pair that a folder has, in the order in which the official evaluation looks for them.

    Parameters
    ----------
    folder
        With fields.
    pair
        Whose field.
    kind
        Which format; ``None`` for those of today.
    """
    names = [field_name(pair, "2021")]
    if kind != "2021":
        stems = [pair.long_name] + [pair.short_name] * (pair.modalities == (0, 1))
        names = [f"{stem}.{ending}" for stem in stems for ending in ("npz", "nii.gz") if kind in (None, ending)]
    return [folder / name for name in names if (folder / name).is_file()]


def write_field(transform: Transform, path: Path, kind: FieldFormat, *, moving: Grid) -> None:
    """Write a field in one of the formats; see `write_learn2reg` and `write_learn2reg_2021`."""
    write = write_learn2reg_2021 if kind == "2021" else write_learn2reg
    write(transform, path, moving=moving)


def check_field(path: Path, task: Task, pair: TaskPair, kind: FieldFormat | None = None) -> None:
    """Make sure that a field of a pair can be handed in: its name, shape, type and values.

    Raises
    ------
    FileError
        It says everything that is wrong.
    """
    if kind == "2021":
        check_learn2reg_2021(path, task.shape_of(pair))
    else:
        check_learn2reg(path, task.shape_of(pair))


def submission_problems(
    folder: StrPath, task: Task, split: Split = "val", *, kind: FieldFormat | None = None
) -> list[str]:
    """Say everything that is wrong with a folder of fields: nothing, if it can be handed in.

    Parameters
    ----------
    folder
        With a field for each pair; ``run.json`` may lie there as well.
    task, split
        Which pairs there are.
    kind
        Which format; ``None`` for those of today.

    Returns
    -------
    One line for each missing or doubled field, each field that cannot be handed in, and each other file.

    Raises
    ------
    FileError
        If there is no such folder.
    InputError
        If the task has no pairs of that split.
    """
    place, known, problems = _checked_folder(folder), {RECORD}, []
    for pair in task.pairs(split):
        fields = found_fields(place, pair, kind)
        known |= {path.name for path in fields}
        if not fields:
            problems.append(f"no field of {pair.title}: {field_name(pair, kind or 'npz')} is missing")
        if len(fields) > 1:
            problems.append(f"several fields of {pair.title}: {', '.join(path.name for path in fields)}; keep one")
        for path in fields:
            try:
                check_field(path, task, pair, kind)
            except FileError as error:
                problems.append(str(error))
    extra = sorted(path.name for path in place.iterdir() if path.name not in known)
    return problems + [f"{name} belongs to no pair of {task.name} ({split}); remove it" for name in extra]


def write_submission(
    folder: StrPath, task: Task, path: StrPath, split: Split = "val", *, kind: FieldFormat | None = None
) -> int:
    """Check a folder of fields and put them, and nothing else, into a zip archive.

    Parameters
    ----------
    folder, task, split, kind
        As of `submission_problems`.
    path
        ``*.zip``; appears whole or not at all.

    Returns
    -------
    How many fields are in it.

    Raises
    ------
    FileError
        If anything is wrong with the folder (it says everything), or the archive cannot be written.
    InputError
        If the task has no pairs of that split.
    """
    if not str(path).endswith(".zip"):
        raise FileError(f"what is handed in is called *.zip, but the name is {path}; change its ending")
    check_submission(folder, task, split, kind=kind)
    fields = [found_fields(Path(folder), pair, kind)[0] for pair in task.pairs(split)]
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for field in sorted(fields):
            entry = zipfile.ZipInfo(field.name, date_time=_LONG_AGO)
            with field.open("rb") as source, archive.open(entry, "w") as target:
                while part := source.read(2**22):
                    target.write(part)
    return len(fields)


def check_submission(folder: StrPath, task: Task, split: Split = "val", *, kind: FieldFormat | None = None) -> None:
    """Raise `FileError` with all of `submission_problems`, if there are any."""
    problems = submission_problems(folder, task, split, kind=kind)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise FileError(f"{folder} cannot be handed in, {count}: " + "; ".join(problems))


def _checked_folder(folder: StrPath) -> Path:
    place = Path(folder)
    if not place.is_dir():
        raise FileError(f"there is no folder {place}; give the one with the fields")
    return place
