"""The metrics of the official evaluation, against naive loops."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import l2r_oracle as oracle
import nibabel
import numpy as np
import pytest
import torch

from convexadam import FileError, InputError
from convexadam.io import write_landmarks
from convexadam.learn2reg import (
    EvaluationConfig,
    evaluate_fields,
    make_evaluation_config,
    read_evaluation_config,
    read_task,
)
from convexadam.learn2reg.evaluation import compute_landmark_distances, warp_labels

SHAPE = (11, 9, 10)
SPACING = (1.5, 2.0, 0.75)
LABELS = (1, 2, 3, 4, 5)
"""Label 4 is missing in the fixed image of the second case, 5 everywhere, and the warp of the first loses 3."""


def random_field(rng: np.random.Generator) -> np.ndarray:
    """Rough, folded in places, with ties (half voxels) and steps out of the volume; (3, i, j, k), exact in float16."""
    return np.asarray(rng.integers(-6, 7, (3, *SHAPE)) / 4.0)


def write_volume(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*SPACING, 1.0])), path)


class Case:
    """Everything about one pair, in memory and in files."""

    def __init__(self, folder: Path, number: int) -> None:
        rng = np.random.default_rng(number)
        self.title = f"{number:04}_0000<--{number:04}_0001"
        self.disp = random_field(rng)
        self.fixed, self.moving = (rng.integers(0, 5, SHAPE).astype(np.uint8) for _ in range(2))
        self.mask = rng.integers(0, 3, SHAPE).astype(np.uint8)  # 2 does not count
        last = np.array(SHAPE) - 1
        self.points = {
            kind: (rng.uniform(-0.5, last + 0.5, (n, 3)), rng.uniform(0, last, (n, 3)))
            for kind, n in (("landmarks", 13), ("keypoints", 7))
        }
        self.points["landmarks"][0][:3] = [[0, 0, 0], last, [-0.01, 4, 4]]  # corners, and just outside
        if number == 1:
            self.moving[self.moving == 3] = 0
            self.moving[10, 8, 9] = 3
            self.disp[:, 10, 8, 9] = -1
            self.disp[:, 8:, 6:, 7:] = np.minimum(self.disp[:, 8:, 6:, 7:], -3)
        else:
            self.fixed[self.fixed == 4] = 0
            self.fixed[5:][self.fixed[5:] == 1] = 0  # far from where it is in the moving image
        self.write(folder, f"T_{number:04}")

    def write(self, folder: Path, name: str) -> None:
        for modality, labels in enumerate((self.fixed, self.moving)):
            write_volume(labels, folder / "labelsTr" / f"{name}_{modality:04}.nii.gz")
            write_volume(np.zeros(SHAPE, np.int16), folder / "imagesTr" / f"{name}_{modality:04}.nii.gz")
            for kind, points in self.points.items():
                (folder / f"{kind}Tr").mkdir(exist_ok=True)
                write_landmarks(torch.from_numpy(points[modality]), folder / f"{kind}Tr" / f"{name}_{modality:04}.csv")
        write_volume(self.mask, folder / "masksTr" / f"{name}_0000.nii.gz")


class Cases:
    """Two cases, the folder of the task and that of the fields."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fields = folder, folder / "fields"
        self.fields.mkdir()
        self.cases = [Case(folder, 1), Case(folder, 2)]
        channels_last = [np.moveaxis(case.disp, 0, -1) for case in self.cases]
        np.savez(self.fields / "disp_0001_0000_0001_0001.npz", channels_last[0].astype(np.float16))
        write_volume(channels_last[1].astype(np.float32), self.fields / "disp_0002_0002.nii.gz")
        self.pairs = [
            {"fixed": f"./imagesTr/T_000{n}_0000.nii.gz", "moving": f"./imagesTr/T_000{n}_0001.nii.gz"} for n in (1, 2)
        ]

    def read_config(self, *, masked: bool = True) -> EvaluationConfig:
        methods = [
            {"name": "LogJacDetStd", "metric": "sdlogj"},
            {"name": "DSC", "metric": "dice", "labels": LABELS},
            {"name": "HD95", "metric": "hd95", "labels": [str(label) for label in LABELS]},
            {"name": "TRE_lm", "metric": "tre", "dest": "landmarks"},
            {"name": "TRE_kp", "metric": "tre", "dest": "keypoints"},
        ]
        config = {
            "task_name": "T",
            "evaluation_methods": methods,
            "expected_shape": [*SHAPE, 3],
            "eval_pairs": self.pairs,
            "masked_evaluation": masked,
        }
        (self.folder / "config.json").write_text(json.dumps(config))
        (self.folder / "dataset.json").write_text(json.dumps({"name": "T", "registration_val": self.pairs}))
        return read_evaluation_config(self.folder / "config.json", read_task(self.folder))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    made = Cases(tmp_path_factory.mktemp("cases"))
    made.read_config()  # writes it, which tests change
    return made


@pytest.fixture(scope="module")
def found(cases: Cases) -> dict[str, Any]:
    return evaluate_fields(cases.read_config(), cases.fields)


