"""Random textures of the anatomy, which deform with it, and noise of the scanner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels.smooth import along_axes, smoothing_matrix
from convexadam.kernels.warp import sample_linear

_REACH_MM = (216.0, 168.0, 168.0)
"""Half of the extent of the lattices, slightly more than the torso."""
_GRAIN_STEP_MM = 3.0
_CLOUD_STEP_MM = 6.0
_BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Texture:
    """Smooth noise of mean 0 and standard deviation 1 at anatomical coordinates.

    Attributes
    ----------
    grain
        ``[1, a, b, d]`` lattice of 3 mm steps: variations of about 4 mm.
    clouds
        ``[2, a, b, d]`` lattice of 6 mm steps: two independent noises with variations of about 2 cm.
    """

    grain: Float[Tensor, "1 a b d"]
    clouds: Float[Tensor, "2 e f g"]

    @classmethod
    def draw(cls, generator: torch.Generator, device: torch.device) -> Texture:
        """Draw both lattices on the generator's device and put them on ``device``."""
        grain = _draw_lattice(1, _GRAIN_STEP_MM, (1.0, 2.0, 1.0), generator)
        clouds = _draw_lattice(2, _CLOUD_STEP_MM, _BINOMIAL, generator)
        return cls(grain=grain.to(device), clouds=clouds.to(device))

    def __call__(self, coords_mm: Float[Tensor, "3 i j k"]) -> Float[Tensor, "3 i j k"]:
        """Sample grain and the two clouds at anatomical coordinates, stacked."""
        sampled = [
            sample_linear(lattice, torch.stack([(c + m) / step for c, m in zip(coords_mm, _REACH_MM, strict=True)]))
            for lattice, step in ((self.grain, _GRAIN_STEP_MM), (self.clouds, _CLOUD_STEP_MM))
        ]
        return torch.cat(sampled)


def _draw_lattice(channels: int, step_mm: float, taps: tuple[float, ...], generator: torch.Generator) -> Channels:
    i, j, k = (round(2 * reach / step_mm) + 1 for reach in _REACH_MM)
    noise = torch.randn((channels, i, j, k), generator=generator, device=generator.device)
    matrices = (
        smoothing_matrix(taps, i, like=noise),
        smoothing_matrix(taps, j, like=noise),
        smoothing_matrix(taps, k, like=noise),
    )
    smooth = along_axes(noise, matrices)
    return smooth / smooth.std(dim=(1, 2, 3), keepdim=True)


def bias_field(shape: Triple, strength: float, generator: torch.Generator, device: torch.device) -> Volume:
    """Draw a smooth positive factor near 1, like the receive bias field of MR images.

    Parameters
    ----------
    shape
        Voxels of the volume.
    strength
        Largest logarithm of the factor, roughly.
    generator
        On the CPU; two numbers for each axis are drawn.
    device
        Device of the factor.
    """
    logarithm = torch.zeros(shape, device=device)
    for axis, size in enumerate(shape):
        phase, turns = torch.rand(2, generator=generator, dtype=torch.float64, device=generator.device).tolist()
        at = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
        wave = torch.sin(2 * math.pi * (phase + (0.4 + 0.4 * turns) * at))
        logarithm += wave.reshape([-1 if a == axis else 1 for a in range(3)])
    return (logarithm * (strength / 3)).exp_()


def gaussian_noise(values: Volume, sigma: float, generator: torch.Generator) -> Volume:
    """Add white Gaussian noise, as in CT."""
    return values + sigma * torch.randn(values.shape, generator=generator, device=generator.device).to(values)


def rician_noise(values: Volume, sigma: float, generator: torch.Generator) -> Volume:
    """Add Gaussian noise in both quadratures and take the magnitude, as in MR."""
    real = gaussian_noise(values, sigma, generator)
    imaginary = torch.randn(values.shape, generator=generator, device=generator.device).to(values)
    return torch.hypot(real, sigma * imaginary)
