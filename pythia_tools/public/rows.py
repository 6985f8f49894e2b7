"""A published number before it is in the frame, as the readers of JSON files give it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Line: TypeAlias = dict[str, object]
"""Column → cell; columns of the frame, `stamp` (when the file was written, sortable text) and `counted` (items)."""


class NotResultsError(Exception):
    """A file is of no known layout: its text says what is missing."""


@dataclass(frozen=True)
class Number:
    """A metric's value with its standard error (NaN: none)."""

    metric: str
    value: float
    stderr: float = float("nan")


def numbers(metrics: Mapping[str, object]) -> list[Number]:
    """The numbers of a mapping `{metric: value, metric_stderr: error}`; what is no number is left out.

    >>> numbers({"acc": 0.5, "acc_stderr": 0.1, "alias": "x"})
    [Number(metric='acc', value=0.5, stderr=0.1)]
    """
    found = []
    for name, value in metrics.items():
        if name.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        error = metrics.get(f"{name}_stderr")
        found.append(Number(name, float(value), float(error) if isinstance(error, int | float) else float("nan")))
    return found


def mapping(value: object, what: str) -> Mapping[str, object]:
    """The value, if it is a JSON object. Raises: NotResultsError."""
    if not isinstance(value, dict):
        raise NotResultsError(f"{what} is missing or no object")
    return value
