"""From a suite manifest (YAML) to a Suite; every field is checked. The schema: `pythia_tools.suites`."""

import re
import string
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from pythia_tools.core import manifests
from pythia_tools.core.errors import DataError
from pythia_tools.core.files import confined
from pythia_tools.core.manifests import Check, anything, checked, mapping, one_of, text, whole, words
from pythia_tools.suites.checkpoint import Defect, ModelInfo
from pythia_tools.suites.shapes import DTYPE_BYTES, INITIALISATIONS, shape_params
from pythia_tools.suites.steps import expand
from pythia_tools.suites.suite import Places, Suite

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(@\S+)?")
"""`owner/name`, or `owner/name@revision`."""
REVISION_KEYS = {"step", "label", "model", "tokens_b"}
SCHEDULE_FIELDS = {
    "neox-cosine": ("kind", "warmup", "decay_steps", "floor"),
    "cosine": ("kind", "warmup_steps", "decay_steps", "floor"),
    "constant": ("kind",),
}
MODEL_FIELDS: dict[str, Check] = {
    "shape": anything, "params": whole(), "non_embedding": whole(), "seed": anything, "branch": words, "base": words,
    "branch_step": whole(0), "repo": words, "revision": words, "revisions": mapping, "known_defects": anything,
    "note": words, "sources": anything,
}


def read_suite(path: str | Path) -> Suite:
    """The suite of a manifest file. Raises: DataError naming file, field, and what is allowed."""
    path = Path(path)
    run = _run_fields(path.resolve().parent)
    required = {"name": text, "description": words, "location": _location, "models": mapping}
    optional = {**run, "sources": anything, "shapes": mapping, "known_defects": anything, "extra": mapping}
    value = checked(path, manifests.read(path), required, optional)
    entries = {str(name): entry or {} for name, entry in value["models"].items()}
    if not entries:
        raise DataError(f"{path}: models is empty; a suite has at least one model")
    inherited = {**{key: value[key] for key in run}, "revision": value["location"]["revision"]}
    defects = _defects(f"{path}: known_defects", value["known_defects"], entries)
    models, places = {}, {}
    for name, entry in entries.items():
        where = f"{path}: models: {name}"
        own = checked(where, entry, {}, {**run, **MODEL_FIELDS})
        own |= {key: known for key, known in inherited.items() if key not in entry}
        if own["base"] is not None and own["base"] not in entries:
            raise DataError(f"{where}: base {own['base']!r} is not a model of the suite; known: {', '.join(entries)}")
        if ((own["branch"] or "main") != "main") != (own["branch_step"] is not None):
            raise DataError(f"{where}: branch and branch_step belong together (its name, the step at which it left)")
        known = defects.get(name, ()) + _defects(f"{where}: known_defects", own["known_defects"], [name]).get(name, ())
        models[name] = _model(where, name, own, value["shapes"] or {}, known)
        places[name] = _places(where, path.parent, name, own, value["location"])
    kept = ("name", "description", "order", "tokens_per_step", "batch_rows", "seq_length")
    return Suite(
        models=models, places=places, sources=tuple(map(str, value["sources"] or ())),
        folder=path.parent if "folder" in value["location"] else None, tokenizer=(value["tokenizer"] or (None,))[0],
        **{key: value[key] for key in kept},
    )


def _run_fields(folder: Path) -> dict[str, Check]:
    """What a suite states for all of its models and a model may state for itself."""
    return {
        "steps": _steps, "tokens_per_step": whole(), "batch_rows": whole(), "seq_length": whole(),
        "order": partial(_order, folder), "tokenizer": partial(_tokenizer, folder), "dtype": one_of(DTYPE_BYTES),
        "stored_dtype": one_of(DTYPE_BYTES), "buffers": one_of(("neox-masks", "none")),
        "initialisation": one_of(INITIALISATIONS), "schedule": _schedule, "peak_lr": _number, "label_factor": whole(),
        "label_offset": anything,
    }


