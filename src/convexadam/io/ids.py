"""Names of pairs and scans, which are those of their folders as well, and the files that patterns match."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from convexadam.errors import InputError

_ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh", ".mha", ".mhd", ".nrrd", ".nhdr", ".hdr", ".img")

_LABELS = re.compile(
    r"(?:^|[._-])(?:labels?|(?:d|prob|a)?seg|segmentation|parcellation|(?:brain)?mask)$", re.IGNORECASE
)
"""End of the name of a label map or a mask, among them those of BIDS."""

_LONGEST = 180
"""Bytes of an id; file systems allow 255, and temporary folders need some of them."""


def check_ids(ids: Sequence[str]) -> None:
    """Raise unless each id can be the name of a folder, and no two would be the same folder on any system.

    Raises
    ------
    InputError
        The message lists all ids that cannot be used.
    """
    problems = [
        f"{name!r} (row {row})"
        for row, name in enumerate(ids, start=1)
        if not re.fullmatch(r"[^\W_][^/\\:*?\"<>|\x00-\x1f]*(?<![. ])", name) or len(name.encode()) > _LONGEST
    ]
    if problems:
        raise InputError(
            "ids must be names of folders: a letter or digit, then no slash, colon, quotation mark, asterisk, question "
            f"mark, bracket or bar, and at most {_LONGEST} bytes; got {', '.join(problems)}"
        )
    counts = Counter(name.casefold() for name in ids)
    if twice := [name for name in ids if counts[name.casefold()] > 1]:
        raise InputError(
            f"ids must be unique, also without regard to case, got {', '.join(map(repr, dict.fromkeys(twice)))} more "
            "than once; change them"
        )


def match_files(patterns: Sequence[str]) -> list[Path]:
    """Return the files that any of the patterns matches, each once, in the order of their names.

    ``~`` is the home folder, and ``**`` stands for any folders.
    """
    matches = (name for one in patterns for name in glob.glob(os.path.expanduser(one), recursive=True))  # noqa: PTH111, PTH207 (a pattern may begin with /)
    return [path for path in sorted({Path(name) for name in matches}) if path.is_file()]


def check_only_images(paths: Sequence[Path], pattern: str) -> None:
    """Raise if a pattern of images names, by their names, label maps or masks beside them."""
    labels = [path.name for path in paths if _LABELS.search(_strip_ending(path))]
    if 0 < len(labels) < len(paths):
        some = ", ".join(labels[:3])
        raise InputError(
            f"{pattern} must name images alone, got {len(labels)} that are label maps or masks by their names "
            f"({some}); choose another pattern, or write a list"
        )


def name_files(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a unique name for each file: its own, preceded by those of as many folders as tell files apart."""
    names: dict[Path, str] = {}
    left, depth = list(dict.fromkeys(paths)), 1
    while left:
        parts = {path: _join_parts(path, depth) for path in left}
        counts = Counter(name.casefold() for name in parts.values())
        taken = {name.casefold() for name in names.values()}
        names |= {p: n for p, n in parts.items() if counts[n.casefold()] == 1 and n.casefold() not in taken}
        if depth > max(len(path.parts) for path in left):
            raise InputError(f"file names must differ by more than their endings, got {', '.join(map(str, left))}")
        left, depth = [path for path in left if path not in names], depth + 1
    return names


def _join_parts(path: Path, depth: int) -> str:
    stem = _strip_ending(path)
    return "_".join([*path.parts[:-1][-(depth - 1) :], stem] if depth > 1 else [stem]).replace("/", "")


def _strip_ending(path: Path) -> str:
    return next((path.name.removesuffix(e) for e in _ENDINGS if path.name.endswith(e)), path.name)
