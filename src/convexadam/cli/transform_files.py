"""Files of transforms; errors speak of options instead of arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from convexadam.errors import ConvexAdamError
from convexadam.geometry import Grid, Transform
from convexadam.io import TransformFormat, read_transform, write_transform

_GRIDS = {"fixed": "--fixed", "moving": "--moving"}
_TO_READ = {"format": "--from", **_GRIDS}


def load_transform(
    path: Path, *, fixed: Grid | None = None, moving: Grid | None = None, device: torch.device | str | None = None
) -> Transform:
    """Read a transform, for a command that has no options for what the file does not say."""
    with _in_options("options of `convexadam convert`", **_TO_READ):
        return read_transform(path, fixed=fixed, moving=moving, device=device)


def load_transform_with(path: Path, kind: TransformFormat | None, fixed: Grid | None, moving: Grid | None) -> Transform:
    """Read a transform of which options say what the file does not."""
    with _in_options(**_TO_READ):
        return read_transform(path, format=kind, fixed=fixed, moving=moving)


def save_transform(transform: Transform, path: Path, onto: Grid | None) -> None:
    """Write a transform, in the format of its name, on the grid of ``--onto`` or its own."""
    with _in_options(format="--to", fixed="--onto", moving="--moving"):
        write_transform(transform, path, fixed=onto)


def save_transform_as(
    transform: Transform, path: Path, kind: TransformFormat | None, fixed: Grid | None, moving: Grid | None
) -> None:
    """Write a transform in any format."""
    with _in_options(format="--to", **_GRIDS):
        write_transform(transform, path, format=kind, fixed=fixed, moving=moving)


def options_to_read(text: str) -> str:
    """Name the options for reading where a text names arguments of `read_transform`."""
    return _with_options(text, _TO_READ)


@contextmanager
def _in_options(addition: str = "", **options: str) -> Iterator[None]:
    """Name options of the command line where an error names arguments of the library."""
    try:
        yield
    except ConvexAdamError as error:
        text = _with_options(str(error), options)
        if text == str(error):
            raise
        raise type(error)(f"{text} ({addition})" if addition else text) from error


def _with_options(text: str, options: dict[str, str]) -> str:
    for argument, option in options.items():
        text = re.sub(rf"\b{argument}='([^']*)'", rf"{option} \1", text)
        text = re.sub(rf"\b{argument}=", option, text)
    return text
