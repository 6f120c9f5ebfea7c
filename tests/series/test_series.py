"""Time series: motion that is known is found, and nothing is registered twice."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NoReturn

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from convexadam import (
    Affine,
    ConvexSearch,
    DisplacementField,
    Grid,
    Image,
    Refinement,
    RegistrationConfig,
    preset,
    read_image,
    read_transform,
    write_image,
)
from convexadam.cli import main
from convexadam.continuous import Level
from convexadam.errors import ConfigError, GeometryError, InputError
from convexadam.geometry import Transform
from convexadam.registration import prepare
from convexadam.series import FrameSeries, measure_motion, read_series, register_series, write_series
from convexadam.series.motion import smooth_transforms
from convexadam.series.register import make_warm_config

GRID = Grid((30, 28, 26), np.diag([2.0, 2, 2, 1]))
CENTRE = np.array([29.0, 27, 25])


def make_motion(frame: int) -> Affine:
    """A head that turns and sinks."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", [0, 0, 1.5 * frame], degrees=True).as_matrix()
    matrix[:3, 3] = CENTRE - matrix[:3, :3] @ CENTRE + np.array([0, 0.4, -0.8]) * frame
    return Affine(matrix)


@pytest.fixture(scope="module")
def series() -> FrameSeries:
    random = np.random.default_rng(0)
    axes = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in GRID.shape], indexing="ij"))
    head = (axes**2 / np.reshape([0.6, 0.7, 0.6], (3, 1, 1, 1))).sum(0) < 0.8
    texture = sum(gaussian_filter(random.standard_normal(GRID.shape), s) * s**1.5 for s in (1.5, 3))
    rest = Image.from_array((head * (600 + 1000 * texture)).astype(np.float32), GRID.affine)
    frames = []
    for number in range(4):
        moved = make_motion(number).inverse().warp(rest, GRID)
        noise = 10 * torch.from_numpy(random.standard_normal(GRID.shape).astype(np.float32))
        frames.append(Image(moved.data + noise, GRID))
    return FrameSeries(frames=tuple(frames), step_s=2.5)


def spread(series: FrameSeries) -> float:
    """Mean standard deviation over time within the head."""
    head = series.frames[0].data > 300
    return float(torch.stack([frame.data[head].float() for frame in series.frames]).std(0).mean())


def error_mm(transform: Transform, expected: Transform) -> float:
    a, b = (t.to_displacement_field(GRID).disp_mm[:, 8:-8, 8:-8, 8:-8] for t in (transform, expected))
    return float((a - b).square().sum(0).sqrt().mean())


@pytest.mark.parametrize("options", [{}, {"warm_start": True}, {"order": "chain"}], ids=str)
def test_motion_is_found(series: FrameSeries, options: dict[str, Any]) -> None:
    result = register_series(series, **options)
    for number, transform in enumerate(result.transforms):
        assert error_mm(transform, make_motion(number)) < 0.25
    last = result.motion[-1]
    # errors of a chain add up
    assert last.rotation_s_degrees == pytest.approx(4.5, abs=0.6 if "order" in options else 0.3)
    assert last.translation_s_mm == pytest.approx(-2.4, abs=0.2)
    assert last.framewise_displacement_mm == pytest.approx(0.4 + 0.8 + 50 * np.deg2rad(1.5), abs=0.3)
    assert spread(result.moved) < 0.6 * spread(series)


def test_frames_of_whole_numbers_are_interpolated(series: FrameSeries) -> None:
    # regression: integers were taken for labels, so that motion of less than half a voxel was left as it was
    whole = FrameSeries(frames=tuple(Image(frame.data.round().to(torch.int16), GRID) for frame in series.frames))
    found, expected = (spread(register_series(frames).moved) for frames in (whole, series))
    assert found == pytest.approx(expected, rel=0.01)


def test_another_reference(series: FrameSeries) -> None:
    result = register_series(series, reference=2)
    matrix = make_motion(0).matrix @ np.linalg.inv(make_motion(2).matrix)
    assert error_mm(result.transforms[0], Affine(matrix)) < 0.25
    assert result.transforms[2].matrix == pytest.approx(np.eye(4))  # type: ignore[attr-defined]


@pytest.mark.long
def test_the_mean_as_reference(series: FrameSeries) -> None:
    result = register_series(series, reference="mean", passes=1)
    assert spread(result.moved) < 0.6 * spread(series)


