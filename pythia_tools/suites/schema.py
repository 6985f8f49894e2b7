"""From a suite manifest (YAML) to a Suite; every field is checked. The schema: `pythia_tools.suites`."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pythia_tools.core import manifests
from pythia_tools.core.errors import DataError
from pythia_tools.core.files import confined
from pythia_tools.suites.checkpoint import Defect, ModelInfo
from pythia_tools.suites.shapes import DTYPE_BYTES, INITIALISATIONS, SCHEDULES, shape_params
from pythia_tools.suites.steps import expand
from pythia_tools.suites.suite import Places, Suite

REQUIRED = ("name", "description", "location", "models")
RUN_FIELDS = (
    "steps", "tokens_per_step", "batch_rows", "seq_length", "order", "tokenizer", "dtype", "stored_dtype", "buffers",
    "initialisation", "schedule", "peak_lr", "label_factor", "label_offset",
)
"""What a suite states for all of its models and a model may state for itself."""
OPTIONAL = (*RUN_FIELDS, "sources", "shapes", "known_defects", "extra")
MODEL_FIELDS = (
    *RUN_FIELDS, "shape", "params", "non_embedding", "seed", "branch", "base", "branch_step", "repo", "revision",
    "revisions", "known_defects", "note", "sources",
)
DEFECT_FIELDS = ("what", "source"), ("steps", "models", "severity")
TOKENIZER_FIELDS = ("name",), ("source",)
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(@\S+)?")
"""`owner/name`, or `owner/name@revision`."""
LOCATION_FIELDS = (), ("hub", "revision", "folder")
REVISION_KEYS = {"step", "label", "model", "tokens_b"}
SCHEDULE_FIELDS = {
    "neox-cosine": ("kind", "warmup", "decay_steps", "floor"),
    "cosine": ("kind", "warmup_steps", "decay_steps", "floor"),
    "constant": ("kind",),
}
BUFFERS = ("neox-masks", "none")


def read_suite(path: str | Path) -> Suite:
    """The suite of a manifest file. Raises: DataError naming file, field, and what is allowed."""
    path = Path(path)
    value = manifests.read(path)
    manifests.check_fields(path, value, REQUIRED, OPTIONAL)
    location = _mapping(path, "location", value["location"])
    manifests.check_fields(f"{path}: location", location, *LOCATION_FIELDS)  # type: ignore[arg-type]
    if ("hub" in location) == ("folder" in location):
        raise DataError(f"{path}: location needs exactly one of hub and folder (a pattern for repositories or folders)")
    entries = _mapping(path, "models", value["models"])
    if not entries:
        raise DataError(f"{path}: models is empty; a suite has at least one model")
    defects = _defects(path, value.get("known_defects"), set(map(str, entries)))
    models, places = {}, {}
    for name, entry in entries.items():
        name = str(name)
        entry = _mapping(path, f"models: {name}", entry or {})
        manifests.check_fields(f"{path}: models: {name}", entry, (), MODEL_FIELDS)
        run = {key: entry.get(key, value.get(key)) for key in RUN_FIELDS}
        own = _defects(path, entry.get("known_defects"), {name})
        known = defects.get(name, ()) + own.get(name, ())
        models[name] = _model(path, name, entry, run, value.get("shapes") or {}, known)
        places[name] = _places(path, name, entry, run, location)
    _check_bases(path, models)
    return Suite(
        name=_text(path, "name", value["name"]), models=models, places=places, description=_line(value["description"]),
        sources=tuple(map(str, value.get("sources") or ())), order=_order(path, value.get("order")),
        folder=path.parent if "folder" in location else None, tokens_per_step=value.get("tokens_per_step"),
        batch_rows=value.get("batch_rows"), seq_length=value.get("seq_length"),
        tokenizer=_tokenizer(path, value.get("tokenizer"))[0], extra=_mapping(path, "extra", value.get("extra") or {}),
    )


def _model(
    path: Path, name: str, entry: dict[str, Any], run: dict[str, Any], shapes: dict[str, Any],
    defects: tuple[Defect, ...],
) -> ModelInfo:
    where = f"{path}: models: {name}"
    shape = entry.get("shape") or {}
    if isinstance(shape, str):
        if shape not in shapes:
            raise DataError(f"{where}: shape {shape!r} is not under shapes; known: {', '.join(shapes) or 'none'}")
        shape = shapes[shape]
    shape = dict(_mapping(path, f"models: {name}: shape", shape))
    by_formula = shape_params(shape)
    stated = [entry.get(key, shape.pop(key, None)) for key in ("params", "non_embedding")]
    for key, said, formula in zip(("params", "non_embedding"), stated, by_formula, strict=True):
        if said is not None and formula is not None and said != formula:
            raise DataError(f"{where}: {key} is {said}, its shape gives {formula}")
    params, non_embedding = (s if s is not None else f for s, f in zip(stated, by_formula, strict=True))
    _one_of(where, "dtype", run["dtype"], DTYPE_BYTES)
    _one_of(where, "stored_dtype", run["stored_dtype"], DTYPE_BYTES)
    _one_of(where, "buffers", run["buffers"], BUFFERS)
    _one_of(where, "initialisation", run["initialisation"], INITIALISATIONS)
    schedule = _mapping(path, f"models: {name}: schedule", run["schedule"] or {})
    if schedule:
        _one_of(where, "schedule kind", schedule.get("kind", "none"), SCHEDULES)
        manifests.check_fields(f"{where}: schedule", schedule, SCHEDULE_FIELDS[schedule["kind"]], ())
    for key in ("tokens_per_step", "batch_rows", "seq_length", "label_factor"):
        _positive(where, key, run[key])
    tokenizer, tokenizer_source = _tokenizer(path, run["tokenizer"])
    return ModelInfo(
        name=name, params=params, non_embedding=non_embedding, branch=str(entry.get("branch") or "main"),
        base=_str(entry.get("base")), branch_step=entry.get("branch_step"), seed=entry.get("seed"), shape=shape,
        defects=defects, peak_lr=None if run["peak_lr"] is None else float(run["peak_lr"]), schedule=schedule,
        order=_order(path, run["order"]), tokenizer=tokenizer, tokenizer_source=tokenizer_source,
        tokens_per_step=run["tokens_per_step"], batch_rows=run["batch_rows"], dtype=run["dtype"],
        stored_dtype=run["stored_dtype"], buffers=run["buffers"], initialisation=run["initialisation"],
        note=_str(entry.get("note")),
    )


def _places(path: Path, name: str, entry: dict[str, Any], run: dict[str, Any], location: dict[str, Any]) -> Places:
    where = f"{path}: models: {name}"
    named = _mapping(path, f"models: {name}: revisions", entry.get("revisions") or {})
    revisions = {int(step): str(revision) for step, revision in named.items()}
    listed = run["steps"] if run["steps"] is not None else []
    try:
        steps = tuple(sorted({*expand(listed if isinstance(listed, list) else [listed]), *revisions}))
    except ValueError as error:
        raise DataError(f"{where}: steps: {error}") from error
    if "folder" in location:
        pattern = _pattern(where, "location folder", location["folder"], {"model", "step"})
        for step in steps[:1]:
            confined(path.parent, pattern.format(model=name, step=step))
        return Places(steps, folder=path.parent, pattern=pattern)
    repo = entry.get("repo") or _pattern(where, "location hub", location["hub"], {"model"}).format(model=name)
    revision = entry.get("revision", location.get("revision", "step{step}"))
    if revision is not None:
        revision = _pattern(where, "revision", revision, REVISION_KEYS)
        if not re.search(r"\{(step|label)", revision):
            raise DataError(
                f"{where}: revision {revision!r} does not hold the step; use {{step}}, {{label}}, or revisions")
    factor, offset = run["label_factor"] or 1, run["label_offset"] or 0
    return Places(steps, repo=repo, revision=revision, label_factor=factor, label_offset=offset, revisions=revisions)


def _defects(path: Path, value: Any, models: set[str]) -> dict[str, tuple[Defect, ...]]:
    """By model; an entry without `models` covers all of them."""
    found: dict[str, tuple[Defect, ...]] = {}
    for i, entry in enumerate(value or []):
        where = f"{path}: known_defects[{i}]"
        entry = _mapping(path, f"known_defects[{i}]", entry)
        manifests.check_fields(where, entry, *DEFECT_FIELDS)
        _one_of(where, "severity", entry.get("severity"), ("wrong", "note"))
        covered = [str(m) for m in entry.get("models") or sorted(models)]
        if missing := [m for m in covered if m not in models]:
            raise DataError(f"{where}: no such models {missing}; known: {sorted(models)}")
        try:
            steps = None if entry.get("steps") is None else expand(entry["steps"])
        except (ValueError, TypeError) as error:
            raise DataError(f"{where}: steps: {error}") from error
        defect = Defect(steps, _line(entry["what"]), str(entry["source"]), entry.get("severity") or "wrong")
        for model in covered:
            found[model] = (*found.get(model, ()), defect)
    return found


def _check_bases(path: Path, models: Mapping[str, ModelInfo]) -> None:
    for info in models.values():
        where = f"{path}: models: {info.name}"
        if info.base is not None and info.base not in models:
            raise DataError(f"{where}: base {info.base!r} is not a model of the suite; known: {', '.join(models)}")
        if (info.branch != "main") != (info.branch_step is not None):
            raise DataError(f"{where}: branch and branch_step belong together (its name, the step at which it left)")


def _order(path: Path, value: Any) -> str | None:
    """A name as it is; a file beside the manifest as an absolute path."""
    if value is None:
        return None
    text = _text(path, "order", value)
    return _beside(path, text) if "/" in text or text.endswith((".yaml", ".yml")) else text


def _tokenizer(path: Path, value: Any) -> tuple[str | None, str | None]:
    """(name, source): a hub repository's name as it is, a file or folder beside the manifest as an absolute path."""
    if value is None:
        return None, None
    if isinstance(value, dict):
        manifests.check_fields(f"{path}: tokenizer", value, *TOKENIZER_FIELDS)
        name, source = _text(path, "tokenizer: name", value["name"]), _str(value.get("source"))
    else:
        name, source = _text(path, "tokenizer", value), None
    on_hub = HUB_NAME.fullmatch(name) and not (path.resolve().parent / name).exists()
    return name if on_hub else _beside(path, name), source


def _beside(path: Path, value: Any) -> str | None:
    return None if value is None else str(path.resolve().parent / str(value))


def _pattern(where: str, name: str, value: Any, allowed: set[str]) -> str:
    text = str(value)
    used = {key for _, key, _, _ in string.Formatter().parse(text) if key is not None}
    if not used <= allowed:
        raise DataError(f"{where}: {name} {text!r} uses {sorted(used - allowed)}; allowed: {sorted(allowed)}")
    return text


def _mapping(path: Path, name: str, value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{path}: {name} is a {type(value).__name__}; it must be a mapping")
    return value


def _text(path: Path, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise DataError(f"{path}: {name} is {value!r}; it must be text")
    return value


def _line(value: Any) -> str:
    return " ".join(str(value).split())


def _str(value: Any) -> str | None:
    return None if value is None else str(value)


def _one_of(where: str, name: str, value: Any, allowed: Any) -> None:
    if value is not None and value not in allowed:
        raise DataError(f"{where}: {name} {value!r} is not one of {', '.join(allowed)}")


def _positive(where: str, name: str, value: Any) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise DataError(f"{where}: {name} is {value!r}; it must be a positive whole number")
