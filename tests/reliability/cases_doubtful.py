"""Files and inputs that can be used, but may mean something else; settings files; places to write to."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from input_case import Case

from convexadam import (
    ConvexSearch,
    Refinement,
    RegistrationConfig,
    preset,
    read_image,
    read_transform,
    register,
    write_image,
)
from convexadam.continuous import Level
from convexadam.geometry import Grid, Image

SHAPE = (16, 14, 12)
VALUES = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
FAST = RegistrationConfig(
    linear=None, discrete=ConvexSearch(spacing=4, radius=1), continuous=Refinement(levels=(Level(iterations=1),))
)


def damaged_sform(folder: Path) -> None:
    qform = np.diag([2.0, 2, 3, 1])
    header: Any = nibabel.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_qform(qform, 1)
    header["sform_code"], header["srow_x"] = 1, np.nan
    nibabel.save(nibabel.Nifti1Image(VALUES.numpy(), None, header), folder / "image.nii")
    np.testing.assert_array_equal(read_image(folder / "image.nii").grid.affine, qform)


def flow_field(folder: Path) -> None:
    image: Any = nibabel.Nifti1Image(np.zeros((*SHAPE, 1, 3), np.float32), np.eye(4))
    image.header["intent_code"], image.header["intent_name"] = 1007, b"Flow field"
    nibabel.save(image, folder / "u_rc1.nii")
    read_transform(folder / "u_rc1.nii")


def far_landmarks(_: Path) -> None:
    fixed = torch.tensor([[3.0, 4, 5], [9, 8, 7]])
    moving = torch.tensor([[3.0, 4, 5], [900, 8, 7]])
    result = register(VALUES, VALUES, FAST, fixed_landmarks=fixed, moving_landmarks=moving)
    assert result.diagnostics["landmarks_used"] == 2


def speckled_mask(_: Path) -> None:
    smooth = torch.nn.functional.avg_pool3d(VALUES[None, None], 3, 1, 1)[0, 0]
    result = register(smooth, smooth.roll(1, 0), FAST, fixed_mask=smooth > 0.5)
    assert result.diagnostics["overlap_percent"] == 0


def stay(fixed: torch.Tensor, moving: torch.Tensor, **options: torch.Tensor) -> None:
    for config in (FAST, FAST.with_settings("symmetric = true"), preset("default")):
        result = register(fixed, moving, config, **options)
        assert result.diagnostics["displacement_max_mm"] == 0


def constant(_: Path) -> None:
    stay(torch.full(SHAPE, 3.0), VALUES)
    stay(VALUES, torch.full(SHAPE, 3.0))


def constant_within_mask(_: Path) -> None:
    inside = torch.zeros(SHAPE)
    inside[4:12, 3:11, 3:9] = 1
    stay(torch.where(inside > 0, 3.0, VALUES), VALUES, fixed_mask=inside)


def two_values(_: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stay((VALUES > 0.5).float(), (VALUES > 0.5).float())


def noise_within_mask(_: Path) -> None:
    inside = torch.zeros(SHAPE)
    inside[2:14, 2:12, 2:10] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = register(inside * VALUES, inside * VALUES, FAST, fixed_mask=inside, moving_mask=inside)
    assert result.transform.to_displacement_field(Grid(SHAPE)).disp_mm[:, inside > 0].abs().mean() < 0.5


def settings_with_mark(folder: Path) -> None:
    (folder / "settings.toml").write_text(FAST.to_toml(), encoding="utf-8-sig")  # as editors of Windows save text
    assert RegistrationConfig.load(folder / "settings.toml") == FAST


def settings_in_pipe(folder: Path) -> None:
    os.mkfifo(folder / "settings.toml")
    RegistrationConfig.load(folder / "settings.toml")


def image_into_pipe(folder: Path) -> None:
    os.mkfifo(folder / "image.nii")
    write_image(Image(VALUES[None], Grid(SHAPE)), folder / "image.nii")


IMAGES, TRANSFORMS, POINTS, SETTINGS = "Images", "Transforms of others", "Landmarks", "Settings, masks and output"

CASES = [
    Case(kind=IMAGES, given="sform with NaN, and a good qform", outcome="warning",
         says="has a damaged sform", run=damaged_sform),
    Case(kind=TRANSFORMS, given="vectors with a name that is not known (flow fields of DARTEL)", outcome="warning",
         says="they were taken as displacements in mm LPS", run=flow_field),
    Case(kind=POINTS, given="moving landmarks farther from the moving image than its size", outcome="warning",
         says="1 of 2 moving_landmarks lie outside the moving image by more than its size", run=far_landmarks),
    Case(kind=SETTINGS, given="mask of speckles, of which nothing lies wholly in both images", outcome="warning",
         says="the last stage compared nothing", run=speckled_mask),
    Case(kind=SETTINGS, given="constant image before deformable stages", outcome="warning",
         says="an image has no contrast within its field of view and mask", run=constant),
    Case(kind=SETTINGS, given="image that is constant within its mask", outcome="warning",
         says="an image has no contrast within its field of view and mask", run=constant_within_mask),
    Case(kind=SETTINGS, given="image of two values", outcome="result", says="the displacement", run=two_values),
    Case(kind=SETTINGS, given="image of noise within a mask and nothing outside", outcome="result",
         says="the displacement", run=noise_within_mask),
    Case(kind=SETTINGS, given="settings file with a byte order mark", outcome="result", says="the settings",
         run=settings_with_mark),
    Case(kind=SETTINGS, given="pipe as a settings file", outcome="error", says="got a pipe or device",
         run=settings_in_pipe),
    Case(kind=SETTINGS, given="pipe or device as an output file", outcome="error", says="got a pipe or device",
         run=image_into_pipe),
]  # fmt: skip
