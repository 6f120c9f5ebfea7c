"""``convexadam config``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from convexadam.cli.common import Preset
from convexadam.registration import preset


@dataclass(frozen=True, kw_only=True)
class Config:
    """Print the settings of a preset as TOML, to be changed and passed to --config of ``convexadam register``.

    For example: convexadam config --preset best > settings.toml

    Attributes
    ----------
    smoothness
        Factor of all smoothing: above 1 for smoother fields.
    set
        Change one: discrete.spacing=5 (repeatable).
    """

    preset: Preset = "default"
    smoothness: Annotated[float, tyro.conf.arg(metavar="FACTOR", help_behavior_hint="")] = 1.0
    set: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="TOML", help_behavior_hint="")
    ] = ()

    def run(self) -> None:
        """Run the command."""
        sys.stdout.write(preset(self.preset, smoothness=self.smoothness).with_settings(*self.set).to_toml())
