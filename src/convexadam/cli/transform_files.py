"""Files of transforms. Error messages name options instead of arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from convexadam._atomic import check_writable
from convexadam.errors import ConvexAdamError
from convexadam.geometry import Grid, Transform
from convexadam.io import check_transform_name, read_transform, write_transform

_GRIDS = {"fixed": "--fixed", "moving": "--moving"}
_TO_READ = {"format": "--from", **_GRIDS}


def load_transform(
    path: Path, *, fixed: Grid | None = None, moving: Grid | None = None, device: torch.device | str | None = None
) -> Transform:
    """Read a transform, for a command without options for the format and the grids."""
    with _translate_errors("options of `convexadam convert`", **_TO_READ):
        return read_transform(path, fixed=fixed, moving=moving, device=device)


def load_transform_with(path: Path, name: str | None, fixed: Grid | None, moving: Grid | None) -> Transform:
    """Read a transform, for a command with options for the format and the grids."""
    with _translate_errors(**_TO_READ):
        return read_transform(path, format=name, fixed=fixed, moving=moving)


def save_transform(transform: Transform, path: Path, reference: Grid | None) -> None:
    """Write a transform in the format of its name, on the grid of ``--reference`` or its own."""
    with _translate_errors(format="--to", fixed="--reference", moving="--moving"):
        write_transform(transform, path, fixed=reference)


def save_transform_as(
    transform: Transform, path: Path, name: str | None, fixed: Grid | None, moving: Grid | None
) -> None:
    """Write a transform in a given format."""
    with _translate_errors(format="--to", **_GRIDS):
        write_transform(transform, path, format=name, fixed=fixed, moving=moving)


def check_output(path: Path, name: str | None = None) -> None:
    """Raise, before the work, unless a transform can be written to a file, in the format of this name or its own."""
    with _translate_errors(format="--to"):
        check_transform_name(path, name)
    check_writable(path)


def name_read_options(text: str) -> str:
    """Replace arguments of `read_transform` in a text by the options of the command line."""
    return _replace_arguments(text, _TO_READ)


@contextmanager
def _translate_errors(addition: str = "", **options: str) -> Iterator[None]:
    """Replace arguments of the library in the messages of errors by options of the command line."""
    try:
        yield
    except ConvexAdamError as error:
        text = _replace_arguments(str(error), options)
        if text == str(error):
            raise
        raise type(error)(f"{text} ({addition})" if addition else text) from error


def _replace_arguments(text: str, options: dict[str, str]) -> str:
    for argument, option in options.items():
        text = re.sub(rf"\b{argument}='([^']*)'", rf"{option} \1", text)
        text = re.sub(rf"\b{argument}=", option, text)
    return text
