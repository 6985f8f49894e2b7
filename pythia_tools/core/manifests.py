"""YAML manifests: found by name among the shipped ones, or by path; read safely; checked field by field.

A user's own manifest works by path exactly as a shipped one.
"""

import math
import os
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pythia_tools.core.errors import DataError, RequestError, unknown

KINDS = ("suites", "orders", "evaluation_sets")
Check = Callable[[str, Any], Any]
"""`check(where, value)` gives a field's value as it is used, or raises a DataError that begins with `where`."""


@cache
def manifest_root() -> Path:
    """The shipped `data_manifests/`: inside the wheel, or at the top of a source checkout."""
    package = Path(__file__).resolve().parents[1]
    for root in (package / "data_manifests", package.parent / "data_manifests"):
        if root.is_dir():
            return root
    raise DataError("the shipped data_manifests are missing from this installation; install pythia-tools again")


def names(kind: str) -> list[str]:
    """Names of the shipped manifests of one kind, sorted."""
    return sorted(p.stem for p in (manifest_root() / kind).glob("*.yaml"))


def find(kind: str, name_or_path: str | Path) -> Path:
    """The manifest file for a shipped name or a path. Raises UnknownNameError with what is known."""
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or "/" in text:
        path = Path(os.path.expanduser(text))
        if not path.is_file():
            raise RequestError(
                f"{text}: no such manifest file; give a path to a .yaml or one of: {', '.join(names(kind))}"
            )
        return path
    if text not in names(kind):
        raise unknown(kind.rstrip("s").replace("_", " "), text, names(kind), hint="(or give a path to a .yaml)")
    return manifest_root() / kind / f"{text}.yaml"


def read(path: str | Path) -> dict[str, Any]:
    """A manifest's mapping. Raises RequestError when there is no such file, DataError naming file and line when it is
    not valid YAML.
    """
    try:
        value = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError as error:
        raise RequestError(f"{path}: no such manifest file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:  # of values: 2024-99-99
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise DataError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', None) or error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: a manifest is a mapping, this is a {type(value).__name__}")
    return value


def checked(
    where: str | Path, value: Any, required: Mapping[str, Check], optional: Mapping[str, Check] | None = None,
) -> dict[str, Any]:
    """The fields of a mapping, each through its check; an optional one that is absent or null is None.

    Raises: DataError naming the field that is wrong, and each missing and unknown one, so that a typo is never ignored.
    """
    optional = optional or {}
    known = {**required, **optional}
    missing = sorted(required.keys() - mapping(str(where), value).keys())
    extra = sorted(value.keys() - known.keys(), key=repr)
    if missing or extra:
        parts = [f"missing {missing}"] if missing else []
        parts += [f"unknown {extra}"] if extra else []
        raise DataError(f"{where}: {', '.join(parts)}; allowed: {sorted(known)}")
    return {
        key: None if key in optional and value.get(key) is None else check(f"{where}: {key}", value[key])
        for key, check in known.items()
    }


def anything(where: str, value: Any) -> Any:
    """Any value, as it is."""
    return value


def mapping(where: str, value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where} must be a mapping, not {value!r}")
    return value


def text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise DataError(f"{where} must be text, not {value!r}")
    return value


def words(where: str, value: Any) -> str:
    """Any scalar as text in one line, which is not empty."""
    said = " ".join(str(value).split())
    if isinstance(value, list | dict | bytes | None) or not said.isprintable() or not said:
        raise DataError(f"{where} must be text, not {value!r}")
    return said


def boolean(where: str, value: Any) -> bool:
    """true or false; "false" in quotes is text, not false."""
    if not isinstance(value, bool):
        raise DataError(f"{where} must be true or false, without quotes, not {value!r}")
    return value


def whole(least: int | None = 1) -> Check:
    """A whole number of at least `least`."""

    def check(where: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not (least is None or value >= least):
            of = "" if least is None else f" of at least {least}"
            raise DataError(f"{where} must be a whole number{of}, not {value!r}")
        return value

    return check


def number(where: str, value: Any) -> float:
    """A finite number of at least 0; text that spells one is one (YAML takes 1e-3 for text)."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not 0 <= found < math.inf:
        raise DataError(f"{where} must be a number of at least 0, not {value!r}")
    return found


def list_of(check: Check) -> Check:
    """A list, each of its items through `check`."""

    def checks(where: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise DataError(f"{where} must be a list, not {value!r}")
        return [check(f"{where}[{i}]", item) for i, item in enumerate(value)]

    return checks


def one_of(allowed: Collection[str]) -> Check:
    """One of these words."""

    def check(where: str, value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise DataError(f"{where} {value!r} is not one of {', '.join(allowed)}")
        return str(value)

    return check


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML that refuses duplicate keys: in a manifest the second one is a mistake."""


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    result: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in result:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
