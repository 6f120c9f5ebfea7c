"""The displacements that a search tries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from convexadam.kernels.window import Window


@pytest.mark.parametrize("radius", [(0, 0, 0), (1, 2, 0), (2, 1, 3)])
def test_a_box_has_all_of_them_with_the_last_axis_fastest(radius: tuple[int, int, int]) -> None:
    expected = itertools.product(*(range(-r, r + 1) for r in radius))
    assert Window(radius).steps == tuple(expected)


def test_a_ball_leaves_out_the_corners() -> None:
    assert len(Window((6, 6, 6), ball=True).steps) == 925  # points of a lattice within 6 of one of them
    assert len(Window((6, 6, 6)).steps) == 13**3
    ellipsoid = set(Window((1, 2, 0), ball=True).steps)
    assert ellipsoid == {(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 2, 0), (0, -2, 0)}


@pytest.mark.parametrize("window", [Window((2, 1, 3)), Window((3, 2, 2), ball=True)])
def test_tables_agree_with_the_steps(window: Window) -> None:
    assert window.table.tolist() == [list(step) for step in window.steps]
    lengths = (window.table[window.length_order] ** 2).sum(1)
    assert sorted(window.length_order) == list(range(len(window.steps)))
    assert (np.diff(lengths) >= 0).all()
    assert window.steps[window.length_order[0]] == (0, 0, 0)
    missing = 0
    for number, axis, side in itertools.product(range(len(window.steps)), range(3), range(2)):
        wanted = list(window.steps[number])
        wanted[axis] += (-1, 1)[side]
        near = window.neighbours[number, axis, side]
        assert (tuple(wanted) in window.steps) == (near >= 0)
        missing += near < 0
        if near >= 0:
            assert window.steps[near] == tuple(wanted)
    assert missing > 0


@pytest.mark.parametrize("window", [Window((2, 1, 3)), Window((3, 2, 4), ball=True), Window((2, 2, 0), ball=True)])
def test_steps_that_differ_along_the_last_axis_alone_follow_one_another(window: Window) -> None:
    """The compiled cost volume takes them as one run of shifts."""
    groups = [list(group) for _, group in itertools.groupby(window.steps, key=lambda step: step[:2])]
    assert len({group[0][:2] for group in groups}) == len(groups)
    for group in groups:
        assert [step[2] for step in group] == list(range(group[0][2], group[0][2] + len(group)))
