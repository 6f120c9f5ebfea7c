"""Learn2Reg: tasks, presets for them, runs over all pairs, submissions, and the metrics of the official evaluation."""

from convexadam.learn2reg.evaluation import evaluate_fields
from convexadam.learn2reg.evaluation_config import (
    EvaluationConfig,
    Measure,
    make_evaluation_config,
    read_evaluation_config,
)
from convexadam.learn2reg.run import Outcome, run_task
from convexadam.learn2reg.settings import TASK_PRESETS, TaskPreset, task_preset
from convexadam.learn2reg.submission import (
    FieldFormat,
    check_submission,
    find_submission_problems,
    make_field_name,
    write_submission,
)
from convexadam.learn2reg.task import Split, Task, TaskImage, TaskPair, read_task

__all__ = [
    "TASK_PRESETS",
    "EvaluationConfig",
    "FieldFormat",
    "Measure",
    "Outcome",
    "Split",
    "Task",
    "TaskImage",
    "TaskPair",
    "TaskPreset",
    "check_submission",
    "evaluate_fields",
    "find_submission_problems",
    "make_evaluation_config",
    "make_field_name",
    "read_evaluation_config",
    "read_task",
    "run_task",
    "task_preset",
    "write_submission",
]
