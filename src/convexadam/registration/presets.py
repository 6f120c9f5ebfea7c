"""Named settings that were measured on real pairs, and those that other packages add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, final

from convexadam._arguments import check_arguments
from convexadam._checks import check_number, show
from convexadam.continuous import (
    AdaptiveSmoothing,
    Compositional,
    DifferentContrasts,
    Diffusion,
    GaussianSmoothing,
    GaussNewton,
    JointSsd,
    Level,
    Part,
    Refinement,
    TotalSmoothing,
)
from convexadam.discrete import ConvexSearch
from convexadam.errors import ConfigError, did_you_mean
from convexadam.features import Concat, Intensity, MindSSC
from convexadam.linear import LinearAlignment, Model
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.working_grid import IsotropicGrid, NativeGrid

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "convexadam.presets"
"""Group of entry points; each names a function without arguments that returns a `RegistrationConfig`."""


@final
@dataclass(frozen=True, kw_only=True)
class Preset:
    """Named settings.

    Attributes
    ----------
    name
        In Python, on the command line and in files.
    summary
        What it is for, in one sentence.
    make
        Returns the settings.

    Examples
    --------
    >>> from convexadam.registration import preset_table
    >>> preset_table()["default"].name
    'default'
    """

    name: str
    summary: str
    make: Callable[[], RegistrationConfig]


def preset(name: str = "default", *, smoothness: float = 1.0) -> RegistrationConfig:
    """Return settings by name: those of the library, of other packages (entry points), or of `register_preset`.

    ``"default"`` is the same as ``RegistrationConfig()``. `preset_table` says what each is for.

    Parameters
    ----------
    name
        Of the preset.
    smoothness
        Factor of the standard deviation of every `GaussianSmoothing` and `AdaptiveSmoothing` of the refinement, whose
        square is that of the weight of `Diffusion`: above 1 for smoother fields, below 1 for rougher ones.

    Raises
    ------
    ConfigError
        If there is no such preset, another package's cannot be loaded, or ``smoothness`` is not positive.

    Examples
    --------
    >>> preset("published").discrete.spacing
    6
    """
    table = preset_table()
    if not isinstance(name, str) or name not in table:
        found = f"{show(name)}{did_you_mean(name, table)}"
        raise ConfigError(f"preset must be one of {', '.join(table)}, got {found}")
    check_number(smoothness, "smoothness", above=True)
    config = table[name].make()
    return config if smoothness == 1 else replace(config, continuous=_scale_smoothing(config.continuous, smoothness))


def parse_config(config: RegistrationConfig | str | None, default: str = "default") -> RegistrationConfig:
    """Return settings, or those of a preset by its name; ``None`` is the default.

    Raises
    ------
    ConfigError
        If they are something else, or there is no such preset.
    """
    if config is None or isinstance(config, str):
        return preset(default if config is None else config)
    if not isinstance(config, RegistrationConfig):
        raise ConfigError(
            f"config must be a RegistrationConfig or the name of a preset, got {show(config)}; pass 'default', say"
        )
    return config


def _scale_smoothing(value: Any, factor: float) -> Any:
    """Return a component with the smoothing of all its parts multiplied."""
    if isinstance(value, GaussianSmoothing | AdaptiveSmoothing):
        return replace(value, sigma=factor * value.sigma)
    if isinstance(value, Diffusion):
        return replace(value, weight=factor**2 * value.weight)
    if isinstance(value, tuple):
        return tuple(_scale_smoothing(part, factor) for part in value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return replace(value, **{f.name: _scale_smoothing(getattr(value, f.name), factor) for f in fields(value) if f.init})


def preset_names() -> tuple[str, ...]:
    """Return the names that `preset` knows.

    Examples
    --------
    >>> from convexadam.registration import preset_names
    >>> {"default", "best", "rigid"} <= set(preset_names())
    True
    """
    return tuple(preset_table())


def preset_table() -> dict[str, Preset]:
    """Return all presets by name; the command line, documentation and errors are made from it.

    Examples
    --------
    >>> from convexadam.registration import preset, preset_table
    >>> preset_table()["best"].make() == preset("best")
    True
    """
    return {entry.name: entry for entry in (*_BUILT_IN, *_discover(), *_registered.values())}


@check_arguments
def register_preset(name: str, make: Callable[[], RegistrationConfig], *, summary: str) -> None:
    """Add a preset for this process; packages add theirs by an entry point in the group ``convexadam.presets``.

    Raises
    ------
    ConfigError
        If the name is taken.

    Examples
    --------
    >>> from convexadam import IsotropicGrid, RegistrationConfig, preset
    >>> from convexadam.registration import register_preset
    >>> register_preset("coarse", lambda: RegistrationConfig(grid=IsotropicGrid(spacing_mm=4.0)), summary="4 mm voxels")
    >>> preset("coarse").grid.spacing_mm
    4.0
    """
    if name in preset_table():
        raise ConfigError(f"name must be new, got {show(name)}, which is a preset already; choose another name")
    _registered[name] = Preset(name=name, summary=summary, make=make)


_registered: dict[str, Preset] = {}


@cache
def _discover() -> tuple[Preset, ...]:
    """Presets of other packages; each is loaded when it is asked for."""
    from importlib import metadata  # 45 ms, and nothing else needs it

    return tuple(
        Preset(name=point.name, summary=f"From {point.value}.", make=partial(_load, point))
        for point in metadata.entry_points(group=ENTRY_POINTS)
    )


def _load(point: EntryPoint) -> RegistrationConfig:
    try:
        config = point.load()()
    except Exception as error:  # whatever another package raises
        raise ConfigError(
            f"preset {point.name!r} must load from {point.value}, got {show(error)}; reinstall it"
        ) from error
    if not isinstance(config, RegistrationConfig):
        raise ConfigError(f"preset {point.name!r} must return a RegistrationConfig, got {show(config)}")
    return config


def _make_level(
    spacing: int, iterations: int, update: float, total: TotalSmoothing, *, forward_only: bool = False
) -> Level:
    return Level(
        spacing=spacing,
        iterations=iterations,
        update_smoothing=GaussianSmoothing(sigma=update),
        total_smoothing=total,
        forward_only=forward_only,
    )


def _make_best() -> RegistrationConfig:
    # Intensities locate boundaries, descriptors details, and local windows take out what varies slowly. Two contrasts
    # leave the descriptors alone, whose noise takes wider windows, both directions, and hardly any full resolution. One
    # contrast has edges that can be trusted, which total smoothing spares.
    return RegistrationConfig(
        grid=IsotropicGrid(max_anisotropy=2.0),
        discrete=(
            ConvexSearch(spacing=4, radius=5, window="ball", inverse_consistency=5),
            ConvexSearch(spacing=2, radius=2, window="ball", inverse_consistency=5, coupling_weights=(0.01, 0.1, 1.0)),
        ),
        symmetric=True,
        continuous_features=Concat(parts=(Intensity(), MindSSC())),
        continuous=Refinement(
            levels=(
                _make_level(2, 8, 1.5, AdaptiveSmoothing(sigma=0.65), forward_only=True),
                _make_level(1, 6, 1.3, AdaptiveSmoothing(sigma=0.9), forward_only=True),
            ),
            similarity=JointSsd(
                parts=(
                    Part(channels=1, weight=80.0, by_distance=True),
                    Part(channels=1, weight=75.0, by_distance=True, radius=2, variance_floor=0.01),
                    Part(channels=12, first=1, radius=2, variance_floor=0.3),
                ),
                robust_scale=40.0,
            ),
            regularisers=(),
            optimiser=GaussNewton(momentum=0.5),
            parametrisation=Compositional(),
            inverse_consistency=5,
            different_contrasts=DifferentContrasts(
                levels=(
                    _make_level(2, 24, 3.0, GaussianSmoothing(sigma=0.7)),
                    _make_level(1, 2, 3.0, GaussianSmoothing(sigma=1.0), forward_only=True),
                ),
                similarity=JointSsd(parts=(Part(channels=12, first=1, radius=2),), robust_scale=1.0),
            ),
        ),
    )


def _make_published() -> RegistrationConfig:
    return RegistrationConfig(
        grid=NativeGrid(),
        linear=None,
        features=MindSSC(radius=1, dilation=2),
        discrete=ConvexSearch(spacing=6, radius=4, parabolic_fit=False),
        continuous=Refinement(),  # spacing 2, 80 iterations of Adam, weight 1.25
    )


def _make_linear(model: Model) -> RegistrationConfig:
    start = LinearAlignment(model=model, voxels_per_level=(16_000,))  # what it finds is refined to the images' voxels
    return RegistrationConfig(linear=start, discrete=None, continuous=None, landmarks=None)


_BUILT_IN = (
    Preset(
        name="default",
        summary="Fast, for any contrasts: isotropic grid, wide and fine search, updates that hardly fold.",
        make=RegistrationConfig,
    ),
    Preset(
        name="best",
        summary="For any images, several times slower: it finds out whether both have one contrast, and compares "
        "intensities and descriptors, or descriptors alone.",
        make=_make_best,
    ),
    Preset(
        name="published",
        summary="The defaults of the published ConvexAdam package (radius 1, dilation 2, spacing 6, radius 4, 80 Adam "
        "iterations at spacing 2, weight 1.25), on the native grid, without linear alignment.",
        make=_make_published,
    ),
    Preset(
        name="rigid",
        summary="Rotation and translation alone, to a fraction of a voxel, for any contrasts.",
        make=partial(_make_linear, "rigid"),
    ),
    Preset(
        name="similarity",
        summary="Rotation, translation and one scale alone, to a fraction of a voxel.",
        make=partial(_make_linear, "similarity"),
    ),
    Preset(
        name="affine",
        summary="Affine transform alone, to a fraction of a voxel.",
        make=partial(_make_linear, "affine"),
    ),
)
