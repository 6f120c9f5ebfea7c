"""What commands share: what they say, and the arguments that they take."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeVar

import tyro

from convexadam.geometry import Grid
from convexadam.io import read_image
from convexadam.registration.register import Progress

Preset: TypeAlias = Literal["default", "accurate", "same-contrast", "published"]

T = TypeVar("T")


class WrongUse(Exception):  # noqa: N818 - it is about the caller
    """Options that do not go together: one line, and the exit status 2."""


TransformFile: TypeAlias = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TRANSFORM")]

Output: TypeAlias = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]


def say(text: str) -> None:
    """Write a line where it does not mix with results."""
    sys.stderr.write(text + "\n")


def optional(read: Callable[[Path], T], path: Path | None) -> T | None:
    """Read a file if its name came."""
    return None if path is None else read(path)


def grid_of(path: Path) -> Grid:
    """Return the grid of an image file."""
    return read_image(path).grid


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress | None]:
    """Show a bar on the terminal; nothing where there is none."""
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
