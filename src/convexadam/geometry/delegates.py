"""Methods of images and transforms that upper layers implement: conversion from other packages, files and pictures.

Imports only point down, so an upper layer registers its functions here when `convexadam` is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_FUNCTIONS: dict[str, Callable[..., Any]] = {}


def implement(method: str) -> Callable[[F], F]:
    """Return a decorator that registers a function under the name of a method."""

    def register(function: F) -> F:
        _FUNCTIONS[method] = function
        return function

    return register


def delegate(method: str, *args: Any, **kwargs: Any) -> Any:
    """Call the function that an upper layer has registered."""
    return _FUNCTIONS[method](*args, **kwargs)
