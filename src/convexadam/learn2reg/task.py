"""A task of Learn2Reg: what its dataset.json says, and where the files of a pair lie."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, final, get_args

from convexadam._typing import Triple
from convexadam.errors import ConfigError, FileError, InputError
from convexadam.io.nifti import StrPath, open_nifti
from convexadam.io.reading import reading

Split: TypeAlias = Literal["val", "test", "train"]
"""Which pairs of a task."""

Beside: TypeAlias = Literal["labels", "masks"]
"""Volumes that lie in a folder beside that of the images."""

PointKind: TypeAlias = Literal["keypoints", "landmarks"]
"""Points that lie in a folder beside that of the images."""

_KEYS: dict[Split, str] = {
    "val": "registration_val",
    "test": "registration_test",
    "train": "training_paired_images",
}

_IMAGE = re.compile(r"(?:.*/)?images[^/]*/[^/]*_\d{4}_\d{4}\.nii\.gz")


@final
@dataclass(frozen=True, kw_only=True)
class TaskImage:
    """One image of a task, by the official naming ``<Task>_FFFF_ffff.nii.gz``.

    Attributes
    ----------
    folder
        That of the task.
    name
        As dataset.json has it, from the folder: ``./imagesTr/LungCT_0001_0000.nii.gz``.
    """

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        """The image itself."""
        return self.folder / self.name

    @property
    def subject(self) -> str:
        """Four digits."""
        return self.name[-16:-12]

    @property
    def modality(self) -> str:
        """Four digits."""
        return self.name[-11:-7]

    def beside(self, folder: str) -> Path:
        """Return the path of the same name in another folder: ``imagesTr`` becomes ``labelsTr`` for ``"labels"``."""
        return self.folder / self.name.replace("images", folder)


@final
@dataclass(frozen=True, kw_only=True)
class TaskPair:
    """Two images of a task that are to be registered."""

    fixed: TaskImage
    moving: TaskImage

    @property
    def modalities(self) -> tuple[int, int]:
        """Numbers of the modalities of the fixed and the moving image."""
        return int(self.fixed.modality), int(self.moving.modality)

    @property
    def title(self) -> str:
        """Fixed and moving image as the official evaluation names a case."""
        fixed, moving = self.fixed, self.moving
        return f"{fixed.subject}_{fixed.modality}<--{moving.subject}_{moving.modality}"

    @property
    def long_name(self) -> str:
        """Name of a field without its ending, always accepted: ``disp_FFFF_ffff_MMMM_mmmm``."""
        fixed, moving = self.fixed, self.moving
        return f"disp_{fixed.subject}_{fixed.modality}_{moving.subject}_{moving.modality}"

    @property
    def short_name(self) -> str:
        """Name of a field without its ending, accepted where the modalities are 0 and 1: ``disp_FFFF_MMMM``."""
        return f"disp_{self.fixed.subject}_{self.moving.subject}"

    def volumes(self, kind: Beside) -> tuple[Path, Path]:
        """Where the label maps or masks of the fixed and the moving image are, if there are any."""
        return self.fixed.beside(kind), self.moving.beside(kind)

    def points(self, kind: PointKind) -> tuple[Path, Path]:
        """Where the points of the fixed and the moving image are, if there are any.

        Keypoints belong to a pair of modalities: those of pairs other than (0, 1) and of one modality lie in folders of
        their own, such as ``keypoints02Tr`` for 0 and 2.
        """
        low, high = sorted(self.modalities)
        own = kind == "keypoints" and low != high and self.modalities != (0, 1)
        folder = f"{kind}{low}{high}" if own else kind
        fixed, moving = (image.beside(folder) for image in (self.fixed, self.moving))
        return _as_csv(fixed), _as_csv(moving)


@final
@dataclass(frozen=True, kw_only=True)
class Task:
    """What the dataset.json of a task says.

    Attributes
    ----------
    name, release
        Of the task; an empty release where the file has none.
    folder
        Where the file lies: all names start there.
    modalities
        Name of each modality by its number.
    shape
        Of all images; ``None`` where the file does not say it.
    labels
        Name of each label by its number, without the background 0.
    splits
        The pairs of each split that has any.
    unusable
        Why the pairs of other splits cannot be used.
    """

    name: str
    release: str
    folder: Path
    modalities: dict[int, str]
    shape: Triple | None
    labels: dict[int, str]
    splits: dict[Split, tuple[TaskPair, ...]]
    unusable: dict[Split, str]

    def pairs(self, split: Split = "val") -> tuple[TaskPair, ...]:
        """Return the pairs of a split.

        Raises
        ------
        ConfigError
            If there is no such split.
        InputError
            If the task has no pairs for it, or names images otherwise than Learn2Reg does.
        """
        if split not in _KEYS:
            raise ConfigError(f"a split is one of {', '.join(_KEYS)}, but {split!r} came")
        if split in self.unusable:
            raise InputError(f"the task {self.name} in {self.folder}: {self.unusable[split]}")
        if split not in self.splits:
            there = ", ".join(f"{name} ({len(pairs)})" for name, pairs in self.splits.items()) or "none at all"
            raise InputError(
                f"the task {self.name} lists no pairs as {_KEYS[split]!r} (--split {split}); it has {there}"
            )
        return self.splits[split]

    def shape_of(self, pair: TaskPair) -> Triple:
        """Shape of a field: that of the task or, where it says none, of the fixed image.

        Raises
        ------
        FileError
            If it says none and the image cannot be read.
        """
        if self.shape is not None:
            return self.shape
        with reading(pair.fixed.path, "a NIfTI image") as source:
            i, j, k = open_nifti(source).shape[:3]
            return i, j, k


def read_task(path: StrPath) -> Task:
    """Read what a task consists of; that pairs can be used and images are there is found out when it comes to them.

    Parameters
    ----------
    path
        ``dataset.json`` or ``<Task>_dataset.json``, or the folder with one of them.

    Raises
    ------
    FileError
        If there is no such file or more than one, or it is no JSON that describes a task.
    """
    with reading(_description(Path(path)), "the dataset.json of a task of Learn2Reg") as source:
        data = json.loads(source.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise FileError(f"{source} holds a {type(data).__name__}, but the dataset.json of a task is an object")
        folder = source.parent
        splits, unusable = _splits(data, folder)
        return Task(
            name=str(data.get("name") or folder.resolve().name),
            release=str(data.get("release") or ""),
            folder=folder,
            modalities=_numbered(data.get("modality")),
            shape=_shape(data.get("tensorImageShape")),
            labels=_labels(data.get("labels")),
            splits=splits,
            unusable=unusable,
        )


def pairs_from(entries: Any, folder: Path, key: str) -> tuple[TaskPair, ...]:
    """Turn ``{"fixed": ..., "moving": ...}`` entries into pairs.

    Raises
    ------
    InputError
        If they are something else, name images otherwise than Learn2Reg does, or come twice.
    """
    if not isinstance(entries, list):
        raise InputError(f"{key!r} is a list of pairs, but a {type(entries).__name__} came")
    pairs = tuple(_pair(entry, folder, key) for entry in entries)
    twice = sorted({pair.title for pair in pairs if pairs.count(pair) > 1})
    if twice:
        raise InputError(f"{key!r} has pairs more than once: {', '.join(twice)}; leave the others out")
    return pairs


def three_numbers(value: Any, name: str) -> Triple:
    """Return a shape of JSON.

    Raises
    ------
    InputError
        If it is no list that begins with three whole numbers above 0.
    """
    first = value[:3] if isinstance(value, list) else []
    if len(first) != 3 or not all(type(n) is int and n > 0 for n in first):
        raise InputError(f"{name!r} is three whole numbers, but {value!r} came")
    return first[0], first[1], first[2]


def _description(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / "dataset.json"] if (path / "dataset.json").is_file() else sorted(path.glob("*_dataset.json"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise FileError(f"{path} should hold one dataset.json or <Task>_dataset.json, but has {names}; give the file")
    return found[0]


def _splits(data: dict[str, Any], folder: Path) -> tuple[dict[Split, tuple[TaskPair, ...]], dict[Split, str]]:
    """Pairs of each split, and why there are none: what one split looks like need not stop work on another."""
    splits: dict[Split, tuple[TaskPair, ...]] = {}
    unusable: dict[Split, str] = {}
    for split, key in _KEYS.items():
        try:
            if data.get(key):
                splits[split] = pairs_from(data[key], folder, key)
        except InputError as error:
            unusable[split] = str(error)
    return splits, unusable


def _pair(entry: Any, folder: Path, key: str) -> TaskPair:
    given = entry if isinstance(entry, dict) else {}
    names = [str(given.get(side)) for side in ("fixed", "moving")]
    if not all(_IMAGE.fullmatch(name) for name in names):
        raise InputError(
            f"{key!r} has the pair {entry!r}, but each is {{'fixed': NAME, 'moving': NAME}} with names like "
            "./imagesTr/Task_0001_0000.nii.gz: a folder images..., then subject and modality of four digits"
        )
    fixed, moving = (TaskImage(folder=folder, name=name) for name in names)
    return TaskPair(fixed=fixed, moving=moving)


def _numbered(table: Any) -> dict[int, str]:
    """Names by number; what is not numbered is left out."""
    if not isinstance(table, dict):
        return {}
    return {int(key): str(value) for key, value in table.items() if str(key).isdecimal()}


def _labels(table: Any) -> dict[int, str]:
    """Names of labels, of all modalities where each has its own table."""
    if not isinstance(table, dict):
        return {}
    tables: Iterable[Any] = [t for t in table.values() if isinstance(t, dict)] or [table]
    merged = {number: name for part in tables for number, name in _numbered(part).items()}
    return {number: merged[number] for number in sorted(merged) if number}


def _shape(value: Any) -> Triple | None:
    """Shape of the images: a list, or one for each modality, of which that of the lowest number counts."""
    if isinstance(value, dict):
        value = value[min(value)] if value else None
    return None if value is None else three_numbers(value, "tensorImageShape")


def _as_csv(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".nii.gz") + ".csv")


SPLITS: tuple[Split, ...] = get_args(Split)
"""All splits."""
