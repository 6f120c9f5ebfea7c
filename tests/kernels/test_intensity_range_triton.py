"""Quantiles on the device: torch against the host, and the Triton kernels, on a GPU or interpreted, against torch."""

from __future__ import annotations

import os

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.features import Intensity
from convexadam.geometry import Grid, Image
from convexadam.kernels.intensity_range import reference, triton

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SHAPE = (7, 9, 6)


def _volumes() -> dict[str, torch.Tensor]:
    """Noise, with and without padding, and what has no range."""
    noise = oracles.uniform(*SHAPE).float()
    padded, background, zeros = noise.clone(), noise.clone(), torch.zeros(SHAPE)
    padded.flatten()[:40] = -1
    background.flatten()[:150] = -1
    return {"noise": noise, "padded": padded, "background": background, "constant": zeros}


def _weights() -> dict[str, torch.Tensor | None]:
    """Without weight anywhere, all samples count."""
    return {
        "none": None,
        "some": (oracles.uniform(*SHAPE, seed=1).float() - 0.5).clamp_min(0),
        "nothing": torch.zeros(SHAPE),
    }


@pytest.mark.parametrize("name", _volumes())
@pytest.mark.parametrize("weighted", _weights())
@pytest.mark.parametrize("shares", [(0.0, 1.0), (0.005, 0.995), (0.25, 0.5)])
def test_torch_equals_the_host(name: str, weighted: str, shares: tuple[float, float]) -> None:
    channel, weight = _volumes()[name], _weights()[weighted]
    expected = Intensity(quantiles=shares, scale=2.0)(Image(channel[None], Grid(SHAPE)), weight=weight)[0]
    rescaled = (channel - channel.mean()) / channel.std().clamp_min(1e-6)  # any other linear scale
    found = reference.map_quantiles(rescaled, weight, shares=shares, scale=2.0, step=1, padding_share=0.25)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", _volumes())
@pytest.mark.parametrize("weighted", _weights())
@pytest.mark.parametrize("shares", [(0.005, 0.995), (0.25, 0.5)])
def test_errs_no_more_than_torch(name: str, weighted: str, shares: tuple[float, float]) -> None:
    channel, weight = _volumes()[name].to(DEVICE), _weights()[weighted]
    options = {"shares": shares, "scale": 2.0, "step": 2, "padding_share": 0.25}
    arguments = channel, None if weight is None else weight.to(DEVICE)
    if weight is None:
        assert_within_budget(
            lambda c: triton.map_quantiles(c, None, **options),
            lambda c: reference.map_quantiles(c, None, **options),
            channel,
        )
    else:
        assert_within_budget(
            lambda *given: triton.map_quantiles(*given, **options),
            lambda *given: reference.map_quantiles(*given, **options),
            *arguments,
        )


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (3, 1, 1)])
def test_few_voxels(shape: tuple[int, int, int]) -> None:
    channel = torch.arange(float(shape[0]), device=DEVICE).reshape(shape)
    options = {"shares": (0.0, 1.0), "scale": 1.0, "step": 1, "padding_share": 0.25}
    assert torch.equal(
        triton.map_quantiles(channel, None, **options), reference.map_quantiles(channel, None, **options)
    )


def test_a_channel_that_is_not_contiguous() -> None:
    channel = _volumes()["noise"].to(DEVICE).transpose(0, 2)
    options = {"shares": (0.1, 0.9), "scale": 1.0, "step": 2, "padding_share": 0.25}
    found = triton.map_quantiles(channel, None, **options)
    assert found.shape == (SHAPE[2], SHAPE[1], SHAPE[0])
    torch.testing.assert_close(found, reference.map_quantiles(channel, None, **options))
