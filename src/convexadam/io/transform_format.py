"""The description of a file format for transforms, and what its detection may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, final

import torch

from convexadam._checks import show
from convexadam.errors import ConfigError
from convexadam.geometry import Grid, Transform

GridName: TypeAlias = Literal["fixed", "moving"]

_GRID_NAMES = ("fixed", "moving")


@final
@dataclass(frozen=True, kw_only=True)
class NiftiHeader:
    """Shape of a NIfTI file, and the code, name and parameters of its intent.

    Examples
    --------
    >>> from convexadam.io import NiftiHeader
    >>> NiftiHeader(shape=(64, 64, 40, 1, 3), intent=1007).intent == 1007  # a vector at each voxel, as in fields of ITK
    True
    """

    shape: tuple[int, ...]
    intent: int
    name: str = ""
    parameters: tuple[float, float, float] = (0.0, 0.0, 0.0)


@final
@dataclass(frozen=True, kw_only=True)
class FileHeader:
    """The parts of a file by which its format is detected.

    Attributes
    ----------
    path
        The file.
    head
        Its first 1024 bytes, decompressed if the file is gzipped; of the ``.hdr`` file if the path is an ``.img`` file.
    nifti
        Shape and intent code if the file is NIfTI, else ``None``.
    archive
        Names of the members if the file is a zip archive, else ``None``.
    fixed
        The fixed grid if the caller passed one, else ``None``.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam.io import FileHeader
    >>> header = FileHeader(path=Path("warp.tfm"), head=b"#Insight Transform File V1.0")
    >>> header.head.startswith(b"#Insight"), header.nifti is None
    (True, True)
    """

    path: Path
    head: bytes
    nifti: NiftiHeader | None = None
    archive: tuple[str, ...] | None = None
    fixed: Grid | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Possible:
    """Result of a detection: the file may hold this format, and only the caller can know.

    Attributes
    ----------
    content
        What the file would be, with its article: ``"a displacement field of FSL (mm)"``.
    needs
        Grids that reading this content needs; ``None`` takes ``read_needs`` of the format.
    alternative
        What the caller may do instead of naming the format: ``"use Affine(numpy.loadtxt(...))"``.

    Examples
    --------
    >>> from convexadam.io import Possible
    >>> Possible(content="a displacement field of FSL (mm)", needs=("fixed", "moving")).needs
    ('fixed', 'moving')
    """

    content: str
    needs: tuple[GridName, ...] | None = None
    alternative: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Unusable:
    """Result of a detection: the file comes from a program of this format, but cannot be read as it is.

    Attributes
    ----------
    problem
        What the file holds, as a verb phrase: ``"holds spline coefficients of FSL"``.
    advice
        What to do: ``"convert it with fnirtfileutils --out"``.

    Examples
    --------
    >>> from convexadam.io import Unusable
    >>> Unusable(problem="holds spline coefficients of FSL", advice="convert it with fnirtfileutils --out").advice
    'convert it with fnirtfileutils --out'
    """

    problem: str
    advice: str


DetectionResult: TypeAlias = bool | Possible | Unusable


class ReadTransform(Protocol):
    """Reads a file. ``fixed`` and ``moving`` are set if the format needs them, or if the caller passed them."""

    def __call__(
        self, path: Path, /, *, fixed: Grid | None, moving: Grid | None, device: torch.device | str | None
    ) -> Transform:
        """Return the transform from fixed to moving space, in mm RAS+."""


class WriteTransform(Protocol):
    """Writes a file. ``fixed`` and ``moving`` are set if the format needs them, or if the caller passed them."""

    def __call__(self, transform: Transform, path: Path, /, *, fixed: Grid | None, moving: Grid | None) -> None:
        """Write the transform from fixed to moving space."""


@final
@dataclass(frozen=True, kw_only=True)
class TransformFormat:
    """A file format for transforms. Reading, writing, detection, the command line and the docs are made from it.

    Attributes
    ----------
    name
        The value of ``format=`` and of ``--to`` and ``--from``, without spaces.
    convention
        Unit and frame of the numbers in the file: ``"mm LPS, as in ITK, ANTs and Slicer"``.
    contents
        What the file holds, for the documentation.
    suffixes
        Endings of file names that can be written, each with its dot.
    default_suffixes
        Those of ``suffixes`` for which ``write_transform`` chooses this format if none is named.
    read_needs, write_needs
        Grids without which no file of this format can be read or written. They are checked before ``read`` and
        ``write`` are called.
    detect
        Tells by the header of a file whether it has this format: ``True``, ``False``, `Possible` or `Unusable`.
        ``None`` if the format can only be named.
    read, write
        ``None`` if the format can only be written, or only be read. ``write`` should leave an old file as it is if
        it fails (see `atomic_path`).

    Raises
    ------
    ConfigError
        If the name is empty or holds spaces, a suffix has no dot, or a grid has another name than these two.

    Examples
    --------
    >>> from convexadam.geometry import Affine
    >>> def read_matrix(path, *, fixed, moving, device):
    ...     return Affine([[float(v) for v in line.split()] for line in path.read_text().splitlines()])
    >>> TransformFormat(
    ...     name="plain", convention="mm RAS+", contents="4 x 4 numbers", suffixes=(".plain",), read=read_matrix
    ... ).write is None
    True
    """

    name: str
    convention: str
    contents: str
    suffixes: tuple[str, ...]
    default_suffixes: tuple[str, ...] = ()
    read_needs: tuple[GridName, ...] = ()
    write_needs: tuple[GridName, ...] = ()
    detect: Callable[[FileHeader], DetectionResult] | None = None
    read: ReadTransform | None = None
    write: WriteTransform | None = None

    def __post_init__(self) -> None:
        if not self.name or self.name.split() != [self.name]:
            raise ConfigError(f"name must be one word, got {show(self.name)}; choose a name such as 'elastix'")
        if not self.suffixes or not all(suffix.startswith(".") for suffix in self.suffixes):
            raise ConfigError(f"suffixes must be endings with their dot, got {show(self.suffixes)}; write ('.tfm',)")
        if extra := [suffix for suffix in self.default_suffixes if suffix not in self.suffixes]:
            raise ConfigError(f"default_suffixes must be among suffixes, got {show(extra[0])}; add it to suffixes")
        for field in ("read_needs", "write_needs"):
            if extra := [name for name in getattr(self, field) if name not in _GRID_NAMES]:
                raise ConfigError(f"{field} must hold 'fixed' or 'moving' only, got {show(extra[0])}; correct the name")
