"""Messages, types of arguments and readers that all commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, TypeVar

import tyro

from convexadam.geometry import Grid
from convexadam.io import read_image
from convexadam.registration.presets import preset_names
from convexadam.registration.register import Progress

if TYPE_CHECKING:
    Preset: TypeAlias = str
else:
    Preset = Annotated[
        Literal[preset_names()],
        tyro.conf.arg(metavar="NAME", help=f"Settings: {', '.join(preset_names())}.", help_behavior_hint=""),
    ]

T = TypeVar("T")


class UsageError(Exception):
    """Options that contradict each other: one line, and the exit status 2."""


TransformFile: TypeAlias = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TRANSFORM")]

Output: TypeAlias = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]

OptionalFile: TypeAlias = Annotated[Path | None, tyro.conf.arg(metavar="IN", help_behavior_hint="")]
"""A file to read that may be omitted, without the words ``{None}`` and ``(default: None)`` in the help."""

Header: TypeAlias = Annotated[
    Literal["sform", "qform"] | None,
    tyro.conf.arg(
        metavar="FORM",
        help="sform or qform: where NIfTI files place their voxels. Default: as ITK.",
        help_behavior_hint="",
    ),
]
"""The form of NIfTI headers to use, which `main` passes on to `use_header`."""

OptionalOutput: TypeAlias = Annotated[Path | None, tyro.conf.arg(metavar="OUT", help_behavior_hint="")]
"""The same for a file to write."""


def say(text: str) -> None:
    """Write a line to the standard error, which keeps it apart from results on the standard output."""
    sys.stderr.write(text + "\n")


def read_optional(read: Callable[[Path], T], path: Path | None) -> T | None:
    """Read a file, or return ``None`` for ``None``."""
    return None if path is None else read(path)


def read_grid(path: Path) -> Grid:
    """Return the grid of an image file."""
    return read_image(path).grid


@contextmanager
def show_progress(quiet: bool) -> Iterator[Progress | None]:
    """Show a progress bar if the standard error is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<12}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("start", total=1.0)
        yield lambda stage, share: bar.update(task, description=stage, completed=share)
