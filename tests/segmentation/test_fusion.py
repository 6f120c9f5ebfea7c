"""Fusion of label maps: what it keeps, what it corrects, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from convexadam import Grid, Image
from convexadam.errors import GeometryError, InputError
from convexadam.metrics import dice
from convexadam.segmentation import JointFusion, LocalVote, MajorityVote, NonLocalVote, fuse_labels, fusion

METHODS = [
    MajorityVote(),
    LocalVote(patch_radius=1, search_radius=1),
    JointFusion(patch_radius=1, search_radius=1),
    NonLocalVote(patch_radius=1, search_radius=2, vote_radius=1),
]


def make_atlases(number: int = 5, size: int = 20) -> tuple[Image, Image, list[Image], list[Image]]:
    """Return a target with two balls and its labels, and atlases that are shifted by up to two voxels."""
    random = np.random.default_rng(0)
    axes = np.stack(np.meshgrid(*[np.arange(size + 8.0)] * 3, indexing="ij"))

    def draw(shift: Any) -> tuple[np.ndarray, np.ndarray]:
        at = axes - 4 - np.reshape(shift, (3, 1, 1, 1))
        labels = np.zeros(at.shape[1:], np.int16)
        for label, centre, radius in ((7, (6, 9, 9), 4.5), (300, (13, 10, 10), 4.5)):
            inside = ((at - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) < radius**2
            labels[inside] = label
        return labels, (labels == 7) * 1.0 + (labels == 300) * 2.0

    def make(shift: Any) -> tuple[Image, Image]:
        labels, values = draw(shift)
        inner = (slice(4, -4),) * 3
        noisy = values + 0.1 * random.standard_normal(values.shape)
        image = Image.from_array(noisy[inner].astype(np.float32))
        return image, Image.from_array(np.ascontiguousarray(labels[inner]))

    target, truth = make((0, 0, 0))
    images, labels = zip(*[make(random.integers(-2, 3, 3)) for _ in range(number)], strict=True)
    return target, truth, list(images), list(labels)


@pytest.fixture(scope="module")
def atlases() -> tuple[Image, Image, list[Image], list[Image]]:
    return make_atlases()


def score(truth: Image, found: Image) -> float:
    return float(np.mean(list(dice(truth, found).values())))


def test_better_methods_find_more(atlases: Any) -> None:
    target, truth, images, labels = atlases
    single = max(score(truth, one) for one in labels)
    found = [score(truth, fuse_labels(target, images, labels, method=method).labels) for method in METHODS]
    majority, local, joint, similar = found
    assert majority > np.mean([score(truth, one) for one in labels])
    assert local > majority
    assert joint > max(local, single)
    assert min(joint, similar) > 0.97


def test_weights_of_patches_by_hand() -> None:
    random = torch.Generator().manual_seed(0)
    target, atlases = torch.randn(2, 7, 6, 5, generator=random), torch.randn(3, 2, 7, 6, 5, generator=random)
    method = NonLocalVote(patch_radius=1, search_radius=1, matches=27, bandwidth=0.7)
    weights, offsets = method(target, atlases, torch.ones(7, 6, 5, dtype=torch.bool))

    def patch(image: Any, at: Any) -> np.ndarray:
        values = image.numpy()[(slice(None), *(slice(n - 1, n + 2) for n in at))].reshape(2, 27).astype(float)
        values -= values.mean(1, keepdims=True)
        return values / np.linalg.norm(values, axis=1, keepdims=True) / np.sqrt(2)

    voxel, expected = (3, 3, 2), []
    for row, number in enumerate(offsets[(slice(None), *voxel)]):
        step = np.unravel_index(int(number), (3, 3, 3))
        other = patch(atlases[row // 27], [x + s - 1 for x, s in zip(voxel, step, strict=True)])
        expected.append(np.exp(-((patch(target, voxel) - other) ** 2).sum() / 0.7))
    assert weights[(slice(None), *voxel)].numpy() == pytest.approx(expected / np.max(expected), rel=1e-3)
    assert sorted(offsets[(slice(27), *voxel)].tolist()) == list(range(27))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_slabs_make_no_difference(atlases: Any, method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    target, _, images, labels = atlases
    whole = fuse_labels(target, images, labels, method=method, probabilities_of=[300, 7, 9])
    monkeypatch.setattr(fusion, "_PLANES", 3)
    parts = fuse_labels(target, images, labels, method=method, probabilities_of=[300, 7, 9])
    assert torch.equal(whole.labels.data, parts.labels.data)
    torch.testing.assert_close(whole.confidence.data, parts.confidence.data, atol=1e-4, rtol=0)
    assert whole.probabilities is not None and parts.probabilities is not None
    torch.testing.assert_close(whole.probabilities.data, parts.probabilities.data, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_shares_of_votes(atlases: Any, method: Any) -> None:
    target, _, images, labels = atlases
    found = fuse_labels(target, images, labels, method=method, probabilities_of=[0, 7, 9, 300])
    assert found.labels.data.dtype == torch.int16
    shares = found.probabilities
    assert shares is not None and shares.data.shape[0] == 4
    torch.testing.assert_close(shares.data.sum(0), torch.ones(target.grid.shape), atol=1e-4, rtol=0)
    assert not shares.data[2].any()  # no atlas has the label 9
    torch.testing.assert_close(shares.data.amax(0), found.confidence.data[0], atol=1e-4, rtol=0)
    names = torch.tensor([0, 7, 9, 300], dtype=torch.int16)
    assert torch.equal(names[shares.data.argmax(0)], found.labels.data[0])
    agree = torch.stack([one.data[0] == labels[0].data[0] for one in labels]).all(0)
    assert bool((found.confidence.data[0][agree] == 1).all())
    assert torch.equal(found.labels.data[0][agree], labels[0].data[0][agree])


def test_majority_is_the_most_frequent_label(atlases: Any) -> None:
    target, _, images, labels = atlases
    found = fuse_labels(target, images, labels, method=MajorityVote()).labels.data[0].numpy()
    stack = np.stack([one.data[0].numpy() for one in labels])
    for voxel in [(6, 9, 9), (2, 9, 9), (9, 9, 9), (13, 6, 10), (0, 0, 0)]:
        values, counts = np.unique(stack[(slice(None), *voxel)], return_counts=True)
        assert counts[values == found[voxel]] == counts.max()


def test_an_atlas_has_no_vote_where_it_does_not_know(atlases: Any) -> None:
    target, _, images, labels = atlases
    unknown = [Image(torch.full_like(one.data, 99), one.grid) for one in labels[1:]]
    found = fuse_labels(target, images, [labels[0], *unknown], method=MajorityVote(), missing=99)
    assert torch.equal(found.labels.data, labels[0].data)


def test_features_of_any_kind(atlases: Any) -> None:
    target, truth, images, labels = atlases
    both = [Image(torch.cat([one.data, one.data.square()]), one.grid) for one in (target, *images)]
    found = fuse_labels(both[0], both[1:], labels, method=METHODS[2])
    assert score(truth, found.labels) > 0.95


def test_one_atlas_is_copied(atlases: Any) -> None:
    target, _, images, labels = atlases
    assert torch.equal(fuse_labels(target, images[:1], labels[:1]).labels.data, labels[0].data)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda i, k: ([], []), InputError, "at least one"),
        (lambda i, k: (i, k[:-1]), InputError, "as many as labels"),
        (
            lambda i, k: ([*i[:-1], Image(i[0].data, Grid((20, 20, 20), np.diag([2, 1, 1, 1])))], k),
            GeometryError,
            "grid",
        ),
        (lambda i, k: ([Image(i[0].data.repeat(2, 1, 1, 1), i[0].grid), *i[1:]], k), InputError, "channels"),
        (lambda i, k: (i, [i[0], *k[1:]]), InputError, "integer type"),
    ],
)
def test_what_does_not_fit(atlases: Any, change: Any, error: Any, words: str) -> None:
    target, _, images, labels = atlases
    with pytest.raises(error, match=words):
        fuse_labels(target, *change(images, labels))
