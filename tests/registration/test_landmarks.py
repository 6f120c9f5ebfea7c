"""Landmarks that guide a registration: where the images say nothing they decide, and wrong ones do little harm."""

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
    GivenGrid,
    Grid,
    Image,
    InputError,
    IsotropicGrid,
    LandmarkGuide,
    RegistrationConfig,
    RegistrationResult,
    register,
)
from convexadam.continuous import LevenbergMarquardt
from convexadam.data import phantom_pair
from convexadam.io import write_landmarks
from convexadam.metrics import tre
from convexadam.registration.guide import checked_landmarks

SHAPE = (36, 32, 28)
SILENT = 16
"""First plane of the part in which both images are constant."""

CONFIG = RegistrationConfig(linear=None, landmarks=LandmarkGuide(sigma_mm=15.0))


class Scans:
    """A torso of which one half is blank, the motion that is known all the same, and points in the blank half."""

    def __init__(self, affine: np.ndarray) -> None:
        pair = phantom_pair(SHAPE, affine=affine, displacement_mm=30.0, seed=1)
        self.truth = DisplacementField.from_voxels(pair.disp_vox, pair.fixed.grid)
        self.fixed, self.moving = blank(pair.fixed), blank(pair.moving)
        room = torch.tensor([SHAPE[0] - SILENT - 8, SHAPE[1] - 8, SHAPE[2] - 8])
        points = torch.tensor([SILENT + 4, 4, 4]) + oracles.uniform(70, 3, seed=2) * room
        at_mm = self.fixed.grid.to_mm(points)
        there_mm = self.truth.warp_points(at_mm, space="mm")
        self.points, self.held = (at_mm[:40], there_mm[:40]), (at_mm[40:], there_mm[40:])

    def registered(self, config: RegistrationConfig = CONFIG, *, guided: bool = True, **options: Any) -> Any:
        points = dict(zip(("fixed_landmarks", "moving_landmarks"), self.points, strict=True)) if guided else {}
        return register(self.fixed, self.moving, config, **(points | options))

    @cached_property
    def plain(self) -> RegistrationResult:
        """What the images say by themselves."""
        return self.registered(guided=False)

    @cached_property
    def found(self) -> RegistrationResult:
        """What they say together with the points."""
        return self.registered()

    def error_mm(self, result: RegistrationResult) -> float:
        """Mean error of the points that were held back."""
        return float(tre(*self.held, result.transform).mean())


def blank(image: Image) -> Image:
    data = image.data.clone()
    data[:, SILENT:] = 0
    return Image(data, image.grid)


@pytest.fixture(scope="module")
def scans() -> Scans:
    return Scans(oracles.oblique_affine((10.0, 9.0, 10.0), degrees=(0.0, 0.0, 0.0)))


