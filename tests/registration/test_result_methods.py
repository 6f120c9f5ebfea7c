"""What is done with a result: inverse, evaluation, files."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torso import QUICKEST

from convexadam import (
    Affine,
    ConfigError,
    DisplacementField,
    Image,
    MissingExtraError,
    RegistrationResult,
    preset,
    read_image,
    read_transform,
    register,
    write_image,
)
from convexadam.data import PhantomPair, phantom_pair
from convexadam.metrics import evaluate_transform


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    affine = np.array([[-15.0, 0, 0, 170], [0, 0, 17.0, -150], [0, 15.0, 0, -140], [0, 0, 0, 1]])
    return phantom_pair((24, 20, 16), affine=affine, displacement_mm=20.0)


@pytest.fixture(scope="module")
def result(pair: PhantomPair) -> RegistrationResult:
    return register(pair.fixed, pair.moving, QUICKEST)


def test_a_preset_is_named(pair: PhantomPair) -> None:
    assert register(pair.fixed, pair.moving, "rigid").config == preset("rigid")
    with pytest.raises(ConfigError, match=r"preset must be one of .*got 'publishd' \(did you mean 'published'\?\)"):
        register(pair.fixed, pair.moving, "publishd")
    with pytest.raises(ConfigError, match="config must be a RegistrationConfig or the name of a preset, got 3"):
        register(pair.fixed, pair.moving, 3)  # type: ignore[arg-type]


def test_the_inverse_is_computed_once(result: RegistrationResult, pair: PhantomPair) -> None:
    inverse = result.inverse()
    assert isinstance(inverse, DisplacementField)
    assert inverse.grid.is_close(pair.moving.grid)
    assert result.inverse() is inverse
    points = pair.fixed_landmarks_mm
    assert float((inverse(result.transform(points)) - points).norm(dim=1).max()) < 0.5
    rigid = register(pair.fixed, pair.moving, "rigid")
    assert isinstance(rigid.inverse(), Affine)
    np.testing.assert_allclose(rigid.inverse().matrix @ rigid.transform.matrix, np.eye(4), atol=1e-9)


def test_the_inverse_of_a_symmetric_registration_is_the_estimated_one(pair: PhantomPair) -> None:
    both = register(pair.fixed, pair.moving, QUICKEST.with_settings("symmetric=true"))
    assert both.estimated_inverse is not None
    assert both.inverse() is both.estimated_inverse


def test_a_result_is_evaluated(result: RegistrationResult, pair: PhantomPair, tmp_path: Path) -> None:
    expected = evaluate_transform(
        result.transform,
        fixed_labels=pair.fixed_labels,
        moving_labels=pair.moving_labels,
        fixed_landmarks_mm=pair.fixed_landmarks_mm,
        moving_landmarks_mm=pair.moving_landmarks_mm,
        mask=pair.fixed_labels,
        surface=False,
    )
    write_image(pair.moving_labels, tmp_path / "labels.nii.gz")
    for labels in (pair.moving_labels, tmp_path / "labels.nii.gz", pair.moving_labels.numpy()):
        found = result.evaluate(
            pair.fixed_labels.numpy(),
            labels,
            fixed_landmarks=pair.fixed_landmarks_mm,
            moving_landmarks=pair.moving_landmarks_mm.numpy(),
            mask=pair.fixed_labels.data[0],
            surface=False,
        )
        assert found == expected
    linear = register(pair.fixed, pair.moving, "rigid")
    assert linear.evaluate()["folded_percent"] == 0
    with pytest.raises(ConfigError, match="moving_labels must be given together"):
        result.evaluate(pair.fixed_labels)


def test_a_result_is_saved(result: RegistrationResult, pair: PhantomPair, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in result.save(folder)) == ["moved.nii.gz", "report.json", "transform.nii.gz"]
    loaded: Any = read_transform(folder / "transform.nii.gz")
    torch.testing.assert_close(loaded.disp_mm, result.transform.disp_mm)
    torch.testing.assert_close(read_image(folder / "moved.nii.gz").data, result.moved.data)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report == result.summary()
    outputs = ("inverse",)
    written = result.save(str(folder), outputs=outputs, labels=pair.moving_labels.numpy(), extra={"subject": "a"})
    assert [path.name for path in written] == ["inverse_transform.nii.gz", "moved_labels.nii.gz", "report.json"]
    moved = result.transform.warp(pair.moving_labels, pair.fixed, mode="label")
    assert torch.equal(read_image(folder / "moved_labels.nii.gz").data, moved.data)
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["subject"] == "a"
    linear = register(pair.fixed, pair.moving, "rigid").save(tmp_path / "rigid", outputs=("transform", "inverse"))
    assert [path.name for path in linear] == ["transform.tfm", "inverse_transform.tfm", "report.json"]
    with pytest.raises(ConfigError, match="outputs must be a tuple of one of"):
        result.save(folder, outputs=("everything",))  # type: ignore[arg-type]


def test_labels_of_figures_have_every_form(result: RegistrationResult, pair: PhantomPair, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    labels = pair.fixed_labels.numpy(), pair.moving_labels
    assert result.plot(labels=labels).axes[1].collections
    result.report(tmp_path / "report.html", labels=labels)
    assert isinstance(Image.plot(pair.fixed, labels=labels[0])._repr_png_(), bytes)


def test_napari_shows_the_images_in_millimetres(result: RegistrationResult, monkeypatch: pytest.MonkeyPatch) -> None:
    class Viewer:
        def __init__(self) -> None:
            self.layers: dict[str, dict[str, Any]] = {}

        def add_image(self, values: np.ndarray, *, name: str, **options: Any) -> None:
            self.layers[name] = {"values": values, **options}

    napari: Any = types.ModuleType("napari")
    napari.Viewer = Viewer
    monkeypatch.setitem(sys.modules, "napari", napari)
    layers = result.to_napari().layers
    assert list(layers) == ["fixed", "moving", "moved"]
    for name, image in (("fixed", result.fixed), ("moving", result.moving), ("moved", result.moved)):
        np.testing.assert_array_equal(layers[name]["values"], image.numpy())
        np.testing.assert_array_equal(layers[name]["affine"], image.grid.affine)
    own = Viewer()
    assert result.to_napari(own) is own
    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(MissingExtraError, match="pip install napari"):
        result.to_napari()
