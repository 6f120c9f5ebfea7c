"""How settings and results describe themselves."""

from __future__ import annotations

import dataclasses
import pickle
import re

import numpy as np
import pytest
import torch
from torso import QUICKEST

from convexadam import (
    ConvexSearch,
    Image,
    Intensity,
    MindSSC,
    RegistrationConfig,
    RegistrationResult,
    preset,
    register,
)
from convexadam.data import phantom_pair
from convexadam.registration import preset_names


@pytest.fixture(scope="module")
def result() -> RegistrationResult:
    pair = phantom_pair((24, 20, 16), displacement_mm=20.0, contrasts=("ct", "t1"))
    return register(pair.fixed, pair.moving, QUICKEST)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_shown_by_its_name(name: str) -> None:
    assert repr(preset(name)) == f"preset({name!r})"


def test_settings_are_shown_by_what_differs_from_the_closest_preset() -> None:
    assert repr(RegistrationConfig()) == "preset('default')"
    assert repr(preset().with_settings("discrete.spacing=5")) == "preset('default') with discrete.spacing=5"
    changed = preset("best").with_settings("continuous.levels.0.iterations=7")
    assert repr(changed) == "preset('best') with continuous.levels.0.iterations=7"
    replaced = dataclasses.replace(preset(), features=Intensity(), symmetric=True)
    assert repr(replaced) == "preset('default') with features=Intensity(), symmetric=True"
    several = dataclasses.replace(preset(), discrete=(ConvexSearch(spacing=3), ConvexSearch()), continuous=None)
    assert "discrete=(ConvexSearch(spacing=3), ConvexSearch()), continuous=None" in repr(several)


def test_a_function_is_shown_by_its_name() -> None:
    def gradient(image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        return image.data

    text = repr(dataclasses.replace(preset(), features=gradient))
    assert text.startswith("preset('default') with features=")
    assert text.endswith("gradient")


def test_settings_have_a_table() -> None:
    config = dataclasses.replace(preset(), features=MindSSC(radius=2))
    html = config._repr_html_()
    for text in ("closest preset", "features.radius", "all settings", "MindSSC(radius=2)", "AutoForeground", "<table"):
        assert (text in html) == (text != "AutoForeground"), text
    assert "&lt;" not in html


def test_a_result_is_one_short_line(result: RegistrationResult) -> None:
    text = repr(result)
    assert len(text) < 160
    assert "\n" not in text
    longest_mm = float(result.transform.disp_mm.norm(dim=0).max())
    assert f"displacement up to {longest_mm:.3g} mm" in text
    assert f"{sum(result.timings.values()):.3g} s on cpu" in text
    assert repr(register(result.fixed, result.moving, preset("rigid"))).startswith("RegistrationResult(rigid, ")


def test_a_result_shows_itself(result: RegistrationResult) -> None:
    pytest.importorskip("matplotlib")
    html = result._repr_html_()
    assert len(html) < 300_000
    assert len(set(re.findall(r'src="(data:image/webp;base64,[^"]+)"', html))) == 6  # before and after differ
    for text in ("dissimilarity", "displacement", "folded", "settings", "time", "before, axial", "after, sagittal"):
        assert text in html
    assert repr(result.config).split(" with ")[0].replace("'", "&#x27;") in html


def test_a_result_without_finite_values_shows_text(result: RegistrationResult) -> None:
    nothing = Image(torch.full_like(result.fixed.data, np.nan), result.fixed.grid)
    assert dataclasses.replace(result, fixed=nothing)._repr_html_()


def test_a_result_draws_itself(result: RegistrationResult) -> None:
    pytest.importorskip("matplotlib")
    figure = result.plot()
    assert "local dissimilarity" in "".join(axis.get_title() for axis in figure.axes)  # CT and MR
    labels = Image((result.fixed.data > 0).to(torch.int32), result.fixed.grid)
    outlined = result.plot(labels=(labels, labels))
    assert [len(outlined.axes[column].collections) for column in range(4)] == [0, 1, 2, 0]


def test_a_result_is_pickled(result: RegistrationResult) -> None:
    found = pickle.loads(pickle.dumps(result))
    assert repr(found) == repr(result)
    assert found.config == result.config
    assert found.transform.grid == result.transform.grid
    assert torch.equal(found.transform.disp_mm, result.transform.disp_mm)
    assert torch.equal(found.moved.data, result.moved.data)
