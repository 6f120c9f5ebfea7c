"""HTML of values in notebooks: pictures as data URIs and small tables, which need neither network nor script."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import TypeVar

import numpy as np

from convexadam._checks import show
from convexadam.viz.pictures import encode_picture

T = TypeVar("T")

_ROW = '<tr style="background:none">'

_CELL = '<td style="text-align:left;vertical-align:top;padding:1px 12px 1px 0;border:none;background:none">'


def or_text(make: Callable[[T], str]) -> Callable[[T], str]:
    """Let a function that makes HTML return the ``repr`` of the value if it raises: an output must never be lost."""

    @functools.wraps(make)
    def make_or_text(value: T) -> str:
        try:
            return make(value)
        except Exception:  # a missing package, or values that cannot be drawn
            return f"<pre>{escape(show(value))}</pre>"

    return make_or_text


def make_block(title: str, *parts: str) -> str:
    """Return a title above parts."""
    return f"<div><b>{escape(title)}</b>{''.join(parts)}</div>"


def make_table(rows: Mapping[str, str]) -> str:
    """Return a table of names and values."""
    lines = (f"{_ROW}{_CELL}{escape(name)}</td>{_CELL}{escape(value)}</td></tr>" for name, value in rows.items())
    return f'<table style="margin:4px 0;border:none">{"".join(lines)}</table>'


def make_pictures(pictures: Iterable[tuple[str, np.ndarray]]) -> str:
    """Return a row of pictures, each with its caption below."""
    figures = (
        '<figure style="display:inline-block;margin:4px 8px 4px 0;text-align:center">'
        f'<img src="{encode_picture(picture)}" alt="{escape(caption)}" width="{picture.shape[1]}" '
        f'height="{picture.shape[0]}"><figcaption style="font-size:smaller">{escape(caption)}</figcaption></figure>'
        for caption, picture in pictures
    )
    return f"<div>{''.join(figures)}</div>"
