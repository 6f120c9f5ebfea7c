"""Samples of a space: only options that it names, all of them, and no settings twice."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from convexadam import ConfigError, FileError, RegistrationConfig, preset
from convexadam.continuous import KovesiSmoothing
from convexadam.features import LabelFeatures
from convexadam.tuning import SPACES, Space
from convexadam.tuning.space import make_key, remove_refinement

HEAD = 'schema_version = 2\nbase = "published"\n'


def sample_settings(space: Space, stage: int, seed: int = 0, most: int = 10_000) -> list[RegistrationConfig]:
    samples = space.stages[stage].iterate_samples(space.base, random.Random(seed))
    return [sample.apply(space.base) for sample in islice(samples, most)]


def one(discrete: str = "", continuous: str = "") -> Space:
    return Space.from_toml(f"{HEAD}[discrete]\n{discrete}\n[continuous]\n{continuous}\n")


@pytest.mark.parametrize("name", SPACES)
def test_the_spaces_of_the_library_make_settings(name: str) -> None:
    space = Space.load(name)
    for stage in range(2):
        settings = sample_settings(space, stage, most=20)
        assert len({s.to_toml() for s in settings}) == len(settings) == 20
        for config in settings:
            assert RegistrationConfig.from_toml(config.to_toml()) == config


@pytest.mark.long
def test_the_published_space_has_the_published_numbers() -> None:
    space = Space.load("published")
    assert space.base == preset("published")
    searches = sample_settings(space, 0)
    # 9 features; radii 2 to 7 for spacings of 3, 4 and 5 voxels, 2 to 5 for 2
    expected = {(r, d, g, h) for r in (1, 2, 3) for d in (1, 2, 3) for g in (2, 3, 4, 5) for h in range(2, 8)}
    expected = {e for e in expected if e[2] != 2 or e[3] <= 5}
    found = {(c.features.radius, c.features.dilation, c.discrete.spacing, c.discrete.radius) for c in searches}
    assert found == expected
    refinements = [c.continuous for c in sample_settings(space, 1)]
    by_spacing = {g: {r.update_smoothing for r in refinements if r.levels[0].spacing == g} for g in (1, 2, 3, 4)}
    assert {g: len(s) for g, s in by_spacing.items()} == {1: 5, 2: 5, 3: 5, 4: 5}
    assert KovesiSmoothing(sigma=2.8) in by_spacing[1] - by_spacing[2]
    assert {r.regularisers[0].weight for r in refinements} == {0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6}
    assert len(refinements) == 4 * 5 * 7 * 4  # spacing, smoothing, weight, features
    [count] = {len(variant.checkpoints.configs(space.base)) for variant in space.stages[1].variants}
    assert count == 16


def test_a_seed_determines_the_samples() -> None:
    space = Space.load("default")
    first, again, other = (sample_settings(space, 1, seed, most=20) for seed in (3, 3, 4))
    assert first == again != other


def test_variants_are_sampled_by_their_shares() -> None:
    space = Space.load("published")
    stage, rng = space.stages[0], random.Random(0)
    counts = Counter(stage.sample(rng).variant.name for _ in range(4000))
    # three in four; six standard deviations of 4000 samples
    assert abs(counts["spacing of 3 to 5"] - 3000) < 6 * (4000 * 0.75 * 0.25) ** 0.5


def test_an_exhausted_space_ends() -> None:
    settings = sample_settings(one("features.radius = [1, 2]\ndiscrete.spacing = [3, 4, 3]"), 0)
    assert len(settings) == 4


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("{ from = 0.6, to = 1.7, step = 0.25 }", {0.6, 0.85, 1.1, 1.35, 1.6}),
        ("[0.5, 2]", {0.5, 2.0}),
        ("0.7", {0.7}),
    ],
)
def test_numbers(text: str, allowed: set[float]) -> None:
    found = {
        c.continuous.regularisers[0].weight
        for c in sample_settings(one("", f"continuous.regularisers.0.weight = {text}"), 1)
    }
    assert found == allowed


def test_ranges_without_steps() -> None:
    for log in ("", ", log = true"):
        space = one("", f"continuous.regularisers.0.weight = {{ from = 0.01, to = 10.0{log} }}")
        found = [c.continuous.regularisers[0].weight for c in sample_settings(space, 1, most=400)]
        assert 0.01 <= min(found) < max(found) <= 10
        # a third of the decades lies below 0.1, a hundredth of the range: six standard deviations each
        share = sum(value < 0.1 for value in found) / 400
        assert abs(share - (1 / 3 if log else 0.009)) < 6 * (0.25 / 400) ** 0.5


def test_whole_numbers_stay_whole() -> None:
    found = {c.discrete.radius for c in sample_settings(one("discrete.radius = { from = 3, to = 8, step = 2 }"), 0)}
    assert found == {3, 5, 7}
    assert all(type(radius) is int for radius in found)


def test_the_base_is_not_sampled() -> None:
    assert {c.discrete.radius for c in sample_settings(one("discrete.radius = [3, 4, 5]"), 0)} == {3, 5}


def test_a_component_and_settings_of_it() -> None:
    options = '{ type = "LabelFeatures" }, { type = "LabelFeatures", include_background = true }'
    space = one(f'features = [{options}]\n"features.scale" = [2.0, 3.0]')
    features = {c.features for c in sample_settings(space, 0)}
    assert features == {LabelFeatures(scale=s, include_background=b) for s in (2.0, 3.0) for b in (False, True)}
    assert {c.features for c in sample_settings(space, 0)} == features  # samples do not depend on earlier ones


def test_the_first_stage_evaluates_the_search_alone() -> None:
    config = remove_refinement(preset("best"))
    assert config.continuous is None and config.continuous_features is None
    assert config.features == preset("best").features


def test_a_base_in_a_file_beside_the_space(tmp_path: Path) -> None:
    preset("best").save(tmp_path / "mine.toml")
    (tmp_path / "space.toml").write_text('schema_version = 2\nbase = "mine.toml"\n[discrete]\n[continuous]\n')
    assert Space.load(tmp_path / "space.toml").base == preset("best")


def test_equal_settings_have_one_key() -> None:
    space = one("features.radius = [1, 1]")
    stage = space.stages[0]
    keys = {make_key(stage.sample(random.Random(seed)), space.base) for seed in range(8)}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[discrete", "must be valid TOML"),
        ("[discrete]\n[continuous]", "schema_version must be 2, got None"),
        (f"{HEAD}[discrete]", "must have the tables"),
        (f"{HEAD}[discrete]\n[continuous]\n[more]", "must have the tables"),
        (f"{HEAD}[discrete]\nsamples = -1\n[continuous]", "samples must be a whole number of at least 0, got -1"),
        (f"{HEAD}[discrete]\ndiscrete.spacin = [3]\n[continuous]", "did you mean 'spacing'"),
        (f"{HEAD}[discrete]\ndiscrete.spacing = []\n[continuous]", "must have at least one option"),
        (f"{HEAD}[discrete]\ndiscrete.spacing = [3, 0]\n[continuous]", "discrete.spacing = 0"),
        (
            f"{HEAD}[discrete]\ndiscrete.spacing = {{ from = 3 }}\n[continuous]",
            "discrete.spacing: a range must be of finite numbers",
        ),
        (f"{HEAD}[discrete]\ndiscrete.spacing = {{ from = 3, to = 2 }}\n[continuous]", "a range must have from < to"),
        (f"{HEAD}[discrete]\ndiscrete.spacing = {{ from = 3, to = 5, stepp = 2 }}\n[continuous]", "got 'stepp'"),
        (f"{HEAD}[discrete]\n[[discrete.variants]]\nshare = 1\n[continuous]", "must have a name"),
        (
            f"{HEAD}[discrete]\n[discrete.variants]\nname = 'a'\n[continuous]",
            r"must be tables \[\[discrete.variants\]\]",
        ),
        (f"{HEAD}[discrete]\nvariants = []\n[continuous]", r"must be tables \[\[discrete.variants\]\]"),
        (f"{HEAD}[discrete]\n[continuous]\ncheckpoints.final_smoothing = [3]", "final_smoothing"),
        (
            f"{HEAD}[discrete]\ndiscrete.radius = {{ from = 3, to = 9, log = 1 }}\n[continuous]",
            "log must be true or false, got 1",
        ),
        (
            f"{HEAD}[discrete]\ndiscrete.radius = {{ from = 3, to = 9, step = false }}\n[continuous]",
            "of finite numbers",
        ),
        (f"{HEAD}[discrete]\ndiscrete.radius = {{ from = 3, to = 9, step = '' }}\n[continuous]", "of finite numbers"),
        (f"{HEAD}[discrete]\ndiscrete.radius = {{ from = 0, to = 9, log = true }}\n[continuous]", "must begin above 0"),
        (f"{HEAD}[discrete]\ndiscrete.radius = {{ from = 1, to = 9, step = 1, log = true }}\n[continuous]", "got both"),
        (
            f"{HEAD}[discrete]\n[[discrete.variants]]\nname = 'a'\nshare = 0\n[continuous]",
            "share must be a finite number above 0",
        ),
        (f"{HEAD}[discrete]\n[[discrete.variants]]\nname = 'a'\nshare = true\n[continuous]", "share must be"),
        (
            f"{HEAD}[discrete]\n[[discrete.variants]]\nname='a'\n[[discrete.variants]]\nname='a'\n[continuous]",
            "must be unique",
        ),
        (f"{HEAD}[discrete]\ncheckpoints.iterations = [3]\n[continuous]", "move them to \\[continuous\\]"),
        (
            f"{HEAD}[discrete]\n[continuous]\ncheckpoints.iterations = [1.5]",
            "must be a list of whole numbers of at least 0",
        ),
        (
            f"{HEAD}[discrete]\n[continuous]\ncheckpoints.steps = [1]",
            "must be a table of iterations and final_smoothing",
        ),
        ('schema_version = 2\nbase = "fancy.toml"\n[discrete]\n[continuous]', "fancy.toml"),
    ],
)
def test_invalid_spaces(text: str, message: str) -> None:
    with pytest.raises((ConfigError, FileError), match=message):
        Space.from_toml(text)


def test_a_missing_file() -> None:
    with pytest.raises(
        FileError, match="space must be one of default, published, labels or an existing TOML file, got 'defualt'"
    ):
        Space.load("defualt")
