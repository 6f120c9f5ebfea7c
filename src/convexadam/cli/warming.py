"""``convexadam warmup``."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from convexadam.cli.common import say
from convexadam.data import phantom_pair
from convexadam.registration import RegistrationConfig, preset, preset_names, register


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """Compile the kernels of all presets, so that no registration has to: for images of containers and shared installs.

    Attributes
    ----------
    device
        Device to compile for, such as cpu or cuda:0.
    quiet
        Print nothing.
    """

    device: str = "cpu"
    quiet: bool = False

    def run(self) -> None:
        """Run the command."""
        pair = phantom_pair((24, 20, 22), displacement_mm=3.0, device=self.device)
        start = time.perf_counter()
        for name in preset_names():
            config = preset(name)
            register(pair.fixed, pair.moving, config, progress=False)
            register(pair.fixed, pair.moving, _toggle_symmetric(config), progress=False).transform.inverse()
        if not self.quiet:
            say(f"kernels of {', '.join(preset_names())} are compiled ({time.perf_counter() - start:.0f} s)")


def _toggle_symmetric(config: RegistrationConfig) -> RegistrationConfig:
    return dataclasses.replace(config, symmetric=not config.symmetric)
