"""The house's floors: imports only go down, and no module imports in a circle.

A package's floor is listed once, here. `plots` stands aside: it draws tables and knows no model.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "pythia_tools"
FLOORS = {
    "core": 0,
    "suites": 1,
    "hub": 2,
    "tokens": 3,
    "order": 4, "dedup": 4, "counts": 4, "overlays": 4,
    "models": 5, "micro": 5,
    "analyses": 7, "doctor": 7,
    "report": 8, "study": 9, "cli": 10, "__main__": 11, "__init__": 11,
}
SIDE = {"plots": {"core", "plots"}}


def _modules() -> dict[str, Path]:
    return {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in ROOT.rglob("*.py") if "data_manifests" not in p.parts}


def _imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Modules of this package that a file imports, as dotted names below pythia_tools."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _top_level(tree) if top_level_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("pythia_tools.") for a in node.names if a.name.startswith("pythia_tools.")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; name the module in full"
            if node.module == "pythia_tools":
                found |= {a.name for a in node.names}
            elif (node.module or "").startswith("pythia_tools."):
                base = (node.module or "").removeprefix("pythia_tools.")
                found |= {f"{base}.{a.name}" for a in node.names}
    return found


def _top_level(tree: ast.Module) -> list[ast.stmt]:
    kept: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        kept.append(node)
    return kept


MODULES = _modules()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_only_go_down(name: str) -> None:
    house = name.split(".")[0]
    for target in sorted(_imports(MODULES[name])):
        other = target.split(".")[0]
        if house == other == "analyses":
            assert name.count(".") < 2 or target.split(".")[:2] == name.split(".")[:2], f"{name} imports {target}: analyses stand apart"
        if other == house or house in ("__init__", "__main__"):
            continue
        if house in SIDE:
            assert other in SIDE[house], f"{name} imports {target}: {house} may only use {sorted(SIDE[house])}"
            continue
        assert house in FLOORS, f"{house} has no floor; give it one in tests/test_floors.py"
        if other in SIDE:
            assert FLOORS[house] >= 7, f"{name} imports {target}: only analyses and doors draw"
            continue
        assert other in FLOORS, f"{name} imports {target}, which has no floor"
        assert FLOORS[other] <= FLOORS[house], f"{name} (floor {FLOORS[house]}) imports {target} (floor {FLOORS[other]})"


def test_no_import_cycles() -> None:
    graph = {}
    for name, path in MODULES.items():
        targets = set()
        for target in _imports(path, top_level_only=True):
            while target and target not in MODULES and f"{target}.__init__" not in MODULES:
                target = target.rpartition(".")[0]
            key = target if target in MODULES else f"{target}.__init__"
            if target and key != name:
                targets.add(key)
        graph[name] = targets
    done: set[str] = set()
    for start in sorted(graph):
        _walk(start, graph, [], done)


def _walk(node: str, graph: dict[str, set[str]], path: list[str], done: set[str]) -> None:
    if node in path:
        raise AssertionError("import cycle: " + " -> ".join([*path[path.index(node):], node]))
    if node in done:
        return
    for target in sorted(graph.get(node, ())):
        _walk(target, graph, [*path, node], done)
    done.add(node)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_are_short_and_say_what_they_do(name: str) -> None:
    text = MODULES[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 450, f"{name} has {len(text.splitlines())} lines; ask whether it is two modules"
    assert ast.get_docstring(ast.parse(text)), f"{name} has no module docstring"
