"""List the known suites, or show one: models, steps, sizes, data order, known defects.

example:
  pythia-tools suites
  pythia-tools suites pythia
  pythia-tools suites pythia --models 2.8b 12b
  pythia-tools suites pythia-deduped --models 70m --online     # what exists on the hub against the step grid
  pythia-tools suites ./my-suite.yaml --json
"""

from __future__ import annotations

import argparse
from typing import Any

from pythia_tools import suites
from pythia_tools.cli.options import add_output, emit
from pythia_tools.core import progress
from pythia_tools.core.errors import EXIT_DONE, EXIT_FOUND, RequestError
from pythia_tools.core.files import human_bytes
from pythia_tools.suites import Defect, ModelInfo, Suite


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "suite", nargs="?", metavar="NAME",
        help="a suite's name, a manifest path, or a folder; without it, all are listed"
    )
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="models to show (default: all)")
    parser.add_argument(
        "--online", action="store_true", help="ask the hub which checkpoints exist; exit 1 when some are missing"
    )
    add_output(parser, out=False)


def run(args: argparse.Namespace) -> int:
    if args.suite is None:
        if args.online or args.models:
            raise RequestError("--online and --models need the NAME of a suite")
        return _list(args.json)
    suite = suites.load_suite(args.suite)
    models = [suite.model(name) for name in args.models] if args.models else list(suite.models.values())
    if args.online:
        return _online(suite, models, args.json)
    value = _describe(suite, models)
    if args.json:
        emit(value, as_json=True)
    else:
        _print(suite, value)
    return EXIT_DONE


def _list(as_json: bool) -> int:
    rows: list[dict[str, Any]] = []
    for name in suites.suite_names():
        suite = suites.load_suite(name)
        rows.append({
            "suite": name, "models": len(suite.models), "checkpoints": sum(len(suite.steps(m)) for m in suite.models),
            "about": suite.description
        })
    if as_json:
        emit(rows, as_json=True)
        return EXIT_DONE
    width = max(len(r["suite"]) for r in rows)
    print(f"{'suite':{width}}  models  checkpoints  about")
    for r in rows:
        print(f"{r['suite']:{width}}  {r['models']:>6}  {r['checkpoints']:>11,}  {_short(r['about'])}")
    print("\n`pythia-tools suites NAME` shows one. A manifest of your own works by its path in the same way.")
    return EXIT_DONE


def _describe(suite: Suite, models: list[ModelInfo]) -> dict[str, Any]:
    return {
        "suite": suite.name, "about": suite.description, "sources": list(suite.sources), "order": suite.order,
        "tokens_per_step": suite.tokens_per_step, "batch_rows": suite.batch_rows, "seq_length": suite.seq_length,
        "models": [_model(suite, info) for info in models],
        "known_defects": [_defect(info, d) for info in models for d in info.defects],
    }


def _defect(info: ModelInfo, defect: Defect) -> dict[str, Any]:
    steps = None if defect.steps is None else list(defect.steps)
    return {
        "model": info.name, "steps": steps, "severity": defect.severity, "what": defect.what, "source": defect.source
    }


def _model(suite: Suite, info: ModelInfo) -> dict[str, Any]:
    steps = suite.steps(info.name)
    place = suite.places[info.name]
    return {
        "model": info.name, "params": info.params, "non_embedding": info.non_embedding, "checkpoints": len(steps),
        "first": steps[0] if steps else None, "last": steps[-1] if steps else None,
        "tokens": steps[-1] * info.tokens_per_step if steps and info.tokens_per_step else None,
        "bytes_each": _bytes(info), "dtype": info.dtype, "peak_lr": info.peak_lr, "seed": info.seed,
        "branch": info.branch, "base": info.base, "branch_step": info.branch_step, "order": info.order,
        "note": info.note, "where": place.repo or str(place.folder), "shape": info.shape
    }


def _bytes(info: ModelInfo) -> int | None:
    """Bytes of one checkpoint's tensors by formula, with the causal masks that old GPT-NeoX files hold; None when
    unknown.
    """
    if info.params is None or info.stored_dtype is None:
        return None
    masks = info.buffers == "neox-masks"
    return suites.weight_bytes(info.params, info.stored_dtype, layers=int(info.shape.get("layers", 0)), masks=masks)


