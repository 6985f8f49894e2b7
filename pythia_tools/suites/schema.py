"""From a suite manifest (YAML) to a Suite; every field is checked. The schema: `pythia_tools.suites`."""

import re
import string
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pythia_tools.core import manifests
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.files import confined
from pythia_tools.core.manifests import Check, anything, checked, list_of, mapping, number, one_of, text, whole, words
from pythia_tools.suites.checkpoint import Defect, HubRevision, ModelInfo
from pythia_tools.suites.shapes import DTYPE_BYTES, INITIALISATIONS, measured, shape_params
from pythia_tools.suites.steps import expand
from pythia_tools.suites.suite import Places, Suite

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(@\S+)?")
"""`owner/name`, or `owner/name@revision`."""
WIDTH = re.compile("0?[1-9]?[0-9]d?")
REVISION_KEYS = {"step", "label", "model", "tokens_b", "tokens_b_nearest"}
SCHEDULE_FIELDS: dict[str, dict[str, Check]] = {
    "neox-cosine": {"kind": words, "warmup": number, "decay_steps": whole(), "floor": number},
    "cosine": {"kind": words, "warmup_steps": number, "decay_steps": number, "floor": number},
    "constant": {"kind": words},
}
COUNTS = ("layers", "d_model", "heads", "kv_heads", "mlp", "vocab", "context", "params", "non_embedding")
SHAPE_FIELDS: dict[str, Check] = {"architecture": words, "rotary_pct": number, **dict.fromkeys(COUNTS, whole())}


def read_suite(path: str | Path) -> Suite:
    """The suite of a manifest file. Raises: DataError naming file, field, and what is allowed."""
    path = Path(path)
    run = _run_fields(path.resolve().parent)
    required = {"name": text, "description": words, "location": _location, "models": mapping}
    defective = list_of(_defect)
    optional = {**run, "sources": list_of(words), "shapes": mapping, "known_defects": defective, "extra": mapping}
    of_model = {
        "shape": anything, "params": whole(), "non_embedding": whole(), "seed": whole(0), "branch": words,
        "base": words, "branch_step": whole(0), "repo": words, "revision": words, "revisions": _revisions,
        "known_defects": defective, "note": words, "sources": list_of(words),
    }
    value = checked(path, manifests.read(path), required, optional)
    entries = {words(f"{path}: models", name): {} if e is None else e for name, e in value["models"].items()}
    if not entries:
        raise DataError(f"{path}: models is empty; a suite has at least one model")
    inherited = {**{key: value[key] for key in run}, "revision": value["location"]["revision"]}
    defects = _defects(f"{path}: known_defects", value["known_defects"], entries)
    models, places = {}, {}
    for name, entry in entries.items():
        where = f"{path}: models: {name}"
        own = checked(where, entry, {}, {**run, **of_model})
        own |= {key: known for key, known in inherited.items() if key not in entry}
        if own["base"] is not None and own["base"] not in entries:
            raise DataError(f"{where}: base {own['base']!r} is not a model of the suite; known: {', '.join(entries)}")
        if ((own["branch"] or "main") != "main") != (own["branch_step"] is not None):
            raise DataError(f"{where}: branch and branch_step belong together (its name, the step at which it left)")
        known = defects.get(name, ()) + _defects(f"{where}: known_defects", own["known_defects"], [name]).get(name, ())
        places[name] = _places(where, path.parent, name, own, value["location"])
        models[name] = _model(where, name, own, value["shapes"] or {}, known)
        if models[name].params is None and places[name].folder is not None:
            found = measured(places[name].at(name, step) for step in places[name].steps)
            models[name] = replace(models[name], **{**found, "shape": {**found["shape"], **models[name].shape}})
    kept = ("name", "description", "order", "tokens_per_step", "batch_rows", "seq_length")
    return Suite(
        models=models, places=places, sources=tuple(value["sources"] or ()),
        folder=path.parent if "folder" in value["location"] else None, tokenizer=(value["tokenizer"] or (None,))[0],
        **{key: value[key] for key in kept},
    )