def _model(
    where: str, name: str, own: dict[str, Any], shapes: dict[str, Any], defects: tuple[Defect, ...],
) -> ModelInfo:
    shape = own["shape"] or {}
    if isinstance(shape, str):
        if shape not in shapes:
            raise DataError(f"{where}: shape {shape!r} is not under shapes; known: {', '.join(shapes) or 'none'}")
        shape = shapes[shape]
    shape = dict(mapping(f"{where}: shape", shape))
    counts: dict[str, Any] = {}
    for key, formula in zip(("params", "non_embedding"), shape_params(shape), strict=True):
        said = shape.pop(key, None)
        said = said if own[key] is None else own[key]
        if said is not None and formula is not None and said != formula:
            raise DataError(f"{where}: {key} is {said}, its shape gives {formula}")
        counts[key] = formula if said is None else said
    tokenizer, source = own["tokenizer"] or (None, None)
    kept = ("base", "branch_step", "seed", "peak_lr", "order", "tokens_per_step", "batch_rows", "dtype", "stored_dtype",
            "buffers", "initialisation", "note")
    return ModelInfo(
        name=name, branch=own["branch"] or "main", shape=shape, defects=defects, schedule=own["schedule"] or {},
        tokenizer=tokenizer, tokenizer_source=source, **counts, **{key: own[key] for key in kept},
    )


def _places(where: str, folder: Path, name: str, own: dict[str, Any], location: dict[str, Any]) -> Places:
    revisions = {int(step): str(revision) for step, revision in (own["revisions"] or {}).items()}
    steps = tuple(sorted({*(own["steps"] or ()), *revisions}))
    if "folder" in location:
        pattern = _pattern(f"{where}: location folder", location["folder"], {"model", "step"})
        for step in steps[:1]:
            confined(folder, pattern.format(model=name, step=step))
        return Places(steps, folder=folder, pattern=pattern)
    repo = own["repo"] or _pattern(f"{where}: location hub", location["hub"], {"model"}).format(model=name)
    revision = own["revision"]
    if revision is not None:
        _pattern(f"{where}: revision", revision, REVISION_KEYS)
        if not re.search(r"\{(step|label)", revision):
            raise DataError(
                f"{where}: revision {revision!r} does not hold the step; use {{step}}, {{label}}, or revisions")
    factor, offset = own["label_factor"] or 1, own["label_offset"] or 0
    return Places(steps, repo=repo, revision=revision, label_factor=factor, label_offset=offset, revisions=revisions)


def _location(where: str, value: Any) -> dict[str, Any]:
    checked(where, value, {}, {"hub": text, "folder": text, "revision": text})
    if ("hub" in value) == ("folder" in value):
        raise DataError(f"{where} needs exactly one of hub and folder (a pattern for repositories or folders)")
    return {"revision": "step{step}", **value}


def _steps(where: str, value: Any) -> tuple[int, ...]:
    try:
        return expand(value if isinstance(value, list) else [value])
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _number(where: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"{where} must be a number, not {value!r}") from None


def _schedule(where: str, value: Any) -> dict[str, Any]:
    if not mapping(where, value):
        return {}
    kind = one_of(SCHEDULE_FIELDS)(f"{where} kind", value.get("kind", "none"))
    return checked(where, value, dict.fromkeys(SCHEDULE_FIELDS[kind], anything))


def _defects(where: str, value: Any, models: Collection[str]) -> dict[str, tuple[Defect, ...]]:
    """By model; an entry without `models` covers all of them."""
    found: dict[str, tuple[Defect, ...]] = {}
    optional = {"steps": _steps, "models": anything, "severity": one_of(("wrong", "note"))}
    for i, entry in enumerate(value or []):
        entry = checked(f"{where}[{i}]", entry, {"what": words, "source": words}, optional)
        covered = [str(m) for m in entry["models"] or sorted(models)]
        if missing := [m for m in covered if m not in models]:
            raise DataError(f"{where}[{i}]: no such models {missing}; known: {sorted(models)}")
        defect = Defect(entry["steps"], entry["what"], entry["source"], entry["severity"] or "wrong")
        for model in covered:
            found[model] = (*found.get(model, ()), defect)
    return found


def _order(folder: Path, where: str, value: Any) -> str:
    """A name as it is; a file beside the manifest as an absolute path."""
    return str(folder / value) if re.search(r"/|\.ya?ml$", text(where, value)) else value


def _tokenizer(folder: Path, where: str, value: Any) -> tuple[str, str | None]:
    """(name, source): a hub repository's name as it is, a file or folder beside the manifest as an absolute path."""
    found = value if isinstance(value, dict) else {"name": value}
    found = checked(where, found, {"name": text}, {"source": words})
    on_hub = HUB_NAME.fullmatch(found["name"]) and not (folder / found["name"]).exists()
    return found["name"] if on_hub else str(folder / found["name"]), found["source"]


def _pattern(where: str, value: str, allowed: set[str]) -> str:
    used = {key for _, key, _, _ in string.Formatter().parse(value) if key is not None}
    if not used <= allowed:
        raise DataError(f"{where} {value!r} uses {sorted(used - allowed)}; allowed: {sorted(allowed)}")
    return value
