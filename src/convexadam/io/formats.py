"""The table of file formats for transforms: those of this package, of other packages, and of the running script."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

from convexadam._arguments import check_arguments
from convexadam._checks import show
from convexadam.errors import ConfigError, FileError, did_you_mean
from convexadam.io.builtin_formats import BUILTIN_FORMATS
from convexadam.io.reading import StrPath
from convexadam.io.transform_format import TransformFormat

ENTRY_POINT_GROUP = "convexadam.transform_formats"
"""Group of entry points by which other packages add formats; each names a `TransformFormat`."""

_REGISTERED: dict[str, TransformFormat] = {}


def transform_formats() -> tuple[TransformFormat, ...]:
    """Return all formats: built-in ones, those of installed packages, and registered ones, in this order.

    Examples
    --------
    >>> from convexadam.io import transform_formats
    >>> {"itk", "learn2reg", "fsl"} <= {one.name for one in transform_formats()}
    True
    """
    return (*BUILTIN_FORMATS, *_load_entry_points(), *_REGISTERED.values())


@check_arguments
def get_format(name: str) -> TransformFormat:
    """Return the format of a name.

    Raises
    ------
    ConfigError
        If there is none of that name; the message lists all names.

    Examples
    --------
    >>> from convexadam.io import get_format
    >>> get_format("itk").name
    'itk'
    """
    known = {item.name: item for item in transform_formats()}
    if name not in known:
        raise ConfigError(
            f"format must be one of {', '.join(known)}, got {show(name)}{did_you_mean(str(name), known)}; "
            "choose one of them, or add yours with convexadam.io.register_format"
        )
    return known[name]


@check_arguments
def register_format(transform_format: TransformFormat) -> None:
    """Add a format for the rest of the running program.

    A package adds its formats by entry points of the group ``convexadam.transform_formats`` instead::

        [project.entry-points."convexadam.transform_formats"]
        elastix = "my_package.formats:ELASTIX"

    Raises
    ------
    ConfigError
        If it is not a `TransformFormat`, its name exists, or another format is the default of one of its suffixes.

    Examples
    --------
    >>> from convexadam.io import TransformFormat, get_format, register_format, unregister_format
    >>> plain = TransformFormat(name="plain", convention="mm RAS+", contents="4 x 4 numbers", suffixes=(".plain",))
    >>> register_format(plain)
    >>> get_format("plain").convention
    'mm RAS+'
    >>> unregister_format("plain")
    """
    if not isinstance(transform_format, TransformFormat):
        raise ConfigError(
            f"transform_format must be a TransformFormat, got {show(transform_format)}; build one, see its docstring"
        )
    if problem := _find_conflict(transform_format, transform_formats()):
        raise ConfigError(problem)
    _REGISTERED[transform_format.name] = transform_format


@check_arguments
def unregister_format(name: str) -> None:
    """Remove a format that `register_format` added.

    Raises
    ------
    ConfigError
        If no format of that name was registered.

    Examples
    --------
    >>> from convexadam.io import TransformFormat, register_format, transform_formats, unregister_format
    >>> plain = TransformFormat(name="plain", convention="mm RAS+", contents="4 x 4 numbers", suffixes=(".plain",))
    >>> register_format(plain)
    >>> unregister_format("plain")
    >>> "plain" in {one.name for one in transform_formats()}
    False
    """
    if name not in _REGISTERED:
        registered = ", ".join(_REGISTERED) or "none"
        raise ConfigError(f"name must be that of a registered format ({registered}), got {show(name)}; check the name")
    del _REGISTERED[name]


def choose_format(path: StrPath) -> TransformFormat:
    """Return the format that has the ending of a file name as its default.

    Raises
    ------
    FileError
        If no format has it.
    """
    name = Path(path).name
    defaults = {suffix: item for item in transform_formats() for suffix in item.default_suffixes}
    for suffix in sorted(defaults, key=len, reverse=True):  # the longest that fits: .nii.gz before .gz
        if name.endswith(suffix):
            return defaults[suffix]
    raise FileError(
        f"cannot choose a transform format for {path}: the name must end in one of {', '.join(defaults)}, "
        f"got {show(name)}; change the ending, or pass format="
    )


def formats_markdown() -> str:
    """Return the table of formats in Markdown, one row for each.

    Examples
    --------
    >>> from convexadam.io import formats_markdown
    >>> formats_markdown().startswith("| format | file names |")
    True
    """
    header = ("format", "file names", "contents", "convention", "needs to read", "needs to write")
    rows = [header, ("---",) * len(header)]
    for item in transform_formats():
        suffixes = [
            f"`*{suffix}`" + ("" if suffix in item.default_suffixes else " (if named)") for suffix in item.suffixes
        ]
        read = _join_needs(item.read_needs) if item.read else "cannot be read"
        write = _join_needs(item.write_needs) if item.write else "cannot be written"
        rows.append((f'`"{item.name}"`', ", ".join(suffixes), item.contents, item.convention, read, write))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _join_needs(needs: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}=`" for name in needs) or "nothing"


def _find_conflict(candidate: TransformFormat, others: tuple[TransformFormat, ...]) -> str | None:
    """Say why a format cannot be added to others; ``None`` if it can."""
    for item in others:
        if item.name == candidate.name:
            return f"name of a format must be new, got {show(candidate.name)}, which exists; choose another name"
        if shared := set(item.default_suffixes) & set(candidate.default_suffixes):
            return (
                f"default_suffixes of format {candidate.name!r} must be free, got {show(min(shared))}, the default of "
                f"{item.name!r}; remove it from default_suffixes"
            )
    return None


@functools.cache
def _load_entry_points() -> tuple[TransformFormat, ...]:
    """Load the formats of installed packages; one that cannot be used is left out with a warning."""
    from importlib import metadata  # 45 ms, and nothing else needs it

    loaded: list[TransformFormat] = []
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            item = entry.load()
        except Exception as error:  # the code of another package may fail in any way
            problem: str | None = f"cannot be loaded ({type(error).__name__}: {error})"
        else:
            valid = isinstance(item, TransformFormat)
            problem = _find_conflict(item, (*BUILTIN_FORMATS, *loaded)) if valid else "must be a TransformFormat"
        if problem is None:
            loaded.append(item)
        else:
            warnings.warn(f"left out the transform format {entry.value} of an entry point: {problem}", stacklevel=3)
    return tuple(loaded)
