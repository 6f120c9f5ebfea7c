"""``convexadam learn2reg run | evaluate | validate | submit``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import tyro

from convexadam.cli.common import Preset, WrongUse, progress_bar, say
from convexadam.cli.evaluating import without_nan
from convexadam.cli.results import check_folder
from convexadam.errors import ConvexAdamError, FileError
from convexadam.io import atomic_path
from convexadam.learn2reg import (
    FieldFormat,
    Outcome,
    Split,
    Task,
    evaluate_fields,
    measures_of,
    read_measures,
    read_task,
    run_task,
    submission_problems,
    task_preset,
    write_submission,
)
from convexadam.registration import RegistrationConfig, preset

TaskFile: TypeAlias = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]

Fields: TypeAlias = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FIELDS")]

TaskName: TypeAlias = Literal["CuRIOUS", "Hippocampus", "LungCT", "AbdomenCTCT", "AbdomenMRCT", "OASIS", "NLST"]

Demanded: TypeAlias = Annotated[FieldFormat | None, tyro.conf.arg(metavar="{npz,nii.gz,2021}")]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Register all pairs of a TASK; write a field for each, as it is handed in, and run.json.

    What an earlier run with the same settings has done is kept; a pair that fails does not stop the others. The exit
    status is 1 if one failed.

    Attributes
    ----------
    data
        dataset.json of the task, or the folder with it and the images.
    output_dir
        Folder for the fields; made where it does not exist.
    task
        Settings for a task: CuRIOUS, Hippocampus, LungCT, AbdomenCTCT, AbdomenMRCT, OASIS or NLST.
    preset
        Named settings instead: default, accurate, same-contrast or published; without any, default.
    config
        TOML file of settings, instead of named ones.
    set
        Change a setting or exchange a component, in TOML; may come several times: ``--set discrete.spacing=5``.
    split
        Which pairs.
    format
        npz (float16), nii.gz (float32), or 2021: half resolution, as in 2020 and 2021.
    labels_dir
        Folder of label maps, called like the images, for settings that compare labels.
    masks
        Use the task's masks.
    keypoints
        Let the task's keypoints guide the registration.
    overwrite
        Replace what another run left in the folder.
    device
        Where to compute, such as cpu or cuda:0.
    quiet
        No progress, no summary.
    """

    data: TaskFile
    output_dir: Path
    task: Annotated[TaskName | None, tyro.conf.arg(metavar="NAME")] = None
    preset: Annotated[Preset | None, tyro.conf.arg(metavar="NAME")] = None
    config: Path | None = None
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    split: Split = "val"
    format: FieldFormat = "npz"
    labels_dir: Path | None = None
    masks: bool = False
    keypoints: bool = False
    overwrite: bool = False
    device: str = "cpu"
    quiet: bool = False

    def run(self) -> None:
        """Do the work."""
        config = self._settings()
        task = read_task(self.data)
        check_folder(self.output_dir)
        with progress_bar(self.quiet) as progress:
            outcomes = run_task(
                task,
                config,
                self.output_dir,
                split=self.split,
                kind=self.format,
                labels_dir=self.labels_dir,
                masks=self.masks,
                keypoints=self.keypoints,
                device=self.device,
                overwrite=self.overwrite,
                progress=progress,
            )
        if not self.quiet:
            say(f"{task.name}: {_summary(outcomes)}; fields in {self.output_dir}")
        failed = [f"{o.pair}: {o.error}" for o in outcomes if o.status == "failed"]
        if failed:
            raise ConvexAdamError(f"{len(failed)} of {len(outcomes)} pairs failed; {'; '.join(failed)}")

    def _settings(self) -> RegistrationConfig:
        named = {"--task": self.task, "--preset": self.preset, "--config": self.config}
        came = [name for name, value in named.items() if value is not None]
        if len(came) > 1:
            raise WrongUse(f"{' and '.join(came)} came; give one of them")
        if self.config is not None:
            start = RegistrationConfig.load(self.config)
        else:
            start = preset(self.preset or "default") if self.task is None else task_preset(self.task).config
        return start.with_settings(*self.set) if self.set else start


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure the fields of a TASK by the formulas of the official evaluation; print or write one JSON object.

    Attributes
    ----------
    data
        dataset.json of the task, or the folder with it and the images.
    fields
        Folder with the fields.
    split
        Which pairs.
    evaluation_config
        Official <Task>_VAL_evaluation_config.json: pairs, metrics, labels and masks. Without it, what dataset.json
        lists and what lies beside the images decides.
    output
        File for the JSON object, instead of the standard output.
    quiet
        No progress.
    """

    data: TaskFile
    fields: Fields
    split: Split = "val"
    evaluation_config: Path | None = None
    output: Path | None = None
    quiet: bool = False

    def run(self) -> None:
        """Do the work."""
        task = read_task(self.data)
        if self.evaluation_config is None:
            measures = measures_of(task, self.split)
        else:
            measures = read_measures(self.evaluation_config, task)
        with progress_bar(self.quiet) as progress:
            found = evaluate_fields(measures, self.fields, progress=progress)
        text = json.dumps(without_nan(found), indent=4) + "\n"
        if self.output is None:
            sys.stdout.write(text)
            return
        with atomic_path(self.output) as temporary:
            temporary.write_text(text, encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Validate:
    """Check that the fields of a TASK can be handed in: one for each pair, names, shapes, types and values.

    Attributes
    ----------
    data
        dataset.json of the task, or the folder with it (and the images, where it does not say their shape).
    fields
        Folder with the fields.
    split
        Which pairs.
    format
        Demand this format; without it, either of today's.
    """

    data: TaskFile
    fields: Fields
    split: Split = "val"
    format: Demanded = None

    def run(self) -> None:
        """Do the work."""
        task = read_task(self.data)
        problems = submission_problems(self.fields, task, self.split, kind=self.format)
        for problem in problems:
            say(f"convexadam: {problem}")
        if problems:
            raise FileError(f"{self.fields} cannot be handed in: {len(problems)} problem{'s' * (len(problems) != 1)}")
        say(f"{self.fields} can be handed in: {_counted(task, self.split)}")


@dataclass(frozen=True, kw_only=True)
class Submit:
    """Check the fields of a TASK and put them, and nothing else, into a zip archive.

    Attributes
    ----------
    data
        dataset.json of the task, or the folder with it (and the images, where it does not say their shape).
    fields
        Folder with the fields.
    output
        Archive to write, *.zip.
    split
        Which pairs.
    format
        Demand this format; without it, either of today's.
    """

    data: TaskFile
    fields: Fields
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    split: Split = "val"
    format: Demanded = None

    def run(self) -> None:
        """Do the work."""
        task = read_task(self.data)
        write_submission(self.fields, task, self.output, self.split, kind=self.format)
        say(f"wrote {self.output}: {_counted(task, self.split)}")


@dataclass(frozen=True, kw_only=True)
class Learn2Reg:
    """Work on a task of Learn2Reg: register its pairs, check and pack the fields, and measure them."""

    command: tyro.conf.OmitArgPrefixes[
        Annotated[Run, tyro.conf.subcommand("run")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Validate, tyro.conf.subcommand("validate")]
        | Annotated[Submit, tyro.conf.subcommand("submit")]
    ]

    def run(self) -> None:
        """Do the work."""
        self.command.run()


def _summary(outcomes: list[Outcome]) -> str:
    counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "kept", "failed")}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def _counted(task: Task, split: Split) -> str:
    count = len(task.pairs(split))
    return f"{count} field{'s' * (count != 1)} of {task.name} ({split})"