def test_points_decide_where_the_images_say_nothing(scans: Scans) -> None:
    plain, found = scans.plain, scans.found
    assert scans.error_mm(found) < 0.5 * scans.error_mm(plain)
    assert float(tre(*scans.points, found.transform).mean()) < 0.1 * float(tre(*scans.points).mean())
    assert found.diagnostics["folded_percent"] == 0
    assert found.diagnostics["landmarks_used"] == 40
    assert found.diagnostics["landmarks_outside"] == 0
    apart_mm = tre(*scans.points, found.transform)
    assert found.diagnostics["landmark_error_mean_mm"] == pytest.approx(float(apart_mm.mean()))
    assert found.diagnostics["landmark_error_max_mm"] == pytest.approx(float(apart_mm.max()))
    assert not [name for name in plain.diagnostics if name.startswith("landmark")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"discrete": None},
        {"continuous": None},
        {"continuous": dataclasses.replace(CONFIG.continuous, optimiser=LevenbergMarquardt())},  # type: ignore[type-var]
        {"discrete": (ConvexSearch(spacing=4), ConvexSearch(spacing=2, radius=2))},
    ],
)
def test_each_stage_follows_points(scans: Scans, changes: dict[str, Any]) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    assert scans.error_mm(scans.registered(config)) < 0.6 * scans.error_mm(scans.registered(config, guided=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("affine", "grid"),
    [
        (oracles.oblique_affine((10.0, 9.0, 10.0)), IsotropicGrid()),
        (oracles.oblique_affine((9.0, 7.0, 13.0), axes=(2, 0, 1), flips=(True, False, True)), GivenGrid()),
    ],
)
def test_grids_that_are_oblique_and_anisotropic(affine: np.ndarray, grid: Any) -> None:
    scans, config = Scans(affine), dataclasses.replace(CONFIG, grid=grid)
    plain, found = scans.registered(config, guided=False), scans.registered(config)
    assert scans.error_mm(found) < 0.5 * scans.error_mm(plain)


@pytest.mark.slow
def test_the_other_way_round_where_both_directions_run(scans: Scans) -> None:
    config = dataclasses.replace(CONFIG, symmetric=True)
    plain, found = scans.registered(config, guided=False), scans.registered(config)
    assert scans.error_mm(found) < 0.5 * scans.error_mm(plain)
    back = [float(tre(*scans.held[::-1], result.inverse).mean()) for result in (found, plain)]
    assert back[0] < 0.5 * back[1]


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_linear_start_changes_nothing_but_the_frame(scans: Scans, symmetric: bool) -> None:
    """A moving image in another place, with a start that says so: points belong to where they are seen."""
    config = dataclasses.replace(CONFIG, symmetric=symmetric)
    leap = oracles.oblique_affine((1.0, 1.0, 1.0), degrees=(25.0, -40.0, 15.0), origin=(120.0, -40.0, 66.0))
    elsewhere = Image(scans.moving.data, Grid(SHAPE, leap @ scans.moving.grid.affine))
    there_mm = Affine(leap).warp_points(scans.points[1], space="mm")
    plain = scans.registered(config) if symmetric else scans.found
    found = register(
        scans.fixed,
        elsewhere,
        config,
        initial_transform=leap,
        fixed_landmarks=scans.points[0],
        moving_landmarks=there_mm,
    )
    expected = Affine(leap).warp_points(plain.transform.warp_points(scans.held[0], space="mm"), space="mm")
    # rounding of positions, which choices of the search may enlarge
    torch.testing.assert_close(found.transform.warp_points(scans.held[0], space="mm"), expected, rtol=0, atol=0.2)


@pytest.mark.slow
def test_a_start_that_bends(scans: Scans) -> None:
    half = DisplacementField(scans.truth.disp_mm / 2, scans.truth.grid)
    found = scans.registered(initial_transform=half)
    assert scans.error_mm(found) < 0.5 * scans.error_mm(scans.plain)
    assert scans.error_mm(found) < 0.5 * float(tre(*scans.held, half).mean())


@pytest.mark.slow
def test_a_wrong_pair_does_little_harm(scans: Scans) -> None:
    wrong = scans.points[1].clone()
    wrong[7] += torch.tensor([60.0, -50.0, 70.0], dtype=torch.float64)
    trusting, wary = CONFIG, dataclasses.replace(CONFIG, landmarks=LandmarkGuide(sigma_mm=15.0, outlier_mm=15.0))
    with_limit = scans.registered(wary, moving_landmarks=wrong)
    without = scans.registered(trusting, moving_landmarks=wrong)
    around = (scans.held[0] - scans.points[0][7]).norm(dim=1).topk(5, largest=False).indices
    errors = [
        float(tre(*(p[around] for p in scans.held), r.transform).mean()) for r in (scans.found, with_limit, without)
    ]
    assert errors[1] < errors[2]
    assert errors[1] < errors[0] + 3.0  # mm; the wrong pair says 105 mm
    assert without.diagnostics["folded_percent"] == with_limit.diagnostics["folded_percent"] == 0
    assert with_limit.diagnostics["landmark_error_max_mm"] > 60


@pytest.mark.parametrize("how", ["weight", "weights", "refused"])
def test_no_weight_is_no_guide(scans: Scans, how: str) -> None:
    guide = {"weight": LandmarkGuide(weight=0.0), "weights": LandmarkGuide(), "refused": None}[how]
    options = {"landmark_weights": np.zeros(40)} if how == "weights" else {}
    found = scans.registered(dataclasses.replace(CONFIG, landmarks=guide), guided=how != "refused", **options)
    assert torch.equal(found.transform.disp_mm, scans.plain.transform.disp_mm)


def test_weights_of_pairs(scans: Scans) -> None:
    wrong = scans.points[1].clone()
    wrong[::2] += 40
    weights = [0.0, 1.0] * 20
    few = scans.registered(fixed_landmarks=scans.points[0][1::2], moving_landmarks=scans.points[1][1::2])
    found = scans.registered(moving_landmarks=wrong, landmark_weights=weights)
    assert torch.equal(found.transform.disp_mm, few.transform.disp_mm)
    assert found.diagnostics["landmarks_used"] == 20


def test_files_hold_voxel_indices_of_their_own_image(tmp_path: Path, scans: Scans) -> None:
    other = Grid((50, 40, 30), oracles.oblique_affine((2.0, 3.0, 4.0)))
    write_landmarks(scans.fixed.grid.to_voxels(scans.points[0]), tmp_path / "fixed.csv")
    write_landmarks(other.to_voxels(scans.points[1]), tmp_path / "moving.csv")
    grids = scans.fixed.grid, other
    found = checked_landmarks(tmp_path / "fixed.csv", str(tmp_path / "moving.csv"), None, grids)
    assert found is not None
    torch.testing.assert_close(found.fixed_mm, scans.points[0])
    torch.testing.assert_close(found.moving_mm, scans.points[1])


def test_points_outside_the_fixed_image_are_left_out_and_counted(scans: Scans) -> None:
    far = torch.tensor([[5000.0, 0.0, 0.0], [0.0, 0.0, -4000.0]], dtype=torch.float64)
    more = [torch.cat([points, far]) for points in scans.points]
    found = scans.registered(fixed_landmarks=more[0].numpy(), moving_landmarks=more[1].float())
    assert found.diagnostics["landmarks_outside"] == 2
    assert found.diagnostics["landmarks_used"] == 40
    exact = scans.registered(moving_landmarks=scans.points[1].float())
    assert torch.equal(found.transform.disp_mm, exact.transform.disp_mm)


P = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


@pytest.mark.parametrize(
    ("fixed", "moving", "weights", "message"),
    [
        (P, None, None, "only one of fixed_landmarks and moving_landmarks"),
        (None, P, None, "only one of"),
        (None, None, [1.0], "landmark_weights came without landmarks"),
        (P, P[:1], None, "2 fixed and 1 moving"),
        (P[:, :2], P, None, r"fixed_landmarks are points \(n, 3\) in mm RAS\+, but the shape \(2, 2\)"),
        (P, P.ravel(), None, "moving_landmarks are points"),
        (P[:0], P[:0], None, r"shape \(0, 3\)"),
        (P, P * np.nan, None, "moving_landmarks hold NaN or Inf"),
        (P, P, [1.0, -0.5], "at least 0, one for each pair, but .* the least of them -0.5"),
        (P, P, [1.0], r"2 finite numbers .* but \(1,\) came"),
        (P, P, [1.0, np.inf], "finite numbers"),
        (P + 1e4, P, None, "none of the 2 fixed landmarks lies within the fixed image"),
        (object(), P, None, "but a object came"),
    ],
)
def test_what_is_no_list_of_pairs(fixed: Any, moving: Any, weights: Any, message: str) -> None:
    grid = Grid((20, 20, 20))
    with pytest.raises(InputError, match=message):
        checked_landmarks(fixed, moving, weights, (grid, grid))


def test_settings_that_refuse_landmarks(scans: Scans) -> None:
    with pytest.raises(ConfigError, match=r"config\.landmarks is None"):
        scans.registered(dataclasses.replace(CONFIG, landmarks=None))


@pytest.mark.parametrize(
    "settings", [{"weight": -1.0}, {"sigma_mm": -1.0}, {"outlier_mm": 0.0}, {"weight": float("nan")}]
)
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        LandmarkGuide(**settings)


@pytest.mark.parametrize("guide", [LandmarkGuide(), LandmarkGuide(weight=3, sigma_mm=0, outlier_mm=4.5), None])
def test_settings_are_saved(guide: LandmarkGuide | None) -> None:
    config = RegistrationConfig(landmarks=guide)
    assert RegistrationConfig.from_toml(config.to_toml()) == config
    with pytest.raises(ConfigError, match="landmarks is LandmarkGuide or None"):
        RegistrationConfig(landmarks=P)  # type: ignore[arg-type]
