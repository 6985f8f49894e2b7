"""The case study of memorization for any suite with its order: one sweep, then every question of the literature.

1. Which rows are memorized, over sizes and steps; do counts per block follow a Poisson law (rows along the order)?
2. Do small models and early checkpoints foretell the largest model's last one? How does the share scale?
3. Causal profiles, and what is left of an exposure over time: rows sampled from each interval between checkpoints, against rows
   never consumed.
4. Membership inference: rows consumed early against rows never consumed, labels fixed over the checkpoints compared; by loss, zlib,
   min-k %, min-k++ %, and against a reference model of the suite.
5. Recitation, reconstruction or recollection: what kind of rows were memorized, with what may explain it.
6. Branches that consumed the same rows (interventions): their shares, and row by row against the run they left.

Cost: a pass over `rows` contexts and over (cohort rows + controls + split) whole windows per checkpoint, and two scans of the consumed
rows for exposure filters and duplicate counts. Everything computed is kept in `cells`, so a killed study resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch

from pythia_tools.analyses.memorization.branches import branch_differences
from pythia_tools.analyses.memorization.extract import Window
from pythia_tools.analyses.memorization.forgetting import align, forgetting_curve
from pythia_tools.analyses.memorization.measure import MemorizationTask
from pythia_tools.analyses.memorization.membership import (
    CHUNK,
    MAX_SHARE,
    NGRAM,
    Split,
    signals,
    summarize_membership,
    zlib_bytes,
)
from pythia_tools.analyses.memorization.order_effect import BLOCK, summarize_order
from pythia_tools.analyses.memorization.overlap import Overlap, duplicate_counts
from pythia_tools.analyses.memorization.predict import foresight, scaling
from pythia_tools.analyses.memorization.profiles import summarize_profiles
from pythia_tools.analyses.memorization.row_scores import RowScoreTask
from pythia_tools.analyses.memorization.summary import summarize, with_exposures
from pythia_tools.analyses.memorization.taxonomy import KINDS, features, kinds
from pythia_tools.analysis import sweep, token_scores
from pythia_tools.core import progress, tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import CellStore
from pythia_tools.core.statistics import wilson
from pythia_tools.suites.checkpoint import Checkpoint

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Design:
    """Which rows are asked. `rows`: consecutive ones from row 0 on, for counts per block. `per_cohort`: rows drawn from each
    interval between checkpoints. `controls`: rows never consumed, at most that many. Both must share at most `max_share` of their
    n-grams with other consumed rows.
    """

    rows: int = 16_384
    block: int = BLOCK
    per_cohort: int = 50
    controls: int = 500
    window: Window = field(default_factory=Window)
    length: int | None = None
    """Ids of a row whose loss is averaged (None: the whole row)."""
    max_share: float = MAX_SHARE
    reference: str | None = None
    """The main model whose loss at its last step is the reference of membership inference (None: the smallest)."""
    seed: int = 0


@dataclass(frozen=True)
class CaseStudy:
    """items (memorization), scores (per-row losses), kinds (one line per memorized row), summary (all numbers), weights, notes."""

    items: pd.DataFrame
    scores: pd.DataFrame
    kinds: pd.DataFrame
    summary: pd.DataFrame
    weights: dict[str, str]
    notes: list[str]


def case_study(
    checkpoints: Sequence[Checkpoint], order: Any, design: Design | None = None, *, decode: Decode | None = None,
    cells: CellStore | None = None, device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None, allow_defective: bool = False, screen: str | None = None,
) -> CaseStudy:
    """Measure everything in one sweep and summarize it. Raises RequestError for fewer than two checkpoints, or steps beyond the order."""
    design = design or Design()
    notes: list[str] = []
    main = [c for c in checkpoints if c.model.branch == "main"]
    bases = _bases(checkpoints, notes)
    _check_reference(design, main)
    steps = sorted({c.step for c in main})
    if len(steps) < 2:
        raise RequestError(f"a case study compares steps; {len(steps)} was given, choose at least two with --steps")
    if steps[-1] * order.batch_rows > order.n_rows:
        raise RequestError(f"step {steps[-1]} consumed more rows than order {order.name} has ({order.n_rows}); is it the suite's order?")
    sample = _Sample.draw(order, steps, design, notes)
    along = np.arange(min(design.rows, steps[-1] * order.batch_rows))
    window = order.take(along)[:, design.window.offset : design.window.offset + design.window.length]
    inner = Window(design.window.context, design.window.continuation, 0, design.window.vocabulary)
    tasks: list[Any] = [
        MemorizationTask(window, inner, row_ids=along, screen=screen),
        RowScoreTask(order.take(sample.rows), row_ids=sample.rows, length=design.length, vocabulary=design.window.vocabulary),
    ]
    swept = main + [c for c in checkpoints if c.model.name in bases]
    how: dict[str, Any] = {"cells": cells, "device": device, "dtype": dtype, "allow_defective": allow_defective}
    result = sweep(swept, tasks, **how)
    items = with_exposures(result["memorization"], [[b] for b in order.step_of(along)], row_ids=along)
    scores = result["row_scores"]
    last = max((c for c in main if c.step == steps[-1]), key=lambda c: c.model.params or 0)
    typed = _kinds(items, window, order, last, design, decode, notes, **how)
    own = scores[scores["branch"] == "main"]
    parts = [*_memorized(items, design, bases), *_dynamics(own, sample, order, design, decode, notes), _kind_shares(typed, items)]
    return CaseStudy(items, scores, typed, tables.check_summary(pd.concat(parts, ignore_index=True)), result.weights, notes)


def _bases(checkpoints: Sequence[Checkpoint], notes: list[str]) -> dict[str, str]:
    """Branch → base of all branches that consumed their base's order; others have no row in common by number."""
    models = {c.model.name: c.model for c in checkpoints}
    bases: dict[str, str] = {}
    for name, model in models.items():
        if model.branch == "main":
            continue
        base = models.get(model.base or "")
        if base is None or model.order != base.order:
            notes.append(f"branch {name} is left out: " + ("its base is not among the models" if base is None else "it has another order"))
        else:
            bases[name] = base.name
    return bases