def _print(suite: Suite, value: dict[str, Any]) -> None:
    print(f"{suite.name}: {suite.description}")
    facts = [
        f"{value[k]:,} {label}"
        for k, label in (("tokens_per_step", "tokens per step"), ("batch_rows", "rows per batch")) if value[k]
    ]
    if suite.order:
        facts.append(f"order {suite.order}")
    if facts:
        print("; ".join(facts))
    print()
    rows = [[
        m["model"], _number(m["params"]), _number(m["non_embedding"]), str(m["checkpoints"]),
        f"{m['first']}…{m['last']}" if m["checkpoints"] else "not listed", _tokens(m["tokens"]),
        human_bytes(m["bytes_each"]) if m["bytes_each"] else "-", m["dtype"] or "-",
        m["where"] + (f"  ({m['branch']} of {m['base']} from step {m['branch_step']})" if m["base"] else ""),
    ] for m in value["models"]]
    _columns(
        ["model", "params", "non-embedding", "ckpts", "steps", "tokens", "each", "dtype", "where"], rows, left=(0, 7, 8)
    )
    _print_remarks(value)


def _columns(heads: list[str], rows: list[list[str]], left: tuple[int, ...]) -> None:
    """Aligned columns on stdout; numbers to the right."""
    widths = [max(len(r[i]) for r in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, *rows]:
        print(
            "  ".join(
                c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
        )


def _print_remarks(value: dict[str, Any]) -> None:
    notes: dict[str, list[str]] = {}
    for m in value["models"]:
        if m["note"]:
            notes.setdefault(m["note"], []).append(m["model"])
    for note, names in notes.items():
        print(f"\nnote on {', '.join(names)}: {note}")
    grouped: dict[tuple[bool, str, str, str], list[str]] = {}
    for d in value["known_defects"]:
        steps = d["steps"]
        where = "all steps" if steps is None else f"{len(steps)} steps" if len(
            steps
        ) > 12 else f"steps {', '.join(map(str, steps))}"
        grouped.setdefault((d["severity"] != "wrong", where, d["what"], d["source"]), []).append(d["model"])
    if grouped:
        print("\nknown defects (wrong) and remarks (note):")
    for (is_note, where, what, source), names in sorted(grouped.items(), key=lambda item: item[0][:3]):
        models = ", ".join(names) if len(names) < 12 else f"{len(names)} models"
        print(f"  {'note ' if is_note else 'wrong'}  {models}, {where}: {what} ({source})")


def _online(suite: Suite, models: list[ModelInfo], as_json: bool) -> int:
    from pythia_tools import hub

    rows: list[dict[str, Any]] = []
    for info in progress.track(models, "ask the hub", unit="model"):
        states, extra = hub.grid_states(suite, info.name)
        gone = [step for step, state in states.items() if state == "missing"]
        rows.append({"model": info.name, "where": suite.places[info.name].repo or str(suite.places[info.name].folder),
                     "present": len(states) - len(gone), "of": len(states), "missing": gone, "others": extra})
    if as_json:
        emit(rows, as_json=True)
    else:
        for r in rows:
            print(f"{r['model']}: {r['present']} of {r['of']} checkpoints exist in {r['where']}")
            if r["missing"]:
                print(f"  missing steps: {_some(r['missing'])}")
            if r["others"]:
                print(f"  other branches: {_some(r['others'])}")
    return EXIT_FOUND if any(r["missing"] for r in rows) else EXIT_DONE


def _some(values: list[Any], most: int = 20) -> str:
    return ", ".join(map(str, values[:most])) + (f", … ({len(values)} in all)" if len(values) > most else "")


def _short(text: str, most: int = 100) -> str:
    return text if len(text) <= most else text[: most - 1].rsplit(" ", 1)[0] + " …"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _tokens(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e9:.1f}B" if value >= 1e8 else f"{value / 1e6:.2f}M"