def test_files_and_continuation(series: FrameSeries, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(series, tmp_path / "series.nii.gz")
    header = nibabel.load(tmp_path / "series.nii.gz").header
    assert header.get_data_shape() == (30, 28, 26, 4)
    assert header.get_zooms() == (2, 2, 2, 2.5)
    labels = Image((series.frames[0].data > 300).to(torch.int16), GRID)
    from convexadam import write_image

    write_image(labels, tmp_path / "labels.nii.gz")
    command = ["series", str(tmp_path / "series.nii.gz"), "--output-dir", str(tmp_path / "out")]
    assert main([*command, "--labels", str(tmp_path / "labels.nii.gz")]) == 0
    assert "4 frames" in capsys.readouterr().err
    moved = read_series(tmp_path / "out" / "moved.nii.gz")
    assert len(moved.frames) == 4
    assert moved.step_s == 2.5
    with (tmp_path / "out" / "motion.csv").open() as file:
        assert float(list(csv.DictReader(file))[3]["rotation_s_degrees"]) == pytest.approx(4.5, abs=0.3)
    transform = read_transform(tmp_path / "out" / "transforms" / "0003_transform.tfm")
    assert error_mm(transform, make_motion(3)) < 0.25
    carried = read_image(tmp_path / "out" / "labels" / "0003.nii.gz")
    expected = (series.frames[3].data > 300).to(torch.int16)
    assert float((carried.data == expected).float().mean()) > 0.97
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "passes").rglob("*.tfm")}
    assert main([*command, "--quiet"]) == 0
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "passes").rglob("*.tfm")}
    assert main([*command, "--reference", "last"]) == 2


