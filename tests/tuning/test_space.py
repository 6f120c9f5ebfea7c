"""What is drawn from a space: only what it names, everything it names, nothing twice."""

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
from convexadam.tuning.space import identity_of, without_refinement

HEAD = 'schema_version = 1\nbase = "published"\n'


def drawn(space: Space, stage: int, seed: int = 0, most: int = 10_000) -> list[RegistrationConfig]:
    chosen = space.stages[stage]
    return [d.applied(space.base) for d in islice(chosen.drawn(space.base, random.Random(seed)), most)]


def one(discrete: str = "", continuous: str = "") -> Space:
    return Space.from_toml(f"{HEAD}[discrete]\n{discrete}\n[continuous]\n{continuous}\n")


@pytest.mark.parametrize("name", SPACES)
def test_those_that_come_with_the_library_make_settings(name: str) -> None:
    space = Space.load(name)
    for stage in range(2):
        settings = drawn(space, stage, most=50)
        assert len({s.to_toml() for s in settings}) == len(settings) == 50
        for config in settings:
            assert RegistrationConfig.from_toml(config.to_toml()) == config


def test_the_published_space_has_the_published_numbers() -> None:
    space = Space.load("published")
    assert space.base == preset("published")
    searches = drawn(space, 0)
    # 9 features; radii 2 to 7 for cells of 3, 4 and 5 voxels, 2 to 5 for those of 2
    expected = {(r, d, g, h) for r in (1, 2, 3) for d in (1, 2, 3) for g in (2, 3, 4, 5) for h in range(2, 8)}
    expected = {e for e in expected if e[2] != 2 or e[3] <= 5}
    found = {(c.features.radius, c.features.dilation, c.discrete.spacing, c.discrete.radius) for c in searches}
    assert found == expected
    refinements = [c.continuous for c in drawn(space, 1)]
    by_spacing = {g: {r.smoothing for r in refinements if r.levels[0].spacing == g} for g in (1, 2, 3, 4)}
    assert {g: len(s) for g, s in by_spacing.items()} == {1: 5, 2: 5, 3: 5, 4: 5}
    assert KovesiSmoothing(sigma=2.8) in by_spacing[1] - by_spacing[2]
    assert {r.regularisers[0].weight for r in refinements} == {0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6}
    assert len(refinements) == 4 * 5 * 7 * 4  # spacing, smoothing, weight, features
    [variants] = {len(k.read_off.variants(space.base)) for k in space.stages[1].kinds}
    assert variants == 16


def test_a_seed_decides_what_is_drawn() -> None:
    space = Space.load("default")
    first, again, other = (drawn(space, 1, seed, most=20) for seed in (3, 3, 4))
    assert first == again != other


def test_kinds_come_by_their_shares() -> None:
    space = Space.load("published")
    stage, chance = space.stages[0], random.Random(0)
    counts = Counter(stage.draw(chance).kind.name for _ in range(4000))
    # three in four; six standard deviations of 4000 throws
    assert abs(counts["coarse cells"] - 3000) < 6 * (4000 * 0.75 * 0.25) ** 0.5


def test_a_space_that_is_used_up_ends() -> None:
    settings = drawn(one("features.radius = [1, 2]\ndiscrete.spacing = [3, 4, 3]"), 0)
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
        c.continuous.regularisers[0].weight for c in drawn(one("", f"continuous.regularisers.0.weight = {text}"), 1)
    }
    assert found == allowed


def test_ranges_without_steps() -> None:
    for log in ("", ", log = true"):
        space = one("", f"continuous.regularisers.0.weight = {{ from = 0.01, to = 10.0{log} }}")
        found = [c.continuous.regularisers[0].weight for c in drawn(space, 1, most=400)]
        assert 0.01 <= min(found) < max(found) <= 10
        # a third of the decades lies below 0.1, a hundredth of the range: six standard deviations each
        share = sum(value < 0.1 for value in found) / 400
        assert abs(share - (1 / 3 if log else 0.009)) < 6 * (0.25 / 400) ** 0.5


def test_whole_numbers_stay_whole() -> None:
    found = {c.discrete.radius for c in drawn(one("discrete.radius = { from = 3, to = 8, step = 2 }"), 0)}
    assert found == {3, 5, 7}
    assert all(type(radius) is int for radius in found)


