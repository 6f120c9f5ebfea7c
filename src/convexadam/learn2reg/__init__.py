"""Learn2Reg: tasks, settings for them, runs over all pairs, what is handed in, and the official numbers."""

from convexadam.learn2reg.evaluation import evaluate_fields
from convexadam.learn2reg.measures import Measure, Measures, measures_of, read_measures
from convexadam.learn2reg.run import Outcome, run_task
from convexadam.learn2reg.settings import TASK_PRESETS, TaskPreset, task_preset
from convexadam.learn2reg.submission import (
    FieldFormat,
    check_submission,
    field_name,
    submission_problems,
    write_submission,
)
from convexadam.learn2reg.task import Split, Task, TaskImage, TaskPair, read_task

__all__ = [
    "TASK_PRESETS",
    "FieldFormat",
    "Measure",
    "Measures",
    "Outcome",
    "Split",
    "Task",
    "TaskImage",
    "TaskPair",
    "TaskPreset",
    "check_submission",
    "evaluate_fields",
    "field_name",
    "measures_of",
    "read_measures",
    "read_task",
    "run_task",
    "submission_problems",
    "task_preset",
    "write_submission",
]
