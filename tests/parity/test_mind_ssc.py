"""MIND-SSC equals that of the published package, up to the order of channels; see ``make_golden.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from convexadam.kernels.mind_ssc import mind_ssc

SETTINGS = [(1, 1), (1, 2), (2, 2), (3, 2)]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("mind_ssc_convexadam_0.2.0.npz")) as stored:
        return dict(stored)


def _ours(golden: dict[str, np.ndarray], radius: int, dilation: int, dtype: torch.dtype) -> np.ndarray:
    volume = torch.from_numpy(golden["volume"]).to(dtype)
    return mind_ssc(volume, radius=radius, dilation=dilation).double().numpy()


def _order(ours: np.ndarray, theirs: np.ndarray) -> tuple[int, ...]:
    """For each of our channels, the published one that is closest."""
    apart = np.abs(ours[:, None] - theirs[None]).max((2, 3, 4))
    return tuple(int(n) for n in apart.argmin(1))


def test_the_file_names_what_made_it(golden: dict[str, np.ndarray]) -> None:
    assert str(golden["convexadam_version"]) == "0.2.0"
    assert str(golden["torch_version"])
    assert {f"r{r}_d{d}" for r, d in SETTINGS} <= set(golden)


def test_one_order_of_channels_fits_all_settings(golden: dict[str, np.ndarray]) -> None:
    orders = {_order(_ours(golden, r, d, torch.float64), golden[f"r{r}_d{d}"]) for r, d in SETTINGS}
    assert len(orders) == 1
    assert sorted(orders.pop()) == list(range(12))


@pytest.mark.parametrize(("radius", "dilation"), SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_published_features(
    golden: dict[str, np.ndarray], radius: int, dilation: int, dtype: torch.dtype
) -> None:
    order = list(_order(_ours(golden, 1, 2, torch.float64), golden["r1_d2"]))
    theirs = golden[f"r{radius}_d{dilation}"][order]
    # The published numbers are float32: a few eps of D, times D / v (some tens), in an exponent. Agreed budget: 1e-5.
    np.testing.assert_allclose(_ours(golden, radius, dilation, dtype), theirs, rtol=0, atol=1e-5)
