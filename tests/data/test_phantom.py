"""The phantom's ground truth has to be true: every test compares the scans with the field they come with."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from convexadam.data import PhantomPair, phantom, phantom_pair
from convexadam.errors import ConfigError, GeometryError, InputError
from convexadam.geometry import DisplacementField, jacobian_determinant
from convexadam.kernels.warp import identity_positions, inside, sample_linear, sample_nearest

SHAPE = (40, 33, 29)


def oblique_affine(shape: tuple[int, int, int]) -> np.ndarray:
    """Anisotropic, axes permuted, one flipped, turned by some degrees about two axes; a torso in size."""
    x, z = math.radians(9), math.radians(-13)
    about_x = np.array([[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]])
    about_z = np.array([[math.cos(z), -math.sin(z), 0], [math.sin(z), math.cos(z), 0], [0, 0, 1]])
    permuted = np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0]], float)  # i along A, j along S, k along L
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ permuted @ np.diag([300 / shape[0], 300 / shape[1], 400 / shape[2]])
    affine[:3, 3] = (31.0, -17.0, 240.0)
    return affine


@pytest.fixture(scope="module", params=["default", "oblique"])
def clean(request: pytest.FixtureRequest) -> PhantomPair:
    affine = oblique_affine(SHAPE) if request.param == "oblique" else None
    return phantom_pair(SHAPE, affine=affine, noise=0.0, displacement_mm=20.0, seed=3)


def positions(pair: PhantomPair) -> torch.Tensor:
    return pair.disp_vox + identity_positions(pair.fixed.grid.shape, like=pair.disp_vox)


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first, second]))[0, 1])


def dice(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def centroid_mm(pair: PhantomPair, name: str) -> torch.Tensor:
    number = next(n for n, known in pair.label_names.items() if known == name)
    return pair.moving_labels.grid.index_to_world((pair.moving_labels.data[0] == number).nonzero().double()).mean(0)


def test_types_and_shapes(clean: PhantomPair) -> None:
    assert clean.fixed.data.dtype == clean.moving.data.dtype == clean.disp_vox.dtype == torch.float32
    assert clean.fixed_labels.data.dtype == clean.moving_labels.data.dtype == torch.int32
    for image in (clean.fixed, clean.moving, clean.fixed_labels, clean.moving_labels):
        assert tuple(image.data.shape) == (1, *SHAPE)
        assert image.grid.is_close(clean.fixed.grid)
        assert bool(image.data.isfinite().all())
    assert tuple(clean.disp_vox.shape) == (3, *SHAPE)
    assert set(clean.moving_labels.data.unique().tolist()) == set(clean.label_names)


def test_moving_at_the_transformed_points_is_fixed(clean: PhantomPair) -> None:
    # Interpolation between 10 mm voxels blurs, so the error is not 0; but no other field has a smaller one.
    identity = identity_positions(SHAPE, like=clean.disp_vox)
    held = inside(positions(clean), SHAPE)

    def error(disp_vox: torch.Tensor) -> float:
        moved = sample_linear(clean.moving.data, identity + disp_vox)[0]
        return float((clean.fixed.data[0] - moved)[held].square().mean())

    right = error(clean.disp_vox)
    assert right < 0.5 * error(torch.zeros_like(clean.disp_vox))
    for scale in (-1.0, 0.8, 1.2):
        assert right < error(scale * clean.disp_vox)
    assert right < error(clean.disp_vox.flip(0))


def test_labels_follow_the_field(clean: PhantomPair) -> None:
    held = inside(positions(clean), SHAPE)
    moved = sample_nearest(clean.moving_labels.data, positions(clean))[0][held]
    fixed, moving = clean.fixed_labels.data[0][held], clean.moving_labels.data[0][held]
    for name in ("liver", "lungs"):
        number = next(n for n, known in clean.label_names.items() if known == name)
        assert dice(fixed == number, moved == number) > 0.9
        assert dice(fixed == number, moved == number) > dice(fixed == number, moving == number)


def test_without_displacement_or_noise_both_scans_are_equal() -> None:
    pair = phantom_pair((21, 17, 13), displacement_mm=0.0, noise=0.0)
    torch.testing.assert_close(pair.fixed.data, pair.moving.data, rtol=0, atol=0)
    assert torch.equal(pair.fixed_labels.data, pair.moving_labels.data)
    assert bool((pair.disp_vox == 0).all())
    torch.testing.assert_close(pair.fixed_landmarks_mm, pair.moving_landmarks_mm, rtol=0, atol=1e-9)


def test_interpolation_error_vanishes_with_the_voxel_size() -> None:
    # moving(T(x)) by interpolation tends to fixed(x) as voxels shrink; without T it does not.
    errors = []
    for shape in ((28, 22, 21), (56, 44, 42)):
        pair = phantom_pair(shape, noise=0.0, displacement_mm=20.0, seed=1)
        held = inside(positions(pair), shape)
        moved = sample_linear(pair.moving.data, positions(pair))[0]
        before = (pair.fixed.data - pair.moving.data)[0][held].abs().mean()
        errors.append(float((pair.fixed.data[0] - moved)[held].abs().mean() / before))
    assert all(finer < 0.8 * coarser for coarser, finer in pairwise(errors)), errors
    assert errors[-1] < 0.55


def test_landmarks_map_onto_each_other(clean: PhantomPair) -> None:
    grid = clean.fixed.grid
    fixed_vox = grid.world_to_index(clean.fixed_landmarks_mm)
    moving_vox = grid.world_to_index(clean.moving_landmarks_mm)
    assert clean.fixed_landmarks_mm.dtype == torch.float64
    assert clean.fixed_landmarks_mm.shape == clean.moving_landmarks_mm.shape
    assert len(fixed_vox) >= 20
    for points in (fixed_vox, moving_vox):
        assert bool((points >= 0).all())
        assert bool((points <= torch.tensor(SHAPE) - 1).all())
    # Between voxel centres the field is only as good as linear interpolation of it: h²/8 of its curvature
    # along each axis, here at most 14²/8 mm² · 3 · 20 mm / (60 mm)² = 0.4 mm.
    field = DisplacementField.from_voxels(clean.disp_vox, grid)
    error = (field.warp_points(clean.fixed_landmarks_mm, space="mm") - clean.moving_landmarks_mm).norm(dim=1)
    assert error.max() < 0.5
    assert error.median() < 0.05
    assert (clean.fixed_landmarks_mm - clean.moving_landmarks_mm).norm(dim=1).max() > 5


def test_landmarks_lie_where_the_labels_say() -> None:
    pair = phantom_pair((72, 56, 54), seed=2)
    for labels, points in (
        (pair.fixed_labels, pair.fixed_landmarks_mm),
        (pair.moving_labels, pair.moving_landmarks_mm),
    ):
        index = labels.grid.world_to_index(points).T[:, :, None, None]
        found = sample_nearest(labels.data, index).unique().tolist()
        assert {"liver", "liver lesion", "gallbladder", "aorta", "vertebrae"} <= {pair.label_names[n] for n in found}


def test_the_field_is_free_of_folds_and_as_long_as_asked(clean: PhantomPair) -> None:
    assert jacobian_determinant(clean.disp_vox).min() > 0.3
    matrix = torch.tensor(np.array(clean.fixed.grid.affine[:3, :3]), dtype=torch.float64)
    length = torch.tensordot(matrix, clean.disp_vox.double(), dims=1).norm(dim=0)
    assert float(length.max()) == pytest.approx(20.0, abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_any_seed_is_free_of_folds(seed: int) -> None:
    pair = phantom_pair((24, 20, 18), displacement_mm=25.0, seed=seed)
    assert jacobian_determinant(pair.disp_vox).min() > 0.3
    assert len(pair.fixed_landmarks_mm) >= 20


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "oblique"])
def test_organs_are_on_their_side_of_the_patient(orientation: str) -> None:
    if orientation == "oblique":
        pair = phantom_pair(SHAPE, affine=oblique_affine(SHAPE))
    else:
        flip = -1.0 if orientation == "LPS" else 1.0
        pair = phantom_pair(SHAPE, affine=np.diag([flip * 10.0, flip * 9.0, 10.0, 1.0]))
    liver, spleen, lungs, spine, heart = (
        centroid_mm(pair, name) for name in ("liver", "spleen", "lungs", "vertebrae", "heart")
    )
    assert liver[0] - spleen[0] > 100  # R
    assert liver[1] - spine[1] > 30  # A
    assert lungs[2] - liver[2] > 40  # S
    assert spine[0] > heart[0] + 10


def test_the_torso_fills_a_given_box() -> None:
    small = phantom_pair((24, 20, 18), spacing_mm=(2.0, 2.5, 3.0), displacement_mm=3.0, noise=0.0)
    large = phantom_pair((24, 20, 18), spacing_mm=(20.0, 25.0, 30.0), displacement_mm=30.0, noise=0.0)
    assert small.fixed.grid.spacing_mm == (2.0, 2.5, 3.0)
    torch.testing.assert_close(small.moving.data, large.moving.data, rtol=0, atol=0.5)
    torch.testing.assert_close(small.disp_vox, large.disp_vox, rtol=0, atol=1e-4)
    usual = phantom_pair((50, 40, 30)).fixed.grid
    np.testing.assert_allclose(np.array(usual.spacing_mm) * usual.shape, (400, 300, 300))


def test_the_seed_decides_on_everything() -> None:
    torch.manual_seed(0)
    first = phantom_pair((16, 14, 12), contrasts=("t1", "t2"), seed=5)
    state = torch.get_rng_state()
    again = phantom_pair((16, 14, 12), contrasts=("t1", "t2"), seed=5)
    other = phantom_pair((16, 14, 12), contrasts=("t1", "t2"), seed=6)
    assert torch.equal(torch.get_rng_state(), state)
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        assert torch.equal(getattr(first, name).data, getattr(again, name).data)
    assert torch.equal(first.disp_vox, again.disp_vox)
    assert torch.equal(first.fixed_landmarks_mm, again.fixed_landmarks_mm)
    assert not torch.equal(first.moving.data, other.moving.data)
    assert not torch.equal(first.disp_vox, other.disp_vox)


def test_noise_is_of_the_contrast_and_independent() -> None:
    options: dict[str, Any] = {"displacement_mm": 0.0, "seed": 4}
    noisy, clean = (phantom_pair(SHAPE, noise=noise, **options) for noise in (1.0, 0.0))
    residuals = [(n.data - c.data).flatten() for n, c in ((noisy.fixed, clean.fixed), (noisy.moving, clean.moving))]
    # 38 280 samples: the standard error of the deviation is 0.4 %, of the correlation 0.5 %.
    assert float(residuals[0].std()) == pytest.approx(11.0, rel=0.02)
    assert abs(correlation(residuals[0], residuals[1])) < 0.026
    magnitude = phantom_pair(SHAPE, contrasts=("t1", "t2"), **options)
    assert magnitude.fixed.data.min() >= 0
    # Without signal Rician noise is Rayleigh noise, of mean sqrt(pi / 2) sigma: corners show only air.
    corner = magnitude.fixed.data[0, :5, :5, :].flatten()
    assert float(corner.mean()) == pytest.approx(14 * math.sqrt(math.pi / 2), rel=0.1)


@pytest.mark.parametrize(("contrast", "brighter", "darker"), [("ct", 10, 14), ("t1", 1, 8), ("t2", 6, 1)])
def test_contrasts_differ(contrast: str, brighter: int, darker: int) -> None:
    pair = phantom_pair(SHAPE, contrasts=("ct", contrast), noise=0.0)
    means = [pair.moving.data[pair.moving_labels.data == number].mean() for number in (brighter, darker)]
    assert means[0] > means[1]


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = phantom_pair((17, 13, 11), seed=8)
    monkeypatch.setattr("convexadam.data.phantom._BLOCK_VOXELS", 3 * 13 * 11)
    parts = phantom_pair((17, 13, 11), seed=8)
    torch.testing.assert_close(whole.fixed.data, parts.fixed.data, rtol=0, atol=0.05)
    torch.testing.assert_close(whole.disp_vox, parts.disp_vox, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 4, 4), (30, 28, 4), (5, 23, 19)])
def test_thin_and_tiny_volumes(shape: tuple[int, int, int]) -> None:
    pair = phantom_pair(shape)
    assert tuple(pair.fixed.data.shape) == (1, *shape)
    assert bool(pair.fixed.data.isfinite().all())
    assert len(pair.fixed_landmarks_mm) >= 20


def test_the_device_is_followed() -> None:
    pair = phantom_pair((8, 7, 6), device="cpu")
    tensors = (pair.fixed.data, pair.moving_labels.data, pair.disp_vox, pair.fixed_landmarks_mm)
    assert {t.device.type for t in tensors} == {"cpu"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_devices_agree_up_to_rounding() -> None:
    here = phantom_pair(SHAPE, seed=1)
    there = phantom_pair(SHAPE, seed=1, device="cuda")
    assert there.fixed.data.device.type == there.disp_vox.device.type == "cuda"
    assert (there.fixed.data.cpu() - here.fixed.data).abs().median() < 0.01
    assert (there.fixed_labels.data.cpu() != here.fixed_labels.data).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"shape": (20, 20, 3)}, InputError, "at least 4"),
        ({"spacing_mm": (1, 1, 0)}, ConfigError, "positive"),
        ({"spacing_mm": (2, 2, 2), "affine": np.eye(4)}, ConfigError, "omit one of them"),
        ({"affine": np.zeros((4, 4))}, GeometryError, "affine"),
        ({"contrasts": ("ct", "pet")}, ConfigError, "ct, t1, t2"),
        ({"noise": -1}, ConfigError, "noise"),
        ({"noise": math.nan}, ConfigError, "noise"),
        ({"displacement_mm": math.inf}, ConfigError, "displacement_mm"),
        ({"displacement_mm": 500.0}, ConfigError, "must be at most .* the Jacobian determinant"),
        ({"seed": -1}, ConfigError, "seed"),
    ],
)
def test_bad_settings_say_what_is_wrong(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        phantom_pair(**{"shape": (12, 10, 8), **options})


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "error", "words"),
    [
        ((20, 20), None, InputError, "three whole numbers"),
        (20, None, InputError, "three whole numbers"),
        ((20, 20, 8.5), None, InputError, "8.5"),
        ((20, 20, 20), 2.0, ConfigError, "one per axis"),
        ((20, 20, 20), (2.0, "a", 1.0), ConfigError, "positive"),
    ],
)
def test_grids_of_the_wrong_type_are_refused(shape: Any, spacing_mm: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):  # the checks of types in the tests would come first in phantom_pair
        phantom._parse_grid(shape, spacing_mm, None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("ct", 1.0, 1.0, 0), "two of"),
        ((("ct", "ct"), "far", 1.0, 0), "displacement_mm"),
        ((("ct", "ct"), 1.0, None, 0), "noise"),
        ((("ct", "ct"), 1.0, 1.0, 0.5), "seed"),
    ],
)
def test_settings_of_the_wrong_type_are_refused(settings: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        phantom._check_settings(*settings)


def test_the_named_limit_works() -> None:
    with pytest.raises(ConfigError, match=r"at most (\S+) in this") as caught:
        phantom_pair((12, 10, 8), displacement_mm=500.0)
    limit = float(str(caught.value).split("at most ")[1].split(" in ")[0])
    assert limit > 30
    assert jacobian_determinant(phantom_pair((24, 20, 18), displacement_mm=0.98 * limit).disp_vox).min() > 0.2
