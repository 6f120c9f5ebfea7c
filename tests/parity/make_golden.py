"""Write ``mind_ssc_convexadam_0.2.0.npz``: MIND-SSC as the published package computes it, for comparison.

Run it in an environment of its own that holds the published package, never beside this library (the names clash on
file systems that do not tell cases apart)::

    python -m venv published && published/bin/pip install "convexAdam==0.2.0"
    published/bin/python tests/parity/make_golden.py

The file holds the volume, one array ``r{radius}_d{dilation}`` ``[12, i, j, k]`` in float32 for each setting, and the
versions of convexAdam and torch that made them. The volume is procedural: a bright ellipsoid and a ramp, with noise
everywhere.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from convexAdam.convex_adam_utils import MINDSSC

PUBLISHED = "0.2.0"
SHAPE = (11, 13, 10)
SETTINGS = ((1, 1), (1, 2), (2, 2), (3, 2))


def volume(seed: int = 20240) -> np.ndarray:
    """Structure plus noise, float32."""
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    ellipsoid = 120.0 * ((i / 0.8) ** 2 + ((j - 0.2) / 0.5) ** 2 + ((k + 0.1) / 0.7) ** 2 < 1)
    ramp = 40.0 * i - 25.0 * j + 10.0 * k**2
    return (ellipsoid + ramp + np.random.default_rng(seed).normal(0, 12.0, SHAPE)).astype(np.float32)


def main() -> None:
    """Compute and write."""
    found = version("convexAdam")
    if found != PUBLISHED:
        raise SystemExit(f"this needs convexAdam {PUBLISHED}, but {found} is installed")
    image = volume()
    tensor = torch.from_numpy(image)[None, None]
    features = {
        f"r{radius}_d{dilation}": MINDSSC(tensor, radius, dilation, device="cpu")[0].numpy()
        for radius, dilation in SETTINGS
    }
    np.savez_compressed(
        Path(__file__).with_name(f"mind_ssc_convexadam_{PUBLISHED}.npz"),
        volume=image,
        convexadam_version=np.array(found),
        torch_version=np.array(torch.__version__),
        **features,
    )


if __name__ == "__main__":
    main()