def _run_fields(folder: Path) -> dict[str, Check]:
    """What a suite states for all of its models and a model may state for itself."""
    return {
        "steps": _steps, "tokens_per_step": whole(), "batch_rows": whole(), "seq_length": whole(),
        "order": partial(_order, folder), "tokenizer": partial(_tokenizer, folder), "dtype": one_of(DTYPE_BYTES),
        "stored_dtype": one_of(DTYPE_BYTES), "buffers": one_of(("neox-masks", "none")),
        "initialisation": one_of(INITIALISATIONS), "schedule": _schedule, "peak_lr": number, "label_factor": whole(),
        "label_offset": whole(None),
    }


def _model(
    where: str, name: str, own: dict[str, Any], shapes: dict[str, Any], defects: tuple[Defect, ...],
) -> ModelInfo:
    shape = own["shape"] or {}
    if isinstance(shape, str):
        if shape not in shapes:
            known = ", ".join(map(str, shapes)) or "none"
            raise DataError(f"{where}: shape {shape!r} is not under shapes; known: {known}")
        shape = shapes[shape]
    fields = checked(f"{where}: shape", shape, {}, SHAPE_FIELDS)
    shape = {key: known for key, known in fields.items() if known is not None}
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
    revisions = own["revisions"] or {}
    steps = tuple(sorted({*(own["steps"] or ()), *revisions}))
    if "folder" in location:
        pattern = _pattern(f"{where}: location folder", location["folder"], {"model", "step"})
        try:
            confined(folder, pattern.format(model=name, step=(*steps, 0)[0]))
        except (RequestError, ValueError) as error:
            raise RequestError(f"{where}: location folder {pattern!r}: {error}") from error
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
    found = checked(where, value, {}, {"hub": text, "folder": text, "revision": text})
    if (found["hub"] is None) == (found["folder"] is None):
        raise DataError(f"{where} needs exactly one of hub and folder (a pattern for repositories or folders)")
    return {"revision": "step{step}", **{key: known for key, known in value.items() if known or key == "revision"}}


def _steps(where: str, value: Any) -> tuple[int, ...]:
    try:
        return expand(value if isinstance(value, list) else [value])
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _revisions(where: str, value: Any) -> dict[int, str | HubRevision]:
    """{step: revision}, or {step: {repo, revision}} for a step in a repository of its own."""
    return {whole(0)(f"{where}: {step}", step): _revision(f"{where}: {step}", found)
            for step, found in mapping(where, value).items()}


def _revision(where: str, value: Any) -> str | HubRevision:
    if not isinstance(value, dict):
        return words(where, value)
    found = checked(where, value, {"repo": words}, {"revision": words})
    return HubRevision(found["repo"], found["revision"] or "main")


def _schedule(where: str, value: Any) -> dict[str, Any]:
    if not mapping(where, value):
        return {}
    kind = one_of(SCHEDULE_FIELDS)(f"{where} kind", value.get("kind", "none"))
    return checked(where, value, SCHEDULE_FIELDS[kind])


def _defect(where: str, value: Any) -> dict[str, Any]:
    optional = {"steps": _steps, "models": list_of(words), "severity": one_of(("wrong", "note"))}
    return checked(where, value, {"what": words, "source": words}, optional)


def _defects(where: str, value: Any, models: Collection[str]) -> dict[str, tuple[Defect, ...]]:
    """By model; an entry without `models` covers all of them."""
    found: dict[str, tuple[Defect, ...]] = {}
    for i, entry in enumerate(value or []):
        covered = entry["models"] or sorted(models)
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
    try:
        fields = [(key, form, how) for _, key, form, how in string.Formatter().parse(value) if key is not None]
    except ValueError as error:
        raise DataError(f"{where} {value!r} is no pattern ({error}); {{{{ and }}}} stand for braces") from error
    used = {key for key, _, _ in fields}
    if not used <= allowed:
        raise DataError(f"{where} {value!r} uses {sorted(used - allowed)}; allowed: {sorted(allowed)}")
    if not all(how is None and (not form or (key != "model" and WIDTH.fullmatch(form))) for key, form, how in fields):
        raise DataError(f"{where} {value!r}: a number may have a width as in {{step:06d}}, and nothing else")
    return value
