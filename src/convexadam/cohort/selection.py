"""Pairs from the names of files: many to one, all with all, and folders in BIDS layout."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from convexadam.errors import FileError, InputError
from convexadam.io import PairFiles
from convexadam.io.ids import check_only_images, match_files, name_files
from convexadam.io.reading import StrPath

_APART = {"derivatives", "sourcedata", "code"}
"""Folders of a BIDS dataset that hold no raw images."""


def pair_with_fixed(fixed: StrPath, moving: str | Sequence[str]) -> tuple[PairFiles, ...]:
    """Return pairs of one fixed image and each moving one.

    Parameters
    ----------
    fixed
        The image to register to.
    moving
        Pattern of file names, such as ``"scans/*.nii.gz"``, or several; ``**`` stands for any folders. The fixed image
        is skipped if it is among them.

    Raises
    ------
    FileError
        If the fixed image does not exist, or no other file has such a name.
    InputError
        If some of the files are label maps or masks by their names, such as ``a_labels.nii.gz`` or ``a_dseg.nii.gz``.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam.cohort import pair_with_fixed
    >>> for name in ("template", "scan-1", "scan-2"):
    ...     Path(f"{name}.nii.gz").touch()
    >>> [pair.moving.name for pair in pair_with_fixed("template.nii.gz", "scan-*.nii.gz")]
    ['scan-1.nii.gz', 'scan-2.nii.gz']
    """
    reference = Path(fixed)
    if not reference.exists():
        raise FileError(f"there is no file {reference}; check the name of the fixed image")
    every = [path for path in _find(moving, 1) if not path.samefile(reference)]
    return _pair_with(reference, every, _show(moving))


def pair_all(images: str | Sequence[str]) -> tuple[PairFiles, ...]:
    """Return each pair of images once; the one that comes first by its name is the fixed one.

    Parameters
    ----------
    images
        Pattern of file names, or several, as for `pair_with_fixed`.

    Raises
    ------
    FileError
        If fewer than two files have such a name.
    InputError
        As for `pair_with_fixed`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam.cohort import pair_all
    >>> for name in "abc":
    ...     Path(f"{name}.nii.gz").touch()
    >>> [(pair.fixed.name, pair.moving.name) for pair in pair_all("*.nii.gz")]
    [('a.nii.gz', 'b.nii.gz'), ('a.nii.gz', 'c.nii.gz'), ('b.nii.gz', 'c.nii.gz')]
    """
    found = _find(images, 2)
    names = name_files(found)
    return tuple(
        PairFiles(id=f"{names[moving]}_to_{names[fixed]}", fixed=fixed, moving=moving)
        for fixed, moving in combinations(found, 2)
    )


def pair_bids(folder: StrPath, suffix: str = "T1w", fixed: StrPath | None = None) -> tuple[PairFiles, ...]:
    """Return the pairs of a folder in BIDS layout; their ids begin with the entities ``sub-`` and ``ses-``.

    Parameters
    ----------
    folder
        With files such as ``sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz``.
    suffix
        Kind of the images, such as ``T1w`` or ``bold``.
    fixed
        Image that all others are registered to; ``None`` registers, within each subject, all others to the first one
        by its name.

    Raises
    ------
    FileError
        If the folder or the fixed image do not exist.
    InputError
        If there are no such images, or without ``fixed`` no subject has two of them.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam.cohort import pair_bids
    >>> for name in ("01", "02"):
    ...     Path(f"study/sub-{name}/anat").mkdir(parents=True)
    ...     Path(f"study/sub-{name}/anat/sub-{name}_T1w.nii.gz").touch()
    >>> [pair.moving.name for pair in pair_bids("study", fixed="study/sub-01/anat/sub-01_T1w.nii.gz")]
    ['sub-02_T1w.nii.gz']
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileError(f"{root} must be a folder in BIDS layout, got none; check the name")
    pattern = re.compile(rf"(sub-[A-Za-z0-9]+)_(?:.*_)?{re.escape(suffix)}\.nii(?:\.gz)?")
    subjects = defaultdict[str, list[Path]](list)
    for path in sorted(root.glob(f"sub-*/**/*_{suffix}.nii*")):
        match = pattern.fullmatch(path.name)
        if match is not None and not _APART & set(path.relative_to(root).parts):
            subjects[match[1]].append(path)
    if not subjects:
        raise InputError(f"{root} must hold images sub-*_{suffix}.nii.gz, got none; check the folder and the suffix")
    if fixed is not None:
        reference = Path(fixed)
        if not reference.exists():
            raise FileError(f"there is no file {reference}; check the name of the fixed image")
        every = [path for paths in subjects.values() for path in paths if not path.samefile(reference)]
        return _pair_with(reference, every, str(root))
    pairs = [
        PairFiles(id=f"{_strip(moving)}_to_{_strip(paths[0])}", fixed=paths[0], moving=moving)
        for paths in subjects.values()
        for moving in paths[1:]
    ]
    if not pairs:
        raise InputError(f"a subject of {root} must have two images to register, got one each; give a fixed image")
    return tuple(pairs)


def _pair_with(fixed: Path, moving: Sequence[Path], pattern: str) -> tuple[PairFiles, ...]:
    if not moving:
        raise FileError(f"{pattern} must name images other than {fixed}, got none; check the pattern")
    names = name_files(moving)
    return tuple(PairFiles(id=names[path], fixed=fixed, moving=path) for path in moving)


def _find(patterns: str | Sequence[str], least: int) -> list[Path]:
    """Return the files of one or several patterns, in the order of their names."""
    found = match_files([patterns] if isinstance(patterns, str) else patterns)
    if len(found) < least:
        raise FileError(
            f"{_show(patterns)} must name at least {least} files, got {len(found)}; check the pattern: "
            "'scans/*.nii.gz' are the images of a folder"
        )
    check_only_images(found, _show(patterns))
    return found


def _show(patterns: str | Sequence[str]) -> str:
    return patterns if isinstance(patterns, str) else " ".join(patterns)


def _strip(path: Path) -> str:
    return path.name.partition(".")[0]
