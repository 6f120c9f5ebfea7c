"""The oracles against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracles
import pytest


def _line(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=float).reshape(1, 1, 1, -1)


def test_indices_name_each_voxel() -> None:
    assert oracles.indices((2, 3, 4))[:, 1, 2, 3].tolist() == [1, 2, 3]


def test_oblique_affine_turns_scales_and_orders_the_axes() -> None:
    # 90 degrees about z: world x goes to y, y to -x. Axis 0 runs against y (so towards +x), axis 1 along x (towards y).
    affine = oracles.oblique_affine(
        (2, 3, 4), degrees=(0, 0, 90), origin=(7, 8, 9), axes=(1, 0, 2), flips=(True, False, False)
    )
    assert affine == pytest.approx(np.array([[2, 0, 0, 7], [0, 3, 0, 8], [0, 0, 4, 9], [0, 0, 0, 1]], float))
    assert oracles.mm_of_voxels(affine, (2, 2, 2))[:, 1, 0, 1] == pytest.approx([9, 8, 13])
    general = oracles.oblique_affine((2, 3, 4))
    assert general[:3, :3].T @ general[:3, :3] == pytest.approx(np.diag([4.0, 9, 16]))


def test_blobs_are_defined_anywhere() -> None:
    near = oracles.blobs(oracles.indices((4, 5, 6)), (4, 5, 6), channels=2, sigma=2.0)
    far = oracles.blobs(oracles.indices((4, 5, 6)) + 1.0, (4, 5, 6), channels=2, sigma=2.0)
    assert near[:, 1:, 1:, 1:] == pytest.approx(far[:, :-1, :-1, :-1])


def test_trilinear_mixes_the_eight_neighbours() -> None:
    volume = np.arange(8.0).reshape(1, 2, 2, 2)  # 4 i + 2 j + k
    positions = np.array([0.25, 0.5, 0.75]).reshape(3, 1, 1, 1)
    assert oracles.trilinear(volume, positions)[0, 0, 0, 0] == 4 * 0.25 + 2 * 0.5 + 0.75


def test_trilinear_reads_edge_values_outside() -> None:
    positions = np.array([[0, 0, -3.0], [0, 0, 7.0]]).T.reshape(3, 2, 1, 1)
    assert oracles.trilinear(_line([5, 6, 9]), positions).ravel().tolist() == [5, 9]


def test_nearest_takes_one_voxel() -> None:
    positions = np.array([[0, 0, 1.4], [0, 0, 1.6], [0, 0, 99.0]]).T.reshape(3, 3, 1, 1)
    assert oracles.nearest(_line([5, 6, 9]), positions).ravel().tolist() == [6, 9, 9]


def test_inside_ends_half_a_voxel_beyond_the_centres() -> None:
    at = [-0.51, -0.5, 0.0, 2.5, 2.51]
    positions = np.zeros((3, 5, 1, 1))
    positions[2, :, 0, 0] = at
    assert oracles.inside(positions, (1, 1, 3)).ravel().tolist() == [False, True, True, True, False]


def test_compose_reads_at_the_displaced_place() -> None:
    field = np.zeros((3, 1, 1, 3))
    field[2, 0, 0] = [10, 20, 30]
    displacement = np.zeros((3, 1, 1, 3))
    displacement[2, 0, 0] = [1, 0.5, -2]
    assert oracles.compose(field, displacement)[2].ravel().tolist() == [20, 25, 10]


def test_mean3_divides_by_the_neighbours_there_are() -> None:
    assert oracles.mean3(_line([3, 6, 0, 12])).ravel().tolist() == [4.5, 3, 6, 6]


def test_smooth_keeps_the_weights_in_order() -> None:
    # interior: 1/4 x + 1/2 y + 1/4 z; ends: (2 x + y) / 3
    assert oracles.smooth(_line([4, 8, 0]), (0.25, 0.5, 0.25)).ravel() == pytest.approx([16 / 3, 5, 8 / 3])


def test_smooth_counts_nodes_by_their_evidence() -> None:
    evidence = np.array([[[1.0, 0.5, 0.0]]])
    # (2 * 4 + 1/2 * 8) / 2.5; (4 + 8 + 0.001 * 60) / (1 + 1 + 0.001); (1/2 * 8 + 2 * 0.001 * 60) / (1/2 + 0.002)
    found = oracles.smooth(_line([4, 8, 60]), (1.0, 2.0, 1.0), evidence).ravel()
    assert found == pytest.approx([12 / 2.5, 12.06 / 2.001, 4.12 / 0.502])


def test_pool_leaves_out_what_fills_no_block() -> None:
    assert oracles.pool(_line([1, 3, 10, 20, 99]), (1, 1, 2)).ravel().tolist() == [2, 15]


def test_pool_with_weights() -> None:
    weight = np.array([1.0, 3, 0, 0]).reshape(1, 1, 4)
    assert oracles.pool(_line([1, 3, 10, 20]), (1, 1, 2), weight).ravel().tolist() == [2.5, 0]


def test_node_weights_are_those_of_whole_blocks() -> None:
    weight = np.array([1.0, 0.5, 0, 2, 0, 0, 9]).reshape(1, 1, 7)
    assert oracles.node_weights(weight, (1, 1, 2)).ravel().tolist() == [0.75, 0, 0]
    assert oracles.node_weights(weight[..., 2:], (1, 1, 2)).ravel().tolist() == [1, 0]  # none is whole


def test_nodes_lie_in_the_middle_of_their_blocks() -> None:
    positions = oracles.control_point_positions((7, 5, 4), (3, 2, 4))
    assert positions[0, :, 0, 0].tolist() == [1, 4]
    assert positions[1, 0, :, 0].tolist() == [0.5, 2.5]
    assert positions[2, 0, 0].tolist() == [1.5]


def test_nodes_to_voxels_is_linear_between_nodes_and_flat_outside() -> None:
    # nodes at 0.5 and 2.5; voxels 0..4
    found = oracles.control_points_to_voxels(_line([0, 4]), (1, 1, 2), (1, 1, 5))
    assert found.ravel().tolist() == [0, 1, 3, 4, 4]


def test_voxels_to_nodes() -> None:
    assert oracles.voxels_to_control_points(_line([0, 2, 4, 8, 99]), (1, 1, 2)).ravel().tolist() == [1, 6]


def test_mind_has_twelve_pairs() -> None:
    pairs = oracles.neighbour_pairs()
    assert len({frozenset(pair) for pair in pairs}) == 12


def test_mind_of_a_ramp_along_one_axis() -> None:
    # I = k: pairs of an i- and a j-neighbour do not differ; a pair with a k-neighbour differs by the dilation d.
    volume = np.broadcast_to(np.arange(9.0), (9, 9, 9)).copy()
    found = oracles.mind_ssc(volume, 1, 2)
    for pair, values in found.items():
        with_k = any(step[2] for step in pair)
        # S = d^2 = 4 for 8 of 12 pairs, 0 for the rest: v = 8/3, S / v = 1.5
        assert values[4, 4, 4] == pytest.approx(math.exp(-1.5) if with_k else 1.0)


def test_mind_variance_is_clamped_around_its_mean() -> None:
    distances = {frozenset([(n, 0, 0)]): np.zeros((1, 1, 2001)) for n in range(2)}
    distances[frozenset([(1, 0, 0)])][0, 0, 0] = 2001.0 * 2 * 7  # v = 7 * 2001 there, 0 elsewhere: m = 7
    variance = oracles.mind_variance(distances)
    assert variance[0, 0, 0] == pytest.approx(7000)
    assert variance[0, 0, 1] == pytest.approx(0.007)


def test_feature_distances_of_a_line() -> None:
    found = oracles.feature_distances(_line([1, 4]), _line([0, 2]), (0, 0, 1))
    assert found.reshape(3, 2).tolist() == [[np.inf, 16], [1, 4], [1, np.inf]]
    assert oracles.feature_distances(np.ones((2, 1, 1, 1)), np.full((2, 1, 1, 1), 3.0), (0, 0, 0)).item() == 8


def test_cost_volume_of_single_cells() -> None:
    costs = oracles.cost_volume(np.full((2, 1, 1, 1), 3.0), np.full((2, 1, 1, 1), 1.0), (0, 0, 1))
    assert costs.shape == (1, 1, 3, 1, 1, 1)
    assert costs.ravel().tolist() == [np.inf, 8, np.inf]


def test_cost_volume_on_a_line() -> None:
    # Differences without displacement 0 0 9 0 0; two means of three give 1 2 3 2 1 (/ 9), cut off at the ends.
    costs = oracles.cost_volume(_line([0, 0, 3, 0, 0]), _line([0, 0, 0, 0, 0]), (0, 0, 0))
    assert costs.ravel() == pytest.approx([9 / 6, 18 / 8, 27 / 9, 18 / 8, 9 / 6])


def test_cost_volume_counts_only_what_is_inside() -> None:
    # d = +1 on two cells: only y = 0 has a partner; both cells see it.
    costs = oracles.cost_volume(_line([5, 0]), _line([0, 7]), (0, 0, 1))
    assert costs[0, 0, 2].ravel() == pytest.approx([4, 4])
    assert costs[0, 0, 0].ravel() == pytest.approx([0, 0])


def test_cost_volume_with_weights() -> None:
    # differences 1 and 16; weights 1 and 3: at 0, taps 3 and 2; at 1, taps 2 and 3.
    weight = np.array([1.0, 3.0]).reshape(1, 1, 2)
    costs = oracles.cost_volume(_line([1, 4]), _line([0, 0]), (0, 0, 0), weight)
    assert costs.ravel() == pytest.approx([(3 + 96) / (3 + 6), (2 + 144) / (2 + 9)])


def test_fill_without_evidence() -> None:
    costs = np.array([[1, np.inf], [3, np.inf], [np.inf, np.inf]]).reshape(1, 1, 3, 1, 1, 2)
    assert oracles.fill_without_evidence(costs).reshape(3, 2).tolist() == [[1, 0], [3, 0], [2, 0]]


def test_coupled_argmin() -> None:
    costs = np.array([[0.0, 1], [0.5, 1], [0.9, 1]]).reshape(1, 1, 3, 1, 1, 2)
    assert oracles.coupled_argmin(costs)[2].ravel().tolist() == [-1, 0]
    toward = np.ones((3, 1, 1, 2))
    # theta 1: the label -1 costs 4 more and 0 costs 1 more than +1 does
    assert oracles.coupled_argmin(costs, toward, 1.0)[2].ravel().tolist() == [1, 1]
    # theta 0.3 at x = 0: 1.2, 0.8, 0.9
    assert oracles.coupled_argmin(costs, toward, 0.3)[2].ravel().tolist() == [0, 1]


def test_subcell_argmin() -> None:
    # (d - 0.25)^2 + 1 at -1, 0, 1; a minimum at the end of the window; three equal costs
    costs = np.array([[2.5625, 3, 1], [1.0625, 2, 1], [1.5625, 1, 1]]).reshape(1, 1, 3, 1, 1, 3)
    assert oracles.coupled_argmin(costs, parabolic_fit=True)[2].ravel() == pytest.approx([0.25, 1, 0])
    # with theta 1 towards -0.75 the first is (d - 0.25)^2 + (d + 0.75)^2 = 2 (d + 0.25)^2 + const
    found = oracles.coupled_argmin(costs, np.full((3, 1, 1, 3), -0.75), 1.0, parabolic_fit=True)
    assert found[2, 0, 0, 0] == pytest.approx(-0.25)
    assert np.abs(found[:2]).max() == 0


def test_coupled_convex_smooths_each_choice() -> None:
    costs = np.ones((1, 1, 3, 1, 1, 3))
    costs[0, 0, 2, 0, 0, 0] = 0  # x = 0 wants +1, the others do not care
    # choice 1 0 0, smoothed 1/2 1/3 0. With theta 1: cell 0 stays at +1, the others go to 0 (nearest of 1/3 and 0).
    assert oracles.coupled_convex(costs, ())[2].ravel() == pytest.approx([1 / 2, 1 / 3, 0])
    assert oracles.coupled_convex(costs, (1.0,))[2].ravel() == pytest.approx([1 / 2, 1 / 3, 0])


def test_inverse_consistency_of_shifts() -> None:
    u, v = np.full((3, 2, 2, 2), 2.0), np.full((3, 2, 2, 2), -1.0)
    u, v = oracles.inverse_consistency(u, v, 1)
    assert np.unique(u).tolist() == [1.5]
    assert np.unique(v).tolist() == [-1.5]


def test_ssd_and_its_gradient() -> None:
    fixed, moving = _line([0, 0, 0, 0]), _line([0, 1, 4, 9])
    displacement = np.zeros((3, 1, 1, 4))
    displacement[2, 0, 0] = [0.5, 0.5, 0.25, 3]
    weights = oracles.ssd_weights(displacement)
    assert weights.ravel().tolist() == [1, 1, 1, 0]
    # residuals 0.5, 2.5, 5.25
    assert oracles.ssd(fixed, moving, displacement, weights) == pytest.approx((0.25 + 6.25 + 27.5625) / 4)
    gradient = oracles.ssd_gradient(fixed, moving, displacement, weights)
    assert gradient[2].ravel() == pytest.approx([2 * 0.5 * 1 / 4, 2 * 2.5 * 3 / 4, 2 * 5.25 * 5 / 4, 0])
    assert np.abs(gradient[:2]).max() == 0
    # of squares 0.25, 6.25 and 27.5625, half as much at 6.25
    found = oracles.ssd(fixed, moving, displacement, weights, 6.25)
    assert found == pytest.approx((0.25 / 1.04 + 6.25 / 2 + 27.5625 / 5.41) / 4)
    kept = oracles.robust_weights(fixed, moving, displacement, weights, 6.25)
    assert kept.ravel() == pytest.approx([1.04**-2, 2**-2, 5.41**-2, 0])


def test_gauss_newton() -> None:
    moving = np.array([[[0.0, 1, 3]], [[0, -2, 0]]]).reshape(2, 1, 1, 3)
    displacement = np.zeros((3, 1, 1, 3))
    displacement[2, 0, 0] = [0.5, 0.5, 0.3]  # slopes 1 and -2, 2 and 2, and none beyond the last node
    block = oracles.gauss_newton(moving, displacement, np.array([[[1.0, 0.5, 1.0]]]))
    assert block[5].ravel() == pytest.approx([2 / 3 * 5, 2 / 3 * 0.5 * 8, 0])
    assert np.abs(block[:5]).max() == 0
    nodes = oracles.indices((2, 2, 2))
    ramp, to_the_middle = np.tensordot([[2.0, 3, 5]], nodes, 1), 0.5 - nodes
    block = oracles.gauss_newton(ramp, to_the_middle, np.full((2, 2, 2), 4.0))  # 2 / N w = 1
    assert block[:, 1, 0, 1] == pytest.approx([4, 6, 10, 9, 15, 25])
    assert oracles.third_of_trace(block)[1, 0, 1] == pytest.approx((4 + 9 + 25) / 3)


def test_lncc_and_its_blocks() -> None:
    fixed, moving = _line([0, 1, 2, 9]), _line([1, 0, -1, 5])
    still, weights = np.zeros((3, 1, 1, 4)), np.array([[[1.0, 1.0, 1.0, 0.0]]])
    cov, vf, vm, total = oracles.local_moments(fixed[0], moving[0], weights, 1)
    assert cov.ravel() == pytest.approx([-1 / 4, -2 / 3, -1 / 4, 0])
    assert vf.ravel() == pytest.approx([1 / 4, 2 / 3, 1 / 4, 0])
    assert vm.ravel() == pytest.approx([1 / 4, 2 / 3, 1 / 4, 0])
    assert total.ravel().tolist() == [2, 3, 2, 0]
    same: Any = {"radius": 1, "floors": [(0.0, 0.0)]}
    assert oracles.lncc(fixed, moving, still, weights, **same) == pytest.approx(0)
    higher: Any = {"radius": 1, "floors": [(0.0, 0.25)]}
    assert oracles.lncc(fixed, moving, still, weights, **higher) == pytest.approx((1 / 2 + 3 / 11 + 1 / 2) / 4)
    half = still.copy()
    half[2, 0, 0, :3] = [0.5, 0.0, -0.5]  # values 0.5, 0, -0.5: slopes of -1
    cov, _, vm, _ = oracles.local_moments(fixed[0], oracles.compose(moving, half)[0], weights, 1)
    assert cov.ravel()[:2] == pytest.approx([-1 / 8, -1 / 3])
    assert vm.ravel()[:2] == pytest.approx([1 / 16, 1 / 6])
    # 2 / vm of each window over its nodes: 16, 4 and 16
    block = oracles.lncc_blocks(fixed, moving, half, weights, **same)
    assert block[5].ravel()[[0, 2]] == pytest.approx([(16 + 4) / 4, (4 + 16) / 4])
    assert np.abs(block[:5]).max() == 0


def test_variance_of_some_nodes() -> None:
    assert oracles.variance(_line([1, 3, 50])[0], np.array([[[1.0, 3.0, 0.0]]])) == pytest.approx(3 / 4)
    assert oracles.variance(_line([1, 3])[0]) == 1


def test_damped_step() -> None:
    slopes = np.array([3.0, 0.0, -4.0, 2.0]).reshape(4, 1, 1, 1)
    # curvature 2 and damping 3: a fifth of the gradient, of length 1; 3 * 3/5 + 4 * 4/5 - 2 / 2
    step, gain = oracles.damped_step(slopes, slopes, 3.0)
    np.testing.assert_allclose(step.ravel(), [-0.6, 0, 0.8])
    assert gain == pytest.approx(5 - 1)
    # cut to a half: half of the slope, a quarter of the curvature
    step, gain = oracles.damped_step(slopes, slopes, 3.0, longest=0.5)
    np.testing.assert_allclose(step.ravel(), [-0.3, 0, 0.4])
    assert gain == pytest.approx(2.5 - 0.25)
    # another mean turns the step, and it may lead upwards: -(3 * 1) - 2 / 2
    step, gain = oracles.damped_step(slopes, np.array([-4.0, 0, 0, 2.0]).reshape(4, 1, 1, 1), 2.0)
    assert (step.ravel().tolist(), gain) == ([1, 0, 0], -4)


def test_ssd_weights_multiply() -> None:
    displacement = np.zeros((3, 1, 1, 2))
    displacement[2, 0, 0, 0] = 0.5
    weights = oracles.ssd_weights(displacement, np.array([[[2.0, 3.0]]]), np.array([[[1.0, 0.5]]]))
    assert weights.ravel().tolist() == [1.5, 1.5]


def test_ssd_weights_need_all_that_is_interpolated() -> None:
    displacement = np.zeros((3, 1, 1, 3))
    displacement[2, 0, 0] = [0.5, -0.9995, -0.998]
    weights = oracles.ssd_weights(displacement, None, np.array([[[1.0, 0.0, 1.0]]]))
    # half of it; 0.0005 of it; all but 0.002 of it
    assert weights.ravel() == pytest.approx([0, 0.9995, 0])


def test_diffusion_energy() -> None:
    field = np.zeros((3, 1, 2, 3))
    field[1, 0, 0] = [0, 1, 3]  # along k: 1 + 4; along j: 0 + 1 + 9
    assert oracles.diffusion_energy(field) == pytest.approx(15 / (3 * 6))


def test_bending_energy() -> None:
    field = np.zeros((3, 1, 2, 4))
    # along k: -1 and 3 in the first row, 0 in the second; across: the rows' steps 1 0 3 and 0 0 0, twice
    field[1, 0, 0] = [0, 1, 1, 4]
    assert oracles.bending_energy(field) == pytest.approx((1 + 9 + 2 * (1 + 9)) / (3 * 8))
    line = np.zeros((3, 5, 1, 1))
    line[2, :, 0, 0] = np.arange(5) ** 2  # 2 at the three inner nodes
    assert oracles.bending_energy(line) == pytest.approx(3 * 4 / (3 * 5))


def test_volume_change() -> None:
    field = np.zeros((3, 1, 1, 3))
    field[2, 0, 0] = [0, 1, -2]  # slopes 1, -1, -3: determinants 2, 0, -2
    slope = 2 * math.log(0.05) / 0.05
    costs = [math.log(2) ** 2, math.log(0.05) ** 2 - 0.05 * slope, math.log(0.05) ** 2 - 2.05 * slope]
    assert oracles.volume_change(field) == pytest.approx(sum(costs) / 3)
    assert oracles.volume_change(field, np.array([[[1.0, 0.5, 0]]])) == pytest.approx((costs[0] + costs[1] / 2) / 3)


def test_bilateral() -> None:
    field = np.zeros((3, 1, 1, 3))
    field[1, 0, 0] = [0, 2, 5]
    guide = np.array([0.0, 0, 1]).reshape(1, 1, 1, 3)
    near, across = math.exp(-1 / 8), math.exp(-1 / 8 - 2)  # one node apart; and 1 in the guide
    found = oracles.bilateral(field, guide, sigma=2, sigma_guide=0.5)
    expected = [2 * near / (1 + near), (2 + 5 * across) / (1 + near + across), (5 + 2 * across) / (1 + across)]
    assert found[1].ravel() == pytest.approx(expected)
    moved = near * math.exp(-4 / 18)  # a difference of 2, for a sigma of 3
    found = oracles.bilateral(field[..., :2], guide[..., :2], sigma=2, sigma_guide=0.5, sigma_field=3)
    assert found[1].ravel() == pytest.approx([2 * moved / (1 + moved), 2 / (1 + moved)])
    assert not found[[0, 2]].any()


def test_jacobian_of_a_stretch() -> None:
    field = np.zeros((3, 3, 4, 5))
    ticks = oracles.indices((3, 4, 5))
    field[0], field[1], field[2] = 0.5 * ticks[0], -0.25 * ticks[1] + 3 * ticks[2], ticks[2]
    assert oracles.jacobian(field) == pytest.approx(1.5 * 0.75 * 2)
    assert oracles.jacobian(np.ones((3, 1, 1, 1))).tolist() == [[[1.0]]]
