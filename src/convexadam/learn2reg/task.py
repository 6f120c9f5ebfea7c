"""A task of Learn2Reg: the content of its dataset.json, and the paths of the files of a pair."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, final, get_args

from convexadam._arguments import check_arguments
from convexadam._checks import show
from convexadam._typing import Triple
from convexadam.errors import ConfigError, FileError, InputError
from convexadam.io.nifti_file import open_nifti
from convexadam.io.reading import StrPath, check_file

Split: TypeAlias = Literal["val", "test", "train"]
"""Split of the pairs of a task."""

VolumeKind: TypeAlias = Literal["labels", "masks"]
"""Volumes in a folder beside that of the images."""

PointKind: TypeAlias = Literal["keypoints", "landmarks"]
"""Points in a folder beside that of the images."""

_KEYS: dict[Split, str] = {
    "val": "registration_val",
    "test": "registration_test",
    "train": "training_paired_images",
}

_IMAGE = re.compile(r"(?:[^/].*/)?images[^/]*/[^/]*_\d{4}_\d{4}\.nii\.gz")


@final
@dataclass(frozen=True, kw_only=True)
class TaskImage:
    """An image of a task, with the official name ``<Task>_FFFF_ffff.nii.gz``.

    Attributes
    ----------
    folder
        Folder of the task.
    name
        Path from the folder, as in dataset.json: ``./imagesTr/LungCT_0001_0000.nii.gz``.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam.learn2reg import TaskImage
    >>> image = TaskImage(folder=Path("LungCT"), name="imagesTr/LungCT_0001_0000.nii.gz")
    >>> image.subject, image.modality, image.get_path_in("labels").as_posix()
    ('0001', '0000', 'LungCT/labelsTr/LungCT_0001_0000.nii.gz')
    """

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        """Path of the image."""
        return self.folder / self.name

    @property
    def subject(self) -> str:
        """Number of the subject, four digits."""
        return self.name[-16:-12]

    @property
    def modality(self) -> str:
        """Number of the modality, four digits."""
        return self.name[-11:-7]

    @check_arguments
    def get_path_in(self, folder: str) -> Path:
        """Return the path of the same name in another folder: ``imagesTr`` becomes ``labelsTr`` for ``"labels"``."""
        return self.folder / self.name.replace("images", folder)


@final
@dataclass(frozen=True, kw_only=True)
class TaskPair:
    """A pair of images of a task.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam.learn2reg import TaskImage, TaskPair
    >>> fixed, moving = (TaskImage(folder=Path("Lung"), name=f"imagesTr/Lung_000{n}_0000.nii.gz") for n in (1, 2))
    >>> TaskPair(fixed=fixed, moving=moving).long_name
    'disp_0001_0000_0002_0000'
    """

    fixed: TaskImage
    moving: TaskImage

    @property
    def modalities(self) -> tuple[int, int]:
        """Numbers of the modalities of the fixed and the moving image."""
        return int(self.fixed.modality), int(self.moving.modality)

    @property
    def title(self) -> str:
        """Name of the case in the official evaluation: ``FFFF_ffff<--MMMM_mmmm``."""
        fixed, moving = self.fixed, self.moving
        return f"{fixed.subject}_{fixed.modality}<--{moving.subject}_{moving.modality}"

    @property
    def long_name(self) -> str:
        """File name of a field without extension, always accepted: ``disp_FFFF_ffff_MMMM_mmmm``."""
        fixed, moving = self.fixed, self.moving
        return f"disp_{fixed.subject}_{fixed.modality}_{moving.subject}_{moving.modality}"

    @property
    def short_name(self) -> str:
        """File name of a field without extension, accepted for the modalities 0 and 1: ``disp_FFFF_MMMM``."""
        return f"disp_{self.fixed.subject}_{self.moving.subject}"

    @check_arguments
    def get_volume_paths(self, kind: VolumeKind) -> tuple[Path, Path]:
        """Return the paths of the label maps or masks of the fixed and the moving image, whether they exist or not."""
        return self.fixed.get_path_in(kind), self.moving.get_path_in(kind)

    @check_arguments
    def get_point_paths(self, kind: PointKind) -> tuple[Path, Path]:
        """Return the paths of the points of the fixed and the moving image, whether they exist or not.

        Keypoints belong to a pair of modalities: those of two modalities other than (0, 1) have their own folders, such
        as ``keypoints02Tr`` for 0 and 2.
        """
        low, high = sorted(self.modalities)
        has_own_folder = kind == "keypoints" and low != high and self.modalities != (0, 1)
        folder = f"{kind}{low}{high}" if has_own_folder else kind
        fixed, moving = (image.get_path_in(folder) for image in (self.fixed, self.moving))
        return _replace_suffix(fixed), _replace_suffix(moving)


@final
@dataclass(frozen=True, kw_only=True)
class Task:
    """Content of the dataset.json of a task.

    Attributes
    ----------
    name, release
        Name and release of the task; the release is empty if the file omits it.
    folder
        Folder of the file; names of images are relative to it.
    modalities
        Name of each modality by its number.
    shape
        Shape of all images; ``None`` if the file omits it.
    labels
        Name of each label by its number, without the background 0.
    splits
        Pairs of each split with valid pairs.
    split_errors
        Message for each split with invalid pairs.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> from convexadam.learn2reg import read_task
    >>> pair = {"fixed": "imagesTr/Demo_0001_0000.nii.gz", "moving": "imagesTr/Demo_0002_0000.nii.gz"}
    >>> dataset = {"name": "Demo", "tensorImageShape": [8, 8, 8], "registration_val": [pair]}
    >>> _ = Path("dataset.json").write_text(json.dumps(dataset))
    >>> task = read_task("dataset.json")
    >>> task.name, task.shape, task.get_pairs("val")[0].title
    ('Demo', (8, 8, 8), '0001_0000<--0002_0000')
    """

    name: str
    release: str
    folder: Path
    modalities: dict[int, str]
    shape: Triple | None
    labels: dict[int, str]
    splits: dict[Split, tuple[TaskPair, ...]]
    split_errors: dict[Split, str]

    @check_arguments
    def get_pairs(self, split: Split = "val") -> tuple[TaskPair, ...]:
        """Return the pairs of a split.

        Raises
        ------
        ConfigError
            If there is no such split.
        InputError
            If the task has no pairs for it, or names of images are not those of Learn2Reg.
        """
        if split not in _KEYS:
            raise ConfigError(f"split must be one of {', '.join(_KEYS)}, got {show(split)}")
        if split in self.split_errors:
            raise InputError(
                f"cannot read the pairs of the task {self.name} in {self.folder}: {self.split_errors[split]}"
            )
        if split not in self.splits:
            available = ", ".join(f"{name} ({len(pairs)})" for name, pairs in self.splits.items()) or "none"
            raise InputError(
                f"split must be one with pairs, got {split}: the task {self.name} lists none as {_KEYS[split]!r}; "
                f"available: {available}"
            )
        return self.splits[split]

    @check_arguments
    def get_shape(self, pair: TaskPair) -> Triple:
        """Return the shape of a field: that of the task or, if it is unknown, of the fixed image.

        Raises
        ------
        FileError
            If the shape of the task is unknown and the image cannot be read.
        """
        if self.shape is not None:
            return self.shape
        with check_file(pair.fixed.path, "a NIfTI image") as source:
            i, j, k = open_nifti(source).shape[:3]
            return i, j, k


@check_arguments
def read_task(path: StrPath) -> Task:
    """Read the dataset.json of a task; pairs are validated by `Task.get_pairs`, and images when they are read.

    Parameters
    ----------
    path
        ``dataset.json`` or ``<Task>_dataset.json``, or the folder with one of them.

    Raises
    ------
    FileError
        If there is no such file or more than one, or it is not the JSON object of a task.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> from convexadam.learn2reg import read_task
    >>> _ = Path("Demo_dataset.json").write_text(json.dumps({"name": "Demo", "tensorImageShape": [8, 8, 8]}))
    >>> read_task("Demo_dataset.json").shape
    (8, 8, 8)
    """
    with check_file(_find_dataset_file(Path(path)), "the dataset.json of a task of Learn2Reg") as source:
        data = json.loads(source.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise FileError(f"{source} must hold a JSON object, got a {type(data).__name__}; give the file of a task")
        folder = source.parent
        splits, split_errors = _parse_splits(data, folder)
        return Task(
            name=str(data.get("name") or folder.resolve().name),
            release=str(data.get("release") or ""),
            folder=folder,
            modalities=_parse_numbered_names(data.get("modality")),
            shape=_parse_task_shape(data.get("tensorImageShape")),
            labels=_parse_labels(data.get("labels")),
            splits=splits,
            split_errors=split_errors,
        )


def parse_pairs(entries: Any, folder: Path, key: str) -> tuple[TaskPair, ...]:
    """Return the pairs of a list of ``{"fixed": NAME, "moving": NAME}``.

    Raises
    ------
    InputError
        If the entries are something else, names of images are not those of Learn2Reg, or a pair is repeated.
    """
    if not isinstance(entries, list):
        raise InputError(f"{key!r} must be a list of pairs, got a {type(entries).__name__}")
    pairs = tuple(_parse_pair(entry, folder, key) for entry in entries)
    repeated = sorted({pair.title for pair in pairs if pairs.count(pair) > 1})
    if repeated:
        raise InputError(f"pairs of {key!r} must be unique, got repeated {', '.join(repeated)}; remove the copies")
    return pairs


def parse_shape(value: Any, name: str) -> Triple:
    """Return the first three numbers of a list as a shape.

    Raises
    ------
    InputError
        If the value is not a list that begins with three whole numbers above 0.
    """
    first = value[:3] if isinstance(value, list) else []
    if len(first) != 3 or not all(type(n) is int and n > 0 for n in first):
        raise InputError(f"{name!r} must be three whole numbers above 0, got {show(value)}")
    return first[0], first[1], first[2]


def _find_dataset_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    candidates = [path / "dataset.json"] if (path / "dataset.json").is_file() else sorted(path.glob("*_dataset.json"))
    if len(candidates) != 1:
        names = ", ".join(file.name for file in candidates) or "none"
        raise FileError(f"{path} must contain one dataset.json or <Task>_dataset.json, got {names}; give the file")
    return candidates[0]


def _parse_splits(data: dict[str, Any], folder: Path) -> tuple[dict[Split, tuple[TaskPair, ...]], dict[Split, str]]:
    """Return the pairs and the errors by split: an invalid split must not prevent work on another one."""
    splits: dict[Split, tuple[TaskPair, ...]] = {}
    errors: dict[Split, str] = {}
    for split, key in _KEYS.items():
        try:
            if data.get(key):
                splits[split] = parse_pairs(data[key], folder, key)
        except InputError as error:
            errors[split] = str(error)
    return splits, errors


def _parse_pair(entry: Any, folder: Path, key: str) -> TaskPair:
    table = entry if isinstance(entry, dict) else {}
    names = [str(table.get(side)) for side in ("fixed", "moving")]
    if not all(_IMAGE.fullmatch(name) and ".." not in Path(name).parts for name in names):
        raise InputError(
            f"pairs of {key!r} must be {{'fixed': NAME, 'moving': NAME}} with names like "
            "./imagesTr/Task_0001_0000.nii.gz (a folder images..., then subject and modality of four digits), "
            f"got {show(entry)}"
        )
    fixed, moving = (TaskImage(folder=folder, name=name) for name in names)
    return TaskPair(fixed=fixed, moving=moving)


def _parse_numbered_names(table: Any) -> dict[int, str]:
    """Return names by number, without entries that have no number."""
    if not isinstance(table, dict):
        return {}
    return {int(key): str(value) for key, value in table.items() if str(key).isdecimal()}


def _parse_labels(table: Any) -> dict[int, str]:
    """Return the names of labels by number, merged if there is a table for each modality."""
    if not isinstance(table, dict):
        return {}
    tables: Iterable[Any] = [t for t in table.values() if isinstance(t, dict)] or [table]
    merged = {number: name for part in tables for number, name in _parse_numbered_names(part).items()}
    return {number: merged[number] for number in sorted(merged) if number}


def _parse_task_shape(value: Any) -> Triple | None:
    """Return the shape of the images from a list, or from a table by modality, of which the lowest number is used."""
    if isinstance(value, dict):
        value = value[min(value)] if value else None
    return None if value is None else parse_shape(value, "tensorImageShape")


def _replace_suffix(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".nii.gz") + ".csv")


SPLITS: tuple[Split, ...] = get_args(Split)
"""All splits."""
