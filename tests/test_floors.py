"""The house's floors: imports only go down, no module imports in a circle, and none hides an import inside a function.

A package's floor is listed once, here. Every import counts, those inside functions too; only imports for type checkers
do not. Late imports are for heavy third-party packages, for modules of compiled kernels (which load numba), and for the
command modules of `cli`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "pythia_tools"
FLOORS = {
    "core": 0,
    "suites": 1, "fitting": 1,
    "hub": 2,
    "tokens": 3, "public": 3,
    "order": 4, "counts": 5, "dedup": 6, "overlays": 6,
    "models": 6, "micro": 7,
    "analysis": 8,
    "analyses": 9, "doctor": 9,
    "report": 10, "verification": 10, "study": 11, "cli": 12, "__main__": 13, "": 13,
}
ASIDE = {"plots": {"core", "plots"}}
"""Draws tables and knows no model; the floors from `analysis` up may use it."""


def _modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix("__init__").rstrip(".")] = path
    return found


MODULES = _modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def _imports(tree: ast.Module) -> list[tuple[str, bool]]:
    """Own modules that a file imports, as dotted names below pythia_tools, and whether inside a function."""
    typing_only = {
        id(n) for i in ast.walk(tree) if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.unparse(i.test)
        for n in ast.walk(i)
    }
    functions = (f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef))
    inside = {id(n) for f in functions for n in ast.walk(f)}
    found = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        for name in _named(node):
            while name not in MODULES:  # a name imported from a module counts as that module
                name = name.rpartition(".")[0]
            found.append((name, id(node) in inside))
    return found


def _named(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [
            a.name.removeprefix("pythia_tools").lstrip(".") for a in node.names
            if a.name.split(".")[0] == "pythia_tools"
        ]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import; name the module in full"
        base = node.module or ""
        if base.split(".")[0] == "pythia_tools":
            return [f"{base}.{a.name}".removeprefix("pythia_tools").lstrip(".") for a in node.names]
    return []


def _house(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_only_go_down(name: str) -> None:
    house = _house(name)
    for target, _ in _imports(TREES[name]):
        other = _house(target)
        if house == other == "analyses":
            mine, theirs = name.split(".")[1:2], target.split(".")[1:2]
            assert not theirs or mine == theirs, f"{name} imports {target}: analyses stand apart"
        if other == house or house in ("", "__main__"):
            continue
        if house in ASIDE:
            assert other in ASIDE[house], f"{name} imports {target}: {house} may only use {sorted(ASIDE[house])}"
        elif other in ASIDE:
            assert FLOORS[house] >= FLOORS["analysis"], f"{name} imports {target}: only analyses and doors draw"
        else:
            assert house in FLOORS and other in FLOORS, f"{house} and {other} need a floor in tests/test_floors.py"
            assert FLOORS[
                other
            ] < FLOORS[house], f"{name} (floor {FLOORS[house]}) imports {target} (floor {FLOORS[other]})"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_import_of_our_own_hides_in_a_function(name: str) -> None:
    hidden = sorted({target for target, inside in _imports(TREES[name]) if inside and not target.endswith("kernels")})
    if _house(name) == "cli":
        return
    assert not hidden, f"{name} imports {', '.join(hidden)} inside a function; move it to the top"


def test_no_module_imports_in_a_circle() -> None:
    graph = {name: {target for target, _ in _imports(tree)} - {name} for name, tree in TREES.items()}
    assert not [" <-> ".join(c) for c in _circles(graph)]


def test_circles_are_found_where_there_are_some() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"d", "f"}, "f": {"e"}}
    assert _circles(graph) == [["a", "b", "c"], ["e", "f"]]


def _circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules that reach one another."""
    reach = {name: _reached(name, graph) for name in graph}
    found = {tuple(sorted({name} | {o for o in reach[name] if name in reach.get(o, ())})) for name in graph}
    return [list(c) for c in sorted(found) if len(c) > 1]


def _reached(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += graph.get(name, ())
    return seen


@pytest.mark.parametrize("name", sorted(MODULES))
def test_functions_take_few_parameters(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if not isinstance(node, ast.FunctionDef) or any(
            "jit" in d or "kernel" in d for d in map(ast.unparse, node.decorator_list)
        ):
            continue
        taken = [
            a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if a.arg not in ("self", "cls")
        ]
        assert len(taken) <= 8, f"{name}.{node.name} takes {len(taken)} parameters; group what belongs together"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_are_short_and_say_what_they_do(name: str) -> None:
    text = MODULES[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 450, f"{name} has {len(text.splitlines())} lines; ask whether it is two modules"
    assert ast.get_docstring(ast.parse(text)), f"{name} has no module docstring"
