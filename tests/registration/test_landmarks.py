"""Registrations with landmarks: they decide where images have no contrast, and wrong pairs do little harm."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import torch

from convexadam import (
    Affine,
    ConfigError,
    ConvexSearch,
    DisplacementField,
    Grid,
    Image,
    InputError,
    IsotropicGrid,
    LandmarkTerm,
    NativeGrid,
    RegistrationConfig,
    RegistrationResult,
    register,
)
from convexadam.continuous import LevenbergMarquardt
from convexadam.data import phantom_pair
from convexadam.io import write_landmarks
from convexadam.metrics import tre
from convexadam.registration.landmarks import parse_landmarks

SHAPE = (36, 32, 28)
FLAT = 16
"""First plane of the part in which both images are constant."""

CONFIG = RegistrationConfig(linear=None, landmarks=LandmarkTerm(sigma_mm=15.0))


class Scans:
    """A torso with one constant half, the true displacement, and landmarks in the constant half."""

    def __init__(self, affine: np.ndarray) -> None:
        pair = phantom_pair(SHAPE, affine=affine, displacement_mm=30.0, seed=1)
        self.truth = DisplacementField.from_voxels(pair.disp_vox, pair.fixed.grid)
        self.fixed, self.moving = flatten_half(pair.fixed), flatten_half(pair.moving)
        room = torch.tensor([SHAPE[0] - FLAT - 8, SHAPE[1] - 8, SHAPE[2] - 8])
        points = torch.tensor([FLAT + 4, 4, 4]) + oracles.uniform(70, 3, seed=2) * room
        fixed_mm = self.fixed.grid.index_to_world(points)
        moving_mm = self.truth.warp_points(fixed_mm, space="mm")
        self.points, self.held_out = (fixed_mm[:40], moving_mm[:40]), (fixed_mm[40:], moving_mm[40:])

    def register(self, config: RegistrationConfig = CONFIG, *, landmarks: bool = True, **options: Any) -> Any:
        points = dict(zip(("fixed_landmarks", "moving_landmarks"), self.points, strict=True)) if landmarks else {}
        return register(self.fixed, self.moving, config, **(points | options))

    @cached_property
    def plain(self) -> RegistrationResult:
        """Registration without landmarks."""
        return self.register(landmarks=False)

    @cached_property
    def found(self) -> RegistrationResult:
        """Registration with landmarks."""
        return self.register()

    def error_mm(self, result: RegistrationResult) -> float:
        """Mean error of the landmarks that were held out."""
        return float(tre(*self.held_out, result.transform).mean())


def flatten_half(image: Image) -> Image:
    data = image.data.clone()
    data[:, FLAT:] = 0
    return Image(data, image.grid)


@pytest.fixture(scope="module")
def scans() -> Scans:
    return Scans(oracles.oblique_affine((10.0, 9.0, 10.0), degrees=(0.0, 0.0, 0.0)))


def test_landmarks_decide_where_the_images_are_constant(scans: Scans) -> None:
    plain, found = scans.plain, scans.found
    assert scans.error_mm(found) < 0.5 * scans.error_mm(plain)
    assert float(tre(*scans.points, found.transform).mean()) < 0.1 * float(tre(*scans.points).mean())
    assert found.diagnostics["folded_percent"] == 0
    assert found.diagnostics["landmarks_used"] == 40
    assert found.diagnostics["landmarks_outside"] == 0
    error_mm = tre(*scans.points, found.transform)
    assert found.diagnostics["landmark_error_mean_mm"] == pytest.approx(float(error_mm.mean()))
    assert found.diagnostics["landmark_error_max_mm"] == pytest.approx(float(error_mm.max()))
    assert not [name for name in plain.diagnostics if name.startswith("landmark")]


@pytest.mark.parametrize(
    "changes",
    [
        {"discrete": None},
        {"continuous": None},
        {"continuous": dataclasses.replace(CONFIG.continuous, optimiser=LevenbergMarquardt())},  # type: ignore[type-var]
        {"discrete": (ConvexSearch(spacing=4), ConvexSearch(spacing=2, radius=2))},
    ],
)
def test_each_stage_uses_landmarks(scans: Scans, changes: dict[str, Any]) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    assert scans.error_mm(scans.register(config)) < 0.6 * scans.error_mm(scans.register(config, landmarks=False))


@pytest.mark.parametrize(
    ("affine", "grid"),
    [
        (oracles.oblique_affine((10.0, 9.0, 10.0)), IsotropicGrid()),
        (oracles.oblique_affine((9.0, 7.0, 13.0), axes=(2, 0, 1), flips=(True, False, True)), NativeGrid()),
    ],
)
def test_oblique_and_anisotropic_grids(affine: np.ndarray, grid: Any) -> None:
    scans, config = Scans(affine), dataclasses.replace(CONFIG, grid=grid)
    plain, found = scans.register(config, landmarks=False), scans.register(config)
    assert scans.error_mm(found) < 0.5 * scans.error_mm(plain)


def test_both_directions_use_landmarks(scans: Scans) -> None:
    config = dataclasses.replace(CONFIG, symmetric=True)
    plain, found = scans.register(config, landmarks=False), scans.register(config)
    assert scans.error_mm(found) < 0.5 * scans.error_mm(plain)
    backward = [float(tre(*scans.held_out[::-1], result.estimated_inverse).mean()) for result in (found, plain)]
    assert backward[0] < 0.5 * backward[1]


@pytest.mark.parametrize("symmetric", [False, True])
def test_landmarks_with_an_affine_initial_transform(scans: Scans, symmetric: bool) -> None:
    """The moving image at another place, with the transform to it: landmarks are mapped back through it."""
    config = dataclasses.replace(CONFIG, symmetric=symmetric)
    affine = oracles.oblique_affine((1.0, 1.0, 1.0), degrees=(25.0, -40.0, 15.0), origin=(120.0, -40.0, 66.0))
    displaced = Image(scans.moving.data, Grid(SHAPE, affine @ scans.moving.grid.affine))
    moving_mm = Affine(affine).warp_points(scans.points[1], space="mm")
    plain = scans.register(config) if symmetric else scans.found
    found = register(
        scans.fixed,
        displaced,
        config,
        initial_transform=affine,
        fixed_landmarks=scans.points[0],
        moving_landmarks=moving_mm,
    )
    expected = Affine(affine).warp_points(plain.transform.warp_points(scans.held_out[0], space="mm"), space="mm")
    # rounding of positions, enlarged by the choices of the search
    torch.testing.assert_close(found.transform.warp_points(scans.held_out[0], space="mm"), expected, rtol=0, atol=0.2)


def test_landmarks_with_a_displacement_field_as_initial_transform(scans: Scans) -> None:
    half = DisplacementField(scans.truth.disp_mm / 2, scans.truth.grid)
    found = scans.register(initial_transform=half)
    assert scans.error_mm(found) < 0.5 * scans.error_mm(scans.plain)
    assert scans.error_mm(found) < 0.5 * float(tre(*scans.held_out, half).mean())


def test_a_wrong_pair_does_little_harm(scans: Scans) -> None:
    wrong = scans.points[1].clone()
    wrong[7] += torch.tensor([60.0, -50.0, 70.0], dtype=torch.float64)
    robust = dataclasses.replace(CONFIG, landmarks=LandmarkTerm(sigma_mm=15.0, robust_scale_mm=15.0))
    limited = scans.register(robust, moving_landmarks=wrong)
    unlimited = scans.register(CONFIG, moving_landmarks=wrong)
    around = (scans.held_out[0] - scans.points[0][7]).norm(dim=1).topk(5, largest=False).indices
    errors = [
        float(tre(*(p[around] for p in scans.held_out), r.transform).mean()) for r in (scans.found, limited, unlimited)
    ]
    assert errors[1] < errors[2]
    assert errors[1] < errors[0] + 3.0  # mm; the wrong pair is off by 105 mm
    assert unlimited.diagnostics["folded_percent"] == limited.diagnostics["folded_percent"] == 0
    assert limited.diagnostics["landmark_error_max_mm"] > 60


@pytest.mark.parametrize("how", ["weight", "weights", "none"])
def test_landmarks_of_zero_weight_change_nothing(scans: Scans, how: str) -> None:
    term = {"weight": LandmarkTerm(weight=0.0), "weights": LandmarkTerm(), "none": None}[how]
    options = {"landmark_weights": np.zeros(40)} if how == "weights" else {}
    found = scans.register(dataclasses.replace(CONFIG, landmarks=term), landmarks=how != "none", **options)
    assert torch.equal(found.transform.disp_mm, scans.plain.transform.disp_mm)


def test_weights_of_pairs(scans: Scans) -> None:
    wrong = scans.points[1].clone()
    wrong[::2] += 40
    weights = [0.0, 1.0] * 20
    few = scans.register(fixed_landmarks=scans.points[0][1::2], moving_landmarks=scans.points[1][1::2])
    found = scans.register(moving_landmarks=wrong, landmark_weights=weights)
    assert torch.equal(found.transform.disp_mm, few.transform.disp_mm)
    assert found.diagnostics["landmarks_used"] == 20


@pytest.mark.filterwarnings("ignore:40 of 40 moving_landmarks lie outside")  # of a small grid elsewhere
def test_files_hold_voxel_indices_of_their_own_image(tmp_path: Path, scans: Scans) -> None:
    other = Grid((50, 40, 30), oracles.oblique_affine((2.0, 3.0, 4.0)))
    write_landmarks(scans.fixed.grid.world_to_index(scans.points[0]), tmp_path / "fixed.csv")
    write_landmarks(other.world_to_index(scans.points[1]), tmp_path / "moving.csv")
    grids = scans.fixed.grid, other
    found = parse_landmarks(tmp_path / "fixed.csv", str(tmp_path / "moving.csv"), None, grids)
    assert found is not None
    torch.testing.assert_close(found.fixed_mm, scans.points[0])
    torch.testing.assert_close(found.moving_mm, scans.points[1])


def test_landmarks_outside_the_fixed_image_are_excluded_and_counted(scans: Scans) -> None:
    far = torch.tensor([[5000.0, 0.0, 0.0], [0.0, 0.0, -4000.0]], dtype=torch.float64)
    more = [torch.cat([points, far]) for points in scans.points]
    found = scans.register(fixed_landmarks=more[0].numpy(), moving_landmarks=more[1].float())
    assert found.diagnostics["landmarks_outside"] == 2
    assert found.diagnostics["landmarks_used"] == 40
    exact = scans.register(moving_landmarks=scans.points[1].float())
    assert torch.equal(found.transform.disp_mm, exact.transform.disp_mm)


P = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


@pytest.mark.parametrize(
    ("fixed", "moving", "weights", "message"),
    [
        (P, None, None, "fixed_landmarks and moving_landmarks must be given together, got fixed_landmarks alone"),
        (None, P, None, "must be given together, got moving_landmarks alone"),
        (None, None, [1.0], "must be given together, got landmark_weights alone; pass both"),
        (P, P[:1], None, "must be pairs, row by row, got 2 and 1 points"),
        (P[:, :2], P, None, r"fixed_landmarks must be points \(n, 3\) in mm RAS\+, got shape \(2, 2\)"),
        (P, P.ravel(), None, r"moving_landmarks must be points .*, got shape \(6,\)"),
        (P[:0], P[:0], None, r"got shape \(0, 3\)"),
        (P, P * np.nan, None, "moving_landmarks must be finite, got NaN or Inf"),
        (P, P, [1.0, -0.5], "landmark_weights must be 2 finite numbers of at least 0, .* and values from -0.5 to 1"),
        (P, P, [1.0], r"landmark_weights must be 2 finite numbers .*, got shape \(1,\)"),
        (P, P, [1.0, np.inf], "landmark_weights must be 2 finite numbers"),
        (P + 1e4, P, None, "fixed_landmarks must lie within the fixed image, got 2 points outside"),
        (object(), P, None, "fixed_landmarks must be a tensor or array of real numbers, .*, got <object"),
    ],
)
def test_unusable_landmarks(fixed: Any, moving: Any, weights: Any, message: str) -> None:
    grid = Grid((20, 20, 20))
    with pytest.raises(InputError, match=message):
        parse_landmarks(fixed, moving, weights, (grid, grid))


def test_landmarks_without_a_term_raise(scans: Scans) -> None:
    with pytest.raises(ConfigError, match=r"config\.landmarks must be a LandmarkTerm if landmarks are given, got None"):
        scans.register(dataclasses.replace(CONFIG, landmarks=None))


@pytest.mark.parametrize(
    "settings", [{"weight": -1.0}, {"sigma_mm": -1.0}, {"robust_scale_mm": 0.0}, {"weight": float("nan")}]
)
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        LandmarkTerm(**settings)


@pytest.mark.parametrize("term", [LandmarkTerm(), LandmarkTerm(weight=3, sigma_mm=0, robust_scale_mm=4.5), None])
def test_settings_are_saved(term: LandmarkTerm | None) -> None:
    config = RegistrationConfig(landmarks=term)
    assert RegistrationConfig.from_toml(config.to_toml()) == config
    with pytest.raises(ConfigError, match=r"landmarks .*LandmarkTerm or None"):
        RegistrationConfig(landmarks=P)  # type: ignore[arg-type]
