"""Errors of readers, all in one form."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

from convexadam.errors import ConfigError, ConvexAdamError, FileError, MissingExtraError


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
        if source.stat().st_size == 0:
            raise FileError(f"{source} must be a file with {content}, got an empty file; copy or write it again")
        yield source
    except (FileError, ConfigError, MissingExtraError):
        raise
    except ConvexAdamError as error:  # the content is readable but unusable: a singular affine, for example
        raise FileError(f"cannot read {content} from {source}: {error}") from error
    except (OSError, EOFError, zlib.error, BadZipFile, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FileError(
            f"cannot read {content} from {source}: {reason}; check whether the file is damaged or truncated"
        ) from error


def is_zip(source: Path) -> bool:
    """Whether a file is a zip archive, such as ``.npz`` and the files of ``torch.save``."""
    with source.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
