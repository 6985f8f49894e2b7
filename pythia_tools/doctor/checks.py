"""The checks of an audit: from evidence to findings, without a file or a connection.

Smoothness: training moves an embedding step by step, so the checkpoint between two others lies between them. For
neighbours a, b, c with distances over the sampled rows, min(d(a,b), d(b,c)) / d(a,c) is about 0.5 on a straight
path, 0.7 on a random walk and at most 1 for noise about a fixed point, whatever the spacing; weights that belong
several checkpoints away give more. Threshold: 1.25. Weights of a near neighbour in time pass here; their files do not
(`duplicates`), and saved once more, in another layout or number format, their rows do not (`same rows`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pythia_tools.doctor.evidence import Evidence
from pythia_tools.suites import ModelInfo, initial_std, weight_bytes

DETOUR = 1.25
STD_TOLERANCE = 0.05
SIZE_SLACK = 0.01
SIZE_SLACK_BYTES = 2_000_000


@dataclass(frozen=True)
class Finding:
    """One fault (`wrong`) or remark (`note`) about one checkpoint."""

    model: str
    step: int
    check: str
    detail: str
    severity: str = "wrong"


def _wrong(e: Evidence, check: str, detail: str) -> Finding:
    return Finding(e.model, e.step, check, detail)


def loading(evidence: Sequence[Evidence]) -> list[Finding]:
    """Checkpoints that are missing or cannot be read, and those that hold NaN or infinity."""
    gone = [_wrong(e, "missing", e.problem) for e in evidence if e.problem is not None]
    return gone + [
        _wrong(e, "finite", f"NaN or infinity in {', '.join(e.not_finite[:4])}") for e in evidence if e.not_finite]


def sizes(info: ModelInfo, evidence: Sequence[Evidence]) -> list[Finding]:
    """Bytes of the weight files against the formula where the shape is known, else against the other steps."""
    found = []
    totals = {e.step: sum(size for size, _ in e.weights.values()) for e in evidence if e.weights}
    allowed = expected_bytes(info)
    if not allowed and totals:
        allowed = [Counter(totals.values()).most_common(1)[0][0]]
    for step, total in totals.items():
        if not any(want <= total <= want * (1 + SIZE_SLACK) + SIZE_SLACK_BYTES for want in allowed):
            wanted = " or ".join(f"{want:,}" for want in sorted(set(allowed)))
            detail = f"weight files hold {total:,} bytes, {wanted} expected (and a header)"
            found.append(Finding(info.name, step, "size", detail))
    return found


def expected_bytes(info: ModelInfo) -> list[int]:
    """Bytes of tensor data that a shape allows: in its stored dtype (any, when not stated), with and without masks."""
    if info.params is None:
        return []
    dtypes = [info.stored_dtype] if info.stored_dtype else ["float16", "float32"]
    layers, context = int(info.shape.get("layers", 0)), int(info.shape.get("context", 0))
    may_hold = info.buffers != "none" and info.shape.get("architecture") == "gpt_neox" and layers and context
    masks = [False, True] if may_hold else [False]
    return [weight_bytes(info.params, d, layers=layers, context=context, masks=m) for d in dtypes for m in masks]


def shapes(info: ModelInfo, evidence: Sequence[Evidence]) -> list[Finding]:
    """Tensor names and shapes: the same at every step, and as many parameters as stated."""
    seen = [e for e in evidence if e.shapes]
    if not seen:
        return []
    plain = {e.step: tuple(sorted((n, s) for n, (_, s) in e.shapes.items())) for e in seen}
    usual = Counter(plain.values()).most_common(1)[0][0]
    found = []
    for step, these in plain.items():
        if these != usual:
            odd = sorted(set(these) ^ set(usual))[:3]
            found.append(Finding(info.name, step, "shapes", f"tensors differ from the other steps': {odd}"))
            continue
        total = sum(int(np.prod(shape)) for _, shape in these)
        tied = int(info.shape.get("vocab", 0)) * int(info.shape.get("d_model", 0))  # left out where it is the input's
        if info.params is not None and total not in (info.params, info.params - tied):
            found.append(Finding(info.name, step, "shapes", f"{total:,} parameters, {info.params:,} expected"))
    return found


def duplicates(evidence: Iterable[Evidence], main: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    """Weight files that several checkpoints share, over all models at once.

    Expected: the first steps of a run whose first update has learning rate 0 (and whose second is below float16's
    resolution), runs that share an initialisation (at the same steps), and the last step with main. Of a group that
    holds the last step, the others are the wrong ones. `main` gives {model: {file: digest}} of the main branch.
    """
    owners: dict[str, list[tuple[Evidence, str]]] = defaultdict(list)
    last: dict[str, int] = {}
    for e in evidence:
        for path, (_, digest) in e.weights.items():
            owners[digest].append((e, path))
        last[e.model] = max(last.get(e.model, 0), e.step)
    found = []
    for digest, shared in owners.items():
        mains = {model for model, digests in main.items() if digest in digests.values()}
        for e, path in shared:
            model, step = e.model, e.step
            others = [(o.model, o.step) for o, _ in shared if o is not e]
            if model in mains and step != last[model]:
                others.append((model, "main"))  # type: ignore[arg-type]
            owned = (model in mains or not main.get(model)) and all(m == model for m, _ in others)
            if not others or (step == last[model] and owned):  # the last step's own file
                continue
            early = 2 if e.checkpoint.model.stored_dtype == "float16" else 1
            harmless = step <= early and all(s != "main" and s <= early for _, s in others)
            detail, severity = f"{path} is also that of {_names(model, others)}", "note" if harmless else "wrong"
            found.append(Finding(model, step, "duplicate", detail, severity))
    return found


def main_is_last(info: ModelInfo, evidence: Sequence[Evidence], main: Mapping[str, str]) -> list[Finding]:
    """The main branch should hold the last step's weights; a remark when it holds neither those nor another step's."""
    with_files = [e for e in evidence if e.weights]
    if not main or not with_files or with_files[-1].step != max(e.step for e in evidence):
        return []
    final = with_files[-1]
    digests = {path: digest for path, (_, digest) in final.weights.items()}
    if digests == main or not set(digests) & set(main):
        return []
    return [Finding(info.name, final.step, "main", "the last step's weights are not those of main", "note")]


def smooth(info: ModelInfo, evidence: Sequence[Evidence]) -> list[Finding]:
    """Embedding rows that leave the path of training (see the module), or that lie in two places at once.

    Checkpoints whose rows are another's are set aside first, and the worst offender before the next one is judged,
    so that a good checkpoint between bad ones is not blamed.
    """
    seen = [e for e in evidence if e.rows is not None and np.isfinite(e.rows).all()]
    usual = Counter(e.rows.shape for e in seen if e.rows is not None).most_common(1)
    seen = [e for e in seen if e.rows is not None and e.rows.shape == usual[0][0]]
    found, path = _same_rows(info, seen)
    while len(path) > 2:
        detours = [_detour(*three) for three in zip(path, path[1:], path[2:], strict=False)]
        worst = int(np.argmax(detours))
        if detours[worst] <= DETOUR:
            break
        before, here, after = path[worst : worst + 3]
        del path[worst + 1]
        a, b = before.step, after.checkpoint.step
        found.append(_wrong(here, "smooth", f"embedding rows are {detours[worst]:.1f} times as far from steps {a} and "
                                            f"{b} as these are from each other"))
    return found


def _detour(before: Evidence, here: Evidence, after: Evidence) -> float:
    direct = _distance(before, after)
    around = min(_distance(before, here), _distance(here, after))
    return around / direct if direct > 0 else (0.0 if around == 0 else float("inf"))


def _same_rows(info: ModelInfo, seen: Sequence[Evidence]) -> tuple[list[Finding], list[Evidence]]:
    """(rows equal bit for bit in different weight files, the checkpoints whose rows are their own).

    Where formats differ, rows are compared in the coarsest: a float16 copy of a float32 checkpoint has the same rows.
    Whole files in two places are `duplicates`' business, and the first steps may stand still.
    """
    groups: dict[bytes, list[Evidence]] = defaultdict(list)
    formats = {e.rows_dtype for e in seen}
    for e in seen:
        assert e.rows is not None
        groups[_rounded(e.rows, formats).tobytes()].append(e)
    last = max((e.step for e in seen), default=0)
    found, own = [], []
    for group in groups.values():
        if len(group) == 1 or all(e.step <= 2 for e in group):
            own += group
            continue
        own += [e for e in group if e.step == last]
        for e in group:
            others = [(info.name, o.step) for o in group if o.digests != e.digests]
            if others and e.step != last:
                detail = f"embedding rows are bit for bit those of {_names(info.name, others)}"
                found.append(_wrong(e, "same rows", detail))
    return found, sorted(own, key=lambda e: e.step)


def first_update(info: ModelInfo, evidence: Sequence[Evidence]) -> list[Finding]:
    """With learning rate 0 in the first update, step 1 must equal step 0: else the run began from other weights."""
    if info.schedule.get("kind") != "neox-cosine" or not info.schedule.get("warmup"):
        return []
    rows = {e.step: e.rows for e in evidence if e.rows is not None and e.step in (0, 1)}
    if len(rows) < 2 or rows[0].shape != rows[1].shape:
        return []
    moved = float(np.linalg.norm(rows[1] - rows[0]) / max(float(np.linalg.norm(rows[0])), 1e-30))
    detail = f"step1 does not descend from step0: rows differ by {moved:.0%} of their norm"
    return [Finding(info.name, 0, "first update", detail)] if moved >= 0.01 else []


def initialisation(info: ModelInfo, evidence: Sequence[Evidence]) -> list[Finding]:
    """Standard deviations at step 0 against the declared initialisation."""
    start = next((e for e in evidence if e.step == 0 and e.rows is not None), None)
    if start is None or info.initialisation is None or info.branch != "main":
        return []
    most, residual = initial_std(info.initialisation, info.shape)
    found = []
    for what, sample, expected in (("embedding", start.rows, most), ("attention output", start.residual, residual)):
        if sample is None or sample.size < 1000 or not np.isfinite(sample).all():
            continue
        std = float(sample.std())
        if abs(std / expected - 1) > STD_TOLERANCE + 3 / np.sqrt(2 * sample.size):
            detail = f"{what} std is {std:.5f}; {info.initialisation} gives {expected:.5f}"
            found.append(_wrong(start, "initialisation", detail))
    return found


def _rounded(rows: np.ndarray, formats: set[str]) -> np.ndarray:
    """Rows as they would be in the coarsest of these formats."""
    if len(formats) > 1 and "F16" in formats:
        rows = rows.astype(np.float16).astype(np.float32)
    if len(formats) > 1 and "BF16" in formats:
        bits = rows.view(np.uint32)
        rows = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).view(np.float32)  # to nearest, ties to even
    return rows


def _distance(x: Evidence, y: Evidence) -> float:
    assert x.rows is not None and y.rows is not None
    return float(np.linalg.norm(x.rows - y.rows))


def _names(model: str, others: Sequence[tuple[str, int | str]]) -> str:
    """`main, step 1, 2, … (77 in all)`, with the model's name where it is another."""
    mine = [s for m, s in others if m == model]
    parts = ["main"] if "main" in mine else []
    steps = sorted(s for s in mine if isinstance(s, int))
    if steps:
        more = f", … ({len(steps)} in all)" if len(steps) > 6 else ""
        parts.append(f"step {', '.join(map(str, steps[:6]))}{more}")
    foreign = [f"{m} step {s}" for m, s in others if m != model]
    parts += foreign[:3] + ([f"… ({len(foreign)} of other models)"] if len(foreign) > 3 else [])
    return ", ".join(parts)