def label_values(case: Case, metric: str, moved: np.ndarray) -> list[float]:
    score = oracle.overlap if metric == "dice" else oracle.hausdorff95
    return [
        score(case.fixed, moved, label) if (case.fixed == label).any() and (case.moving == label).any() else math.nan
        for label in LABELS
    ]


def expected(case: Case) -> dict[str, Any]:
    """Detailed values of a case."""
    moved = oracle.warped(case.moving, case.disp)
    return {
        "LogJacDetStd": oracle.sdlogj(case.disp, case.mask),
        "num_foldings": 0.0,
        "num_foldings_raw": float((oracle.determinants(case.disp) <= 0).sum()),
        "DSC": label_values(case, "dice", moved),
        "HD95": label_values(case, "hd95", moved),
        **{
            name: oracle.distances(*case.points[kind], SPACING, case.disp)
            for name, kind in (("TRE_lm", "landmarks"), ("TRE_kp", "keypoints"))
        },
    }


def nanmean(values: Any) -> float:
    known = [v for v in np.ravel(values).tolist() if not math.isnan(v)]
    return sum(known) / len(known)


def test_every_number_of_every_case(cases: Cases, found: dict[str, Any]) -> None:
    for case in cases.cases:
        wanted, ours = expected(case), found["cases"][case.title]
        assert set(ours) == set(wanted)
        for name, values in wanted.items():
            assert ours[name]["detailed"] == pytest.approx(values, rel=1e-9, nan_ok=True), name
            assert ours[name]["mean"] == pytest.approx(nanmean(values), rel=1e-9), name
    first, second = (found["cases"][case.title] for case in cases.cases)
    assert math.isnan(second["DSC"]["detailed"][3])  # label 4 is not in the fixed image
    assert math.isnan(first["DSC"]["detailed"][4])  # label 5 is nowhere
    assert (first["DSC"]["detailed"][2], first["HD95"]["detailed"][2]) == (0.0, math.inf)  # label 3 was lost
    assert first["num_foldings_raw"]["mean"] > 0  # the case is not trivial


def test_aggregates(cases: Cases, found: dict[str, Any]) -> None:
    assert (found["name"], found["eval_version"]) == ("T", "2.0")
    for name, share in (("DSC", 0.3), ("TRE_lm", 0.7), ("TRE_kp", 0.7), ("LogJacDetStd", 0.7)):
        means = [nanmean(expected(case)[name]) for case in cases.cases]
        spread = abs(means[0] - means[1]) / 2
        wanted = {"mean": sum(means) / 2, "std": spread, "30": oracle.quantile(means, share)}
        assert found["aggregates"][name] == pytest.approx(wanted, rel=1e-9), name
    assert found["aggregates"]["HD95"]["mean"] == math.inf
    assert found["aggregates"]["num_foldings"] == {"mean": 0.0, "std": 0.0, "30": 0.0}


def test_hd95_takes_the_quantile_of_the_official_file(cases: Cases) -> None:
    config = json.loads((cases.folder / "config.json").read_text())
    config["evaluation_methods"] = [{"name": "HD95", "metric": "hd95", "labels": [1, 2]}]
    (cases.folder / "two.json").write_text(json.dumps(config))
    ours = evaluate_fields(read_evaluation_config(cases.folder / "two.json", read_task(cases.folder)), cases.fields)
    means = [ours["cases"][case.title]["HD95"]["mean"] for case in cases.cases]
    assert means[0] != means[1]
    assert ours["aggregates"]["HD95"]["30"] == pytest.approx(oracle.quantile(means, 0.3))
    assert "ranking" in ours
    assert ours["ranking"] == {}


@pytest.mark.long
def test_the_hardest_by_their_initial_value(cases: Cases, found: dict[str, Any]) -> None:
    entries = []
    for case in cases.cases:
        before = label_values(case, "dice", case.moving)
        entries += [(b, a) for b, a in zip(before, expected(case)["DSC"], strict=True) if not math.isnan(b)]
    assert len(entries) == 7
    chosen = [after for _, after in sorted(entries)[: round(0.3 * len(entries))]]
    assert found["ranking"]["DSC30"] == pytest.approx(sum(chosen) / len(chosen))
    for name, kind in (("TRE_lm", "landmarks"), ("TRE_kp", "keypoints")):
        chosen = []
        for case in cases.cases:
            before = oracle.distances(*case.points[kind], SPACING, None)
            order = sorted(zip(before, expected(case)[name], strict=True), reverse=True)
            chosen += [after for _, after in order[: round(0.3 * len(order))]]
        assert found["ranking"][f"{name}30"] == pytest.approx(sum(chosen) / len(chosen))


def test_without_masks(cases: Cases, found: dict[str, Any]) -> None:
    ours = evaluate_fields(cases.read_config(masked=False), cases.fields)
    for case in cases.cases:
        value = ours["cases"][case.title]["LogJacDetStd"]["mean"]
        assert value == pytest.approx(oracle.sdlogj(case.disp, None), rel=1e-9)
        assert value != pytest.approx(found["cases"][case.title]["LogJacDetStd"]["mean"], rel=1e-3)


