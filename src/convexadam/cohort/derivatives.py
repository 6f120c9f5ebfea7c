"""Results of a cohort by the names of BIDS derivatives."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from convexadam._atomic import atomic_path, make_folder
from convexadam._version import VERSION
from convexadam.cohort.outcome import CohortOutcome
from convexadam.errors import InputError
from convexadam.io.reading import StrPath
from convexadam.registration.files import MATRIX, MOVED, MOVED_LABELS, TRANSFORM

_BIDS_VERSION = "1.9.0"

_AFTER_SPACE = ("split", "recording", "chunk", "seg", "res", "den", "label", "desc")
"""Entities that follow ``space`` in the order of the specification."""

_NAME = re.compile(r"(?P<entities>(?:[a-z]+-[A-Za-z0-9]+_)*[a-z]+-[A-Za-z0-9]+)_(?P<suffix>[A-Za-z0-9]+)\.nii(?:\.gz)?")

_NOT_BIDS = ("cohort.csv", "cohort.json", "*.html", "pairs/")
"""What a cohort has beside them, which validators shall ignore."""


def write_derivatives(outcome: CohortOutcome, output_dir: StrPath) -> tuple[Path, ...]:
    """Give the results of a pair the names of BIDS derivatives, beside those of the cohort; no space is taken twice.

    For a moving image ``sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz`` and a fixed one ``tpl-MNI152_T1w.nii.gz``, the
    folder ``sub-01/ses-1/anat`` receives, as far as the cohort keeps them,

    - ``sub-01_ses-1_from-T1w_to-MNI152_mode-image_xfm.nii.gz`` (``.txt`` if it is linear), the transform that brings
      the moving image to the space of the fixed one, and ``..._from-MNI152_to-T1w_mode-image_xfm.nii.gz``, its inverse;
    - ``sub-01_ses-1_space-MNI152_T1w.nii.gz``, the moved image, with a ``.json`` file that names the fixed image, and
      ``..._space-MNI152_dseg.nii.gz``, its warped labels.

    ``dataset_description.json`` and ``.bidsignore`` are written if they are missing. Names of results that a pair no
    longer has are removed.

    Gorgolewski et al., "The brain imaging data structure", Scientific Data 2016; transforms are named as by fMRIPrep.

    Parameters
    ----------
    outcome
        Of a pair whose moving image has a name in BIDS form.
    output_dir
        The derivatives, such as ``study/derivatives/convexadam``.

    Returns
    -------
    The files.

    Raises
    ------
    InputError
        If the moving image has no such name.
    FileError
        If a file cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam import write_image
    >>> from convexadam.cohort import pair_bids, register_cohort, write_derivatives
    >>> from convexadam.data import phantom_pair
    >>> pair = phantom_pair((16, 16, 16))
    >>> for session, image in ((1, pair.fixed), (2, pair.moving)):
    ...     folder = Path(f"study/sub-01/ses-{session}/anat")
    ...     folder.mkdir(parents=True)
    ...     write_image(image, folder / f"sub-01_ses-{session}_T1w.nii.gz")
    >>> (outcome,) = register_cohort(pair_bids("study"), "rigid", output_dir="out")
    >>> for path in write_derivatives(outcome, "out"):
    ...     print(path.name)
    sub-01_ses-2_from-T1w_to-ses1T1w_mode-image_xfm.txt
    sub-01_ses-2_space-ses1T1w_T1w.nii.gz
    sub-01_ses-2_space-ses1T1w_T1w.json
    """
    fixed, moving = outcome.pair.fixed, outcome.pair.moving
    match = _NAME.fullmatch(moving.name)
    if match is None or not moving.name.startswith("sub-"):
        raise InputError(f"moving must have a name such as sub-01_T1w.nii.gz, got {moving.name}; rename it")
    root, place = _find_place(moving, match["entities"])
    folder = Path(output_dir)
    _describe_dataset(make_folder(folder), root)
    target, space = make_folder(folder / place), _name_space(fixed, match["entities"])
    entities, suffix = match["entities"], match["suffix"]
    there, back = (f"{entities}_from-{a}_to-{b}_mode-image_xfm" for a, b in ((suffix, space), (space, suffix)))
    names = {
        TRANSFORM: f"{there}.nii.gz",
        MATRIX: f"{there}.txt",
        f"inverse_{TRANSFORM}": f"{back}.nii.gz",
        f"inverse_{MATRIX}": f"{back}.txt",
        MOVED: f"{_insert_space(entities, space)}_{suffix}.nii.gz",
        MOVED_LABELS: f"{_insert_space(entities, space)}_dseg.nii.gz",
    }
    found = [target / b for a, b in names.items() if _link(outcome.folder / a, target / b)]
    sidecar = target / names[MOVED].replace(".nii.gz", ".json")
    if target / names[MOVED] in found:
        _write_json(sidecar, {"SpatialReference": str(fixed), "Sources": [str(moving)]})
        found.append(sidecar)
    else:
        sidecar.unlink(missing_ok=True)
    return tuple(found)


def _find_place(moving: Path, entities: str) -> tuple[Path, Path]:
    """Return the root of the dataset of an image, and its folder there; by the name if it is in no such folder."""
    subject, *rest = entities.split("_")
    parents = moving.parent.parts
    if subject in parents:
        first = parents.index(subject)
        return Path(*parents[:first]), Path(*parents[first:])
    sessions = [entity for entity in rest if entity.startswith("ses-")]
    return moving.parent, Path(subject, *sessions, "anat")


def _name_space(fixed: Path, entities: str) -> str:
    """Return the label of the space of an image: of a template its name, otherwise its entities and suffix."""
    stem = fixed.name.partition(".")[0]
    template = re.match(r"tpl-([A-Za-z0-9]+)", stem)
    subject = entities.partition("_")[0]
    return template[1] if template else re.sub(r"[^A-Za-z0-9]", "", stem.removeprefix(f"{subject}_"))


def _insert_space(entities: str, space: str) -> str:
    parts = entities.split("_")
    later = [part for part in parts if part.partition("-")[0] in _AFTER_SPACE]
    return "_".join([*(part for part in parts if part not in later), f"space-{space}", *later])


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name, or copy it where a file system has none; without it, remove the second name."""
    if not source.is_file():
        target.unlink(missing_ok=True)
        return False
    if not (target.is_file() and target.samefile(source)):
        with atomic_path(target) as temporary:
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copyfile(source, temporary)
    return True


def _describe_dataset(folder: Path, source: Path) -> None:
    description = folder / "dataset_description.json"
    if not description.is_file():
        generated = {"Name": "convexadam", "Version": VERSION, "Description": "Deformable image registration"}
        values = {
            "Name": "Registrations by convexadam",
            "BIDSVersion": _BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [generated],
            "SourceDatasets": [{"URL": source.absolute().as_uri()}],
        }
        _write_json(description, values)
    if not (folder / ".bidsignore").is_file():
        with atomic_path(folder / ".bidsignore") as temporary:
            temporary.write_text("\n".join([*_NOT_BIDS, ""]), encoding="utf-8")


def _write_json(path: Path, values: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
