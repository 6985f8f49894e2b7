"""The options of an analysis or of a fit are a frozen dataclass; flags, recorded config and validation derive from it.

    @dataclass(frozen=True)
    class MemorizationOptions(Options):
        context: int = option(32, "ids shown", minimum=1, metavar="K")
        tasks: tuple[str, ...] = option((), "which tasks", choices=("facts", "sums"))

`context` becomes `--context K`, a bool a switch, a tuple a list of values. Types: bool, int, float, str, their
tuples, each of them also `| None`.
"""

import argparse
import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pythia_tools.core.errors import RequestError

T = TypeVar("T")


def option(
    default: T, help: str, *, choices: Sequence[str | int] = (), minimum: int | None = None, metavar: str | None = None
) -> T:
    """A field of an Options dataclass: its default, one line of help, and what is allowed."""
    metadata = {"help": help, "choices": tuple(choices), "minimum": minimum, "metavar": metavar}
    return dataclasses.field(default=default, metadata=metadata)  # type: ignore[no-any-return, call-overload]


@dataclass(frozen=True)
class Options:
    """The base of all options; of itself, the options of an analysis that has none."""


Chosen = TypeVar("Chosen", bound=Options)


@dataclass(frozen=True)
class _Kind:
    """A field's type: the type of one value, whether there are several, whether None is allowed."""

    one: type
    several: bool
    optional: bool


def add_flags(parser: argparse.ArgumentParser, options: type[Options], *, given_only: bool = False) -> None:
    """One flag per option; given_only: flags that are not given leave no default behind."""
    for field in dataclasses.fields(options):
        kind = _kind(options, field.name)
        help = str(field.metadata.get("help", "")) + _default_text(field, kind)
        flag = _flag(field)
        if kind.one is bool:
            unset = argparse.SUPPRESS if given_only else False
            parser.add_argument(flag, action="store_true", help=help, default=unset)
            continue
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        shown = field.metadata.get("metavar") or ("N" if kind.one is int else field.name.upper())
        parser.add_argument(
            flag, type=kind.one, nargs="+" if kind.several else None, metavar=shown, help=help,
            default=argparse.SUPPRESS if given_only else default,
        )


def from_mapping(options: type[Chosen], values: Mapping[str, object]) -> Chosen:
    """Options out of recorded or parsed values; names the dataclass lacks are left alone.

    Raises RequestError for a value that is of another type, below the minimum, or not among the choices.
    """
    chosen: dict[str, object] = {}
    for field in dataclasses.fields(options):
        if field.name in values:
            chosen[field.name] = _checked(field, _kind(options, field.name), values[field.name])
    return options(**chosen)


def _kind(options: type[Options], name: str) -> _Kind:
    wanted = typing.get_type_hints(options)[name]
    optional = False
    if isinstance(wanted, types.UnionType):
        optional, wanted = True, typing.get_args(wanted)[0]
    several = typing.get_origin(wanted) is tuple
    one = typing.get_args(wanted)[0] if several else wanted
    if one not in (bool, int, float, str):
        raise TypeError(
            f"{options.__name__}.{name}: options hold bool, int, float, str or tuples of them, not {wanted}"
        )
    return _Kind(one, several, optional)


def _checked(field: dataclasses.Field[object], kind: _Kind, value: object) -> object:
    if value is None and kind.optional:
        return None
    if not kind.several:
        return _allowed(field, kind, value)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RequestError(f"{_flag(field)}: {value!r} is not a list of values")
    return tuple(_allowed(field, kind, v) for v in value)


def _allowed(field: dataclasses.Field[object], kind: _Kind, value: object) -> object:
    if kind.one is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind.one) or (kind.one is not bool and isinstance(value, bool)):
        raise RequestError(f"{_flag(field)}: {value!r} is a {type(value).__name__}; it must be {kind.one.__name__}")
    choices, minimum = field.metadata.get("choices") or (), field.metadata.get("minimum")
    if choices and value not in choices:
        raise RequestError(f"{_flag(field)}: {value!r} is not known; allowed: {', '.join(map(str, choices))}")
    if minimum is not None and isinstance(value, int | float) and value < minimum:
        raise RequestError(f"{_flag(field)}: {value} is too small; at least {minimum}")
    return value


def _flag(field: dataclasses.Field[object]) -> str:
    return f"--{field.name.replace('_', '-')}"


def _default_text(field: dataclasses.Field[object], kind: _Kind) -> str:
    choices = field.metadata.get("choices") or ()
    allowed = f": {', '.join(map(str, choices))}" if choices else ""
    if kind.one is bool or field.default is None or field.default == ():
        return allowed
    shown = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
    return f"{allowed} (default {shown})"
