"""Arguments of public functions, checked against their annotations before any work."""

from __future__ import annotations

import contextlib
import functools
import inspect
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union

import jaxtyping
import torch

from convexadam._checks import add_article, show
from convexadam._typing import Float, Tensor
from convexadam.errors import ConfigError, FileError, InputError

P = ParamSpec("P")
R = TypeVar("R")

_NUMBERS: Mapping[Any, Any] = {int: numbers.Integral, float: numbers.Real}

_LONGEST_NAME = 255
"""Characters of the name of a file or folder."""

_TYPES = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool}
    | {torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64}
)
"""Types of tensors that torch can compute with."""


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function raise before it runs if an argument does not have its annotated type.

    Tensors have to be dense, of real numbers, and of the shape in the annotation, in which equal names are equal sizes.
    Annotations that exist for type checkers only are not checked.

    Raises
    ------
    FileError
        By the function, for a file name that no system allows.
    InputError
        By the function, for an argument that is to be a tensor.
    ConfigError
        By the function, for another one.
    """

    @functools.wraps(function)
    def check_and_call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return run_untraced(check_and_call)(*args, **kwargs)
        parameters, hints = _read_signature(function)
        sizes: dict[str, Any] = {}
        for name, value in _pair(parameters, args, kwargs):
            if name in hints and not fits(value, hints[name], sizes):
                _refuse(name, value, hints[name], function.__qualname__)
        return function(*args, **kwargs)

    return check_and_call


def run_untraced(function: Callable[P, R]) -> Callable[P, R]:
    """Let functions that `torch.compile` compiles call a function as it is: the CPU kernels cannot be traced."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)  # type: ignore[no-untyped-call, no-any-return]
        return function(*args, **kwargs)

    return wrapped


def _refuse(name: str, value: object, hint: Any, function: str) -> typing.NoReturn:
    expected = name_type(hint)
    if _is_refused_path(value):
        raise FileError(f"{name} must be a file name that the system allows, got {show(value)}; choose another")
    if not isinstance(value, torch.Tensor):
        if _is_named(hint):
            raise InputError(f"{name} must be {expected}, got {type(value).__name__}; {_ADVICE[hint.__name__]}")
        error = InputError if any(map(_is_array, (hint, *typing.get_args(hint)))) else ConfigError
        raise error(f"{name} must be {expected}, got {show(value)}; see help({function})")
    if obstacle := find_obstacle(value) or ("has no values" if value.is_meta else ""):
        raise InputError(
            f"{name} must be {expected}, got a tensor that {obstacle}; convert it, or see help({function})"
        )
    found = f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    raise InputError(f"{name} must be {expected}, got {found}; axes of equal names have equal sizes in {function}")


_ADVICE = {
    "Image": "convert it with convexadam.as_image",
    "Transform": "read it with convexadam.read_transform, or make an Affine or a DisplacementField",
}
"""What to do instead of passing another type than one of these classes."""


def _is_named(hint: Any) -> bool:
    return getattr(hint, "__name__", None) in _ADVICE


@functools.cache
def _read_signature(function: Callable[..., Any]) -> tuple[tuple[inspect.Parameter, ...], dict[str, Any]]:
    """Return parameters and annotations, without those whose names exist for type checkers only."""
    inner = inspect.unwrap(function)
    hints: dict[str, Any] = {}
    for name, annotation in inner.__annotations__.items():
        one = types.SimpleNamespace(__annotations__={name: annotation})
        with contextlib.suppress(NameError):
            hints |= typing.get_type_hints(one, inner.__globals__)
    return tuple(inspect.signature(inner).parameters.values()), hints