def _check_reference(design: Design, main: Sequence[Checkpoint]) -> None:
    names = list(dict.fromkeys(c.model.name for c in main))
    if design.reference is not None and design.reference not in names:
        raise RequestError(f"the reference {design.reference!r} is not one of the main models compared: {', '.join(names)}")


@dataclass(frozen=True)
class _Sample:
    """rows (n,) whose losses are followed: cohorts, then controls; control (n,) bool."""

    rows: np.ndarray
    control: np.ndarray

    @staticmethod
    def draw(order: Any, steps: list[int], design: Design, notes: list[str]) -> _Sample:
        """Rows of each cohort, and rows never consumed, all passed through the same filter: text that occurs hardly anywhere else.

        One filter for both: rows of often repeated text are learned without being consumed, and would pass for memorized.
        """
        rng = np.random.default_rng(design.seed)
        size, last = order.batch_rows, steps[-1] * order.batch_rows
        spans = [(a * size, b * size) for a, b in pairwise(steps)]
        drawn = [a + rng.permutation(b - a)[: 4 * design.per_cohort] for a, b in spans]
        drawn.append(last + rng.permutation(order.n_rows - last)[: 4 * design.controls])
        rows = np.concatenate(drawn).astype(np.int64)
        cohort = np.repeat(np.arange(len(drawn)), [len(d) for d in drawn])
        overlap = Overlap(order.take(rows), min(NGRAM, order.seq_length + 1))
        for _, chunk in order.chunks(0, last, CHUNK):
            overlap.scan(chunk)
        share = np.where(cohort < len(spans), overlap.share_elsewhere(), overlap.share())
        clean = share <= design.max_share
        most = np.where(np.arange(len(drawn)) < len(spans), design.per_cohort, design.controls)
        picked = [rows[(cohort == c) & clean][: most[c]] for c in range(len(drawn))]
        spare = picked[-1]
        notes.append(
            f"{int(clean.sum())} of {len(rows)} rows drawn share at most {design.max_share:.0%} of their {NGRAM}-grams with other consumed "
            f"rows; of these {sum(map(len, picked[:-1]))} are followed, and {len(spare)} that were never consumed are their controls"
        )
        if not len(spare):
            notes.append(f"order {order.name} has no such rows beyond step {steps[-1]}: no causal profiles and no membership test")
        chosen = np.concatenate([np.sort(p) for p in picked])
        return _Sample(chosen, np.arange(len(chosen)) >= len(chosen) - len(spare))


def _memorized(everything: pd.DataFrame, design: Design, bases: dict[str, str]) -> Iterator[pd.DataFrame]:
    yield summarize(everything)
    yield summarize(everything, by="exposures")
    yield branch_differences(everything, bases)
    items = everything[everything["branch"] == "main"]
    if items["row"].nunique() >= 3 * design.block:
        yield summarize_order(items, block=design.block)
    if len(items[["model", "step"]].drop_duplicates()) > 1:
        yield foresight(items)
        yield scaling(items)


def _dynamics(
    scores: pd.DataFrame, sample: _Sample, order: Any, design: Design, decode: Decode | None, notes: list[str]
) -> Iterator[pd.DataFrame]:
    batches = np.where(sample.control, -1, order.step_of(sample.rows))
    aligned = align(scores, [[b] if b >= 0 else [] for b in batches], row_ids=sample.rows)
    if sample.control.sum() < 10:
        yield forgetting_curve(aligned, "nll")
        return
    yield forgetting_curve(_advantage(aligned, sample), "advantage")
    yield summarize_profiles(scores, batches, controls=sample.control, row_ids=sample.rows)
    yield _membership(scores, sample, batches, order, design, decode, notes)


