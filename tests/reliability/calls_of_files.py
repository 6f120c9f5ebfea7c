"""A valid call of each public callable of files, tasks, metrics and tuning; see `calls`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from call import FAST, FIELD, GRID, IMAGE, LABEL_IMAGE, LABELS, POINTS, SHAPE, SHIFT, VALUES, ZEROS, Call, call

from convexadam import (
    IsotropicGrid,
    NativeGrid,
    RegistrationConfig,
    data,
    io,
    learn2reg,
    metrics,
    registration,
    tuning,
    viz,
)


def make_calls_of_files(folder: Path) -> dict[str, Call]:
    """Return the calls, with files in a folder; `calls` writes some of them before."""
    return {**_files(folder), **_learn2reg(folder), **_others(folder)}


def _files(folder: Path) -> dict[str, Call]:
    io.write_landmarks(POINTS, folder / "points.csv")
    (folder / "scans.csv").write_text("image\nimage.nii.gz\n", encoding="utf-8")
    io.write_learn2reg(FIELD, folder / "disp.npz", fixed=GRID)
    io.write_learn2reg_2021(FIELD, folder / "disp_2021.npz", fixed=GRID)
    io.write_torch_grid(FIELD, folder / "field.pt", fixed=GRID, moving=GRID)
    io.write_fsl(FIELD, folder / "fsl.nii.gz", fixed=GRID, moving=GRID)
    grids = {"fixed": GRID, "moving": GRID}
    points, field_file = folder / "points.csv", folder / "field.nii.gz"
    found = {
        "as_image": call(io.as_image, VALUES),
        "atomic_path": call(io.atomic_path, folder / "settings.toml"),
        "check_image_name": call(io.check_image_name, "image.nii.gz"),
        "check_learn2reg": call(io.check_learn2reg, folder / "disp.npz", GRID, modalities=None),
        "check_learn2reg_2021": call(io.check_learn2reg_2021, folder / "disp_2021.npz", SHAPE),
        "check_learn2reg_name": call(io.check_learn2reg_name, "disp_0001_0002.npz"),
        "check_transform_name": call(io.check_transform_name, "field.nii.gz", None),
        "convert_image": call(io.convert_image, IMAGE, np.ndarray),
        "from_torch_grid": call(io.from_torch_grid, torch.zeros(1, *SHAPE, 3), GRID, GRID, align_corners=False),
        "get_format": call(io.get_format, "itk"),
        "has_affine": call(io.has_affine, np.ndarray),
        "read_fsl": call(io.read_fsl, folder / "fsl.nii.gz", device=None, **grids),
        "read_itk_field": call(io.read_itk_field, field_file, device=None),
        "read_landmark_file": call(io.read_landmark_file, points),
        "read_landmarks": call(io.read_landmarks, points),
        "read_landmarks_mm": call(io.read_landmarks_mm, points, GRID),
        "read_learn2reg": call(io.read_learn2reg, folder / "disp.npz", GRID, moving=None, device=None),
        "read_learn2reg_2021": call(io.read_learn2reg_2021, folder / "disp_2021.npz", GRID, moving=None, device=None),
        "read_learn2reg_voxels": call(io.read_learn2reg_voxels, folder / "disp.npz", SHAPE),
        "read_scans": call(io.read_scans, folder / "scans.csv", need_labels=False),
        "read_manifest": call(io.read_manifest, folder / "pairs.csv"),
        "read_nifti_field": call(io.read_nifti_field, field_file, device=None),
        "read_torch_grid": call(io.read_torch_grid, folder / "field.pt", device=None),
        "read_x5": call(io.read_x5, folder / "field.x5", device=None),
        "register_format": call(io.register_format, io.transform_formats()[0]),
        "to_torch_grid": call(io.to_torch_grid, FIELD, GRID, GRID, align_corners=False),
        "unregister_format": call(io.unregister_format, "mine"),
        "use_header": call(io.use_header, "sform"),
        "write_fsl": call(io.write_fsl, FIELD, folder / "w.nii", **grids),
        "write_itk_field": call(io.write_itk_field, FIELD, folder / "w.nii"),
        "write_itk_transform": call(io.write_itk_transform, SHIFT, folder / "w.tfm"),
        "write_landmarks": call(io.write_landmarks, POINTS, folder / "w.csv", like=None),
        "write_learn2reg": call(io.write_learn2reg, FIELD, folder / "w.npz", **grids),
        "write_learn2reg_2021": call(io.write_learn2reg_2021, FIELD, folder / "w21.npz", **grids),
        "write_nifti_field": call(io.write_nifti_field, FIELD, folder / "w.nii"),
        "write_torch_grid": call(io.write_torch_grid, FIELD, folder / "w.pt", align_corners=False, **grids),
        "write_x5": call(io.write_x5, FIELD, folder / "w.x5", fixed=GRID),
        "LandmarkFile.format": call(io.LandmarkFile(points=POINTS).format, POINTS),
    }
    return {f"convexadam.io.{name}": value for name, value in found.items()}


def _learn2reg(folder: Path) -> dict[str, Call]:
    (folder / "submission").mkdir()
    images = [learn2reg.TaskImage(folder=folder, name=f"./imagesTr/A_0001_000{n}.nii.gz") for n in (0, 1)]
    pair = learn2reg.TaskPair(fixed=images[0], moving=images[1])
    task = learn2reg.Task(
        name="A",
        release="1.0",
        folder=folder,
        modalities={0: "CT"},
        shape=SHAPE,
        labels={},
        splits={"val": (), "train": (), "test": ()},
        split_errors={},
    )
    config = learn2reg.EvaluationConfig(task="A", pairs=(pair,), shapes=(SHAPE,), measures=(), masked=False)
    submission = folder / "submission"
    found = {
        "Task.get_pairs": call(task.get_pairs, "val"),
        "Task.get_shape": call(task.get_shape, pair),
        "TaskImage.get_path_in": call(images[0].get_path_in, "labels"),
        "TaskPair.get_volume_paths": call(pair.get_volume_paths, "images"),
        "TaskPair.get_point_paths": call(pair.get_point_paths, "keypoints"),
        "check_submission": call(learn2reg.check_submission, submission, task, "val", field_format=None),
        "evaluate_fields": call(learn2reg.evaluate_fields, config, submission, progress=None),
        "find_submission_problems": call(
            learn2reg.find_submission_problems, submission, task, "val", field_format="npz"
        ),
        "make_evaluation_config": call(learn2reg.make_evaluation_config, task, "val"),
        "make_field_name": call(learn2reg.make_field_name, pair, "npz"),
        "read_evaluation_config": call(learn2reg.read_evaluation_config, folder / "config.json", task),
        "read_task": call(learn2reg.read_task, folder),
        "run_task": call(
            learn2reg.run_task,
            *(task, FAST, submission),
            split="val",
            field_format="npz",
            **dict.fromkeys(("segmentation_dir", "device", "progress")),
            **dict.fromkeys(("masks", "keypoints", "overwrite"), False),
        ),
        "task_preset": call(learn2reg.task_preset, "LungCT"),
        "write_submission": call(
            learn2reg.write_submission, submission, task, folder / "s.zip", "val", field_format=None
        ),
    }
    return {f"convexadam.learn2reg.{name}": value for name, value in found.items()}


def _others(folder: Path) -> dict[str, Call]:
    pair = io.PairFiles(id="a", fixed=folder / "image.nii.gz", moving=folder / "image.nii.gz")
    numbers = itertools.count()

    def add_preset(make: Any, summary: Any) -> None:
        registration.register_preset(f"mine {next(numbers)}", make, summary=summary)

    return {
        "convexadam.data.phantom_pair": call(
            data.phantom_pair,
            (12, 12, 12),
            **dict.fromkeys(("spacing_mm", "affine", "device")),
            contrasts=("ct", "ct"),
            displacement_mm=3.0,
            seed=0,
            noise=1.0,
        ),
        "convexadam.metrics.common_labels": call(metrics.common_labels, LABELS, LABELS),
        "convexadam.metrics.dice": call(metrics.dice, LABELS, LABELS),
        "convexadam.metrics.evaluate_transform": call(
            metrics.evaluate_transform, FIELD, fixed_labels=LABEL_IMAGE, moving_labels=LABEL_IMAGE
        ),
        "convexadam.metrics.folded_percent": call(metrics.folded_percent, ZEROS, None),
        "convexadam.metrics.hd95": call(metrics.hd95, LABELS, LABELS, spacing_mm=(1.0, 1.0, 1.0)),
        "convexadam.metrics.hd95_area_weighted": call(metrics.hd95_area_weighted, LABELS, LABELS, labels=None),
        "convexadam.metrics.sdlogj": call(metrics.sdlogj, ZEROS),
        "convexadam.metrics.sdlogj_plain": call(metrics.sdlogj_plain, ZEROS),
        "convexadam.metrics.tail_mean": call(metrics.tail_mean, [1.0, 2.0], 0.5, highest=True),
        "convexadam.metrics.tre": call(metrics.tre, POINTS, POINTS),
        "convexadam.IsotropicGrid.__call__": call(IsotropicGrid(), GRID),
        "convexadam.NativeGrid.__call__": call(NativeGrid(), GRID),
        "convexadam.registration.AutoForeground.__call__": call(registration.AutoForeground(), IMAGE),
        "convexadam.registration.register_preset": call(add_preset, RegistrationConfig, "Mine."),
        "convexadam.tuning.Evaluator": call(tuning.Evaluator, (pair,), device="cpu", memory_bytes=2**28, surface=True),
        "convexadam.tuning.tune": call(
            tuning.tune, folder / "pairs.csv", folder / "tuned", samples=(1, 1), seed=0, budget_s=1.0, executor=None
        ),
        "convexadam.tuning.Space.load": call(tuning.Space.load, "default"),
        "convexadam.tuning.Space.from_toml": call(tuning.Space.from_toml, "schema_version = 1", folder=folder),
        "convexadam.tuning.tradeoff_figure": call(tuning.tradeoff_figure, None, path=None),
        "convexadam.viz.registration_figure": call(
            viz.registration_figure, IMAGE, IMAGE, IMAGE, ZEROS, labels=None, path=None
        ),
    }
