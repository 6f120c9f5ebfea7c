"""Fewer cases than a full product of parameters, and every pair of values in one of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any


def pairwise(*parameters: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return cases in which each value of a parameter meets each value of every other parameter.

    Most faults need at most two values together (Kuhn, Wallace and Gallo 2004, doi:10.1109/TSE.2004.24). Cases are
    chosen greedily and are the same in every run: each one covers as many new pairs as any case of the full product
    could. For two parameters that is the full product.
    """
    values = [list(parameter) for parameter in parameters]
    product = list(itertools.product(*(range(len(v)) for v in values)))
    pairs = {case: set(itertools.combinations(enumerate(case), 2)) for case in product}
    missing = set().union(*pairs.values())
    cases = []
    while missing:
        best = max(product, key=lambda case: len(pairs[case] & missing))
        missing -= pairs[best]
        cases.append(tuple(v[index] for v, index in zip(values, best, strict=True)))
    return cases
