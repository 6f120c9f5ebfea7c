"""A bench finds what registrations one by one find, and does what they share once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from searches import files_of

from convexadam import InputError, RegistrationConfig, preset, register
from convexadam.continuous import BoxSmoothing, Compositional, GaussianSmoothing, Level, LevenbergMarquardt, Refinement
from convexadam.features import Concat, Intensity, LabelFeatures, MindSSC
from convexadam.geometry import Image
from convexadam.io import PairFiles, read_image, read_landmarks, write_image
from convexadam.metrics import evaluate_transform
from convexadam.tuning import Bench
from convexadam.tuning import bench as bench_module
from convexadam.tuning.space import ReadOff, without_refinement

SMOOTH = ({"type": "BoxSmoothing", "passes": 1}, "none")

CONFIGS = {
    "published": preset("published"),
    "default": preset("default"),
    "accurate": preset("accurate").with_settings("continuous.levels.0.iterations = 2"),
    "same-contrast": preset("same-contrast").with_settings("continuous.levels.0.iterations = 2"),
    "no search": dataclasses.replace(preset("default"), discrete=None),
    "intensities last": dataclasses.replace(preset("default"), continuous_features=Intensity()),
}


@pytest.fixture(scope="module")
def moved(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PairFiles:
    """A pair that is some voxels apart, with label maps to compare."""
    pair, place = files_of(folder, "segmentation")[0], tmp_path_factory.mktemp("moved")
    moved = {}
    for name in ("moving", "moving_segmentation"):
        image = read_image(getattr(pair, name))
        moved[name] = place / f"{name}.nii.gz"
        write_image(Image(image.data.roll((3, -2, 2), (1, 2, 3)), image.grid), moved[name])
    return dataclasses.replace(pair, **moved)


def registered(files: PairFiles, config: RegistrationConfig, **options: Any) -> torch.Tensor:
    return register(files.fixed, files.moving, config, **options).transform.disp_mm


@pytest.mark.parametrize("name", CONFIGS)
def test_each_variant_is_what_a_registration_of_its_own_finds(labelled: tuple[PairFiles, ...], name: str) -> None:
    bench, read_off = Bench(labelled), ReadOff(iterations=(4, 2, 0), final_smoothing=SMOOTH)
    variants = read_off.variants(CONFIGS[name])
    assert len(variants) == 6
    assert {v.continuous.final_smoothing for v in variants} == {None, BoxSmoothing(passes=1)}
    for _ in range(2):  # made, and kept
        run = bench._run(labelled[0], variants[-1], variants)
        for config in variants:
            alone = registered(labelled[0], config)
            assert torch.equal(run.transform(config).disp_mm, alone)


def test_a_start_that_is_smoothed_before_the_first_step(moved: PairFiles) -> None:
    variants = ReadOff(iterations=(0, 2)).variants(preset("published"))
    run = Bench([moved])._run(moved, variants[-1], variants)
    for config in variants:
        alone = registered(moved, config)
        assert alone.abs().max() > 4
        assert torch.equal(run.transform(config).disp_mm, alone)


BILATERAL = 'continuous.parametrisation.field_smoothing = { type = "BilateralSmoothing" }'
SHARED = preset("default").with_settings(
    "continuous.levels.0.iterations = 3", 'linear = { type = "LinearAlignment", voxels = [4000] }'
)
ONE_PART_ELSE = {
    "nothing": SHARED,
    "grid": SHARED.with_settings('grid = { type = "GivenGrid" }'),
    "linear": SHARED.with_settings('linear = "none"'),
    "foreground": SHARED.with_settings('foreground = { type = "AutoForeground" }'),
    "features": SHARED.with_settings("features.radius = 2"),
    "reach": SHARED.with_settings("features.dilation = 1"),
    "search": SHARED.with_settings("discrete.spacing = 3"),
    "two searches": dataclasses.replace(
        SHARED, discrete=(SHARED.discrete, dataclasses.replace(SHARED.discrete, spacing=2))
    ),
    "no search": dataclasses.replace(SHARED, discrete=None),
    "what is refined": dataclasses.replace(SHARED, continuous_features=MindSSC(radius=2)),
    "nodes": SHARED.with_settings("continuous.levels.0.spacing = 3"),
    "similarity": SHARED.with_settings('continuous.similarity = { type = "Lncc" }'),
    "both ways": dataclasses.replace(SHARED, symmetric=True),
    "edges": SHARED.with_settings('continuous.parametrisation.field_smoothing = { type = "BilateralSmoothing" }'),
    "edges both ways": dataclasses.replace(
        SHARED.with_settings('continuous.parametrisation.field_smoothing = { type = "BilateralSmoothing" }'),
        symmetric=True,
    ),
    "labels": dataclasses.replace(SHARED, features=LabelFeatures()),
    "labels refined": dataclasses.replace(SHARED, continuous_features=LabelFeatures()),
    "backend": dataclasses.replace(SHARED, backend="reference"),
}


def test_settings_that_share_all_but_one_part_do_not_mix(moved: PairFiles) -> None:
    """On one bench, one after the other and back again: each finds what it finds alone."""
    bench = Bench([moved])
    labels = {"fixed_labels": moved.fixed_segmentation, "moving_labels": moved.moving_segmentation}
    alone: dict[str, torch.Tensor] = {}
    for name in (*ONE_PART_ELSE, *reversed(ONE_PART_ELSE)):
        config = ONE_PART_ELSE[name]
        if name not in alone:
            alone[name] = registered(moved, config, **(labels if "labels" in name else {}))
        found = bench._run(moved, config, [config]).transform(config).disp_mm
        assert torch.equal(found, alone[name]), name
    # each part matters here, or this would prove nothing
    assert [name for name, field in alone.items() if torch.equal(field, alone["nothing"])] == ["nothing"]


@pytest.mark.parametrize("parametrised", [Compositional(), Compositional(field_smoothing=GaussianSmoothing(sigma=0.5))])
@pytest.mark.parametrize("optimiser", [LevenbergMarquardt(), LevenbergMarquardt(temperature=0.1)])
def test_levels_and_damping_go_on_as_alone(labelled: tuple[PairFiles, ...], parametrised: Any, optimiser: Any) -> None:
    refine = Refinement(levels=(Level(spacing=3, iterations=2), Level(spacing=2, iterations=7)), regularisers=())
    refine = dataclasses.replace(refine, optimiser=optimiser, parametrisation=parametrised)
    config = dataclasses.replace(preset("default"), continuous=refine, symmetric=True)
    variants = ReadOff(iterations=(1, 3, 7)).variants(config)
    run = Bench(labelled)._run(labelled[1], config, variants)
    for variant in variants:
        assert torch.equal(run.transform(variant).disp_mm, registered(labelled[1], variant))


def test_a_level_that_converges_early_shows_its_end_from_then_on(labelled: tuple[PairFiles, ...]) -> None:
    refine = Refinement(tolerance=0.5, levels=(Level(iterations=40),))
    config = dataclasses.replace(preset("published"), continuous=refine)
    variants = ReadOff(iterations=(3, 20, 40)).variants(config)
    run = Bench(labelled)._run(labelled[0], config, variants)
    fields = [run.transform(variant).disp_mm for variant in variants]
    assert torch.equal(fields[1], fields[2])
    for variant, field in zip(variants, fields, strict=True):
        assert torch.equal(field, registered(labelled[0], variant))


def test_the_search_alone(labelled: tuple[PairFiles, ...]) -> None:
    config = without_refinement(preset("default"))
    run = Bench(labelled)._run(labelled[0], config, [config])
    assert torch.equal(run.transform(config).disp_mm, registered(labelled[0], config))


def test_segmentations_and_masks_are_used(folder: Path, files: Callable[..., tuple[PairFiles, ...]]) -> None:
    pair = dataclasses.replace(files("segmentation", "labels")[0], fixed_mask=folder / "0_fixed_labels.nii.gz")
    config = dataclasses.replace(preset("published"), features=Concat(parts=(LabelFeatures(), MindSSC())))
    run = Bench([pair])._run(pair, config, [config])
    labels = {"fixed_labels": pair.fixed_labels, "moving_labels": pair.moving_labels}
    alone = registered(pair, config, fixed_mask=pair.fixed_mask, **labels)
    assert torch.equal(run.transform(config).disp_mm, alone)


def test_figures_are_those_of_the_metrics(files: Callable[..., tuple[PairFiles, ...]]) -> None:
    pairs = files("labels", "landmarks")
    config = preset("published")
    [entries] = Bench(pairs).try_out(config).entries
    assert list(entries) == [pair.name for pair in pairs]
    pair = pairs[1]
    transform = register(pair.fixed, pair.moving, config).transform
    fixed, moving = (read_image(path) for path in (pair.fixed, pair.moving))
    found = evaluate_transform(
        transform,
        fixed_labels=read_image(pair.fixed_labels),
        moving_labels=read_image(pair.moving_labels),
        fixed_landmarks_mm=fixed.grid.to_mm(read_landmarks(pair.fixed_landmarks)),
        moving_landmarks_mm=moving.grid.to_mm(read_landmarks(pair.moving_landmarks)),
    )
    figures = entries[pair.name]
    assert figures["dice"] == [*found["dice_per_label"].values()]
    assert figures["hd95_mm"] == pytest.approx([*found["hd95_per_label_mm"].values()], nan_ok=True)
    assert sum(figures["tre_mm"]) / len(figures["tre_mm"]) == pytest.approx(found["tre_mm"])
    # determinants in float32 here, each off by some 1e-7
    assert figures["sdlogj"] == [pytest.approx(found["sdlogj"], abs=1e-6)]


def test_what_settings_share_is_done_once(labelled: tuple[PairFiles, ...]) -> None:
    bench, base = Bench(labelled), preset("default")
    settings = [
        base.with_settings(f"continuous.regularisers.0.weight = {w}", f"discrete.radius = {r}")
        for r in (2, 3)
        for w in (0.1, 0.2, 0.4)
    ]
    counted = {
        name: mock.Mock(side_effect=getattr(bench_module, name))
        for name in ("checked_image", "placed", "on_working_grid", "searched_throughout", "refined_throughout")
    }
    with mock.patch.multiple(bench_module, **counted):
        for config in settings:
            bench.try_out(config)
    calls = {name: counter.call_count for name, counter in counted.items()}
    assert calls == {
        "checked_image": 4,
        "placed": 2,
        "on_working_grid": 2,
        "searched_throughout": 4,
        "refined_throughout": 12,
    }


def test_without_memory_all_is_done_anew_and_nothing_changes(labelled: tuple[PairFiles, ...]) -> None:
    kept, bare = Bench(labelled), Bench(labelled, memory_bytes=0)
    config = preset("published")
    assert kept.try_out(config).entries == bare.try_out(config).entries
    with mock.patch.object(bench_module, "placed", side_effect=bench_module.placed) as placed:
        kept.try_out(config)
        assert placed.call_count == 0
        bare.try_out(config)
        assert placed.call_count == 2


def test_without_truth_the_way_back_and_other_features_tell(blind: tuple[PairFiles, ...]) -> None:
    bench = Bench(blind)
    still = dataclasses.replace(preset("published"), discrete=None, continuous=None)
    [nothing], [something] = (bench.try_out(c).entries for c in (still, preset("published")))
    for name in nothing:
        # no motion is its own inverse; anatomy that is brought onto itself is described alike
        assert nothing[name]["inverse_error_mm"] == [pytest.approx(0, abs=1e-5)]
        assert 0 < something[name]["inverse_error_mm"][0] < 5
        assert something[name]["feature_residual"][0] < 0.9 * nothing[name]["feature_residual"][0]
        assert something[name]["folded_percent"][0] >= 0


def test_nothing_is_left_of_the_gradient_state(labelled: tuple[PairFiles, ...]) -> None:
    with torch.enable_grad():
        Bench(labelled).try_out(without_refinement(preset("published")))
        assert torch.is_grad_enabled()


def test_labels_that_do_not_fit_are_refused(labelled: tuple[PairFiles, ...]) -> None:
    wrong = dataclasses.replace(labelled[0], fixed_labels=labelled[0].fixed)
    with pytest.raises(InputError, match=r"the fixed \(pair pair 0\) label map holds values that are not whole"):
        Bench([wrong]).before()
