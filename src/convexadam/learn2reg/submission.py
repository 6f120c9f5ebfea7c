"""Submissions: names of fields, validation of a folder of fields, and the archive."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal, TypeAlias

from convexadam._arguments import check_arguments
from convexadam.errors import FileError
from convexadam.geometry import Grid, Transform
from convexadam.io import atomic_path, check_learn2reg, check_learn2reg_2021, write_learn2reg, write_learn2reg_2021
from convexadam.io.reading import StrPath
from convexadam.learn2reg.task import Split, Task, TaskPair

FieldFormat: TypeAlias = Literal["npz", "nii.gz", "2021"]
"""``"npz"`` (float16) and ``"nii.gz"`` (float32) are the current formats, ``"2021"`` is that of 2020 and 2021."""

RECORD = "run.json"
"""Record that `convexadam.learn2reg.run_task` writes to a folder; not part of the submission."""

_DATE = (1980, 1, 1, 0, 0, 0)
"""Date of all entries of an archive, so that the same fields give the same archive."""


@check_arguments
def make_field_name(pair: TaskPair, field_format: FieldFormat = "npz") -> str:
    """Return the file name of a field: the long one, which is always accepted; for the format of 2021 the short one.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam.learn2reg import TaskImage, TaskPair, make_field_name
    >>> images = (TaskImage(folder=Path(), name=f"images/Lung_000{number}_0000.nii.gz") for number in (1, 2))
    >>> fixed, moving = images
    >>> make_field_name(TaskPair(fixed=fixed, moving=moving))
    'disp_0001_0000_0002_0000.npz'
    """
    return f"{pair.short_name}.npz" if field_format == "2021" else f"{pair.long_name}.{field_format}"


def find_fields(folder: Path, pair: TaskPair, field_format: FieldFormat | None = None) -> list[Path]:
    """Return the existing fields of a pair, in the order in which the official evaluation looks for them.

    Parameters
    ----------
    folder
        Folder of the fields.
    pair
        The pair.
    field_format
        Format; ``None`` for the current ones.
    """
    names = [make_field_name(pair, "2021")]
    if field_format != "2021":
        stems = [pair.long_name] + [pair.short_name] * (pair.modalities == (0, 1))
        names = [f"{stem}.{ending}" for stem in stems for ending in ("npz", "nii.gz") if field_format in (None, ending)]
    return [folder / name for name in names if (folder / name).is_file()]


def write_field(transform: Transform, path: Path, field_format: FieldFormat, *, moving: Grid) -> None:
    """Write a field in one of the formats; see `write_learn2reg` and `write_learn2reg_2021`."""
    write = write_learn2reg_2021 if field_format == "2021" else write_learn2reg
    write(transform, path, moving=moving)


def check_field(path: Path, task: Task, pair: TaskPair, field_format: FieldFormat | None = None) -> None:
    """Check that the field of a pair is valid: its name, shape, type and values.

    Raises
    ------
    FileError
        If it is not; the message lists all errors.
    """
    if field_format == "2021":
        check_learn2reg_2021(path, task.get_shape(pair))
    else:
        check_learn2reg(path, task.get_shape(pair))


@check_arguments
def find_submission_problems(
    folder: StrPath, task: Task, split: Split = "val", *, field_format: FieldFormat | None = None
) -> list[str]:
    """Return all problems of a folder of fields; an empty list if it is a valid submission.

    Parameters
    ----------
    folder
        Folder with a field for each pair; ``run.json`` is ignored.
    task, split
        The pairs.
    field_format
        Required format; ``None`` for any current one.

    Returns
    -------
    One line for each missing, duplicate or invalid field, and for each other file.

    Raises
    ------
    FileError
        If there is no such folder.
    InputError
        If the task has no pairs of that split.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> from convexadam.learn2reg import find_submission_problems, read_task
    >>> pair = {"fixed": "imagesTr/Demo_0001_0000.nii.gz", "moving": "imagesTr/Demo_0002_0000.nii.gz"}
    >>> dataset = {"name": "Demo", "tensorImageShape": [8, 8, 8], "registration_val": [pair]}
    >>> _ = Path("dataset.json").write_text(json.dumps(dataset))
    >>> Path("fields").mkdir()
    >>> find_submission_problems("fields", read_task("dataset.json"))
    ['no field of 0001_0000<--0002_0000: disp_0001_0000_0002_0000.npz is missing']
    """
    folder, known, problems = _check_folder(folder), {RECORD}, []
    for pair in task.get_pairs(split):
        fields = find_fields(folder, pair, field_format)
        known |= {path.name for path in fields}
        if not fields:
            problems.append(f"no field of {pair.title}: {make_field_name(pair, field_format or 'npz')} is missing")
        if len(fields) > 1:
            problems.append(f"several fields of {pair.title}: {', '.join(path.name for path in fields)}; keep one")
        for path in fields:
            try:
                check_field(path, task, pair, field_format)
            except FileError as error:
                problems.append(str(error))
    extra = sorted(path.name for path in folder.iterdir() if path.name not in known)
    return problems + [f"{name} belongs to no pair of {task.name} ({split}); remove it" for name in extra]


@check_arguments
def write_submission(
    folder: StrPath, task: Task, path: StrPath, split: Split = "val", *, field_format: FieldFormat | None = None
) -> int:
    """Check a folder of fields and write them, without other files, to a zip archive.

    Parameters
    ----------
    folder, task, split, field_format
        See `find_submission_problems`.
    path
        Archive to write, ``*.zip``.

    Returns
    -------
    The number of fields in the archive.

    Raises
    ------
    FileError
        If the folder is not a valid submission (the message lists all problems), or the archive cannot be written.
    InputError
        If the task has no pairs of that split.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import write_learn2reg
    >>> from convexadam.learn2reg import read_task, write_submission
    >>> pair = {"fixed": "imagesTr/Demo_0001_0000.nii.gz", "moving": "imagesTr/Demo_0002_0000.nii.gz"}
    >>> dataset = {"name": "Demo", "tensorImageShape": [8, 8, 8], "registration_val": [pair]}
    >>> _ = Path("dataset.json").write_text(json.dumps(dataset))
    >>> Path("fields").mkdir()
    >>> field = DisplacementField(torch.zeros(3, 8, 8, 8), Grid((8, 8, 8)))
    >>> write_learn2reg(field, "fields/disp_0001_0000_0002_0000.npz")
    >>> write_submission("fields", read_task("dataset.json"), "submission.zip")
    1
    """
    if not str(path).endswith(".zip"):
        raise FileError(f"the archive must have the extension .zip, got {path}; rename it")
    check_submission(folder, task, split, field_format=field_format)
    fields = [find_fields(Path(folder), pair, field_format)[0] for pair in task.get_pairs(split)]
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for field in sorted(fields):
            entry = zipfile.ZipInfo(field.name, date_time=_DATE)
            with field.open("rb") as source, archive.open(entry, "w") as target:
                while block := source.read(2**22):
                    target.write(block)
    return len(fields)


@check_arguments
def check_submission(
    folder: StrPath, task: Task, split: Split = "val", *, field_format: FieldFormat | None = None
) -> None:
    """Raise `FileError` with all problems of a folder, if there are any; see `find_submission_problems`.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import write_learn2reg
    >>> from convexadam.learn2reg import check_submission, read_task
    >>> pair = {"fixed": "imagesTr/Demo_0001_0000.nii.gz", "moving": "imagesTr/Demo_0002_0000.nii.gz"}
    >>> dataset = {"name": "Demo", "tensorImageShape": [8, 8, 8], "registration_val": [pair]}
    >>> _ = Path("dataset.json").write_text(json.dumps(dataset))
    >>> Path("fields").mkdir()
    >>> field = DisplacementField(torch.zeros(3, 8, 8, 8), Grid((8, 8, 8)))
    >>> write_learn2reg(field, "fields/disp_0001_0000_0002_0000.npz")
    >>> check_submission("fields", read_task("dataset.json"))
    """
    problems = find_submission_problems(folder, task, split, field_format=field_format)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise FileError(f"{folder} must be a valid submission, got {count}: " + "; ".join(problems))


def _check_folder(folder: StrPath) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"folder must exist, got {folder}; give the folder of the fields")
    return folder
