"""Named settings that were measured on real pairs."""

from __future__ import annotations

import difflib

from convexadam.continuous import Refinement
from convexadam.discrete import ConvexSearch
from convexadam.errors import ConfigError
from convexadam.features import MindSSC
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.working_grid import GivenGrid


def preset(name: str = "default") -> RegistrationConfig:
    """Return settings by name.

    ``"default"``
        The best general setting on the real pairs: isotropic grid, wide and fine search, steps that hardly fold. The
        same as ``RegistrationConfig()``.
    ``"published"``
        The defaults of the published ConvexAdam package (radius 1, dilation 2, cells of 6 voxels, 4 cells each way,
        80 Adam steps at spacing 2, weight 1.25), on the fixed image's own grid, without alignment before.

    Raises
    ------
    ConfigError
        If there is no such preset.
    """
    if name == "default":
        return RegistrationConfig()
    if name == "published":
        return RegistrationConfig(
            grid=GivenGrid(),
            linear=None,
            features=MindSSC(radius=1, dilation=2),
            discrete=ConvexSearch(spacing=6, radius=4, subcell=False),
            continuous=Refinement(),  # spacing 2, 80 steps of Adam, weight 1.25
        )
    close = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ConfigError(f"there is no preset {name!r}{hint}; known: {', '.join(PRESETS)}")


PRESETS = ("default", "published")
"""Names that `preset` knows."""
