"""Messages, types of arguments and readers that all commands share."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, TypeVar

import tyro

from convexadam.geometry import Grid
from convexadam.io import read_image
from convexadam.registration.presets import preset_names
from convexadam.registration.progress import Progress, open_progress

if TYPE_CHECKING:
    Preset: TypeAlias = str
else:
    Preset = Annotated[
        Literal[preset_names()],
        tyro.conf.arg(metavar="NAME", help=f"Settings: {', '.join(preset_names())}.", help_behavior_hint=""),
    ]

T = TypeVar("T")

_LOGGER = logging.getLogger("convexadam")


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
    """Log a line, which `log_to_stderr` writes to the standard error, apart from results on the standard output."""
    _LOGGER.info(text)


class _StderrHandler(logging.Handler):
    """Writes to the standard error of the moment, which a progress bar replaces."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")


@contextmanager
def log_to_stderr() -> Iterator[logging.Logger]:
    """Let what is logged under the name ``convexadam`` appear on the standard error; its level decides what."""
    handler, level = _StderrHandler(), _LOGGER.level
    handler.setFormatter(logging.Formatter("%(message)s"))
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    try:
        yield _LOGGER
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(level)


def read_optional(read: Callable[[Path], T], path: Path | None) -> T | None:
    """Read a file, or return ``None`` for ``None``."""
    return None if path is None else read(path)


def read_grid(path: Path) -> Grid:
    """Return the grid of an image file."""
    return read_image(path).grid


@contextmanager
def show_progress(quiet: bool) -> Iterator[Progress | None]:
    """Show a progress bar if the standard error is a terminal."""
    with open_progress(False if quiet else None) as progress:
        yield progress
