"""The checks of an audit that look at one checkpoint, or at what should be the same in all; `paths` follows tensors.

From evidence to findings, without a file or a connection.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pythia_tools.core.errors import few
from pythia_tools.doctor.evidence import Evidence, Finding
from pythia_tools.suites import Folder, ModelInfo, initial_std, weight_bytes
from pythia_tools.suites.shapes import config_shape

STD_TOLERANCE = 0.05
FEWEST = 256
"""Values of a matrix from which on its deviation is judged."""
SIZE_SLACK = 0.01
SIZE_SLACK_BYTES = 2_000_000
RESIDUAL = re.compile(r"(attention\.dense|dense_4h_to_h|o_proj|down_proj|c_proj)\.weight$")
"""Projections whose output is added to the residual stream: some initialisations make them smaller."""
LAYER = re.compile(r"\.(?:layers|blocks|h)\.(\d+)\.")
INCIDENTAL = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "_commit_hash"}
"""Keys of a config.json that do not decide what the model computes."""
COARSER = 3
"""So many more idle bits than at other steps: the values went through a coarser number format."""


def _wrong(e: Evidence, check: str, detail: str) -> Finding:
    return Finding(e.model, e.step, check, detail)


def reading(info: ModelInfo, evidence: Sequence[Evidence]) -> Iterator[Finding]:
    """Checkpoints that are missing or damaged, and tensors that hold NaN or infinity, or one value only."""
    yield from (_wrong(e, check, what) for e in evidence for check, what in e.problems)
    for e in evidence:
        lost = [f"{t['stored']} ({t['nonfinite']:,})" for t in e.tensors.values() if t["nonfinite"]]
        if lost:
            yield _wrong(e, "finite", f"NaN or infinity in {few(lost, 3)}")
        flat = [n for n, t in e.tensors.items() if len(t["shape"]) > 1 and t["size"] > 1 and t["low"] == t["high"]]
        if flat:
            yield _wrong(e, "constant", f"all values read are equal in {few(flat, 3)}")


def sizes(info: ModelInfo, evidence: Sequence[Evidence]) -> Iterator[Finding]:
    """Bytes of the weight files against the formula where the shape is known, else against the other steps."""
    totals = {e.step: sum(size for size, _ in e.weights.values()) for e in evidence if e.weights}
    allowed = expected_bytes(info)
    if not allowed and totals:
        allowed = [Counter(totals.values()).most_common(1)[0][0]]
    for step, total in totals.items():
        if not any(want <= total <= want * (1 + SIZE_SLACK) + SIZE_SLACK_BYTES for want in allowed):
            wanted = " or ".join(f"{want:,}" for want in sorted(set(allowed)))
            detail = f"weight files hold {total:,} bytes, {wanted} expected (and a header)"
            yield Finding(info.name, step, "size", detail)


def expected_bytes(info: ModelInfo) -> list[int]:
    """Bytes of tensor data that a shape allows: in its stored dtype (any, when not stated), with and without masks."""
    if info.params is None:
        return []
    dtypes = [info.stored_dtype] if info.stored_dtype else ["float16", "float32"]
    layers, context = int(info.shape.get("layers", 0)), int(info.shape.get("context", 0))
    may_hold = info.buffers != "none" and info.shape.get("architecture") == "gpt_neox" and layers and context
    masks = [False, True] if may_hold else [False]
    return [weight_bytes(info.params, d, layers=layers, context=context, masks=m) for d in dtypes for m in masks]


def shapes(info: ModelInfo, evidence: Sequence[Evidence]) -> Iterator[Finding]:
    """Tensor names, shapes and number formats: the same at every step, and as many parameters as stated."""
    seen = [e for e in evidence if e.tensors]
    for e, odd in _unlike(seen, lambda e: {n: t["shape"] for n, t in e.tensors.items()}):
        yield _wrong(e, "shapes", f"tensors differ from the other steps': {few(odd, 3)}")
    for e, odd in _unlike(seen, lambda e: {n: t["dtype"] for n, t in e.tensors.items()}):
        there = [n for n in odd if n in e.tensors]
        if there:
            kinds = ", ".join(sorted({e.tensors[n]["dtype"] for n in there}))
            yield _wrong(e, "dtype", f"stored as {kinds}, unlike at the other steps: {few(there, 3)}")
    for e in seen:
        total = sum(t["values"] for t in e.tensors.values())
        tied = int(info.shape.get("vocab", 0)) * int(info.shape.get("d_model", 0))  # left out where it is the input's
        if info.params is not None and total not in (info.params, info.params - tied):
            yield _wrong(e, "shapes", f"{total:,} parameters, {info.params:,} expected")


def precision(info: ModelInfo, evidence: Sequence[Evidence]) -> Iterator[Finding]:
    """Matrices whose values went through a coarser number format than at the other steps, whatever stores them."""
    bits = {n: Counter(e.tensors[n]["idle_bits"] for e in evidence if n in e.tensors).most_common(1)[0][0]
            for e in evidence for n, t in e.tensors.items() if len(t["shape"]) > 1}
    for e in evidence:
        coarse = [n for n in bits if n in e.tensors and bits[n] + COARSER <= e.tensors[n]["idle_bits"] < 24]
        if coarse:
            kept = 24 - min(e.tensors[n]["idle_bits"] for n in coarse)
            what = f"no value has more than {kept} significant bits, unlike at the other steps: {few(coarse, 3)}"
            yield _wrong(e, "precision", what)


def configs(info: ModelInfo, evidence: Sequence[Evidence]) -> Iterator[Finding]:
    """config.json against the manifest, against the tensors, and against that of the other steps."""
    seen = [e for e in evidence if e.config is not None]
    for e in seen:
        assert e.config is not None
        said = config_shape(e.config)
        for whose, shape in (("the manifest", info.shape), ("the tensors", _implied(e))):
            odd = [f"{k} {said[k]!r}, {shape[k]!r} by {whose}" for k in said if k in shape and said[k] != shape[k]]
            if odd:
                yield _wrong(e, "config", f"config.json says {'; '.join(odd)}")
    for e, odd in _unlike(seen, lambda e: {k: repr(v) for k, v in (e.config or {}).items() if k not in INCIDENTAL}):
        there = [f"{k} {(e.config or {}).get(k)!r}" for k in odd]
        absent = all(k not in (e.config or {}) for k in odd)
        severity = "note" if absent else "wrong"
        yield Finding(e.model, e.step, "config", f"unlike at the other steps: {few(there, 3)}", severity)


def _implied(e: Evidence) -> dict[str, Any]:
    """What the tensors' names and shapes say of a model's shape."""
    layers = [int(m[1]) for n in e.tensors if (m := LAYER.search(n))]
    embeddings = [t["shape"] for n, t in e.tensors.items() if re.search(r"(embed_in|embed_tokens|wte)\.weight$", n)]
    implied: dict[str, Any] = {"layers": max(layers) + 1} if layers else {}
    return implied | (dict(zip(("vocab", "d_model"), embeddings[0], strict=True)) if embeddings else {})


def _unlike(
    evidence: Sequence[Evidence], stated: Callable[[Evidence], Mapping[str, Hashable]],
) -> list[tuple[Evidence, list[str]]]:
    """Checkpoints, and the names for which they state something else than most do (nothing counts as something)."""
    each = [stated(e) for e in evidence]
    names = dict.fromkeys(name for one in each for name in one)
    usual = {name: Counter(one.get(name) for one in each).most_common(1)[0][0] for name in names}
    odd = [(e, [n for n in names if one.get(n) != usual[n]]) for e, one in zip(evidence, each, strict=True)]
    return [(e, them) for e, them in odd if them]


def duplicates(evidence: Iterable[Evidence], main: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """Weight files that several checkpoints share, over all models at once.

    Expected: the first steps of a run whose first update has learning rate 0 (and whose second is below float16's
    resolution), runs that share an initialisation (at the same steps), and the last step with main. Of a group that
    holds the last step of a repository, the others are the wrong ones; of a folder's nobody knows. `main` gives
    {model: {file: digest}} of the main branch.
    """
    owners: dict[str, list[tuple[Evidence, str]]] = defaultdict(list)
    last: dict[str, int] = {}
    for e in evidence:
        for path, (_, digest) in e.weights.items():
            owners[digest].append((e, path))
        last[e.model] = max(last.get(e.model, 0), e.step)
    for digest, shared in owners.items():
        mains = {model for model, digests in main.items() if digest in digests.values()}
        for e, path in shared:
            model, step = e.model, e.step
            others = [(o.model, o.step) for o, _ in shared if o is not e]
            if model in mains and step != last[model]:
                others.append((model, "main"))  # type: ignore[arg-type]
            unsaid = not main.get(model) and not isinstance(e.checkpoint.location, Folder)
            owned = (model in mains or unsaid) and all(m == model for m, _ in others)
            if not others or (step == last[model] and owned):  # the last step's own file
                continue
            early = 2 if e.checkpoint.model.stored_dtype == "float16" else 1
            harmless = step <= early and all(s != "main" and s <= early for _, s in others)
            detail, severity = f"{path} is also that of {_names(model, others)}", "note" if harmless else "wrong"
            yield Finding(model, step, "duplicate", detail, severity)


def main_is_last(info: ModelInfo, evidence: Sequence[Evidence], main: Mapping[str, str]) -> Iterator[Finding]:
    """The main branch should hold the last step's weights; a remark when it holds neither those nor another step's."""
    with_files = [e for e in evidence if e.weights]
    if not main or not with_files or with_files[-1].step != max(e.step for e in evidence):
        return
    final = with_files[-1]
    digests = {path: digest for path, (_, digest) in final.weights.items()}
    if digests == main or not set(digests) & set(main):
        return
    yield Finding(info.name, final.step, "main", "the last step's weights are not those of main", "note")


def first_update(info: ModelInfo, evidence: Sequence[Evidence]) -> Iterator[Finding]:
    """With learning rate 0 in the first update, step 1 must equal step 0: else the run began from other weights."""
    if info.schedule.get("kind") != "neox-cosine" or not info.schedule.get("warmup"):
        return
    early = {e.step: e.tensors for e in sorted(evidence, key=lambda e: e.step) if e.tensors}
    if not {0, 1} <= early.keys():
        return
    moved = sorted(((_apart(early[0], early[1], n), n) for n in early[0].keys() & early[1].keys()), reverse=True)
    moved = [(share, name) for share, name in moved if share >= 0.01]
    if not moved:
        return
    then = early[list(early)[2]] if len(early) > 2 else early[1]  # tells which of the two the run went on from
    odd = max((0, 1), key=lambda step: sum(_apart(early[step], then, name) for _, name in moved if name in then))
    detail = (f"step1 does not descend from step0: {moved[0][1]} differs by {min(moved[0][0], 99):.0%} of its norm; "
              f"{few([name for _, name in moved], 3)}")
    yield Finding(info.name, odd, "first update", detail)


def _apart(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> float:
    """Distance of a tensor at two checkpoints, as a share of its norm (of one of 1e-3 per value, where it is smaller).
    """
    a, b = (np.frombuffer(tensors[name]["sketch"], dtype=np.float32) for tensors in (one, other))
    return float(np.linalg.norm(a - b)) / max(one[name]["norm"], 1e-3 * one[name]["size"] ** 0.5)


def initialisation(info: ModelInfo, evidence: Sequence[Evidence]) -> Iterator[Finding]:
    """Every matrix at step 0 against the declared initialisation: its deviation, and a mean of 0."""
    start = next((e for e in evidence if e.step == 0 and e.tensors), None)
    if start is None or info.initialisation is None or info.branch != "main":
        return
    most, residual = initial_std(info.initialisation, info.shape)
    odd, judged = [], 0
    for name, t in start.tensors.items():
        if len(t["shape"]) > 1 and t["size"] >= FEWEST and not t["nonfinite"]:
            std, few = residual if RESIDUAL.search(name) else most, t["size"] ** -0.5
            judged += 1
            if abs(t["std"] / std - 1) > STD_TOLERANCE + 2.2 * few or abs(t["mean"]) > std * (0.02 + 5 * few):
                odd.append(f"{name} has std {t['std']:.5f} and mean {t['mean']:.5f}, not {std:.5f} and 0")
    if not odd:
        return
    more = f"; {len(odd)} of {judged} matrices" if len(odd) > 1 else ""
    yield _wrong(start, "initialisation", f"{odd[0]}, which {info.initialisation} gives{more}")


def _names(model: str, others: Sequence[tuple[str, int | str]]) -> str:
    """`main, step 1, 2, … (77 in all)`, with the model's name where it is another."""
    mine = [s for m, s in others if m == model]
    parts = ["main"] if "main" in mine else []
    steps = sorted(s for s in mine if isinstance(s, int))
    if steps:
        parts.append(f"step {few(steps, 6)}")
    foreign = [f"{m} step {s}" for m, s in others if m != model]
    parts += foreign[:3] + ([f"… ({len(foreign)} of other models)"] if len(foreign) > 3 else [])
    return ", ".join(parts)
