"""The evaluator gives the results of single registrations, and computes what they share once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pairwise import pairwise
from searches import files_of

from convexadam import ConvexSearch, InputError, RegistrationConfig, preset, register
from convexadam.continuous import (
    Adam,
    BoxSmoothing,
    Compositional,
    Diffusion,
    GaussianSmoothing,
    Level,
    LevenbergMarquardt,
    Lncc,
    Refinement,
    Ssd,
    WeightedSum,
)
from convexadam.features import Concat, Intensity, LabelFeatures, MindSSC
from convexadam.geometry import Image
from convexadam.io import PairFiles, read_image, read_landmarks, write_image
from convexadam.metrics import evaluate_transform
from convexadam.tuning import Evaluator
from convexadam.tuning.space import Checkpoints, remove_refinement

SMOOTH = ({"type": "BoxSmoothing", "passes": 1}, "none")

CONFIGS = {
    "published": preset("published"),
    "default": preset("default"),
    "best": preset("best").with_settings("continuous.levels.0.iterations = 2"),
    "damped": RegistrationConfig(
        symmetric=True,
        continuous_features=Concat(parts=(Intensity(), MindSSC())),
        continuous=Refinement(
            levels=(
                Level(spacing=2, iterations=2, total_smoothing=GaussianSmoothing(sigma=0.6)),
                Level(spacing=1, iterations=3, update_smoothing=GaussianSmoothing(sigma=0.7), forward_only=True),
            ),
            similarity=WeightedSum(terms=(Lncc(), Ssd(robust_scale=1.0)), weights=(1.0, 0.5), channels=(1, 12)),
            regularisers=(),
            optimiser=LevenbergMarquardt(damping=2.0),
            parametrisation=Compositional(),
        ),
    ),
    "no search": dataclasses.replace(preset("default"), discrete=None),
    "intensities last": dataclasses.replace(preset("default"), continuous_features=Intensity()),
}


@pytest.fixture(scope="module")
def displaced(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PairFiles:
    """A pair displaced by some voxels, with segmentations."""
    pair, place = files_of(folder, "segmentation")[0], tmp_path_factory.mktemp("displaced")
    changed = {}
    for name in ("moving", "moving_segmentation"):
        image = read_image(getattr(pair, name))
        changed[name] = place / f"{name}.nii.gz"
        write_image(Image(image.data.roll((3, -2, 2), (1, 2, 3)), image.grid), changed[name])
    return dataclasses.replace(pair, **changed)


def register_files(files: PairFiles, config: RegistrationConfig, **options: Any) -> torch.Tensor:
    return register(files.fixed, files.moving, config, **options).transform.disp_mm


def run(evaluator: Evaluator, files: PairFiles, variants: list[RegistrationConfig]) -> Any:
    """Run the evaluator on one pair; its public methods return metrics, and these tests compare transforms."""
    return evaluator._run(files, variants[-1], variants)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] * (n in ("best", "damped"))) for n in CONFIGS]
)
def test_each_checkpoint_equals_a_registration_of_its_own(labelled: tuple[PairFiles, ...], name: str) -> None:
    evaluator, checkpoints = Evaluator(labelled), Checkpoints(iterations=(4, 2, 0), final_smoothing=SMOOTH)
    variants = checkpoints.configs(CONFIGS[name])
    assert len(variants) == 6
    assert {v.continuous.final_smoothing for v in variants} == {None, BoxSmoothing(passes=1)}
    alone = [register_files(labelled[0], config) for config in variants]
    for _ in range(2):  # computed, and from the cache
        result = run(evaluator, labelled[0], variants)
        for config, expected in zip(variants, alone, strict=True):
            assert torch.equal(result.transform(config).disp_mm, expected)


def test_a_checkpoint_before_the_first_iteration(displaced: PairFiles) -> None:
    variants = Checkpoints(iterations=(0, 2)).configs(preset("published"))
    result = run(Evaluator([displaced]), displaced, variants)
    for config in variants:
        alone = register_files(displaced, config)
        assert alone.abs().max() > 4
        assert torch.equal(result.transform(config).disp_mm, alone)


SHARED = preset("default").with_settings(
    "continuous.levels.0.iterations = 3", 'linear = { type = "LinearAlignment", voxels_per_level = [4000] }'
)
ONE_CHANGE = {
    "nothing": SHARED,
    "grid": SHARED.with_settings('grid = { type = "NativeGrid" }'),
    "linear": SHARED.with_settings('linear = "none"'),
    "foreground": SHARED.with_settings('foreground = { type = "AutoForeground" }'),
    "features": SHARED.with_settings("features.radius = 2"),
    "receptive radius": SHARED.with_settings("features.dilation = 1"),
    "search": SHARED.with_settings("discrete.spacing = 3"),
    "two searches": dataclasses.replace(
        SHARED, discrete=(SHARED.discrete, dataclasses.replace(SHARED.discrete, spacing=2))
    ),
    "no search": dataclasses.replace(SHARED, discrete=None),
    "features of the refinement": dataclasses.replace(SHARED, continuous_features=MindSSC(radius=2)),
    "spacing of the refinement": SHARED.with_settings("continuous.levels.0.spacing = 3"),
    "similarity": SHARED.with_settings('continuous.similarity = { type = "Lncc" }'),
    "symmetric": dataclasses.replace(SHARED, symmetric=True),
    "edges": SHARED.with_settings('continuous.parametrisation.total_smoothing = { type = "BilateralSmoothing" }'),
    "edges, symmetric": dataclasses.replace(
        SHARED.with_settings('continuous.parametrisation.total_smoothing = { type = "BilateralSmoothing" }'),
        symmetric=True,
    ),
    "labels": dataclasses.replace(SHARED, features=LabelFeatures()),
    "labels refined": dataclasses.replace(SHARED, continuous_features=LabelFeatures()),
    "backend": dataclasses.replace(SHARED, backend="reference"),
}


@pytest.mark.long
def test_settings_that_differ_in_one_component_do_not_share_its_results(displaced: PairFiles) -> None:
    """With one evaluator, in both orders: each gives the result of a registration of its own."""
    evaluator = Evaluator([displaced])
    labels = {"fixed_segmentation": displaced.fixed_segmentation, "moving_segmentation": displaced.moving_segmentation}
    alone: dict[str, torch.Tensor] = {}
    for name in (*ONE_CHANGE, *reversed(ONE_CHANGE)):
        config = ONE_CHANGE[name]
        if name not in alone:
            alone[name] = register_files(displaced, config, **(labels if "labels" in name else {}))
        found = run(evaluator, displaced, [config]).transform(config).disp_mm
        assert torch.equal(found, alone[name]), name
    # each change has an effect, without which the test could not fail
    assert [name for name, field in alone.items() if torch.equal(field, alone["nothing"])] == ["nothing"]


@pytest.mark.parametrize(
    ("parametrisation", "optimiser", "symmetric"),
    pairwise(
        [Compositional(), Compositional(total_smoothing=GaussianSmoothing(sigma=0.5))],
        [LevenbergMarquardt(), Adam(learning_rate=0.3)],
        [False, True],
    ),
)
def test_checkpoints_of_the_last_of_several_levels(
    labelled: tuple[PairFiles, ...], parametrisation: Any, optimiser: Any, symmetric: bool
) -> None:
    refine = Refinement(levels=(Level(spacing=3, iterations=2), Level(spacing=2, iterations=7)), regularisers=())
    refine = dataclasses.replace(refine, optimiser=optimiser, parametrisation=parametrisation)
    config = dataclasses.replace(preset("default"), continuous=refine, symmetric=symmetric)
    variants = Checkpoints(iterations=(1, 3, 7)).configs(config)
    result = run(Evaluator(labelled), labelled[1], variants)
    for variant in variants:
        assert torch.equal(result.transform(variant).disp_mm, register_files(labelled[1], variant))


def test_checkpoints_after_convergence_are_the_result(labelled: tuple[PairFiles, ...]) -> None:
    refine = Refinement(tolerance=0.5, levels=(Level(iterations=40),))
    config = dataclasses.replace(preset("published"), continuous=refine)
    variants = Checkpoints(iterations=(3, 20, 40)).configs(config)
    result = run(Evaluator(labelled), labelled[0], variants)
    fields = [result.transform(variant).disp_mm for variant in variants]
    assert torch.equal(fields[1], fields[2])
    for variant, field in zip(variants, fields, strict=True):
        assert torch.equal(field, register_files(labelled[0], variant))


def test_a_search_alone(labelled: tuple[PairFiles, ...]) -> None:
    config = remove_refinement(preset("default"))
    result = run(Evaluator(labelled), labelled[0], [config])
    assert torch.equal(result.transform(config).disp_mm, register_files(labelled[0], config))


@pytest.mark.filterwarnings("ignore:an image has no contrast")  # these features are zeros
def test_without_a_search_the_features_of_the_refinement_decide_on_contrast(labelled: tuple[PairFiles, ...]) -> None:
    def zero(image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        return torch.zeros_like(image.data, dtype=torch.float32)

    for features, refined in ((zero, Intensity()), (Intensity(), zero)):
        config = dataclasses.replace(
            preset("default").with_settings("continuous.levels.0.iterations = 3"),
            linear=None,
            discrete=None,
            features=features,
            continuous_features=refined,
        )
        alone = register_files(labelled[0], config)
        result = run(Evaluator(labelled), labelled[0], [config])
        assert torch.equal(result.transform(config).disp_mm, alone)
        assert bool(alone.any()) == (refined is not zero)


def test_segmentations_and_masks_are_used(folder: Path, files: Callable[..., tuple[PairFiles, ...]]) -> None:
    pair = dataclasses.replace(files("segmentation", "labels")[0], fixed_mask=folder / "0_fixed_labels.nii.gz")
    config = dataclasses.replace(preset("published"), features=Concat(parts=(LabelFeatures(), MindSSC())))
    result = run(Evaluator([pair]), pair, [config])
    segmentations = {"fixed_segmentation": pair.fixed_segmentation, "moving_segmentation": pair.moving_segmentation}
    alone = register_files(pair, config, fixed_mask=pair.fixed_mask, **segmentations)
    assert torch.equal(result.transform(config).disp_mm, alone)


def test_figures_are_those_of_the_metrics(files: Callable[..., tuple[PairFiles, ...]]) -> None:
    pairs = files("labels", "landmarks")
    config = preset("published")
    [entries] = Evaluator(pairs).evaluate(config).entries
    assert list(entries) == [pair.id for pair in pairs]
    pair = pairs[1]
    transform = register(pair.fixed, pair.moving, config).transform
    fixed, moving = (read_image(path) for path in (pair.fixed, pair.moving))
    found = evaluate_transform(
        transform,
        fixed_labels=read_image(pair.fixed_labels),
        moving_labels=read_image(pair.moving_labels),
        fixed_landmarks_mm=fixed.grid.index_to_world(read_landmarks(pair.fixed_landmarks)),
        moving_landmarks_mm=moving.grid.index_to_world(read_landmarks(pair.moving_landmarks)),
    )
    figures = entries[pair.id]
    assert figures["dice"] == [*found["dice_per_label"].values()]
    assert figures["hd95_mm"] == pytest.approx([*found["hd95_per_label_mm"].values()], nan_ok=True)
    assert sum(figures["tre_mm"]) / len(figures["tre_mm"]) == pytest.approx(found["tre_mm"])
    # determinants in float32, each with an error of some 1e-7
    assert figures["sdlogj"] == [pytest.approx(found["sdlogj"], abs=1e-6)]


class Counted:
    """Features that count the images they are extracted from."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        self.images += 1
        return image.data.float() / 500


