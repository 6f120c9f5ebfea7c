"""Named settings that were measured on real pairs."""

from __future__ import annotations

from collections.abc import Callable

from convexadam.continuous import (
    Compositional,
    GaussianSmoothing,
    Level,
    LevenbergMarquardt,
    Lncc,
    Refinement,
    Ssd,
    WeightedSum,
)
from convexadam.discrete import ConvexSearch
from convexadam.errors import ConfigError, did_you_mean
from convexadam.features import Concat, Intensity, MindSSC
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.working_grid import GivenGrid, IsotropicGrid


def preset(name: str = "default") -> RegistrationConfig:
    """Return settings by name.

    ``"default"``
        Fast, for any contrasts: isotropic grid, wide and fine search, steps that hardly fold. The same as
        ``RegistrationConfig()``.
    ``"accurate"``
        For any contrasts, several times slower: a second search where the first ended, and both directions.
    ``"same-contrast"``
        For two images whose intensities mean the same, such as two T1 brains: intensities are compared beside
        descriptors, in the end at full resolution.
    ``"published"``
        The defaults of the published ConvexAdam package (radius 1, dilation 2, cells of 6 voxels, 4 cells each way,
        80 Adam steps at spacing 2, weight 1.25), on the fixed image's own grid, without alignment before.

    Raises
    ------
    ConfigError
        If there is no such preset.
    """
    if name in _MADE:
        return _MADE[name]()
    raise ConfigError(f"there is no preset {name!r}{did_you_mean(name, PRESETS)}; known: {', '.join(PRESETS)}")


_TWO_SEARCHES = (ConvexSearch(spacing=4, radius=5, window="ball"), ConvexSearch(spacing=2, radius=3, window="ball"))


def _accurate() -> RegistrationConfig:
    # Wide windows with little smoothing of the field suit most; at full resolution a lung gains 0.15 mm, a liver 0.06.
    return RegistrationConfig(
        grid=IsotropicGrid(keep=2.0),
        discrete=_TWO_SEARCHES,
        symmetric=True,
        continuous=Refinement(
            levels=(
                Level(
                    spacing=2,
                    iterations=12,
                    smoothing=GaussianSmoothing(sigma=2.5),
                    field_smoothing=GaussianSmoothing(sigma=0.5),
                ),
                Level(spacing=1, iterations=6, smoothing=GaussianSmoothing(sigma=2.2)),
            ),
            similarity=Ssd(robustness=1.0),
            regularisers=(),
            optimiser=LevenbergMarquardt(),
            parametrisation=Compositional(),
        ),
    )


def _same_contrast() -> RegistrationConfig:
    # Intensities place boundaries; descriptors hold where brightness changes (lungs, coils). The last level is one-way:
    # where both directions almost fold, their mean would.
    return RegistrationConfig(
        grid=IsotropicGrid(keep=2.0),
        discrete=_TWO_SEARCHES,
        symmetric=True,
        continuous_features=Concat(parts=(Intensity(), Intensity(), MindSSC())),
        continuous=Refinement(
            levels=(
                Level(spacing=2, iterations=20, field_smoothing=GaussianSmoothing(sigma=0.6)),
                Level(spacing=1, iterations=8, smoothing=GaussianSmoothing(sigma=0.7), one_way=True),
            ),
            similarity=WeightedSum(
                terms=(Lncc(), Ssd(), Ssd(robustness=1.0)), weights=(1.0, 1.0, 0.5), channels=(1, 1, 12)
            ),
            regularisers=(),
            optimiser=LevenbergMarquardt(damping=2.0),
            parametrisation=Compositional(),
        ),
    )


def _published() -> RegistrationConfig:
    return RegistrationConfig(
        grid=GivenGrid(),
        linear=None,
        features=MindSSC(radius=1, dilation=2),
        discrete=ConvexSearch(spacing=6, radius=4, subcell=False),
        continuous=Refinement(),  # spacing 2, 80 steps of Adam, weight 1.25
    )


_MADE: dict[str, Callable[[], RegistrationConfig]] = {
    "default": RegistrationConfig,
    "accurate": _accurate,
    "same-contrast": _same_contrast,
    "published": _published,
}

PRESETS = tuple(_MADE)
"""Names that `preset` knows."""