def _advantage(scores: pd.DataFrame, sample: _Sample) -> pd.DataFrame:
    """With a column `advantage`: by how much a row's loss lies below the controls' mean at the same checkpoint.

    A loss falls over training for all rows alike; this is what is left of having consumed the row.
    """
    control = scores[scores["row"].isin(sample.rows[sample.control])]
    usual = control.groupby(["model", "step"])["nll"].mean()
    return scores.assign(advantage=usual.loc[pd.MultiIndex.from_frame(scores[["model", "step"]])].to_numpy() - scores["nll"].to_numpy())


def _membership(
    scores: pd.DataFrame, sample: _Sample, batches: np.ndarray, order: Any, design: Design, decode: Decode | None, notes: list[str]
) -> pd.DataFrame:
    """Members are rows consumed in the first half; compared from then on, against rows never consumed."""
    steps = sorted(scores["step"].unique())
    first = steps[len(steps) // 2]
    members = sample.rows[(batches >= 0) & (batches < first)]
    split = Split(members, sample.rows[sample.control], int(first), int(steps[-1]), design.max_share, 0)
    late = scores[(scores["step"] >= first) & scores["row"].isin(split.rows)].sort_values("row", kind="stable")
    names = late["row"].drop_duplicates().to_numpy()
    length = int(late["positions"].iloc[0]) + 1
    sizes = zlib_bytes(order.take(names)[:, :length], decode)
    notes.append(f"membership: {len(members)} rows consumed before step {first} against {int(sample.control.sum())} never consumed")
    name, reference = _reference(scores, design, notes)
    table = signals(late, sizes=sizes, reference=reference)
    if reference is not None:
        table.loc[table["model"] == name, "reference"] = np.nan  # a model says nothing against itself, or a later self
    return summarize_membership(table, split)


def _reference(scores: pd.DataFrame, design: Design, notes: list[str]) -> tuple[str, pd.DataFrame | None]:
    """The reference model's name and its losses at its last step; None where there is only one model."""
    sized = scores.drop_duplicates("model").sort_values("params", kind="stable")["model"]
    name = design.reference or str(sized.iloc[0])
    if len(sized) < 2:
        return name, None
    own = scores[scores["model"] == name]
    last = own[own["step"] == own["step"].max()]
    notes.append(f"membership against a reference: {name} at step {int(last['step'].iloc[0])}, which consumed the same rows")
    return name, last


def _kinds(
    items: pd.DataFrame, windows: np.ndarray, order: Any, last: Checkpoint, design: Design, decode: Decode | None, notes: list[str],
    **how: Any,
) -> pd.DataFrame:
    """One line per row that any checkpoint memorized: its kind (with a tokenizer), and what may explain it (`taxonomy.features`).

    Perplexities are those of the largest model's last checkpoint, counts those of the rows consumed by then.
    """
    rows = np.unique(items.loc[items["memorized"].fillna(False).astype(bool), "row"].to_numpy(dtype=np.int64))
    if not len(rows):
        notes.append("no row was memorized by any checkpoint")
        return pd.DataFrame({"row": rows, "duplicates": rows, "kind": pd.Series([], dtype=str)})
    held, counts = windows[rows], np.zeros(int(windows.max()) + 1, np.int64)
    duplicates = duplicate_counts(held, _counted(order.chunks(0, last.step * order.batch_rows, CHUNK), counts))
    nll = token_scores([last], held, vocabulary=design.window.vocabulary, **how)["nll"].to_numpy().reshape(len(held), -1)
    found = features(held, context=design.window.context, nll=nll, token_counts=counts, duplicates=duplicates).assign(row=rows, kind="")
    if decode is None:
        notes.append("no tokenizer: kinds of memorization were not told apart")
        return found
    return found.assign(kind=kinds(duplicates, [decode(r.tolist()) for r in held]))


def _counted(chunks: Iterable[tuple[int, np.ndarray]], counts: np.ndarray) -> Iterator[np.ndarray]:
    """The chunks' rows, while `counts` (ids,) grows by their ids; ids beyond it are no one's question."""
    for _, chunk in chunks:
        counts += np.bincount(chunk.ravel(), minlength=len(counts))[: len(counts)]
        yield chunk


def _kind_shares(typed: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """`kind_share` per checkpoint and kind, of the rows it memorized."""
    known = typed[typed["kind"] != ""].set_index("row")["kind"]
    lines = []
    for keys, part in items[items["memorized"].fillna(False).astype(bool)].groupby(tables.IDENTITY, sort=False, dropna=False):
        found = part["row"].map(known).dropna()
        for kind in KINDS if len(found) else ():
            estimate = wilson(int((found == kind).sum()), len(found), unit="row")
            identity = dict(zip(tables.IDENTITY, keys, strict=True))
            lines.append({**identity, "group": kind, "metric": "kind_share", **estimate.columns()})
    return tables.summary(lines)


def tell(notes: Sequence[str]) -> None:
    """Notes on stderr, one line each."""
    for line in notes:
        progress.note(line)
