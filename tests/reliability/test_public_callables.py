"""Every public callable answers or refuses: wrong types and extreme numbers in place of its arguments, one by one."""

from __future__ import annotations

import inspect
import os
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from call import FAST, FIELD, GRID, IMAGE, LABEL_IMAGE, SHAPE, Call
from calls import make_calls
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import convexadam
from convexadam import (
    Affine,
    ConvexAdamError,
    MindSSC,
    continuous,
    data,
    discrete,
    features,
    geometry,
    io,
    learn2reg,
    linear,
    metrics,
    registration,
    tuning,
    viz,
)
from convexadam.continuous import Adam, Ssd

PACKAGES = (
    *(convexadam, continuous, data, discrete, features, geometry, io, learn2reg, linear, metrics, registration),
    *(tuning, viz),
)

RECORDS = {
    *("convexadam.data.PhantomPair", "convexadam.io.FileHeader", "convexadam.io.LandmarkFile"),
    *("convexadam.io.NiftiHeader", "convexadam.io.PairFiles", "convexadam.io.Possible", "convexadam.io.Unusable"),
    *("convexadam.io.TransformFormat", "convexadam.learn2reg.EvaluationConfig", "convexadam.learn2reg.Measure"),
    *("convexadam.learn2reg.Outcome", "convexadam.learn2reg.Task", "convexadam.learn2reg.TaskImage"),
    *("convexadam.learn2reg.TaskPair", "convexadam.learn2reg.TaskPreset", "convexadam.tuning.Candidate"),
    *("convexadam.tuning.Failure", "convexadam.tuning.Space", "convexadam.tuning.Status", "convexadam.tuning.Trial"),
    *("convexadam.tuning.TuningResult", "convexadam.RegistrationResult.summary", "convexadam.io.ScanFiles"),
}
"""What the library returns, or hands to a function of the user: its fields are read, never checked."""

OUTSIDE = {
    *("convexadam.tuning.DaskExecutor", "convexadam.tuning.DaskExecutor.run", "convexadam.tuning.connect_dask"),
    *("convexadam.tuning.LocalExecutor", "convexadam.tuning.LocalExecutor.run", "convexadam.tuning.Evaluator.evaluate"),
    *("convexadam.continuous.Adam.minimise", "convexadam.continuous.LevenbergMarquardt.minimise"),
    *("convexadam.continuous.GaussNewton.minimise", "convexadam.tuning.ProcessExecutor"),
    *("convexadam.tuning.ProcessExecutor.run", "convexadam.RegistrationResult.report", "convexadam.Image.plot"),
    *("convexadam.view", "convexadam.RegistrationResult.to_napari"),
    *(f"convexadam.{name}.plot" for name in ("Affine", "Composite", "DisplacementField", "RegistrationResult")),
}
"""What needs a cluster, real pairs, matplotlib, ipywidgets or napari, and the optimisers, whose objective and state
`Refinement` makes."""

OWN = ("progress", "extract")
"""Functions of the user: what they raise is theirs."""

BAD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 10**400, -(10**30), 2**63, 0.5, float("nan"), float("inf"), 1e300, 1e-300),
    *(1j, "", "a", "default", b"x", object(), {}, [], (), (1,), (1, 2, 3), (0, 0, 0), (-1, 2, 3), (1.5, 2, 2)),
    *(
        (10**9,) * 3,
        (10**400, 1, 1),
        ("a", "b", "c"),
        [1.0, float("nan"), 2.0],
        [[1, 2, 3]],
        int,
        convexadam.Image,
        len,
    ),
    *(np.zeros(SHAPE), np.zeros((2, 3)), np.array("a"), np.array([object()]), np.zeros(0), np.full(SHAPE, np.nan)),
    *(np.zeros((3, 3), complex), np.eye(4), torch.zeros(SHAPE), torch.zeros(3, 3, dtype=torch.complex64)),
    *(torch.zeros(SHAPE).to_sparse(), torch.empty(3, *SHAPE, device="meta"), torch.zeros(3, *SHAPE), torch.zeros(())),
    *(torch.zeros(0, 3), torch.zeros(3, *SHAPE, dtype=torch.int32), torch.full((3, *SHAPE), float("nan"))),
    *(torch.zeros(2, *SHAPE, dtype=torch.float16), torch.zeros(1, 7, 3, 2), torch.zeros(3, 0, 5, 4)),
    *(GRID, IMAGE, LABEL_IMAGE, FIELD, Affine(), MindSSC(), Ssd(), Adam(), FAST),
    *(Path("nowhere/x.nii"), Path(), "x\0y", "n" * 500),
]
"""Wrong types, shapes and numbers."""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Call]]:
    before, folder = Path.cwd(), tmp_path_factory.mktemp("public")
    os.chdir(folder)  # names such as "a" are written there
    yield make_calls(folder)
    os.chdir(before)


