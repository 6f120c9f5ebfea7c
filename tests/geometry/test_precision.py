"""Devices without float64 (MPS): they get float32, from coordinates to values. Here the CPU stands in for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import torch

from convexadam import DisplacementField, Grid, Image
from convexadam.features.intensity import rescale_channels
from convexadam.geometry import tensors as tensors_module
from convexadam.geometry.tensors import finest_float, to_device, to_finest_float
from convexadam.geometry.to_grid import resample_to_grid
from convexadam.io import read_learn2reg

SHAPE = (5, 7, 6)


@pytest.fixture
def without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors_module, "_WITHOUT_FLOAT64", ("cpu",))


def transform() -> DisplacementField:
    return DisplacementField(oracles.noise(3, *SHAPE).float(), Grid(SHAPE, oracles.oblique_affine()))


def test_the_finest_type_of_a_device() -> None:
    assert finest_float(torch.device("mps")) == torch.float32
    assert finest_float(torch.device("cpu")) == finest_float(torch.device("cuda:1")) == torch.float64


def test_the_device_sees_no_type_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors_module, "_WITHOUT_FLOAT64", ("meta",))
    for given in (torch.float64, torch.float32, torch.int64):
        assert to_finest_float(torch.zeros(2, dtype=given), torch.device("meta")).dtype == torch.float32
        assert to_finest_float(torch.zeros(2, dtype=given), torch.device("cpu")).dtype == torch.float64
    assert to_device(torch.zeros(2, dtype=torch.float64), "meta").dtype == torch.float32
    for kept in (torch.float16, torch.float32, torch.int64):
        assert to_device(torch.zeros(2, dtype=kept), "meta").dtype == kept
    assert to_device(torch.zeros(2, dtype=torch.float64), "cpu").dtype == torch.float64
    image = Image.from_array(np.zeros(SHAPE), device="meta")
    assert image.data.dtype == torch.float32
    assert Image(torch.zeros(1, *SHAPE, dtype=torch.float64), Grid(SHAPE)).to("meta").data.dtype == torch.float32


@pytest.mark.parametrize("space", ["mm", "lps_mm", "fixed_voxel"])
def test_points(space: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).uniform(0, 5, (4, 3))
    expected = transform().warp_points(points, space=space)
    monkeypatch.setattr(tensors_module, "_WITHOUT_FLOAT64", ("cpu",))
    found = transform().warp_points(points, space=space)
    assert found.dtype == torch.float32
    # 2^-24 of coordinates below 100 mm, through four maps of three terms each
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=100 * 2**-24 * 16)


@pytest.mark.usefixtures("without_float64")
def test_whole_numbers_and_features() -> None:
    image = Image((oracles.uniform(1, *SHAPE) * 9).to(torch.int16), Grid(SHAPE, oracles.oblique_affine()))
    assert resample_to_grid(image, image.grid.with_spacing((2.0, 2.0, 2.0))).data.dtype == torch.float32
    assert rescale_channels(image.data).dtype == torch.float32


@pytest.mark.usefixtures("without_float64")
def test_fields_in_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "field.npz", np.zeros((*SHAPE, 3)))
    assert read_learn2reg(tmp_path / "field.npz", Grid(SHAPE)).disp_mm.dtype == torch.float32
