"""Errors that the library raises. Each message says what came, what was needed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConvexAdamError(ValueError):
    """Base of every error raised on purpose by the library."""


class InputError(ConvexAdamError):
    """A volume, mask, label map or point list cannot be used as given."""


class GeometryError(ConvexAdamError):
    """A grid, affine or transform is unusable, or two of them do not fit each other."""


class ConfigError(ConvexAdamError):
    """A setting is unknown, out of range or does not fit the other settings."""


class FileError(ConvexAdamError):
    """A file cannot be read or written, or is not what its name promises."""


class MissingExtraError(ConvexAdamError):
    """An optional package is needed for what was asked."""


class OutOfMemoryError(ConvexAdamError):
    """The device has too little memory for the settings."""


def did_you_mean(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return the nearest of the known words as a question in parentheses; empty where none is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f" (did you mean {close[0]!r}?)" if close else ""