def test_progress(cases: Cases) -> None:
    calls: list[tuple[str, float]] = []
    evaluate_fields(cases.read_config(), cases.fields, progress=lambda stage, share: calls.append((stage, share)))
    assert calls == [(cases.cases[0].title, 0.0), (cases.cases[1].title, 0.5), ("done", 1.0)]


def test_ties_and_the_outer_voxel_centres() -> None:
    labels = np.arange(1, 6, dtype=np.int32).reshape(5, 1, 1)
    for shift in (0.5, -0.5, 0.4999, -0.25, 0.25, 1.5):
        disp = np.zeros((3, 5, 1, 1))
        disp[0] = shift
        assert warp_labels(labels, disp).ravel().tolist() == oracle.warped(labels, disp).ravel().tolist()
    disp[0] = -0.25  # the field of view ends at the outer centres, not half a voxel further
    assert warp_labels(labels, disp)[0, 0, 0] == 0


def test_landmarks_without_a_field() -> None:
    found = compute_landmark_distances(np.zeros((1, 3)), np.array([[3.0, 4.0, 0.0]]), np.array([2.0, 2.0, 5.0]))
    assert found.tolist() == [10.0]


def test_a_configuration_from_the_files_of_a_task(folder: Path, tmp_path: Path) -> None:
    task = read_task(folder)
    measures = make_evaluation_config(task)
    assert [m.name for m in measures.measures] == ["LogJacDetStd", "DSC", "HD95", "TRE_kp", "TRE_lm"]
    assert measures.measures[1].labels == (1, 2, 200)
    assert not measures.masked
    (tmp_path / "dataset.json").write_text(
        (folder / "Phantom_dataset.json").read_text().replace('"Phantom"', '"LungCT"')
    )
    bare = make_evaluation_config(read_task(tmp_path))
    assert [m.name for m in bare.measures] == ["LogJacDetStd"]
    assert bare.masked


def broken(cases: Cases, tmp_path: Path, **change: Any) -> EvaluationConfig:
    config = json.loads((cases.folder / "config.json").read_text())
    (tmp_path / "broken.json").write_text(json.dumps({**config, **change}))
    return read_evaluation_config(tmp_path / "broken.json", read_task(cases.folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eval_pairs": []}, "must have eval_pairs"),
        ({"evaluation_methods": [{"metric": "ssim"}]}, "metric must be one of sdlogj"),
        ({"evaluation_methods": [{"metric": "dice", "labels": 5}]}, "labels of dice must be a list of whole numbers"),
        ({"evaluation_methods": [{"metric": "dice"}]}, "labels of dice must be a list of whole numbers"),
        ({"evaluation_methods": [{"metric": "tre", "dest": "images"}]}, "dest of tre must be keypoints or landmarks"),
        ({"expected_shape": None}, "'expected_shape' must be three whole numbers above 0, got None"),
    ],
)
def test_invalid_configurations(change: dict[str, Any], message: str, cases: Cases, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=message):
        broken(cases, tmp_path, **change)


def test_invalid_fields(cases: Cases, tmp_path: Path) -> None:
    with pytest.raises(
        FileError, match=r"must contain one field of 0001_0000<--0001_0001, disp_0001_0000_0001_0001.npz .*, got none"
    ):
        evaluate_fields(cases.read_config(), tmp_path)
    for name in ("disp_0001_0001.npz", "disp_0001_0000_0001_0001.npz"):
        np.savez(tmp_path / name, np.zeros((*SHAPE, 3)))
    with pytest.raises(FileError, match=r"got disp_0001_0000_0001_0001.npz, disp_0001_0001.npz"):
        evaluate_fields(cases.read_config(), tmp_path)
    (tmp_path / "disp_0001_0001.npz").unlink()
    np.savez(tmp_path / "disp_0001_0000_0001_0001.npz", np.zeros((3, *SHAPE)))
    with pytest.raises(FileError, match="components first"):
        evaluate_fields(cases.read_config(), tmp_path)


@pytest.mark.parametrize("kind", ["labelsTr", "masksTr", "landmarksTr"])
def test_files_that_do_not_fit(kind: str, tmp_path: Path) -> None:
    found = Cases(tmp_path)
    name = {"landmarksTr": "T_0002_0001.csv"}.get(kind, "T_0002_0000.nii.gz")
    path = tmp_path / kind / name
    if kind == "landmarksTr":
        path.write_text("1,2,3\n")
        message = "must be as many for both images, got 13 and 1"
    else:
        write_volume(np.ones((4, 5, 6), np.uint8), path)
        message = r"shape of the .* must be that of the field, \(11, 9, 10\), got \(4, 5, 6\)"
    with pytest.raises(InputError, match=message):
        evaluate_fields(found.read_config(), found.fields)
    path.unlink()
    if kind == "masksTr":  # without one the whole volume counts
        assert evaluate_fields(found.read_config(), found.fields)
    else:
        with pytest.raises(FileError, match="no file"):
            evaluate_fields(found.read_config(), found.fields)