def test_what_it_begins_with_is_not_drawn_again() -> None:
    assert {c.discrete.radius for c in drawn(one("discrete.radius = [3, 4, 5]"), 0)} == {3, 5}


def test_a_component_and_settings_of_it() -> None:
    kinds = '{ type = "LabelFeatures" }, { type = "LabelFeatures", background = true }'
    space = one(f'features = [{kinds}]\n"features.scale" = [2.0, 3.0]')
    features = {c.features for c in drawn(space, 0)}
    assert features == {LabelFeatures(scale=s, background=b) for s in (2.0, 3.0) for b in (False, True)}
    assert {c.features for c in drawn(space, 0)} == features  # what was drawn before leaves no trace


def test_the_first_stage_looks_at_the_search_alone() -> None:
    config = without_refinement(preset("same-contrast"))
    assert config.continuous is None and config.continuous_features is None
    assert config.features == preset("same-contrast").features


def test_a_base_in_a_file_beside_the_space(tmp_path: Path) -> None:
    preset("accurate").save(tmp_path / "mine.toml")
    (tmp_path / "space.toml").write_text('schema_version = 1\nbase = "mine.toml"\n[discrete]\n[continuous]\n')
    assert Space.load(tmp_path / "space.toml").base == preset("accurate")


def test_equal_settings_are_one_identity() -> None:
    space = one("features.radius = [1, 1]")
    stage = space.stages[0]
    identities = {identity_of(stage.draw(random.Random(seed)), space.base) for seed in range(8)}
    assert len(identities) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[discrete", "not valid TOML"),
        ("[discrete]\n[continuous]", "schema_version = 1"),
        (f"{HEAD}[discrete]", "has the tables"),
        (f"{HEAD}[discrete]\n[continuous]\n[more]", "has the tables"),
        (f"{HEAD}[discrete]\ndraws = -1\n[continuous]", "whole number from 0"),
        (f"{HEAD}[discrete]\ndiscrete.spacin = [3]\n[continuous]", "did you mean 'spacing'"),
        (f"{HEAD}[discrete]\ndiscrete.spacing = []\n[continuous]", "no options"),
        (f"{HEAD}[discrete]\ndiscrete.spacing = [3, 0]\n[continuous]", "discrete.spacing = 0"),
        (f"{HEAD}[discrete]\ndiscrete.spacing = {{ from = 3 }}\n[continuous]", "range is of numbers"),
        (f"{HEAD}[discrete]\ndiscrete.spacing = {{ from = 3, to = 2 }}\n[continuous]", "range rises"),
        (f"{HEAD}[discrete]\ndiscrete.spacing = {{ from = 3, to = 5, stepp = 2 }}\n[continuous]", "'stepp' came"),
        (f"{HEAD}[discrete]\n[[discrete.kinds]]\nshare = 1\n[continuous]", "needs a name"),
        (f"{HEAD}[discrete]\n[discrete.kinds]\nname = 'a'\n[continuous]", r"are tables \[\[discrete.kinds\]\]"),
        (f"{HEAD}[discrete]\nkinds = []\n[continuous]", r"are tables \[\[discrete.kinds\]\]"),
        (f"{HEAD}[discrete]\n[continuous]\nread_off.final_smoothing = [3]", "final_smoothing"),
        (f"{HEAD}[discrete]\ndiscrete.radius = {{ from = 3, to = 9, log = 1 }}\n[continuous]", "true or false"),
        (f"{HEAD}[discrete]\n[[discrete.kinds]]\nname = 'a'\nshare = 0\n[continuous]", "share is above 0"),
        (f"{HEAD}[discrete]\n[[discrete.kinds]]\nname='a'\n[[discrete.kinds]]\nname='a'\n[continuous]", "of one name"),
        (f"{HEAD}[discrete]\nread_off.iterations = [3]\n[continuous]", "only \\[continuous\\]"),
        (f"{HEAD}[discrete]\n[continuous]\nread_off.iterations = [1.5]", "list of whole numbers"),
        (f"{HEAD}[discrete]\n[continuous]\nread_off.steps = [1]", "has iterations and final_smoothing"),
        ('schema_version = 1\nbase = "fancy.toml"\n[discrete]\n[continuous]', "fancy.toml"),
    ],
)
def test_what_is_no_space(text: str, message: str) -> None:
    with pytest.raises((ConfigError, FileError), match=message):
        Space.from_toml(text)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileError, match="known are default, published, labels"):
        Space.load("defualt")