class CountedRegulariser:
    """A regulariser without effect that counts its evaluations."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, displacement: torch.Tensor, *, add_to: Any = None, soft_mask: Any = None) -> Any:
        self.calls += 1
        return displacement.new_zeros(()), torch.zeros_like(displacement) if add_to is None else add_to


def test_what_settings_share_is_computed_once(labelled: tuple[PairFiles, ...]) -> None:
    evaluator, features, regulariser = Evaluator(labelled), Counted(), CountedRegulariser()
    base = dataclasses.replace(preset("default"), linear=None, features=features)
    settings = [
        dataclasses.replace(
            base,
            discrete=ConvexSearch(spacing=4, radius=radius),
            continuous=Refinement(levels=(Level(iterations=2),), regularisers=(Diffusion(weight=w), regulariser)),
        )
        for radius in (2, 3)
        for w in (0.1, 0.2, 0.4)
    ]
    alone = [register_files(labelled[0], config) for config in settings]
    features.images = regulariser.calls = 0
    for config in settings:
        evaluator.evaluate(config)
    # both images of two pairs, at the spacing of the searches and at that of the refinement
    assert features.images == 2 * 2 * 2
    # the refinement of each pair with each of the settings: two iterations of Adam
    assert regulariser.calls == 2 * 6 * 2
    for config, expected in zip(settings, alone, strict=True):
        result = run(evaluator, labelled[0], [config])
        assert torch.equal(result.transform(config).disp_mm, expected)
    assert features.images == 8


def test_checkpoints_share_one_refinement(labelled: tuple[PairFiles, ...]) -> None:
    regulariser = CountedRegulariser()
    refinement = Refinement(levels=(Level(iterations=1),), regularisers=(regulariser,))
    config = dataclasses.replace(preset("default"), linear=None, continuous=refinement)
    variants = [
        dataclasses.replace(
            config, continuous=dataclasses.replace(refinement, levels=(Level(iterations=n),), final_smoothing=final)
        )
        for n in (1, 3, 5)
        for final in (None, BoxSmoothing(passes=1))
    ]
    result = run(Evaluator(labelled), labelled[0], variants)
    assert regulariser.calls == 5
    fields = [result.transform(variant).disp_mm for variant in variants]
    assert regulariser.calls == 5
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(fields))


def test_without_memory_everything_is_computed_again_with_the_same_result(labelled: tuple[PairFiles, ...]) -> None:
    features = Counted()
    config = dataclasses.replace(preset("published"), features=features)
    cached, bare = Evaluator(labelled), Evaluator(labelled, memory_bytes=0)
    assert cached.evaluate(config).entries == bare.evaluate(config).entries
    features.images = 0
    cached.evaluate(config)
    assert features.images == 0
    bare.evaluate(config)
    assert features.images == 2 * 2 * 2


def test_without_reference_data_inverse_consistency_and_other_features_are_measured(
    blind: tuple[PairFiles, ...],
) -> None:
    evaluator = Evaluator(blind)
    identity = dataclasses.replace(preset("published"), discrete=None, continuous=None)
    [before], [after] = (evaluator.evaluate(c).entries for c in (identity, preset("published")))
    for name in before:
        # the identity is its own inverse; the features of aligned anatomy are similar
        assert before[name]["inverse_error_mm"] == [pytest.approx(0, abs=1e-5)]
        assert 0 < after[name]["inverse_error_mm"][0] < 5
        assert after[name]["feature_residual"][0] < 0.9 * before[name]["feature_residual"][0]
        assert after[name]["folded_percent"][0] >= 0


def test_the_gradient_mode_is_restored(labelled: tuple[PairFiles, ...]) -> None:
    with torch.enable_grad():
        Evaluator(labelled).evaluate(remove_refinement(preset("published")))
        assert torch.is_grad_enabled()


def test_unusable_labels_raise(labelled: tuple[PairFiles, ...]) -> None:
    wrong = dataclasses.replace(labelled[0], fixed_labels=labelled[0].fixed)
    with pytest.raises(InputError, match=r"fixed_labels of pair .*0 must contain whole numbers"):
        Evaluator([wrong]).score_before()