def _pair(
    parameters: Sequence[inspect.Parameter], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Return arguments with the names of their parameters; the call itself refuses those that fit none."""
    variadic = parameters[-1].name if parameters and parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL else None
    names = [p.name for p in parameters if p.name != variadic]
    yield from zip(names, args, strict=False)
    yield from ((variadic, value) for value in args[len(names) :] if variadic)
    yield from kwargs.items()


def find_obstacle(values: Tensor) -> str:
    """Return what keeps a tensor from being computed with, as in "a tensor that is sparse"; empty if nothing does."""
    if values.is_nested or values.layout != torch.strided:
        return "is nested" if values.is_nested else "is sparse"
    if values.is_quantized:
        return "is quantised"
    if values.is_complex():
        return f"has the type {values.dtype}"
    return "" if values.dtype in _TYPES else f"has the type {values.dtype}"


def fits(value: object, hint: Any, sizes: dict[str, Any] | None = None) -> bool:
    """Whether a value has an annotated type; a whole number fits a float, a truth value only a ``bool``.

    ``sizes`` holds the sizes of the named axes of tensors before; those of this one are added.
    """
    origin, inner = _split(hint)
    if origin in (Union, types.UnionType):
        is_path = str in inner and any(_is_path_type(option) for option in inner)
        return any(fits(value, option, sizes) for option in inner) and not (is_path and _is_refused_path(value))
    if origin is Literal:
        return type(value) in map(type, inner) and value in inner
    if origin in (tuple, Sequence):
        return isinstance(value, origin) and not isinstance(value, str) and _fits_each(value, hint, sizes)
    if _is_array(hint):
        return isinstance(value, torch.Tensor) and _fits_array(value, hint, {} if sizes is None else sizes)
    return _is_instance(value, origin or hint)


@functools.cache
def _split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return typing.get_origin(hint), typing.get_args(hint)


def _fits_each(value: Sequence[Any], hint: Any, sizes: dict[str, Any] | None) -> bool:
    origin, inner = _split(hint)
    any_length = origin is Sequence or (len(inner) == 2 and inner[1] is Ellipsis)
    options = [inner[0]] * len(value) if any_length else list(inner)
    return len(value) == len(options) and all(fits(v, o, sizes) for v, o in zip(value, options, strict=True))


def _is_instance(value: object, kind: Any) -> bool:
    if kind in _NUMBERS:
        return isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool) and _fits_64_bits(value, kind)
    try:
        return kind is Any or isinstance(value, kind)
    except TypeError:  # an annotation that cannot be checked at run time
        return True


def _is_path_type(hint: Any) -> bool:
    kind = typing.get_origin(hint) or hint
    return isinstance(kind, type) and issubclass(kind, os.PathLike)


def _is_refused_path(value: object) -> bool:
    """Whether a path is one that every system refuses: with a NUL, or a name that is too long."""
    if not isinstance(value, (str, os.PathLike)):
        return False
    path = Path(value)
    return "\0" in str(path) or any(len(name) > _LONGEST_NAME for name in path.parts)


def _fits_64_bits(value: Any, kind: type) -> bool:
    try:
        return -(2**63) <= value < 2**63 if kind is int else isinstance(float(value), float)
    except OverflowError:
        return False


def _is_array(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)


def _fits_array(values: Tensor, hint: Any, sizes: dict[str, Any]) -> bool:
    """Whether a tensor can be computed with and has the annotated axes: numbers, names, and one ``*name`` for several.

    An axis ``_`` may have any size.
    """
    if find_obstacle(values) or values.is_meta or (hint.dtype is Float and not values.is_floating_point()):
        return False
    if values.ndim > 2 and not values.numel():  # an empty list of points is one, an empty volume is none
        return False
    axes, several = _parse_axes(hint.dim_str)
    shape: tuple[Any, ...] = tuple(values.shape)
    if several is not None:
        surplus = len(shape) - len(axes) + 1
        if surplus < 0:
            return False
        shape = (*shape[:several], shape[several : several + surplus], *shape[several + surplus :])
    if len(shape) != len(axes):
        return False
    found = [(axis, size) for axis, size in zip(axes, shape, strict=True) if axis != "_"]
    if any(size != (int(axis) if axis.isdigit() else sizes.get(axis, size)) for axis, size in found):
        return False
    sizes.update((axis, size) for axis, size in found if not axis.isdigit())
    return True


@functools.cache
def _parse_axes(text: str) -> tuple[list[str], int | None]:
    """Return the names of axes, and which of them stands for several."""
    axes = text.split()
    return axes, next((n for n, axis in enumerate(axes) if axis.startswith("*")), None)


PYTHON_NAMES: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "True or False",
    types.NoneType: "None",
}


def name_type(hint: Any, names: Mapping[Any, str] = PYTHON_NAMES) -> str:
    """Return an annotated type in words; ``names`` has those of simple types."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(name_type(option, names) for option in inner))
    if origin is Literal:
        return f"one of {', '.join(map(repr, inner))}" if len(inner) > 1 else repr(inner[0])
    if _is_array(hint):
        kind = "floating-point numbers" if hint.dtype is Float else "numbers"
        return f"a dense tensor [{', '.join(hint.dim_str.split())}] of {kind}"
    if origin is tuple:
        kinds = dict.fromkeys(name_type(kind, names) for kind in inner if kind is not Ellipsis)
        size = "" if Ellipsis in inner else f"{len(inner)} values, each "
        return (
            f"a list of {size}{' or '.join(kinds)}"
            if names is not PYTHON_NAMES
            else f"a tuple of {size}{' or '.join(kinds)}"
        )
    name = str(getattr(hint, "__name__", hint))
    return names.get(hint) or (add_article(name) if isinstance(hint, type) else name)
