"""Detection of the format of a transform by the content of its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convexadam.geometry import Grid
from convexadam.io.formats import transform_formats
from convexadam.io.headers import HDF5_SIGNATURE, read_header
from convexadam.io.images import find_itk_reader
from convexadam.io.nifti_file import is_mgh
from convexadam.io.transform_format import FileHeader, Possible, TransformFormat, Unusable
from convexadam.io.unsupported import explain_foreign

_MAX_NAMES = 5


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The format of the transform in a file, or why it cannot be read.

    Attributes
    ----------
    format
        The format, or ``None``.
    problem
        If there is no format: what is wrong with the file, and what to do.
    header
        The header of the file.
    is_image
        If there is no format: whether the file is an image, or may be one.
    """

    format: TransformFormat | None
    problem: str = ""
    header: FileHeader
    is_image: bool = False


def detect_format(source: Path, *, fixed: Grid | None = None) -> Detection:
    """Detect the format of a transform by the content of its file. Call it within `check_file`.

    Parameters
    ----------
    source
        The file.
    fixed
        The fixed grid, if it is known. It distinguishes archives of Learn2Reg from those of 2021.
    """
    header = read_header(source, fixed)
    possible: list[tuple[TransformFormat, Possible]] = []
    unusable: list[Unusable] = []
    for item in transform_formats():
        result = item.detect(header) if item.detect is not None else False
        if isinstance(result, Possible):
            possible.append((item, result))
        elif isinstance(result, Unusable):
            unusable.append(result)
        elif result:
            return Detection(format=item, header=header)
    if unusable:
        problem = "; ".join(f"it {result.problem}; {result.advice}" for result in unusable)
        return Detection(format=None, problem=problem, header=header)
    if header.nifti is None and (foreign := explain_foreign(header.head)) is not None:
        return Detection(format=None, problem=f"it {foreign[0]}; {foreign[1]}", header=header)
    is_image = header.nifti is not None or find_itk_reader(source) is not None or is_mgh(header.head)
    problem = _explain_choice(header, possible, is_image) if possible else _explain_unknown(header, is_image)
    return Detection(format=None, problem=problem, header=header, is_image=is_image)


def _explain_choice(header: FileHeader, possible: list[tuple[TransformFormat, Possible]], is_image: bool) -> str:
    contents = [result.content for _, result in possible]
    if is_image and header.nifti is not None:
        contents.insert(0, f"an image of {header.nifti.shape[-1]} channels")
    options = []
    for item, result in possible:
        needs = " and ".join(f"{name}=" for name in (item.read_needs if result.needs is None else result.needs))
        options.append(f"pass format={item.name!r}" + (f" with {needs}" if needs else ""))
    options += [result.alternative for _, result in possible if result.alternative]
    return (
        f"its format must be named, got {_name_content(header, is_image)}, which may be {' or '.join(contents)}; "
        f"{', or '.join(options)}"
    )


def _explain_unknown(header: FileHeader, is_image: bool) -> str:
    known = ", ".join(item.name for item in transform_formats() if item.detect is not None)
    advice = "read images with read_image" if is_image else "convert it with the program that wrote it"
    return f"its content must be of a known format ({known}), got {_name_content(header, is_image)}; {advice}"


def _name_content(header: FileHeader, is_image: bool) -> str:
    if header.nifti is not None:
        return f"NIfTI of shape {header.nifti.shape} and intent {header.nifti.intent}"
    if header.archive is not None:
        more = ", ..." if len(header.archive) > _MAX_NAMES else ""
        return f"a zip archive of {', '.join(header.archive[:_MAX_NAMES])}{more}"
    if header.head.startswith(HDF5_SIGNATURE):
        return "HDF5 without a transform"
    return "an image" if is_image else f"a file that begins with {header.head[:16]!r}"
