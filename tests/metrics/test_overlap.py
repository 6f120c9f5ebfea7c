"""Dice against hand-worked numbers and a naive count."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from jaxtyping import TypeCheckError

from convexadam.errors import InputError
from convexadam.metrics import common_labels, dice


def test_hand_worked() -> None:
    fixed = torch.tensor([1, 1, 1, 2, 0, 3]).reshape(1, 2, 3)
    moved = torch.tensor([1, 1, 2, 2, 2, 0]).reshape(1, 2, 3)
    assert dice(fixed, moved) == {1: pytest.approx(4 / 5), 2: pytest.approx(2 / 4), 3: 0.0}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_equals_naive_count_for_every_type(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    fixed, moved = rng.integers(0, 6, (2, 5, 7, 6))
    expected = {}
    for label in range(1, 6):
        a, b = fixed == label, moved == label
        expected[label] = 2 * (a & b).sum() / (a.sum() + b.sum())
    assert dice(torch.tensor(fixed).to(dtype), torch.tensor(moved).to(dtype)) == pytest.approx(expected)


def test_labels_of_either_image_as_in_itk() -> None:
    rng = np.random.default_rng(1)
    fixed, moved = rng.choice([0, 1, 3, 4, 9], (5, 7, 6)), rng.choice([0, 1, 2, 4, 7], (5, 7, 6))
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(sitk.GetImageFromArray(labels.astype(np.int16)) for labels in (fixed, moved)))
    expected = {label: overlap.GetDiceCoefficient(label) for label in (1, 2, 3, 4, 7, 9)}
    assert dice(fixed, moved) == pytest.approx(expected)
    assert [label for label, value in expected.items() if value > 0] == [1, 4]


def test_masks_count_as_label_one() -> None:
    mask = torch.zeros(3, 4, 5, dtype=torch.bool)
    mask[1, 1, 1:3] = True
    assert dice(mask, mask) == {1: 1.0}


def test_absent_labels() -> None:
    fixed = torch.tensor([1, 2, 0]).reshape(3, 1, 1)
    moved = torch.tensor([1, 4, 0]).reshape(3, 1, 1)
    found = dice(fixed, moved, labels=[9, 4, 2, 1])
    assert list(found) == [1, 2, 4, 9]
    assert (found[1], found[2], found[4]) == (1.0, 0.0, 0.0)
    assert math.isnan(found[9])
    assert (
        dice(fixed, moved) == dice(moved, fixed) == {1: 1.0, 2: 0.0, 4: 0.0}
    )  # neither lost nor new ones are forgotten
    assert dice(fixed, moved, labels=[]) == {}
    assert dice(fixed, moved, labels=[0]) == {0: 1.0}  # background only when asked for


def test_large_and_negative_labels() -> None:
    labels = torch.tensor([-3, 2**40, 0]).reshape(1, 1, 3)
    assert dice(labels, labels) == {-3: 1.0, 2**40: 1.0}


def test_common_labels_of_different_grids() -> None:
    fixed, moving = torch.tensor([[0, 1, 7], [7, 5, 2]]), torch.tensor([7, 1, 3], dtype=torch.uint8)
    assert common_labels(fixed, moving) == [1, 7]


def test_refusals() -> None:
    labels = torch.zeros(3, 4, 5, dtype=torch.int32)
    with pytest.raises(InputError, match=r"moved_labels must be of an integer type, got torch\.float32"):
        dice(labels, labels.float())
    with pytest.raises((InputError, TypeCheckError)):
        dice(labels, labels[:2])
    with pytest.raises((InputError, TypeCheckError)):
        dice(labels[0], labels[0])
