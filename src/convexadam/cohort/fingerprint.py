"""By what it is told whether a pair was registered from the same files with the same settings."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from convexadam.errors import FileError
from convexadam.registration import RegistrationConfig
from convexadam.registration.toml import as_plain

_HEADERS = (".mhd", ".nhdr", ".hdr", ".img")
"""Endings of images in several files of one stem."""

_KNOWN: dict[Path, FileRecord] = {}
"""Of files that this process has read; an atlas is read once."""

_MOST_KNOWN = 1000


@final
@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Size in bytes, modification time and SHA-256 of a file, or of all files of an image."""

    size: int
    mtime_ns: int
    sha256: str


def describe_file(path: Path, before: FileRecord | None = None) -> FileRecord:
    """Return the record of a file, or of a folder or several files that are one image.

    The content is read unless size and time are those of ``before``, or of a file that this process has read.

    Raises
    ------
    OSError
        If it cannot be read.
    FileError
        If it is a pipe or a device.
    """
    parts = _find_parts(path)
    stats = [part.stat() for part in parts]
    size, mtime_ns = sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)
    for known in (before, _KNOWN.get(path)):
        if known is not None and (known.size, known.mtime_ns) == (size, mtime_ns):
            return known
    content = hashlib.sha256()
    for part, found in zip(parts, stats, strict=True):
        if not stat.S_ISREG(found.st_mode):  # a pipe would wait for its writer
            raise FileError(f"{part} must be a file with an image, got a pipe or device; save it as a file first")
        with part.open("rb") as file:
            content.update(hashlib.file_digest(file, "sha256").digest())
    record = FileRecord(size=size, mtime_ns=mtime_ns, sha256=content.hexdigest())
    if len(_KNOWN) >= _MOST_KNOWN:
        _KNOWN.clear()
    _KNOWN[path] = record
    return record


def describe_files(files: Mapping[str, Path], before: Mapping[str, Any] | None = None) -> dict[str, FileRecord]:
    """Return the record of each file; ``before`` are those of an earlier run, as `asdict` returns them."""
    earlier = before or {}
    return {
        name: describe_file(path, FileRecord(**earlier[name]) if name in earlier else None)
        for name, path in files.items()
    }


def make_fingerprint(records: Mapping[str, FileRecord], settings: str) -> str:
    """Return a hash of the content of files, and of settings as `describe_settings` returns them."""
    contents = {name: record.sha256 for name, record in sorted(records.items())}
    return hashlib.sha256(json.dumps([contents, settings]).encode()).hexdigest()


def describe_settings(config: RegistrationConfig, header: str | None) -> str:
    """Return settings as text; components of any class have one."""
    plain = {name: as_plain(part) for name, part in vars(config).items()}
    return json.dumps({**plain, "header": header}, sort_keys=True)


def to_plain(records: Mapping[str, FileRecord]) -> dict[str, dict[str, Any]]:
    """Return records as JSON holds them."""
    return {name: asdict(record) for name, record in records.items()}


def _find_parts(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(part for part in path.rglob("*") if part.is_file())
    if path.suffix in _HEADERS:
        return sorted({path, *path.parent.glob(f"{path.stem}.*")})
    return [path]
