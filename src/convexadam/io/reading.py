"""Errors of readers, all in one form."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from convexadam.errors import ConfigError, ConvexAdamError, FileError, MissingExtraError

StrPath: TypeAlias = str | os.PathLike[str]

_MAX_REASON = 300
"""Characters of an error of another package that are passed on."""


@contextmanager
def check_file(path: str | os.PathLike[str], content: str) -> Iterator[Path]:
    """Check that a path is a file with content, and turn errors of the block into `FileError`.

    Parameters
    ----------
    path
        The file to read.
    content
        What the file has to be, with its article: ``"a NIfTI image"``.

    Raises
    ------
    FileError
        It names the file, the requirement and what to do.
    ConfigError, MissingExtraError
        Unchanged, if the block raises them: they say what the caller can do.
    """
    source = Path(path)
    try:
        if source.is_dir():
            raise FileError(
                f"{source} must be a file with {content}, got a folder; pass the file (convert DICOM with dcm2niix)"
            )
        if not source.exists():
            raise FileError(f"there is no file {source}; check the name (relative to {Path.cwd()})")
        if not stat.S_ISREG(source.stat().st_mode):  # a pipe, for example, would wait for its writer
            raise FileError(f"{source} must be a file with {content}, got a pipe or device; save it as a file first")
        if source.stat().st_size == 0:
            raise FileError(f"{source} must be a file with {content}, got an empty file; copy or write it again")
        yield source
    except (FileError, ConfigError, MissingExtraError, Warning):
        raise
    except ConvexAdamError as error:  # the content is readable but unusable: a singular affine, for example
        raise FileError(f"cannot read {content} from {source}: {error}") from error
    except MemoryError as error:
        raise FileError(f"cannot read {content} from {source}: its values must fit into memory; crop them") from error
    except Exception as error:  # the readers of other packages fail in any way on damaged files
        raise FileError(
            f"cannot read {content} from {source}: {_say(error)}; check whether the file is damaged or truncated"
        ) from error


@contextmanager
def read_lazily(source: object, content: str) -> Iterator[None]:
    """Turn the errors of a package that reads the values of an opened file in the block into `FileError`."""
    try:
        yield
    except (ConvexAdamError, MemoryError, Warning):
        raise
    except Exception as error:  # the file is gone, truncated, closed or damaged
        raise FileError(
            f"cannot read {content} from {source}: {_say(error)}; check whether the file is still there, and whole"
        ) from error


def _say(error: Exception) -> str:
    return " ".join(str(error).split())[:_MAX_REASON] or type(error).__name__


def is_folder(path: StrPath) -> bool:
    """Whether a path is a folder; a name that the system refuses, such as one that is too long, is none."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def is_zip(source: Path) -> bool:
    """Whether a file is a zip archive, such as ``.npz`` and the files of ``torch.save``."""
    with source.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
