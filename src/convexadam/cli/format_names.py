"""Names of transform formats on the command line, from the table of formats."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import tyro

from convexadam.cli.common import UsageError
from convexadam.errors import did_you_mean
from convexadam.io import transform_formats

FormatName: TypeAlias = Annotated[
    str | None, tyro.conf.arg(metavar="{" + ",".join(item.name for item in transform_formats()) + "}")
]
"""The name of a format, which the command has to check with `check_format_name`."""


def check_format_name(name: str | None, option: str) -> None:
    """Raise `UsageError` unless the name is in the table, or ``None``.

    The table is read at each call, since a script may register formats before it runs a command.
    """
    known = [item.name for item in transform_formats()]
    if name is not None and name not in known:
        raise UsageError(f"{option} must be one of {', '.join(known)}, got {name!r}{did_you_mean(name, known)}")


def list_formats() -> str:
    """Return the names, endings and conventions of all formats, for the help of an option."""
    return "; ".join(f"{item.name} ({', '.join(item.suffixes)}): {item.convention}" for item in transform_formats())