def test_names_of_frames_on_the_command_line(
    series: FrameSeries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = list[object]()

    def note(frames: object, **_: object) -> NoReturn:
        given.append(frames)
        raise InputError("noted")

    monkeypatch.setattr("convexadam.cli.series.register_series", note)
    for names in (["a.nii.gz"], ["a.nii.gz", "b.nii.gz"]):
        assert main(["series", *names, "--output-dir", str(tmp_path)]) == 1
    assert given == ["a.nii.gz", ("a.nii.gz", "b.nii.gz")]
    assert main(["series", "--output-dir", str(tmp_path)]) == 2


def test_motion_of_known_transforms() -> None:
    shift = np.eye(4)
    shift[:3, 3] = 3, 0, -4
    motion = measure_motion([Affine(), Affine(shift), make_motion(2)], GRID)
    assert motion[1].mean_displacement_mm == pytest.approx(5, abs=1e-4)
    assert motion[1].framewise_displacement_mm == pytest.approx(7, abs=1e-6)
    assert motion[2].rotation_s_degrees == pytest.approx(3, abs=1e-6)
    assert motion[2].translation_a_mm == pytest.approx(0.8, abs=1e-6)
    field = make_motion(2).to_displacement_field(GRID)
    assert measure_motion([field], GRID)[0].rotation_s_degrees == pytest.approx(3, abs=1e-3)


def test_smoothing_over_time() -> None:
    steady = [make_motion(n) for n in range(9)]
    smooth = smooth_transforms(steady, 1.0)
    assert error_mm(smooth[4], steady[4]) < 1e-2
    jumpy = [Affine() if n != 4 else make_motion(4) for n in range(9)]
    assert error_mm(smooth_transforms(jumpy, 1.0)[4], Affine()) < 0.5 * error_mm(jumpy[4], Affine())
    fields = [DisplacementField(torch.full((3, *GRID.shape), float(n)), GRID) for n in range(5)]
    found = smooth_transforms(fields, 1.0)[2]
    torch.testing.assert_close(found.disp_mm, fields[2].disp_mm)  # type: ignore[attr-defined]
    assert smooth_transforms(steady, 0.0) == steady


@pytest.mark.long
def test_frames_that_deform(series: FrameSeries) -> None:
    result = register_series(series, config=preset("default"))
    assert all(isinstance(transform, (Affine, DisplacementField)) for transform in result.transforms)
    assert error_mm(result.transforms[3], make_motion(3)) < 0.4 * error_mm(Affine(), make_motion(3))


def test_settings_of_a_frame_that_starts_at_another_one() -> None:
    config = RegistrationConfig(
        discrete=(ConvexSearch(radius=5), ConvexSearch(radius=(4, 3, 1))),
        continuous=Refinement(levels=(Level(spacing=4, iterations=7), Level(spacing=2, iterations=1))),
    )
    warm = make_warm_config(config)
    assert [search.radius for search in warm.searches] == [3, (2, 2, 1)]
    assert [search.inverse_consistency for search in warm.searches] == [0, 0]
    assert warm.continuous is not None
    assert [(level.spacing, level.iterations) for level in warm.continuous.levels] == [(4, 5), (2, 1)]
    assert warm.linear is None
    assert warm.features == config.features
    assert make_warm_config(preset("rigid")) == preset("rigid")


def roll(series: FrameSeries, voxels: int) -> FrameSeries:
    """Frames of one head, the last of which is the one before it, moved along i."""
    first = series.frames[0]
    last = Image(series.frames[1].data.roll(voxels, dims=1), GRID)
    return FrameSeries(frames=(first, series.frames[1], last))


def test_a_search_begins_at_the_field_of_another_frame(series: FrameSeries) -> None:
    config = RegistrationConfig(
        linear=None, discrete=ConvexSearch(spacing=2, radius=1, inverse_consistency=0), continuous=None
    )
    moving = roll(series, 6).frames[2]
    prepared = prepare(series.frames[0], config)
    shift = np.eye(4)
    shift[0, 3] = 12  # mm, the motion itself; the search reaches 4
    head = series.frames[0].data[0] > 300
    for start, nearest in ((None, False), (Affine(shift).to_displacement_field(GRID), True)):
        found = prepared.register(moving, search_start=start).transform.to_displacement_field(GRID).disp_mm[0]
        assert (float((found[head] - 12).abs().mean()) < 1) == nearest


@pytest.mark.parametrize(("voxels", "iterations"), [(0, 60), (7, 20)], ids=["still", "jump"])
def test_frames_that_start_at_another_one_are_as_similar(series: FrameSeries, voxels: int, iterations: int) -> None:
    config = RegistrationConfig(
        linear=None,
        discrete=ConvexSearch(spacing=2, radius=7, inverse_consistency=0),
        continuous=Refinement(levels=(Level(spacing=2, iterations=iterations),)),
    )
    frames = roll(series, voxels)
    warm, cold = (register_series(frames, config=config, warm_start=warm) for warm in (True, False))
    assert spread(warm.moved) < 1.1 * spread(cold.moved)
    # 7 voxels are more than the search from another frame reaches: the frame is registered by itself after all
    same = warm.transforms[2].disp_mm == cold.transforms[2].disp_mm  # type: ignore[attr-defined]
    assert bool(same.all()) == (voxels == 7)


@pytest.mark.parametrize(
    ("shape", "intent", "name"),
    [
        ((9, 8, 7, 1, 3), 1007, ""),  # ITK and ANTs
        ((9, 8, 7, 1, 3), 1007, "Mapping"),  # SPM
        ((9, 8, 7, 1, 3), 1007, "NREG_TRANS"),
        ((9, 8, 7, 1, 3), 1006, ""),
        ((9, 8, 7, 1, 3), 0, ""),
        ((9, 8, 7, 3), 1007, ""),
        ((9, 8, 7, 3), 1006, ""),
    ],
)
def test_a_field_is_no_series(shape: tuple[int, ...], intent: int, name: str, tmp_path: Path) -> None:
    field = nibabel.Nifti1Image(np.ones(shape, np.float32), np.eye(4))
    field.header["intent_code"], field.header["intent_name"] = intent, name
    nibabel.save(field, tmp_path / "field.nii.gz")
    with pytest.raises(InputError, match=r"frames must follow each other .* got vectors .* convexadam warp"):
        read_series(tmp_path / "field.nii.gz")


def test_a_field_of_itk_is_no_series(tmp_path: Path) -> None:
    write_image(Image(torch.rand(3, 6, 5, 4), Grid((6, 5, 4))), tmp_path / "field.mha")
    with pytest.raises(InputError, match="got vectors in"):
        read_series(tmp_path / "field.mha")


def test_what_is_no_series(series: FrameSeries, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least two"):
        FrameSeries(frames=series.frames[:1])
    other = Image(series.frames[0].data, Grid(GRID.shape, np.diag([3.0, 2, 2, 1])))
    with pytest.raises(GeometryError, match=r"frames\[1\]"):
        FrameSeries(frames=(series.frames[0], other))
    with pytest.raises(ConfigError, match="reference"):
        register_series(series, reference=4)
    with pytest.raises(ConfigError, match="order"):
        register_series(series, order="backwards")  # type: ignore[arg-type]
