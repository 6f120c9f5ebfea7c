"""All settings of a registration, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from convexadam._arguments import check_arguments
from convexadam._checks import check_axis_weights, check_component, check_flag, check_length, show
from convexadam._typing import AxisWeights
from convexadam.continuous import Compositional, Diffusion, Level, Refinement
from convexadam.discrete import ConvexSearch
from convexadam.errors import ConfigError
from convexadam.features import Extractor, MindSSC, check_extractor
from convexadam.io import atomic_path
from convexadam.io.reading import check_file
from convexadam.kernels import Backend, check_backend
from convexadam.linear import LinearAlignment
from convexadam.registration import toml
from convexadam.registration.foreground import MaskEstimator
from convexadam.registration.landmarks import LandmarkTerm
from convexadam.registration.working_grid import IsotropicGrid, WorkingGrid

_MOST_STAGES = 100
"""Searches, and levels of the refinement."""


@final
@dataclass(frozen=True, kw_only=True)
class RegistrationConfig:
    """The components of a registration, in the order of use; without arguments those of ``preset("default")``.

    (``ConvexSearch()`` and ``Refinement()`` alone have the published settings.)

    Attributes
    ----------
    grid
        Chooses the working grid: `IsotropicGrid`, `NativeGrid`, or any `WorkingGrid`.
    foreground
        Estimates a mask for each image that has none, such as `AutoForeground`; ``None`` uses all of an image.
    linear
        Linear alignment, which keeps the start unless it finds a better one; ``None`` trusts the headers (or the
        initial transform). With neither ``discrete`` nor ``continuous`` it is refined to the resolution of the images,
        and the result is a matrix, as of ``preset("rigid")``.
    features
        What the search compares: a component of `convexadam.features`, or any callable with the signature of
        `Features`.
    discrete
        Global search, or several: each searches around the result of the one before. ``None`` starts the refinement
        from zero.
    continuous
        Local refinement; ``None`` returns the displacement of the search.
    continuous_features
        What the refinement compares; ``None`` for ``features``.
    landmarks
        Weight of landmarks, if `register` is given some; ``None`` refuses them.
    symmetric
        Refine in both directions and make the displacements inverse of each other on each level that is not
        ``forward_only``: more accurate and smoother, for twice the time, and the inverse is estimated as well.
    restrict_deformation
        Weight of motion along each axis of the fixed image, in R, A, S order as all settings per axis: 0 forbids it, 1
        leaves it free, and numbers between stiffen it. ``(0, 1, 0)`` suits the distortion of echo-planar images with
        phase encoding along A. Displacements in voxels of the fixed image are exactly 0 where it is 0 (up to rounding,
        if the axes are oblique), unless an initial transform moves there. The linear alignment only translates and
        shears along the other axes, however small their weight is.
    backend
        Which implementation runs: ``"auto"``, ``"reference"``, ``"cpu"`` or ``"triton"``; ``"auto"`` follows
        `convexadam.use_backend`.

    Raises
    ------
    ConfigError
        If a component is of the wrong type.

    Examples
    --------
    >>> config = RegistrationConfig(discrete=(ConvexSearch(spacing=4), ConvexSearch(spacing=2, radius=2)))
    >>> RegistrationConfig.from_toml(config.to_toml()) == config
    True
    """

    grid: WorkingGrid = field(default_factory=IsotropicGrid)
    foreground: MaskEstimator | None = None
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
    landmarks: LandmarkTerm | None = field(default_factory=LandmarkTerm)
    symmetric: bool = False
    restrict_deformation: AxisWeights = (1.0, 1.0, 1.0)
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        check_backend(self.backend)
        check_extractor(self.features, "features")
        if self.continuous_features is not None:
            check_extractor(self.continuous_features, "continuous_features")
        check_flag(self.symmetric, "symmetric")
        check_axis_weights(self.restrict_deformation, "restrict_deformation")
        none = isinstance(self.discrete, tuple) and not self.discrete
        if none or not all(isinstance(search, ConvexSearch) for search in self.searches):
            raise ConfigError(
                f"discrete must be a ConvexSearch, a tuple of at least one, or None, got {show(self.discrete)}"
            )
        check_length(self.discrete, "discrete", most=_MOST_STAGES)
        if isinstance(self.continuous, Refinement):
            check_length(self.continuous.levels, "continuous.levels", most=_MOST_STAGES)
        for name, kind in (
            ("grid", WorkingGrid),
            ("foreground", MaskEstimator | None),
            ("linear", LinearAlignment | None),
            ("continuous", Refinement | None),
            ("landmarks", LandmarkTerm | None),
        ):
            check_component(getattr(self, name), kind, name)

    def __repr__(self) -> str:
        """Return the closest preset, and what differs from it."""
        from convexadam.registration.differences import describe_config  # presets are made of this class

        return describe_config(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a table of what differs from the closest preset, and of all components."""
        from convexadam.registration.differences import make_config_html

        return make_config_html(self)

    @property
    def is_linear(self) -> bool:
        """Whether the linear alignment is the only stage."""
        return self.linear is not None and not self.searches and self.continuous is None

    @property
    def searches(self) -> tuple[ConvexSearch, ...]:
        """The searches of ``discrete``, as a tuple."""
        if isinstance(self.discrete, tuple):
            return self.discrete
        return () if self.discrete is None else (self.discrete,)

    @property
    def extractors(self) -> tuple[Extractor, ...]:
        """The extractors of the search and, where it has its own, of the refinement."""
        return (self.features,) if self.continuous_features is None else (self.features, self.continuous_features)

    def to_toml(self) -> str:
        """Return the settings as TOML text.

        Raises
        ------
        ConfigError
            If a component is no dataclass that can be imported, such as a function.
        """
        return toml.to_toml(self)

    @classmethod
    def from_toml(cls, text: str) -> RegistrationConfig:
        """Read settings from TOML text.

        Missing sections are those of ``preset("default")``. A section names its ``type``: a component of the library,
        an entry point of another package in the group ``convexadam.components``, or ``module:Class`` (which is
        imported). Missing keys of a section have the defaults of that component, not those of the preset:
        ``[discrete]`` with ``type = "ConvexSearch"`` alone is ``ConvexSearch()``. To change single settings of a
        preset, see `with_settings`.

        Raises
        ------
        ConfigError
            If the text is not TOML, names an unknown key or component, or was written for another schema version.
        """
        return toml.from_toml(cls, text)

    def with_settings(self, *assignments: str) -> RegistrationConfig:
        """Return a copy with single settings changed, each given as a line of TOML.

        Raises
        ------
        ConfigError
            If an assignment is not TOML, names an unknown key or component, or its value is of the wrong type or out
            of range; or if a component is no dataclass that can be imported.

        Examples
        --------
        >>> changed = RegistrationConfig().with_settings("discrete.spacing = 5", "continuous.levels.0.iterations = 40")
        >>> changed.discrete.spacing, changed.continuous.levels[0].iterations
        (5, 40)
        """
        return toml.with_overrides(self, assignments)

    @check_arguments
    def save(self, path: str | Path) -> None:
        """Write the settings to a TOML file (all of it, or nothing).

        Raises
        ------
        ConfigError
            If a component is no dataclass that can be imported, such as a function.
        FileError
            If the folder is missing or the file cannot be written.
        """
        with atomic_path(path) as temporary:
            temporary.write_text(self.to_toml(), encoding="utf-8")

    @classmethod
    @check_arguments
    def load(cls, path: str | Path) -> RegistrationConfig:
        """Read settings from a TOML file, by the rules of `from_toml`.

        Raises
        ------
        FileError
            If the file cannot be read.
        ConfigError
            If it holds no valid settings; the message names the file.
        """
        with check_file(path, "settings in TOML") as source, source.open(encoding="utf-8-sig") as file:
            text = file.read(toml.MOST_CHARACTERS + 1)  # `from_toml` refuses longer ones
        try:
            return cls.from_toml(text)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
