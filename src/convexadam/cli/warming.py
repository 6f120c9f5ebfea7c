"""``convexadam warmup``."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from convexadam.cli.common import say
from convexadam.data import PhantomPair, phantom_pair
from convexadam.geometry import Image
from convexadam.registration import RegistrationConfig, preset, preset_names, register
from convexadam.segmentation import JointFusion, LocalVote, MajorityVote, fuse_labels


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """Compile the kernels of all presets, so that no registration has to: for images of containers and shared installs.

    Those with which points are mapped back and labels of several scans are fused are compiled as well.

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
        start = time.perf_counter()
        pair = phantom_pair((24, 20, 22), displacement_mm=3.0, device=self.device)
        _register(pair, pair.moving)
        _register(pair, Image(-pair.moving.data, pair.moving.grid))  # some settings compare two contrasts otherwise
        _fuse(pair)
        if not self.quiet:
            say(f"kernels of {', '.join(preset_names())} are compiled ({time.perf_counter() - start:.0f} s)")


def _register(pair: PhantomPair, moving: Image) -> None:
    for name in preset_names():
        config = preset(name)
        register(pair.fixed, moving, config, progress=False)
        transform = register(pair.fixed, moving, _toggle_symmetric(config), progress=False).transform
        transform.inverse().warp_points(pair.moving_landmarks_mm, space="mm")


def _fuse(pair: PhantomPair) -> None:
    images, labels = [pair.fixed, pair.moving], [pair.fixed_labels, pair.moving_labels]
    for method in (MajorityVote(), LocalVote(), JointFusion()):
        fuse_labels(pair.fixed, images, labels, method=method)


def _toggle_symmetric(config: RegistrationConfig) -> RegistrationConfig:
    return dataclasses.replace(config, symmetric=not config.symmetric)
