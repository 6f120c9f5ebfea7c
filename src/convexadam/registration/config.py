"""All settings of a registration, as one value."""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from convexadam.continuous import Bending, Compositional, Diffusion, Level, Refinement, VolumePreserving
from convexadam.discrete import ConvexSearch
from convexadam.errors import ConfigError, FileError
from convexadam.features import Extractor, MindSSC, check_no_class, is_extractor
from convexadam.io import atomic_path
from convexadam.kernels import Backend, checked_backend
from convexadam.linear import LinearAlignment
from convexadam.registration import saved
from convexadam.registration.foreground import AutoForeground
from convexadam.registration.guide import LandmarkGuide
from convexadam.registration.working_grid import GivenGrid, IsotropicGrid, WorkingGrid

_NO_FEATURES = (
    *(GivenGrid, IsotropicGrid, AutoForeground, LinearAlignment, ConvexSearch, Refinement),
    *(Diffusion, Bending, VolumePreserving),
)
"""Components that can be called, but not with an image."""


@final
@dataclass(frozen=True, kw_only=True)
class RegistrationConfig:
    """The components of a registration, in the order of use; without arguments those of ``preset("default")``.

    They are other settings than those of the components alone: ``ConvexSearch()`` and ``Refinement()`` have the
    published ones.

    Attributes
    ----------
    grid
        Where the work is done: `IsotropicGrid` or `GivenGrid`.
    foreground
        Makes a mask for each image that comes without one; ``None``: all of an image is evidence. (On the pairs
        of ``benchmarks/pairs`` that is as good or better, but for one; see `AutoForeground`.)
    linear
        Alignment before anything else, which keeps the start where it finds nothing better; ``None`` trusts the headers
        (or the initial transform).
    features
        What is compared: a component of `convexadam.features`, or a function of yours (see `Features`).
    discrete
        Global search, or several in a row, each of which goes on from what the one before found: the largest motion
        first. ``None`` starts the refinement from zero.
    continuous
        Local refinement; ``None`` returns the field of the search.
    continuous_features
        What the refinement compares; ``None`` for ``features``.
    landmarks
        How much landmarks have to say, where `register` is given some; ``None`` refuses them.
    symmetric
        Refine in both directions and make the two fields each other's inverse on each level that is not ``one_way``:
        more accurate and smoother, for twice the time, and the result has an ``inverse``.
    backend
        Which implementation runs: ``"auto"``, ``"reference"``, ``"cpu"`` or ``"triton"``; see `convexadam.use_backend`,
        which ``"auto"`` leaves the choice to.

    Raises
    ------
    ConfigError
        If one of them is no such component, or ``features`` is a class instead of an extractor.

    Examples
    --------
    >>> config = RegistrationConfig(discrete=(ConvexSearch(spacing=4), ConvexSearch(spacing=2, radius=2)))
    >>> RegistrationConfig.from_toml(config.to_toml()) == config
    True
    """

    grid: WorkingGrid = field(default_factory=IsotropicGrid)
    foreground: AutoForeground | None = None
    linear: LinearAlignment | None = field(default_factory=LinearAlignment)
    features: Extractor = field(default_factory=MindSSC)
    discrete: ConvexSearch | tuple[ConvexSearch, ...] | None = field(
        default_factory=lambda: ConvexSearch(spacing=4, radius=5, window="ball")
    )
    continuous: Refinement | None = field(
        default_factory=lambda: Refinement(
            levels=(Level(spacing=2, iterations=50),),
            regularisers=(Diffusion(weight=0.2),),
            parametrisation=Compositional(),
        )
    )
    continuous_features: Extractor | None = None
    landmarks: LandmarkGuide | None = field(default_factory=LandmarkGuide)
    symmetric: bool = False
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        checked_backend(self.backend)
        for name, extractor in (("features", self.features), ("continuous_features", self.continuous_features)):
            if extractor is None and name != "features":
                continue
            check_no_class(extractor, name)
            if not is_extractor(extractor) or isinstance(extractor, _NO_FEATURES):
                raise ConfigError(f"{name} is a component or a function of an image, but {extractor!r} came")
        if not isinstance(self.symmetric, bool):
            raise ConfigError(f"symmetric is True or False, but {self.symmetric!r} came")
        if self.discrete == () or not all(isinstance(search, ConvexSearch) for search in self.searches):
            raise ConfigError(
                f"discrete is a ConvexSearch, a tuple of at least one, or None, but {self.discrete!r} came"
            )
        for name, allowed in (
            ("grid", (GivenGrid, IsotropicGrid)),
            ("foreground", (AutoForeground, types.NoneType)),
            ("linear", (LinearAlignment, types.NoneType)),
            ("continuous", (Refinement, types.NoneType)),
            ("landmarks", (LandmarkGuide, types.NoneType)),
        ):
            if not isinstance(getattr(self, name), allowed):
                names = " or ".join("None" if a is types.NoneType else a.__name__ for a in allowed)
                raise ConfigError(f"{name} is {names}, but {getattr(self, name)!r} came")

    @property
    def searches(self) -> tuple[ConvexSearch, ...]:
        """The searches of ``discrete``, in a row."""
        if isinstance(self.discrete, tuple):
            return self.discrete
        return () if self.discrete is None else (self.discrete,)

    @property
    def compared(self) -> tuple[Extractor, ...]:
        """The extractors of the search and, where it has its own, of the refinement."""
        return (self.features,) if self.continuous_features is None else (self.features, self.continuous_features)

    def to_toml(self) -> str:
        """Return the settings as TOML text.

        Raises
        ------
        ConfigError
            If ``features`` is a function of yours: code cannot be saved, only components can.
        """
        return saved.to_toml(self)

    @classmethod
    def from_toml(cls, text: str) -> RegistrationConfig:
        """Read settings from TOML text.

        A section that is left out is that of ``preset("default")``. A section that is there names its ``type``, and
        what it leaves out has the default of that component, not that of the preset: ``[discrete]`` with
        ``type = "ConvexSearch"`` alone is ``ConvexSearch()``. To change single settings of a preset, see
        `with_settings`.

        Raises
        ------
        ConfigError
            If the text is no TOML, names an unknown key or component (the message has the nearest known one), or
            was written for another schema version.
        """
        return saved.from_toml(cls, text)

    def with_settings(self, *assignments: str) -> RegistrationConfig:
        """Return a copy with single settings changed, each a line of TOML.

        Raises
        ------
        ConfigError
            If an assignment is no TOML, names an unknown key or component, or its value is of the wrong type or out of
            range; or if ``features`` is a function of yours, which cannot be written as TOML.

        Examples
        --------
        >>> changed = RegistrationConfig().with_settings("discrete.spacing = 5", "continuous.levels.0.iterations = 40")
        >>> changed.discrete.spacing, changed.continuous.levels[0].iterations
        (5, 40)
        """
        return saved.with_overrides(self, assignments)

    def save(self, path: str | Path) -> None:
        """Write the settings to a TOML file (all of it, or nothing).

        Raises
        ------
        ConfigError
            If ``features`` is a function of yours: code cannot be saved, only components can.
        FileError
            If the folder is missing or the file cannot be written.
        """
        with atomic_path(path) as temporary:
            temporary.write_text(self.to_toml(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> RegistrationConfig:
        """Read settings from a TOML file, by the rules of `from_toml`.

        Raises
        ------
        FileError
            If the file cannot be read.
        ConfigError
            If it holds no such settings; the message names the file.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"cannot read the settings file {path}: {error}") from error
        try:
            return cls.from_toml(text)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
