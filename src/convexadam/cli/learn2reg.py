"""``convexadam learn2reg run | evaluate | validate | submit``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import tyro

from convexadam.cli.common import OptionalFile, OptionalOutput, Preset, UsageError, say, show_progress
from convexadam.cli.evaluating import replace_nan
from convexadam.cli.results import check_folder
from convexadam.errors import ConvexAdamError, FileError
from convexadam.io import atomic_path
from convexadam.learn2reg import (
    TASK_PRESETS,
    FieldFormat,
    Outcome,
    Split,
    Task,
    evaluate_fields,
    find_submission_problems,
    make_evaluation_config,
    read_evaluation_config,
    read_task,
    run_task,
    task_preset,
    write_submission,
)
from convexadam.registration import RegistrationConfig, preset
from convexadam.registration.presets import preset_names

TaskFile: TypeAlias = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]

FieldFolder: TypeAlias = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FIELDS")]

if TYPE_CHECKING:
    TaskName: TypeAlias = str
else:
    TaskName = Literal[TASK_PRESETS]

RequiredFormat: TypeAlias = Annotated[
    FieldFormat | None, tyro.conf.arg(metavar="{npz,nii.gz,2021}", help_behavior_hint="")
]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Register all pairs of TASK; write a field for each in the format of submissions, and run.json.

    Fields of an earlier run with the same settings are kept. A pair that fails does not stop the others; the exit
    status is 1 if one failed.

    Attributes
    ----------
    data
        dataset.json of the task, or the folder that contains it.
    output_dir
        Folder for the fields; created if it does not exist.
    config
        TOML file of the settings, instead of a preset.
    set
        Change a setting or replace a component, in TOML: --set discrete.spacing=5 (repeatable).
    split
        Split of the pairs to register.
    format
        Field format: npz (float16), nii.gz (float32), or 2021 (half resolution, of the challenges 2020 and 2021).
    segmentation_dir
        Folder of label maps with the file names of the images, for features that compare labels.
    masks
        Use the masks of the task.
    keypoints
        Use the keypoints of the task as landmarks that guide the registration.
    overwrite
        Replace the fields of another run in the folder.
    device
        Device to compute on, such as cpu or cuda:0.
    quiet
        Print no progress and no summary.
    """

    data: TaskFile
    output_dir: Path
    task: Annotated[
        TaskName | None,
        tyro.conf.arg(
            metavar="NAME",
            help_behavior_hint="",
            help=f"Settings for a task: {', '.join(TASK_PRESETS)}.",
        ),
    ] = None
    preset: Annotated[
        Preset | None,
        tyro.conf.arg(
            metavar="NAME",
            help_behavior_hint="",
            help=f"Preset of the settings, instead of --task: {', '.join(preset_names())}. Default: default.",
        ),
    ] = None
    config: OptionalFile = None
    set: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="TOML", help_behavior_hint="")
    ] = ()
    split: Split = "val"
    format: FieldFormat = "npz"
    segmentation_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    masks: bool = False
    keypoints: bool = False
    overwrite: bool = False
    device: str = "cpu"
    quiet: bool = False

    def run(self) -> None:
        """Run the command."""
        config = self._make_config()
        task = read_task(self.data)
        check_folder(self.output_dir)
        with show_progress(self.quiet) as progress:
            outcomes = run_task(
                task,
                config,
                self.output_dir,
                split=self.split,
                field_format=self.format,
                segmentation_dir=self.segmentation_dir,
                masks=self.masks,
                keypoints=self.keypoints,
                device=self.device,
                overwrite=self.overwrite,
                progress=progress,
            )
        if not self.quiet:
            say(f"{task.name}: {_summarise(outcomes)}; fields in {self.output_dir}")
        failed = [f"{o.pair}: {o.error}" for o in outcomes if o.status == "failed"]
        if failed:
            raise ConvexAdamError(f"{len(failed)} of {len(outcomes)} pairs failed; {'; '.join(failed)}")

    def _make_config(self) -> RegistrationConfig:
        options = {"--task": self.task, "--preset": self.preset, "--config": self.config}
        given = [f"{name} {value}" for name, value in options.items() if value is not None]
        if len(given) > 1:
            raise UsageError(
                f"settings must come from one of {', '.join(options)}, got {' and '.join(given)}; omit the others"
            )
        if self.config is not None:
            base = RegistrationConfig.load(self.config)
        else:
            base = preset(self.preset or "default") if self.task is None else task_preset(self.task).config
        return base.with_settings(*self.set) if self.set else base


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate the fields of TASK by the formulas of the official evaluation; print or write one JSON object.

    Attributes
    ----------
    data
        dataset.json of the task, or the folder that contains it.
    fields
        Folder with the fields.
    split
        Split of the pairs.
    evaluation_config
        Official <Task>_VAL_evaluation_config.json with pairs, metrics, labels and masks; default: derived from
        dataset.json and the files of the task.
    output
        File to write instead of the standard output.
    quiet
        Print no progress.
    """

    data: TaskFile
    fields: FieldFolder
    split: Split = "val"
    evaluation_config: OptionalFile = None
    output: OptionalOutput = None
    quiet: bool = False

    def run(self) -> None:
        """Run the command."""
        task = read_task(self.data)
        if self.evaluation_config is None:
            config = make_evaluation_config(task, self.split)
        else:
            config = read_evaluation_config(self.evaluation_config, task)
        with show_progress(self.quiet) as progress:
            metrics = evaluate_fields(config, self.fields, progress=progress)
        text = json.dumps(replace_nan(metrics), indent=4) + "\n"
        if self.output is None:
            sys.stdout.write(text)
            return
        with atomic_path(self.output) as temporary:
            temporary.write_text(text, encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Validate:
    """Check that the fields of TASK are a valid submission: one for each pair, names, shapes, types and values.

    Attributes
    ----------
    data
        dataset.json of the task, or the folder that contains it.
    fields
        Folder with the fields.
    split
        Split of the pairs.
    format
        Required field format; default: npz or nii.gz.
    """

    data: TaskFile
    fields: FieldFolder
    split: Split = "val"
    format: RequiredFormat = None

    def run(self) -> None:
        """Run the command."""
        task = read_task(self.data)
        problems = find_submission_problems(self.fields, task, self.split, field_format=self.format)
        for problem in problems:
            say(f"convexadam: {problem}")
        if problems:
            raise FileError(
                f"{self.fields} must be a valid submission, got {len(problems)} problem{'s' * (len(problems) != 1)}"
            )
        say(f"{self.fields} is a valid submission: {_count_fields(task, self.split)}")


@dataclass(frozen=True, kw_only=True)
class Submit:
    """Check the fields of TASK and write them, without other files, to a zip archive.

    Attributes
    ----------
    data
        dataset.json of the task, or the folder that contains it.
    fields
        Folder with the fields.
    output
        Archive to write (.zip).
    split
        Split of the pairs.
    format
        Required field format; default: npz or nii.gz.
    """

    data: TaskFile
    fields: FieldFolder
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    split: Split = "val"
    format: RequiredFormat = None

    def run(self) -> None:
        """Run the command."""
        task = read_task(self.data)
        write_submission(self.fields, task, self.output, self.split, field_format=self.format)
        say(f"wrote {self.output}: {_count_fields(task, self.split)}")


@dataclass(frozen=True, kw_only=True)
class Learn2Reg:
    """Commands for a task of Learn2Reg: register its pairs, check, pack and evaluate the fields."""

    command: tyro.conf.OmitArgPrefixes[
        Annotated[Run, tyro.conf.subcommand("run")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Validate, tyro.conf.subcommand("validate")]
        | Annotated[Submit, tyro.conf.subcommand("submit")]
    ]

    def run(self) -> None:
        """Run the command."""
        self.command.run()


def _summarise(outcomes: list[Outcome]) -> str:
    counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "kept", "failed")}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def _count_fields(task: Task, split: Split) -> str:
    count = len(task.get_pairs(split))
    return f"{count} field{'s' * (count != 1)} of {task.name} ({split})"
