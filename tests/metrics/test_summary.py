"""The whole report on one transform, on shared and on different grids."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from convexadam.errors import ConfigError, GeometryError, InputError
from convexadam.geometry import Affine, DisplacementField, Grid, Image, compose
from convexadam.metrics import dice, evaluate_transform, folded_percent, hd95, sdlogj, sdlogj_plain, tail_mean

SPACING = np.diag([1.5, 1.0, 2.0, 1.0])


def oblique(shape: tuple[int, int, int]) -> Grid:
    turn = np.deg2rad(25)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, -np.sin(turn), np.cos(turn)], [-1, 0, 0], [0, np.cos(turn), np.sin(turn)]])
    affine[:3, :3] *= (1.5, 1.0, 2.0)
    affine[:3, 3] = (12, -30, 4)
    return Grid(shape, affine)


def blocks(shape: tuple[int, int, int], start: tuple[int, int, int]) -> torch.Tensor:
    """Two labels: boxes of 3 x 4 x 2 voxels, one beside the other along j."""
    i, j, k = start
    labels = torch.zeros(1, *shape, dtype=torch.uint8)
    labels[0, i : i + 3, j : j + 4, k : k + 2] = 1
    labels[0, i : i + 3, j + 4 : j + 8, k : k + 2] = 7
    return labels


def shift(grid: Grid, voxels: tuple[float, float, float]) -> DisplacementField:
    disp_vox = torch.tensor(voxels, dtype=torch.float32).reshape(3, 1, 1, 1).expand(3, *grid.shape)
    return DisplacementField.from_voxels(disp_vox, grid)


def test_worst_mean() -> None:
    values = [0.1, 0.9, 0.4, 0.3, 0.8, 0.7, 0.6]
    assert tail_mean(values, highest=False) == pytest.approx((0.1 + 0.3 + 0.4) / 3)  # ceil(0.3 * 7) = 3
    assert tail_mean(values, highest=True) == pytest.approx((0.9 + 0.8 + 0.7) / 3)
    assert tail_mean(values, 0.5, highest=True) == pytest.approx((0.9 + 0.8 + 0.7 + 0.6) / 4)
    assert tail_mean(values, 1.0, highest=True) == pytest.approx(np.mean(values))
    assert tail_mean([2.0], highest=True) == 2.0
    assert tail_mean([math.nan, 3.0, 1.0], highest=True) == 3.0
    assert math.isnan(tail_mean([], highest=True))
    for share in (0.0, -0.1, 1.5, math.nan):
        with pytest.raises(ConfigError, match="share must be above 0 and at most 1"):
            tail_mean(values, share, highest=True)


def test_true_shift_on_one_grid() -> None:
    grid = oblique((12, 14, 9))
    fixed, moving = Image(blocks(grid.shape, (3, 3, 3)), grid), Image(blocks(grid.shape, (5, 2, 4)), grid)
    points = torch.tensor([[3.0, 3, 3], [5, 9, 4]], dtype=torch.float64)
    found = evaluate_transform(
        shift(grid, (2, -1, 1)),
        fixed_labels=fixed,
        moving_labels=moving,
        fixed_landmarks_mm=grid.index_to_world(points),
        moving_landmarks_mm=grid.index_to_world(points + torch.tensor([2.0, -1, 1])),
        mask=Image(torch.ones(1, *grid.shape), grid),
    )
    assert found["n_labels"] == 2
    assert (found["dice"], found["dice30"], found["hd95_mm"]) == (1.0, 1.0, 0.0)
    assert found["dice_per_label"] == {1: 1.0, 7: 1.0}
    before = dice(fixed.data[0], moving.data[0])
    assert found["dice_before_per_label"] == before
    assert found["dice_before"] == pytest.approx(sum(before.values()) / 2)
    assert found["dice30_before"] == pytest.approx(min(before.values()))  # ceil(0.3 * 2) = 1
    distances = hd95(fixed.data[0], moving.data[0], spacing_mm=(1.5, 1.0, 2.0))
    assert found["hd95_before_mm"] == pytest.approx(sum(distances.values()) / 2)
    moved_mm = math.sqrt(3**2 + 1 + 2**2)
    assert found["n_landmarks"] == 2
    assert found["tre_mm"] == pytest.approx(0, abs=1e-5)  # a float32 field, tens of mm from the origin
    assert found["tre_before_mm"] == pytest.approx(moved_mm)
    assert found["tre30_before_mm"] == pytest.approx(moved_mm)
    assert found["displacement_max_mm"] == pytest.approx(moved_mm)
    for key in ("folded_percent", "folded_percent_mask"):
        assert found[key] == 0.0
    for key in ("sdlogj", "sdlogj_plain", "sdlogj_mask"):
        assert found[key] == pytest.approx(0, abs=1e-6)
    assert found["jacobian_min"] == pytest.approx(1, abs=1e-6)
    assert found["jacobian_max"] == pytest.approx(1, abs=1e-6)
    assert json.loads(json.dumps(found))["dice_per_label"]["7"] == 1.0


def test_transforms_without_a_grid() -> None:
    grid = oblique((12, 14, 9))
    fixed, moving = Image(blocks(grid.shape, (3, 3, 3)), grid), Image(blocks(grid.shape, (5, 2, 4)), grid)
    matrix = np.eye(4)
    matrix[:3, 3] = grid.affine[:3, :3] @ (2, -1, 1)
    half = Affine(np.array([[1, 0, 0, matrix[0, 3] / 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    for transform in (Affine(matrix), compose(half, compose(half.inverse(), Affine(matrix)))):
        found = evaluate_transform(transform, fixed_labels=fixed, moving_labels=moving)
        assert (found["dice"], found["hd95_mm"], found["folded_percent"]) == (1.0, 0.0, 0.0)
        assert found["displacement_max_mm"] == pytest.approx(math.sqrt(3**2 + 1 + 2**2))
        masked = evaluate_transform(transform, mask=Image(torch.ones(1, *grid.shape), grid))
        assert masked["folded_percent_mask"] == 0.0
        with pytest.raises(ConfigError, match="transform must have a fixed grid"):
            evaluate_transform(transform)
    chain = compose(shift(grid, (2, -1, 1)), Affine(matrix).inverse())
    assert evaluate_transform(chain)["displacement_max_mm"] == pytest.approx(0, abs=1e-4)


def test_the_worst_are_the_low_overlaps_and_the_high_distances() -> None:
    grid = Grid((12, 7, 7), SPACING)
    fixed, moving = torch.zeros(2, 1, *grid.shape, dtype=torch.int16)
    for label, kept in ((1, 4), (2, 3), (3, 2), (4, 1)):  # of four voxels each: Dice 1, 6/7, 4/6, 2/5
        fixed[0, 2:6, label, 3] = label
        moving[0, 2 : 2 + kept, label, 3] = label
    points = torch.zeros(5, 3, dtype=torch.float64)
    wrong = points.clone()
    wrong[:, 1] = torch.tensor([1.0, 8.0, 2.0, 9.0, 3.0])
    away = shift(grid, (1, 0, 0))  # one voxel of 1.5 mm to where nothing of label 4 is left
    found = evaluate_transform(
        away,
        fixed_labels=Image(fixed, grid),
        moving_labels=Image(moving, grid),
        fixed_landmarks_mm=points,
        moving_landmarks_mm=wrong,
    )
    assert found["dice_before_per_label"] == pytest.approx({1: 1, 2: 6 / 7, 3: 4 / 6, 4: 2 / 5})
    assert found["dice30_before"] == pytest.approx((4 / 6 + 2 / 5) / 2)  # ceil(0.3 * 4) = 2
    assert found["dice_per_label"] == pytest.approx({1: 6 / 8, 2: 4 / 7, 3: 2 / 6, 4: 0})
    assert found["dice30"] == pytest.approx((2 / 6 + 0) / 2)
    assert found["tre_before_mm"] == pytest.approx(23 / 5)
    assert found["tre30_before_mm"] == pytest.approx((8 + 9) / 2)
    assert found["tre30_mm"] == pytest.approx((math.hypot(8, 1.5) + math.hypot(9, 1.5)) / 2)


def test_moving_labels_on_their_own_grid() -> None:
    grid = oblique((12, 14, 9))
    fixed = Image(blocks(grid.shape, (3, 3, 3)), grid)
    # The moving scanner saw the same voxels two further along i, flipped along j and with j and k exchanged.
    own = torch.zeros(1, 17, 9, 14, dtype=torch.uint8)
    own[0, 2:14] = blocks(grid.shape, (5, 2, 4))[0].flip(1).permute(0, 2, 1)
    matrix = np.array([[1.0, 0, 0, -2], [0, 0, -1, 13], [0, 1, 0, 0], [0, 0, 0, 1]])
    moving = Image(own, Grid((17, 9, 14), grid.affine @ matrix))
    same = Image(blocks(grid.shape, (5, 2, 4)), grid)
    transform = shift(grid, (2, -1, 1))
    found = evaluate_transform(transform, fixed_labels=fixed, moving_labels=moving)
    assert found["dice"] == 1.0
    assert found == evaluate_transform(transform, fixed_labels=fixed, moving_labels=same)


def test_field_numbers_of_a_rough_field() -> None:
    disp = torch.tensor(np.random.default_rng(0).normal(0, 1.0, (3, 9, 8, 10)))
    transform = DisplacementField.from_voxels(disp, oblique((9, 8, 10)))
    mask = torch.tensor(np.random.default_rng(1).integers(0, 2, (9, 8, 10)))
    found = evaluate_transform(transform, mask=Image(mask[None], transform.grid))
    inner = transform.jacobian()[2:-2, 2:-2, 2:-2]
    expected = {
        "sdlogj": sdlogj(disp),
        "sdlogj_plain": sdlogj_plain(disp),
        "sdlogj_mask": sdlogj(disp, mask),
        "folded_percent": folded_percent(disp),
        "folded_percent_mask": folded_percent(disp, mask),
        "jacobian_min": float(inner.min()),
        "jacobian_max": float(inner.max()),
        "displacement_max_mm": float((transform.disp_mm**2).sum(0).max().sqrt()),
    }
    assert found == pytest.approx(expected)


def test_only_what_the_inputs_allow() -> None:
    grid = Grid((8, 8, 8), SPACING)
    labels = Image(torch.ones(1, 8, 8, 8, dtype=torch.int32), grid)
    bare = set(evaluate_transform(shift(grid, (0, 0, 0))))
    assert bare == {
        "sdlogj", "sdlogj_plain", "folded_percent", "jacobian_min", "jacobian_max", "displacement_max_mm"
    }  # fmt: skip
    quick = evaluate_transform(shift(grid, (0, 0, 0)), fixed_labels=labels, moving_labels=labels, surface=False)
    assert {key for key in quick if "hd95" in key} == set()
    assert quick["dice"] == 1.0
    truth = evaluate_transform(
        shift(grid, (0, 0, 0)), fixed_labels=labels, moving_labels=labels, surface=False, regularity=False
    )
    assert truth == {name: value for name, value in quick.items() if name not in bare}


def test_lost_and_unwanted_labels() -> None:
    grid = Grid((12, 14, 9), SPACING)
    fixed = Image(blocks(grid.shape, (3, 3, 3)), grid)
    moving = fixed.data.clone()
    moving[moving == 7] = 0
    moving[0, 0, 0, 0], moving[0, 1, 0, 0] = 7, 9  # label 7 is a speck far away, 9 is not in the fixed image
    # Reading 20 voxels further finds nothing at all: every label is lost.
    found = evaluate_transform(shift(grid, (20, 0, 0)), fixed_labels=fixed, moving_labels=Image(moving, grid))
    assert found["dice_per_label"] == {1: 0.0, 7: 0.0}
    assert math.isnan(found["hd95_mm"])
    assert found["dice_before_per_label"] == {1: 1.0, 7: 0.0}
    some = evaluate_transform(
        shift(grid, (0, 0, 0)), fixed_labels=fixed, moving_labels=Image(moving, grid), labels=[1, 9, 55]
    )
    assert some["dice_per_label"] == {1: 1.0}
    assert some["n_labels"] == 1


def test_labels_of_a_scaled_file_are_floating_point() -> None:
    grid = Grid((12, 14, 9), SPACING)
    labels = Image(blocks(grid.shape, (3, 3, 3)).float(), grid)
    assert evaluate_transform(shift(grid, (0, 0, 0)), fixed_labels=labels, moving_labels=labels)["dice"] == 1.0
    mixed = Image(labels.data + 0.5, grid)
    with pytest.raises(InputError, match="fixed_labels must contain whole numbers, got other values"):
        evaluate_transform(shift(grid, (0, 0, 0)), fixed_labels=mixed, moving_labels=labels)


def test_refusals() -> None:
    grid = Grid((8, 8, 8), SPACING)
    still, points = shift(grid, (0, 0, 0)), torch.zeros(2, 3)
    ones, twos = (Image(torch.full((1, 8, 8, 8), n), grid) for n in (1, 2))
    elsewhere = Image(ones.data, Grid((8, 8, 8)))
    with pytest.raises(ConfigError, match="moving_labels must be given together with fixed_labels"):
        evaluate_transform(still, fixed_labels=ones)
    with pytest.raises(ConfigError, match="fixed_landmarks_mm must be given together with moving_landmarks_mm"):
        evaluate_transform(still, moving_landmarks_mm=points)
    with pytest.raises(InputError, match="must have a label in common"):
        evaluate_transform(still, fixed_labels=ones, moving_labels=twos)
    with pytest.raises(GeometryError, match="fixed_labels must be on the grid of the transform"):
        evaluate_transform(still, fixed_labels=elsewhere, moving_labels=ones)
    with pytest.raises(GeometryError, match="mask must be on the grid of the transform"):
        evaluate_transform(still, mask=elsewhere)
    with pytest.raises(InputError, match="moving_labels must have one channel, got 2"):
        evaluate_transform(still, fixed_labels=ones, moving_labels=Image(ones.data.expand(2, 8, 8, 8), grid))
