"""Files of the results of a registration."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from convexadam._atomic import make_folder
from convexadam.geometry import Affine, Image
from convexadam.io import write_image, write_transform

if TYPE_CHECKING:
    from convexadam.registration.result import RegistrationResult

Output: TypeAlias = Literal["transform", "inverse", "moved", "labels"]

SAVED: tuple[Output, ...] = ("transform", "moved")
"""What is written unless something else is wished."""

MOVED, MOVED_LABELS, REPORT = "moved.nii.gz", "moved_labels.nii.gz", "report.json"

TRANSFORM, MATRIX = "transform.nii.gz", "transform.tfm"
"""Name of the transform: of a displacement field, and of a linear one."""

_PREFIX = "inverse_"


def write_outputs(
    result: RegistrationResult,
    folder: Path,
    outputs: Collection[Output],
    *,
    labels: Image | None = None,
    compress: bool = True,
) -> list[Path]:
    """Write results to a folder that exists.

    Parameters
    ----------
    result
        The registration.
    folder
        Where to write.
    outputs
        What to write; ``"labels"`` is ignored without ``labels``.
    labels
        Label map of the moving image, to warp.
    compress
        Pack files: ``.nii.gz`` instead of ``.nii``.

    Returns
    -------
    The files that were written.

    Raises
    ------
    FileError
        If they cannot be written.
    """
    written = []
    if "moved" in outputs:
        written.append(folder / name_image(MOVED, compress=compress))
        write_image(result.moved, written[-1])
    if "transform" in outputs:
        name = name_transform(linear=isinstance(result.transform, Affine), compress=compress)
        written.append(folder / name)
        write_transform(result.transform, written[-1])
    if "inverse" in outputs:
        inverse = result.inverse()
        name = name_transform(linear=isinstance(inverse, Affine), compress=compress)
        written.append(folder / f"{_PREFIX}{name}")
        write_transform(inverse, written[-1], fixed=None if isinstance(inverse, Affine) else result.moving.grid)
    if "labels" in outputs and labels is not None:
        written.append(folder / name_image(MOVED_LABELS, compress=compress))
        write_image(result.transform.warp(labels, result.fixed, mode="label"), written[-1])
    return written


def save_result(
    result: RegistrationResult,
    folder: Path,
    outputs: Collection[Output],
    *,
    labels: Image | None = None,
    extra: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write results and ``report.json``, with the keys of ``extra``, to a folder, which is made if it is missing.

    See `write_outputs`.
    """
    make_folder(folder)
    written = write_outputs(result, folder, outputs, labels=labels)
    result.save_summary(folder / REPORT, extra=extra)
    return [*written, folder / REPORT]


def name_image(name: str, *, compress: bool = True) -> str:
    """Return the file name of an image, packed or not."""
    return name if compress else name.removesuffix(".gz")


def name_transform(*, linear: bool, compress: bool = True) -> str:
    """Return the file name of a transform."""
    return MATRIX if linear else name_image(TRANSFORM, compress=compress)


def name_outputs(outputs: Collection[Output], *, linear: bool, labels: bool, compress: bool = True) -> list[str]:
    """Return the file names of results, for a registration that is linear alone or not, with labels to warp or not."""
    transform = name_transform(linear=linear, compress=compress)
    names = {
        "moved": name_image(MOVED, compress=compress),
        "transform": transform,
        "inverse": f"{_PREFIX}{transform}",
        "labels": name_image(MOVED_LABELS, compress=compress),
    }
    return [name for output, name in names.items() if output in outputs and (labels or output != "labels")]
