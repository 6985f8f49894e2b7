"""List the known suites, or show one: models, steps, sizes, data order, known defects.

example:
  pythia-tools suites
  pythia-tools suites pythia
  pythia-tools suites pythia --models 2.8b 12b
  pythia-tools suites pythia-deduped --models 70m --online     # what exists on the hub against the step grid
  pythia-tools suites ./my-suite.yaml --json
"""

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pandas as pd

from pythia_tools import suites
from pythia_tools.cli.options import add, emit
from pythia_tools.core import progress
from pythia_tools.core.errors import EXIT_DONE, EXIT_FOUND, RequestError, few
from pythia_tools.core.files import human_bytes
from pythia_tools.suites import ModelInfo, Suite

SHOWN = (
    "params", "non_embedding", "dtype", "peak_lr", "seed", "branch", "base", "branch_step", "order", "note", "shape",
)
HEADS = ["model", "params", "non-embedding", "ckpts", "steps", "tokens", "each", "dtype", "where"]


def configure(parser: argparse.ArgumentParser) -> None:
    online = "ask the hub which checkpoints exist; exit 1 when some are missing"
    add(parser, "suite", nargs="?", metavar="NAME", help="a suite's name, manifest or folder (default: list all)")
    add(parser, "--models", help="models to show (default: all)")
    parser.add_argument("--online", action="store_true", help=online)


def run(args: argparse.Namespace) -> int | None:
    if args.suite is None:
        if args.online or args.models:
            raise RequestError("--online and --models need the NAME of a suite")
        _list(args)
        return None
    suite = suites.load_suite(args.suite)
    models = [suite.model(name) for name in args.models] if args.models else list(suite.models.values())
    if args.online:
        return _online(suite, models, args)
    value = _describe(suite, models)
    emit(value, args, _shown(value))
    return None


def _list(args: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    for suite in map(suites.load_suite, suites.suite_names()):
        sizes = {"models": len(suite.models), "checkpoints": sum(len(suite.steps(m)) for m in suite.models)}
        rows.append({"suite": suite.name, **sizes, "about": suite.description})
    short = partial(textwrap.shorten, width=100, placeholder=" …")
    cells = [[r["suite"], _number(r["models"]), _number(r["checkpoints"]), short(r["about"])] for r in rows]
    hint = "\n`pythia-tools suites NAME` shows one. A manifest of your own works by its path in the same way."
    emit(rows, args, "\n".join([*_columns([["suite", "models", "checkpoints", "about"], *cells], left=(0, 3)), hint]))


def _describe(suite: Suite, models: Sequence[ModelInfo]) -> dict[str, Any]:
    defects = [{"model": info.name, **asdict(defect)} for info in models for defect in info.defects]
    return {
        "suite": suite.name, "about": suite.description, "sources": suite.sources, "order": suite.order,
        "tokens_per_step": suite.tokens_per_step, "batch_rows": suite.batch_rows, "seq_length": suite.seq_length,
        "models": [_model(suite, info) for info in models], "known_defects": defects,
    }


def _model(suite: Suite, info: ModelInfo) -> dict[str, Any]:
    steps, place = suite.steps(info.name), suite.places[info.name]
    return {
        "model": info.name, **{name: getattr(info, name) for name in SHOWN}, "checkpoints": len(steps),
        "first": steps[0] if steps else None, "last": steps[-1] if steps else None,
        "tokens": steps[-1] * info.tokens_per_step if steps and info.tokens_per_step else None,
        "bytes_each": _bytes(info), "where": place.repo or str(place.folder),
    }


def _bytes(info: ModelInfo) -> int | None:
    """Bytes of a checkpoint's tensors by formula, with the masks that old GPT-NeoX files hold; None when unknown."""
    if info.params is None or info.stored_dtype is None:
        return None
    masks = info.buffers == "neox-masks"
    return suites.weight_bytes(info.params, info.stored_dtype, layers=int(info.shape.get("layers", 0)), masks=masks)


def _shown(value: dict[str, Any]) -> str:
    labels = {"tokens_per_step": "{:,} tokens per step", "batch_rows": "{:,} rows per batch", "order": "order {}"}
    facts = "; ".join(text.format(value[name]) for name, text in labels.items() if value[name])
    lines = [f"{value['suite']}: {value['about']}", *([facts] if facts else []), ""]
    rows = [[
        m["model"], _number(m["params"]), _number(m["non_embedding"]), str(m["checkpoints"]),
        f"{m['first']}…{m['last']}" if m["checkpoints"] else "not listed", _tokens(m["tokens"]),
        human_bytes(m["bytes_each"]) if m["bytes_each"] else "-", m["dtype"] or "-",
        m["where"] + (f"  ({m['branch']} of {m['base']} from step {m['branch_step']})" if m["base"] else ""),
    ] for m in value["models"]]
    lines += _columns([HEADS, *rows], left=(0, 7, 8))
    for note, part in pd.DataFrame(value["models"]).groupby("note", sort=False):
        lines.append(f"\nnote on {', '.join(part['model'])}: {note}")
    if value["known_defects"]:
        lines.append("\nknown defects (wrong) and remarks (note):")
        defects = pd.DataFrame(value["known_defects"]).assign(where=lambda t: t["steps"].map(_where))
        keys = ["severity", "where", "what", "source"]
        ordered = defects.sort_values(keys, ascending=[False, True, True, True])
        for (mark, where, what, source), part in ordered.groupby(keys, sort=False):
            models = ", ".join(part["model"]) if len(part) < 12 else f"{len(part)} models"
            lines.append(f"  {mark:5}  {models}, {where}: {what} ({source})")
    return "\n".join(lines)


def _where(steps: tuple[int, ...] | None) -> str:
    if steps is None:
        return "all steps"
    return f"{len(steps)} steps" if len(steps) > 12 else f"steps {', '.join(map(str, steps))}"


def _columns(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Lines of aligned columns, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
               for row in rows]
    return ["  ".join(cells).rstrip() for cells in aligned]


def _online(suite: Suite, models: Sequence[ModelInfo], args: argparse.Namespace) -> int:
    from pythia_tools import hub

    rows: list[dict[str, Any]] = []
    for info in progress.track(models, "ask the hub", unit="model"):
        states, extra = hub.grid_states(suite, info.name)
        gone = [step for step, state in states.items() if state == "missing"]
        where = suite.places[info.name].repo or str(suite.places[info.name].folder)
        rows.append({"model": info.name, "where": where, "present": len(states) - len(gone), "of": len(states),
                     "missing": gone, "others": extra})
    lines = []
    for r in rows:
        lines.append(f"{r['model']}: {r['present']} of {r['of']} checkpoints exist in {r['where']}")
        for values, what in ((r["missing"], "missing steps"), (r["others"], "other branches")):
            if values:
                lines.append(f"  {what}: {few(values, 20)}")
    emit(rows, args, "\n".join(lines))
    return EXIT_FOUND if any(r["missing"] for r in rows) else EXIT_DONE


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _tokens(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e9:.1f}B" if value >= 1e8 else f"{value / 1e6:.2f}M"
