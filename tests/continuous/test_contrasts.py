"""Whether images have one contrast, and what follows from it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from convexadam.continuous import (
    Compositional,
    DifferentContrasts,
    GaussNewton,
    Level,
    Refinement,
    Ssd,
    contrast_coherence,
)
from convexadam.data import PhantomPair, phantom_pair
from convexadam.errors import ConfigError
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward

NO_WEIGHTS = (None, None)


@pytest.fixture(scope="module")
def ct() -> PhantomPair:
    return phantom_pair((32, 32, 32), contrasts=("ct", "ct"), seed=1)


@pytest.fixture(scope="module")
def mixed() -> PhantomPair:
    return phantom_pair((32, 32, 32), contrasts=("ct", "t1"), seed=1)


def _maps(pair: PhantomPair) -> tuple[torch.Tensor, torch.Tensor]:
    return pair.fixed.data.float(), pair.moving.data.float()


def _still(like: torch.Tensor) -> torch.Tensor:
    return torch.zeros(3, *like.shape[1:])


def test_one_contrast_is_coherent_and_two_are_not(ct: PhantomPair, mixed: PhantomPair) -> None:
    same, different = (contrast_coherence(*_maps(p), _still(_maps(p)[0]), NO_WEIGHTS) for p in (ct, mixed))
    assert same > 0.65 > different


def test_an_inverted_image_is_as_coherent_with_the_other_sign(ct: PhantomPair) -> None:
    fixed, moving = _maps(ct)
    still = _still(fixed)
    one, other = (contrast_coherence(fixed, sign * moving, still, NO_WEIGHTS) for sign in (1, -1))
    torch.testing.assert_close(one, -other)


def test_it_does_not_depend_on_linear_scalings(ct: PhantomPair) -> None:
    fixed, moving = _maps(ct)
    still = _still(fixed)
    one, other = (contrast_coherence(a * fixed + b, moving, still, NO_WEIGHTS) for a, b in ((1, 0), (0.01, 5)))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_without_contrast_or_overlap_it_is_0(ct: PhantomPair) -> None:
    fixed, moving = _maps(ct)
    nowhere = torch.zeros(fixed.shape[1:])
    assert contrast_coherence(torch.ones_like(fixed), moving, _still(fixed), NO_WEIGHTS) == 0
    assert contrast_coherence(fixed, moving, _still(fixed), (nowhere, None)) == 0


def _refinement() -> Refinement:
    return Refinement(
        levels=(Level(spacing=2, iterations=2),),
        similarity=Ssd(),
        regularisers=(),
        optimiser=GaussNewton(),
        parametrisation=Compositional(),
        different_contrasts=DifferentContrasts(
            levels=(Level(spacing=2, iterations=3),), similarity=Ssd(robust_scale=1.0)
        ),
    )


@pytest.mark.parametrize("one_contrast", [True, False])
def test_a_refinement_runs_the_settings_for_the_contrasts_of_the_images(one_contrast: bool, ct: PhantomPair) -> None:
    fixed, moving = (torch.nn.functional.avg_pool3d(m, 2) for m in _maps(ct))
    if not one_contrast:
        moving[..., :8] *= -1
    start = ForwardBackward(forward=_still(fixed), spacing=(2, 2, 2))
    extracted: list[int] = []

    def extract(number: int) -> FeatureLevel:
        extracted.append(number)
        return FeatureLevel(fixed=fixed, moving=moving, spacing=(2, 2, 2))

    refinement = _refinement()
    other = refinement.different_contrasts
    assert other is not None
    levels, similarity = (
        (refinement.levels, refinement.similarity) if one_contrast else (other.levels, other.similarity)
    )
    expected = dataclasses.replace(refinement, levels=levels, similarity=similarity, different_contrasts=None)
    found, wanted = (list(r.refine(extract, start, (32, 32, 32)))[-1] for r in (refinement, expected))
    assert found.iteration == wanted.iteration
    torch.testing.assert_close(found.fields.forward, wanted.fields.forward, rtol=0, atol=0)
    assert extracted == [0, 0]  # once by each


def test_levels_must_have_the_same_spacings() -> None:
    other = DifferentContrasts(levels=(Level(spacing=1),), similarity=Ssd())
    with pytest.raises(
        ConfigError, match=r"different_contrasts.levels must have the spacings of levels, \[2\], got \[1\]"
    ):
        Refinement(levels=(Level(spacing=2),), different_contrasts=other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": ()}, "levels must be a tuple of at least one Level"),
        ({"channel": -1}, "channel must be a whole number from 0"),
        ({"coherence": 2.0}, "coherence must be a finite number of at least -1 and at most 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DifferentContrasts(**{"levels": (Level(),), "similarity": Ssd(), **settings})  # type: ignore[arg-type]
