"""What ``convexadam warp`` takes for labels, where landmarks must lie, and what is known before the work."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage

from convexadam import Affine, DisplacementField, FileError, Grid, Image, write_image, write_transform
from convexadam.cli import results
from convexadam.cli.content import find_content
from convexadam.io import write_itk_field
from convexadam.metrics import dice
from convexadam.metrics.summary import to_integer_labels

SHAPE = (30, 28, 26)
GRID = Grid(SHAPE, np.array([[0, -1.5, 0, 20], [2.0, 0, 0, -30], [0, 0, 1.0, 5], [0, 0, 0, 1]]))
RANDOM = np.random.default_rng(5)


def regions(n: int) -> np.ndarray:
    """Voronoi cells, numbered from 1, around random points, with background."""
    seeds = RANDOM.uniform(0, 1, (n, 3)) * SHAPE
    places = np.moveaxis(np.indices(SHAPE), 0, -1)
    cells = np.argmin([((places - seed) ** 2).sum(-1) for seed in seeds], axis=0) + 1
    inside = ((places - np.array(SHAPE) / 2) ** 2).sum(-1) < 12**2
    return np.where(inside, cells, 0)


def intensities(noise: float) -> np.ndarray:
    smooth = ndimage.gaussian_filter(RANDOM.normal(size=SHAPE), 4) * 4000
    return smooth + RANDOM.normal(size=SHAPE) * noise


NAMES = dict(enumerate(RANDOM.permutation(np.arange(1000, 13000))[:200]))
LABELS = {
    "a mask": (regions(40) > 20).astype(np.uint8),
    "few": regions(12).astype(np.int16),
    "many": regions(180).astype(np.int32),
    "names of FreeSurfer": np.vectorize(NAMES.__getitem__)(regions(150)).astype(np.float32),
    "large": (regions(30) * 100_000_007).astype(np.int64),
    "a seed of each": np.where(RANDOM.random(SHAPE) < 0.002, RANDOM.integers(1, 9, SHAPE), 0).astype(np.uint16),
    "unlabelled": (regions(60) - 1).astype(np.int16),
}
IMAGES = {
    "CT": intensities(20).clip(-1000, 2000).round().astype(np.int16),
    "CT shifted": (intensities(20) + 1024).clip(0, 4095).round().astype(np.uint16),
    "CT without noise": intensities(0).round().astype(np.int16),
    "8 bits": (intensities(20) / 8 + 128).clip(0, 255).round().astype(np.uint8),
    "whole numbers as float": intensities(10).round().astype(np.float32),
    "probabilities": RANDOM.random(SHAPE).astype(np.float32),
}
LABELS_AND_IMAGES = [*((name, values, True) for name, values in LABELS.items()),
                     *((name, values, False) for name, values in IMAGES.items())]  # fmt: skip


@pytest.mark.parametrize(("name", "values", "labels"), LABELS_AND_IMAGES, ids=[n for n, *_ in LABELS_AND_IMAGES])
def test_labels_are_told_by_their_values(name: str, values: np.ndarray, labels: bool) -> None:
    for kind in {values.dtype, np.dtype(np.float64)}:
        found = find_content(Image.from_array(values.astype(kind)))
        assert found.labels is labels, (name, found.reason)


def test_a_gradual_change_is_none_of_labels() -> None:
    slow = np.broadcast_to(np.arange(60)[:, None, None] // 1, (60, 20, 20)).astype(np.int16)
    assert not find_content(Image.from_array(slow)).labels
    striped = np.repeat(np.arange(1, 61), 3)[:, None, None] * np.ones((1, 6, 6), np.int16)
    assert not find_content(Image.from_array(striped.astype(np.int16))).labels


@pytest.fixture
def shifted(tmp_path: Path) -> Path:
    """A folder with a transform by (0.6, 0.9, 0.5) mm, which is no whole number of voxels."""
    disp = torch.tensor([0.6, 0.9, 0.5]).reshape(3, 1, 1, 1).expand(3, *SHAPE)
    write_itk_field(DisplacementField(disp.contiguous(), GRID), tmp_path / "t.nii.gz")
    matrix = np.eye(4)
    matrix[:3, 3] = 0.6, 0.9, 0.5
    write_transform(Affine(matrix), tmp_path / "t.tfm")
    return tmp_path


def linear(values: np.ndarray) -> np.ndarray:
    """Interpolate at the shifted voxels with scipy."""
    step = np.linalg.solve(GRID.affine[:3, :3], [0.6, 0.9, 0.5])
    return np.asarray(ndimage.shift(values.astype(np.float64), -step, order=1, mode="nearest"))


def test_float_labels_keep_their_values(shifted: Path, run: Any) -> None:
    values = LABELS["names of FreeSurfer"]
    write_image(Image.from_array(values, GRID.affine), shifted / "aparc.nii.gz")
    ran = run("warp", shifted / "t.nii.gz", shifted / "aparc.nii.gz", shifted / "out.nii.gz")
    assert ran.status == 0
    assert "aparc.nii.gz was taken for labels" in ran.error
    assert "--image decides otherwise" in ran.error
    found: Any = nibabel.load(shifted / "out.nii.gz")
    assert set(np.unique(found.dataobj)) <= set(np.unique(values))


def test_an_int16_scan_is_interpolated(shifted: Path, run: Any) -> None:
    values = IMAGES["CT"]
    write_image(Image.from_array(values, GRID.affine), shifted / "ct.nii.gz")
    ran = run("warp", shifted / "t.nii.gz", shifted / "ct.nii.gz", shifted / "out.nii.gz")
    assert "taken for an image: it holds negative numbers" in ran.error
    found: Any = nibabel.load(shifted / "out.nii.gz")
    inner = (slice(2, -2),) * 3
    assert np.abs(np.asarray(found.dataobj) - linear(values))[inner].max() <= 0.51  # rounded to int16
    assert found.get_data_dtype() == np.int16


def test_the_decision_can_be_forced(shifted: Path, run: Any) -> None:
    write_image(Image.from_array(IMAGES["CT"], GRID.affine), shifted / "ct.nii.gz")
    command = ("warp", shifted / "t.nii.gz", shifted / "ct.nii.gz", shifted / "out.nii.gz")
    for option in (["--labels"], ["--mode", "label"]):
        assert run(*command, *option) == (0, "", "")
        found: Any = nibabel.load(shifted / "out.nii.gz")
        assert set(np.unique(found.dataobj)) <= {0, *np.unique(IMAGES["CT"]).tolist()}
    write_image(Image.from_array(LABELS["few"], GRID.affine), shifted / "few.nii.gz")
    assert run(*command[:2], shifted / "few.nii.gz", command[3], "--image") == (0, "", "")
    found = nibabel.load(shifted / "out.nii.gz")
    inner = (slice(2, -2),) * 3
    assert np.abs(np.asarray(found.dataobj) - linear(LABELS["few"]))[inner].max() <= 0.51
    assert run(*command, "--labels", "--image").status == 2


def test_labels_to_warp_must_be_labels(shifted: Path, run: Any) -> None:
    write_image(Image.from_array(IMAGES["probabilities"], GRID.affine), shifted / "a.nii.gz")
    file = shifted / "a.nii.gz"
    ran = run("register", file, file, "--output-dir", shifted / "out", "--warp-labels", file)
    assert ran.status == 1
    assert "--warp-labels must contain whole numbers" in ran.error
    assert not (shifted / "out").exists()


def test_labels_beyond_32_bits_stay_apart(tmp_path: Path) -> None:
    values = np.zeros(SHAPE, np.int64)
    values[:10], values[20:] = 3_000_000_000, 3_000_000_001
    for kind in (np.int64, np.float64):
        one = to_integer_labels(Image.from_array(values.astype(kind)), "labels").data[0]
        assert dice(one, one.flip(0)) == {3_000_000_000: 0.0, 3_000_000_001: 0.0}
    with pytest.raises(ValueError, match="merges larger ones"):
        to_integer_labels(Image.from_array(values.astype(np.float32)), "labels")
    with pytest.warns(UserWarning, match="written as int64, which some programs do not read"):
        write_image(Image.from_array(values), tmp_path / "labels.nii.gz")
    found: Any = nibabel.load(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), values)


def test_scaled_labels_stay_exact(tmp_path: Path) -> None:
    from convexadam import read_image

    header: Any = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    stored: Any = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4), header)
    nibabel.save(stored, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:120] = np.array([1, 2.0**31], "<f4").tobytes()  # slope and intercept
    (tmp_path / "a.nii").write_bytes(raw)
    found = to_integer_labels(read_image(tmp_path / "a.nii"), "labels").data.flatten()
    assert found.tolist() == list(range(2**31, 2**31 + 60))


def landmarks(path: Path, rows: str) -> Path:
    path.write_text(rows)
    return path


def test_indices_taken_for_millimetres_are_noticed(shifted: Path, run: Any) -> None:
    far = np.eye(4)
    far[:3, 3] = 1100, -900, 1500
    write_transform(DisplacementField(torch.zeros(3, *SHAPE), Grid(SHAPE, far)), shifted / "far.nii.gz")
    path = landmarks(shifted / "p.csv", "x,y,z,name\n3,4,5,apex\n20,10,12,base\n")
    ran = run("warp", shifted / "far.nii.gz", path, shifted / "q.csv", "--space", "mm")
    assert ran.status == 0
    away = max(np.linalg.norm(np.maximum(0, np.array([1099.5 - p[0], p[1] + 872.5, 1499.5 - p[2]])))
               for p in ((3, 4, 5), (20, 10, 12)))  # fmt: skip
    assert f"warning: 2 of 2 landmarks of {path}, taken as mm of fixed space, lie outside the image" in ran.error
    assert f"up to {away:.4g} mm" in ran.error
    assert "all of them would lie in it with --space voxel" in ran.error


def test_names_and_headers_of_landmarks_are_kept(shifted: Path, run: Any) -> None:
    path = landmarks(shifted / "p.csv", "name,x,y,z\napex,10,-10,12\nbase,0,0,20\n")
    assert run("warp", shifted / "t.tfm", path, shifted / "q.csv", "--space", "mm").status == 0
    rows = [line.split(",") for line in (shifted / "q.csv").read_text().splitlines()]
    assert rows[0] == ["name", "x", "y", "z"]
    assert [row[0] for row in rows[1:]] == ["apex", "base"]
    np.testing.assert_allclose(np.array([r[1:] for r in rows[1:]], float), [[10.6, -9.1, 12.5], [0.6, 0.9, 20.5]])


def test_landmarks_of_slicer_need_no_space(shifted: Path, run: Any) -> None:
    path = landmarks(shifted / "p.fcsv", "# CoordinateSystem = LPS\n# columns = id,x,y,z,label\n1,-10,10,12,apex\n")
    assert run("warp", shifted / "t.tfm", path, shifted / "q.fcsv").status == 0
    last = (shifted / "q.fcsv").read_text().splitlines()[-1].split(",")
    np.testing.assert_allclose(np.array(last[1:4], float), [-10.6, 9.1, 12.5])
    assert last[4] == "apex"
    assert run("warp", shifted / "t.tfm", path, shifted / "q.fcsv", "--space", "mm").status == 2
    assert run("warp", shifted / "t.tfm", path, shifted / "q.csv").status == 2


def test_landmarks_far_from_their_image_are_noticed_in_evaluate(shifted: Path, run: Any) -> None:
    path = landmarks(shifted / "p.csv", "300,4,5\n20,10,12\n")
    options = ["--fixed-landmarks", path, "--moving-landmarks", path]
    ran = run("evaluate", shifted / "t.nii.gz", *options)
    assert ran.error.count("1 of 2 landmarks") == 2
    assert f"up to {(300 - 29.5) * 2:.4g} mm" in ran.error


@pytest.mark.parametrize("command", ["warp", "invert", "compose", "convert"])
def test_outputs_are_checked_before_the_work(
    command: str, shifted: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    field = shifted / "t.nii.gz"
    arguments = {
        "warp": (field, shifted / "no such image.nii.gz", shifted / "out.nii.gz"),
        "invert": (shifted / "none.h5", shifted / "out.nii.gz"),
        "compose": (shifted / "none.h5", field, "--output", shifted / "out.nii.gz"),
        "convert": (shifted / "none.h5", shifted / "out.npz"),
    }[command]
    ran = run(command, *arguments)
    assert ran.status == 1
    assert "Read-only file system" in ran.error


def test_an_unwritable_folder_is_known_before_the_work(shifted: Path, run: Any) -> None:
    ran = run("register", shifted / "none.nii", shifted / "none.nii", "--output-dir", "/proc/convexadam/results")
    assert ran.status == 1
    assert "cannot write /proc" in ran.error


def test_a_sheared_fixed_image_is_known_before_the_work(shifted: Path, run: Any, monkeypatch: Any) -> None:
    sheared = GRID.affine.copy()
    sheared[:3, 0] += 0.2 * sheared[:3, 1]
    write_image(Image.from_array(IMAGES["CT"], sheared), shifted / "a.nii.gz")
    monkeypatch.setattr("convexadam.cli.registering.register", lambda *_, **__: pytest.fail("the work began"))
    ran = run("register", shifted / "a.nii.gz", shifted / "a.nii.gz", "--output-dir", shifted / "out")
    assert ran.status == 1
    assert "the fixed image must have orthogonal axes" in ran.error


def test_results_survive_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write(result: Any, folder: Path, outputs: Any, extra: Any) -> list[Path]:
        if not written:
            written.append(folder)
            raise FileError("cannot write moved.nii.gz: No space left on device")
        written.append(folder)
        return [folder]

    monkeypatch.setattr(results, "save_result", write)
    with pytest.raises(FileError, match=r"No space left on device; the results must be moved from .*convexadam-"):
        results.write_result(None, tmp_path)  # type: ignore[arg-type]
    assert written[0] == tmp_path
    assert written[1].is_dir()
    written[1].rmdir()


def test_a_nearly_full_disk_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image(torch.zeros(1, *SHAPE), GRID)
    usage = type("Usage", (), {"free": 16 * GRID.n_voxels - 1})
    monkeypatch.setattr(results.shutil, "disk_usage", lambda _: usage)
    with pytest.warns(UserWarning, match="MB free"):
        results.check_fixed_image(image, tmp_path / "out")
