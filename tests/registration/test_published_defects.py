"""One regression test for each defect of the published package (convexAdam 0.2.0).

The numbers are those of the list in docs/parity.md; each test fails with the published behaviour.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from textures import affine, indices, shifted_pair
from torch import Tensor

import convexadam
from convexadam import (
    ConfigError,
    ConvexSearch,
    DisplacementField,
    Grid,
    Image,
    InputError,
    MindSSC,
    Refinement,
    RegistrationConfig,
    preset,
    register,
)
from convexadam.continuous import Adam, BoxSmoothing, Diffusion, GaussianSmoothing, KovesiSmoothing, Level
from convexadam.metrics import hd95

SHIFT = (6.0, -4.0, 2.0)
QUICK = RegistrationConfig(
    discrete=ConvexSearch(spacing=3, radius=2),
    continuous=Refinement(levels=(Level(iterations=5),), optimiser=Adam(learning_rate=0.1)),
)


@pytest.fixture(scope="module")
def shifted() -> tuple[Image, Image]:
    return shifted_pair(Grid((60, 54, 44)), SHIFT, (6.0, 16.0))


@pytest.fixture(scope="module")
def found(shifted: tuple[Image, Image]) -> Tensor:
    """Displacement in voxels with the published settings."""
    return register(*shifted, preset("published")).transform.to_voxels()


def overlap(grid: Grid, shift: tuple[float, float, float]) -> Tensor:
    moving_vox = indices(grid) + torch.tensor(shift)
    return ((moving_vox >= 0) & (moving_vox <= torch.tensor(grid.shape) - 1)).all(-1)


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5))


def test_01_motion_does_not_shrink(found: Tensor) -> None:
    """Published: 29/30 at 60 voxels, so 5.80 for 6."""
    middle = found[:, 12:-12, 12:-12, 12:-12].mean((1, 2, 3))
    torch.testing.assert_close(middle, torch.tensor(SHIFT), rtol=0, atol=0.02)


def test_02_the_field_does_not_vanish_at_the_border(found: Tensor, shifted: tuple[Image, Image]) -> None:
    """Published: the last ten voxels read 5.4 ... 0.6 for 6."""
    error = (found - torch.tensor(SHIFT).reshape(3, 1, 1, 1)).norm(dim=0)
    assert float(error[overlap(shifted[0].grid, SHIFT)].max()) < 0.2


def test_03_search_alone_is_in_voxels(shifted: tuple[Image, Image]) -> None:
    """Published: without inverse consistency the field is in control points, so 1 for 6."""
    fixed, moving = (MindSSC()(image) for image in shifted)
    field = ConvexSearch(spacing=2, radius=4, inverse_consistency=0)(fixed, moving)
    middle = field[:, 12:-12, 12:-12, 12:-12].mean((1, 2, 3))
    torch.testing.assert_close(middle, torch.tensor(SHIFT), rtol=0, atol=0.1)


@pytest.mark.parametrize("size", [60, 61, 62, 63, 64, 65])
def test_04_sizes_that_are_no_multiple_of_the_spacing(size: int) -> None:
    """Published: the field is stretched by up to (N mod 6) voxels."""
    steps = torch.linspace(0, 1, size)
    field = (
        (10 * steps).reshape(1, -1, 1, 1).expand(3, size, 12, 12)
    )  # a known field, to coarse control points and back
    from convexadam.kernels.resize import control_points_to_voxels, voxels_to_control_points

    resampled = control_points_to_voxels(voxels_to_control_points(field, (6, 6, 6)), (6, 6, 6), (size, 12, 12))
    inside = slice(3, 6 * (size // 6) - 3)
    torch.testing.assert_close(resampled[:, inside], field[:, inside], rtol=0, atol=1e-4)


def test_05_spacing_and_orientation_are_used() -> None:
    """Published: both are ignored. The same anatomy on other voxels has the same displacement in mm."""
    shift_mm = torch.tensor([4.8, -4.8, 4.8], dtype=torch.float64)
    for spacing in ((1.2, 1.2, 1.2), (1.2, 1.2, 2.4)):
        grid = Grid(tuple(round(66 / s) for s in spacing), affine(spacing))
        shift_vox = tuple(float(v) for v in shift_mm / torch.tensor(spacing))
        fixed, moving = shifted_pair(grid, shift_vox, (14.0, 30.0))
        field = register(fixed, moving).transform
        target = grid.index_to_world(torch.tensor(grid.shape, dtype=torch.float64)[None] / 2)
        torch.testing.assert_close(field(target) - target, shift_mm[None], rtol=0, atol=0.05)


def test_06_labels_and_points_move_too() -> None:
    """Published: linear interpolation only, no points."""
    grid = Grid((12, 10, 8), affine((1.0, 2.0, 3.0), (0.1, 0.2, 0.3)))
    labels = (noise(12, 10, 8) * 300).int()
    field = DisplacementField.from_voxels(noise(3, 12, 10, 8) * 4 - 2, grid)
    moved = field.warp(Image(labels[None], grid), mode="label")
    assert moved.data.dtype == torch.int32
    assert set(moved.data.unique().tolist()) <= {0, *labels.unique().tolist()}
    voxel = torch.tensor([[3.0, 4.0, 5.0]])
    torch.testing.assert_close(
        field.warp_points(voxel, space="fixed_voxel"),
        (voxel + field.to_voxels()[:, 3, 4, 5]).double(),
        rtol=0,
        atol=1e-4,
    )


def test_07_masks_are_weights_of_any_size() -> None:
    """Published: masks are paths only, odd sizes crash, and intensities are overwritten."""
    fixed, moving = shifted_pair(Grid((41, 37, 47)), (2.0, -2.0, 0.0), (6.0, 14.0))
    mask = torch.ones(fixed.grid.shape)
    mask[:, :, 30:] = 0
    broken = moving.data.clone()
    broken[..., 33:] = 1000 * noise(*broken[..., 33:].shape)  # farther from the mask than the receptive radius
    config = preset("published")
    corrupted = register(fixed, Image(broken, moving.grid), config, fixed_mask=mask, moving_mask=mask)
    expected = register(fixed, moving, config, fixed_mask=mask, moving_mask=mask)
    kept = (slice(None),) * 3 + (slice(0, 30),)
    difference = (corrupted.transform.to_voxels() - expected.transform.to_voxels())[kept]
    assert float(difference.norm(dim=0).max()) < 0.1


def test_08_smoothing_keeps_the_shape() -> None:
    """Published: even kernels return 75 voxels for 72."""
    with pytest.raises(ConfigError, match="odd"):
        BoxSmoothing(width=4)
    features = noise(4, 18, 17, 15)
    for final in (BoxSmoothing(width=5), GaussianSmoothing(sigma=2.0), KovesiSmoothing(sigma=1.3)):
        refined = Refinement(levels=(Level(iterations=1),), final_smoothing=final)(features, features.flip(1))
        assert refined.shape == (3, 18, 17, 15)


def test_09_the_last_step_counts() -> None:
    """Published: the field before the last step is returned, so one step is none."""
    fixed, moving = (
        noise(4, 16, 15, 14),
        noise(4, 14, 16, 15).permute(0, 2, 1, 3).reshape(4, 16, 14, 15).permute(0, 1, 3, 2),
    )
    none, one, two = (Refinement(levels=(Level(iterations=n),))(fixed, moving) for n in (0, 1, 2))
    assert float(none.abs().max()) == 0
    assert float(one.abs().max()) > 0.1
    assert float((two - one).abs().max()) > 0.1


@pytest.mark.parametrize("channels", [1, 12, 17])
def test_10_no_setting_disables_another(channels: int) -> None:
    """Published: weight 0 disables Adam, 0 iterations crash, and 12 channels are hard-coded."""
    fixed, moving = noise(channels, 16, 15, 14), noise(channels, 16, 15, 14).flip(1)
    assert (
        float(
            Refinement(levels=(Level(iterations=3),), regularisers=(Diffusion(weight=0.0),))(fixed, moving).abs().max()
        )
        > 0.1
    )
    assert float(Refinement(levels=(Level(iterations=0),))(fixed, moving).abs().max()) == 0
    assert ConvexSearch(spacing=3, radius=2)(fixed, moving).shape == (3, 16, 15, 14)


def test_11_thin_constant_broken_and_unequal_volumes() -> None:
    """Published: 60x60x6 crashes, constant images and one NaN give a NaN field, unequal shapes a raw error."""
    thin = noise(60, 60, 6)
    assert bool(register(thin, thin.flip(0), QUICK).transform.disp_mm.isfinite().all())
    constant = torch.full((20, 20, 20), 7.0)
    with pytest.warns(UserWarning, match="no contrast"):
        assert float(register(constant, constant, QUICK).transform.disp_mm.abs().max()) == 0
    broken = noise(20, 20, 20)
    broken[3, 4, 5] = torch.nan
    with pytest.raises(InputError, match="got 1 NaN"):
        register(broken, constant, QUICK)
    assert register(noise(20, 18, 16), noise(15, 19, 21), QUICK).transform.grid.shape == (20, 18, 16)


def test_12_the_device_can_be_chosen() -> None:
    """Published: ``cpu:0`` crashes in half precision, and ``.cuda()`` is hard-coded."""
    half = noise(20, 18, 16).half()
    result = register(half, half.flip(0), QUICK, device="cpu:0")
    assert bool(result.transform.disp_mm.isfinite().all())
    source = Path(convexadam.__file__).parent
    assert not [path.name for path in source.rglob("*.py") if ".cuda()" in path.read_text(encoding="utf-8")]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory of a process as Linux reports it")
@pytest.mark.long
def test_13_features_need_less_memory() -> None:
    """Published: about 144 bytes for each voxel."""
    program = (
        "import resource, torch\n"
        "from convexadam.kernels.mind_ssc import mind_ssc\n"
        "mind_ssc(torch.rand(24, 24, 24))\n"
        "volume = torch.rand(160, 160, 160)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "mind_ssc(volume)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / volume.numel())"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(convexadam.__file__).parents[1])}
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert float(output) < 110


@pytest.mark.parametrize(
    ("spacing", "update_smoothing"),
    [(n + 1, GaussianSmoothing(sigma=s)) for n, s in enumerate((0.7, 1.0))]
    + [(n % 4 + 1, KovesiSmoothing(sigma=s)) for n, s in enumerate((1.3, 1.6, 1.9, 2.2, 2.5, 2.8), 2)],
    ids=str,
)
def test_14_every_setting_of_the_published_search_runs(
    spacing: int, update_smoothing: GaussianSmoothing | KovesiSmoothing
) -> None:
    """Published: 12 of the 75 settings drawn crash, and so does the surface distance, which was never imported."""
    features = noise(12, 25, 23, 21)
    refine = Refinement(
        levels=(Level(spacing=spacing, iterations=2),),
        update_smoothing=update_smoothing,
        final_smoothing=BoxSmoothing(passes=2),
    )
    field = refine(features, features.flip(1))
    assert field.shape == (3, 25, 23, 21)
    assert bool(field.isfinite().all())
    ball = (indices(Grid((9, 9, 9))) - 4).norm(dim=-1) < 3
    assert hd95(ball.int(), ball.int(), spacing_mm=(1.0, 1.0, 1.0)) == {1: 0.0}


def test_written_fields_are_transforms(tmp_path: Path) -> None:
    """Defect 5, second half: ITK reads a written field as the same transform (see also tests/io)."""
    sitk = pytest.importorskip("SimpleITK")
    grid = Grid((9, 8, 7), affine((1.0, 2.0, 3.0), (0.1, 0.2, 0.3)))
    field = DisplacementField.from_voxels(torch.ones(3, 9, 8, 7), grid)
    convexadam.io.write_itk_field(field, tmp_path / "transform.nii.gz")
    read = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / "transform.nii.gz"), sitk.sitkVectorFloat64))
    point = grid.index_to_world(torch.tensor([[4.0, 3.0, 2.0]]))[0].numpy() * (-1, -1, 1)
    expected = field.warp_points(torch.from_numpy(point.copy())[None], space="lps_mm")[0].numpy()
    np.testing.assert_allclose(read.TransformPoint(point.tolist()), expected, atol=1e-4)
