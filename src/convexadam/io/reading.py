"""One way for every reader to fail."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

from convexadam.errors import ConfigError, ConvexAdamError, FileError, MissingExtraError


@contextmanager
def reading(path: str | os.PathLike[str], what: str) -> Iterator[Path]:
    """Check that ``path`` is a file with something in it; whatever then goes wrong with it becomes a `FileError`.

    Parameters
    ----------
    path
        The file to read.
    what
        What it should be, for the message: ``"a NIfTI image"``.

    Raises
    ------
    FileError
        It names the file and says what came, what was needed and what to do.
    ConfigError, MissingExtraError
        As they come.
    """
    source = Path(path)
    try:
        if source.is_dir():
            raise FileError(f"{source} is a folder, but {what} is needed; give the file (convert DICOM with dcm2niix)")
        if not source.exists():
            raise FileError(f"there is no file {source}; check the name (paths start at {Path.cwd()})")
        if source.stat().st_size == 0:
            raise FileError(f"{source} is empty, but {what} is needed; copy or make it again")
        yield source
    except (FileError, ConfigError, MissingExtraError):  # the last two say what the caller can do
        raise
    except ConvexAdamError as error:  # what it holds cannot be used: a singular affine, say
        raise FileError(f"{source}: {error}") from error
    except (OSError, EOFError, zlib.error, BadZipFile, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FileError(f"{source} cannot be read as {what} ({reason}); is it damaged, or cut short?") from error


def is_zip(source: Path) -> bool:
    """Whether a file begins like a zip archive: ``.npz``, and what torch saves."""
    with source.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
