"""Errors of the library. Each message names the requirement, the value found and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConvexAdamError(ValueError):
    """Base class of all errors of the library."""


class InputError(ConvexAdamError):
    """A volume, mask, label map or list of points is unusable."""


class GeometryError(ConvexAdamError):
    """A grid, affine or transform is unusable, or two of them are incompatible."""


class ConfigError(ConvexAdamError):
    """A setting is unknown, out of range or incompatible with another setting."""


class FileError(ConvexAdamError):
    """A file cannot be read or written, or its content is not the expected one."""


class MissingExtraError(ConvexAdamError):
    """An optional package is not installed."""


class OutOfMemoryError(ConvexAdamError):
    """The device does not have enough memory for the settings."""


def is_about_memory(error: BaseException) -> bool:
    """Whether an error of torch or Python is about memory; each device words it differently."""
    words = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


def did_you_mean(word: object, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return the most similar known word as " (did you mean 'word'?)"; an empty string if there is none."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff) if isinstance(word, str) else []
    return f" (did you mean {close[0]!r}?)" if close else ""