def list_public() -> Iterator[str]:
    """Yield functions, classes and methods as ``package.name`` and ``package.Class.method``, each once."""
    seen = set()
    for package in PACKAGES:
        for name in getattr(package, "__all__", ("registration_figure",)):
            value = getattr(package, name)
            is_own = getattr(value, "__module__", "").startswith("convexadam")
            if not is_own or id(value) in seen or not isinstance(value, (type, types.FunctionType)):
                continue
            seen.add(id(value))
            if not isinstance(value, type):
                if inspect.signature(value).parameters:
                    yield f"{package.__name__}.{name}"
            elif not (issubclass(value, (Exception, dict)) or getattr(value, "_is_protocol", False)):
                yield from _list_class(f"{package.__name__}.{name}", value)


def _list_class(name: str, kind: type) -> Iterator[str]:
    if inspect.isabstract(kind):
        return
    yield name
    for base in kind.__mro__:
        for method, value in vars(base).items():
            takes = isinstance(value, (types.FunctionType, classmethod, staticmethod)) and base.__module__ in (
                kind.__module__,
                "convexadam.geometry.transform",
                "convexadam.geometry.delegating",
            )
            if not takes or (method.startswith("_") and method != "__call__"):
                continue
            if len(inspect.signature(getattr(kind, method)).parameters) > (not isinstance(value, classmethod)):
                yield f"{name}.{method}"


def test_all_public_callables_are_called(calls: dict[str, Call]) -> None:
    assert sorted({*list_public()} - {*calls} - RECORDS - OUTSIDE) == []


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(number=st.integers(0, 10**6), value=st.sampled_from(BAD))
def test_public_callables_answer_or_refuse(calls: dict[str, Call], number: int, value: Any) -> None:
    slots = [(name, slot) for name, call in calls.items() for slot in call.slots]
    name, slot = slots[number % len(slots)]
    if slot in OWN and callable(value):
        return
    try:
        calls[name].replace(slot, value)
    except ConvexAdamError as error:
        assert len(str(error)) < 2000
    except Exception as error:
        raise AssertionError(f"{name}: {slot}") from error


TAKES_TRUTH_VALUES = {
    *("convexadam.continuous.Snapshot", "convexadam.linear.LinearFit"),  # records, see RECORDS
    *("convexadam.discrete.Window", "convexadam.features.segmentation_bytes_per_voxel"),  # of the core: not checked
    "convexadam.register",  # a list of weights of landmarks becomes an array of numbers
}


def replace_numbers(value: Any) -> Any:
    """Return what is given instead of a number, numbers or an array of them: truth values; else None."""
    if isinstance(value, (tuple, list)) and value:
        first = replace_numbers(value[0])
        return None if first is None else type(value)((first, *value[1:]))
    if isinstance(value, np.ndarray):
        return value.astype(bool)
    return True if isinstance(value, (int, float)) and not isinstance(value, bool) else None


@pytest.mark.filterwarnings("ignore")
def test_truth_values_are_no_numbers(calls: dict[str, Call]) -> None:
    taken, count = set(), 0
    for name, call in calls.items():
        for slot in call.slots:
            value = replace_numbers(call.args[slot] if isinstance(slot, int) else call.options[slot])
            if value is not None:
                count += 1
                try:
                    call.replace(slot, value)
                except ConvexAdamError:
                    continue
                taken.add(name)
    assert taken <= TAKES_TRUTH_VALUES
    assert count > 140
